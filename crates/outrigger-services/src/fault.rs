//! Why an operation for a plugin did not happen, in two wordings: a short one
//! for the plugin and the full one for the operator's log.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use outrigger_manifest::Denial;
use outrigger_wire::proto::host::Failure;
use outrigger_wire::text::shortened;
use outrigger_wire::{ErrorInfo, Excerpt, HOST_DOMAIN, SystemError};
use rustix::io::Errno;
use tonic::{Code, Status};

/// The most bytes of each text that a plugin is told: peers take few kilobytes of
/// trailers, where some bytes need three.
const MOST_TOLD: usize = 1024;
/// The most bytes of a reason in the log.
const MOST_LOGGED: usize = 2048;

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The path leads out of what was granted.
    Outside,
    /// No grant covers it.
    Denied(Box<Denial>),
    /// The path lies beneath nothing that was granted.
    Uncovered(Box<Denial>),
    /// No grant covers it, for a reason that the plugin may know.
    Ungranted {
        code: &'static str,
        text: String,
        /// The grant that would be needed.
        missing: String,
    },
    /// A rule of the host forbids it whatever is granted; the reason is for the
    /// log only.
    Refused(Cow<'static, str>),
    /// The system refused it.
    System(Errno),
    /// It failed for a reason that the plugin may know.
    Failed {
        code: &'static str,
        status: Code,
        text: Cow<'static, str>,
    },
    /// The lease names nothing that is held here.
    UnknownLease,
    /// The message itself makes no sense.
    Abuse(Cow<'static, str>),
    /// A limit is used up.
    Exhausted {
        code: &'static str,
        text: String,
        /// When it may work again.
        after: Option<Duration>,
    },
    /// The host does not do that at all.
    Unsupported(&'static str),
    /// The operation took longer than `call_timeout`.
    Deadline,
    /// The plugin did not wait for the end.
    Cancelled,
    /// A panic of ours.
    Broken,
    /// The operation would have to wait on a thread that must not. It is then run on
    /// another one: no plugin is told.
    WouldWait,
}

/// How a contract with errors in its replies tells the plugin.
pub(crate) enum Delivery {
    /// In the reply's `error`.
    InReply(Cow<'static, str>),
    /// As the status of the call.
    Status(Status),
}

impl Fault {
    /// It failed for a reason that the plugin may know.
    pub(crate) fn failed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::failed_as("failed", Code::FailedPrecondition, text)
    }

    /// [`failed`](Self::failed) with a stable code and status of its own.
    pub(crate) fn failed_as(
        code: &'static str,
        status: Code,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        let text = text.into();
        Self::Failed { code, status, text }
    }

    /// The message makes no sense.
    pub(crate) fn abuse(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Abuse(text.into())
    }

    /// A message did not arrive: it was too long or none of the contract, or the
    /// plugin did not send it to its end.
    pub(crate) fn unread(status: &Status) -> Self {
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted | Code::Internal | Code::InvalidArgument => {
                let text = Excerpt::from(status.message());
                Self::abuse(format!("the message cannot be read: {text}"))
            }
            _ => Self::Cancelled,
        }
    }

    /// A rule of the host forbids it.
    pub(crate) fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(reason.into())
    }

    /// A limit is used up for as long as what uses it.
    pub(crate) fn exhausted(code: &'static str, text: impl Into<String>) -> Self {
        let (text, after) = (text.into(), None);
        Self::Exhausted { code, text, after }
    }

    /// The status of the call, with `google.rpc.ErrorInfo`. `operation` is its
    /// full name, such as `filesystem.open`.
    pub(crate) fn status(&self, operation: &str) -> Status {
        self.status_as(self.status_code(), operation)
    }

    /// [`status`](Self::status) with the code that the call failed with already.
    pub(crate) fn status_as(&self, code: Code, operation: &str) -> Status {
        let text = self.public();
        let mut metadata = BTreeMap::from([("operation".to_owned(), operation.to_owned())]);
        match self {
            Self::Denied(_) | Self::Uncovered(_) | Self::Ungranted { .. } => {
                metadata.insert("missing".into(), self.missing().into_owned());
            }
            Self::System(errno) => {
                metadata.insert("errno".into(), system(*errno).name().into_owned());
            }
            Self::Exhausted {
                after: Some(after), ..
            } => {
                let after = after.as_millis().max(1).to_string();
                metadata.insert("retry_after_ms".into(), after);
            }
            _ => {}
        }
        let info = ErrorInfo {
            reason: self.code().to_owned(),
            domain: HOST_DOMAIN.to_owned(),
            metadata,
        };
        let message = format!("{operation}: {text}");
        let details = info.encode_with(code.into(), &message);
        Status::with_details(code, message, details.into())
    }

    /// The public wording, where replies carry it.
    pub(crate) fn delivery(&self) -> Delivery {
        let status = |code, text: &str| Delivery::Status(Status::new(code, text));
        match self {
            Self::Abuse(text) => status(Code::InvalidArgument, text),
            Self::Exhausted { text, .. } => status(Code::ResourceExhausted, text),
            Self::Deadline => status(Code::DeadlineExceeded, &self.public()),
            Self::Cancelled => status(Code::Cancelled, &self.public()),
            Self::Broken | Self::WouldWait => status(Code::Internal, &self.public()),
            Self::UnknownLease => Delivery::InReply("no such handle".into()),
            Self::Outside
            | Self::Denied(_)
            | Self::Uncovered(_)
            | Self::Ungranted { .. }
            | Self::Refused(_)
            | Self::System(_)
            | Self::Failed { .. }
            | Self::Unsupported(_) => Delivery::InReply(self.public()),
        }
    }

    /// What the plugin may know, short enough for a header.
    pub(crate) fn public(&self) -> Cow<'static, str> {
        shortened(self.public_text(), MOST_TOLD)
    }

    fn public_text(&self) -> Cow<'static, str> {
        match self {
            Self::Outside | Self::Uncovered(_) => "outside the granted directory".into(),
            Self::Denied(_) | Self::Refused(_) => "not permitted by the host".into(),
            Self::System(errno) => system(*errno).to_string().into(),
            Self::Failed { text, .. } => text.clone(),
            Self::Ungranted { text, .. } => text.clone().into(),
            Self::UnknownLease => "no such lease".into(),
            Self::Abuse(text) => text.clone(),
            Self::Exhausted { text, .. } => text.clone().into(),
            Self::Unsupported(text) => (*text).into(),
            Self::Deadline => "the host did not finish in time".into(),
            Self::Cancelled => "the call was given up".into(),
            Self::Broken | Self::WouldWait => "the host failed".into(),
        }
    }

    fn status_code(&self) -> Code {
        match self {
            Self::Outside
            | Self::Denied(_)
            | Self::Uncovered(_)
            | Self::Ungranted { .. }
            | Self::Refused(_) => Code::PermissionDenied,
            Self::System(errno) => Code::from(system(*errno).status()),
            Self::Failed { status, .. } => *status,
            Self::UnknownLease => Code::NotFound,
            Self::Abuse(_) => Code::InvalidArgument,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Broken | Self::WouldWait => Code::Internal,
        }
    }

    /// Whether the operator should see it: someone tried what was not granted,
    /// or more than was.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Outside
            | Self::Denied(_)
            | Self::Uncovered(_)
            | Self::Ungranted { .. }
            | Self::Refused(_)
            | Self::Abuse(_)
            | Self::Exhausted { .. }
            | Self::UnknownLease
            | Self::Unsupported(_) => true,
            Self::System(_)
            | Self::Failed { .. }
            | Self::Deadline
            | Self::Cancelled
            | Self::Broken
            | Self::WouldWait => false,
        }
    }

    /// The wording of the log.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        shortened(self.reason_text(), MOST_LOGGED)
    }

    fn reason_text(&self) -> Cow<'static, str> {
        match self {
            Self::Outside => "the path leads out of the granted directory".into(),
            Self::Denied(denial) | Self::Uncovered(denial) => denial.to_string().into(),
            Self::Refused(reason) => reason.clone(),
            Self::UnknownLease => "no such lease on this connection".into(),
            Self::Deadline => "not finished within `call_timeout`".into(),
            Self::Cancelled => "the plugin did not wait for the end".into(),
            Self::Broken | Self::WouldWait => "a panic in the host's service".into(),
            Self::System(_)
            | Self::Failed { .. }
            | Self::Ungranted { .. }
            | Self::Abuse(_)
            | Self::Exhausted { .. }
            | Self::Unsupported(_) => self.public(),
        }
    }

    /// The rule that decided; empty where no rule did.
    pub(crate) fn rule(&self) -> String {
        match self {
            Self::Denied(denial) | Self::Uncovered(denial) => denial.rule().to_owned(),
            Self::Outside => "paths stay beneath their grant".into(),
            Self::Ungranted { .. } => "no grant covers it".into(),
            Self::Refused(_) => "rules of the host".into(),
            Self::Exhausted { .. } => "limits".into(),
            Self::UnknownLease => "leases belong to one connection".into(),
            Self::Abuse(_) | Self::Unsupported(_) => "the contract".into(),
            Self::System(_)
            | Self::Failed { .. }
            | Self::Deadline
            | Self::Cancelled
            | Self::Broken
            | Self::WouldWait => String::new(),
        }
    }

    /// The grant that would have been needed; it may be cut.
    pub(crate) fn missing(&self) -> Cow<'_, str> {
        let missing = match self {
            Self::Denied(denial) | Self::Uncovered(denial) => denial.missing().unwrap_or_default(),
            Self::Ungranted { missing, .. } => missing,
            _ => "",
        };
        shortened(missing, MOST_TOLD)
    }

    /// The stable code of this kind of fault.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Outside => "outside-grant",
            Self::Denied(denial) => denial.code(),
            Self::Uncovered(_) => "outside-grant",
            Self::Refused(_) => "forbidden",
            Self::System(errno) => system(*errno).reason(),
            Self::Failed { code, .. }
            | Self::Ungranted { code, .. }
            | Self::Exhausted { code, .. } => code,
            Self::UnknownLease => "unknown-lease",
            Self::Abuse(_) => "malformed-request",
            Self::Unsupported(_) => "unsupported",
            Self::Deadline => "call-timeout",
            Self::Cancelled => "cancelled",
            Self::Broken | Self::WouldWait => "internal",
        }
    }
}

