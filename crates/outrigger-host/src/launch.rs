//! From a program to a plugin that answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_transport::netrpc::MAX_VALUE;
use outrigger_transport::{
    AddressTranslator, AutoMtls, ConnectError, HostServices, OwnedTask, Security, Sockets, Tls,
    connect,
};
use outrigger_wire::logs::DEFAULT_LINE_BUFFER;
use outrigger_wire::{
    Address, AllowedTransports, AppProtocolVersion, BrokerId, DEFAULT_PORT_RANGE,
    ENV_HOST_SERVICES, Excerpt, HandshakeError, HandshakeLine, HandshakeRules, HostEnvironment,
    MagicCookie, Network, PortRange, SCRUBBED, Transport,
};
use tokio::sync::oneshot;

use crate::connection::{Link, Mirror};
use crate::diagnose::{diagnose, diagnose_not_found};
use crate::digest::ExpectedDigest;
use crate::error::{Facts, LaunchError, LaunchErrorKind};
use crate::exit::ExitStatus;
use crate::logs::{self, Tail};
use crate::output::{self, FirstLine};
use crate::plugin::{Parts, RunningPlugin, Timings};
use crate::process::ProcessRunner;
use crate::reattach::{Nobody, Reattach, Visited};
use crate::runner::{AttachedRunner, Command, Runner, RunnerError};
use crate::set::PluginSet;
use crate::workspace::{Places, SocketDir};

/// How long a process that ended may take to flush what it printed.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Where a plugin finds the host's services: far from the numbers that brokers count.
const HOST_SERVICES: BrokerId = BrokerId(1 << 31);

/// Every wait of a plugin's life that the host bounds.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the start of the process to its handshake line, and for a net/rpc
    /// plugin from asking it for an object to its answer: 60 s.
    pub start: Duration,
    /// From the handshake line to a connection: 5 s.
    pub connect: Duration,
    /// From dialling a broker id to its announcement: 5 s. Over net/rpc the
    /// accepting side counts, from when it sees the stream; dialling there ends
    /// after twice this even if that side never says so.
    pub broker: Duration,
    /// From asking the plugin to stop to its answer, or the end of its
    /// connection: 10 s. go-plugin's hosts wait for ever.
    pub stop_reply: Duration,
    /// From then on to killing it: 2 s.
    pub stop_grace: Duration,
    /// From the loss of the connection to killing a plugin that was not asked to
    /// end and runs on: 10 s. A plugin that ends by itself closes its connection
    /// first. go-plugin's hosts let such a plugin run.
    pub lost_grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            broker: Duration::from_secs(5),
            stop_reply: Duration::from_secs(10),
            stop_grace: Duration::from_secs(2),
            lost_grace: Duration::from_secs(10),
        }
    }
}

/// How to start one plugin.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use outrigger_host::{Deadlines, Launch, MagicCookie, PluginSet};
///
/// let launch = Launch::new("plugins/kv/kv", MagicCookie::new("BASIC_PLUGIN", "hello"))
///     .offer(1, PluginSet::new())
///     .auto_mtls()
///     .deadlines(Deadlines { start: Duration::from_secs(10), ..Deadlines::default() });
/// # drop(launch);
/// ```
#[must_use = "nothing runs before `start`"]
pub struct Launch {
    name: Option<String>,
    target: Target,
    cookie: MagicCookie,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    skip_host_env: bool,
    directory: Option<PathBuf>,
    versions: BTreeMap<AppProtocolVersion, PluginSet>,
    allowed: AllowedTransports,
    tls: TlsChoice,
    mux: bool,
    deadlines: Deadlines,
    max_value: usize,
    ports: PortRange,
    group: Option<String>,
    temp_dir: Option<PathBuf>,
    digest: Option<ExpectedDigest>,
    outputs: Mutex<Outputs>,
    runner: Arc<dyn Runner>,
    translator: Option<Arc<dyn AddressTranslator>>,
    managed: bool,
    log_buffer: usize,
    services: Option<Arc<dyn HostServices>>,
}

/// Where the plugin's output goes besides. Writers need not be `Sync`; the lock
/// around them, which nobody ever waits for, lets a launch be used by a future
/// that changes threads.
#[derive(Default)]
struct Outputs {
    stderr: Option<Box<dyn Write + Send>>,
    mirror: Mirror,
}

enum Target {
    Program(PathBuf),
    Running(Reattach, Option<Arc<dyn AttachedRunner>>),
}

enum TlsChoice {
    None,
    Auto,
    Static(Tls),
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name())
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

