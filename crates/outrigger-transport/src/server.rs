//! The answering end: gRPC services on HTTP/2 connections.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tracing::Instrument;

use crate::authority::Authorities;
use crate::body::{IncomingBody, send_reply};
use crate::gzip;
use crate::headers::{HeaderReader, Headers, MAX_HEADER_LIST};
use crate::http2::{
    MAX_FRAME, SEND_BUFFER, SMALL_FRAMES, STREAM_WINDOW, connection_window, timeout_of,
};
use crate::observe::{CallObserver, Naming, Observed};
use crate::stream::Stream;
use crate::through::Through;
use crate::trace::TraceContext;

/// Descriptors of go-plugin's own services and the standard ones beside them,
/// for [`ServiceSet::describe`].
pub const GO_PLUGIN_DESCRIPTORS: &[u8] = include_bytes!("generated/go_plugin.bin");

/// How much of a name that a peer made up is told back, in bytes.
const MAX_NAME: usize = 120;

/// The gRPC services of one server, found by name. Clones share them.
///
/// # Examples
/// ```
/// use outrigger_transport::{ServiceSet, health};
///
/// let services = ServiceSet::new().with(health::service());
/// assert_eq!(services.names().collect::<Vec<_>>(), ["grpc.health.v1.Health"]);
/// ```
#[derive(Clone, Default)]
pub struct ServiceSet {
    services: Arc<BTreeMap<&'static str, Arc<dyn Answer>>>,
    /// What answers for all others.
    otherwise: Option<Arc<dyn Answer>>,
    descriptors: Vec<&'static [u8]>,
    observer: Option<Arc<dyn CallObserver>>,
}

impl ServiceSet {
    /// No service: every call is answered with `UNIMPLEMENTED`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service; one of the same name is replaced.
    pub fn add<S>(&mut self, service: S)
    where
        S: tower_service::Service<
                Request<IncomingBody>,
                Response = Response<Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.add_named(S::NAME, service);
    }

    /// Adds a service under a name that is known only at run time; one of the
    /// same name is replaced.
    pub fn add_named<S>(&mut self, name: &'static str, service: S)
    where
        S: tower_service::Service<
                Request<IncomingBody>,
                Response = Response<Body>,
                Error = Infallible,
            > + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let mut services = BTreeMap::clone(&self.services);
        services.insert(name, Arc::new(Answering(service)));
        self.services = Arc::new(services);
    }

    /// [`add`](Self::add), for building in one expression.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: tower_service::Service<
                Request<IncomingBody>,
                Response = Response<Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.add(service);
        self
    }

    /// Lets `service` answer the calls to services that are not there, instead of a
    /// plain `UNIMPLEMENTED`: for whoever keeps account of them.
    #[must_use]
    pub fn otherwise<S>(mut self, service: S) -> Self
    where
        S: tower_service::Service<
                Request<IncomingBody>,
                Response = Response<Body>,
                Error = Infallible,
            > + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.otherwise = Some(Arc::new(Answering(service)));
        self
    }

    /// Adds an encoded `FileDescriptorSet` for reflection to serve, where that is
    /// built in.
    #[must_use]
    pub fn describe(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Lets `observer` keep account of all calls, also of those to services that are
    /// not there.
    #[must_use]
    pub fn observed(mut self, observer: Arc<dyn CallObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Takes over the services and descriptors of `other`, what answers for all
    /// others, and who keeps account of calls.
    pub fn merge(&mut self, other: ServiceSet) {
        let mut services = BTreeMap::clone(&self.services);
        services.extend(
            other
                .services
                .iter()
                .map(|(name, service)| (*name, service.clone())),
        );
        self.services = Arc::new(services);
        self.otherwise = other.otherwise.or(self.otherwise.take());
        self.descriptors.extend(other.descriptors);
        self.observer = other.observer.or(self.observer.take());
    }

    /// The full names of the services, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.services.keys().copied()
    }

    /// The same services and a reflection service (v1 and v1alpha) over them.
    #[cfg(feature = "reflection")]
    #[must_use]
    pub fn with_reflection(mut self) -> Self {
        let mut names: Vec<String> = self.names().map(String::from).collect();
        names.extend(
            [
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
            .map(String::from),
        );
        names.sort();
        let (v1, v1alpha) = crate::reflection::services(names, &self.descriptors);
        self.add(v1);
        self.add(v1alpha);
        self
    }

    /// Begins to keep account of a call, if somebody does.
    fn observe<B>(&self, request: &Request<B>) -> Option<Observed> {
        let observer = self.observer.clone()?;
        let uri = request.uri();
        let naming = match self.services.contains_key(service_of(uri.path())) {
            true => Naming::Served,
            false => Naming::Unserved,
        };
        let (path, headers) = (uri.path_and_query().cloned(), request.headers());
        Some(Observed::begin(observer, path, naming, headers))
    }

    fn answer(&self, request: Request<IncomingBody>) -> BoxFuture<'static, Response<Body>> {
        let name = service_of(request.uri().path());
        let service = self.services.get(name).or(self.otherwise.as_ref());
        let Some(service) = service else {
            let shown = name.get(..MAX_NAME).unwrap_or(name).escape_debug();
            let status = Status::unimplemented(format!("this server has no service `{shown}`"));
            return std::future::ready(status.into_http()).boxed();
        };
        let Some(after) = timeout_of(request.headers()) else {
            return service.answer(request);
        };
        let reply = service.answer(request);
        Box::pin(async move {
            match tokio::time::timeout(after, reply).await {
                Ok(reply) => reply,
                Err(_) => Status::deadline_exceeded("the call's deadline passed").into_http(),
            }
        })
    }
}

