//! One plugin that is installed: what it asks for, what it gets, and its start.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_host::{ExpectedDigest, Interface, Launch, MagicCookie, PluginSet, RunningPlugin};
use outrigger_manifest::{Decision, LockMode, Manifest, Places, SandboxMode};
use outrigger_registry::{Bundle, Installed, LockFile, LockVerdict, SourceFile};
use outrigger_services::GrantedServices;

use crate::approval::{self, Approval};
use crate::error::{Error, ErrorKind};
use crate::plugin_config::PluginConfig;
use crate::settings::{Settings, with_data_dir};

/// A plugin with a sound manifest, which may be started any number of times.
///
/// # Examples
/// ```
/// use outrigger::{Coded, Policy, Settings};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("manifest.yaml"), "
/// plugin: {name: lister, format: grpc, entrypoint: lister}
/// handshake: {protocol_version: 1, magic_cookie_key: LISTER, magic_cookie_value: hello}
/// capabilities: {environment: {read: [LANG, SECRET]}}
/// ")?;
/// let policy = Policy::parse("default: {allow: {environment: {read: [LANG]}}}")?;
/// let plugin = Settings::new().policy(policy).open_plugin(folder.path())?;
/// assert_eq!(plugin.decision().granted()[0].text, "LANG");
/// assert_eq!(plugin.decision().refused()[0].text, "SECRET");
/// let error = plugin.launch().expect_err("it asks for more");
/// assert_eq!(error.code(), "capability-refused");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plugin {
    bundle: Bundle,
    places: Places,
    decision: Decision,
    settings: Settings,
}

impl Settings {
    /// The plugin in one folder, or the one with the manifest at `path`.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unreadable`](crate::RegistryErrorKind::Unreadable), [`RegistryErrorKind::Invalid`](crate::RegistryErrorKind::Invalid) and [`ErrorKind::Place`].
    pub fn open_plugin(&self, path: impl AsRef<Path>) -> Result<Plugin, Error> {
        Plugin::new(Bundle::open(path)?, self)
    }

    /// The plugin whose manifest this file is.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Invalid`](crate::RegistryErrorKind::Invalid) and [`ErrorKind::Place`].
    pub fn plugin_from(&self, source: &SourceFile) -> Result<Plugin, Error> {
        Plugin::new(Bundle::read(source)?, self)
    }

    /// A plugin whose manifest comes from the program. Its entrypoint, and
    /// `${plugin_dir}`, are in `folder`.
    ///
    /// # Errors
    /// [`ErrorKind::Place`].
    pub fn plugin(&self, manifest: Manifest, folder: impl AsRef<Path>) -> Result<Plugin, Error> {
        Plugin::new(Bundle::new(manifest, folder.as_ref()), self)
    }
}

