//! A plugin that runs.

use std::any::TypeId;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_controller_client::GrpcControllerClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::{
    AddressTranslator, Broker, BrokerError, BrokerOptions, Channel, GrpcBroker, HostServices,
    OwnedTask, PluginIdentity, Security, Serving, Side, Sockets, health, yamux,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::plugin::stdio_data;
use outrigger_wire::{Address, AppProtocolVersion, HandshakeLine, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::exit::{ExitReport, ExitStatus, PluginExited};
use crate::launch::Deadlines;
use crate::lifeline::start_time;
use crate::logs::Tail;
use crate::managed;
use crate::reattach::Reattach;
use crate::runner::AttachedRunner;
use crate::set::{Interface, PluginSet};
use crate::workspace::SocketDir;

/// How long the last stderr lines of a process that ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long a killed process is waited for.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// How long a ping may take.
const PING: Duration = Duration::from_secs(5);

/// How long each step of a launch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Certificates, directory, digest and process start.
    pub spawn: Duration,
    /// From the process start to its handshake line.
    pub handshake: Duration,
    /// Connecting, TLS and HTTP/2.
    pub connect: Duration,
}

impl Timings {
    /// All steps together.
    pub fn total(&self) -> Duration {
        self.spawn + self.handshake + self.connect
    }
}

/// No client could be made for a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispenseError {
    /// The negotiated version has no such name.
    #[error("plugin `{plugin}` has no `{name}` in app protocol {version}; it has {known:?}")]
    Unknown {
        /// The name that the host gave the plugin.
        plugin: String,
        /// What was asked for.
        name: String,
        /// The negotiated version.
        version: AppProtocolVersion,
        /// What there is.
        known: Vec<String>,
    },
    /// The name stands for another interface.
    #[error("`{name}` of plugin `{plugin}` is a `{found}`, not a `{asked}`")]
    OtherInterface {
        /// The name that the host gave the plugin.
        plugin: String,
        /// What was asked for.
        name: String,
        /// The Rust name of the interface that was asked for.
        asked: &'static str,
        /// The Rust name of the interface that stands there.
        found: &'static str,
    },
}

impl DispenseError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown-plugin-name",
            Self::OtherInterface { .. } => "other-interface",
        }
    }
}

/// Where mirrored output goes.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) stdout: Option<Box<dyn Write + Send>>,
    pub(crate) stderr: Option<Box<dyn Write + Send>>,
}

/// Everything that a launch found out and set up.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) set: PluginSet,
    pub(crate) line: HandshakeLine,
    pub(crate) channel: Channel,
    pub(crate) session: Option<yamux::Session>,
    pub(crate) security: Security,
    pub(crate) sockets: Sockets,
    pub(crate) translator: Arc<dyn AddressTranslator>,
    pub(crate) process: Arc<dyn AttachedRunner>,
    pub(crate) workspace: Option<SocketDir>,
    pub(crate) pumps: Vec<OwnedTask>,
    pub(crate) tail: Tail,
    pub(crate) mirror: Mirror,
    pub(crate) deadlines: Deadlines,
    pub(crate) timings: Timings,
    pub(crate) began: Instant,
    pub(crate) managed: bool,
    pub(crate) visiting: Option<Reattach>,
}

/// A plugin that runs. All methods may be called from several tasks.
///
/// Dropping it kills the process; [`stop`](Self::stop) asks first.
#[derive(Debug)]
pub struct RunningPlugin {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    identity: PluginIdentity,
    set: PluginSet,
    line: HandshakeLine,
    channel: Channel,
    broker: Arc<GrpcBroker>,
    process: Arc<dyn AttachedRunner>,
    exited: watch::Sender<Option<ExitReport>>,
    forced: CancellationToken,
    deadlines: Deadlines,
    timings: Timings,
    tail: Tail,
    visiting: Option<Reattach>,
    session: Option<yamux::Session>,
    tasks: std::sync::Mutex<Vec<OwnedTask>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("identity", &self.identity)
            .field("address", &self.line.address)
            .finish_non_exhaustive()
    }
}

