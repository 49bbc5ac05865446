//! Services of the application's own: each is offered under its name to the plugins
//! that were granted it, and each call leaves a record as those of the host's do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use outrigger_manifest::{ServiceName, ServiceNameError};
use outrigger_transport::{IncomingBody, PluginIdentity, ServiceSet};
use outrigger_wire::Excerpt;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use crate::arguments::Arguments;
use crate::call_limit::CallLimit;
use crate::fault::Fault;
use crate::operation::Operation;
use crate::running::{Caller, Running};
use crate::session::Session;

/// A call of a service of the application's own.
pub(crate) const APPLICATION_CALL: Operation = Operation::of_application("call");

type Serve = Arc<dyn Fn(&PluginIdentity) -> ServiceSet + Send + Sync>;

/// The services that an application has of its own, by their names. Clones share
/// them: they are made once, and offered to as many plugins as are granted them.
///
/// What serves a name is asked for once per plugin, with the plugin's identity. Each
/// request has that [`PluginIdentity`] among its extensions, too, so one server that
/// all plugins share may ask who calls.
///
/// # Examples
/// ```
/// use outrigger_services::ApplicationServices;
/// use outrigger_transport::{ServiceSet, health};
///
/// let services = ApplicationServices::new()
///     .offer("cache", |plugin| {
///         println!("{} may use the cache", plugin.name());
///         // Add what tonic generated: `.with(CacheServer::new(cache.clone()))`.
///         ServiceSet::new().with(health::service())
///     })?;
/// assert_eq!(services.names().map(|name| name.as_str()).collect::<Vec<_>>(), ["cache"]);
///
/// // It would be taken for a service of the host.
/// let error = services.offer("filesystems", |_| ServiceSet::new()).unwrap_err();
/// assert_eq!(error.code(), "invalid-service-name");
/// # Ok::<(), outrigger_manifest::ServiceNameError>(())
/// ```
#[derive(Clone, Default)]
pub struct ApplicationServices(Arc<BTreeMap<ServiceName, Serve>>);

impl ApplicationServices {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers under `name` what `serve` gives; what had that name before is replaced.
    ///
    /// # Errors
    /// The name is none, or nearly that of a service of the host.
    pub fn offer(
        mut self,
        name: &str,
        serve: impl Fn(&PluginIdentity) -> ServiceSet + Send + Sync + 'static,
    ) -> Result<Self, ServiceNameError> {
        Arc::make_mut(&mut self.0).insert(name.parse()?, Arc::new(serve));
        Ok(self)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.keys()
    }

    pub(crate) fn has(&self, name: &ServiceName) -> bool {
        self.0.contains_key(name)
    }

    /// What serves `name` to the plugin of `session`: nothing unless it was granted.
    pub(crate) fn serve(&self, name: &str, session: Arc<Session>) -> ServiceSet {
        let grant = session.grants().application_service(name);
        let rule: Option<Arc<str>> = grant.ok().map(|rule| rule.to_string().into());
        let (Some(serve), Some(rule)) = (self.0.get(name), rule) else {
            return ServiceSet::new();
        };
        let limit = CallLimit::new(session.clone());
        let recorded = Recorded {
            name: name.into(),
            rule,
            services: serve(session.identity()),
            session,
        };
        ServiceSet::new().otherwise(limit.wrap(recorded))
    }
}

impl fmt::Debug for ApplicationServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Records which of the services that the manifest asks for were refused. They have no
/// socket, so the plugin cannot even try them.
pub(crate) fn record_refused(session: &Session) {
    let grants = session.grants();
    for name in grants.refused_application_services() {
        if let Err(denial) = grants.application_service(name.as_str()) {
            let show = |shown: &mut Arguments| {
                shown.text("service", name.as_str());
            };
            let refused = Fault::from(denial);
            session
                .recorder()
                .turn_away(APPLICATION_CALL, show, &refused);
        }
    }
}

/// Services whose calls are recorded and know who calls.
#[derive(Clone)]
struct Recorded {
    session: Arc<Session>,
    name: Arc<str>,
    rule: Arc<str>,
    services: ServiceSet,
}

impl Service<Request<IncomingBody>> for Recorded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<IncomingBody>) -> Self::Future {
        let caller = Caller::of_call(&mut request);
        let running = self.session.begin_call(APPLICATION_CALL, &caller, |shown| {
            shown.text("service", &self.name);
            shown.text("method", request.uri().path());
        });
        let running = match running {
            Ok(running) => running,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        running.allowed_by(&self.rule);
        let identity = self.session.identity().clone();
        request.extensions_mut().insert(identity);
        let reply = self.services.call(request);
        Box::pin(async move {
            let reply = reply.await?;
            let mut running = Some(running);
            if let Some(status) = Status::from_header_map(reply.headers()) {
                end(&mut running, &status);
            }
            Ok(reply.map(|body| Body::new(RecordedBody { body, running })))
        })
    }
}

/// A reply whose call leaves its record with the last of it, or as cancelled when it
/// is dropped before.
struct RecordedBody {
    body: Body,
    running: Option<Running>,
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(running)) = (frame.data_ref(), &self.running) {
                    running.read(data.len() as u64);
                }
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    end(&mut self.running, &status);
                }
            }
            Some(Err(status)) => end(&mut self.running, status),
            None => end(
                &mut self.running,
                &Status::unknown("the reply has no status"),
            ),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Records how a call ended, unless it has ended already.
fn end(running: &mut Option<Running>, status: &Status) {
    let Some(running) = running.take() else {
        return;
    };
    match status.code() {
        Code::Ok => running.end(None),
        code => {
            let text = Excerpt::from(status.message()).to_string();
            running.end(Some(&Fault::failed_as(word(code), code, text)));
        }
    }
}

/// The code as records have it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid-argument",
        Code::DeadlineExceeded => "deadline-exceeded",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::PermissionDenied => "permission-denied",
        Code::ResourceExhausted => "resource-exhausted",
        Code::FailedPrecondition => "failed-precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out-of-range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data-loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
