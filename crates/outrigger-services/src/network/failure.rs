//! What goes wrong on the network, as faults.

use std::io;
use std::time::Duration;

use outrigger_wire::{Excerpt, SystemError};
use rustix::io::Errno;
use tonic::Code;

use crate::fault::Fault;

/// A problem of a connection.
pub(crate) fn io(error: &io::Error) -> Fault {
    if error.raw_os_error().is_none() {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => return Fault::System(Errno::CONNRESET),
            io::ErrorKind::Unsupported => {
                return Fault::Unsupported("the host's dialer makes no such sockets");
            }
            io::ErrorKind::InvalidData => return peer(error.to_string()),
            _ => {}
        }
    }
    Fault::System(Errno::from_raw_os_error(SystemError::of(error).raw()))
}

/// The peer broke its protocol, or could not prove who it is.
pub(crate) fn peer(text: impl Into<String>) -> Fault {
    Fault::failed_as("peer-failed", Code::FailedPrecondition, text.into())
}

/// The name has no addresses.
pub(crate) fn unresolved(name: &str) -> Fault {
    let text = format!("{} has no addresses", Excerpt::from(name));
    Fault::failed_as("name-not-found", Code::NotFound, text)
}

/// Not finished in time; `setting` says whose bound it was.
pub(crate) fn late(setting: &str, limit: Duration) -> Fault {
    let text = format!("not finished within {} ms (`{setting}`)", limit.as_millis());
    Fault::failed_as("network-timeout", Code::DeadlineExceeded, text)
}

/// Something of the host's own does not work.
pub(crate) fn broken(text: &'static str) -> Fault {
    Fault::failed_as("internal", Code::Internal, text)
}