impl RunningPlugin {
    pub(crate) fn assemble(parts: Parts) -> Self {
        let (process, channel) = (parts.process.clone(), parts.channel.clone());
        let instance = Uuid::now_v7().to_string();
        let identity = PluginIdentity::new(parts.name, instance, process.pid());
        let options = BrokerOptions {
            security: parts.security,
            sockets: parts.sockets,
            translator: parts.translator,
            wait: parts.deadlines.broker,
            fate: channel.fate().clone(),
            ..BrokerOptions::new(Side::Host)
        };
        let broker = Arc::new(match parts.session.clone() {
            Some(session) => GrpcBroker::multiplexed(options, session),
            None => GrpcBroker::plain(options),
        });
        let exited = watch::Sender::new(None);
        let forced = CancellationToken::new();
        let watch = Watch {
            plugin: identity.name().to_owned(),
            process: process.clone(),
            channel: channel.clone(),
            broker: broker.clone(),
            tail: parts.tail.clone(),
            exited: exited.clone(),
            forced: forced.clone(),
            began: parts.began,
            pumps: parts.pumps,
            workspace: parts.workspace,
            kill: parts.visiting.is_none(),
        };
        let tasks = vec![
            broker.open_control(channel.clone()),
            OwnedTask::spawn(mirror(channel.clone(), parts.mirror)),
            OwnedTask::spawn(watch.run()),
        ];
        let inner = Arc::new(Inner {
            identity,
            set: parts.set,
            line: parts.line,
            broker,
            exited,
            forced,
            deadlines: parts.deadlines,
            timings: parts.timings,
            tail: parts.tail,
            visiting: parts.visiting,
            session: parts.session,
            tasks: std::sync::Mutex::new(tasks),
            channel: parts.channel,
            process: parts.process,
        });
        if parts.managed {
            managed::register(&inner);
        }
        Self { inner }
    }

    /// A typed client for the interface that the negotiated version has under `name`.
    ///
    /// # Errors
    /// See [`DispenseError`]. The plugin is not asked.
    pub fn dispense<I: Interface>(&self, name: &str) -> Result<I::Client, DispenseError> {
        let plugin = || self.inner.identity.name().to_owned();
        let Some((found, found_name)) = self.inner.set.get(name) else {
            return Err(DispenseError::Unknown {
                plugin: plugin(),
                name: name.to_owned(),
                version: self.negotiated_version(),
                known: self.inner.set.names().map(String::from).collect(),
            });
        };
        if found != TypeId::of::<I>() {
            return Err(DispenseError::OtherInterface {
                plugin: plugin(),
                name: name.to_owned(),
                asked: std::any::type_name::<I>(),
                found: found_name,
            });
        }
        Ok(I::grpc(self.channel(), self.broker()))
    }

