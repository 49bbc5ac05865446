//! A place within a granted area, and how what lies there is opened.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::Permissions;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::area::{Area, regular};
use super::fallbacks::Entry;
use super::kernel::{Nature, Purpose};
use super::paths::joined;
use crate::fault::Fault;

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
    pub(crate) fn open_cached(&self) -> Result<(File, Stat), Fault> {
        if self.dir_only {
            return Err(Fault::WouldWait);
        }
        if self.area.nature == Nature::Devices {
            // To open one may do something by itself.
            let (_, stat) = self.area.open_cached(&self.path, OFlags::PATH)?;
            regular(&stat).map_err(|_| Fault::WouldWait)?;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (file, stat) = self.area.open_cached(&self.path, flags)?;
        regular(&stat).map_err(|_| Fault::WouldWait)?;
        Ok((file.into(), stat))
    }

    /// The state of what is there, if no one has to be waited for.
    pub(crate) fn stat_cached(&self) -> Result<Stat, Fault> {
        let (_, stat) = self.area.open_cached(&self.path, self.inode_flags())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Err(Fault::WouldWait),
            _ => Ok(stat),
        }
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
