//! Manifests and policies as files.

use std::fs::File;
use std::path::{Path, PathBuf};

use outrigger_manifest::{Manifest, Policy, Problems};

use crate::error::{RegistryError, RegistryErrorKind};
use crate::file::{contents, regular};
use crate::file_kind::FileKind;
use crate::shown;

/// The most bytes that a manifest or a policy may have.
const LARGEST: u64 = 16 << 20;
/// The most names that are read of a folder to explain what it lacks.
const LOOKED_AT: usize = 1000;

/// A manifest or a policy as it was read, whatever it is worth.
///
/// # Examples
/// ```
/// use outrigger_registry::{FileKind, SourceFile};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("policy.yaml"), "default: {alow: requested}")?;
/// let source = SourceFile::read(folder.path(), FileKind::Policy)?;
/// let problems = source.policy().expect_err("a key is misspelt");
/// assert!(problems.to_string().contains("did you mean `allow`?"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SourceFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl SourceFile {
    /// Reads the file at `path`, or the one of the usual name in the folder there.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unreadable`].
    pub fn read(path: impl AsRef<Path>, kind: FileKind) -> Result<Self, RegistryError> {
        let given = path.as_ref();
        let folder = given.is_dir();
        let path = if folder {
            given.join(kind.usual_name())
        } else {
            given.to_owned()
        };
        // In a folder, nothing that a read could wait for is taken for the file.
        let read = match folder {
            true => regular(&path, LARGEST),
            false => File::open(&path).and_then(|file| contents(file, LARGEST)),
        };
        match read {
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(source) => {
                let others = if folder {
                    settings_in(given)
                } else {
                    Vec::new()
                };
                Err(RegistryErrorKind::Unreadable {
                    file: kind,
                    path,
                    source,
                    others,
                }
                .into())
            }
        }
    }

    /// Where the file is; of a folder, that of the file in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path as it was given, safe to print: what problems call it.
    pub fn name(&self) -> String {
        shown::path(&self.path)
    }

    /// What stands in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads it as a manifest.
    ///
    /// # Errors
    /// All its problems.
    pub fn manifest(&self) -> Result<Manifest, Problems> {
        Manifest::parse_bytes(&self.bytes).map_err(|problems| problems.in_file(self.name()))
    }

    /// Reads it as a policy.
    ///
    /// # Errors
    /// All its problems.
    pub fn policy(&self) -> Result<Policy, Problems> {
        Policy::parse_bytes(&self.bytes).map_err(|problems| problems.in_file(self.name()))
    }
}

/// The names in the folder of `wanted` that are nearly its own, the nearest first.
pub(crate) fn alike(wanted: &Path) -> Vec<String> {
    let name = wanted.file_name().unwrap_or_default().to_string_lossy();
    let mut near: Vec<(usize, String)> = wanted
        .parent()
        .map(names_in)
        .unwrap_or_default()
        .into_iter()
        .map(|other| {
            let distance = strsim::osa_distance(&name.to_lowercase(), &other.to_lowercase());
            (distance, other)
        })
        .filter(|(distance, other)| *distance <= name.len().max(other.len()) / 3)
        .collect();
    near.sort();
    near.into_iter().map(|(_, other)| other).collect()
}

/// The files of a folder that may have been meant by another name, sorted.
fn settings_in(folder: &Path) -> Vec<String> {
    let mut names = names_in(folder);
    names.retain(|name| {
        [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| name.ends_with(end))
    });
    names.sort();
    names
}

/// The names in a folder; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().take(LOOKED_AT);
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}
