//! How calls end, for whoever keeps account of them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::trace::TraceContext;

/// Keeps account of calls: of those that are made over a
/// [`Router`](crate::Router)'s channel, or answered by a
/// [`ServiceSet`](crate::ServiceSet). It runs within each call, so it must be quick.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use outrigger_transport::{CallObserver, EndedCall};
///
/// #[derive(Debug, Default)]
/// struct Failures(AtomicU64);
///
/// impl CallObserver for Failures {
///     fn ended(&self, call: &EndedCall<'_>) {
///         if call.code != tonic::Code::Ok {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait CallObserver: fmt::Debug + Send + Sync {
    /// A call begins.
    fn begun(&self) {}

    /// It has ended: each that begins does, once.
    fn ended(&self, call: &EndedCall<'_>);
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct EndedCall<'a> {
    /// Its method, as `kv.v1.Kv/Get`.
    pub method: &'a str,
    /// Whether there is such a method, as far as can be known: generated code named
    /// it, or it was answered. Otherwise its name may be anything.
    pub is_known: bool,
    /// The status of its reply, or why there was none. A call that is given up is
    /// [`Code::Cancelled`].
    pub code: Code,
    /// From when it was made, or arrived, to the end of its reply.
    pub took: Duration,
    /// What it belongs to.
    pub trace: Option<&'a TraceContext>,
}

/// The name of a status code in upper case, as gRPC's documents write it.
///
/// # Examples
/// ```
/// use outrigger_transport::code_name;
///
/// assert_eq!(code_name(tonic::Code::NotFound), "NOT_FOUND");
/// ```
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// One call under observation. Dropped before its end, it was given up.
pub(crate) struct Observed {
    observer: Arc<dyn CallObserver>,
    path: Option<PathAndQuery>,
    naming: Naming,
    begun: Instant,
    trace: Option<TraceContext>,
    has_ended: bool,
}

/// How the name of a method came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By generated code of the caller.
    Generated,
    /// By the caller, at run time: there is such a method if it was answered.
    Called,
    /// By the peer, of a service that is here: there is such a method unless the
    /// service says that there is none.
    Served,
    /// By the peer, of a service that is not here.
    Unserved,
}

impl Naming {
    fn is_known(self, code: Code) -> bool {
        match self {
            Self::Generated => true,
            Self::Called => code == Code::Ok,
            Self::Served => code != Code::Unimplemented,
            Self::Unserved => false,
        }
    }
}

impl Observed {
    pub(crate) fn begin(
        observer: Arc<dyn CallObserver>,
        path: Option<PathAndQuery>,
        naming: Naming,
        headers: &HeaderMap,
    ) -> Self {
        observer.begun();
        Self {
            observer,
            path,
            naming,
            begun: Instant::now(),
            trace: TraceContext::of(headers),
            has_ended: false,
        }
    }

    /// The call is over; what is said later does not count.
    pub(crate) fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let path = self.path.as_ref().map_or("", PathAndQuery::path);
        self.observer.ended(&EndedCall {
            method: path.strip_prefix('/').unwrap_or(path),
            is_known: self.naming.is_known(code),
            code,
            took: self.begun.elapsed(),
            trace: self.trace.as_ref(),
        });
    }

    /// Takes note of what came of a reply's body.
    pub(crate) fn saw(&mut self, frame: &Option<Result<Frame<Bytes>, Status>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.end(status.code()),
            // A reply without a status is none.
            None => self.end(Code::Unknown),
        }
    }

    /// The reply, observed until its end.
    pub(crate) fn through<B>(
        mut self,
        reply: Response<B>,
        wrap: impl FnOnce(ObservedBody<B>) -> B,
    ) -> Response<B> {
        if let Some(code) = code_in(reply.headers()) {
            self.end(code);
            return reply;
        }
        reply.map(|body| wrap(ObservedBody { body, call: self }))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// The status that headers or trailers name.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// The body of a reply to a call under observation.
pub(crate) struct ObservedBody<B> {
    body: B,
    call: Observed,
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.call.saw(&frame);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
