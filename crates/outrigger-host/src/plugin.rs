//! A plugin that runs.

use std::any::TypeId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use outrigger_transport::netrpc::{HostSession, SessionError};
use outrigger_transport::process::start_time;
use outrigger_transport::{
    AddressTranslator, Broker, BrokerError, BrokerOptions, Channel, Fate, HostServices, Interface,
    OwnedTask, PluginIdentity, Security, Serving, Side, Sockets, UnsupportedTransport,
};
use outrigger_wire::{Address, AppProtocolVersion, BrokerId, HandshakeLine, Transport};
use tokio::sync::watch;
use uuid::Uuid;

use crate::connection::{Asked, Connection, Link, Mirror, PingError};
use crate::exit::{ExitReport, ExitStatus, KillReason, PluginExited};
use crate::launch::Deadlines;
use crate::lifeline::OfProcess;
use crate::logs::Tail;
use crate::managed;
use crate::reattach::Reattach;
use crate::runner::AttachedRunner;
use crate::set::PluginSet;
use crate::workspace::Places;

/// How long the last stderr lines of a process that ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long a killed process is waited for.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// What a plugin prints while it ends still arrives for this long after its
/// answer. Then the connection is closed, as go-plugin's hosts do at once: some
/// plugins end only when their calls have.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
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
    /// The interface has no client for the protocol that the plugin speaks.
    #[error("`{interface}` has no client for {transport}, which plugin `{plugin}` speaks")]
    Transport {
        /// The name that the host gave the plugin.
        plugin: String,
        /// What was asked for.
        name: String,
        /// What the plugin speaks.
        transport: Transport,
        /// The Rust name of the interface.
        interface: &'static str,
    },
    /// The plugin did not make the object.
    #[error("plugin `{plugin}` did not dispense `{name}`")]
    Plugin {
        /// The name that the host gave the plugin.
        plugin: String,
        /// What was asked for.
        name: String,
        /// What the plugin, or the way to it, said.
        #[source]
        source: SessionError,
    },
}

impl DispenseError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown-plugin-name",
            Self::OtherInterface { .. } => "other-interface",
            Self::Transport { .. } => "transport-unsupported",
            Self::Plugin { source, .. } => source.code(),
        }
    }
}