/// The service in the path of a call.
fn service_of(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

impl tower_service::Service<Request<IncomingBody>> for ServiceSet {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> Self::Future {
        self.answer(request).map(Ok).boxed()
    }
}

impl std::fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

trait Answer: Send + Sync {
    fn answer(&self, request: Request<IncomingBody>) -> BoxFuture<'static, Response<Body>>;
}

struct Answering<S>(S);

impl<S> Answer for Answering<S>
where
    S: tower_service::Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync,
    S::Future: Send + 'static,
{
    fn answer(&self, request: Request<IncomingBody>) -> BoxFuture<'static, Response<Body>> {
        let reply = self.0.clone().call(request);
        Box::pin(async move {
            match reply.await {
                Ok(reply) => reply,
                Err(never) => match never {},
            }
        })
    }
}

/// The largest value that net/rpc sends or reads unless it is told otherwise, in bytes.
pub const MAX_VALUE: usize = 64 << 20;

/// What one connection may make a server hold.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Calls at the same time on one connection.
    pub concurrent_calls: u32,
    /// How long a peer may take to begin HTTP/2.
    pub handshake: Duration,
    /// How long running calls may go on once the server stops.
    pub drain: Duration,
    /// The largest argument or reply over net/rpc, in bytes. The arguments of all
    /// calls of a session may take about twice that at a time.
    pub max_value: usize,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            concurrent_calls: 1024,
            handshake: Duration::from_secs(120),
            drain: Duration::from_millis(200),
            max_value: MAX_VALUE,
        }
    }
}

