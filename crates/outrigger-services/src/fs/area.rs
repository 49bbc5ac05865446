//! One granted directory tree or file, held by its handle, and how a path
//! becomes a file in it: by steps that are never links, beneath the handle.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_manifest::Permissions;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::fallbacks::lacks_openat2;
use super::io::Inline;
use super::kernel::{Nature, Purpose};
use crate::fault::Fault;
use crate::real_paths::{RealPath, UnservedPath};

/// How names become files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    /// All at once by the kernel, or one by one where it does not know how.
    Kernel,
    /// One by one in any case.
    #[cfg(test)]
    OneByOne,
}

/// A granted directory tree or file, held by a handle that was taken once.
#[derive(Debug)]
pub(crate) struct Area {
    pub(super) dir: OwnedFd,
    /// The only name in `dir` that belongs to it, when a file was granted.
    pub(super) file: Option<OsString>,
    /// The absolute name that the grant gives it, without `.` and `..`.
    pub(crate) given: PathBuf,
    /// The absolute name that it had, without links, when it was taken.
    pub(crate) canonical: PathBuf,
    pub(crate) permissions: Permissions,
    pub(crate) recursive: bool,
    /// Which rule grants it, for records.
    pub(crate) rule: Arc<str>,
    device: u64,
    pub(super) nature: Nature,
    inline: Inline,
    steps: Steps,
}

impl Area {
    /// Takes what is at `place`, where the absolute `given` leads; no link is
    /// followed any more. A file that does not exist is taken by its directory.
    pub(crate) fn take(
        given: PathBuf,
        place: RealPath,
        permissions: Permissions,
        recursive: bool,
        rule: Arc<str>,
    ) -> Result<Self, UnservedPath> {
        let canonical = place.path.clone();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let taken = match open_exactly(&canonical, flags) {
            Ok(taken) => Some(taken),
            Err(Errno::NOENT) if place.missing => None,
            Err(errno) => return Err(errno.into()),
        };
        let kind = match &taken {
            Some(taken) => {
                if let Nature::Closed(why) = Nature::of(taken)? {
                    return Err(UnservedPath::Closed(why));
                }
                FileType::from_raw_mode(rustix::fs::fstat(taken)?.st_mode)
            }
            None => FileType::RegularFile,
        };
        place.found(kind == FileType::Directory)?;
        let (dir, file) = match (kind, taken) {
            (FileType::Directory, Some(dir)) => (dir, None),
            (FileType::RegularFile, _) => {
                let (Some(parent), Some(name)) = (canonical.parent(), canonical.file_name()) else {
                    return Err(Errno::INVAL.into());
                };
                let dir = open_exactly(parent, flags | OFlags::DIRECTORY)?;
                (dir, Some(name.to_owned()))
            }
            // Neither a file nor a directory: nothing that we serve.
            _ => return Err(Errno::NODEV.into()),
        };
        let mut area = Self::hold(dir, given, canonical, rule)?;
        area.file = file;
        area.permissions = permissions;
        area.recursive = recursive;
        Ok(area)
    }

    /// A directory that is held already, with every right.
    pub(crate) fn hold(
        dir: OwnedFd,
        given: PathBuf,
        canonical: PathBuf,
        rule: Arc<str>,
    ) -> Result<Self, Errno> {
        let device = rustix::fs::fstat(&dir)?.st_dev;
        let inline = Inline::of(&rustix::fs::fstatfs(&dir)?);
        let nature = Nature::of(&dir)?;
        Ok(Self {
            dir,
            file: None,
            given,
            canonical,
            permissions: Permissions::ALL,
            recursive: true,
            rule,
            device,
            nature,
            inline,
            steps: Steps::Kernel,
        })
    }

    #[cfg(test)]
    pub(crate) fn one_by_one(mut self) -> Self {
        self.steps = Steps::OneByOne;
        self
    }

    /// Whether it is a directory rather than a single file.
    pub(crate) fn is_dir(&self) -> bool {
        self.file.is_none()
    }

