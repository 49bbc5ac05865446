//! What a machine answers about the paths of a policy's rules.

use std::path::{Path, PathBuf};

/// Where the paths of a policy's rules lead on this machine.
pub trait RealPaths {
    /// Where a denied path leads, every link followed; what does not exist is spelled beneath
    /// the last directory that does.
    fn denied(&self, path: &Path) -> PathBuf;

    /// Where an allowed path leads. `None` when a link on the way may have been made by the very
    /// plugin, which must not choose what it is allowed.
    fn allowed(&self, path: &Path) -> Option<PathBuf>;
}
