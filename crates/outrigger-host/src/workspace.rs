//! The directory of one plugin's sockets.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use outrigger_transport::{socket_place, temp_dir};
use uuid::Uuid;

/// A directory of one plugin alone, removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct SocketDir {
    path: PathBuf,
}

impl SocketDir {
    /// Makes the directory beneath `parent`, or the system's temporary one, with
    /// mode 0700; for a group, with mode 0770 and that group.
    pub(crate) fn create(parent: Option<&Path>, group: Option<u32>) -> io::Result<Self> {
        let name = format!("plugin-dir{}", Uuid::new_v4().as_u128() % 10_000_000_000);
        let parent = parent.map_or_else(temp_dir, Path::to_owned);
        let path = socket_place(&parent, &name)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let dir = Self { path };
        if let Some(group) = group {
            std::os::unix::fs::chown(&dir.path, None, Some(group))?;
            std::fs::set_permissions(&dir.path, std::fs::Permissions::from_mode(0o770))?;
        }
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.path.display(), %error, "could not remove a socket directory");
        }
    }
}