/// Everything that a launch found out and set up.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) set: PluginSet,
    pub(crate) line: HandshakeLine,
    pub(crate) link: Link,
    pub(crate) security: Security,
    pub(crate) sockets: Sockets,
    pub(crate) translator: Arc<dyn AddressTranslator>,
    pub(crate) process: Arc<dyn AttachedRunner>,
    pub(crate) places: Places,
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
    /// The same with the socket directory, if the plugin reaches it. Its
    /// translator is asked when somebody first needs to know.
    located: OnceLock<PluginIdentity>,
    socket_dir: PathBuf,
    translator: Arc<dyn AddressTranslator>,
    set: PluginSet,
    line: HandshakeLine,
    connection: Connection,
    /// Held by the watch, so that the process is gone before its places are.
    process: Weak<dyn AttachedRunner>,
    id: String,
    exited: watch::Sender<Option<ExitReport>>,
    killed: Arc<OnceLock<KillReason>>,
    stopping: watch::Sender<usize>,
    deadlines: Deadlines,
    timings: Timings,
    tail: Tail,
    visiting: Option<Reattach>,
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
        let process = parts.process;
        let fate = parts.link.fate();
        let instance = Uuid::now_v7().to_string();
        let identity = PluginIdentity::new(parts.name, instance, process.pid())
            .with_lifeline(Arc::new(OfProcess));
        let socket_dir = parts.places.dir().to_owned();
        let options = BrokerOptions {
            security: parts.security,
            sockets: parts.sockets,
            translator: parts.translator.clone(),
            wait: parts.deadlines.broker,
            fate: fate.clone(),
            ..BrokerOptions::new(Side::Host)
        };
        let (connection, mut tasks) = parts.link.run(options, parts.mirror);
        let exited = watch::Sender::new(None);
        let killed = Arc::new(OnceLock::new());
        let stopping = watch::Sender::new(0);
        let (held, id) = (Arc::downgrade(&process), process.id());
        let watch = Watch {
            plugin: identity.name().to_owned(),
            process,
            connection: connection.clone(),
            fate,
            tail: parts.tail.clone(),
            exited: exited.clone(),
            killed: killed.clone(),
            stopping: stopping.clone(),
            lost_grace: parts.deadlines.lost_grace,
            began: parts.began,
            pumps: parts.pumps,
            places: Some(parts.places),
            kill: parts.visiting.is_none(),
        };
        tasks.push(OwnedTask::spawn(watch.run()));
        let inner = Arc::new(Inner {
            identity,
            located: OnceLock::new(),
            socket_dir,
            translator: parts.translator,
            set: parts.set,
            line: parts.line,
            connection,
            exited,
            killed,
            stopping,
            deadlines: parts.deadlines,
            timings: parts.timings,
            tail: parts.tail,
            visiting: parts.visiting,
            tasks: std::sync::Mutex::new(tasks),
            process: held,
            id,
        });
        if parts.managed {
            managed::register(&inner);
        }
        Self { inner }
    }

    /// A typed client for the interface that the negotiated version has under
    /// `name`, whichever protocol the plugin speaks. A gRPC plugin is not asked;
    /// a net/rpc plugin makes a new object each time.
    ///
    /// # Errors
    /// See [`DispenseError`].
    ///
    /// # Cancel safety
    /// A net/rpc plugin forgets an object that nobody fetched after 5 s.
    pub async fn dispense<I: Interface>(&self, name: &str) -> Result<I::Client, DispenseError> {
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
        self.made::<I>(name).await
    }

    /// A typed client for the interface `I`, whatever the launch offered: under
    /// the interface's own [name](Interface::NAME), or under the plugin's where it
    /// has none. Only a net/rpc plugin is asked for it; what a gRPC plugin does
    /// not serve is an error of the first call.
    ///
    /// # Errors
    /// See [`DispenseError`].
    ///
    /// # Cancel safety
    /// A net/rpc plugin forgets an object that nobody fetched after 5 s.
    pub async fn client<I: Interface>(&self) -> Result<I::Client, DispenseError> {
        let name = I::NAME.unwrap_or(self.inner.identity.name());
        self.made::<I>(name).await
    }

    async fn made<I: Interface>(&self, name: &str) -> Result<I::Client, DispenseError> {
        let made = match &self.inner.connection {
            Connection::Grpc { channel, .. } => I::grpc(channel.clone(), self.broker()),
            Connection::NetRpc(session) => {
                let object = session
                    .dispense(name, self.inner.deadlines.start)
                    .await
                    .map_err(|source| DispenseError::Plugin {
                        plugin: self.inner.identity.name().to_owned(),
                        name: name.to_owned(),
                        source,
                    })?;
                I::netrpc(object, self.broker())
            }
        };
        made.map_err(|UnsupportedTransport| DispenseError::Transport {
            plugin: self.inner.identity.name().to_owned(),
            name: name.to_owned(),
            transport: self.transport(),
            interface: std::any::type_name::<I>(),
        })
    }

    /// The connection to the services of a plugin that speaks gRPC.
    pub fn channel(&self) -> Option<Channel> {
        match &self.inner.connection {
            Connection::Grpc { channel, .. } => Some(channel.clone()),
            Connection::NetRpc(_) => None,
        }
    }

    /// The control connection to a plugin that speaks net/rpc, for names that
    /// the host's own set does not know.
    pub fn netrpc(&self) -> Option<HostSession> {
        match &self.inner.connection {
            Connection::Grpc { .. } => None,
            Connection::NetRpc(session) => Some(session.clone()),
        }
    }

    /// The broker of this plugin.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.inner.connection.broker()
    }

    /// Serves `services` to this plugin alone on a new broker id, bound to its
    /// identity. A plugin without a broker is no error: it may not need them; one
    /// that does fails when it is introduced.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn attach(&self, services: &dyn HostServices) -> Result<Serving, BrokerError> {
        let broker = self.broker();
        broker
            .serve(broker.next_id(), services.bind(self.identity()))
            .await
    }

    /// Serves `services` to this plugin alone on `id`, for its whole life.
    pub(crate) async fn offer(
        &self,
        id: BrokerId,
        services: &dyn HostServices,
    ) -> Result<(), BrokerError> {
        let services = services.bind(self.identity());
        let serving = self.broker().serve(id, services).await?;
        let mut exited = self.inner.exited.subscribe();
        let task = OwnedTask::spawn(async move {
            let _ = exited.wait_for(Option::is_some).await;
            drop(serving);
        });
        let mut tasks = self.inner.tasks.lock();
        if let Ok(tasks) = &mut tasks {
            tasks.push(task);
        }
        Ok(())
    }

    /// Asks the plugin whether it is well, for at most 5 s. As in go-plugin, any
    /// answer counts.
    ///
    /// # Errors
    /// It did not answer; with the exit as source where the plugin is gone.
    pub async fn ping(&self) -> Result<(), PingError> {
        self.inner.connection.ping(PING).await
    }

    /// Asks the plugin to end, waits for its answer (`stop_reply`) and then for
    /// its end (`stop_grace`), and kills it if either does not come, or at once
    /// if it cannot be asked: the report says which. Stopping again returns the
    /// same report. A plugin in test mode is left alone.
    ///
    /// # Cancel safety
    /// When the future is dropped, the plugin may be on its way down; stop it again.
    pub async fn stop(&self) -> ExitReport {
        self.inner.stop(None).await
    }

    /// [`stop`](Self::stop), with at most `limit` for answer and end together.
    ///
    /// # Cancel safety
    /// As [`stop`](Self::stop).
    pub async fn stop_within(&self, limit: Duration) -> ExitReport {
        self.inner.stop(Some(limit)).await
    }

    /// Ends the plugin without asking.
    ///
    /// # Cancel safety
    /// The process is killed in any case.
    pub async fn kill(&self) -> ExitReport {
        self.inner.kill(KillReason::Unasked).await
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
        self.inner.located()
    }

    /// The runner's name for the process, such as its pid; empty in test mode.
    pub fn id(&self) -> String {
        self.inner.id.clone()
    }

    /// The process, where the runner knows it.
    pub fn pid(&self) -> Option<u32> {
        self.inner.identity.pid()
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
            self.inner.end_process(KillReason::Unasked);
        }
        self.inner.connection.broker().close();
        if let Connection::NetRpc(session) = &self.inner.connection {
            // Its control stream goes with this handle; a plugin may or may not
            // end the rest of the session with that.
            session.close();
        }
        // Ends the watch, whose end reaps the process and removes its directory.
        self.inner
            .tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clear();
    }
}

