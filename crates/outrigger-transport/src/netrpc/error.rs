//! Why a call has no reply.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use outrigger_gob::{DecodeError, EncodeError};
use outrigger_wire::{Coded, Excerpt};

use crate::broker::BrokerError;
use crate::fate::Fate;
use crate::router::RouteError;
use crate::yamux::YamuxError;

/// A call that failed: of which method, and why.
#[derive(Debug)]
pub struct CallError {
    method: String,
    kind: CallErrorKind,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Plain(&self.method), self.kind)
    }
}

impl Error for CallError {
    /// What is behind the kind, which is part of the text already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// A method's name without quotes, unless it needs them.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        match self.0.len() <= 120 && self.0.chars().all(plain) {
            true => f.write_str(self.0),
            false => Excerpt::new(self.0.as_bytes()).fmt(f),
        }
    }
}

impl CallError {
    pub(super) fn new(method: &str, kind: CallErrorKind) -> Self {
        Self {
            method: method.to_owned(),
            kind,
        }
    }

    /// The method that was called, such as `Plugin.Get`.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What happened.
    pub fn kind(&self) -> &CallErrorKind {
        &self.kind
    }

    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match &self.kind {
            CallErrorKind::Failed(_) => "netrpc-failed",
            CallErrorKind::TimedOut(_) | CallErrorKind::NotSent(_) => "netrpc-timed-out",
            CallErrorKind::Lost(Lost {
                cause: Cause::Beyond(_),
                ..
            }) => "netrpc-limit",
            CallErrorKind::Lost(_) => "netrpc-connection-lost",
            CallErrorKind::Argument(error) => error.code(),
            CallErrorKind::Reply(error) => error.code(),
            CallErrorKind::Unrouted(error) => error.code(),
            CallErrorKind::Undispensed(error) => error.code(),
        }
    }

    /// The text of the method's own error, where it was that.
    pub fn failure(&self) -> Option<&str> {
        match &self.kind {
            CallErrorKind::Failed(text) => Some(text),
            _ => None,
        }
    }
}

outrigger_wire::coded!(CallError);

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The method, or the peer's server, answered with an error: its whole text.
    #[error("the peer answered with an error: {}", Excerpt::new(.0.as_bytes()))]
    Failed(String),
    /// The caller waited no longer. The method may still be running.
    #[error("no reply within {} s; the method may still be running", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The connection took no more for so long: the peer does not know of the call.
    #[error("not sent within {} s, because the peer reads no more", .0.as_secs_f64())]
    NotSent(Duration),
    /// The connection ended first.
    #[error("the connection ended before the reply")]
    Lost(#[source] Lost),
    /// No plugin took the call, or its plugin was replaced under it.
    #[error("the plugin did not answer")]
    Unrouted(#[source] RouteError),
    /// The plugin of a routed call did not give the object that it is made to.
    #[error("the plugin did not give the object to call")]
    Undispensed(#[source] Box<SessionError>),
    /// The argument cannot be sent.
    #[error("the argument cannot be sent as gob")]
    Argument(#[source] EncodeError),
    /// The reply is not what was expected.
    #[error("the reply cannot be read")]
    Reply(#[source] DecodeError),
}

/// Why a connection ended.
#[derive(Clone, Debug)]
pub struct Lost {
    pub(super) cause: Cause,
    pub(super) fate: Option<Arc<dyn Error + Send + Sync>>,
}

#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// The peer closed it.
    Closed,
    /// The peer closed it in the middle of a value.
    Truncated,
    /// Reading or writing failed.
    Io(Arc<std::io::Error>),
    /// The peer sent more than this side reads.
    Beyond(Arc<DecodeError>),
    /// The peer sent what is no net/rpc.
    Malformed(Arc<DecodeError>),
}

impl Lost {
    /// Waits a moment for the reason behind a broken connection.
    pub(super) async fn explained(cause: Cause, fate: &Fate) -> Self {
        let fate = fate.known(Fate::PATIENCE).await;
        Self { cause, fate }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.fate, &self.cause) {
            (_, Cause::Closed) => "the peer closed it",
            (_, Cause::Truncated) => "the peer closed it in the middle of a value",
            (Some(_), Cause::Io(_)) => "the peer is gone",
            (None, Cause::Io(_)) => "it failed",
            (_, Cause::Beyond(_)) => "the peer sent more than is read",
            (_, Cause::Malformed(_)) => "the peer does not speak net/rpc",
        })
    }
}

impl Error for Lost {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match (&self.fate, &self.cause) {
            (_, Cause::Beyond(error) | Cause::Malformed(error)) => Some(&**error),
            (Some(fate), _) => Some(&**fate),
            (None, Cause::Io(error)) => Some(&**error),
            (None, Cause::Closed | Cause::Truncated) => None,
        }
    }
}

/// go-plugin's net/rpc session with a plugin, or what is dispensed from it, did
/// not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The multiplexed connection failed.
    #[error("the multiplexed connection failed")]
    Yamux(#[from] YamuxError),
    /// The peer did not open or accept its first streams.
    #[error("the peer did not open its three streams within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// A control call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The plugin's object could not be reached.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl SessionError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Yamux(error) => error.code(),
            Self::TimedOut(_) => "netrpc-no-streams",
            Self::Call(error) => error.code(),
            Self::Broker(error) => error.code(),
        }
    }
}

outrigger_wire::coded!(SessionError);
