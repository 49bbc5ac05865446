//! The lock file on disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{LockError, LockErrorKind};
use super::text::Lock;
use crate::file::regular;

/// The most bytes that a lock file may have.
const LARGEST: u64 = 16 << 20;
/// How long a change waits for another process to finish its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits before it tries again. The system has no way to wait for a lock up to a
/// deadline, and others hold this one for as long as writing a small file takes.
const AGAIN: Duration = Duration::from_millis(5);

/// Where the lock file is. It need not exist: then nothing is locked.
///
/// # Examples
/// ```
/// use outrigger_registry::LockFile;
///
/// let folder = tempfile::tempdir()?;
/// let file = LockFile::in_folder(folder.path());
/// assert_eq!(file.read()?.plugins().count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    path: PathBuf,
}

impl LockFile {
    /// The usual name of the file.
    pub const NAME: &str = "outrigger.lock";

    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file of the usual name in the folder of the plugins' folders.
    pub fn in_folder(folder: impl AsRef<Path>) -> Self {
        Self::new(folder.as_ref().join(Self::NAME))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is locked now; nothing, if there is no file.
    ///
    /// # Errors
    /// [`LockErrorKind::Unreadable`], and what [`Lock::parse`] finds wrong.
    pub fn read(&self) -> Result<Lock, LockError> {
        match self
            .text()
            .map_err(|error| self.error(LockErrorKind::Unreadable(error)))?
        {
            Some(text) => Lock::parse(&text).map_err(|kind| self.error(kind)),
            None => Ok(Lock::default()),
        }
    }

    /// Changes what is locked. Nobody else who does so comes in between: what `change` is given is
    /// what is there, and what it leaves is written as a whole or not at all, and outlives a
    /// loss of power. Where it changes nothing, nothing is written.
    ///
    /// Waits up to ten seconds for other processes.
    ///
    /// # Errors
    /// As for [`read`](Self::read); [`LockErrorKind::Busy`] and [`LockErrorKind::Unwritable`].
    pub fn update<T>(&self, change: impl FnOnce(&mut Lock) -> T) -> Result<T, LockError> {
        self.rewrite(Lock::parse, change)
    }

    /// Joins what both sides of a merge locked, where one left that to a person: see
    /// [`Lock::parse_merged`]. Returns whether one had.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub fn resolve_merge(&self) -> Result<bool, LockError> {
        match self.read() {
            Err(error) if matches!(error.kind(), LockErrorKind::Conflict { .. }) => {
                self.rewrite(Lock::parse_merged, |_| true)
            }
            read => read.map(|_| false),
        }
    }

    fn rewrite<T>(
        &self,
        parse: fn(&str) -> Result<Lock, LockErrorKind>,
        change: impl FnOnce(&mut Lock) -> T,
    ) -> Result<T, LockError> {
        let unwritable = |error| self.error(LockErrorKind::Unwritable(error));
        // What a link names is changed, not the link.
        let target = match self.path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.path.clone(),
            Err(error) => return Err(unwritable(error)),
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The file itself is replaced, so the folder is what can be held.
        let folder_file = File::open(folder).map_err(unwritable)?;
        self.hold(&folder_file)?;
        let before = self.text();
        let before = before.map_err(|error| self.error(LockErrorKind::Unreadable(error)))?;
        let mut lock = match &before {
            Some(text) => parse(text).map_err(|kind| self.error(kind))?,
            None => Lock::default(),
        };
        let result = change(&mut lock);
        let after = lock.to_text();
        let nothing = before.is_none() && lock.plugins().next().is_none();
        if before.as_ref() != Some(&after) && !nothing {
            replace(&target, folder, &after)
                .and_then(|()| folder_file.sync_all())
                .map_err(unwritable)?;
        }
        Ok(result)
    }

    /// Takes the lock on the folder, which ends with the descriptor.
    fn hold(&self, folder: &File) -> Result<(), LockError> {
        let begun = Instant::now();
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => {
                    return Err(self.error(LockErrorKind::Unwritable(error)));
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() >= PATIENCE => {
                    return Err(self.error(LockErrorKind::Busy(PATIENCE)));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN),
            }
        }
    }

    fn text(&self) -> io::Result<Option<String>> {
        let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        match regular(&self.path, LARGEST) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(not_text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(&self.path, kind)
    }
}

/// Puts a file with this text in the place of the one at `target`. Whoever reads sees the old or
/// the new one.
fn replace(target: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    let new = folder.join(name);
    // One that a process left behind that was killed while it held the lock.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new)
        .and_then(|mut file| {
            if let Ok(before) = target.metadata() {
                file.set_permissions(before.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    let replaced = written.and_then(|()| fs::rename(&new, target));
    if replaced.is_err() {
        // What failed is told; that this may fail as well adds nothing.
        let _ = fs::remove_file(&new);
    }
    replaced
}
