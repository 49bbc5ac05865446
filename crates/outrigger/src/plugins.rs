//! What is installed in a folder.

use std::path::Path;

use outrigger_host::Interface;
use outrigger_registry::{EntryChanged, EntryState, Pace, Registry, Watch};

use crate::error::Error;
use crate::plugin::Plugin;
use crate::settings::Settings;

/// The plugins in the folders of one folder: each has its `manifest.yaml`.
///
/// What is wrong with one of them stands in its [`Entry`], and is no matter of the
/// others. Files in the folder, and folders whose name begins with a dot, are no
/// plugins. Nothing is started, and no program is read.
///
/// # Examples
/// ```
/// use outrigger::{Coded, Plugins};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::create_dir(folder.path().join("broken"))?;
/// let plugins = Plugins::open(folder.path())?;
/// let entry = &plugins.entries()[0];
/// assert_eq!(entry.name(), "broken");
/// assert_eq!(entry.plugin().unwrap_err().code(), "manifest-unreadable");
/// assert_eq!(plugins.get("greeter").unwrap_err().code(), "plugin-not-found");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plugins {
    registry: Registry,
    /// One for each entry of the registry, in its order.
    entries: Vec<Entry>,
}

/// A plugin's folder, and what was found in it.
#[derive(Clone, Debug)]
pub struct Entry {
    found: outrigger_registry::Entry,
    plugin: Result<Plugin, Error>,
}

impl Settings {
    /// The plugins in the folders of `folder`: see [`Plugins`].
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`](crate::RegistryErrorKind::Folder). What is wrong with one plugin stands in its entry.
    pub fn open(&self, folder: impl AsRef<Path>) -> Result<Plugins, Error> {
        Ok(Plugins::new(self.scan().folder(folder.as_ref())?, self))
    }
}

impl Settings {
    /// The plugins in the folders of `folder`, which is watched from now on: see [`Watch`].
    ///
    /// What changes is reported by its content, when it is all there. It changes none of what
    /// this returns: whoever wants to start what is installed now opens it anew. `report` is
    /// called on a thread of its own. This blocks while programs are read whose digest the
    /// [`digest_cache`](Self::digest_cache) does not know.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and
    /// [`RegistryErrorKind::Watch`](crate::RegistryErrorKind::Watch).
    ///
    /// # Examples
    /// ```no_run
    /// use outrigger::{Pace, Settings};
    ///
    /// let (plugins, watch) = Settings::new().watch("plugins", Pace::default(), |changes| {
    ///     for change in changes {
    ///         println!("{change}");
    ///     }
    /// })?;
    /// println!("{} folders at first", plugins.entries().len());
    /// # drop(watch);
    /// # Ok::<(), outrigger::Error>(())
    /// ```
    pub fn watch(
        &self,
        folder: impl AsRef<Path>,
        pace: Pace,
        report: impl FnMut(Vec<EntryChanged>) + Send + 'static,
    ) -> Result<(Plugins, Watch), Error> {
        let digests = self.digests().clone();
        let (watch, registry) = Watch::start(self.scan().clone(), folder, digests, pace, report)?;
        Ok((Plugins::new(registry, self), watch))
    }
}

impl Plugins {
    /// The plugins in the folders of `folder`, under the settings that hold unless
    /// something is said: they may have nothing.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`](crate::RegistryErrorKind::Folder).
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Settings::new().open(folder)
    }

    fn new(registry: Registry, settings: &Settings) -> Self {
        let entries = registry.entries().iter();
        Self {
            entries: entries.map(|found| Entry::new(found, settings)).collect(),
            registry,
        }
    }

    /// What is installed, apart from what it gets: also which versions of a plugin there are.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every folder, in the order of their names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The plugins that can be used, by name: of several versions, the one that is to be.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Plugin> {
        let mut names: Vec<&str> = self.entries.iter().map(Entry::name).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.get(name).ok())
    }

    /// The plugins whose manifest's `type` is one that the application
    /// [registered](Settings::plugin_type) for `I`, by name. Plugins of other types, and
    /// of none, are among the [`entries`](Self::entries), and can be called without a typed client
    /// through [`RunningPlugin::connection`](crate::RunningPlugin::connection).
    pub fn of_type<I: Interface>(&self) -> impl Iterator<Item = &Plugin> {
        let usable = self.usable();
        usable.filter(|plugin| plugin.is::<I>())
    }

    /// The plugin with this name in its manifest. Of several versions that is the one that is
    /// pinned, or else the highest that is required and can be used.
    ///
    /// # Errors
    /// What is wrong with it; [`RegistryErrorKind::Unknown`](crate::RegistryErrorKind::Unknown) if there is none.
    pub fn get(&self, name: &str) -> Result<&Plugin, Error> {
        let entry = &self.entries[self.registry.position(name)?];
        entry.plugin().map_err(Error::clone)
    }
}

impl<'p> IntoIterator for &'p Plugins {
    type Item = &'p Entry;
    type IntoIter = std::slice::Iter<'p, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl Entry {
    fn new(found: &outrigger_registry::Entry, settings: &Settings) -> Self {
        let plugin = match found.state() {
            EntryState::Available { bundle, .. } => Plugin::new(bundle.clone(), settings),
            EntryState::Unusable { error, .. } => Err(error.clone().into()),
        };
        Self {
            found: found.clone(),
            plugin,
        }
    }

    /// The plugin's name in its manifest, or else that of its folder.
    pub fn name(&self) -> &str {
        self.found.name()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.found.folder()
    }

    /// Whether what was found there can be used.
    pub fn state(&self) -> &EntryState {
        self.found.state()
    }

    /// The plugin.
    ///
    /// # Errors
    /// What is wrong with it: what its [`state`](Self::state) says, or [`ErrorKind::Place`](crate::ErrorKind::Place).
    pub fn plugin(&self) -> Result<&Plugin, &Error> {
        self.plugin.as_ref()
    }
}
