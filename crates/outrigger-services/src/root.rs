//! The directory that a host grants to its plugins.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::area::Area;
use crate::text::Quoted;

/// A directory, taken once by its handle. Clones share it.
///
/// What happens to the directory's path afterwards does not matter: a plugin
/// reaches what the handle stands for.
#[derive(Clone, Debug)]
pub struct Root(pub(crate) Arc<Area>);

/// A directory could not be taken as a root.
///
/// *Cause*: it does not exist, is no directory, or the host may not open it.
/// *Resolution*: name a directory that the host itself can list.
#[derive(Debug, thiserror::Error)]
#[error("could not take {} as the directory for plugins", Quoted(&.path.to_string_lossy()))]
pub struct RootError {
    /// What was asked for.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl RootError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        "root-unusable"
    }
}

impl Root {
    /// Opens `path`, following links in it this one time.
    ///
    /// # Errors
    /// [`RootError`] when it is not a directory that this process can open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RootError> {
        let path = path.as_ref();
        let open = || {
            let canonical = std::fs::canonicalize(path)?;
            let dir = Dir::open_ambient_dir(&canonical, ambient_authority())?;
            Self::with_names(dir, [canonical, std::path::absolute(path)?])
        };
        open().map_err(|source| RootError {
            path: path.to_owned(),
            source,
        })
    }

    /// Takes a directory that is open already; `path` is the absolute name by
    /// which plugins may call it.
    ///
    /// # Errors
    /// [`RootError`] when `dir` is not a directory or `path` not absolute.
    pub fn from_fd(dir: impl Into<OwnedFd>, path: impl AsRef<Path>) -> Result<Self, RootError> {
        let path = path.as_ref();
        let take = || {
            if !path.is_absolute() {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            let file = std::fs::File::from(dir.into());
            if !file.metadata()?.is_dir() {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
            Self::with_names(Dir::from_std_file(file), [path.to_owned(), path.to_owned()])
        };
        take().map_err(|source| RootError {
            path: path.to_owned(),
            source,
        })
    }

    fn with_names(dir: Dir, names: [PathBuf; 2]) -> io::Result<Self> {
        let mut names: Vec<PathBuf> = names.iter().map(|name| crate::area::clean(name)).collect();
        names.dedup();
        Ok(Self(Arc::new(Area::new(dir, names)?)))
    }

    /// The absolute name of the directory when it was taken.
    pub fn path(&self) -> &Path {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_directory_is_refused_with_its_name() {
        let base = tempfile::tempdir().expect("a directory");
        let file = base.path().join("file");
        std::fs::write(&file, b"x").expect("a file");
        let error = Root::open("missing\n").expect_err("no such directory");
        assert_eq!(
            error.to_string(),
            r#"could not take "missing\n" as the directory for plugins"#
        );
        assert_eq!(error.code(), "root-unusable");
        assert!(Root::open(&file).is_err());
        let open = std::fs::File::open(&file).expect("the file");
        assert!(Root::from_fd(open, "/x").is_err());
        let open = std::fs::File::open(base.path()).expect("the directory");
        assert!(Root::from_fd(open, "relative").is_err());
    }
}
