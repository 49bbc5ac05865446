//! One granted directory tree or file, held by its handle, and how a path
//! becomes a file in it: by steps that are never links, beneath the handle.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_manifest::Permissions;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatFs};
use rustix::io::{Errno, ReadWriteFlags};

use super::calls::lacks_openat2;
use super::kernel::{Nature, Purpose};
use crate::fault::Fault;
use crate::places::{Astray, Place as Leads};

/// The longest path of a request, in bytes: the kernel's own `PATH_MAX`.
pub(crate) const MAX_PATH: usize = 4096;

/// The most that is read on the thread of the connection itself, in bytes.
pub(crate) const INLINE: usize = 64 << 10;

const EXT4: u64 = 0xef53;
const BTRFS: u64 = 0x9123_683e;
const XFS: u64 = 0x5846_5342;
const F2FS: u64 = 0xf2f5_2010;
pub(super) const TMPFS: u64 = 0x0102_1994;
pub(super) const RAMFS: u64 = 0x8584_58f6;
const OVERLAY: u64 = 0x794c_7630;

/// Whether a read may happen without a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inline {
    /// When the kernel can promise not to wait (`RWF_NOWAIT`).
    IfCached,
    /// Always: the file system is memory, or sits on one that is local.
    Always,
    /// Not at all: a server or a program may be behind the file system.
    Never,
}

impl Inline {
    /// Only file systems known to be local take part; whatever is unknown may
    /// wait for someone and gets a thread.
    fn of(file_system: &StatFs) -> Self {
        match file_system.f_type as u64 {
            EXT4 | BTRFS | XFS | F2FS => Self::IfCached,
            TMPFS | RAMFS | OVERLAY => Self::Always,
            _ => Self::Never,
        }
    }
}

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
    dir: OwnedFd,
    /// The only name in `dir` that belongs to it, when a file was granted.
    file: Option<OsString>,
    /// The absolute name that the grant gives it, without `.` and `..`.
    pub(crate) given: PathBuf,
    /// The absolute name that it had, without links, when it was taken.
    pub(crate) canonical: PathBuf,
    pub(crate) permissions: Permissions,
    pub(crate) recursive: bool,
    /// Which rule grants it, for records.
    pub(crate) rule: Arc<str>,
    device: u64,
    nature: Nature,
    inline: Inline,
    steps: Steps,
}

/// A place within an area: steps down from its handle, none of which may be a
/// link when it is used.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) area: Arc<Area>,
    /// Plain names only; empty for the area itself.
    pub(crate) path: PathBuf,
    /// The request spelled it as a directory.
    pub(crate) dir_only: bool,
    /// What it is for: not everything may be changed that may be looked at.
    pub(crate) purpose: Purpose,
}

/// How a regular file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) mode: u32,
}

impl Opening {
    pub(crate) const READ: Self = Self {
        read: true,
        write: false,
        append: false,
        create: false,
        exclusive: false,
        truncate: false,
        mode: 0,
    };

    /// Whether contents can be changed through it.
    pub(crate) fn writes(self) -> bool {
        self.write || self.append
    }

    /// What must be granted, apart from making the file.
    pub(crate) fn needs(self) -> Permissions {
        let mut needs = Permissions::NONE;
        if self.read {
            needs |= Permissions::READ;
        }
        if self.writes() || self.truncate {
            needs |= Permissions::WRITE;
        }
        needs
    }

