//! What a method fails with.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

use crate::netrpc::{CallError, CallErrorKind};

/// What a method of an interface fails with: the error that the other side
/// answered with, or the reason why there is no answer.
///
/// Over gRPC the code and the message cross, over net/rpc only the message; the
/// caller of a net/rpc method sees [`Code::Unknown`].
///
/// # Examples
/// ```
/// use outrigger_transport::interface::{Code, MethodError};
///
/// let error = MethodError::new(Code::NotFound, "nobody is called Ada");
/// assert_eq!(error.code(), Code::NotFound);
/// assert_eq!(error.message(), "nobody is called Ada");
/// ```
#[derive(Debug)]
pub struct MethodError(Cause);

#[derive(Debug)]
enum Cause {
    Grpc(Box<Status>),
    NetRpc(Box<CallError>),
}

impl MethodError {
    /// An error to answer a call with. The caller learns both `code` and `message`
    /// over gRPC, and `message` over net/rpc.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status::new(code, message).into()
    }

    /// What kind of error it is. [`Code::Unavailable`] is a connection that has ended,
    /// [`Code::DeadlineExceeded`] a reply that did not come in time.
    pub fn code(&self) -> Code {
        match &self.0 {
            Cause::Grpc(status) => status.code(),
            Cause::NetRpc(error) => match error.kind() {
                CallErrorKind::Failed(_) => Code::Unknown,
                CallErrorKind::TimedOut(_) | CallErrorKind::NotSent(_) => Code::DeadlineExceeded,
                CallErrorKind::Lost(_)
                | CallErrorKind::Unrouted(_)
                | CallErrorKind::Undispensed(_) => Code::Unavailable,
                CallErrorKind::Argument(_) | CallErrorKind::Reply(_) => Code::Internal,
            },
        }
    }

    /// The whole text, as the other side wrote it where the error is its own:
    /// escape it before it is shown. It is empty where the cause is all there is
    /// to say.
    pub fn message(&self) -> &str {
        match &self.0 {
            Cause::Grpc(status) => status.message(),
            Cause::NetRpc(error) => error.failure().unwrap_or_default(),
        }
    }
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Grpc(status) => status.fmt(f),
            Cause::NetRpc(error) => error.fmt(f),
        }
    }
}

impl Error for MethodError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Grpc(status) => status.source(),
            Cause::NetRpc(error) => error.source(),
        }
    }
}

impl From<Status> for MethodError {
    fn from(status: Status) -> Self {
        Self(Cause::Grpc(Box::new(status)))
    }
}

impl From<CallError> for MethodError {
    fn from(error: CallError) -> Self {
        Self(Cause::NetRpc(Box::new(error)))
    }
}

impl From<MethodError> for Status {
    fn from(error: MethodError) -> Self {
        let code = error.code();
        match error.0 {
            Cause::Grpc(status) => *status,
            Cause::NetRpc(call) => Status::new(code, sent(*call)),
        }
    }
}

/// The text that crosses over net/rpc.
impl From<MethodError> for String {
    fn from(error: MethodError) -> Self {
        match error.0 {
            Cause::Grpc(status) if status.message().is_empty() => {
                status.code().description().to_owned()
            }
            Cause::Grpc(status) => status.message().to_owned(),
            Cause::NetRpc(error) => sent(*error),
        }
    }
}

/// A failure of a call that is passed on: its own words, if it has any.
fn sent(error: CallError) -> String {
    match error.failure() {
        Some(text) => text.to_owned(),
        None => error.to_string(),
    }
}
