//! What is installed in a folder.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use outrigger_wire::ExpectedDigest;
use semver::{Version, VersionReq};

use crate::bundle::Bundle;
use crate::digest_cache::DigestCache;
use crate::entry::{Demands, Entry};
use crate::error::{RegistryError, RegistryErrorKind};
use crate::file_kind::FileKind;
use crate::signature::Trust;

/// The most threads that look at plugins.
const MOST_THREADS: usize = 8;
/// So few plugins are not worth a thread.
const FEW: usize = 32;

/// What is installed in the folders of one folder, as it was when that was scanned.
///
/// What is wrong with one plugin stands in its [`Entry`], and is no matter of the others. Files in
/// the folder, and folders whose name begins with a dot, are no plugins. Nothing is started, and
/// no program is read.
///
/// Several versions of a plugin may be installed side by side, each in a folder that is named
/// after it: `NAME/1.2.0/manifest.yaml`. Each is an entry. Which of them is used is said by
/// [`position`](Self::position).
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
    choices: Choices,
}

/// Which versions are wanted, by the names of plugins.
#[derive(Clone, Debug, Default)]
struct Choices {
    pinned: BTreeMap<String, Version>,
    required: BTreeMap<String, VersionReq>,
}

/// What a scan demands of each plugin, beyond what none can do without, and which versions are
/// wanted.
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
    demands: Demands,
    choices: Choices,
}

impl Scan {
    /// Nothing more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a plugin without a checksum file is unusable.
    #[must_use]
    pub fn require_checksums(mut self, required: bool) -> Self {
        self.demands.checksum = required;
        self
    }

    /// A plugin without the signature of somebody who is trusted is unusable.
    #[must_use]
    pub fn require_signatures(mut self, trust: Trust) -> Self {
        self.demands.trust = Some(trust);
        self
    }

    /// What the program of this plugin must hash to before it is started, if that is known. Where
    /// signatures are required, every file of the plugin is checked; those are read that the
    /// cache does not know.
    ///
    /// # Errors
    /// What the plugin lacks of what is required.
    pub fn checked_digest(
        &self,
        bundle: &Bundle,
        program: &Path,
        known: &DigestCache,
    ) -> Result<Option<ExpectedDigest>, RegistryError> {
        match &self.demands.trust {
            Some(trust) => bundle.check_signature(trust, known).map(Some),
            None if self.demands.checksum => bundle.required_digest(program).map(Some),
            None => bundle.expected_digest(program),
        }
    }

    /// Uses this version of a plugin and no other, whatever else is installed.
    #[must_use]
    pub fn pin(mut self, plugin: impl Into<String>, version: Version) -> Self {
        self.choices.pinned.insert(plugin.into(), version);
        self
    }

    /// Uses only such versions of a plugin.
    #[must_use]
    pub fn require(mut self, plugin: impl Into<String>, required: VersionReq) -> Self {
        self.choices.required.insert(plugin.into(), required);
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
        let mut entries = self.look_at(&places);
        refuse_second_names(&mut entries);
        let choices = self.choices.clone();
        Ok(Registry {
            folder,
            entries,
            choices,
        })
    }

