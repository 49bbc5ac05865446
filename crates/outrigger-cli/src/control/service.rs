//! The answering end of the control socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use outrigger::{AuditRecord, Host, Transport, Verdict};
use outrigger_transport::{OwnedTask, ServeLimits, ServiceSet, health, serve_connection};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, async_trait};

use crate::control::proto::control_server::{Control, ControlServer};
use crate::control::recent::Recent;
use crate::control::socket::PrivateSocket;
use crate::control::telling::{self, Declared};
use crate::control::{door, proto, trouble};
use crate::failure::{Exit, Failure};

/// Calls at a time on one connection.
const CALLS: u32 = 64;
/// How long a peer may take to begin HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many events, and how many decisions, are remembered.
pub(crate) const REMEMBERED: usize = 4096;
/// The most plugins whose services have a socket.
const MOST_DOORS: usize = 1000;

/// What a run tells its clients. Clones share it.
#[derive(Clone)]
pub(crate) struct Service(Arc<Shared>);

struct Shared {
    host: Host,
    folder: PathBuf,
    since: SystemTime,
    socket: PathBuf,
    declared: RwLock<Declared>,
    ready: AtomicBool,
    events: Recent<proto::Event>,
    audit: Recent<AuditRecord>,
    places: Arc<Semaphore>,
    doors: Mutex<BTreeMap<String, Door>>,
    /// Fires when somebody asks for the end.
    end: CancellationToken,
    /// Fires when nothing is answered any more.
    stop: CancellationToken,
}