    fn flags(self) -> OFlags {
        let access = match (self.read, self.writes()) {
            (_, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (true, true) => OFlags::RDWR,
        };
        let mut flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Emptying comes after the file was judged.
        flags.set(OFlags::APPEND, self.append);
        flags.set(OFlags::CREATE, self.create || self.exclusive);
        flags.set(OFlags::EXCL, self.exclusive);
        flags
    }
}

/// The last step of a path and the directory that it is taken in.
pub(crate) struct Entry {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

impl Area {
    /// Takes what is at `place`, where the absolute `given` leads; no link is
    /// followed any more. A file that does not exist is taken by its directory.
    pub(crate) fn take(
        given: PathBuf,
        place: Leads,
        permissions: Permissions,
        recursive: bool,
        rule: Arc<str>,
    ) -> Result<Self, Astray> {
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
                    return Err(Astray::Closed(why));
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

    /// How deep `path` is beneath one of the area's names, and what remains.
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
    fn open_cached(&self, path: &Path, flags: OFlags) -> Option<(OwnedFd, Stat)> {
        if self.inline == Inline::Never || self.steps != Steps::Kernel {
            return None;
        }
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV
            | ResolveFlags::CACHED;
        let path = self.beneath(path).ok()?;
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        Some((file, stat))
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

impl Place {
    /// The file name that replies show.
    pub(crate) fn file_name(&self) -> String {
        let name = self.path.file_name().or(match &self.area.file {
            Some(file) => Some(file.as_os_str()),
            None => None,
        });
        match name {
            Some(name) => name.to_string_lossy().into_owned(),
            None => ".".into(),
        }
    }

    /// Its absolute name, as the grant spells it.
    pub(crate) fn spelled(&self) -> PathBuf {
        joined(&self.area.given, &self.path)
    }

    /// Its absolute name without links, as it was when the area was taken.
    pub(crate) fn canonical(&self) -> PathBuf {
        joined(&self.area.canonical, &self.path)
    }

    /// Opens a regular file. Anything else is refused without waiting for it.
    /// `judge` sees the file before it is emptied.
    pub(crate) fn open(
        &self,
        how: Opening,
        judge: impl FnOnce(&Stat) -> Result<(), Fault>,
    ) -> Result<(File, Stat), Fault> {
        let mode = Mode::from_raw_mode(how.mode & 0o777);
        let mode = if how.create || how.exclusive {
            mode
        } else {
            Mode::empty()
        };
        let file = self
            .area
            .open(&self.path, how.flags(), mode, self.purpose)?;
        let file = File::from(file);
        let mut stat = rustix::fs::fstat(&file)?;
        regular(&stat)?;
        if self.dir_only {
            return Err(Fault::System(Errno::NOTDIR));
        }
        judge(&stat)?;
        if how.truncate && stat.st_size != 0 {
            rustix::fs::ftruncate(&file, 0)?;
            stat.st_size = 0;
        }
        Ok((file, stat))
    }

    /// [`open`](Self::open) for reading, but only if no one has to be waited for.
    pub(crate) fn open_cached(&self) -> Option<(OwnedFd, Stat)> {
        if self.dir_only {
            return None;
        }
        if self.area.nature == Nature::Devices {
            // To open one may do something by itself.
            let (_, stat) = self.area.open_cached(&self.path, OFlags::PATH)?;
            regular(&stat).ok()?;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (file, stat) = self.area.open_cached(&self.path, flags)?;
        regular(&stat).ok().map(|()| (file, stat))
    }

    /// The state of what is there, if no one has to be waited for.
    pub(crate) fn stat_cached(&self) -> Option<Stat> {
        let (_, stat) = self.area.open_cached(&self.path, self.inode_flags())?;
        Some(stat)
    }

    fn inode_flags(&self) -> OFlags {
        if self.dir_only {
            OFlags::PATH | OFlags::DIRECTORY
        } else {
            OFlags::PATH
        }
    }

    /// What is there, by a handle that can only be asked and changed as an inode.
    pub(crate) fn inode(&self) -> Result<OwnedFd, Fault> {
        let flags = self.inode_flags();
        self.area
            .open(&self.path, flags, Mode::empty(), self.purpose)
    }

    /// What is there, a link standing for itself.
    pub(crate) fn link_inode(&self) -> Result<OwnedFd, Fault> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let inode = self
            .area
            .open(&self.path, flags, Mode::empty(), self.purpose)?;
        if self.dir_only {
            self.spelled_for(&rustix::fs::fstat(&inode)?)?;
        }
        Ok(inode)
    }

    /// Refuses a spelling that ends in a slash for what is not a directory. A
    /// link stands for itself however it is spelled.
    pub(crate) fn spelled_for(&self, found: &Stat) -> Result<(), Errno> {
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory | FileType::Symlink => Ok(()),
            _ if self.dir_only => Err(Errno::NOTDIR),
            _ => Ok(()),
        }
    }

    /// Whether `held` is what lies here now.
    pub(crate) fn still_is(&self, held: impl AsFd) -> Result<bool, Fault> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        match self.inode() {
            Ok(now) => Ok(identity(rustix::fs::fstat(now)?) == identity(rustix::fs::fstat(held)?)),
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) | Fault::Outside) => {
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether what was opened here is contents that someone keeps, rather than what
    /// the kernel tells.
    pub(crate) fn keeps(&self, file: impl AsFd, stat: &Stat) -> Result<bool, Errno> {
        Ok(self.area.nature(file, stat)?.keeps())
    }

    /// A directory, opened for listing.
    pub(crate) fn directory(&self) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.area
            .open(&self.path, flags, Mode::empty(), self.purpose)
    }

    /// The directory that holds the path's last step, and that step's name;
    /// nothing when the path is the granted directory itself.
    ///
    /// Calls on a single name do not follow it, so a link put in its place
    /// changes nothing.
    pub(crate) fn entry(&self) -> Result<Option<Entry>, Fault> {
        let (parent, name) = match (&self.area.file, self.path.file_name()) {
            (None, None) => return Ok(None),
            (None, Some(name)) => (self.path.parent().unwrap_or(Path::new("")), name),
            (Some(_), Some(_)) => return Err(Fault::System(Errno::NOTDIR)),
            (Some(file), None) => {
                self.area.nature.admit(self.purpose)?;
                let parent = self.area.dir.as_fd().try_clone_to_owned();
                let parent =
                    parent.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let name = file.clone();
                return Ok(Some(Entry { parent, name }));
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok(Some(Entry {
            parent: (self.area).open(parent, flags, Mode::empty(), self.purpose)?,
            name: name.to_owned(),
        }))
    }
}

/// Reads at `offset` until `buffer` is full or the file ends, without waiting.
/// Nothing is returned when that needs someone to be waited for.
pub(crate) fn read_inline(
    file: impl AsFd,
    buffer: &mut [u8],
    offset: u64,
    inline: Inline,
) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let (rest, at) = (&mut buffer[filled..], offset.checked_add(filled as u64)?);
        let read = match inline {
            Inline::Never => return None,
            Inline::Always => rustix::io::pread(&file, rest, at),
            Inline::IfCached => {
                let mut rest = [std::io::IoSliceMut::new(rest)];
                rustix::io::preadv2(&file, &mut rest, at, ReadWriteFlags::NOWAIT)
            }
        };
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(filled)
}

/// Reads at `offset` until `buffer` is full or the file ends.
pub(crate) fn read_full(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset.checked_add(filled as u64).ok_or(Errno::INVAL)?;
        match rustix::io::pread(&file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Writes all of `data` at `offset`; `written` says how far it came.
pub(crate) fn write_full(
    file: impl AsFd,
    data: &[u8],
    offset: u64,
    written: &mut u64,
) -> Result<(), Errno> {
    let mut rest = data;
    while !rest.is_empty() {
        let at = offset.checked_add(*written).ok_or(Errno::FBIG)?;
        match rustix::io::pwrite(&file, rest, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                rest = &rest[count..];
                *written += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
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

/// `rest` beneath `top`; `top` itself, without a slash, when there is no rest.
pub(crate) fn joined(top: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        top.to_owned()
    } else {
        top.join(rest)
    }
}

/// Refuses texts that cannot be a path at all.
pub(crate) fn check_path(path: &str) -> Result<(), Fault> {
    if path.len() >= MAX_PATH {
        return Err(Fault::System(Errno::NAMETOOLONG));
    }
    if path.contains('\0') {
        return Err(Fault::System(Errno::INVAL));
    }
    Ok(())
}

/// `path` without `.`, `..` and doubled slashes, by its text alone, as Go's
/// `filepath.Clean` does it. For matching names only: what is opened is
/// resolved step by step.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for step in path.components() {
        match step {
            Component::ParentDir if cleaned.parent().is_some() => {
                cleaned.pop();
            }
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => cleaned.push(step),
        }
    }
    cleaned
}

/// Whether the steps of a relative path, taken by their text, ever leave the
/// directory where they start.
pub(crate) fn leaves_start(path: &Path) -> bool {
    let mut depth = 0_usize;
    for step in path.components() {
        match step {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cleaned_by_its_text() {
        assert_eq!(clean(Path::new("/a/./b//../c/")), Path::new("/a/c"));
        assert_eq!(clean(Path::new("/../../etc")), Path::new("/etc"));
    }

    #[test]
    fn steps_above_their_start_are_noticed() {
        for inside in ["", ".", "a/..", "a/../b", "./a/b/../.."] {
            assert!(!leaves_start(Path::new(inside)), "{inside}");
        }
        for outside in ["..", "a/../..", "a/../../a", "/a"] {
            assert!(leaves_start(Path::new(outside)), "{outside}");
        }
    }

    #[test]
    fn texts_that_are_no_path_are_refused_before_the_kernel_sees_them() {
        assert!(matches!(
            check_path("a\0b"),
            Err(Fault::System(Errno::INVAL))
        ));
        let deep = "a/".repeat(10_000);
        assert!(matches!(
            check_path(&deep),
            Err(Fault::System(Errno::NAMETOOLONG))
        ));
    }

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
                Leads::plain(&top),
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
