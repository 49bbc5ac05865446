//! The configuration of an application: where it is read from, and what it decides.

use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use outrigger_host::Deadlines;
use outrigger_manifest::{
    Configuration, Layers, LockMode, ReloadHow, RestartWhen, StartWhen, SupervisionSettings,
};
use outrigger_registry::LockFile;

use crate::error::{Error, ErrorKind, shown_path};
use crate::settings::Settings;
use crate::supervision::{Reload, Restart, Supervision};

/// The file that is read where none is named.
const USUAL_FILE: &str = "outrigger.yaml";
/// The variable that names another.
const FILE_VARIABLE: &str = "OUTRIGGER_CONFIG";
/// The most bytes that are read of a file: more than one may have, so that a larger one is
/// refused by its own rules.
const LARGEST: u64 = 1 << 20;

/// Where a [`Configuration`] is read from, now and whenever it is to be read again.
///
/// # Examples
/// ```
/// use outrigger::Configure;
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("config.yaml");
/// std::fs::write(&file, "directories: {plugins_dir: plugins}\n")?;
///
/// let configure = Configure::new().file(&file).set("--restart", "supervision.restart", "never");
/// let configuration = configure.read()?;
/// assert_eq!(configuration.directories().plugins_dir, folder.path().join("plugins"));
/// assert_eq!(configuration.supervision("cat").restart.as_str(), "never");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Configure {
    file: Option<PathBuf>,
    environment: bool,
    set: Vec<(String, String, String)>,
}

impl Configure {
    /// Nothing is read: every default holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads the variables of the process's environment, and where no file was named the one that
    /// `OUTRIGGER_CONFIG` names, or else `outrigger.yaml` in the working directory, if there is
    /// one.
    #[must_use]
    pub fn environment(mut self) -> Self {
        self.environment = true;
        self
    }

    /// Sets a key, such as `supervision.restart`, over everything else. Problems name `flag`.
    #[must_use]
    pub fn set(mut self, flag: &str, key: &str, text: &str) -> Self {
        self.set
            .push((flag.to_owned(), key.to_owned(), text.to_owned()));
        self
    }

    /// The file that is read, if one is.
    pub fn path(&self) -> Option<PathBuf> {
        if self.file.is_some() || !self.environment {
            return self.file.clone();
        }
        let named = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty());
        let usual =
            || Some(PathBuf::from(USUAL_FILE)).filter(|path| path.symlink_metadata().is_ok());
        named.map(PathBuf::from).or_else(usual)
    }

    /// Reads everything, as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigurationUnreadable`] and [`ErrorKind::Configuration`], the latter with
    /// every problem of the file, the variables and what was set.
    pub fn read(&self) -> Result<Configuration, Error> {
        let mut layers = Layers::new();
        if let Some(path) = self.path() {
            let folder = path.parent().unwrap_or(Path::new(""));
            layers = layers.file(&shown_path(&path), folder, &contents(&path)?);
        }
        if self.environment {
            for (name, text) in std::env::vars_os() {
                if let (Some(name), Some(text)) = (name.to_str(), text.to_str()) {
                    layers = layers.variable(name, text);
                }
            }
        }
        for (flag, key, text) in &self.set {
            layers = layers.flag(flag, key, text);
        }
        layers
            .read()
            .map_err(|problems| ErrorKind::Configuration(problems).into())
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(ErrorKind::ConfigurationUnreadable {
            path: path.to_owned(),
            source,
        }
        .into()),
    }
}

impl Settings {
    /// Decides what the configuration says: the policy, whether a plugin is started that gets
    /// less than it asks for, where the plugins' data and their own configuration are, which lock
    /// file says what was approved, and how a [`Host`](crate::Host) watches over them.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unreadable`](crate::RegistryErrorKind::Unreadable) and
    /// [`RegistryErrorKind::Invalid`](crate::RegistryErrorKind::Invalid) for the policy's file.
    ///
    /// # Examples
    /// ```
    /// use outrigger::{Configure, Settings};
    ///
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("policy.yaml"), "default: {allow: requested}\n")?;
    /// std::fs::write(folder.path().join("config.yaml"), "policy: {file: policy.yaml}\n")?;
    ///
    /// let configuration = Configure::new().file(folder.path().join("config.yaml")).read()?;
    /// let settings = Settings::new().configured(&configuration)?;
    /// # drop(settings);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configured(mut self, configuration: &Configuration) -> Result<Self, Error> {
        if let Some(policy) = &configuration.policy().file {
            self = self.policy_file(policy)?;
        }
        if configuration.policy().start_with_less {
            self = self.start_with_less();
        }
        if let Some(data) = &configuration.directories().data_dir {
            self = self.data_root(data);
        }
        let lock = configuration.lock();
        self = match &lock.file {
            Some(file) => self.lock_file(file),
            None => self.lock_file(configuration.directories().plugins_dir.join(LockFile::NAME)),
        };
        let app_mode = configuration.application().app_mode.as_deref();
        let production = matches!(app_mode, Some("prod" | "production"));
        if let Some(mode) = lock.mode.or(production.then_some(LockMode::Locked)) {
            self = self.lock_mode(mode);
        }
        if let Some(configs) = &configuration.directories().plugin_configs_dir {
            self = self.config_dir(configs);
        }
        self = self.supervision(configuration.supervision_of_all().into());
        for plugin in configuration.supervised() {
            let own = configuration.supervision(plugin.as_str());
            self = self.supervision_for(plugin.as_str(), own.into());
        }
        Ok(self)
    }
}