impl Inner {
    fn located(&self) -> &PluginIdentity {
        self.located.get_or_init(|| {
            let identity = self.identity.clone();
            match same_place(self.translator.as_ref(), &self.socket_dir) {
                true => identity.with_socket_dir(&self.socket_dir),
                false => identity,
            }
        })
    }

    /// Whether this host may end the process.
    fn is_test(&self) -> bool {
        self.visiting.as_ref().is_some_and(|reattach| reattach.test)
    }

    fn report_now(&self, status: ExitStatus) -> ExitReport {
        ExitReport {
            status,
            forced: false,
            kill_reason: None,
            connection_lost: None,
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

    /// Within `limit`, or else within the deadlines of the launch.
    pub(crate) async fn stop(&self, limit: Option<Duration>) -> ExitReport {
        if let Some(report) = self.exited.borrow().clone() {
            return report;
        }
        if self.is_test() {
            return self.report_now(ExitStatus::Unknown);
        }
        let _stopping = Stopping::begin(&self.stopping);
        tokio::select! {
            biased;
            report = self.gone() => report,
            reason = self.outstay(limit) => {
                tracing::warn!(plugin = self.identity.name(), "killed: {reason}");
                self.kill(reason).await
            }
        }
    }

    /// Asks the plugin to end and waits until its time is over.
    async fn outstay(&self, limit: Option<Duration>) -> KillReason {
        let asked = Instant::now();
        let patience = limit.unwrap_or(self.deadlines.stop_reply);
        match tokio::time::timeout(patience, self.connection.ask_to_end()).await {
            Ok(Asked::Heard) => {}
            Ok(Asked::Unable) => return KillReason::NoController,
            Err(_) => return KillReason::NoAnswer(patience),
        }
        let grace = limit.map_or(self.deadlines.stop_grace, |limit| {
            limit.saturating_sub(asked.elapsed())
        });
        let last_output = LAST_OUTPUT.min(grace / 2);
        tokio::time::sleep(last_output).await;
        self.connection.close();
        tokio::time::sleep(grace - last_output).await;
        KillReason::Stayed(grace)
    }

    fn end_process(&self, reason: KillReason) {
        let _ = self.killed.set(reason);
        if let Some(process) = self.process.upgrade()
            && let Err(error) = process.kill()
        {
            tracing::warn!(plugin = self.identity.name(), %error, "could not kill a plugin");
        }
    }

    async fn kill(&self, reason: KillReason) -> ExitReport {
        if let Some(report) = self.exited.borrow().clone() {
            return report;
        }
        if self.is_test() {
            return self.report_now(ExitStatus::Unknown);
        }
        self.end_process(reason);
        self.connection.close();
        match tokio::time::timeout(AFTER_KILL, self.gone()).await {
            Ok(report) => report,
            Err(_) => self.report_now(ExitStatus::Unknown),
        }
    }
}

/// Somebody stops the plugin, and has deadlines of his own.
struct Stopping<'a>(&'a watch::Sender<usize>);

impl<'a> Stopping<'a> {
    fn begin(stopping: &'a watch::Sender<usize>) -> Self {
        stopping.send_modify(|stopping| *stopping += 1);
        Self(stopping)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|stopping| *stopping -= 1);
    }
}

