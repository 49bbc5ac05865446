//! What an application decides for all its plugins.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrigger_host::{Interface, Launch, PluginIdentity, RunningPlugin, ServiceSet};
use outrigger_manifest::{Decision, LockMode, Manifest, Places, Policy};
use outrigger_registry::semver::{Version, VersionReq};
use outrigger_registry::{
    DigestCache, FileKind, LockFile, RegistryErrorKind, Scan, SourceFile, Trust,
};
use outrigger_services::{ApplicationServices, GrantedServices};

use crate::error::{Error, ErrorKind};
use crate::host::ReloadStep;
use crate::metrics::Metrics;
use crate::supervision::Supervision;
use crate::types::Types;

/// What an application decides for all its plugins, before it looks at them:
/// under which policy they run, where their data is, and how they are served.
///
/// Unless it is said otherwise, the policy allows nothing, a plugin that asks for
/// more than it gets is not started, and data is in the user's own place for it.
///
/// # Examples
/// ```
/// use outrigger::{AuditLog, Policy, Settings};
///
/// let (audit, records) = AuditLog::channel(1000);
/// let settings = Settings::new()
///     .policy(Policy::allow_requested())
///     .data_root("/var/lib/app/plugins")
///     .services(move |services| services.audit(audit.clone()));
/// # drop((settings, records));
/// ```
#[derive(Clone)]
pub struct Settings {
    policy: Policy,
    data_root: Option<PathBuf>,
    serve: Arc<dyn Fn(GrantedServices) -> GrantedServices + Send + Sync>,
    application: ApplicationServices,
    types: Types,
    config_dir: Option<PathBuf>,
    start_with_less: bool,
    launch: Arc<ChangeLaunch>,
    prepare: Option<Arc<Prepare>>,
    at_reload_step: Option<Arc<AtReloadStep>>,
    supervision: Supervision,
    supervision_of: BTreeMap<String, Supervision>,
    scan: Scan,
    digests: Arc<DigestCache>,
    metrics: Metrics,
    lock_file: Option<LockFile>,
    lock_mode: Option<LockMode>,
}

