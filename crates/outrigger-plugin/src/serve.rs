//! From the start of a plugin to its end.

#[cfg(feature = "netrpc")]
mod netrpc;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "reflection")]
use outrigger_transport::GO_PLUGIN_DESCRIPTORS;
use outrigger_transport::{
    AutoMtls, BoundListener, Broker, BrokerOptions, GrpcBroker, OwnedTask, Security, ServeLimits,
    ServiceSet, Side, SocketError, Sockets, Stream, Tls, TlsError, health, serve_connection, yamux,
};
use outrigger_wire::{
    Address, AppProtocolVersion, Coded, CookieError, HandshakeLine, MagicCookie, Network,
    PluginEnvironment, PortRangeError, Transport, negotiate,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::PluginContext;
#[cfg(feature = "logs")]
use crate::logs;
use crate::set::PluginSet;
use crate::stdio::{Capture, Output, write_stderr};
use crate::{go_plugin, panics};

/// Connections to the plugin at the same time.
const MAX_CONNECTIONS: usize = 64;
/// How long a plugin with a multiplexed broker waits for its host's one
/// connection. go-plugin gives up after 5 s, which a slow host misses.
const FIRST_CONNECTION: Duration = Duration::from_secs(60);
/// Pause after the system refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a plugin serves, and how.
///
/// # Examples
/// ```
/// use outrigger_plugin::{MagicCookie, PluginSet, Serve};
///
/// let plugin = Serve::new(MagicCookie::new("GREETER", "hello"))
///     .offer(1, PluginSet::new())
///     .offer(2, PluginSet::new());
/// # drop(plugin);
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is served before `serve`"]
pub struct Serve {
    pub(crate) cookie: MagicCookie,
    pub(crate) versions: BTreeMap<AppProtocolVersion, PluginSet>,
    network: Network,
    tls: Option<Tls>,
    limits: ServeLimits,
    threads: Option<usize>,
    own_logs: bool,
    own_stdio: bool,
}

impl Serve {
    /// A plugin that serves nothing yet, to hosts that know `cookie`.
    pub fn new(cookie: MagicCookie) -> Self {
        Self {
            cookie,
            versions: BTreeMap::new(),
            network: Network::Unix,
            tls: None,
            limits: ServeLimits::default(),
            threads: None,
            own_logs: false,
            own_stdio: false,
        }
    }

    /// Serves a version of the app protocol. The highest version that the host
    /// knows too is used; without one, the lowest.
    pub fn offer(mut self, version: u32, set: PluginSet) -> Self {
        self.versions.insert(AppProtocolVersion(version), set);
        self
    }

    /// Listens on TCP instead of a unix socket.
    pub fn tcp(mut self) -> Self {
        self.network = Network::Tcp;
        self
    }

    /// Protects all connections with certificates of your own. They take
    /// precedence over the one-time certificates that a host asks for.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Bounds what one connection may ask for.
    pub fn limits(mut self, limits: ServeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves on a runtime with this many threads. Without it one thread does
    /// everything, which answers single calls in half the time; blocking work
    /// belongs on `spawn_blocking` then. Over net/rpc a host that pings in vain
    /// for 10 s hangs up, and it pings every 30 s.
    pub fn worker_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Leaves `tracing` and the panic hook as the program has set them.
    pub fn own_logs(mut self) -> Self {
        self.own_logs = true;
        self
    }

    /// Leaves descriptors 1 and 2 alone: what the plugin prints is not sent to
    /// the host, and must not go to stdout.
    pub fn own_stdio(mut self) -> Self {
        self.own_stdio = true;
        self
    }

    /// Serves until the host asks the plugin to end, on the current runtime. Logs
    /// and prints reach the host as with [`serve`]; what the outcome means for the
    /// exit code is up to the caller.
    ///
    /// # Errors
    /// See [`ServeError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends all connections and removes the socket.
    pub async fn run(self) -> Result<(), ServeError> {
        self.install_logs();
        let environment = |name: &str| std::env::var(name).ok();
        self.cookie.check(environment).map_err(ServeError::Cookie)?;
        let environment = PluginEnvironment::read(environment);
        let prepared = self.prepare(environment, CancellationToken::new()).await?;
        // From the handshake on the host may pass an interrupt of its terminal on.
        swallow_interrupts(prepared.stopping.clone());
        print_handshake(&prepared.line).map_err(ServeError::Handshake)?;
        let capture = match self.own_stdio {
            true => None,
            false => Some(Capture::start(&prepared.output).map_err(ServeError::Stdio)?),
        };
        prepared.serve().await;
        drop(capture);
        Ok(())
    }

    fn install_logs(&self) {
        if !self.own_logs {
            #[cfg(feature = "logs")]
            logs::install();
            panics::log();
        }
    }

    /// Binds the listener and builds the services; nothing is printed yet.
    pub(crate) async fn prepare(
        &self,
        environment: PluginEnvironment,
        stopping: CancellationToken,
    ) -> Result<Prepared, ServeError> {
        for ignored in &environment.ignored_versions {
            tracing::warn!(
                version = ignored,
                "the host offers a version that is no number"
            );
        }
        let own = self
            .versions
            .iter()
            .map(|(version, set)| (*version, set.transport()))
            .collect();
        let (version, transport) =
            negotiate(&own, &environment.versions).ok_or(ServeError::NoVersions)?;
        let sockets = Sockets {
            network: self.network,
            dir: environment.socket_dir,
            owned: false,
            group: environment.socket_group,
            ports: environment.ports.map_err(ServeError::Ports)?,
        };
        let listener = sockets.bind().await.map_err(ServeError::Listen)?;
        let (security, certificate) =
            self.security(environment.client_certificate_pem.as_deref())?;
        let set = self.versions.get(&version).cloned().unwrap_or_default();
        let line = HandshakeLine {
            app_version: version,
            address: listener.address().clone(),
            transport,
            certificate,
            mux: environment.mux_field.then_some(true),
        };
        Ok(Prepared {
            line,
            listener,
            security,
            // Brokered sockets are in the same directory, but take any port.
            sockets: Sockets {
                ports: None,
                ..sockets
            },
            set,
            // Multiplexing is gRPC's; net/rpc always has it.
            mux: environment.mux && transport == Transport::Grpc,
            limits: self.limits,
            output: Output::default(),
            stopping,
        })
    }

    fn security(&self, host: Option<&str>) -> Result<(Security, Option<Vec<u8>>), ServeError> {
        if let Some(tls) = &self.tls {
            return Ok((Security::Tls(tls.clone()), None));
        }
        let Some(host) = host else {
            return Ok((Security::None, None));
        };
        let own = AutoMtls::generate().map_err(ServeError::Tls)?;
        let tls = own.pin_pem(host).map_err(ServeError::Tls)?;
        Ok((Security::Tls(tls), Some(own.der().to_vec())))
    }
}

/// A plugin could not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The program was not started by its host, or has no cookie configured.
    #[error(transparent)]
    Cookie(CookieError),
    /// The program offers no version.
    #[error("the plugin offers no app protocol version")]
    NoVersions,
    /// The host's port range is unusable.
    #[error("could not use the host's port range")]
    Ports(#[source] PortRangeError),
    /// No socket could be bound.
    #[error("could not listen for the host")]
    Listen(#[source] SocketError),
    /// The host's certificate is unusable, or none could be made.
    #[error("could not prepare TLS")]
    Tls(#[source] TlsError),
    /// The system lacked what an async runtime needs, such as a thread.
    #[error("could not start the async runtime")]
    Runtime(#[source] io::Error),
    /// Descriptors 1 and 2 could not be redirected.
    #[error("could not redirect stdout and stderr")]
    Stdio(#[source] io::Error),
    /// The handshake line could not be printed.
    #[error("could not print the handshake line")]
    Handshake(#[source] io::Error),
}

impl ServeError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cookie(error) => error.code(),
            Self::NoVersions => "no-versions",
            Self::Ports(error) => error.code(),
            Self::Listen(error) => error.code(),
            Self::Tls(error) => error.code(),
            Self::Runtime(_) => "runtime-not-started",
            Self::Stdio(_) => "stdio-not-redirected",
            Self::Handshake(_) => "handshake-not-printed",
        }
    }

    /// The exit code that go-plugin ends with: 0 where it only logs the reason.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Cookie(_) | Self::Runtime(_) | Self::Stdio(_) | Self::Handshake(_) => {
                ExitCode::FAILURE
            }
            Self::NoVersions | Self::Ports(_) | Self::Listen(_) | Self::Tls(_) => ExitCode::SUCCESS,
        }
    }
}

/// Serves `plugin` until its host asks it to end. Call it in `main` and return
/// what it returns; code after it runs when serving is over.
///
/// # Panics
/// Inside a tokio runtime; use [`Serve::run`] there.
pub fn serve(plugin: Serve) -> ExitCode {
    let runtime = match plugin.threads {
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        Some(threads) => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(plugin.run());
            // Blocking work that is still running must not hold up the end.
            runtime.shutdown_background();
            served
        }
        Err(error) => {
            plugin.install_logs();
            Err(ServeError::Runtime(error))
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::Cookie(_)) => {
            write_stderr(format!("{error}\n").as_bytes());
            error.exit_code()
        }
        Err(error) => {
            tell(&error);
            error.exit_code()
        }
    }
}

