//! A plugin that runs.

use std::any::TypeId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

#[cfg(feature = "netrpc")]
use outrigger_transport::netrpc::SessionError;
use outrigger_transport::process::{is_paused, start_time};
use outrigger_transport::{
    AddressTranslator, BoundListener, Broker, BrokerError, Connection, HostServices, Interface,
    OwnedTask, PluginIdentity, Serving, UnsupportedTransport,
};
use outrigger_wire::{Address, AppProtocolVersion, BrokerId, HandshakeLine, Transport};
use uuid::Uuid;

use crate::connected::{Connected, Timings};
use crate::connection::{Asked, Health, Link, PingError};
use crate::deadlines::Deadlines;
use crate::exit::{ExitReport, KillReason};
use crate::life::Life;
use crate::lifeline::OfProcess;
use crate::reattach::Reattach;
use crate::runner::AttachedRunner;
use crate::set::PluginSet;
use crate::watch::Watch;

/// How long a killed process is waited for.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// What a plugin prints while it ends still arrives for this long after its
/// answer. Then the connection is closed, as go-plugin's hosts do at once: some
/// plugins end only when their calls have.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How long a ping may take.
const PING: Duration = Duration::from_secs(5);

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
    #[cfg(feature = "netrpc")]
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
            #[cfg(feature = "netrpc")]
            Self::Plugin { source, .. } => source.code(),
        }
    }
}