/// Why a process is not used.
type Unfit = Box<dyn std::error::Error + Send + Sync>;
type Prepare = dyn Fn(Arc<RunningPlugin>) -> BoxFuture<'static, Result<(), Unfit>> + Send + Sync;
pub(crate) type AtReloadStep = dyn Fn(&str, &ReloadStep) + Send + Sync;
type ChangeLaunch = dyn Fn(&Manifest, Launch) -> Launch + Send + Sync;

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::allow_nothing(),
            data_root: None,
            serve: Arc::new(std::convert::identity),
            application: ApplicationServices::new(),
            types: Types::default(),
            config_dir: None,
            start_with_less: false,
            launch: Arc::new(|_, launch| launch),
            prepare: None,
            at_reload_step: None,
            supervision: Supervision::default(),
            supervision_of: BTreeMap::new(),
            scan: Scan::new(),
            digests: Arc::new(DigestCache::in_memory()),
            metrics: Metrics::new(),
            lock_file: None,
            lock_mode: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("policy", &self.policy)
            .field("data_root", &self.data_root)
            .field("application", &self.application)
            .field("types", &self.types)
            .field("config_dir", &self.config_dir)
            .field("start_with_less", &self.start_with_less)
            .field("supervision", &self.supervision)
            .field("supervision_of", &self.supervision_of)
            .field("lock_file", &self.lock_file)
            .field("lock_mode", &self.lock_mode)
            .field("scan", &self.scan)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The settings that hold unless something is said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides what plugins get by `policy`.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Decides by the policy in a file, or in the `policy.yaml` of a folder.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unreadable`] and [`RegistryErrorKind::Invalid`].
    pub fn policy_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.policy_from(&SourceFile::read(path, FileKind::Policy)?)
    }

    /// Decides by the policy that this file is.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Invalid`].
    pub fn policy_from(self, source: &SourceFile) -> Result<Self, Error> {
        let policy = source
            .policy()
            .map_err(|problems| RegistryErrorKind::Invalid(FileKind::Policy, problems))?;
        Ok(self.policy(policy))
    }

    /// Keeps the data of the plugin NAME in `folder/NAME`; otherwise that is
    /// `outrigger/NAME` in `$XDG_DATA_HOME` or `~/.local/share`, or `data` in the
    /// plugin's own folder where neither is known. It is made when the plugin may
    /// use it.
    #[must_use]
    pub fn data_root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_root = Some(folder.into());
        self
    }

    /// Lets `change` see to the services of each plugin: where its audit goes,
    /// which limits hold, how the network is reached.
    #[must_use]
    pub fn services(
        mut self,
        change: impl Fn(GrantedServices) -> GrantedServices + Send + Sync + 'static,
    ) -> Self {
        self.serve = Arc::new(change);
        self
    }

    /// Counts what plugins do in `metrics`, where several hosts are to be shown
    /// together; otherwise in metrics of their own.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Offers a service of the application's own under `name`, for plugins whose
    /// manifest asks for that name among its `services` and whose policy allows it.
    /// `serve` is called once for each plugin that starts; what it clones into the
    /// servers is shared by all. Each call is recorded in the plugin's audit, and has
    /// the [`PluginIdentity`] of its plugin among its extensions. One of the same name
    /// is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::ServiceName`]: the name is none, or nearly that of a
    /// [`HostService`](crate::HostService).
    ///
    /// # Examples
    /// ```
    /// use outrigger::{ServiceSet, Settings};
    ///
    /// let settings = Settings::new().service("cache", |plugin| {
    ///     println!("{} may use the cache", plugin.name());
    ///     // Add what tonic generated: `.with(CacheServer::new(cache.clone()))`.
    ///     ServiceSet::new()
    /// })?;
    /// # Ok::<(), outrigger::Error>(())
    /// ```
    pub fn service(
        mut self,
        name: &str,
        serve: impl Fn(&PluginIdentity) -> ServiceSet + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let offered = self.application.offer(name, serve);
        self.application = offered.map_err(ErrorKind::ServiceName)?;
        Ok(self)
    }

    /// Says that plugins with this `type` in their manifest have the interface `I`,
    /// whichever format they speak. Several types may have one interface; a type that
    /// is registered again has the interface that was named last.
    ///
    /// # Examples
    /// ```
    /// use outrigger::{Settings, grpc_interface};
    /// # mod proto {
    /// #     pub struct AnimalClient<T>(T);
    /// #     impl<T> AnimalClient<T> {
    /// #         pub fn new(inner: T) -> Self { Self(inner) }
    /// #         pub fn max_decoding_message_size(self, _: usize) -> Self { self }
    /// #     }
    /// # }
    ///
    /// grpc_interface! {
    ///     /// What animals do.
    ///     Animal => proto::AnimalClient
    /// }
    ///
    /// let settings = Settings::new()
    ///     .plugin_type::<Animal>("animal")
    ///     .plugin_type::<Animal>("animal-grpc");
    /// # let folder = tempfile::tempdir()?;
    /// let plugins = settings.open(folder.path())?;
    /// for plugin in plugins.of_type::<Animal>() {
    ///     println!("{} is an animal", plugin.name());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn plugin_type<I: Interface>(mut self, kind: impl Into<String>) -> Self {
        self.types.register::<I>(kind.into());
        self
    }

    /// Looks in this folder for the plugins' own configuration: `NAME.yaml` for the
    /// plugin NAME. It is checked against the `config.schema.json` in the plugin's
    /// folder, if there is one, and handed to the plugin when it starts, and again
    /// whenever it has changed. See [`Plugin::config`](crate::Plugin::config).
    #[must_use]
    pub fn config_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config_dir = Some(folder.into());
        self
    }

    /// Starts a plugin even if the policy does not grant all that it asks for. It
    /// learns that when it asks.
    #[must_use]
    pub fn start_with_less(mut self) -> Self {
        self.start_with_less = true;
        self
    }

    /// Lets `change` see to each start of a plugin by a [`Host`](crate::Host):
    /// where its stderr goes, what its environment is.
    #[must_use]
    pub fn launches(
        mut self,
        change: impl Fn(&Manifest, Launch) -> Launch + Send + Sync + 'static,
    ) -> Self {
        self.launch = Arc::new(change);
        self
    }

    /// Lets `prepare` see to each process of a plugin that a [`Host`](crate::Host)
    /// starts, before it gets any call: to serve it something over its broker, or
    /// to try whether it works. A process for which that fails, or takes longer
    /// than the start may, is not used; a reload then keeps what ran before.
    #[must_use]
    pub fn prepare<F>(
        mut self,
        prepare: impl Fn(Arc<RunningPlugin>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.prepare = Some(Arc::new(move |plugin| Box::pin(prepare(plugin))));
        self
    }

    /// Calls `at_step` with a plugin's name at each step of its reloads, which go on
    /// when it returns: for tests of what happens when a process ends just then.
    /// Whoever only wants to know reads the [events](crate::Host::events).
    #[must_use]
    pub fn at_reload_step(
        mut self,
        at_step: impl Fn(&str, &ReloadStep) + Send + Sync + 'static,
    ) -> Self {
        self.at_reload_step = Some(Arc::new(at_step));
        self
    }

    /// Says how a [`Host`](crate::Host) watches over plugins.
    #[must_use]
    pub fn supervision(mut self, supervision: Supervision) -> Self {
        self.supervision = supervision;
        self
    }

    /// Says how a [`Host`](crate::Host) watches over the plugin `name`.
    #[must_use]
    pub fn supervision_for(mut self, name: impl Into<String>, supervision: Supervision) -> Self {
        self.supervision_of.insert(name.into(), supervision);
        self
    }

    pub(crate) fn supervision_of(&self, name: &str) -> Supervision {
        let own = self.supervision_of.get(name);
        own.unwrap_or(&self.supervision).clone()
    }

    pub(crate) async fn prepared(&self, plugin: &Arc<RunningPlugin>) -> Result<(), Unfit> {
        match &self.prepare {
            Some(prepare) => prepare(plugin.clone()).await,
            None => Ok(()),
        }
    }

    pub(crate) fn step_hook(&self) -> Option<Arc<AtReloadStep>> {
        self.at_reload_step.clone()
    }

    pub(crate) fn launched(&self, manifest: &Manifest, launch: Launch) -> Launch {
        (self.launch)(manifest, launch)
    }

    /// Starts no plugin without a checksum file.
    #[must_use]
    pub fn require_checksums(mut self) -> Self {
        self.scan = self.scan.require_checksums(true);
        self
    }

    /// Starts no plugin that is not signed by somebody who is trusted, as a whole: see [`Trust`].
    #[must_use]
    pub fn require_signatures(mut self, trust: Trust) -> Self {
        self.scan = self.scan.require_signatures(trust);
        self
    }

    /// Keeps what programs hashed to in `known`, so that [`Plugin::digest`](crate::Plugin::digest)
    /// reads none twice; otherwise that is known to clones of these settings alone.
    #[must_use]
    pub fn digest_cache(mut self, known: impl Into<Arc<DigestCache>>) -> Self {
        self.digests = known.into();
        self
    }

    /// Uses this version of a plugin and no other, whatever else is installed.
    #[must_use]
    pub fn pin(mut self, plugin: impl Into<String>, version: Version) -> Self {
        self.scan = self.scan.pin(plugin, version);
        self
    }

    /// Uses only such versions of a plugin: of several, the highest.
    ///
    /// # Examples
    /// ```
    /// use outrigger::Settings;
    ///
    /// let settings = Settings::new().require_version("indexer", "^2.1".parse()?);
    /// # drop(settings);
    /// # Ok::<(), outrigger::semver::Error>(())
    /// ```
    #[must_use]
    pub fn require_version(mut self, plugin: impl Into<String>, required: VersionReq) -> Self {
        self.scan = self.scan.require(plugin, required);
        self
    }

    /// What is looked for in a folder of plugins.
    pub(crate) fn scan(&self) -> &Scan {
        &self.scan
    }

    pub(crate) fn digests(&self) -> &Arc<DigestCache> {
        &self.digests
    }

    /// Starts only plugins that this lock file knows, or that its [mode](Self::lock_mode) lets in:
    /// see [`Plugin::approval`](crate::Plugin::approval). Without one, whatever is installed may
    /// start.
    #[must_use]
    pub fn lock_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.lock_file = Some(LockFile::new(path));
        self
    }

    /// Says who may change what is locked. Otherwise that is [`LockMode::TrustFirst`] where stderr
    /// is a terminal, and [`LockMode::Locked`] elsewhere and where the variable `CI` is set.
    #[must_use]
    pub fn lock_mode(mut self, mode: LockMode) -> Self {
        self.lock_mode = Some(mode);
        self
    }

    pub(crate) fn locked_by(&self) -> Option<&LockFile> {
        self.lock_file.as_ref()
    }

    pub(crate) fn mode(&self) -> LockMode {
        let by_default = || {
            let ci = std::env::var("CI").ok();
            LockMode::by_default(io::stderr().is_terminal(), ci.as_deref())
        };
        self.lock_mode.unwrap_or_else(by_default)
    }

    pub(crate) fn types(&self) -> &Types {
        &self.types
    }

    pub(crate) fn config_folder(&self) -> Option<&Path> {
        self.config_dir.as_deref()
    }

    pub(crate) fn decide(&self, manifest: &Manifest, places: &Places) -> Decision {
        let offered = self.application.names().cloned().collect();
        self.policy.decide_offering(manifest, places, &offered)
    }

    pub(crate) fn starts_with_less(&self) -> bool {
        self.start_with_less
    }

    pub(crate) fn counts(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn serve(&self, services: GrantedServices) -> GrantedServices {
        (self.serve)(services.application(&self.application))
    }

    /// The places that a manifest in `folder` may speak of.
    pub(crate) fn places(&self, folder: &Path, manifest: &Manifest) -> Result<Places, Error> {
        let folder = resolved(folder);
        let name = manifest.name().as_str();
        let data_dir = match &self.data_root {
            Some(root) => root.join(name),
            None => match user_data() {
                Some(shared) => shared.join("outrigger").join(name),
                None => folder.join("data"),
            },
        };
        with_home(Places::new(folder, resolved(&data_dir))?)
    }
}

/// The same places for other data.
pub(crate) fn with_data_dir(places: &Places, data_dir: &Path) -> Result<Places, Error> {
    with_home(Places::new(places.plugin_dir(), resolved(data_dir))?)
}

/// Adds the user's home directory, if that can be a place.
fn with_home(places: Places) -> Result<Places, Error> {
    let home = home().and_then(|home| places.clone().with_home(resolved(&home)).ok());
    Ok(home.unwrap_or(places))
}

fn home() -> Option<PathBuf> {
    absolute_variable("HOME")
}

fn user_data() -> Option<PathBuf> {
    absolute_variable("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

/// The path without links as far as it exists: places are compared as texts.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in path.ancestors() {
        if let Ok(canonical) = existing.canonicalize() {
            let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
            if rest.as_os_str().is_empty() {
                return canonical;
            }
            return canonical.join(rest);
        }
    }
    path
}