/// Waits for the process to end and tells everybody.
struct Watch {
    plugin: String,
    process: Arc<dyn AttachedRunner>,
    connection: Connection,
    fate: Fate,
    tail: Tail,
    exited: watch::Sender<Option<ExitReport>>,
    killed: Arc<OnceLock<KillReason>>,
    /// How many stop the plugin.
    stopping: watch::Sender<usize>,
    lost_grace: Duration,
    began: Instant,
    pumps: Vec<OwnedTask>,
    /// Dropped after the process.
    places: Option<Places>,
    kill: bool,
}

impl Watch {
    async fn run(mut self) {
        let (status, connection_lost) = tokio::select! {
            biased;
            status = self.process.wait() => (status, None),
            // Without a process, the connection is all there is to watch.
            _ = self.connection.closed(), if self.process.id().is_empty() => (ExitStatus::Unknown, None),
            why = self.useless(), if self.kill => self.end_useless(why).await,
        };
        let ran = self.began.elapsed();
        // A grandchild may hold the pipes open for ever; its words are not waited for.
        let drained = async {
            while !self.pumps.iter().all(OwnedTask::is_finished) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drained).await;
        let kill_reason = self.killed.get().copied();
        let forced = kill_reason.is_some();
        let report = ExitReport {
            status,
            forced,
            kill_reason,
            connection_lost,
            ran,
            stderr: self.tail.lines(),
        };
        let plugin = self.plugin.clone();
        if status.is_success() || forced || status == ExitStatus::Unknown {
            tracing::info!(plugin, "{status}");
        } else {
            tracing::error!(plugin, "{status}");
        }
        self.fate.set(Arc::new(PluginExited {
            plugin,
            report: report.clone(),
        }));
        self.connection.broker().close();
        self.process.cleared().await;
        let places = self.places.take();
        // A plugin may have piled up much there. When the runtime ends first, it
        // is done then.
        let _ = tokio::task::spawn_blocking(move || drop(places)).await;
        self.exited.send_replace(Some(report));
    }
}

impl Watch {
    /// Waits until the connection has been lost for so long that the plugin is not
    /// about to end by itself, and nobody stops it; returns why it was lost. A
    /// connection is never made again, so the plugin is of no more use.
    async fn useless(&self) -> String {
        let why = self.connection.closed().await;
        tokio::time::sleep(self.lost_grace).await;
        let mut stopping = self.stopping.subscribe();
        let _ = stopping.wait_for(|stopping| *stopping == 0).await;
        why
    }

    async fn end_useless(&self, why: String) -> (ExitStatus, Option<String>) {
        let reason = KillReason::ConnectionLost(self.lost_grace);
        let lost = self.killed.set(reason).is_ok().then_some(why);
        if let Some(why) = &lost {
            tracing::error!(plugin = self.plugin, why, "killed: {reason}");
        }
        if let Err(error) = self.process.kill() {
            tracing::warn!(plugin = self.plugin, %error, "could not kill a plugin");
        }
        (self.process.wait().await, lost)
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
            kill_reason: self.kill.then_some(KillReason::Unasked),
            connection_lost: None,
            ran: self.began.elapsed(),
            stderr: self.tail.lines(),
        }));
    }
}

/// Whether the plugin reaches sockets in `dir` by the same path.
fn same_place(translator: &dyn AddressTranslator, dir: &Path) -> bool {
    let Some(here) = Address::unix(&dir.join("services")) else {
        return false;
    };
    translator.host_to_plugin(here.clone()) == Ok(here)
}
