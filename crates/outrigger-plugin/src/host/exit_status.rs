//! How commands end.

use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::exit_status;

use super::HostError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended by itself with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    pub(super) fn from_wire(
        status: Option<messages::ExitStatus>,
        operation: &'static str,
    ) -> Result<Self, HostError> {
        match status.and_then(|status| status.end) {
            Some(exit_status::End::Code(code)) => Ok(Self::Code(code)),
            Some(exit_status::End::Signal(signal)) => Ok(Self::Signal(signal)),
            None => Err(HostError::protocol(operation)),
        }
    }
}
