//! The configuration of an application: where it is read from, and what it decides.

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_manifest::{Configuration, Layers};

use crate::error::{Error, ErrorKind, shown_path};
use crate::settings::Settings;

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
    /// less than it asks for, where the plugins' data is, and how a
    /// [`Host`](crate::Host) watches over them.
    ///
    /// # Errors
    /// [`ErrorKind::Unreadable`] and [`ErrorKind::Invalid`] for the policy's file.
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
        self = self.supervision(configuration.supervision("").into());
        for plugin in configuration.supervised() {
            let own = configuration.supervision(plugin.as_str());
            self = self.supervision_for(plugin.as_str(), own.into());
        }
        Ok(self)
    }
}
