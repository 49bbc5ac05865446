//! One directory tree that a plugin may reach, and how a path becomes a file
//! in it: always beneath the directory's handle, never by an ambient path.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, StatFs};
use rustix::io::{Errno, ReadWriteFlags};

use crate::fault::Fault;

/// The longest path of a request, in bytes: the kernel's own `PATH_MAX`.
pub(crate) const MAX_PATH: usize = 4096;

/// The most that is read on the thread of the connection itself, in bytes.
pub(crate) const INLINE: usize = 64 << 10;

const EXT4: u64 = 0xef53;
const BTRFS: u64 = 0x9123_683e;
const XFS: u64 = 0x5846_5342;
const F2FS: u64 = 0xf2f5_2010;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
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

/// A directory tree, held by its handle.
#[derive(Debug)]
pub(crate) struct Area {
    dir: Dir,
    /// The absolute names it goes by; a request may use any of them.
    names: Vec<PathBuf>,
    device: u64,
    inline: Inline,
}

/// A path within an area, not yet resolved.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) area: &'a Area,
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
}

/// What may be done in an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
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

    fn changes(self) -> bool {
        self.write || self.append || self.create || self.exclusive || self.truncate
    }
}

/// The last step of a path and the directory that it is taken in.
pub(crate) struct Entry {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

impl Area {
    pub(crate) fn new(dir: Dir, names: Vec<PathBuf>) -> Result<Self, Errno> {
        let device = rustix::fs::fstat(&dir)?.st_dev;
        let inline = Inline::of(&rustix::fs::fstatfs(&dir)?);
        Ok(Self {
            dir,
            names,
            device,
            inline,
        })
    }

    /// Its first name, for people.
    pub(crate) fn name(&self) -> &Path {
        self.names.first().map_or(Path::new("."), PathBuf::as_path)
    }

    /// What remains of the absolute, cleaned `path` beneath this directory.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.names
            .iter()
            .find_map(|name| path.strip_prefix(name).ok())
    }

    pub(crate) fn inline_for(&self, stat: &Stat) -> Inline {
        if stat.st_dev == self.device {
            self.inline
        } else {
            Inline::Never
        }
    }
}

impl Place<'_> {
    /// Refuses a change where only reading is granted.
    pub(crate) fn writable(&self) -> Result<(), Fault> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Fault::Refused("the granted directory is read-only")),
        }
    }

    /// The file name that replies show.
    pub(crate) fn file_name(&self) -> String {
        match self.path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => ".".into(),
        }
    }

    /// Opens a regular file. Anything else is refused without waiting for it.
    pub(crate) fn open(&self, how: Opening) -> Result<(File, Stat), Fault> {
        if how.changes() {
            self.writable()?;
        }
        let mut options = OpenOptions::new();
        options
            .read(how.read)
            .write(how.write)
            .append(how.append)
            .create(how.create)
            .create_new(how.exclusive)
            .truncate(how.truncate)
            .mode(how.mode)
            .custom_flags(custom(OFlags::NONBLOCK | OFlags::NOCTTY));
        let file = self
            .area
            .dir
            .open_with(path_or_dot(&self.path), &options)?
            .into_std();
        let stat = rustix::fs::fstat(&file)?;
        regular(&stat)?;
        Ok((file, stat))
    }

    /// [`open`](Self::open) for reading, but only if no one has to be waited
    /// for: every step is in the kernel's cache and the file system is local.
    pub(crate) fn open_cached(&self) -> Option<(OwnedFd, Stat)> {
        let (file, stat) =
            self.resolve_cached(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        regular(&stat).ok().map(|()| (file, stat))
    }

    /// The state of what the path leads to, if no one has to be waited for.
    pub(crate) fn stat_cached(&self) -> Option<Stat> {
        self.resolve_cached(OFlags::PATH).map(|(_, stat)| stat)
    }

    fn resolve_cached(&self, flags: OFlags) -> Option<(OwnedFd, Stat)> {
        if self.area.inline == Inline::Never {
            return None;
        }
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV
            | ResolveFlags::CACHED;
        let path = path_or_dot(&self.path);
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&self.area.dir, path, flags, Mode::empty(), resolve).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        Some((file, stat))
    }

    /// What the path leads to, by a handle that can only be asked and changed
    /// as an inode.
    pub(crate) fn inode(&self) -> Result<OwnedFd, Fault> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(custom(OFlags::PATH));
        Ok(self
            .area
            .dir
            .open_with(path_or_dot(&self.path), &options)?
            .into_std()
            .into())
    }

    /// A directory, opened for listing.
    pub(crate) fn directory(&self) -> Result<OwnedFd, Fault> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(custom(
            OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::NOCTTY,
        ));
        Ok(self
            .area
            .dir
            .open_with(path_or_dot(&self.path), &options)?
            .into_std()
            .into())
    }

    /// The directory that holds the path's last step, and that step's name;
    /// nothing when the path is the granted directory itself.
    ///
    /// Calls on a single name do not follow it, so a link put in its place
    /// changes nothing.
    pub(crate) fn entry(&self) -> Result<Option<Entry>, Fault> {
        let mut steps = self.path.components();
        let name = match steps.next_back() {
            None | Some(Component::CurDir) => return Ok(None),
            Some(Component::Normal(name)) => name.to_owned(),
            Some(Component::ParentDir | Component::RootDir | Component::Prefix(_)) => {
                return Err(Fault::System(Errno::INVAL));
            }
        };
        let parent = self.area.dir.open_dir(path_or_dot(steps.as_path()))?;
        Ok(Some(Entry {
            parent: parent.into_std_file().into(),
            name,
        }))
    }

    /// [`entry`](Self::entry) for a change that cannot be made to the granted
    /// directory itself.
    pub(crate) fn entry_to_change(&self) -> Result<Entry, Fault> {
        self.writable()?;
        self.entry()?.ok_or(Fault::Refused(
            "the granted directory itself cannot be replaced",
        ))
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

/// Writes all of `data` at `offset`.
pub(crate) fn write_full(file: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = &data[written..];
                offset = offset.checked_add(written as u64).ok_or(Errno::FBIG)?;
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
        | FileType::Unknown => Err(Fault::Refused("neither a regular file nor a directory")),
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
/// resolved by the kernel.
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

fn path_or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(OsStr::new("."))
    } else {
        path
    }
}

fn custom(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
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
}
