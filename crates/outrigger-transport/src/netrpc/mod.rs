//! Go's `net/rpc` over any byte stream, and go-plugin's use of it.
//!
//! - [`Client`] and [`serve`] are the two ends of one connection: calls in any
//!   number at the same time, replies in any order.
//! - [`HostSession`] and [`PluginSession`] are the two ends of go-plugin's main
//!   connection: a yamux session whose first three streams are calls, stdout and
//!   stderr. [`MuxBroker`] opens the further ones.
//!
//! The protocol knows neither deadlines nor cancellation. A caller that stops
//! waiting leaves the method running at the other end; the late reply is read
//! and dropped.
//!
//! This module deliberately does not know what methods mean, or how a plugin is
//! started.

mod broker;
mod budget;
mod client;
mod error;
mod outgoing;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use outrigger_gob::{GoString, Gob};

pub use self::broker::MuxBroker;
pub use self::budget::Budget;
pub(crate) use self::client::{BoxTurn, Connected, Objects, Turn};
pub use self::client::{Client, Reply};
pub use self::error::{CallError, CallErrorKind, SessionError};
use self::server::serve_within;
pub use self::server::{Method, Methods, serve};
pub use self::session::{HostSession, MirroredStreams, PluginSession};
pub use crate::server::MAX_VALUE;

/// The name under which go-plugin serves every dispensed or brokered object.
pub const SERVICE_NAME: &str = "Plugin";

/// How long a broker id waits for the other side, as in go-plugin.
pub const BROKER_WAIT: Duration = Duration::from_secs(5);

/// A value that takes this many bytes took long to look at: others go first.
const LARGE: usize = 1 << 20;

/// The first half of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Gob)]
struct Request {
    service_method: String,
    seq: u64,
}

/// The first half of a reply. Its body is an empty struct when `error` is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Gob)]
struct Response {
    service_method: String,
    seq: u64,
    /// Go's texts need not be UTF-8.
    error: GoString,
}