    /// The connection to the plugin's services.
    pub fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    /// The broker of this plugin.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.inner.broker.clone()
    }

    /// Serves `services` to this plugin alone on a new broker id, bound to its identity.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn attach(&self, services: &dyn HostServices) -> Result<Serving, BrokerError> {
        let broker = self.broker();
        broker
            .serve(broker.next_id(), services.bind(&self.inner.identity))
            .await
    }

    /// Asks the plugin whether it is well. As in go-plugin, any answer counts.
    ///
    /// # Errors
    /// The status of the health call; with the exit as source where the plugin is gone.
    pub async fn ping(&self) -> Result<(), Status> {
        let mut client = HealthClient::new(self.channel());
        let mut request = tonic::Request::new(HealthCheckRequest {
            service: health::SERVICE_NAME.to_owned(),
        });
        request.set_timeout(PING);
        client.check(request).await.map(|_| ())
    }

    /// Asks the plugin to end, waits for the grace period (`stop_grace`) and
    /// then kills it. Stopping again returns the same report. A plugin in test
    /// mode is left alone.
    ///
    /// # Cancel safety
    /// When the future is dropped, the plugin may be on its way down; stop it again.
    pub async fn stop(&self) -> ExitReport {
        self.inner.stop(None).await
    }

    /// [`stop`](Self::stop) with another grace period.
    ///
    /// # Cancel safety
    /// As [`stop`](Self::stop).
    pub async fn stop_within(&self, grace: Duration) -> ExitReport {
        self.inner.stop(Some(grace)).await
    }

    /// Ends the plugin without asking.
    ///
    /// # Cancel safety
    /// The process is killed in any case.
    pub async fn kill(&self) -> ExitReport {
        self.inner.kill().await
    }

    /// Waits until the plugin is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait(&self) -> ExitReport {
        self.inner.gone().await
    }

    /// How the plugin ended, if it did.
    pub fn exited(&self) -> Option<ExitReport> {
        self.inner.exited.borrow().clone()
    }

    /// Who this plugin is to host services and logs.
    pub fn identity(&self) -> &PluginIdentity {
        &self.inner.identity
    }

    /// The runner's name for the process, such as its pid; empty in test mode.
    pub fn id(&self) -> String {
        self.inner.process.id()
    }

    /// The process, where the runner knows it.
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.pid()
    }

    /// The version of the app protocol that both sides use.
    pub fn negotiated_version(&self) -> AppProtocolVersion {
        self.inner.line.app_version
    }

    /// Which RPC the plugin speaks.
    pub fn transport(&self) -> Transport {
        self.inner.line.transport
    }

    /// Where the plugin listens, as it announced it.
    pub fn address(&self) -> &Address {
        &self.inner.line.address
    }

    /// What the plugin announced.
    pub fn handshake(&self) -> &HandshakeLine {
        &self.inner.line
    }

    /// How long each step of the launch took.
    pub fn timings(&self) -> Timings {
        self.inner.timings
    }

    /// The last lines of the plugin's stderr, escaped and cut.
    pub fn stderr_tail(&self) -> Vec<String> {
        self.inner.tail.lines()
    }

    /// How another host joins this plugin.
    pub fn reattach(&self) -> Reattach {
        if let Some(visiting) = &self.inner.visiting {
            return visiting.clone();
        }
        let pid = self.pid();
        Reattach {
            transport: self.transport(),
            version: self.negotiated_version(),
            address: self.address().clone(),
            pid,
            started: pid.and_then(start_time),
            test: false,
        }
    }

    /// Ends the visit to a plugin that was joined, and says how another host
    /// joins it; it goes on running. A plugin that this process started is
    /// killed instead and nothing is returned, because its pipes and sockets
    /// end with this process.
    pub fn leave(self) -> Option<Reattach> {
        self.inner.visiting.clone()
    }
}

impl Drop for RunningPlugin {
    fn drop(&mut self) {
        if self.inner.visiting.is_none() && self.exited().is_none() {
            self.inner.forced.cancel();
            if let Err(error) = self.inner.process.kill() {
                tracing::warn!(plugin = self.inner.identity.name(), %error, "could not kill a plugin");
            }
        }
        self.inner.broker.close();
        // Ends the watch, whose end reaps the process and removes its directory.
        self.inner
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
    }
}

impl Inner {
    /// Whether this host may end the process.
    fn is_test(&self) -> bool {
        self.visiting.as_ref().is_some_and(|reattach| reattach.test)
    }

    fn report_now(&self, status: ExitStatus) -> ExitReport {
        ExitReport {
            status,
            forced: false,
            ran: Duration::ZERO,
            stderr: self.tail.lines(),
        }
    }

    async fn gone(&self) -> ExitReport {
        let mut exited = self.exited.subscribe();
        match exited.wait_for(Option::is_some).await {
            Ok(report) => report
                .clone()
                .unwrap_or_else(|| self.report_now(ExitStatus::Unknown)),
            Err(_) => self.report_now(ExitStatus::Unknown),
        }
    }

    pub(crate) async fn stop(&self, grace: Option<Duration>) -> ExitReport {
        if let Some(report) = self.exited.borrow().clone() {
            return report;
        }
        if self.is_test() {
            return self.report_now(ExitStatus::Unknown);
        }
        let grace = grace.unwrap_or(self.deadlines.stop_grace);
        self.broker.close();
        let mut controller = GrpcControllerClient::new(self.channel.clone());
        let asked = async {
            // The plugin often ends before its reply arrives, so the reply says nothing.
            let _ = controller
                .shutdown(outrigger_wire::proto::plugin::Empty {})
                .await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = self.gone() => report,
            () = asked => self.kill().await,
            () = tokio::time::sleep(grace) => {
                tracing::warn!(
                    plugin = self.identity.name(),
                    "did not end within {} s (`stop_grace`); killed",
                    grace.as_secs_f64()
                );
                self.kill().await
            }
        }
    }

