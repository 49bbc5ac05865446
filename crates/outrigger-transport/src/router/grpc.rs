//! The way of a gRPC call that is routed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{GrpcMethod, Status};

use super::error::RouteError;
use super::route::{Entered, Route};
use super::safe::SafeToRepeat;
use crate::body::{Outgoing, whole_body};
use crate::channel::{Calling, Failure, Life, ResponseBody, Way};
use crate::connection::Connection;
use crate::http2::{set_timeout, timeout_of};
use crate::observe::{Naming, Observed};

/// Calls that go where a router says.
pub(super) struct Routed(pub(super) Arc<Route>);

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Routed").field(&self.0.plugin()).finish()
    }
}

impl Way for Routed {
    fn call(&self, request: Request<tonic::body::Body>) -> Calling {
        let observed = self.0.observer.get().map(|observer| {
            let naming = match request.extensions().get::<GrpcMethod<'static>>() {
                Some(_) => Naming::Generated,
                None => Naming::Called,
            };
            let path = request.uri().path_and_query().cloned();
            Observed::begin(observer.clone(), path, naming, request.headers())
        });
        let calling = call(self.0.clone(), request);
        match observed {
            Some(observed) => account(observed, calling).boxed(),
            None => calling.boxed(),
        }
    }

    fn life(&self) -> &Life {
        &self.0.life
    }

    fn close(&self) {
        if let Some(left) = self.0.end("this side closed it") {
            left.cut();
        }
    }
}

/// Keeps account of one call.
async fn account(
    mut observed: Observed,
    calling: impl Future<Output = Result<Response<ResponseBody>, Failure>>,
) -> Result<Response<ResponseBody>, Failure> {
    match calling.await {
        Ok(reply) => Ok(observed.through(reply, ResponseBody::new)),
        Err(failure) => {
            observed.end(failure.status.code());
            Err(failure)
        }
    }
}

async fn call(
    route: Arc<Route>,
    mut request: Request<tonic::body::Body>,
) -> Result<Response<ResponseBody>, Failure> {
    let deadline = timeout_of(request.headers()).map(|after| Instant::now() + after);
    let entered = match route.entered() {
        Ok(Some(entered)) => entered,
        Ok(None) => {
            let entered = route.wait(deadline, None).await;
            let entered = entered.map_err(|why| why.status())?;
            shorten(&mut request, deadline);
            entered
        }
        Err(why) => return Err(why.status().into()),
    };
    let spare = match is_safe(&request, &entered) {
        true => Spare::of(&mut request).await?,
        false => None,
    };
    let number = entered.number();
    let mut failure = match attempt(&route, entered, request).await {
        Ok(reply) => return Ok(reply),
        Err(failure) => failure,
    };
    let unsent = failure.unsent.take().map(|request| *request);
    let again = match failure.lost {
        true => unsent.or_else(|| spare.map(Spare::into_request)),
        false => None,
    };
    let Some(mut again) = again else {
        return Err(failure);
    };
    let Ok(next) = route.wait(deadline, Some(number)).await else {
        return Err(failure);
    };
    shorten(&mut again, deadline);
    attempt(&route, next, again).await
}

/// Makes the call in one generation.
async fn attempt(
    route: &Arc<Route>,
    entered: Entered,
    request: Request<tonic::body::Body>,
) -> Result<Response<ResponseBody>, Failure> {
    #[cfg_attr(
        not(feature = "netrpc"),
        expect(clippy::infallible_destructuring_match)
    )]
    let channel = match entered.connection() {
        Connection::Grpc(channel) => channel,
        #[cfg(feature = "netrpc")]
        Connection::NetRpc(_) => {
            let other = RouteError::other_protocol(route.plugin(), "net/rpc");
            return Err(other.status().into());
        }
    };
    let reply = tokio::select! {
        biased;
        reply = channel.carry(request) => reply?,
        () = entered.cut() => {
            let replaced = RouteError::replaced(route.plugin());
            return Err(Failure::lost(replaced.status()));
        }
    };
    if reply.body().is_end_stream() {
        return Ok(reply);
    }
    Ok(reply.map(|reply| {
        ResponseBody::new(Counted {
            reply,
            route: route.clone(),
            entered: Some(entered),
            cut: None,
        })
    }))
}

/// Tells the next peer how much is left of the call's time.
fn shorten(request: &mut Request<tonic::body::Body>, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        set_timeout(request.headers_mut(), left);
    }
}

fn is_safe(request: &Request<tonic::body::Body>, entered: &Entered) -> bool {
    request.extensions().get::<SafeToRepeat>().is_some()
        || entered.safe_methods().contains(request.uri().path())
}

/// What a request is made of again: its head, and all of its body.
struct Spare {
    head: Parts,
    body: Bytes,
}

impl Spare {
    /// Of a request whose body is all here; one that is streamed cannot be repeated.
    async fn of(request: &mut Request<tonic::body::Body>) -> Result<Option<Self>, Status> {
        let (head, body) = std::mem::take(request).into_parts();
        let body = Outgoing::look(body).await?;
        let spare = body.whole().map(|body| Self {
            head: head.clone(),
            body,
        });
        *request = Request::from_parts(head, body.into_body());
        Ok(spare)
    }

    fn into_request(self) -> Request<tonic::body::Body> {
        Request::from_parts(self.head, whole_body(self.body))
    }
}

/// The body of a reply, whose call is in flight until its end.
struct Counted {
    reply: ResponseBody,
    route: Arc<Route>,
    /// Until the end.
    entered: Option<Entered>,
    /// Waits for the generation to be cut off; made when the reply is waited for.
    cut: Option<BoxFuture<'static, ()>>,
}

impl Counted {
    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        let Some(entered) = &self.entered else {
            return false;
        };
        let cut = self.cut.get_or_insert_with(|| entered.cut().boxed());
        cut.poll_unpin(context).is_ready()
    }

    /// The call is over.
    fn end(&mut self) {
        self.reply = ResponseBody::default();
        self.cut = None;
        self.entered = None;
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let is_cut = self.entered.as_ref().is_some_and(Entered::is_cut);
        let frame = match is_cut {
            true => Poll::Pending,
            false => Pin::new(&mut self.reply).poll_frame(context),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {}
            Poll::Ready(_) => self.end(),
            Poll::Pending if is_cut || self.is_cut(context) => {
                self.end();
                let replaced = RouteError::replaced(self.route.plugin());
                return Poll::Ready(Some(Err(replaced.status())));
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
