//! Why the host did not do something.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use outrigger_transport::{BrokerError, errno_name};
use outrigger_wire::proto::host::Failure;
use prost::Message;
use tonic::{Code, Status};

/// Where the host's details are meant for this package.
const DOMAIN: &str = "outrigger.host";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

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
    metadata: HashMap<String, String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// `google.rpc.Status`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

impl HostError {
    /// The host's own code where it gave one, such as `not-granted`,
    /// `not-found`, `quota-exhausted`; else a code of this library.
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
            metadata: HashMap::new(),
            source: None,
        }))
    }

    fn caused(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn status(operation: &'static str, status: Status) -> Self {
        let details = RpcStatus::decode(status.details())
            .unwrap_or_default()
            .details;
        let info = details
            .iter()
            .filter(|detail| detail.type_url == ERROR_INFO)
            .filter_map(|detail| ErrorInfo::decode(detail.value.as_slice()).ok())
            .find(|info| info.domain == DOMAIN);
        let (code, metadata) = match info {
            Some(info) => (Cow::Owned(info.reason), info.metadata),
            None => (Cow::Borrowed("host-call-failed"), HashMap::new()),
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
            metadata: failure.metadata,
            source: None,
        }))
    }

    pub(crate) fn system(operation: &'static str, error: io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::AlreadyExists => Code::AlreadyExists,
            io::ErrorKind::InvalidInput => Code::InvalidArgument,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => Code::Unavailable,
            _ => Code::FailedPrecondition,
        };
        let text = format!("{operation}: {error}");
        let errno = error.raw_os_error().map(errno_name);
        let mut failed = Self::local("system-error", operation, status, text);
        let errno = errno.map(|name| ("errno".to_owned(), name));
        failed.0.metadata.extend(errno);
        failed.caused(error)
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
        let kind = match error.grpc_code() {
            Code::NotFound => io::ErrorKind::NotFound,
            Code::AlreadyExists => io::ErrorKind::AlreadyExists,
            Code::PermissionDenied => io::ErrorKind::PermissionDenied,
            Code::InvalidArgument => io::ErrorKind::InvalidInput,
            Code::ResourceExhausted => io::ErrorKind::QuotaExceeded,
            Code::DeadlineExceeded => io::ErrorKind::TimedOut,
            Code::Unavailable => io::ErrorKind::ConnectionAborted,
            Code::Unimplemented => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_details_are_read_from_a_status() {
        let info = ErrorInfo {
            reason: "not-granted".into(),
            domain: DOMAIN.into(),
            metadata: HashMap::from([("missing".into(), "filesystem: read /x".into())]),
        };
        let details = RpcStatus {
            details: vec![Detail {
                type_url: ERROR_INFO.into(),
                value: info.encode_to_vec(),
            }],
        };
        let details = details.encode_to_vec().into();
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
    fn a_system_error_of_ours_has_the_name_that_the_host_gives_it() {
        for (raw, name) in [(9, "EBADF"), (28, "ENOSPC"), (71, "71")] {
            let error = io::Error::from_raw_os_error(raw);
            let error = HostError::system("filesystem.write", error);
            assert_eq!(error.errno(), Some(name));
        }
        let error = io::ErrorKind::UnexpectedEof.into();
        let error = HostError::system("filesystem.read", error);
        assert_eq!(error.errno(), None);
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
