//! How many calls of one plugin are in hand at the same time: from before the
//! first byte of a request is read until the last byte of its reply is taken.
//! A plugin that sends requests in halves, or takes no replies, uses up its own
//! calls and no other plugin's.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use outrigger_wire::Excerpt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::operation::Operation;
use crate::running::Begun;
use crate::session::Session;

/// A call that ended before it began an operation.
pub(crate) const CALL: Operation = Operation::of_session("call");

/// How many calls one connection may have in hand: all its services share it.
#[derive(Clone)]
pub(crate) struct CallLimit {
    session: Arc<Session>,
    permits: Arc<Semaphore>,
}

impl CallLimit {
    /// `calls` at a time; a call that waits longer than `call_timeout` for its turn
    /// is refused.
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let calls = session.limits().calls.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(calls));
        Self { session, permits }
    }

    /// `service`, whose calls count here.
    pub(crate) fn wrap<S>(&self, service: S) -> Limited<S> {
        let limit = self.clone();
        Limited { service, limit }
    }

    async fn permit(self) -> Option<OwnedSemaphorePermit> {
        let permit = self.permits.acquire_owned();
        let permit = tokio::time::timeout(self.session.limits().call_timeout, permit);
        permit.await.ok()?.ok()
    }
}

/// A service whose calls count towards a limit.
#[derive(Clone)]
pub(crate) struct Limited<S> {
    service: S,
    limit: CallLimit,
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, B> Service<Request<B>> for Limited<S>
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

    fn call(&mut self, mut request: Request<B>) -> Answer {
        let (mut service, limit) = (self.service.clone(), self.limit.clone());
        let mut call = PendingCall {
            session: limit.session.clone(),
            uri: request.uri().clone(),
            begun: Begun::default(),
            answered: false,
        };
        request.extensions_mut().insert(call.begun.clone());
        Box::pin(async move {
            let Some(permit) = limit.permit().await else {
                call.answered = true;
                let text = "too many calls are in hand already (`calls`)";
                let full = Fault::exhausted("too-many-calls", text);
                call.turn_away(&full);
                return Ok(full.status(&CALL.full_name()).into_http());
            };
            let mut reply = service.call(request).await?;
            call.answered = true;
            if !call.begun.get() {
                let fault = unread(&mut reply, call.uri.path());
                call.turn_away(&fault);
            }
            Ok(reply.map(|body| {
                Body::new(CountedBody {
                    body,
                    _permit: permit,
                })
            }))
        })
    }
}

/// A call until it is answered. One that is given up before it began an operation
/// is recorded when this is dropped.
struct PendingCall {
    session: Arc<Session>,
    uri: Uri,
    begun: Begun,
    answered: bool,
}

impl PendingCall {
    /// Records that the call ended before it began an operation.
    fn turn_away(&self, fault: &Fault) {
        turn_away(&self.session, &self.uri, fault);
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.answered && !self.begun.get() {
            self.turn_away(&Fault::Cancelled);
        }
    }
}

fn turn_away(session: &Session, uri: &Uri, fault: &Fault) {
    let show = |shown: &mut Arguments| {
        shown.text("method", uri.path());
    };
    session.recorder().turn_away(CALL, show, fault);
}

/// What answers calls to services that the host does not have. Such a call does not
/// count: it is answered at once.
#[derive(Clone)]
pub(crate) struct UnknownService(pub(crate) Arc<Session>);

impl<B> Service<Request<B>> for UnknownService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (service, _) = names(request.uri().path());
        let fault = Fault::Unsupported("the host has no such service");
        turn_away(&self.0, request.uri(), &fault);
        let text = format!("the host has no service {}", Excerpt::from(service));
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
            let text = format!(
                "{} has no method {}",
                Excerpt::from(service),
                Excerpt::from(method)
            );
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

/// The body of a reply: its call counts until the body is taken or dropped.
struct CountedBody {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for CountedBody {
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
