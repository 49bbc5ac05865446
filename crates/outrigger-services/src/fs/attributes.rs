//! What is known of a file beside its contents, and how that is changed.

use std::os::fd::{AsRawFd, OwnedFd};

use outrigger_manifest::Permissions;
use prost_types::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::area::regular;
use super::call::{FileCall, Ownership};
use super::mode;
use super::requested_path::RequestedPath;
use super::resolve::Follow;
use super::rights::Required;
use crate::fault::Fault;

const WRITE: Required = Required::All(Permissions::WRITE);

/// What is said of something by its name.
pub(crate) struct NamedStat {
    pub(crate) name: String,
    pub(crate) stat: Stat,
}

/// Owners to give; nothing where they stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    uid: Option<Uid>,
    gid: Option<Gid>,
}

impl Owners {
    /// The owners that a plugin asks for, where they may be given.
    pub(crate) fn new(call: &FileCall, uid: Option<u32>, gid: Option<u32>) -> Result<Self, Fault> {
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Fault::System(Errno::INVAL));
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        let own = uid.is_none_or(|uid| uid == rustix::process::geteuid())
            && gid.is_none_or(|gid| gid == rustix::process::getegid());
        match call.files.settings.ownership {
            Ownership::Anyone => Ok(Self { uid, gid }),
            Ownership::Host if own => Ok(Self { uid, gid }),
            Ownership::Host => Err(Fault::refused("giving files to others is not granted")),
        }
    }

    pub(crate) fn give(self, file: &OwnedFd) -> Result<(), Fault> {
        Ok(rustix::fs::fchown(file, self.uid, self.gid)?)
    }
}

/// Times to set. A time that is not given stays.
pub(crate) fn times(
    accessed: Option<&Timestamp>,
    modified: Option<&Timestamp>,
) -> Result<Timestamps, Fault> {
    let timespec = |time: Option<&Timestamp>| match time {
        None => Ok(Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        }),
        Some(Timestamp {
            seconds,
            nanos: nanos @ 0..1_000_000_000,
        }) => Ok(Timespec {
            tv_sec: *seconds,
            tv_nsec: (*nanos).into(),
        }),
        Some(_) => Err(Fault::abuse("`nanos` is not within a second")),
    };
    Ok(Timestamps {
        last_access: timespec(accessed)?,
        last_modification: timespec(modified)?,
    })
}

/// A mode that a plugin may set: permission bits only. Others lend authority.
pub(crate) fn mode_to_set(special: bool, mode: u32) -> Result<Mode, Fault> {
    if special {
        return Err(Fault::refused(
            "set-user-id, set-group-id and sticky bits are not granted",
        ));
    }
    Ok(mode::permissions(mode))
}

/// Sets the times of an inode, whatever was granted to open it.
pub(crate) fn set_times(inode: &OwnedFd, times: &Timestamps) -> Result<(), Fault> {
    Ok(rustix::fs::utimensat(
        inode,
        "",
        times,
        AtFlags::EMPTY_PATH,
    )?)
}

impl FileCall {
    pub(crate) fn stat(&self, wanted: &RequestedPath) -> Result<NamedStat, Fault> {
        self.reach(wanted, Follow::Yes, Required::Known, |place| {
            let stat = match self.may_wait {
                true => rustix::fs::fstat(place.inode()?)?,
                false => place.stat_cached()?,
            };
            let name = place.file_name();
            Ok(NamedStat { name, stat })
        })
    }

    pub(crate) fn lstat(&self, wanted: &RequestedPath) -> Result<NamedStat, Fault> {
        self.reach(wanted, Follow::No, Required::Known, |place| {
            let (name, inode) = (place.file_name(), place.link_inode()?);
            let stat = rustix::fs::fstat(inode)?;
            Ok(NamedStat { name, stat })
        })
    }

    pub(crate) fn exists(&self, wanted: &RequestedPath) -> Result<bool, Fault> {
        match self.stat(wanted) {
            Ok(_) => Ok(true),
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) fn chmod(&self, wanted: &RequestedPath, mode: Mode) -> Result<(), Fault> {
        self.reach(wanted, Follow::Yes, WRITE, |place| {
            let inode = self.inode_to_change(place.inode()?)?;
            // A handle for the inode alone takes no chmod; its name under /proc
            // does, and means this inode whatever happens to the path.
            let name = format!("/proc/self/fd/{}", inode.as_raw_fd());
            Ok(rustix::fs::chmod(name, mode)?)
        })
    }

    pub(crate) fn chown(
        &self,
        wanted: &RequestedPath,
        owners: Owners,
        follow: Follow,
    ) -> Result<(), Fault> {
        self.reach(wanted, follow, WRITE, |place| {
            let inode = match follow {
                Follow::Yes => self.inode_to_change(place.inode()?)?,
                Follow::No => {
                    let inode = place.link_inode()?;
                    let stat = rustix::fs::fstat(&inode)?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Symlink => inode,
                        _ => self.inode_to_change(inode)?,
                    }
                }
            };
            let flags = AtFlags::EMPTY_PATH;
            Ok(rustix::fs::chownat(
                inode, "", owners.uid, owners.gid, flags,
            )?)
        })
    }

    pub(crate) fn chtimes(&self, wanted: &RequestedPath, times: &Timestamps) -> Result<(), Fault> {
        self.reach(wanted, Follow::Yes, WRITE, |place| {
            set_times(&self.inode_to_change(place.inode()?)?, times)
        })
    }

    /// An inode whose attributes may be changed: a directory, or a file with
    /// one name.
    fn inode_to_change(&self, inode: OwnedFd) -> Result<OwnedFd, Fault> {
        let stat = rustix::fs::fstat(&inode)?;
        match regular(&stat) {
            Ok(()) | Err(Fault::System(Errno::ISDIR)) => {}
            Err(fault) => return Err(fault),
        }
        self.one_name(&stat)?;
        Ok(inode)
    }
}