/// Of the time that a plugin has to stop, what is left when it was asked and has not ended.
const STOP_GRACE: Duration = Duration::from_secs(2);

impl From<&SupervisionSettings> for Supervision {
    fn from(settings: &SupervisionSettings) -> Self {
        let stop = settings.stop_timeout.as_duration();
        let stop_grace = stop.min(STOP_GRACE);
        Self {
            lazy: settings.start == StartWhen::Lazily,
            idle_stop: settings.idle_stop.map(Into::into),
            deadlines: Deadlines {
                start: settings.start_timeout.into(),
                stop_reply: stop - stop_grace,
                stop_grace,
                ..Deadlines::default()
            },
            ping_every: settings.ping.then(|| settings.ping_every.into()),
            ping_timeout: settings.ping_timeout.into(),
            ping_misses: settings.ping_misses,
            restart: match settings.restart {
                RestartWhen::OnFailure => Restart::OnFailure,
                RestartWhen::Always => Restart::Always,
                RestartWhen::Never => Restart::Never,
            },
            restart_delay: settings.restart_delay.into(),
            restart_delay_max: settings.restart_max_delay.into(),
            healthy_after: settings.restart_reset.into(),
            restarts: usize::try_from(settings.restart_limit).unwrap_or(usize::MAX),
            restart_window: settings.restart_window.into(),
            reload: match settings.reload {
                ReloadHow::Overlap => Reload::Overlap,
                ReloadHow::Replace => Reload::Replace,
            },
            drain: settings.drain_timeout.into(),
            rollback_within: settings.rollback_within.into(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a plugin is watched over when one key is set.
    fn with(key: &str, text: &str) -> String {
        let configure = Configure::new().set("--set", key, text);
        let configuration = configure.read().expect("valid");
        let settings = Settings::new()
            .configured(&configuration)
            .expect("no files");
        format!("{:?}", settings.supervision_of("cat"))
    }

    #[test]
    fn what_nobody_says_is_the_default_of_the_host() {
        let default = format!("{:?}", Supervision::default());
        assert_eq!(with("application.app_name", "x"), default);
    }

    #[test]
    fn every_key_of_supervision_that_takes_effect_changes_how_a_plugin_is_watched_over() {
        let default = with("application.app_name", "x");
        let other = Configure::new().set("--set", "supervision.ping", "false");
        for setting in other.read().expect("valid").settings() {
            if !setting.key.starts_with("supervision.") || !setting.takes_effect {
                continue;
            }
            let text = match setting.shown().as_str() {
                "false" => "false",
                "on-failure" => "always",
                "overlap" => "replace",
                "at-once" => "lazily",
                "lazily" => "at-once",
                number if number.parse::<u32>().is_ok() => "9",
                _ => "17s",
            };
            assert_ne!(with(&setting.key, text), default, "{}", setting.key);
        }
        assert!(with("supervision.stop_timeout", "1s").contains("stop_reply: 0ns, stop_grace: 1s"));
        assert!(with("supervision.start_timeout", "3s").contains("start: 3s"));
    }

    #[test]
    fn one_plugin_can_be_watched_over_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.yaml");
        fs::write(&file, "plugins: {cat: {restart: never}}\n").expect("written");
        let configuration = Configure::new().file(file).read().expect("valid");
        let settings = Settings::new()
            .configured(&configuration)
            .expect("no files");
        assert_eq!(settings.supervision_of("cat").restart, Restart::Never);
        assert_eq!(settings.supervision_of("dog").restart, Restart::OnFailure);
    }
}