/// Tells the host why the plugin does not serve: in its log, or, where nobody in
/// this process takes events, as a line of stderr.
fn tell(error: &ServeError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let code = error.code();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(code, error = cause, "plugin init error: {error}");
    } else {
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        write_stderr(format!("plugin init error [{code}]: {error}{cause}\n").as_bytes());
    }
}

/// [`serve`] for a program that holds several plugins: its only argument names one.
pub fn serve_by_argument(plugins: impl IntoIterator<Item = (&'static str, Serve)>) -> ExitCode {
    let mut plugins: BTreeMap<_, _> = plugins.into_iter().collect();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plugin = match arguments.as_slice() {
        [name] => plugins.remove(name.as_str()),
        _ => None,
    };
    if let Some(plugin) = plugin {
        return serve(plugin);
    }
    let known: Vec<_> = plugins.into_keys().collect();
    let text = format!(
        "name one plugin as the only argument: {}\n",
        known.join(", ")
    );
    write_stderr(text.as_bytes());
    ExitCode::FAILURE
}

fn print_handshake(line: &HandshakeLine) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", line.to_line())?;
    stdout.flush()
}

/// An interrupt at the terminal reaches plugins too, and the host decides what
/// it means: the plugin only counts it.
fn swallow_interrupts(stopping: CancellationToken) {
    let Ok(mut interrupts) = signal(SignalKind::interrupt()) else {
        tracing::warn!("an interrupt at the terminal will end this plugin");
        return;
    };
    // Ends with serving.
    tokio::spawn(async move {
        let mut count = 0_u64;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = interrupts.recv() => {
                    count += 1;
                    tracing::trace!(count, "received interrupt signal, ignoring");
                }
            }
        }
    });
}