    /// What there is at each of these places, in their order. Many are looked at by several threads:
    /// most of the time goes into reading manifests.
    fn look_at(&self, places: &[PathBuf]) -> Vec<Entry> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let each = places.len().div_ceil(threads.min(MOST_THREADS)).max(FEW);
        let (mine, others) = places.split_at(each.min(places.len()));
        std::thread::scope(|scope| {
            let others: Vec<_> = others
                .chunks(each)
                .map(|places| {
                    let look = move || self.look_one_by_one(places);
                    let thread = std::thread::Builder::new().spawn_scoped(scope, look);
                    (places, thread)
                })
                .collect();
            let mut entries = self.look_one_by_one(mine);
            for (places, thread) in others {
                entries.extend(match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|it| resume_unwind(it)),
                    // The system has no thread to give.
                    Err(_) => self.look_one_by_one(places),
                });
            }
            entries
        })
    }

    fn look_one_by_one(&self, places: &[PathBuf]) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(places.len());
        for place in places {
            self.place(place, &mut entries);
        }
        entries
    }

    /// Looks at a plugin's folder, which may hold several versions of it.
    fn place(&self, place: &Path, entries: &mut Vec<Entry>) {
        let required = &self.demands;
        let names = match place.read_dir() {
            Ok(names) => names.flatten(),
            // Its manifest can be read all the same, if others may pass.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return entries.push(Entry::read(place, required));
            }
            Err(source) => return entries.push(Entry::unreadable(place, source)),
        };
        let mut versions: Vec<Version> = names
            .filter_map(|name| name.file_name().to_str()?.parse().ok())
            .filter(|version: &Version| place.join(version.to_string()).is_dir())
            .collect();
        let is_flat = || {
            let manifest = place.join(FileKind::Manifest.usual_name());
            manifest.symlink_metadata().is_ok()
        };
        if versions.is_empty() || is_flat() {
            entries.push(Entry::read(place, required));
        }
        versions.sort();
        let versions = versions.into_iter();
        entries.extend(versions.map(|version| Entry::read_version(place, version, required)));
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

    /// The plugin with this name in its manifest, whether it can be used or not. Of several
    /// versions that is the one at its [`position`](Self::position).
    ///
    /// # Errors
    /// As for [`position`](Self::position).
    pub fn get(&self, name: &str) -> Result<&Entry, RegistryError> {
        Ok(&self.entries[self.position(name)?])
    }

    /// Where among the [`entries`](Self::entries) the plugin with this name is. Of several
    /// versions that is the one that is pinned; or else the highest of those that are required
    /// and can be used, a pre-release only where there is nothing else; or else the one whose
    /// folder is the plugin's own.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unknown`] and [`RegistryErrorKind::Unsatisfied`].
    pub fn position(&self, name: &str) -> Result<usize, RegistryError> {
        let all = self.of(name)?;
        let pinned = self.choices.pinned.get(name);
        let required = self.choices.required.get(name);
        let version = |at: usize| self.entries[at].version();
        let is_wanted = |at: &usize| {
            let is_pinned = pinned.is_none_or(|pinned| version(*at) == Some(pinned));
            is_pinned && required.is_none_or(|it| version(*at).is_some_and(|own| it.matches(own)))
        };
        let rank = |at: &usize| {
            let entry = &self.entries[*at];
            let is_release = version(*at).is_some_and(|it| it.pre.is_empty());
            let side_by_side = (entry.is_one_version(), is_release, version(*at));
            (entry.error().is_none(), side_by_side)
        };
        let best = all.iter().copied().filter(is_wanted).max_by_key(rank);
        best.ok_or_else(|| {
            let mut installed: Vec<_> = all.iter().filter_map(|at| version(*at)).cloned().collect();
            installed.sort_by(|one, other| other.cmp(one));
            RegistryErrorKind::Unsatisfied {
                plugin: name.to_owned(),
                pinned: pinned.cloned(),
                required: required.cloned(),
                installed,
            }
            .into()
        })
    }

    /// The highest version before the one that is used, of those that can be used: what a plugin
    /// is taken back to.
    ///
    /// # Errors
    /// As for [`position`](Self::position), and [`RegistryErrorKind::NoEarlier`].
    pub fn earlier(&self, name: &str) -> Result<&Entry, RegistryError> {
        let used = self.get(name)?.version();
        let all = self.of(name)?;
        let earlier = all.iter().map(|at| &self.entries[*at]).filter(|entry| {
            let is_before = entry.version() < used && entry.version().is_some();
            is_before && entry.error().is_none()
        });
        earlier.max_by_key(|entry| entry.version()).ok_or_else(|| {
            RegistryErrorKind::NoEarlier {
                plugin: name.to_owned(),
                version: used.cloned(),
            }
            .into()
        })
    }

    /// Where all versions of a plugin are.
    fn of(&self, name: &str) -> Result<Vec<usize>, RegistryError> {
        let named = |sound: bool| {
            let entries = self.entries.iter().enumerate().filter(move |(_, entry)| {
                let counts = !sound || (entry.bundle().is_some() && !entry.is_second());
                entry.name() == name && counts
            });
            entries.map(|(at, _)| at).collect::<Vec<_>>()
        };
        // A folder without a sound manifest may be called like a plugin elsewhere.
        let all = Some(named(true)).filter(|sound| !sound.is_empty());
        let all = all.unwrap_or_else(|| named(false));
        if !all.is_empty() {
            return Ok(all);
        }
        let names = self.entries.iter().map(|entry| entry.name().to_owned());
        let mut known: Vec<String> = names.collect();
        known.sort();
        known.dedup();
        let name = name.to_owned();
        Err(RegistryErrorKind::Unknown { name, known }.into())
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

/// Of plugins with one name in several folders, the first counts.
fn refuse_second_names(entries: &mut [Entry]) {
    let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries.iter_mut().filter(|entry| entry.bundle().is_some()) {
        let by = first
            .entry(entry.name().to_owned())
            .or_insert_with(|| entry.place().to_owned());
        if *by != entry.place() {
            let (name, by) = (entry.name().to_owned(), by.clone());
            entry.refuse(RegistryErrorKind::NameTaken { name, by }.into());
        }
    }
}