/// A status as a message says it.
pub(crate) fn failure(status: &Status) -> Failure {
    let info = ErrorInfo::find(status.details(), HOST_DOMAIN).unwrap_or_default();
    Failure {
        status: status.code().into(),
        message: status.message().to_owned(),
        reason: info.reason,
        metadata: info.metadata.into_iter().collect(),
    }
}

impl From<Denial> for Fault {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            // How the kernel says that a resolution left its start.
            Errno::XDEV => Self::Outside,
            errno => Self::System(errno),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Errno::from_raw_os_error(SystemError::of(&error).raw()).into()
    }
}

/// What is told of it.
fn system(errno: Errno) -> SystemError {
    SystemError::from_raw(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn in_band(fault: Fault) -> String {
        match fault.delivery() {
            Delivery::InReply(text) => text.into_owned(),
            Delivery::Status(status) => panic!("a status: {status}"),
        }
    }

    #[test]
    fn system_errors_read_as_go_prints_them() {
        assert_eq!(
            in_band(Fault::from(Errno::NOENT)),
            "no such file or directory"
        );
        assert_eq!(in_band(Fault::from(Errno::EXIST)), "file exists");
    }

    #[test]
    fn a_refusal_says_that_and_only_the_log_says_why() {
        let fault = Fault::refused("it has more than one name");
        assert_eq!(fault.reason(), "it has more than one name");
        assert_eq!(in_band(fault), "not permitted by the host");
        assert_eq!(
            in_band(Fault::from(Errno::XDEV)),
            "outside the granted directory"
        );
    }

    #[test]
    fn a_status_carries_its_reason_and_what_the_system_said() {
        let status = Fault::System(Errno::NOTEMPTY).status("filesystem.remove");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "filesystem.remove: directory not empty");
        let info = status.get_details_error_info().expect("there");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("system-error", "outrigger.host")
        );
        assert_eq!(
            info.metadata.get("errno").map(String::as_str),
            Some("ENOTEMPTY")
        );
        let limit = Fault::Exhausted {
            code: "too-fast",
            text: "slow down".into(),
            after: Some(Duration::from_millis(20)),
        };
        let status = limit.status("clock.now");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let info = status.get_details_error_info().expect("there");
        assert_eq!(
            info.metadata.get("retry_after_ms").map(String::as_str),
            Some("20")
        );
        assert_eq!(
            info.metadata.get("operation").map(String::as_str),
            Some("clock.now")
        );
    }
}
