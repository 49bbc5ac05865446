//! Removes a directory tree that a plugin has shaped: never through a link,
//! with a bounded number of open directories however deep the tree is.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// How many levels are open at the same time; what lies deeper is first moved
/// up to the top.
const LEVELS: usize = 24;

/// Removes `name` in `parent` and everything beneath it; nothing there is
/// fine too.
///
/// # Errors
/// [`Errno::TIMEDOUT`] when it is not done by `until`, [`Errno::CANCELED`] when
/// `go_on` says no; a part is gone then. Otherwise what the system said.
pub(crate) fn remove(
    parent: BorrowedFd<'_>,
    name: impl Arg,
    until: Instant,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Errno> {
    let name = name.into_c_str()?;
    match rustix::fs::unlinkat(parent, &*name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says the first, POSIX the second.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    loop {
        match rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if Instant::now() >= until => {
                return Err(Errno::TIMEDOUT);
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let Some(top) = open(parent, &name)? else {
            return Ok(());
        };
        Removal {
            top: top.as_fd(),
            until,
            go_on,
            moved: 0,
        }
        .empty(top.as_fd(), 0)?;
    }
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    until: Instant,
    go_on: &'a dyn Fn() -> bool,
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, level: usize) -> Result<(), Errno> {
        for entry in rustix::fs::Dir::read_from(dir)? {
            if Instant::now() >= self.until {
                return Err(Errno::TIMEDOUT);
            }
            if !(self.go_on)() {
                return Err(Errno::CANCELED);
            }
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => self.remove_dir(dir, name, level)?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn remove_dir(&mut self, dir: BorrowedFd<'_>, name: &CStr, level: usize) -> Result<(), Errno> {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if level >= LEVELS {
            return self.move_up(dir, name);
        }
        if let Some(child) = open(dir, name)? {
            self.empty(child.as_fd(), level + 1)?;
            drop(child);
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                // Something new, or something moved: the caller's loop comes again.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let free = format!(".removing-{}", self.moved);
            match rustix::fs::renameat(dir, name, self.top, free.as_str()) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR)
                    if Instant::now() < self.until => {}
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Opens a directory; nothing when it is not one (any more).
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_links_are_not_followed() {
        let base = tempfile::tempdir().expect("a directory");
        let kept = base.path().join("kept");
        std::fs::create_dir(&kept).expect("a directory");
        std::fs::write(kept.join("file"), b"x").expect("a file");
        let dir = std::fs::File::open(base.path()).expect("the directory");
        rustix::fs::mkdirat(&dir, "tree", Mode::RWXU).expect("the tree");
        let mut at = open(dir.as_fd(), c"tree")
            .expect("open")
            .expect("a directory");
        for _ in 0..3000 {
            rustix::fs::symlinkat("../kept", &at, "link").expect("a link");
            rustix::fs::symlinkat(&kept, &at, "absolute").expect("a link");
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("a level");
            at = open(at.as_fd(), c"d").expect("open").expect("a directory");
        }
        remove(dir.as_fd(), "tree", soon(), &|| true).expect("removed");
        assert!(!base.path().join("tree").exists());
        assert!(kept.join("file").exists());
    }

    #[test]
    fn nothing_there_is_fine_and_a_link_is_removed_itself() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = std::fs::File::open(base.path()).expect("the directory");
        remove(dir.as_fd(), "missing", soon(), &|| true).expect("fine");
        rustix::fs::symlinkat("/", &dir, "link").expect("a link");
        remove(dir.as_fd(), "link", soon(), &|| true).expect("removed");
        assert!(Path::new("/").exists() && !base.path().join("link").is_symlink());
    }
}
