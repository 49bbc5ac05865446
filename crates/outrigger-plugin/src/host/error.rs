//! Why the host did not do something.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use outrigger_transport::BrokerError;
use outrigger_wire::proto::host::Failure;
use outrigger_wire::{ErrorInfo, HOST_DOMAIN, SystemError};
use tonic::{Code, Status};

/// The host did not do something, or could not be asked.
///
/// Its words say that something was refused, not why: that is in the host's
/// records. [`missing`](Self::missing) names the grant that a manifest would have
/// to ask for.
#[derive(Debug)]
pub struct HostError(Box<Facts>);

#[derive(Debug)]
struct Facts {
    code: Cow<'static, str>,
    operation: Cow<'static, str>,
    text: String,
    status: Code,
    metadata: BTreeMap<String, String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl HostError {
    /// The host's own code where it gave one, such as `not-granted`,
    /// `not-found`, `quota-exhausted`; for what the system says of a descriptor the
    /// one that the host would give; else a code of this library.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What was asked for, as the host's records name it: `filesystem.open`.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The grant that would have been needed, in the manifest's words.
    pub fn missing(&self) -> Option<&str> {
        self.detail("missing")
    }

    /// The name of the system's error, such as `ENOENT`, where there was one.
    pub fn errno(&self) -> Option<&str> {
        self.detail("errno")
    }

    /// When to try again, where a rate was exceeded.
    pub fn retry_after(&self) -> Option<Duration> {
        let millis = self.detail("retry_after_ms")?.parse().ok()?;
        Some(Duration::from_millis(millis))
    }

    /// The kind of failure, as gRPC has it.
    pub fn grpc_code(&self) -> Code {
        self.0.status
    }

    /// Whether the host refused it, rather than failed at it.
    pub fn is_refusal(&self) -> bool {
        self.0.status == Code::PermissionDenied
    }

    /// Whether what was named is not there.
    pub fn is_not_found(&self) -> bool {
        self.0.status == Code::NotFound
    }

    /// As the standard library has it: what the system said comes before what the
    /// status says.
    fn io_kind(&self) -> io::ErrorKind {
        if let Some(system) = self.errno().and_then(SystemError::from_name) {
            return io::Error::from_raw_os_error(system.raw()).kind();
        }
        let source = self.source().and_then(|source| source.downcast_ref());
        if let Some(source) = source.map(io::Error::kind) {
            return source;
        }
        match self.grpc_code() {
            Code::NotFound => io::ErrorKind::NotFound,
            Code::AlreadyExists => io::ErrorKind::AlreadyExists,
            Code::PermissionDenied => io::ErrorKind::PermissionDenied,
            Code::InvalidArgument => io::ErrorKind::InvalidInput,
            Code::ResourceExhausted => io::ErrorKind::QuotaExceeded,
            Code::DeadlineExceeded => io::ErrorKind::TimedOut,
            Code::Unavailable => io::ErrorKind::ConnectionAborted,
            Code::Unimplemented => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        }
    }

    fn detail(&self, key: &str) -> Option<&str> {
        let text = self.0.metadata.get(key)?.as_str();
        (!text.is_empty()).then_some(text)
    }

    pub(crate) fn local(
        code: &'static str,
        operation: &'static str,
        status: Code,
        text: impl Into<String>,
    ) -> Self {
        Self(Box::new(Facts {
            code: code.into(),
            operation: operation.into(),
            text: text.into(),
            status,
            metadata: BTreeMap::new(),
            source: None,
        }))
    }

    pub(crate) fn caused(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn status(operation: &'static str, status: Status) -> Self {
        let (code, metadata) = match ErrorInfo::find(status.details(), HOST_DOMAIN) {
            Some(info) => (Cow::Owned(info.reason), info.metadata),
            None => (Cow::Borrowed("host-call-failed"), BTreeMap::new()),
        };
        let text = status.message().to_owned();
        let grpc = status.code();
        Self(Box::new(Facts {
            code,
            operation: operation.into(),
            text,
            status: grpc,
            metadata,
            source: Some(Box::new(status)),
        }))
    }

    pub(crate) fn failure(operation: &'static str, failure: Failure) -> Self {
        Self(Box::new(Facts {
            code: failure.reason.into(),
            operation: operation.into(),
            text: failure.message,
            status: Code::from(failure.status),
            metadata: failure.metadata.into_iter().collect(),
            source: None,
        }))
    }

    /// What the system says of a descriptor, as the host says it of a lease.
    pub(crate) fn system(operation: &'static str, error: io::Error) -> Self {
        let system = SystemError::of(&error);
        let text = format!("{operation}: {system}");
        let mut failed = Self::local(system.reason(), operation, system.status().into(), text);
        let name = system.name().into_owned();
        failed.0.metadata.insert("errno".to_owned(), name);
        failed.caused(error)
    }

    /// The file ends before all that was asked for.
    pub(crate) fn unexpected_end(operation: &'static str) -> Self {
        let text = format!("{operation}: unexpected end of file");
        let failed = Self::local("unexpected-end", operation, Code::OutOfRange, text);
        failed.caused(io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// The file was asked for as text, and is none.
    pub(crate) fn not_text(operation: &'static str, error: std::string::FromUtf8Error) -> Self {
        let text = format!("{operation}: {error}");
        let failed = Self::local("not-utf-8", operation, Code::FailedPrecondition, text);
        failed.caused(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    pub(crate) fn broker(error: BrokerError) -> Self {
        let (code, text) = (error.code(), "the host's services could not be reached");
        Self::local(code, "host.connect", Code::Unavailable, text).caused(error)
    }

    pub(crate) fn protocol(operation: &'static str) -> Self {
        let text = format!("{operation}: the host's answer is not what was asked for");
        Self::local("unexpected-answer", operation, Code::Internal, text)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        if let Some(missing) = self.missing() {
            write!(f, "; it takes {missing}")?;
        }
        Ok(())
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source as &(dyn Error + 'static))
    }
}

impl From<HostError> for io::Error {
    fn from(error: HostError) -> Self {
        Self::new(error.io_kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_details_are_read_from_a_status() {
        let info = ErrorInfo {
            reason: "not-granted".into(),
            domain: HOST_DOMAIN.into(),
            metadata: BTreeMap::from([("missing".into(), "filesystem: read /x".into())]),
        };
        let details = info.encode_with(7, "open: no").into();
        let status = Status::with_details(Code::PermissionDenied, "open: no", details);
        let error = HostError::status("filesystem.open", status);
        assert_eq!(error.code(), "not-granted");
        assert_eq!(error.missing(), Some("filesystem: read /x"));
        assert!(error.is_refusal());
        assert_eq!(error.to_string(), "open: no; it takes filesystem: read /x");
        assert_eq!(
            io::Error::from(error).kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn a_system_error_of_ours_is_what_the_host_says_of_it() {
        for raw in (1..200).chain([4095]) {
            let system = SystemError::from_raw(raw);
            let error = HostError::system("filesystem.write", io::Error::from_raw_os_error(raw));
            assert_eq!(error.errno(), Some(&*system.name()));
            assert_eq!(error.code(), system.reason());
            assert_eq!(error.grpc_code(), Code::from(system.status()));
            assert_eq!(error.to_string(), format!("filesystem.write: {system}"));
            let kind = io::Error::from_raw_os_error(raw).kind();
            assert_eq!(io::Error::from(error).kind(), kind);
        }
    }

    #[test]
    fn what_no_system_said_has_a_code_of_this_library_and_keeps_its_kind() {
        let invalid = String::from_utf8(vec![0xff]).expect_err("no text");
        for (error, code, kind) in [
            (
                HostError::unexpected_end("filesystem.read"),
                "unexpected-end",
                io::ErrorKind::UnexpectedEof,
            ),
            (
                HostError::not_text("filesystem.read", invalid),
                "not-utf-8",
                io::ErrorKind::InvalidData,
            ),
        ] {
            assert_eq!((error.code(), error.errno()), (code, None));
            assert_eq!(io::Error::from(error).kind(), kind);
        }
    }

    #[test]
    fn a_status_without_details_is_an_error_all_the_same() {
        for details in [&b""[..], b"\xff\xff\xff"] {
            let status = Status::with_details(Code::Unavailable, "gone", details.into());
            let error = HostError::status("clock.now", status);
            assert_eq!(error.code(), "host-call-failed");
            assert_eq!(error.missing(), None);
        }
    }
}