/// Answers calls on one connection until the peer closes it or `stop` fires;
/// then running calls have [`ServeLimits::drain`] to finish.
///
/// An `:authority` that is none, such as the path of a unix socket, is replaced by
/// one of the same length ([`outrigger_wire::AuthorityFilter`]).
///
/// # Cancel safety
/// Dropping the future closes the connection and drops its running calls.
pub async fn serve_connection(
    stream: Stream,
    services: ServiceSet,
    limits: ServeLimits,
    stop: CancellationToken,
) {
    let mut builder = h2::server::Builder::new();
    // `Authorities` counts on header tables of the usual size, which is left as it is.
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits.concurrent_calls))
        .data_frame_budget(SMALL_FRAMES)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.concurrent_calls);
    let bounds = Bounds::new();
    let stream = HeaderReader::of_server(Authorities::of(stream), bounds.headers.clone());
    let handshake = tokio::time::timeout(limits.handshake, builder.handshake(stream));
    let connection = tokio::select! {
        () = stop.cancelled() => return,
        connection = handshake => connection,
    };
    let mut connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn StdError, "connection ended");
            return;
        }
        Err(_) => {
            tracing::debug!("a peer connected and did not begin HTTP/2");
            return;
        }
    };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            accepted = accept(&mut connection, &bounds) => match accepted {
                Some(Ok((request, respond))) => {
                    begin(&mut calls, &services, &bounds, request, respond);
                }
                Some(Err(error)) => {
                    tracing::debug!(error = &error as &dyn StdError, "connection ended");
                    return;
                }
                None => return,
            },
            () = stop.cancelled() => break,
            Some(_) = calls.join_next() => {}
        }
    }
    connection.graceful_shutdown();
    let draining = async {
        // Calls that came before the peer knew are still answered.
        while let Some(Ok((request, respond))) = accept(&mut connection, &bounds).await {
            begin(&mut calls, &services, &bounds, request, respond);
        }
    };
    let _ = tokio::time::timeout(limits.drain, draining).await;
}

/// What the calls of one connection share.
#[derive(Clone)]
struct Bounds {
    headers: Arc<Headers>,
    room: gzip::Room,
}

impl Bounds {
    fn new() -> Self {
        Self {
            headers: Headers::of_server(),
            room: gzip::Room::new(),
        }
    }
}

type Accepted = (
    Request<h2::RecvStream>,
    h2::server::SendResponse<bytes::Bytes>,
);

/// A client's bytes on their way to HTTP/2.
type Incoming = Through<HeaderReader, Through<Authorities>>;

/// Waits for the next call.
async fn accept(
    connection: &mut h2::server::Connection<Incoming, bytes::Bytes>,
    bounds: &Bounds,
) -> Option<Result<Accepted, h2::Error>> {
    std::future::poll_fn(|context| {
        let accepted = connection.poll_accept(context);
        if accepted.is_pending() {
            bounds.headers.all_accepted();
        }
        accepted
    })
    .await
}

/// Starts to answer one call. A call that is answered without waiting is
/// answered here and now, which saves it a task; a runtime with several threads
/// gets a task for each call in any case. What is logged for a call that belongs to
/// a trace is within a span that names it.
fn begin(
    calls: &mut JoinSet<()>,
    services: &ServiceSet,
    bounds: &Bounds,
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
) {
    let services = services.clone();
    let Bounds { headers, room } = bounds.clone();
    let kept = headers.accepted(respond.stream_id().as_u32(), request.headers());
    let takes_gzip = gzip::is_taken(request.headers());
    let trace = TraceContext::of(request.headers());
    let observed = services.observe(&request);
    let call = async move {
        let reply = async {
            if kept.is_too_much() {
                let error = "the call's metadata finds no room beside that of other calls";
                return Status::resource_exhausted(error).into_http();
            }
            let (mut head, body) = request.into_parts();
            let body = IncomingBody::new(body, &mut head.headers, &room);
            services.answer(Request::from_parts(head, body)).await
        };
        let reply = AssertUnwindSafe(reply).catch_unwind();
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            // The peer gave the call up: whatever is done for it ends here.
            _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
        };
        let mut reply = reply.unwrap_or_else(|_| Status::internal("the call panicked").into_http());
        if let Some(observed) = observed {
            reply = observed.through(reply, Body::new);
        }
        gzip::prepare_reply(&mut reply, takes_gzip);
        // A peer that does not want its reply any more is none of ours to tell.
        let _ = send_reply(respond, reply, headers.peer_limit()).await;
        drop(kept);
    };
    // A reply's body is the application's code too; its panic ends its call alone.
    let call = AssertUnwindSafe(call).catch_unwind().map(drop);
    let mut call = match trace {
        None => call.boxed(),
        Some(trace) => {
            let span = tracing::info_span!("call", trace_id = trace.trace_id());
            trace.scope(call.instrument(span)).boxed()
        }
    };
    let alone = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
    if alone && (&mut call).now_or_never().is_some() {
        return;
    }
    calls.spawn(call);
}