    async fn kill(&self) -> ExitReport {
        if let Some(report) = self.exited.borrow().clone() {
            return report;
        }
        if self.is_test() {
            return self.report_now(ExitStatus::Unknown);
        }
        self.forced.cancel();
        if let Err(error) = self.process.kill() {
            tracing::warn!(plugin = self.identity.name(), %error, "could not kill a plugin");
        }
        if let Some(session) = &self.session {
            session.close();
        }
        match tokio::time::timeout(AFTER_KILL, self.gone()).await {
            Ok(report) => report,
            Err(_) => self.report_now(ExitStatus::Unknown),
        }
    }
}

/// Waits for the process to end and tells everybody.
struct Watch {
    plugin: String,
    process: Arc<dyn AttachedRunner>,
    channel: Channel,
    broker: Arc<GrpcBroker>,
    tail: Tail,
    exited: watch::Sender<Option<ExitReport>>,
    forced: CancellationToken,
    began: Instant,
    pumps: Vec<OwnedTask>,
    workspace: Option<SocketDir>,
    kill: bool,
}

impl Watch {
    async fn run(mut self) {
        let status = tokio::select! {
            status = self.process.wait() => status,
            // Without a process, the connection is all there is to watch.
            () = self.channel.closed(), if self.process.id().is_empty() => ExitStatus::Unknown,
        };
        let ran = self.began.elapsed();
        // A grandchild may hold the pipes open for ever; its words are not waited for.
        let drained = async {
            while !self.pumps.iter().all(OwnedTask::is_finished) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drained).await;
        let forced = self.forced.is_cancelled();
        let report = ExitReport {
            status,
            forced,
            ran,
            stderr: self.tail.lines(),
        };
        let plugin = self.plugin.clone();
        if status.is_success() || forced || status == ExitStatus::Unknown {
            tracing::info!(plugin, "{status}");
        } else {
            tracing::error!(plugin, "{status}");
        }
        self.channel.fate().set(Arc::new(PluginExited {
            plugin,
            report: report.clone(),
        }));
        self.broker.close();
        self.process.cleared().await;
        self.workspace = None;
        self.exited.send_replace(Some(report));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Dropped with its handle or with the runtime: the process must not
        // outlive them, and nobody learns any more how it ends.
        if self.exited.borrow().is_some() {
            return;
        }
        if self.kill {
            let _ = self.process.kill();
        }
        self.exited.send_replace(Some(ExitReport {
            status: ExitStatus::Unknown,
            forced: self.kill,
            ran: self.began.elapsed(),
            stderr: self.tail.lines(),
        }));
    }
}

/// Copies what the plugin prints, until it is gone.
async fn mirror(channel: Channel, mut mirror: Mirror) {
    let mut client = GrpcStdioClient::new(channel);
    let mut chunks = match client.stream_stdio(()).await {
        Ok(chunks) => chunks.into_inner(),
        Err(status) => return end_of_mirror(&status),
    };
    loop {
        match chunks.message().await {
            Ok(Some(chunk)) => {
                let copy = match chunk.channel() {
                    stdio_data::Channel::Stdout => &mut mirror.stdout,
                    stdio_data::Channel::Stderr => &mut mirror.stderr,
                    stdio_data::Channel::Invalid => {
                        tracing::warn!(channel = chunk.channel, "output for an unknown channel");
                        continue;
                    }
                };
                if let Some(copy) = copy
                    && let Err(error) = copy.write_all(&chunk.data).and_then(|()| copy.flush())
                {
                    tracing::error!(%error, "could not copy what a plugin printed");
                }
            }
            Ok(None) => return,
            Err(status) => return end_of_mirror(&status),
        }
    }
}

fn end_of_mirror(status: &Status) {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unimplemented => {
            tracing::debug!(code = ?status.code(), "the plugin's output ended");
        }
        code => tracing::error!(?code, "the plugin's output failed"),
    }
}