impl Launch {
    /// A launch of `program` with either RPC protocol and otherwise go-plugin's
    /// defaults: no TLS, and for gRPC a broker with a socket per connection.
    ///
    /// A program without a slash is the first executable file of that name in the
    /// absolute directories of the host's own `PATH`, never one in the current
    /// directory. A relative path with a slash starts at the host's current
    /// directory, whatever [`current_dir`](Self::current_dir) says.
    pub fn new(program: impl Into<PathBuf>, cookie: MagicCookie) -> Self {
        Self::with_target(Target::Program(program.into()), cookie)
    }

    /// Joins a plugin that already runs instead of starting one. AutoMTLS, the
    /// multiplexed broker and digests are refused then, as go-plugin does.
    pub fn reattach(reattach: Reattach) -> Self {
        Self::with_target(Target::Running(reattach, None), MagicCookie::new("", ""))
    }

    /// Joins a plugin that a runner of your own holds.
    pub fn reattach_with(reattach: Reattach, process: Arc<dyn AttachedRunner>) -> Self {
        Self::with_target(
            Target::Running(reattach, Some(process)),
            MagicCookie::new("", ""),
        )
    }

    fn with_target(target: Target, cookie: MagicCookie) -> Self {
        Self {
            name: None,
            target,
            cookie,
            arguments: Vec::new(),
            environment: Vec::new(),
            skip_host_env: false,
            directory: None,
            versions: BTreeMap::new(),
            allowed: AllowedTransports::ALL,
            tls: TlsChoice::None,
            mux: false,
            deadlines: Deadlines::default(),
            max_value: MAX_VALUE,
            ports: DEFAULT_PORT_RANGE,
            group: None,
            temp_dir: None,
            digest: None,
            outputs: Mutex::default(),
            runner: Arc::new(ProcessRunner),
            translator: None,
            managed: false,
            log_buffer: DEFAULT_LINE_BUFFER,
            services: None,
        }
    }

    /// Names the plugin in logs and errors; the program's file name otherwise.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds a variable. As in go-plugin, one of the same name in the host's own
    /// environment wins, unless that is [skipped](Self::skip_host_env).
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Keeps the host's own environment from the plugin.
    pub fn skip_host_env(mut self) -> Self {
        self.skip_host_env = true;
        self
    }

    /// Sets the plugin's working directory; the host's own otherwise. The
    /// program is not looked for there.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Offers a version of the app protocol, with the interfaces it has. The
    /// plugin picks the highest version that both sides know.
    pub fn offer(mut self, version: u32, set: PluginSet) -> Self {
        self.versions.insert(AppProtocolVersion(version), set);
        self
    }

    /// Says which RPC protocols the plugin may speak; both otherwise, unlike in
    /// go-plugin, whose hosts allow net/rpc alone unless told.
    ///
    /// A plugin that speaks net/rpc pings its host every 30 s and hangs up after
    /// 10 s without an answer: the host's runtime must run all the time, not only
    /// while a call waits.
    pub fn allow(mut self, transports: AllowedTransports) -> Self {
        self.allowed = transports;
        self
    }

    /// The largest argument or reply over net/rpc, in bytes, in either direction:
    /// 64 MiB otherwise. A larger argument is refused; a larger reply ends its
    /// connection. What the plugin's calls of the host bring along takes no more
    /// than about twice that at a time; the plugin is not read meanwhile.
    pub fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    /// Protects all connections with one-time certificates of both sides.
    pub fn auto_mtls(mut self) -> Self {
        self.tls = TlsChoice::Auto;
        self
    }

