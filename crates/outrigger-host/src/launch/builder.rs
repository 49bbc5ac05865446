//! How to start one plugin.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_transport::{AddressTranslator, HostServices, Tls};
use outrigger_wire::logs::DEFAULT_LINE_BUFFER;
use outrigger_wire::{
    AllowedTransports, DEFAULT_PORT_RANGE, ExpectedDigest, MagicCookie, PortRange,
};

use super::config::ReadConfig;
use crate::process::ProcessRunner;
use crate::runner::Runner;
use crate::settings::{Settings, settings_methods};

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
    pub(super) settings: Settings,
    pub(super) program: PathBuf,
    pub(super) cookie: Option<MagicCookie>,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) skip_host_env: bool,
    pub(super) directory: Option<PathBuf>,
    pub(super) allowed: AllowedTransports,
    pub(super) tls: TlsChoice,
    pub(super) mux: bool,
    pub(super) ports: PortRange,
    pub(super) digest: Option<ExpectedDigest>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) log_buffer: usize,
    pub(super) services: Option<Arc<dyn HostServices>>,
    pub(super) config: Option<ReadConfig>,
    /// As [`Settings`] has its own writers.
    stderr: Mutex<Option<Box<dyn Write + Send>>>,
}

pub(super) enum TlsChoice {
    None,
    Auto,
    Static(Tls),
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name())
            .field("versions", &self.settings.versions)
            .finish_non_exhaustive()
    }
}

settings_methods!(Launch);

impl Launch {
    /// A launch of `program` with either RPC protocol and otherwise go-plugin's
    /// defaults: no TLS, and for gRPC a broker with a socket per connection.
    ///
    /// A program without a slash is the first executable file of that name in the
    /// absolute directories of the host's own `PATH`, never one in the current
    /// directory. A relative path with a slash starts at the host's current
    /// directory, whatever [`current_dir`](Self::current_dir) says.
    ///
    /// Plugins refuse to serve without their cookie; `None` launches a program
    /// whose cookie is not known, to see what it says.
    pub fn new(program: impl Into<PathBuf>, cookie: impl Into<Option<MagicCookie>>) -> Self {
        Self {
            settings: Settings::default(),
            program: program.into(),
            cookie: cookie.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            skip_host_env: false,
            directory: None,
            allowed: AllowedTransports::ALL,
            tls: TlsChoice::None,
            mux: false,
            ports: DEFAULT_PORT_RANGE,
            digest: None,
            runner: Arc::new(ProcessRunner),
            log_buffer: DEFAULT_LINE_BUFFER,
            services: None,
            config: None,
            stderr: Mutex::default(),
        }
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

    /// Sets the ports that a plugin on TCP may take; 10000 to 25000 otherwise.
    pub fn port_range(mut self, ports: PortRange) -> Self {
        self.ports = ports;
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

    /// What the program's content must hash to, if that was said.
    pub fn expected_digest(&self) -> Option<&ExpectedDigest> {
        self.digest.as_ref()
    }

    /// Copies the plugin's raw stderr here, besides logging it.
    pub fn stderr(mut self, copy: impl Write + Send + 'static) -> Self {
        self.stderr = Mutex::new(Some(Box::new(copy)));
        self
    }

    /// Sets the longest stderr line that is parsed, in bytes; 65536 otherwise.
    pub fn log_buffer(mut self, bytes: usize) -> Self {
        self.log_buffer = bytes;
        self
    }

    /// Starts the program by another runner than a plain process.
    pub fn runner(mut self, runner: impl Runner + 'static) -> Self {
        self.runner = Arc::new(runner);
        self
    }

    /// Serves `services` to the plugin, bound to its identity, from its start to
    /// its end. The plugin learns their broker id from the variable
    /// `OUTRIGGER_HOST_SERVICES`; our SDKs find them by themselves. What they have under
    /// [names](HostServices::names) is served on sockets of its own, which the variable
    /// `OUTRIGGER_SERVICES` lists. A plugin that
    /// is attached to, not launched, is served by
    /// [`RunningPlugin::serve`](crate::RunningPlugin::serve).
    pub fn host_services(mut self, services: Arc<dyn HostServices>) -> Self {
        self.services = Some(services);
        self
    }

    /// Hands the plugin a configuration of its own, as JSON: in a file that only this
    /// user may read, in the plugin's directory, whose path stands in the variable
    /// `OUTRIGGER_PLUGIN_CONFIG`. `read` says what it is: before the start, and once a second
    /// while the plugin runs; when it says something else than before, the file is
    /// replaced. Where it says nothing, at first no file is made, and later it stays as it is.
    /// It is called on a thread that may wait.
    pub fn config(mut self, read: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.config = Some(Arc::new(read));
        self
    }

    pub(super) fn name(&self) -> String {
        self.settings.name.clone().unwrap_or_else(|| {
            let name = self.program.file_name().unwrap_or(self.program.as_os_str());
            name.to_string_lossy().into_owned()
        })
    }

    pub(super) fn translator(&self) -> Arc<dyn AddressTranslator> {
        let chosen = self.settings.translator.clone();
        chosen.unwrap_or_else(|| self.runner.translator())
    }

    pub(super) fn take_stderr(&mut self) -> Option<Box<dyn Write + Send>> {
        let stderr = self.stderr.get_mut();
        stderr.unwrap_or_else(PoisonError::into_inner).take()
    }
}
