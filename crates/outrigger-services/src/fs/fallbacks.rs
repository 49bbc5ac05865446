//! System calls that an older kernel does not have, and that a container's
//! filter may refuse: with ENOSYS, or, where the filter does not know them, with
//! EPERM. Each has a slower way.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// The last step of a path and the directory that it is taken in.
pub(crate) struct Entry {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

/// Whether `openat2` answered `errno` because it is missing, rather than about
/// what was to be opened.
pub(crate) fn lacks_openat2(errno: Errno) -> bool {
    let probe = || {
        let resolve = ResolveFlags::empty();
        rustix::fs::openat2(CWD, "", OFlags::PATH, Mode::empty(), resolve).map(drop)
    };
    is_missing(errno, probe)
}

/// EPERM is also a true answer of these calls. A call that names nothing tells:
/// no kernel that has it says anything but ENOENT.
fn is_missing(errno: Errno, probe: impl FnOnce() -> Result<(), Errno>) -> bool {
    let refused = |errno| matches!(errno, Errno::NOSYS | Errno::PERM);
    errno == Errno::NOSYS || errno == Errno::PERM && probe().is_err_and(refused)
}

/// Gives what `from` names the name `to`; what has that name already is
/// replaced, unless `flags` say `NOREPLACE`.
pub(crate) fn rename(from: &Entry, to: &Entry, flags: RenameFlags) -> Result<(), Errno> {
    let plainly = || rustix::fs::renameat(&from.parent, &from.name, &to.parent, &to.name);
    if flags.is_empty() {
        return plainly();
    }
    let probe = || rustix::fs::renameat_with(CWD, "", CWD, "", flags);
    match rustix::fs::renameat_with(&from.parent, &from.name, &to.parent, &to.name, flags) {
        // Some file systems do not know the flag.
        Err(errno) if errno == Errno::INVAL || is_missing(errno, probe) => {}
        outcome => return outcome,
    }
    // A new name, which nobody else has: replacing that replaces nothing.
    let stat = rustix::fs::statat(&from.parent, &from.name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let reserved = Reserved::new(to, is_dir)?;
    plainly().inspect_err(|_| reserved.remove())
}

/// A name that was free, and is taken for a moment.
struct Reserved<'a> {
    entry: &'a Entry,
    /// Nothing for a directory.
    file: Option<OwnedFd>,
}

impl<'a> Reserved<'a> {
    fn new(entry: &'a Entry, is_dir: bool) -> Result<Self, Errno> {
        let (parent, name): (_, &OsStr) = (&entry.parent, &entry.name);
        if is_dir {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            return Ok(Self { entry, file: None });
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            entry,
            file: Some(file),
        })
    }

    /// Frees the name, unless somebody put something else there.
    fn remove(&self) {
        let (parent, name): (_, &OsStr) = (&self.entry.parent, &self.entry.name);
        let flags = match &self.file {
            // Only an empty one is removed.
            None => AtFlags::REMOVEDIR,
            Some(file) => {
                let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                match (there, rustix::fs::fstat(file)) {
                    (Ok(there), Ok(own)) if there.st_ino == own.st_ino => AtFlags::empty(),
                    _ => return,
                }
            }
        };
        let _ = rustix::fs::unlinkat(parent, name, flags);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Renames within `dir`, where `renameat2` is answered with `answer`.
    fn rename_without(answer: &'static str, dir: &Path, from: &str, to: &str) -> Result<(), Errno> {
        let entry = |name: &str| Entry {
            parent: std::fs::File::open(dir).expect("a directory").into(),
            name: name.into(),
        };
        let (from, to) = (entry(from), entry(to));
        let renaming = std::thread::spawn(move || {
            outrigger_testing::refuse("renameat2", answer).expect("a filter");
            rename(&from, &to, RenameFlags::NOREPLACE)
        });
        renaming.join().expect("no panic")
    }

    #[test]
    fn nothing_is_replaced_and_nothing_left_without_renameat2() {
        for answer in ["ENOSYS", "EPERM"] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = |name: &str| dir.path().join(name);
            let rename = |from: &str, to: &str| rename_without(answer, dir.path(), from, to);
            std::fs::write(path("file"), "text").expect("written");
            std::fs::create_dir(path("dir")).expect("made");
            std::fs::create_dir(path("empty")).expect("made");
            std::os::unix::fs::symlink("file", path("link")).expect("linked");
            for taken in ["file", "dir", "empty", "link"] {
                for from in ["file", "dir", "link"] {
                    assert_eq!(rename(from, taken), Err(Errno::EXIST), "{from} {taken}");
                }
            }
            assert_eq!(rename("none", "new"), Err(Errno::NOENT));
            assert_eq!(rename("dir", "dir/sub"), Err(Errno::INVAL));
            assert_eq!(rename("file", "none/new"), Err(Errno::NOENT));
            for name in ["file", "dir", "link"] {
                assert_eq!(rename(name, &format!("{name}-moved")), Ok(()), "{name}");
            }
            let mut left: Vec<_> = std::fs::read_dir(dir.path())
                .expect("listed")
                .flatten()
                .map(|e| e.file_name())
                .collect();
            left.sort();
            assert_eq!(left, ["dir-moved", "empty", "file-moved", "link-moved"]);
            assert_eq!(std::fs::read(path("file-moved")).expect("read"), b"text");
            assert!(
                std::fs::read_dir(path("dir-moved"))
                    .expect("listed")
                    .next()
                    .is_none()
            );
        }
    }

    #[test]
    fn a_refused_file_is_not_taken_for_a_missing_call() {
        assert!(!lacks_openat2(Errno::PERM));
        assert!(!lacks_openat2(Errno::ACCESS));
        let asking = std::thread::spawn(|| {
            outrigger_testing::refuse("openat2", "EPERM").expect("a filter");
            (lacks_openat2(Errno::PERM), lacks_openat2(Errno::ACCESS))
        });
        assert_eq!(asking.join().expect("no panic"), (true, false));
    }
}