    /// Protects all connections with certificates of your own.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = TlsChoice::Static(tls);
        self
    }

    /// Carries brokered connections over the main one; a plugin that cannot is refused.
    pub fn mux_broker(mut self) -> Self {
        self.mux = true;
        self
    }

    /// Sets how long the host waits for each step.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Sets the ports that a plugin on TCP may take; 10000 to 25000 otherwise.
    pub fn port_range(mut self, ports: PortRange) -> Self {
        self.ports = ports;
        self
    }

    /// Gives all sockets to a group, by name or number.
    pub fn socket_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Makes the directory of the sockets beneath `directory`; beneath the
    /// system's temporary one otherwise, and beneath `/tmp` where a path is too
    /// long for sockets.
    pub fn temp_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.temp_dir = Some(directory.into());
        self
    }

    /// Starts the program only if its content has this digest. The file that
    /// was hashed is the one that is executed.
    ///
    /// The interpreter of a script opens it through the host's own descriptor,
    /// which the system hides if the host gained rights when it was executed
    /// (file capabilities, set-user-ID): launch the interpreter itself there.
    pub fn expect_digest(mut self, digest: ExpectedDigest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Copies the plugin's raw stderr here, besides logging it.
    pub fn stderr(mut self, copy: impl Write + Send + 'static) -> Self {
        self.outputs().stderr = Some(Box::new(copy));
        self
    }

    /// Sends here what the plugin prints to its stdout while it serves.
    pub fn mirror_stdout(mut self, copy: impl Write + Send + 'static) -> Self {
        self.outputs().mirror.stdout = Some(Box::new(copy));
        self
    }

    /// Sends here what the plugin prints to its stderr while it serves.
    pub fn mirror_stderr(mut self, copy: impl Write + Send + 'static) -> Self {
        self.outputs().mirror.stderr = Some(Box::new(copy));
        self
    }

    /// Starts the program by another runner than a plain process.
    pub fn runner(mut self, runner: impl Runner + 'static) -> Self {
        self.runner = Arc::new(runner);
        self
    }

    /// Rewrites addresses; overrides the runner's own translator.
    pub fn translate(mut self, translator: impl AddressTranslator + 'static) -> Self {
        self.translator = Some(Arc::new(translator));
        self
    }

    /// Lets [`stop_managed`](crate::stop_managed) stop the plugin.
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    /// Sets the longest stderr line that is parsed, in bytes; 65536 otherwise.
    pub fn log_buffer(mut self, bytes: usize) -> Self {
        self.log_buffer = bytes;
        self
    }

    /// Serves `services` to the plugin, bound to its identity, from its start to
    /// its end. The plugin learns their broker id from the variable
    /// `OUTRIGGER_HOST_SERVICES`; our SDKs find them by themselves. A plugin that
    /// is joined, not started, is served by [`RunningPlugin::attach`].
    pub fn host_services(mut self, services: Arc<dyn HostServices>) -> Self {
        self.services = Some(services);
        self
    }

    fn outputs(&mut self) -> &mut Outputs {
        let outputs = self.outputs.get_mut();
        outputs.unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        match &self.target {
            Target::Program(path) => path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            Target::Running(reattach, _) => reattach.address.to_string(),
        }
    }

    /// Starts the plugin and connects to it.
    ///
    /// # Errors
    /// See [`LaunchErrorKind`]. Nothing is left running then.
    ///
    /// # Cancel safety
    /// When the future is dropped, the process is killed.
    pub async fn start(mut self) -> Result<RunningPlugin, LaunchError> {
        let name = self.name();
        match std::mem::replace(&mut self.target, Target::Program(PathBuf::new())) {
            Target::Program(program) => self.launch(name, program).await,
            Target::Running(reattach, process) => self.join(name, reattach, process).await,
        }
    }

    async fn launch(
        mut self,
        name: String,
        program: PathBuf,
    ) -> Result<RunningPlugin, LaunchError> {
        let fail = |kind| LaunchError::new(&name, kind);
        let began = Instant::now();
        let certificate = match self.tls {
            TlsChoice::Auto => {
                Some(AutoMtls::generate().map_err(|e| fail(LaunchErrorKind::Certificate(e)))?)
            }
            TlsChoice::None | TlsChoice::Static(_) => None,
        };
        let dir = self
            .socket_dir()
            .map_err(|error| fail(LaunchErrorKind::Workspace(error)))?;
        let not_started = |error: RunnerError, program: &Path| {
            let diagnosis = match &error {
                RunnerError::NotFound(error) => diagnose_not_found(error),
                _ => diagnose(program),
            };
            let mut error = fail(LaunchErrorKind::Start(error));
            error.facts.diagnosis = Some(diagnosis);
            error
        };
        // Once, so that what is checked, started and explained is one file.
        let program = match self.runner.locate(&program) {
            Ok(located) => located,
            Err(error) => return Err(not_started(error, &program)),
        };
        let command = self.command(program, dir.path(), certificate.as_ref());
        let starting = tokio::time::timeout(self.deadlines.start, self.runner.start(&command));
        let started = match starting.await {
            Ok(Ok(started)) => started,
            Ok(Err(RunnerError::Digest(error))) => {
                return Err(fail(LaunchErrorKind::Digest(error)));
            }
            Ok(Err(error)) => return Err(not_started(error, &command.program)),
            Err(_) => {
                return Err(fail(LaunchErrorKind::HandshakeTimeout(
                    self.deadlines.start,
                )));
            }
        };
        let spawned = Instant::now();

        let tail = Tail::default();
        let stderr = OwnedTask::spawn(logs::pump(
            started.stderr,
            name.clone(),
            self.log_buffer,
            self.outputs().stderr.take(),
            tail.clone(),
        ));
        let (line, first) = oneshot::channel();
        let stdout = OwnedTask::spawn(output::drain(started.stdout, line));
        let mut held = Held {
            process: started.process,
            places: Places::new(dir),
            stderr,
            stdout,
            tail,
            began: spawned,
        };

        let failed = match self.handshake(first, &held).await {
            Ok(line) => {
                let shaken = Instant::now();
                match self
                    .reach(&name, &line, certificate.as_ref(), &held, &command)
                    .await
                {
                    Ok((link, security)) => {
                        let timings = Timings {
                            spawn: spawned - began,
                            handshake: shaken - spawned,
                            connect: shaken.elapsed(),
                        };
                        let services = self.services.clone();
                        let plugin =
                            self.assemble(name.clone(), line, link, security, held, timings);
                        if let Some(services) = services {
                            let offered = plugin.offer(HOST_SERVICES, services.as_ref()).await;
                            offered.map_err(|error| fail(LaunchErrorKind::HostServices(error)))?;
                        }
                        return Ok(plugin);
                    }
                    Err(kind) => kind,
                }
            }
            Err(kind) => kind,
        };
        let facts = held.end(&failed, &command.program).await;
        let kind = match failed {
            // A plugin that went away while it was dialled did not refuse the connection.
            LaunchErrorKind::Connect(_) if facts.exit.is_some() => LaunchErrorKind::ExitedUnreached,
            kind => kind,
        };
        Err(LaunchError {
            facts: Box::new(facts),
            ..fail(kind)
        })
    }

    /// A directory for this plugin's sockets alone.
    fn socket_dir(&self) -> std::io::Result<SocketDir> {
        let sockets = self.sockets(Network::Unix, None);
        let group = sockets.group_id().map_err(std::io::Error::other)?;
        SocketDir::create(self.temp_dir.as_deref(), group)
    }

    /// The environment in go-plugin's order: the last of equal names wins.
    fn command(&self, program: PathBuf, dir: &Path, own: Option<&AutoMtls>) -> Command {
        let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
        environment.extend(self.environment.iter().cloned());
        if !self.skip_host_env {
            let scrubbed = |key: &OsString| SCRUBBED.iter().any(|name| key == *name);
            environment.extend(std::env::vars_os().filter(|(key, _)| !scrubbed(key)));
        }
        // This process may be a plugin itself, with services of its own host.
        environment.remove(OsStr::new(ENV_HOST_SERVICES));
        if self.services.is_some() {
            environment.insert(ENV_HOST_SERVICES.into(), HOST_SERVICES.0.to_string().into());
        }
        let versions: BTreeSet<_> = self.versions.keys().copied().collect();
        let dir_text = dir.to_string_lossy();
        let library = HostEnvironment {
            cookie: &self.cookie,
            ports: self.ports,
            versions: &versions,
            mux: self.mux,
            client_certificate_pem: own.map(AutoMtls::pem),
            socket_group: self.group.as_deref(),
            socket_dir: Some(&dir_text),
        };
        let variables = library
            .variables()
            .into_iter()
            .filter(|(key, _)| !key.is_empty());
        environment.extend(variables.map(|(key, value)| (key.into(), value.into())));
        Command {
            program,
            arguments: self.arguments.clone(),
            environment: environment.into_iter().collect(),
            directory: self.directory.clone(),
            socket_dir: dir.to_owned(),
            digest: self.digest.clone(),
        }
    }

    async fn handshake(
        &self,
        mut first: oneshot::Receiver<FirstLine>,
        held: &Held,
    ) -> Result<HandshakeLine, LaunchErrorKind> {
        let limit = self.deadlines.start;
        let first = tokio::select! {
            biased;
            line = &mut first => line.ok(),
            _ = held.process.wait() => {
                // What it printed before it ended may still be on its way.
                tokio::time::timeout(LAST_WORDS, first).await.ok().and_then(Result::ok)
            }
            () = tokio::time::sleep(limit) => return Err(LaunchErrorKind::HandshakeTimeout(limit)),
        };
        match first {
            Some(FirstLine::Line(line)) => {
                let offered = self.versions.keys().copied().collect();
                let rules = HandshakeRules {
                    offered: &offered,
                    allowed: self.allowed,
                    mux_requested: self.mux,
                };
                HandshakeLine::parse(&line, &rules).map_err(LaunchErrorKind::Handshake)
            }
            Some(FirstLine::TooLong(start)) => {
                Err(LaunchErrorKind::HandshakeEndless(Excerpt::new(&start)))
            }
            Some(FirstLine::Nothing) | None => {
                let ended = tokio::time::timeout(LAST_WORDS, held.process.wait()).await;
                Err(ended.map_or(LaunchErrorKind::StdoutClosed, |_| {
                    LaunchErrorKind::ExitedEarly
                }))
            }
        }
    }

    async fn reach(
        &self,
        name: &str,
        line: &HandshakeLine,
        own: Option<&AutoMtls>,
        held: &Held,
        command: &Command,
    ) -> Result<(Link, Security), LaunchErrorKind> {
        let address = self.translated(line.address.clone());
        if let Ok(address) = &address {
            held.places.announced(address, |name| {
                let found = command.environment.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.as_os_str())
            });
        }
        let security = match (&self.tls, own, &line.certificate) {
            (TlsChoice::Static(tls), _, _) => Security::Tls(tls.clone()),
            (_, Some(own), Some(peer)) => Security::Tls(
                own.pin(peer)
                    .map_err(LaunchErrorKind::CertificateUnusable)?,
            ),
            (_, Some(_), None) => return Err(LaunchErrorKind::CertificateMissing),
            (_, None, Some(_)) => return Err(LaunchErrorKind::CertificateUnexpected),
            (_, None, None) => Security::None,
        };
        let address = address?;
        let limit = self.deadlines.connect;
        let connecting = self.connect(&address, line.transport, self.mux, &security);
        let connected = tokio::select! {
            connected = tokio::time::timeout(limit, connecting) => {
                connected.unwrap_or(Err(ConnectError::TimedOut(limit)))
            }
            _ = held.process.wait() => return Err(LaunchErrorKind::ExitedUnreached),
        };
        let link = connected.map_err(LaunchErrorKind::Connect)?;
        tracing::debug!(plugin = name, %address, "connected");
        Ok((link, security))
    }

    async fn connect(
        &self,
        address: &Address,
        transport: Transport,
        mux: bool,
        security: &Security,
    ) -> Result<Link, ConnectError> {
        let socket = connect(address)
            .await
            .map_err(|source| ConnectError::Socket {
                address: address.to_string(),
                source,
            })?;
        let limit = self.deadlines.connect;
        match transport {
            Transport::Grpc => Link::grpc(socket, mux, security, limit).await,
            Transport::NetRpc => {
                Link::netrpc(socket, security, self.max_value, self.deadlines.broker).await
            }
        }
    }

    fn translated(&self, address: Address) -> Result<Address, LaunchErrorKind> {
        self.translator()
            .plugin_to_host(address)
            .map_err(LaunchErrorKind::Untranslatable)
    }

    fn translator(&self) -> Arc<dyn AddressTranslator> {
        self.translator
            .clone()
            .unwrap_or_else(|| self.runner.translator())
    }

    fn sockets(&self, network: Network, dir: Option<&Path>) -> Sockets {
        match network {
            Network::Unix => Sockets {
                group: self.group.clone(),
                owned: dir.is_some(),
                ..Sockets::unix(dir.map(Path::to_owned))
            },
            Network::Tcp => Sockets::tcp(None),
        }
    }

    fn assemble(
        mut self,
        name: String,
        line: HandshakeLine,
        link: Link,
        security: Security,
        held: Held,
        timings: Timings,
    ) -> RunningPlugin {
        let set = self
            .versions
            .get(&line.app_version)
            .cloned()
            .unwrap_or_default();
        let sockets = self.sockets(line.address.network, Some(held.places.dir()));
        let translator = self.translator();
        RunningPlugin::assemble(Parts {
            name,
            set,
            line,
            link,
            security,
            sockets,
            translator,
            process: held.process,
            places: held.places,
            pumps: vec![held.stderr, held.stdout],
            tail: held.tail,
            mirror: std::mem::take(&mut self.outputs().mirror),
            deadlines: self.deadlines,
            timings,
            began: held.began,
            managed: self.managed,
            visiting: None,
        })
    }

    async fn join(
        mut self,
        name: String,
        reattach: Reattach,
        process: Option<Arc<dyn AttachedRunner>>,
    ) -> Result<RunningPlugin, LaunchError> {
        let fail = |kind| LaunchError::new(&name, kind);
        let contradiction = if matches!(self.tls, TlsChoice::Auto) {
            Some("AutoMTLS needs a launch: a running plugin has its certificates already")
        } else if self.mux {
            Some("gRPC broker multiplexing is not supported with Reattach config")
        } else if self.digest.is_some() {
            Some("only one of Reattach or SecureConfig can be set")
        } else {
            None
        };
        if let Some(text) = contradiction {
            return Err(fail(LaunchErrorKind::Configuration(text)));
        }
        let process: Arc<dyn AttachedRunner> = match (process, reattach.pid) {
            (Some(process), _) => process,
            (None, _) if reattach.test => Arc::new(Nobody),
            (None, Some(pid)) => Arc::new(
                Visited::find(pid, reattach.started)
                    .map_err(|_| fail(LaunchErrorKind::ProcessNotFound))?,
            ),
            (None, None) => Arc::new(Nobody),
        };
        let security = match &self.tls {
            TlsChoice::Static(tls) => Security::Tls(tls.clone()),
            TlsChoice::None | TlsChoice::Auto => Security::None,
        };
        let address = self.translated(reattach.address.clone()).map_err(fail)?;
        let began = Instant::now();
        let limit = self.deadlines.connect;
        let connecting = self.connect(&address, reattach.transport, false, &security);
        let connected = tokio::time::timeout(limit, connecting).await;
        let link = match connected.unwrap_or(Err(ConnectError::TimedOut(limit))) {
            Ok(connected) => connected,
            Err(ConnectError::Socket { .. }) => return Err(fail(LaunchErrorKind::ProcessNotFound)),
            Err(error) => return Err(fail(LaunchErrorKind::Connect(error))),
        };
        let set = match self.versions.get(&reattach.version) {
            Some(set) => set.clone(),
            // A plugin that says nothing of its version is taken at the host's only word.
            None if self.versions.len() == 1 => {
                self.versions.values().next().cloned().unwrap_or_default()
            }
            None => PluginSet::new(),
        };
        let line = HandshakeLine {
            app_version: reattach.version,
            address: reattach.address.clone(),
            transport: reattach.transport,
            certificate: None,
            mux: None,
        };
        let workspace = self
            .socket_dir()
            .map_err(|error| fail(LaunchErrorKind::Workspace(error)))?;
        let places = Places::new(workspace);
        // Of its environment nothing is known.
        places.announced(&address, |_| None);
        let sockets = self.sockets(line.address.network, Some(places.dir()));
        let translator = self.translator();
        Ok(RunningPlugin::assemble(Parts {
            name,
            set,
            line,
            link,
            security,
            sockets,
            translator,
            process,
            places,
            pumps: Vec::new(),
            tail: Tail::default(),
            mirror: std::mem::take(&mut self.outputs().mirror),
            deadlines: self.deadlines,
            timings: Timings {
                connect: began.elapsed(),
                ..Timings::default()
            },
            began,
            managed: self.managed,
            visiting: Some(reattach),
        }))
    }
}

