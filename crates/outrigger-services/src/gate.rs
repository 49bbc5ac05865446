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
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::argument::Argument;
use crate::fault::Fault;
use crate::session::{self, Operation, Session};
use crate::text::Quoted;

/// A call that ended before it began an operation.
pub(crate) const CALL: Operation = Operation::of_session("call");

/// The places of one connection, shared by its services.
#[derive(Clone)]
pub(crate) struct Gate {
    session: Arc<Session>,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Gate {
    /// `calls` places; who waits longer than `call_timeout` for one is sent away.
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let limits = session.limits();
        Self {
            places: Arc::new(Semaphore::new(limits.calls.min(Semaphore::MAX_PERMITS))),
            patience: limits.call_timeout,
            session,
        }
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
#[derive(Clone)]
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
        let (session, uri) = (gate.session.clone(), request.uri().clone());
        let call = async move {
            let place = match gate.places.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    let place = gate.places.acquire_owned();
                    match tokio::time::timeout(gate.patience, place).await {
                        Ok(Ok(place)) => place,
                        Ok(Err(_)) | Err(_) => return Ok(Err(full())),
                    }
                }
            };
            let reply = service.call(request).await?;
            Ok(Ok(reply.map(|body| {
                Body::new(Held {
                    body,
                    _place: place,
                })
            })))
        };
        let unbegun = move |outcome: Option<&mut Outcome>| {
            let fault = match outcome {
                None => Fault::Cancelled,
                Some(Ok(Err(_))) => full(),
                Some(Ok(Ok(reply))) => unread(reply, uri.path()),
                Some(Err(never)) => match *never {},
            };
            let shown = |shown: &mut Argument| {
                shown.text("method", uri.path());
            };
            session.turn_away(CALL, shown, &fault);
        };
        Box::pin(async move {
            let outcome: Outcome = session::watched(call, unbegun).await;
            Ok(outcome?.unwrap_or_else(|fault| fault.status(&CALL.full_name()).into_http()))
        })
    }
}

/// What answers calls to services that the host does not have. It takes no place:
/// it waits for nobody.
#[derive(Clone)]
pub(crate) struct Unserved(pub(crate) Arc<Session>);

impl<B> Service<Request<B>> for Unserved {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (service, _) = names(request.uri().path());
        let fault = Fault::Unsupported("the host has no such service");
        let shown = |shown: &mut Argument| {
            shown.text("method", request.uri().path());
        };
        self.0.turn_away(CALL, shown, &fault);
        let text = format!("the host has no service {}", Quoted(service));
        std::future::ready(Ok(told(&fault, Code::Unimplemented, &text).into_http()))
    }
}

/// Service and method of a request's path.
fn names(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

/// What a plugin is told of `fault`, with the name that it used.
fn told(fault: &Fault, code: Code, text: &str) -> Status {
    let operation = CALL.full_name();
    let details = fault.status_as(code, &operation);
    let details = Bytes::copy_from_slice(details.details());
    Status::with_details(code, format!("{operation}: {text}"), details)
}

/// A reply, or why the call got no place.
type Outcome = Result<Result<Response<Body>, Fault>, Infallible>;

fn full() -> Fault {
    Fault::exhausted(
        "too-many-calls",
        "too many calls are in hand already (`calls`)",
    )
}

/// Why a call was answered without an operation: its message was too long or
/// none of the contract, or its method is not. The reply then says so as others
/// do.
fn unread(reply: &mut Response<Body>, path: &str) -> Fault {
    let Some(status) = Status::from_header_map(reply.headers()) else {
        return Fault::Broken;
    };
    let (fault, status) = match status.code() {
        code @ Code::Unimplemented => {
            let fault = Fault::Unsupported("the service has no such method");
            let (service, method) = names(path);
            let text = format!("{} has no method {}", Quoted(service), Quoted(method));
            let status = told(&fault, code, &text);
            (fault, status)
        }
        code => {
            let fault = Fault::unread(&status);
            let status = fault.status_as(code, &CALL.full_name());
            (fault, status)
        }
    };
    *reply = status.into_http();
    fault
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