impl Plugin {
    /// The plugin in one folder, or the one with the manifest at `path`, under
    /// the settings that hold unless something is said: it may have nothing.
    ///
    /// # Errors
    /// As [`Settings::open_plugin`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Settings::new().open_plugin(path)
    }

    pub(crate) fn new(bundle: Bundle, settings: &Settings) -> Result<Self, Error> {
        let places = settings.places(bundle.folder(), bundle.manifest())?;
        Ok(Self {
            decision: settings.decide(bundle.manifest(), &places),
            bundle: bundle.in_folder(places.plugin_dir()),
            places,
            settings: settings.clone(),
        })
    }

    /// The same plugin with its data in `folder` itself.
    ///
    /// # Errors
    /// [`ErrorKind::Place`].
    pub fn with_data_dir(mut self, folder: impl AsRef<Path>) -> Result<Self, Error> {
        self.places = with_data_dir(&self.places, folder.as_ref())?;
        self.decision = self.settings.decide(self.manifest(), &self.places);
        Ok(self)
    }

    /// The name in its manifest.
    pub fn name(&self) -> &str {
        self.bundle.name()
    }

    /// Whether its manifest's `type` is one that the application registered for `I`.
    pub fn is<I: Interface>(&self) -> bool {
        self.settings.types().is::<I>(self.manifest().kind())
    }

    /// What it is and asks for.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The file that its manifest was read from.
    pub fn file(&self) -> Option<&Path> {
        self.bundle.file()
    }

    /// What the placeholders of its manifest stand for.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What it gets of what it asks for, and what not, with the reasons.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What tells its program that a host of its kind started it.
    pub fn cookie(&self) -> MagicCookie {
        let handshake = self.manifest().handshake();
        MagicCookie::new(handshake.magic_cookie_key(), handshake.magic_cookie_value())
    }

    /// Its program: the first file of those that its entrypoint may mean.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Entrypoint`](crate::RegistryErrorKind::Entrypoint).
    pub fn program(&self) -> Result<PathBuf, Error> {
        Ok(self.bundle.program()?)
    }

    /// What `plugin.sha256` in its folder, or else `PROGRAM.sha256` beside its
    /// program, says that the program hashes to; nothing if neither is there.
    ///
    /// # Errors
    /// [`RegistryErrorKind::ChecksumUnreadable`](crate::RegistryErrorKind::ChecksumUnreadable) and [`RegistryErrorKind::Checksum`](crate::RegistryErrorKind::Checksum).
    pub fn expected_digest(&self, program: &Path) -> Result<Option<ExpectedDigest>, Error> {
        Ok(self.bundle.expected_digest(program)?)
    }

    /// What its program hashes to, which is what its checksum file says if it has one. Reads the
    /// whole program if the [`digest_cache`](Settings::digest_cache) does not know it.
    ///
    /// # Errors
    /// As for [`program`](Self::program) and [`expected_digest`](Self::expected_digest);
    /// [`RegistryErrorKind::Digest`](crate::RegistryErrorKind::Digest).
    pub fn digest(&self) -> Result<ExpectedDigest, Error> {
        Ok(self.bundle.digest(self.settings.digests())?)
    }

    /// The services of the host under its grants. What is granted is opened now;
    /// the directory for its data is made if something in it is granted.
    pub fn services(&self) -> GrantedServices {
        let grants = self.decision.grants();
        let data = self.places.data_dir();
        if grants
            .filesystem()
            .iter()
            .any(|grant| grant.path().starts_with(data))
        {
            // Where that fails, the grant cannot be served, which is said then.
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(data);
        }
        let counted = self.settings.counts().plugin(self.name());
        let services = self.settings.serve(GrantedServices::new(grants));
        services.on_decision(move |capability, verdict| counted.decided(capability, verdict))
    }

    /// What the lock file of its [settings](crate::Settings::lock_file) makes of it, which is
    /// what [`launch`](Self::launch) goes by; nothing without a lock file. Changes nothing, and
    /// may read the whole program.
    ///
    /// # Errors
    /// [`ErrorKind::Lock`]; as for [`digest`](Self::digest).
    ///
    /// # Examples
    /// ```
    /// use outrigger::{Coded, LockMode, Policy, Settings};
    /// # use std::os::unix::fs::OpenOptionsExt;
    ///
    /// let plugins = tempfile::tempdir()?;
    /// let folder = plugins.path().join("lister");
    /// std::fs::create_dir(&folder)?;
    /// std::fs::write(folder.join("manifest.yaml"), "
    /// plugin: {name: lister, format: grpc, entrypoint: lister}
    /// handshake: {protocol_version: 1, magic_cookie_key: LISTER, magic_cookie_value: hello}
    /// capabilities: {environment: {read: [LANG]}}
    /// ")?;
    /// std::fs::write(folder.join("lister"), "#!/bin/sh")?;
    /// let settings = Settings::new()
    ///     .policy(Policy::allow_requested())
    ///     .lock_file(plugins.path().join("outrigger.lock"))
    ///     .lock_mode(LockMode::Strict);
    ///
    /// let lister = settings.open_plugin(&folder)?;
    /// assert_eq!(lister.launch().unwrap_err().code(), "needs-approval");
    /// lister.approve(None)?;
    /// assert!(lister.approval()?.unwrap().verdict.allows());
    ///
    /// std::fs::write(folder.join("lister"), "#!/bin/sh -e")?;
    /// assert!(!lister.approval()?.unwrap().verdict.allows());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn approval(&self) -> Result<Option<Approval>, Error> {
        self.locked(approval::judged)
    }

    /// Lets the plugin through the lock file as [`launch`](Self::launch) does, and records it there
    /// if it is new; nothing without a lock file.
    ///
    /// # Errors
    /// [`ErrorKind::NotApproved`] and [`ErrorKind::Lock`]; as for [`digest`](Self::digest).
    pub fn admit(&self) -> Result<Option<Approval>, Error> {
        self.locked(approval::admitted)
    }

    /// Approves the plugin as it is installed now: its program, and all that it asks for. With
    /// `expect`, only if its program hashes to that. Returns what was approved and what the lock
    /// file made of it before; nothing without a lock file.
    ///
    /// Whoever calls this answers for it: what is approved is to be shown to a person before.
    ///
    /// # Errors
    /// [`ErrorKind::NotExpected`] and [`ErrorKind::Lock`]; as for [`digest`](Self::digest).
    pub fn approve(&self, expect: Option<&ExpectedDigest>) -> Result<Option<Approval>, Error> {
        self.locked(|lock, mode, installed| match expect {
            Some(expected) if expected != installed.digest() => Err(ErrorKind::NotExpected {
                plugin: self.name().to_owned(),
                expected: expected.clone(),
                found: installed.digest().clone(),
            }
            .into()),
            _ => approval::approved(lock, mode, installed),
        })
    }

    /// What is made of the plugin as it is installed now with the lock file, if there is one.
    fn locked(
        &self,
        make: impl FnOnce(&LockFile, LockMode, Installed<'_>) -> Result<LockVerdict, Error>,
    ) -> Result<Option<Approval>, Error> {
        let Some(lock) = self.settings.locked_by() else {
            return Ok(None);
        };
        let (mode, digest) = (self.settings.mode(), self.digest()?);
        let verdict = make(lock, mode, Installed::new(self.manifest(), &digest))?;
        Ok(Some(Approval {
            mode,
            digest,
            verdict,
        }))
    }

    /// Its own configuration, as JSON: what stands in `NAME.yaml` in the folder of
    /// [`Settings::config_dir`]. Nothing if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::PluginConfig`]: it cannot be read, or is not what the
    /// `config.schema.json` in the plugin's folder takes.
    pub fn config(&self) -> Result<Option<String>, Error> {
        match self.own_config() {
            Some(config) => Ok(config.read()?),
            None => Ok(None),
        }
    }

    fn own_config(&self) -> Option<PluginConfig> {
        let folder = self.settings.config_folder()?;
        let own = self.places.plugin_dir();
        Some(PluginConfig::new(folder, self.name(), own))
    }

    /// How to start it as its manifest says, with its services: for what a host
    /// wants otherwise, such as deadlines or where its stderr goes.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] unless it may [start with
    /// less](Settings::start_with_less), [`RegistryErrorKind::Entrypoint`](crate::RegistryErrorKind::Entrypoint),
    /// [`RegistryErrorKind::ChecksumUnreadable`](crate::RegistryErrorKind::ChecksumUnreadable) and [`RegistryErrorKind::Checksum`](crate::RegistryErrorKind::Checksum).
    /// With a [lock file](Settings::lock_file) [`ErrorKind::NotApproved`], [`ErrorKind::Lock`] and
    /// [`RegistryErrorKind::Digest`](crate::RegistryErrorKind::Digest).
    pub fn launch(&self) -> Result<Launch, Error> {
        if !self.decision.is_complete() && !self.settings.starts_with_less() {
            return Err(ErrorKind::Refused {
                plugin: self.name().to_owned(),
                manifest: self.file().map(Path::to_owned),
                refused: self.decision.refused().to_vec(),
            }
            .into());
        }
        let program = self.program()?;
        let digest =
            self.settings
                .scan()
                .checked_digest(&self.bundle, &program, self.settings.digests())?;
        // What was judged is what runs.
        let digest = match self.admit()? {
            Some(admitted) => Some(admitted.digest),
            None => digest,
        };
        let mut services = self.services();
        let version = self.manifest().handshake().protocol_version();
        let mut launch = Launch::new(program, self.cookie())
            .named(self.name())
            .allow(self.manifest().transport().into())
            .offer(version, PluginSet::new());
        if self.manifest().auto_mtls() == Some(true) {
            launch = launch.auto_mtls();
        }
        if let (Some(config), Some(first)) = (self.own_config(), self.config()?) {
            launch = launch.config(config.watched(self.name().to_owned(), first));
        }
        if let Some(digest) = digest {
            services = services.digest(digest.to_string());
            launch = launch.expect_digest(digest);
        }
        Ok(self.grant(launch, services))
    }

    /// Gives another launch of this plugin what was decided: the variables that
    /// are set for it, and `services`.
    pub fn grant(&self, mut launch: Launch, services: GrantedServices) -> Launch {
        let grants = self.decision.grants();
        let sandbox = grants.sandbox();
        if sandbox != SandboxMode::Off {
            tracing::warn!(
                plugin = self.name(), %sandbox,
                "the plugin is not confined: its grants hold for what it asks of the host"
            );
        }
        for (name, value) in grants.environment().set() {
            launch = launch.env(name, value);
        }
        let counted = self.settings.counts().plugin(self.name());
        launch.host_services(Arc::new(counted.services(services)))
    }

    /// Starts it with its services, and waits until it answers.
    ///
    /// # Errors
    /// As [`launch`](Self::launch), and [`ErrorKind::Launch`]. Nothing is left
    /// running then.
    ///
    /// # Cancel safety
    /// When the future is dropped, the process is killed.
    pub async fn start(&self) -> Result<RunningPlugin, Error> {
        Ok(self.launch()?.start().await?)
    }
}
