//! Removes a directory tree that a plugin has shaped: never through a link,
//! with a bounded number of open directories however deep the tree is.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// How many levels are open at the same time; what lies deeper is first moved
/// up to the top.
const LEVELS: usize = 24;

/// What to do about directories whose mode forbids to empty them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacles {
    /// They stay.
    Respect,
    /// Their mode is changed: all of the tree is ours.
    Clear,
}

/// Removes `name` in `parent` and everything beneath it; nothing there is
/// fine too. What cannot be removed does not keep the rest.
///
/// # Errors
/// [`Errno::TIMEDOUT`] when it is not done by `until`, [`Errno::CANCELED`] when
/// `go_on` says no; a part is gone then. Otherwise what the system said first.
pub fn remove(
    parent: BorrowedFd<'_>,
    name: impl Arg,
    obstacles: Obstacles,
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
        let Some(top) = open_to_empty(parent, &name, obstacles)? else {
            return Ok(());
        };
        let mut removal = Removal {
            top: top.as_fd(),
            obstacles,
            until,
            go_on,
            moved: 0,
            failed: None,
        };
        removal.empty(top.as_fd(), 0)?;
        // What was moved up is emptied in the next round, also beside what stays.
        if let (Some(errno), 0) = (removal.failed, removal.moved) {
            return Err(errno);
        }
    }
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    obstacles: Obstacles,
    until: Instant,
    go_on: &'a dyn Fn() -> bool,
    moved: u64,
    /// Why something stays.
    failed: Option<Errno>,
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
            let removed = match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => self.remove_dir(dir, name, level),
                outcome => outcome,
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno @ (Errno::TIMEDOUT | Errno::CANCELED)) => return Err(errno),
                Err(errno) => {
                    self.failed.get_or_insert(errno);
                }
            }
        }
        Ok(())
    }

    fn remove_dir(&mut self, dir: BorrowedFd<'_>, name: &CStr, level: usize) -> Result<(), Errno> {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            outcome => return outcome,
        }
        if level >= LEVELS {
            return self.move_up(dir, name);
        }
        if let Some(child) = open_to_empty(dir, name, self.obstacles)? {
            self.empty(child.as_fd(), level + 1)?;
            drop(child);
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                // Something new, something moved, or something that stays: the
                // caller's loop knows.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                outcome => return outcome,
            }
        }
        Ok(())
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        if self.obstacles == Obstacles::Clear {
            // Moving a directory changes it: `..` is another one.
            make_ours(dir, name);
        }
        loop {
            self.moved += 1;
            let free = format!(".removing-{}", self.moved);
            match rustix::fs::renameat(dir, name, self.top, free.as_str()) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR)
                    if Instant::now() < self.until => {}
                outcome => return outcome,
            }
        }
    }
}

/// [`open`], for a directory that is to be emptied.
fn open_to_empty(
    parent: BorrowedFd<'_>,
    name: &CStr,
    obstacles: Obstacles,
) -> Result<Option<OwnedFd>, Errno> {
    if obstacles == Obstacles::Clear {
        make_ours(parent, name);
    }
    open(parent, name)
}

/// Lets the owner of a directory do everything in it, if that is us: what it is
/// needed for says what is wrong otherwise.
fn make_ours(parent: BorrowedFd<'_>, name: &CStr) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::openat(parent, name, flags, Mode::empty()) else {
        return;
    };
    let mode = rustix::fs::fstat(&dir).map(|stat| Mode::from_raw_mode(stat.st_mode));
    if let Ok(mode) = mode
        && !mode.contains(Mode::RWXU)
    {
        // A handle for the inode alone takes no chmod; its name under /proc does.
        let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let _ = rustix::fs::chmod(name, mode | Mode::RWXU);
    }
}

/// Opens a directory; nothing when it is not one (any more).
pub fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
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
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const RESPECT: Obstacles = Obstacles::Respect;

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
        remove(dir.as_fd(), "tree", RESPECT, soon(), &|| true).expect("removed");
        assert!(!base.path().join("tree").exists());
        assert!(kept.join("file").exists());
    }

    #[test]
    fn nothing_there_is_fine_and_a_link_is_removed_itself() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = std::fs::File::open(base.path()).expect("the directory");
        remove(dir.as_fd(), "missing", RESPECT, soon(), &|| true).expect("fine");
        rustix::fs::symlinkat("/", &dir, "link").expect("a link");
        remove(dir.as_fd(), "link", RESPECT, soon(), &|| true).expect("removed");
        assert!(Path::new("/").exists() && !base.path().join("link").is_symlink());
    }

    /// Does `work` as one for whom modes count, on a thread of its own: root may
    /// do everything otherwise.
    fn without_privileges(work: impl FnOnce() + Send + 'static) {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

        let work = move || {
            let none = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, none).expect("given up");
            work();
        };
        std::thread::spawn(work).join().expect("no panic");
    }

    #[test]
    fn modes_keep_nothing_where_all_of_it_is_ours() {
        without_privileges(|| {
            let base = tempfile::tempdir().expect("a directory");
            let dir = std::fs::File::open(base.path()).expect("the directory");
            let closed = |path: &str, mode| {
                let path = base.path().join(path);
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(path, mode).expect("its mode");
            };
            let plant = || {
                for sub in ["tree/closed/deep", "tree/still/deep", "tree/open"] {
                    std::fs::create_dir_all(base.path().join(sub)).expect("directories");
                    std::fs::write(base.path().join(sub).join("file"), "x").expect("a file");
                }
                // Deeper than what is open at the same time.
                let below = "d/".repeat(LEVELS + 4);
                let below = base.path().join("tree/open").join(below);
                std::fs::create_dir_all(&below).expect("directories");
                std::fs::write(below.join("file"), "x").expect("a file");
                closed(&format!("tree/open/{}", "d/".repeat(LEVELS + 2)), 0o500);
                closed("tree/closed", 0);
                closed("tree/still", 0o500);
            };
            plant();
            let kept = remove(dir.as_fd(), "tree", RESPECT, soon(), &|| true);
            assert_eq!(kept, Err(Errno::ACCESS));
            // What can be removed is.
            assert!(!base.path().join("tree/open/file").exists());
            assert!(base.path().join("tree/closed").exists());
            remove(dir.as_fd(), "tree", Obstacles::Clear, soon(), &|| true).expect("removed");
            assert!(!base.path().join("tree").exists());
            plant();
            closed("tree", 0);
            remove(dir.as_fd(), "tree", Obstacles::Clear, soon(), &|| true).expect("removed");
        });
    }
}
