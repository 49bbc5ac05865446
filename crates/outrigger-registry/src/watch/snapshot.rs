//! What was installed at one moment, and how that differs from another.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use outrigger_wire::text::printable;
use outrigger_wire::{Coded as _, ExpectedDigest};
use semver::Version;

use crate::digest_cache::DigestCache;
use crate::entry::{Entry, EntryState};
use crate::file_kind::FileKind;
use crate::registry::Registry;

/// What was installed at one moment, by what its files held.
///
/// # Examples
/// ```
/// use outrigger_registry::{DigestCache, Registry, Snapshot};
///
/// let folder = tempfile::tempdir()?;
/// let digests = DigestCache::in_memory();
/// let before = Snapshot::of(&Registry::scan(folder.path())?, &digests);
/// std::fs::create_dir(folder.path().join("cat"))?;
/// let after = Snapshot::of(&Registry::scan(folder.path())?, &digests);
/// let changes = before.changes_to(&after);
/// assert_eq!(changes[0].to_string(), "plugin cat was added: it cannot be used [manifest-unreadable]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Observed>,
}

/// An entry, and what its files held. Two are equal if the same can be done with them: names,
/// states and contents count, times do not.
#[derive(Clone, Debug)]
pub struct Observed {
    entry: Entry,
    content: Content,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Content {
    name: String,
    version: Option<Version>,
    /// The code of what is wrong.
    code: Option<&'static str>,
    program: Option<PathBuf>,
    manifest_digest: Option<ExpectedDigest>,
    program_digest: Option<ExpectedDigest>,
    /// What its checksum file says.
    checksum: Option<ExpectedDigest>,
}

impl PartialEq for Observed {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for Observed {}

impl Observed {
    fn of(entry: &Entry, digests: &DigestCache) -> Self {
        let manifest = entry.folder().join(FileKind::Manifest.usual_name());
        let (program, checksum) = match entry.state() {
            EntryState::Available {
                program, checksum, ..
            } => (Some(program.clone()), checksum.clone()),
            EntryState::Unusable { .. } => (None, None),
        };
        let digest = |path: &Path| digests.digest(path).ok();
        Self {
            content: Content {
                name: entry.name().to_owned(),
                version: entry.version().cloned(),
                code: entry.error().map(|error| error.code()),
                manifest_digest: digest(&manifest),
                program_digest: program.as_deref().and_then(digest),
                program,
                checksum,
            },
            entry: entry.clone(),
        }
    }

    /// The entry as it was then.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// What its manifest hashed to, if there was one that could be read.
    pub fn manifest_digest(&self) -> Option<&ExpectedDigest> {
        self.content.manifest_digest.as_ref()
    }

    /// What its program hashed to, if it could be used.
    pub fn program_digest(&self) -> Option<&ExpectedDigest> {
        self.content.program_digest.as_ref()
    }
}

impl Snapshot {
    /// What is installed, with what the files hold now. Reads the programs whose digest is not
    /// known.
    pub fn of(registry: &Registry, digests: &DigestCache) -> Self {
        let observed = |entry: &Entry| {
            let folder = entry.folder().to_owned();
            (folder, Observed::of(entry, digests))
        };
        Self {
            entries: registry.entries().iter().map(observed).collect(),
        }
    }

    /// How `later` differs from this, in the order of the folders.
    pub fn changes_to(&self, later: &Self) -> Vec<EntryChanged> {
        let mut folders: Vec<&PathBuf> = self.entries.keys().chain(later.entries.keys()).collect();
        folders.sort();
        folders.dedup();
        let change = |folder: &PathBuf| EntryChanged {
            folder: folder.clone(),
            before: self.entries.get(folder).cloned(),
            after: later.entries.get(folder).cloned(),
        };
        let changes = folders.into_iter().map(change);
        changes.filter(|it| it.before != it.after).collect()
    }

    /// Makes this what it is after these changes.
    pub fn apply(&mut self, changes: &[EntryChanged]) {
        for change in changes {
            let folder = change.folder.clone();
            match &change.after {
                Some(after) => self.entries.insert(folder, after.clone()),
                None => self.entries.remove(&folder),
            };
        }
    }
}

/// One plugin's folder is not what it was. `Display` says so in a line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryChanged {
    folder: PathBuf,
    before: Option<Observed>,
    after: Option<Observed>,
}

impl EntryChanged {
    /// The plugin's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plugin's name; the one that it had, if it is gone.
    pub fn name(&self) -> &str {
        let either = self.after.as_ref().or(self.before.as_ref());
        either.map_or("", |it| it.entry.name())
    }

    /// What was there before, if anything was.
    pub fn before(&self) -> Option<&Observed> {
        self.before.as_ref()
    }

    /// What is there now, if anything is.
    pub fn after(&self) -> Option<&Observed> {
        self.after.as_ref()
    }
}

impl fmt::Display for EntryChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}", printable(self.name()))?;
        let what = match (&self.before, &self.after) {
            (_, None) => return f.write_str(" was removed"),
            (None, Some(_)) => vec!["was added"],
            (Some(before), Some(after)) => {
                let (before, after) = (&before.content, &after.content);
                let mut what = Vec::new();
                if before.manifest_digest != after.manifest_digest {
                    what.push("has another manifest");
                }
                if before.program_digest != after.program_digest {
                    what.push("has another program");
                }
                if before.checksum != after.checksum {
                    what.push("has another checksum");
                }
                if what.is_empty() {
                    what.push("changed");
                }
                what
            }
        };
        write!(f, " {}", what.join(", "))?;
        match self.after.as_ref().and_then(|after| after.content.code) {
            Some(code) => write!(f, ": it cannot be used [{code}]"),
            None => Ok(()),
        }
    }
}