    /// What remains of `path` beneath one of the area's names.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let rest = path.strip_prefix(&self.given);
        rest.or_else(|_| path.strip_prefix(&self.canonical)).ok()
    }

    pub(crate) fn inline_for(&self, stat: &Stat) -> Inline {
        if stat.st_dev == self.device {
            self.inline
        } else {
            Inline::Never
        }
    }

    /// `path` as steps down from the handle.
    fn beneath<'a>(&'a self, path: &'a Path) -> Result<&'a Path, Errno> {
        match &self.file {
            None if path.as_os_str().is_empty() => Ok(Path::new(".")),
            None => Ok(path),
            Some(file) if path.as_os_str().is_empty() => Ok(Path::new(file)),
            Some(_) => Err(Errno::NOTDIR),
        }
    }

    /// What `found`, which lies beneath, is.
    pub(crate) fn nature(&self, found: impl AsFd, stat: &Stat) -> Result<Nature, Errno> {
        // Parts of procfs differ.
        if stat.st_dev == self.device && self.nature.keeps() {
            return Ok(self.nature);
        }
        Nature::of(found)
    }

    /// Opens what lies at `path`, if none of its steps is a link ([`Errno::LOOP`]
    /// otherwise), and if it is served for that purpose. With `PATH` and `NOFOLLOW`
    /// the last one may be a link, and stands for itself.
    pub(crate) fn open(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        purpose: Purpose,
    ) -> Result<OwnedFd, Fault> {
        let path = self.beneath(path)?;
        if self.nature == Nature::Storage {
            // What lies on the area's own mount is what the area is: most files
            // cost nothing more.
            match self.resolve(path, flags, mode, ResolveFlags::NO_XDEV) {
                Err(Errno::XDEV) => {}
                outcome => return Ok(outcome?),
            }
        }
        let none = ResolveFlags::empty();
        if !flags.intersects(OFlags::PATH | OFlags::DIRECTORY) {
            // To open it may do something by itself, so it is looked at before.
            match self.resolve(path, OFlags::PATH, Mode::empty(), none) {
                Ok(found) => self.admit(&found, flags, purpose)?,
                Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {
                    let parent = path.parent().filter(|parent| parent != &Path::new(""));
                    let parent = parent.unwrap_or(Path::new("."));
                    let parent = self.resolve(parent, flags_through(), Mode::empty(), none)?;
                    self.admit(&parent, OFlags::PATH, purpose)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let opened = self.resolve(path, flags, mode, none)?;
        self.admit(&opened, flags, purpose)?;
        Ok(opened)
    }

    /// Refuses what is not served, or not opened that way.
    fn admit(&self, found: &OwnedFd, flags: OFlags, purpose: Purpose) -> Result<(), Fault> {
        let stat = rustix::fs::fstat(found)?;
        let nature = self.nature(found, &stat)?;
        nature.admit(purpose)?;
        if flags.contains(OFlags::PATH) {
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => regular(&stat),
            _ => nature.admit_reading(&stat),
        }
    }

    /// Opens what lies at `path`, none of whose steps is a link, with `more` refused
    /// on the way; where only the kernel could do that and does not know how, as if
    /// there were a mount ([`Errno::XDEV`]).
    fn resolve(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        more: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        /// Once known, it is not tried again.
        static MISSING: AtomicBool = AtomicBool::new(false);
        let flags = flags | OFlags::CLOEXEC;
        let one_by_one = || match more.is_empty() {
            true => step_by_step(&self.dir, path, flags, mode),
            false => Err(Errno::XDEV),
        };
        if self.steps != Steps::Kernel || MISSING.load(Ordering::Relaxed) {
            return one_by_one();
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
        loop {
            return match rustix::fs::openat2(&self.dir, path, flags, mode, resolve) {
                Err(Errno::INTR) => continue,
                Err(errno) if lacks_openat2(errno) => {
                    MISSING.store(true, Ordering::Relaxed);
                    one_by_one()
                }
                outcome => outcome,
            };
        }
    }

    /// The text of a link; nothing when something else is there.
    pub(crate) fn read_link(&self, path: &Path) -> Result<Option<OsString>, Fault> {
        use std::os::unix::ffi::OsStringExt;

        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let at = self.open(path, flags, Mode::empty(), Purpose::Look)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let text = rustix::fs::readlinkat(&at, "", Vec::new())?;
        Ok(Some(OsString::from_vec(text.into_bytes())))
    }

    /// [`open`](Self::open), if every step is in the kernel's cache and the file
    /// system is a local one: no one has to be waited for.
    pub(crate) fn open_cached(&self, path: &Path, flags: OFlags) -> Result<(OwnedFd, Stat), Fault> {
        if self.inline == Inline::Never || self.steps != Steps::Kernel {
            return Err(Fault::WouldWait);
        }
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV
            | ResolveFlags::CACHED;
        let flags = flags | OFlags::CLOEXEC;
        let open = || {
            let path = self.beneath(path)?;
            let file = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve)?;
            let stat = rustix::fs::fstat(&file)?;
            Ok::<_, Errno>((file, stat))
        };
        // Whatever is in the way, the other way finds out what it is.
        open().map_err(|_| Fault::WouldWait)
    }
}

/// Opens what an absolute path names, if none of its steps is a link.
pub(crate) fn open_exactly(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR) => continue,
            Err(errno) if lacks_openat2(errno) => {
                let top = rustix::fs::openat(CWD, "/", flags_through(), Mode::empty())?;
                match path.strip_prefix("/") {
                    Ok(rest) if !rest.as_os_str().is_empty() => {
                        step_by_step(&top, rest, flags, Mode::empty())
                    }
                    _ => Ok(top),
                }
            }
            outcome => outcome,
        };
    }
}