/// A process that is not a plugin yet. Dropping it kills the process.
struct Held {
    process: Arc<dyn AttachedRunner>,
    /// Dropped after the process.
    places: Places,
    stderr: OwnedTask,
    stdout: OwnedTask,
    tail: Tail,
    began: Instant,
}

impl Held {
    /// Ends the process and collects what explains the failure.
    async fn end(&mut self, failed: &LaunchErrorKind, program: &Path) -> Facts {
        let early = matches!(
            failed,
            LaunchErrorKind::ExitedEarly
                | LaunchErrorKind::ExitedUnreached
                | LaunchErrorKind::Handshake(HandshakeError::TooFewFields { .. })
                | LaunchErrorKind::Connect(_)
        );
        // A plugin that printed something wrong is often about to end by itself.
        let patience = if early { LAST_WORDS } else { Duration::ZERO };
        let ended = tokio::time::timeout(patience, self.process.wait())
            .await
            .ok();
        let ran = self.began.elapsed();
        if ended.is_none() {
            let _ = self.process.kill();
        }
        let gone = async {
            self.process.wait().await;
            self.process.cleared().await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, gone).await;
        let deadline = tokio::time::Instant::now() + LAST_WORDS;
        while !self.stderr.is_finished() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Facts {
            diagnosis: Some(diagnose(program)),
            stderr: self.tail.lines(),
            exit: ended
                .filter(|status| *status != ExitStatus::Unknown)
                .map(|status| (status, ran)),
        }
    }
}
