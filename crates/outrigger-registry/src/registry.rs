//! What is installed in a folder.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::entry::Entry;
use crate::error::{RegistryError, RegistryErrorKind};

/// What is installed in the folders of one folder, as it was when that was scanned.
///
/// What is wrong with one plugin stands in its [`Entry`], and is no matter of the others. Files in
/// the folder, and folders whose name begins with a dot, are no plugins. Nothing is started, and
/// no program is read.
///
/// # Examples
/// ```
/// use outrigger_registry::Registry;
/// use outrigger_wire::Coded;
///
/// let folder = tempfile::tempdir()?;
/// std::fs::create_dir(folder.path().join("broken"))?;
/// let registry = Registry::scan(folder.path())?;
/// let entry = &registry.entries()[0];
/// assert_eq!(entry.name(), "broken");
/// assert_eq!(entry.error().map(Coded::code), Some("manifest-unreadable"));
/// assert_eq!(registry.get("greeter").unwrap_err().code(), "plugin-not-found");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
    entries: Vec<Entry>,
}

/// What a scan demands of each plugin, beyond what none can do without.
///
/// # Examples
/// ```
/// use outrigger_registry::Scan;
///
/// let folder = tempfile::tempdir()?;
/// let registry = Scan::new().require_checksums(true).folder(folder.path())?;
/// assert!(registry.entries().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scan {
    checksum_required: bool,
}

impl Scan {
    /// Nothing more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a plugin without a checksum file is unusable.
    #[must_use]
    pub fn require_checksums(mut self, required: bool) -> Self {
        self.checksum_required = required;
        self
    }

    /// Looks at the plugins in the folders of `folder`.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`]. What is wrong with one plugin stands in its entry.
    pub fn folder(&self, folder: impl Into<PathBuf>) -> Result<Registry, RegistryError> {
        let folder = folder.into();
        let unreadable = |source| RegistryErrorKind::Folder {
            path: folder.clone(),
            source,
        };
        let mut places = Vec::new();
        for entry in folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if is_plugins_place(&entry) {
                places.push(entry.path());
            }
        }
        places.sort();
        let mut entries: Vec<Entry> = places
            .into_iter()
            .map(|place| Entry::read(place, self.checksum_required))
            .collect();
        refuse_second_names(&mut entries);
        Ok(Registry { folder, entries })
    }
}

impl Registry {
    /// Looks at the plugins in the folders of `folder`.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`]. What is wrong with one plugin stands in its entry.
    pub fn scan(folder: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        Scan::new().folder(folder)
    }

    /// The folder of the plugins' folders.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every plugin's folder, in the order of their names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The plugin with this name in its manifest, whether it can be used or not.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unknown`].
    pub fn get(&self, name: &str) -> Result<&Entry, RegistryError> {
        Ok(&self.entries[self.position(name)?])
    }

    /// Where among the [`entries`](Self::entries) the plugin with this name is.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unknown`].
    pub fn position(&self, name: &str) -> Result<usize, RegistryError> {
        let is_named = |entry: &Entry| entry.name() == name;
        let is_sound = |entry: &Entry| is_named(entry) && entry.bundle().is_some();
        // A folder without a sound manifest may be called like a plugin elsewhere.
        let sound = self.entries.iter().position(is_sound);
        let found = sound.or_else(|| self.entries.iter().position(is_named));
        found.ok_or_else(|| {
            let names = self.entries.iter().map(|entry| entry.name().to_owned());
            let mut known: Vec<String> = names.collect();
            known.sort();
            known.dedup();
            let name = name.to_owned();
            RegistryErrorKind::Unknown { name, known }.into()
        })
    }
}

impl<'r> IntoIterator for &'r Registry {
    type Item = &'r Entry;
    type IntoIter = std::slice::Iter<'r, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

/// Whether this is a plugin's folder, or a link that may be meant to lead to one.
fn is_plugins_place(entry: &DirEntry) -> bool {
    if entry.file_name().as_encoded_bytes().starts_with(b".") {
        return false;
    }
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => {
            // One that leads nowhere is no file, and somebody should know.
            entry.path().metadata().map_or(true, |found| found.is_dir())
        }
        Ok(kind) => kind.is_dir(),
        Err(_) => true,
    }
}

/// Of several plugins with one name, the first counts.
fn refuse_second_names(entries: &mut [Entry]) {
    let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries.iter_mut().filter(|entry| entry.bundle().is_some()) {
        match first.get(entry.name()) {
            Some(by) => {
                let (name, by) = (entry.name().to_owned(), by.clone());
                entry.refuse(RegistryErrorKind::NameTaken { name, by }.into());
            }
            None => {
                first.insert(entry.name().to_owned(), entry.folder().to_owned());
            }
        }
    }
}