/// A plugin that is bound and has not announced itself yet.
pub(crate) struct Prepared {
    pub(crate) line: HandshakeLine,
    listener: BoundListener,
    security: Security,
    sockets: Sockets,
    set: PluginSet,
    mux: bool,
    limits: ServeLimits,
    output: Output,
    stopping: CancellationToken,
}

impl Prepared {
    pub(crate) fn address(&self) -> &Address {
        &self.line.address
    }

    /// Captures descriptors 1 and 2 for the host.
    pub(crate) fn capture(&self) -> io::Result<Capture> {
        Capture::start(&self.output)
    }

    /// Serves until `stopping` fires or, multiplexed, the host is gone.
    pub(crate) async fn serve(self) {
        match self.line.transport {
            #[cfg(feature = "netrpc")]
            Transport::NetRpc => self.serve_netrpc().await,
            // Without the feature no set is served over net/rpc.
            _ => self.serve_grpc().await,
        }
    }

    async fn serve_grpc(mut self) {
        let session = match self.mux {
            false => None,
            true => match self.first_session().await {
                None => return,
                session => session,
            },
        };
        let options = self.broker_options();
        let broker = Arc::new(match &session {
            Some(session) => GrpcBroker::multiplexed(options, session.clone()),
            None => GrpcBroker::plain(options),
        });
        let context = PluginContext::new(broker.clone(), self.stopping.clone());
        let services = self.services(&broker, &context);
        let looking = OwnedTask::spawn(context.connect_early());
        let mut connections = JoinSet::new();
        while let Some(stream) = self.next_connection(Some(&broker), &mut connections).await {
            self.answer(&mut connections, stream, &services);
        }
        drop(looking);
        broker.close();
        self.listener.unlink();
        self.drain(connections).await;
        if let Some(session) = session {
            session.close();
        }
    }