/// For a directory that is only passed.
fn flags_through() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens one step after the other: for kernels without `openat2`. The steps are
/// plain names, so that refusing links is all there is to staying beneath.
fn step_by_step(dir: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let steps: Vec<&OsStr> = path.iter().collect();
    let Some((last, before)) = steps.split_last() else {
        return Err(Errno::NOENT);
    };
    let mut at: Option<OwnedFd> = None;
    let through = flags_through();
    for step in before {
        let next = {
            let from = at.as_ref().unwrap_or(dir);
            one_step(from, step, through, Mode::empty())?
        };
        at = Some(next);
    }
    let from = at.as_ref().unwrap_or(dir);
    let opened = one_step(from, last, flags | OFlags::NOFOLLOW, mode)?;
    // With `PATH`, not following a link is opening it.
    if flags.contains(OFlags::PATH) && !flags.contains(OFlags::NOFOLLOW) {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
        if kind == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    Ok(opened)
}

fn one_step(dir: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    if name == ".." || name.as_encoded_bytes().contains(&b'/') {
        return Err(Errno::XDEV);
    }
    match rustix::fs::openat(dir, name, flags, mode) {
        // The same errno as where a step is no directory.
        Err(Errno::NOTDIR) if rustix::fs::readlinkat(dir, name, Vec::new()).is_ok() => {
            Err(Errno::LOOP)
        }
        outcome => outcome,
    }
}

/// Refuses what is not a regular file.
pub(crate) fn regular(stat: &Stat) -> Result<(), Fault> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Fault::System(Errno::ISDIR)),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Fault::refused("neither a regular file nor a directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of resolving see the same: files, and links as links.
    #[test]
    fn no_step_may_be_a_link_with_and_without_openat2() {
        let base = tempfile::tempdir().expect("a directory");
        let at = |path: &str| base.path().join(path);
        std::fs::create_dir_all(at("a/b")).expect("directories");
        std::fs::write(at("a/b/file"), b"x").expect("a file");
        std::os::unix::fs::symlink("b", at("a/link")).expect("a link");
        std::os::unix::fs::symlink("file", at("a/b/last")).expect("a link");
        let top = base.path().canonicalize().expect("its name");
        for stepwise in [false, true] {
            let area = Area::take(
                top.clone(),
                RealPath::plain(&top),
                Permissions::ALL,
                true,
                "test".into(),
            )
            .expect("an area");
            let area = if stepwise { area.one_by_one() } else { area };
            let open_with = |path: &str, flags| {
                let opened = area.open(Path::new(path), flags, Mode::empty(), Purpose::Look);
                opened.map(drop).map_err(|fault| match fault {
                    Fault::System(errno) => errno,
                    Fault::Outside => Errno::XDEV,
                    fault => panic!("{fault:?}"),
                })
            };
            let open = |path: &str| open_with(path, OFlags::RDONLY | OFlags::NONBLOCK);
            assert_eq!(open("a/b/file"), Ok(()));
            assert_eq!(open(""), Ok(()));
            assert_eq!(open("a/link/file"), Err(Errno::LOOP));
            assert_eq!(open("a/b/last"), Err(Errno::LOOP));
            assert_eq!(open("a/b/file/x"), Err(Errno::NOTDIR));
            assert_eq!(open("a/missing/x"), Err(Errno::NOENT));
            assert_eq!(open("a/../../x"), Err(Errno::XDEV));
            let link = OFlags::PATH | OFlags::NOFOLLOW;
            assert_eq!(open_with("a/link", link), Ok(()));
            assert_eq!(open_with("a/link/b", link), Err(Errno::LOOP));
            assert_eq!(open_with("a/link", OFlags::PATH), Err(Errno::LOOP));
            let dir = OFlags::PATH | OFlags::DIRECTORY;
            assert_eq!(open_with("a/link", dir), Err(Errno::LOOP));
        }
    }
}