outrigger_wire::coded!(DispenseError);

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
    link: Arc<Link>,
    /// Held by the watch, so that the process is gone before its places are.
    process: Weak<dyn AttachedRunner>,
    id: String,
    life: Arc<Life>,
    deadlines: Deadlines,
    timings: Timings,
    visiting: Option<Reattach>,
    tasks: Mutex<Vec<OwnedTask>>,
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
    pub(crate) fn new(connected: Connected) -> Self {
        let Connected {
            name,
            set,
            line,
            link,
            mut tasks,
            translator,
            held,
            deadlines,
            timings,
            visiting,
        } = connected;
        let process = held.process();
        let (id, pid, weak) = (process.id(), process.pid(), Arc::downgrade(process));
        let socket_dir = held.places().dir().to_owned();
        let life = Arc::new(Life::new(name.clone(), held.output.tail.clone()));
        let (lost_grace, is_visit) = (deadlines.lost_grace, visiting.is_some());
        let watch = Watch::new(life.clone(), held, link.clone(), lost_grace, is_visit);
        tasks.push(OwnedTask::spawn(watch.run()));
        let instance = Uuid::now_v7().to_string();
        Self {
            inner: Arc::new(Inner {
                identity: PluginIdentity::new(name, instance, pid)
                    .with_lifeline(Arc::new(OfProcess)),
                located: OnceLock::new(),
                socket_dir,
                translator,
                set,
                line,
                link,
                process: weak,
                id,
                life,
                deadlines,
                timings,
                visiting,
                tasks: Mutex::new(tasks),
            }),
        }
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
        let made = match self.connection() {
            Connection::Grpc(channel) => I::grpc(channel.clone(), self.broker()),
            #[cfg(feature = "netrpc")]
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

    /// The main connection, for calls without a typed client.
    pub fn connection(&self) -> &Connection {
        self.inner.link.connection()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The broker of this plugin.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.inner.link.broker().clone()
    }

    /// Serves `services` to this plugin alone on a new broker id, bound to its
    /// identity. A plugin without a broker is no error: it may not need them; one
    /// that does fails when it is introduced.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn serve(&self, services: &dyn HostServices) -> Result<Serving, BrokerError> {
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
        self.keep(async move {
            let _serving = serving;
            std::future::pending::<()>().await;
        });
        Ok(())
    }

    /// Serves what `services` have under names to this plugin alone, each on its
    /// socket, for the plugin's whole life.
    pub(crate) fn offer_named(
        &self,
        sockets: Vec<(String, BoundListener)>,
        services: &dyn HostServices,
    ) {
        if sockets.is_empty() {
            return;
        }
        let served = sockets.into_iter().map(|(name, socket)| {
            let services = services.bind_named(&name, self.identity());
            Serving::on_socket(socket, services)
        });
        let served: Vec<Serving> = served.collect();
        self.keep(async move {
            let _served = served;
            std::future::pending::<()>().await;
        });
    }

    /// Does `work` until the plugin is gone.
    pub(crate) fn keep(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.inner.life.clone();
        let task = OwnedTask::spawn(async move {
            tokio::select! {
                _ = life.gone() => {}
                () = work => {}
            }
        });
        self.inner.tasks().push(task);
    }

    /// Asks the plugin whether it is well, for at most 5 s. As in go-plugin, any
    /// answer counts.
    ///
    /// # Errors
    /// It did not answer; with the exit as source where the plugin is gone.
    pub async fn ping(&self) -> Result<(), PingError> {
        self.inner.link.ping(PING).await
    }

    /// Asks the plugin whether it takes calls, for at most `limit`.
    ///
    /// # Errors
    /// It did not answer; with the exit as source where the plugin is gone.
    pub async fn health(&self, limit: Duration) -> Result<Health, PingError> {
        self.inner.link.health(limit).await
    }

    /// Whether the process was stopped by a signal or is held by a debugger, and
    /// so cannot answer now.
    pub fn is_paused(&self) -> bool {
        self.pid().is_some_and(is_paused)
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
        self.inner.life.gone().await
    }

    /// How the plugin ended, once nothing is left of it.
    pub fn exited(&self) -> Option<ExitReport> {
        self.inner.life.exited()
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
        self.inner.life.tail.lines()
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
        self.inner.link.broker().close();
        #[cfg(feature = "netrpc")]
        if let Connection::NetRpc(session) = self.connection() {
            // Its control stream goes with this handle; a plugin may or may not
            // end the rest of the session with that.
            session.close();
        }
        // Ends the watch, whose end reaps the process and removes its directory.
        self.inner.tasks().clear();
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

    fn tasks(&self) -> MutexGuard<'_, Vec<OwnedTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this host must not end the process.
    fn is_test(&self) -> bool {
        self.visiting.as_ref().is_some_and(|reattach| reattach.test)
    }

    /// Within `limit`, or else within the deadlines of the launch.
    pub(crate) async fn stop(&self, limit: Option<Duration>) -> ExitReport {
        if let Some(report) = self.life.exited() {
            return report;
        }
        if self.is_test() {
            return self.life.unknown();
        }
        let _stopping = self.life.stopping();
        tokio::select! {
            biased;
            // What it left behind may take longer than its time to be removed.
            () = self.life.ended.cancelled() => self.life.gone().await,
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
        match tokio::time::timeout(patience, self.link.ask_to_end()).await {
            Ok(Asked::Heard) => {}
            Ok(Asked::Unable) => return KillReason::NoController,
            Err(_) => return KillReason::NoAnswer(patience),
        }
        let grace = limit.map_or(self.deadlines.stop_grace, |limit| {
            limit.saturating_sub(asked.elapsed())
        });
        let last_output = LAST_OUTPUT.min(grace / 2);
        tokio::time::sleep(last_output).await;
        self.link.close();
        tokio::time::sleep(grace - last_output).await;
        KillReason::Stayed(grace)
    }

    /// Kills the process, unless it has ended already.
    fn end_process(&self, reason: KillReason) {
        if self.life.ended.is_cancelled() {
            return;
        }
        let _ = self.life.killed.set(reason);
        if let Some(process) = self.process.upgrade()
            && let Err(error) = process.kill()
        {
            tracing::warn!(plugin = self.identity.name(), %error, "could not kill a plugin");
        }
    }

    async fn kill(&self, reason: KillReason) -> ExitReport {
        if let Some(report) = self.life.exited() {
            return report;
        }
        if self.is_test() {
            return self.life.unknown();
        }
        self.end_process(reason);
        self.link.close();
        tokio::select! {
            biased;
            () = self.life.ended.cancelled() => self.life.gone().await,
            () = tokio::time::sleep(AFTER_KILL) => self.life.unknown(),
        }
    }
}

/// Whether the plugin reaches sockets in `dir` by the same path.
fn same_place(translator: &dyn AddressTranslator, dir: &Path) -> bool {
    let Some(here) = Address::unix(&dir.join("services")) else {
        return false;
    };
    translator.host_to_plugin(here.clone()) == Ok(here)
}
