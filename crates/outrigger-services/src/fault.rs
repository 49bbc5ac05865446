//! Why an operation for a plugin did not happen, in two wordings: a short one
//! for the plugin and the full one for the operator's log.

use std::borrow::Cow;
use std::io;

use rustix::io::Errno;
use tonic::Status;

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The path leads out of what was granted.
    Outside,
    /// The grant does not cover it; the reason is for the log only.
    Refused(&'static str),
    /// The system refused it.
    System(Errno),
    /// It failed for a reason of ours that the plugin may know.
    Failed(Cow<'static, str>),
    /// The handle names nothing that is open here.
    UnknownHandle,
    /// The message itself makes no sense.
    Abuse(&'static str),
    /// A limit is used up.
    Exhausted(String),
    /// The operation took longer than `call_timeout`.
    Deadline,
    /// A panic of ours.
    Broken,
}

/// What the plugin is told.
pub(crate) enum Told {
    /// In the reply's `error`.
    InBand(Cow<'static, str>),
    /// As the status of the call.
    Status(Status),
}

impl Fault {
    /// The public wording.
    pub(crate) fn told(&self) -> Told {
        Told::InBand(match self {
            Self::Outside => "outside the granted directory".into(),
            Self::Refused(_) => "not permitted by the host".into(),
            Self::System(errno) => system_text(*errno).into(),
            Self::Failed(text) => text.clone(),
            Self::UnknownHandle => "no such handle".into(),
            Self::Abuse(text) => return Told::Status(Status::invalid_argument(*text)),
            Self::Exhausted(text) => return Told::Status(Status::resource_exhausted(text)),
            Self::Deadline => {
                let text = "the host did not finish in time";
                return Told::Status(Status::deadline_exceeded(text));
            }
            Self::Broken => return Told::Status(Status::internal("the host failed")),
        })
    }

    /// Whether the operator should see it: someone tried what was not granted.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Outside | Self::Refused(_) | Self::Abuse(_))
    }

    /// The wording of the log.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Outside => "the path leads out of the granted directory".into(),
            Self::Refused(reason) | Self::Abuse(reason) => (*reason).into(),
            Self::System(errno) => system_text(*errno).into(),
            Self::Failed(text) => text.clone(),
            Self::UnknownHandle => "no such handle on this connection".into(),
            Self::Exhausted(text) => text.clone().into(),
            Self::Deadline => "not finished within `call_timeout`".into(),
            Self::Broken => "a panic in the host's service".into(),
        }
    }

    /// The stable code of this kind of fault.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Outside => "outside-grant",
            Self::Refused(_) => "not-granted",
            Self::System(_) => "system-error",
            Self::Failed(_) => "failed",
            Self::UnknownHandle => "unknown-handle",
            Self::Abuse(_) => "malformed-request",
            Self::Exhausted(_) => "limit-reached",
            Self::Deadline => "call-timeout",
            Self::Broken => "internal",
        }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        match errno {
            // Both are how the kernel says that a resolution left its start.
            Errno::XDEV => Self::Outside,
            errno => Self::System(errno),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            // cap-std's own refusal to leave the directory carries no number.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::Outside,
            None if error.kind() == io::ErrorKind::InvalidInput => Self::System(Errno::INVAL),
            None => Self::System(Errno::IO),
        }
    }
}

/// The system's own words, as Go prints them: without a number, in lower case.
fn system_text(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => format!("error {}", errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_band(fault: Fault) -> String {
        match fault.told() {
            Told::InBand(text) => text.into_owned(),
            Told::Status(status) => panic!("a status: {status}"),
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
        let fault = Fault::Refused("the grant is read-only");
        assert_eq!(fault.reason(), "the grant is read-only");
        assert_eq!(in_band(fault), "not permitted by the host");
        assert_eq!(
            in_band(Fault::from(Errno::XDEV)),
            "outside the granted directory"
        );
    }
}
