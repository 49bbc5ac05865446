//! How many calls of one plugin are in hand at the same time: from before the
//! first byte of a request is read until the last byte of its reply is taken.
//! A plugin that sends requests in halves, or takes no replies, fills its own
//! places and nothing else.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// The places of one connection, shared by its services.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Gate {
    /// So many places; who waits longer than `patience` for one is sent away.
    pub(crate) fn new(places: usize, patience: Duration) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, patience }
    }

    /// `service`, whose calls take places here.
    pub(crate) fn wrap<S>(&self, service: S) -> Gated<S> {
        Gated {
            service,
            gate: self.clone(),
        }
    }
}

/// A service of which one connection uses only so many places.
#[derive(Clone, Debug)]
pub(crate) struct Gated<S> {
    service: S,
    gate: Gate,
}

impl<S: NamedService> NamedService for Gated<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let (mut service, gate) = (self.service.clone(), self.gate.clone());
        Box::pin(async move {
            let place = match gate.places.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    let place = gate.places.acquire_owned();
                    match tokio::time::timeout(gate.patience, place).await {
                        Ok(Ok(place)) => place,
                        Ok(Err(_)) | Err(_) => return Ok(full().into_http()),
                    }
                }
            };
            let reply = service.call(request).await?;
            Ok(reply.map(|body| {
                Body::new(Held {
                    body,
                    _place: place,
                })
            }))
        })
    }
}

fn full() -> Status {
    Status::resource_exhausted("too many calls are in hand already (`calls`)")
}

/// The body of a reply, which keeps its place until it is taken or dropped.
struct Held {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
