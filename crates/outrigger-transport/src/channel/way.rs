//! What every way has that a channel's calls go over.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::fate::Fate;

/// A way for calls: one connection, or a router's choice among several.
pub(crate) trait Way: fmt::Debug + Send + Sync {
    /// Makes one call. Its deadline, which stands in its metadata, holds for the
    /// reply and the body of that.
    fn call(&self, request: Request<tonic::body::Body>) -> Calling;

    /// Whether it goes anywhere still.
    fn life(&self) -> &Life;

    /// Ends it: pending and later calls fail.
    fn close(&self);
}

/// A call that is being made.
pub(crate) type Calling = BoxFuture<'static, Result<Response<ResponseBody>, Failure>>;

/// A call without a reply.
pub(crate) struct Failure {
    /// What the caller is told.
    pub(crate) status: Status,
    /// Whether that is because the way's end is gone, and not the call's own fault.
    pub(crate) lost: bool,
    /// The request, of which nothing was sent.
    pub(crate) unsent: Option<Box<Request<tonic::body::Body>>>,
}

impl Failure {
    /// The call's way is gone.
    pub(crate) fn lost(status: Status) -> Self {
        Self {
            lost: true,
            ..Self::from(status)
        }
    }

    /// Gives the request back, which was not sent.
    pub(crate) fn unsent(mut self, request: Request<tonic::body::Body>) -> Self {
        self.unsent = Some(Box::new(request));
        self
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            status,
            lost: false,
            unsent: None,
        }
    }
}

/// Whether a way goes anywhere, and why not. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    fate: Fate,
    over: CancellationToken,
    end: Arc<OnceLock<String>>,
}

impl Life {
    pub(crate) fn new(fate: Fate) -> Self {
        Self {
            fate,
            over: CancellationToken::new(),
            end: Arc::default(),
        }
    }

    /// Says why it ends; the first reason stays.
    pub(crate) fn explain_end(&self, why: impl Into<String>) {
        let _ = self.end.set(why.into());
    }

    /// Ends it when the returned value is dropped.
    pub(crate) fn end_with(&self) -> DropGuard {
        self.over.clone().drop_guard()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(crate) fn end(&self) -> Option<&str> {
        self.end.get().map(String::as_str)
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// The body of a reply. It keeps its connection open. The default one is empty.
#[derive(Default)]
pub struct ResponseBody(Option<Pin<Box<dyn Body<Data = Bytes, Error = Status> + Send>>>);

impl ResponseBody {
    pub(crate) fn new(body: impl Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Some(Box::pin(body)))
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Some(body) => body.as_mut().poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
