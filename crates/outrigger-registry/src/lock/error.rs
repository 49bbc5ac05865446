//! Why the lock file cannot be used.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_wire::Coded;

use crate::shown;

/// Why the lock file cannot be used. Clones share what they say.
///
/// `Display` says what is wrong in one line.
#[derive(Clone, Debug)]
pub struct LockError {
    path: PathBuf,
    kind: Arc<LockErrorKind>,
}

/// What is wrong with the lock file. Texts are escaped, and safe to print.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockErrorKind {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It cannot be written. What was there before is still there.
    Unwritable(io::Error),
    /// Another process has been changing it for too long.
    Busy(Duration),
    /// It is of a later form than is known here.
    Newer {
        /// The `version` in it.
        version: i64,
    },
    /// It is in two versions, which a merge left for a person to choose from.
    Conflict {
        /// The line of the first marker.
        line: usize,
    },
    /// It is not what this program writes.
    Invalid {
        /// The line, from 1.
        line: usize,
        /// The column, in characters, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
}

impl LockError {
    pub(super) fn new(path: &Path, kind: LockErrorKind) -> Self {
        Self {
            path: path.to_owned(),
            kind: Arc::new(kind),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong.
    pub fn kind(&self) -> &LockErrorKind {
        &self.kind
    }
}

impl Coded for LockError {
    fn code(&self) -> &'static str {
        match self.kind() {
            LockErrorKind::Unreadable(_) => "lock-unreadable",
            LockErrorKind::Unwritable(_) => "lock-unwritable",
            LockErrorKind::Busy(_) => "lock-busy",
            LockErrorKind::Newer { .. } => "lock-newer",
            LockErrorKind::Conflict { .. } => "lock-conflict",
            LockErrorKind::Invalid { .. } => "lock-invalid",
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self.kind() {
            LockErrorKind::Newer { .. } => "update outrigger on this machine",
            LockErrorKind::Conflict { .. } => {
                "keep the entries of both sides, and of one plugin the one that you mean"
            }
            LockErrorKind::Invalid { .. } => {
                "take it back from version control, or remove it and approve the plugins again"
            }
            LockErrorKind::Busy(_) => "end the other `outrigger`, or wait for it",
            LockErrorKind::Unreadable(_) | LockErrorKind::Unwritable(_) => return None,
        };
        Some(text.into())
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = shown::path(&self.path);
        match self.kind() {
            LockErrorKind::Unreadable(_) => write!(f, "the lock file `{path}` could not be read"),
            LockErrorKind::Unwritable(_) => {
                write!(f, "the lock file `{path}` could not be written")
            }
            LockErrorKind::Busy(waited) => write!(
                f,
                "the lock file `{path}` was being changed by another process for {waited:?}"
            ),
            LockErrorKind::Newer { version } => write!(
                f,
                "the lock file `{path}` was written by a newer outrigger: its version is {version}"
            ),
            LockErrorKind::Conflict { line } => {
                write!(
                    f,
                    "{path}:{line}: a merge left two versions of the lock file"
                )
            }
            LockErrorKind::Invalid { line, column, what } => {
                write!(f, "{path}:{line}:{column}: {what}")
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.kind() {
            LockErrorKind::Unreadable(source) | LockErrorKind::Unwritable(source) => Some(source),
            LockErrorKind::Busy(_)
            | LockErrorKind::Newer { .. }
            | LockErrorKind::Conflict { .. }
            | LockErrorKind::Invalid { .. } => None,
        }
    }
}