/// The socket of one plugin's services.
struct Door {
    path: PathBuf,
    _serving: OwnedTask,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// For the host that serves `folder`; its services' decisions are in `audit`.
    pub(crate) fn new(
        host: Host,
        folder: &Path,
        socket: &Path,
        events: Recent<proto::Event>,
        audit: Recent<AuditRecord>,
    ) -> Self {
        Self(Arc::new(Shared {
            host,
            folder: folder.to_owned(),
            since: SystemTime::now(),
            socket: socket.to_owned(),
            declared: RwLock::default(),
            ready: AtomicBool::new(false),
            events,
            audit,
            places: Arc::new(Semaphore::new(crate::control::socket::MOST_CONNECTIONS)),
            doors: Mutex::default(),
            end: CancellationToken::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// What manifests say besides.
    pub(crate) fn declare(&self, declared: Declared) {
        *self
            .0
            .declared
            .write()
            .unwrap_or_else(PoisonError::into_inner) = declared;
    }

    /// All that start with the host have come to a first end.
    pub(crate) fn is_ready(&self) {
        self.0.ready.store(true, Ordering::Release);
    }

    /// Waits until a client asks for the end.
    pub(crate) async fn end_asked(&self) {
        self.0.end.cancelled().await;
    }

    /// All plugins, as clients are told.
    pub(crate) fn plugins(&self) -> Vec<proto::Plugin> {
        let declared = self.declared();
        let all = self.0.host.list();
        all.iter()
            .map(|status| telling::plugin(status, &declared))
            .collect()
    }

    /// One plugin, as clients are told.
    pub(crate) fn plugin(&self, name: &str) -> Result<proto::Plugin, Status> {
        let status = self.0.host.status(name);
        let status = status.map_err(|error| trouble::of_plugin(&error))?;
        Ok(telling::plugin(&status, &self.declared()))
    }

    fn declared(&self) -> Declared {
        self.0
            .declared
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Answers at `socket` until [`close`](Self::close).
    pub(crate) async fn serve(self, socket: PrivateSocket) {
        let services = ServiceSet::new()
            .with(health::service())
            .with(ControlServer::new(self.clone()))
            .describe(proto::DESCRIPTORS)
            .describe(outrigger_transport::GO_PLUGIN_DESCRIPTORS)
            .with_reflection();
        self.0.answer(socket, services).await;
    }

    /// Ends all connections, also those to plugins.
    pub(crate) fn close(&self) {
        self.0.stop.cancel();
        self.0
            .doors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The socket for one plugin's services.
    async fn door(&self, plugin: &str) -> Result<proto::OpenResponse, Status> {
        let wrong = |error| trouble::of_plugin(&error);
        let transport = self.0.host.status(plugin).map_err(wrong)?.transport;
        if transport == Some(Transport::NetRpc) {
            let message = format!("plugin `{plugin}` speaks net/rpc, which only its host can");
            let failure = Failure::new(Exit::Failed, "protocol-unsupported", message)
                .help("start one for this command: `outrigger call --manifest FOLDER`");
            return Err(trouble::status(Code::FailedPrecondition, &failure));
        }
        door::reach(&self.0.host, plugin).await.map_err(wrong)?;
        let joined = self.0.host.status(plugin).map_err(wrong)?.reattach;
        let version = joined.map_or(0, |joined| joined.version.0);
        let path = self.0.door(plugin)?;
        Ok(proto::OpenResponse {
            socket: path.display().to_string(),
            protocol: Transport::Grpc.as_str().to_owned(),
            app_version: version,
        })
    }
}

impl Shared {
    fn door(self: &Arc<Self>, plugin: &str) -> Result<PathBuf, Status> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.is_cancelled() {
            return Err(ending());
        }
        if let Some(door) = doors.get(plugin) {
            return Ok(door.path.clone());
        }
        let failed = |text: String| {
            let message = format!("no socket could be made for plugin `{plugin}`");
            let failure = Failure::new(Exit::Failed, "control-failed", message).note(text);
            trouble::status(Code::FailedPrecondition, &failure)
        };
        if doors.len() >= MOST_DOORS {
            return Err(failed(format!("there are {MOST_DOORS} already")));
        }
        let mut path = self.socket.clone().into_os_string();
        path.push(format!(".{}", doors.len() + 1));
        let path = PathBuf::from(path);
        let socket = PrivateSocket::bind(&path).map_err(|error| failed(error.to_string()))?;
        let services = door::services(self.host.clone(), plugin.to_owned());
        let door = Door {
            path: path.clone(),
            _serving: OwnedTask::spawn(self.answer(socket, services)),
        };
        doors.insert(plugin.to_owned(), door);
        Ok(path)
    }

    fn answer(
        &self,
        socket: PrivateSocket,
        services: ServiceSet,
    ) -> impl Future<Output = ()> + Send + use<> {
        let limits = ServeLimits {
            concurrent_calls: CALLS,
            handshake: HANDSHAKE,
            ..ServeLimits::default()
        };
        let (places, stop) = (self.places.clone(), self.stop.clone());
        async move {
            let each = stop.clone();
            socket
                .serve(places, stop, |stream| {
                    serve_connection(Box::new(stream), services.clone(), limits, each.clone())
                })
                .await;
        }
    }
}

fn ending() -> Status {
    let failure = Failure::new(
        Exit::NotStarted,
        "host-stopping",
        "the `outrigger run` is about to end",
    );
    trouble::status(Code::Unavailable, &failure)
}

#[async_trait]
impl Control for Service {
    async fn describe(
        &self,
        _: Request<proto::DescribeRequest>,
    ) -> Result<Response<proto::DescribeResponse>, Status> {
        Ok(Response::new(proto::DescribeResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            folder: self.0.folder.display().to_string(),
            since: Some(self.0.since.into()),
            ready: self.0.ready.load(Ordering::Acquire),
            stopping: self.0.end.is_cancelled(),
        }))
    }

    async fn list(
        &self,
        _: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListResponse>, Status> {
        let plugins = self.plugins();
        Ok(Response::new(proto::ListResponse { plugins }))
    }

    async fn show(
        &self,
        request: Request<proto::ShowRequest>,
    ) -> Result<Response<proto::ShowResponse>, Status> {
        let plugin = Some(self.plugin(&request.get_ref().plugin)?);
        Ok(Response::new(proto::ShowResponse { plugin }))
    }

    async fn start(
        &self,
        request: Request<proto::StartRequest>,
    ) -> Result<Response<proto::StartResponse>, Status> {
        let name = &request.get_ref().plugin;
        let started = self.0.host.start(name).await;
        started.map_err(|error| trouble::of_plugin(&error))?;
        let plugin = Some(self.plugin(name)?);
        Ok(Response::new(proto::StartResponse { plugin }))
    }

    async fn stop(
        &self,
        request: Request<proto::StopRequest>,
    ) -> Result<Response<proto::StopResponse>, Status> {
        let name = &request.get_ref().plugin;
        let stopped = self.0.host.stop(name).await;
        let report = stopped.map_err(|error| trouble::of_plugin(&error))?;
        let plugin = Some(self.plugin(name)?);
        let ended = report.map(|report| report.status.to_string());
        Ok(Response::new(proto::StopResponse {
            plugin,
            ended: ended.unwrap_or_default(),
        }))
    }

    async fn restart(
        &self,
        request: Request<proto::RestartRequest>,
    ) -> Result<Response<proto::RestartResponse>, Status> {
        let name = &request.get_ref().plugin;
        let restarted = self.0.host.restart(name).await;
        restarted.map_err(|error| trouble::of_plugin(&error))?;
        let plugin = Some(self.plugin(name)?);
        Ok(Response::new(proto::RestartResponse { plugin }))
    }

    type EventsStream = Streamed<proto::EventsResponse>;

    async fn events(
        &self,
        request: Request<proto::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let proto::EventsRequest { plugin, follow } = request.into_inner();
        let all = self.0.events.read(follow, self.0.stop.clone());
        Ok(Response::new(chosen(
            all,
            move |event| plugin.is_empty() || event.plugin == plugin,
            |missed, event| proto::EventsResponse {
                missed,
                event: Some(event.clone()),
            },
        )))
    }

    type AuditStream = Streamed<proto::AuditResponse>;

    async fn audit(
        &self,
        request: Request<proto::AuditRequest>,
    ) -> Result<Response<Self::AuditStream>, Status> {
        let proto::AuditRequest {
            plugin,
            refused,
            follow,
        } = request.into_inner();
        let all = self.0.audit.read(follow, self.0.stop.clone());
        Ok(Response::new(chosen(
            all,
            move |record| {
                (plugin.is_empty() || *record.plugin == *plugin)
                    && (!refused || record.verdict == Verdict::Refused)
            },
            |missed, record| proto::AuditResponse {
                missed,
                record: Some(telling::audit(record)),
            },
        )))
    }

    async fn open(
        &self,
        request: Request<proto::OpenRequest>,
    ) -> Result<Response<proto::OpenResponse>, Status> {
        Ok(Response::new(self.door(&request.get_ref().plugin).await?))
    }

    async fn shutdown(
        &self,
        _: Request<proto::ShutdownRequest>,
    ) -> Result<Response<proto::ShutdownResponse>, Status> {
        self.0.end.cancel();
        Ok(Response::new(proto::ShutdownResponse {}))
    }
}

/// The things that a client asked for; what is passed over adds nothing, and what
/// was missed is told with the next one.
fn chosen<T: Send + Sync + 'static, R: Send + 'static>(
    all: impl Stream<Item = (u64, Arc<T>)> + Send + 'static,
    wanted: impl Fn(&T) -> bool + Send + 'static,
    told: impl Fn(u64, &T) -> R + Send + 'static,
) -> Streamed<R> {
    let mut before = 0;
    Box::pin(all.filter_map(move |(missed, item)| {
        before += missed;
        let found = wanted(&item).then(|| Ok(told(std::mem::take(&mut before), &item)));
        std::future::ready(found)
    }))
}
