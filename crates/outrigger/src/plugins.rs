//! What is installed in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, unknown};
use crate::plugin::Plugin;
use crate::settings::Settings;

/// The plugins in the folders of one folder: each has its `manifest.yaml`.
///
/// What is wrong with one of them stands in its [`Entry`], and is no matter of the
/// others. Files in the folder, and folders whose name begins with a dot, are no
/// plugins. Nothing is started, and no program is looked at.
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
    entries: Vec<Entry>,
}

/// A plugin's folder, and what was found in it.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: PathBuf,
    /// The manifest's name, or the folder's where there is none.
    name: String,
    plugin: Result<Plugin, Error>,
}

impl Settings {
    /// The plugins in the folders of `folder`: see [`Plugins`].
    ///
    /// # Errors
    /// [`ErrorKind::Folder`]. What is wrong with one plugin stands in its entry.
    pub fn open(&self, folder: impl AsRef<Path>) -> Result<Plugins, Error> {
        Plugins::read(folder.as_ref(), self)
    }
}

impl Plugins {
    /// The plugins in the folders of `folder`, under the settings that hold unless
    /// something is said: they may have nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Folder`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Settings::new().open(folder)
    }

    fn read(folder: &Path, settings: &Settings) -> Result<Self, Error> {
        let unreadable = |source| ErrorKind::Folder {
            path: folder.to_owned(),
            source,
        };
        let mut folders = Vec::new();
        for entry in folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
        folders.sort();
        let mut entries: Vec<Entry> = folders
            .into_iter()
            .map(|folder| Entry::read(folder, settings))
            .collect();
        refuse_second_names(&mut entries);
        Ok(Self { entries })
    }

    /// Every folder, in the order of their names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The plugin with this name in its manifest.
    ///
    /// # Errors
    /// What is wrong with it; [`ErrorKind::Unknown`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Plugin, Error> {
        let mut named = self.entries.iter().filter(|entry| entry.name == name);
        // A folder without a sound manifest may be called like a plugin elsewhere.
        let sound = named.clone().find(|entry| entry.plugin.is_ok());
        let entry = sound.or_else(|| named.next());
        let known = || self.entries.iter().map(|entry| entry.name.clone());
        let entry = entry.ok_or_else(|| unknown(name, known()))?;
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
    fn read(folder: PathBuf, settings: &Settings) -> Self {
        let plugin = settings.open_plugin(&folder);
        let name = match &plugin {
            Ok(plugin) => plugin.name().into(),
            Err(_) => folder.file_name().unwrap_or_default().to_string_lossy(),
        };
        Self {
            name: name.into_owned(),
            folder,
            plugin,
        }
    }

    /// The plugin's name in its manifest, or else that of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plugin.
    ///
    /// # Errors
    /// What is wrong with it: [`ErrorKind::Unreadable`], [`ErrorKind::Invalid`],
    /// [`ErrorKind::Place`] and [`ErrorKind::NameTaken`].
    pub fn plugin(&self) -> Result<&Plugin, &Error> {
        self.plugin.as_ref()
    }
}

/// Of several plugins with one name, the first counts.
fn refuse_second_names(entries: &mut [Entry]) {
    let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries.iter_mut().filter(|entry| entry.plugin.is_ok()) {
        match first.get(&entry.name) {
            Some(by) => {
                entry.plugin = Err(ErrorKind::NameTaken {
                    name: entry.name.clone(),
                    by: by.clone(),
                }
                .into());
            }
            None => {
                first.insert(entry.name.clone(), entry.folder.clone());
            }
        }
    }
}
