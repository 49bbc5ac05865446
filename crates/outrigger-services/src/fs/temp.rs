//! The temporary directory of one plugin: made when first needed, gone with
//! the plugin.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::area::Area;
use super::tree;
use crate::fault::Fault;

/// How often a free name is looked for.
const ATTEMPTS: usize = 32;
/// A directory in which at most so many changes were made is removed on the
/// spot; a larger one on a thread of its own.
const SMALL: u64 = 1024;
/// How long removing may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// A directory with mode 0700 that only one plugin's services use.
#[derive(Debug)]
pub(crate) struct TempArea {
    area: Arc<Area>,
    parent: Option<Arc<OwnedFd>>,
    name: OsString,
    changes: AtomicU64,
}

impl TempArea {
    /// Makes the directory beneath `root`.
    pub(crate) fn create(root: &Path) -> Result<Self, Fault> {
        let given = super::area::clean(&std::path::absolute(root)?);
        let canonical = std::fs::canonicalize(root)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, &canonical, flags, Mode::empty())?;
        let name = free_name("outrigger-", "", |name| {
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)
        })?;
        let dir = rustix::fs::openat(&parent, &name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        let (given, canonical) = (given.join(&name), canonical.join(&name));
        let area = Area::hold(
            dir,
            given,
            canonical,
            "the plugin's temporary directory".into(),
        )?;
        let (area, parent) = (Arc::new(area), Some(Arc::new(parent)));
        Ok(Self {
            area,
            parent,
            name: name.into(),
            changes: AtomicU64::new(0),
        })
    }

    pub(crate) fn area(&self) -> &Arc<Area> {
        &self.area
    }

    /// Notes that so many things may have been made here.
    pub(crate) fn note_changes(&self, count: usize) {
        self.changes.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for TempArea {
    fn drop(&mut self) {
        let Some(parent) = self.parent.take() else {
            return;
        };
        let name = std::mem::take(&mut self.name);
        let remove = move || {
            if let Err(errno) =
                tree::remove(parent.as_fd(), &name, Instant::now() + REMOVAL, &|| true)
            {
                let name = name.to_string_lossy();
                tracing::warn!(%name, error = %errno, "a plugin's temporary directory remains");
            }
        };
        // Whoever drops may be a connection's thread: it must not work for long
        // because of what a plugin has piled up.
        if self.changes.load(Ordering::Relaxed) <= SMALL {
            remove();
            return;
        }
        let remove = Arc::new(remove);
        let again = remove.clone();
        let thread = std::thread::Builder::new().name("outrigger-temp".into());
        if thread.spawn(move || remove()).is_err() {
            again();
        }
    }
}

/// Makes something with a random name, trying again when the name is taken.
pub(crate) fn free_name<T>(
    before: &str,
    after: &str,
    mut make: impl FnMut(&str) -> Result<T, Errno>,
) -> Result<String, Fault> {
    for _ in 0..ATTEMPTS {
        let name = format!("{before}{}{after}", Uuid::new_v4().simple());
        match make(&name) {
            Ok(_) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::System(errno)),
        }
    }
    Err(Fault::System(Errno::EXIST))
}

/// The parts around the random one: it replaces the last `*`, or is appended.
pub(crate) fn split_pattern(pattern: &str) -> Result<(&str, &str), Fault> {
    if pattern.contains('/') {
        return Err(Fault::failed_as(
            "invalid-argument",
            tonic::Code::InvalidArgument,
            "pattern contains path separator",
        ));
    }
    if pattern.contains('\0') {
        return Err(Fault::System(Errno::INVAL));
    }
    // A name has at most 255 bytes, 32 of them the random part.
    if pattern.len() > 200 {
        return Err(Fault::System(Errno::NAMETOOLONG));
    }
    Ok(pattern.rsplit_once('*').unwrap_or((pattern, "")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_pattern_is_read_as_go_reads_it() {
        assert_eq!(split_pattern("a*b*c").ok(), Some(("a*b", "c")));
        assert_eq!(split_pattern("plain-").ok(), Some(("plain-", "")));
        assert_eq!(split_pattern("").ok(), Some(("", "")));
        assert!(split_pattern("a/b").is_err());
        assert!(split_pattern(&"x".repeat(201)).is_err());
    }

    #[test]
    fn the_directory_is_private_and_goes_with_its_owner_whatever_its_size() {
        let root = tempfile::tempdir().expect("a directory");
        for changes in [0, SMALL + 1] {
            let temp = TempArea::create(root.path()).expect("a temporary directory");
            let path = temp.area().canonical.clone();
            assert_eq!(
                std::fs::metadata(&path).expect("it exists").mode() & 0o777,
                0o700
            );
            std::fs::write(path.join("file"), b"x").expect("a file");
            temp.changes.store(changes, Ordering::Relaxed);
            drop(temp);
            let deadline = Instant::now() + Duration::from_secs(10);
            while path.exists() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert!(!path.exists());
        }
    }
}