    /// The host's next connection to the plugin's own services; nothing when serving is over.
    async fn next_connection(
        &self,
        broker: Option<&GrpcBroker>,
        connections: &mut JoinSet<()>,
    ) -> Option<Stream> {
        loop {
            let next = async {
                match broker {
                    Some(broker) if self.mux => {
                        broker.next_unclaimed().await.map_err(io::Error::from)
                    }
                    _ => self.listener.accept().await,
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return None,
                stream = next, if connections.len() < MAX_CONNECTIONS => match stream {
                    Ok(stream) => return Some(stream),
                    Err(error) if self.mux => {
                        tracing::debug!(%error, "the host is gone");
                        return None;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// The one connection that carries everything. Its socket is not needed afterwards.
    async fn first_session(&mut self) -> Option<yamux::Session> {
        let first = async {
            loop {
                match self.listener.accept().await {
                    Ok(socket) => return socket,
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let accepted = tokio::select! {
            () = self.stopping.cancelled() => return None,
            accepted = tokio::time::timeout(FIRST_CONNECTION, first) => accepted,
        };
        self.listener.unlink();
        let Ok(socket) = accepted else {
            tracing::error!(
                "the host did not connect within {} s",
                FIRST_CONNECTION.as_secs()
            );
            return None;
        };
        let config = yamux::Config::default();
        Some(yamux::Session::new(socket, yamux::Role::Server, config))
    }

    fn broker_options(&self) -> BrokerOptions {
        BrokerOptions {
            security: self.security.clone(),
            sockets: self.sockets.clone(),
            ..BrokerOptions::new(Side::Plugin)
        }
    }

    fn services(&self, broker: &Arc<GrpcBroker>, context: &PluginContext) -> ServiceSet {
        let services = self
            .set
            .services(context)
            .with(health::service())
            .with(broker.service())
            .with(go_plugin::controller(self.stopping.clone()))
            .with(go_plugin::stdio(self.output.clone(), self.stopping.clone()));
        #[cfg(feature = "reflection")]
        let services = services.describe(GO_PLUGIN_DESCRIPTORS).with_reflection();
        services
    }

    fn answer(&self, connections: &mut JoinSet<()>, stream: Stream, services: &ServiceSet) {
        let (security, services) = (self.security.clone(), services.clone());
        let (limits, stopping) = (self.limits, self.stopping.clone());
        connections.spawn(async move {
            match security.accept(stream).await {
                Ok(stream) => serve_connection(stream, services, limits, stopping).await,
                Err(error) => refused(&error),
            }
        });
    }

    /// Running calls end by themselves or after the drain time of their connection.
    async fn drain(&self, mut connections: JoinSet<()>) {
        self.stopping.cancel();
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.limits.drain * 2, all).await;
    }
}

fn refused(error: &TlsError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "refused a connection");
}

/// A task that serves a prepared plugin.
pub(crate) fn spawn(prepared: Prepared, capture: Option<Capture>) -> OwnedTask {
    OwnedTask::spawn(async move {
        prepared.serve().await;
        drop(capture);
    })
}
