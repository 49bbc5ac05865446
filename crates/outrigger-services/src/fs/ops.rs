//! The operations on paths, for whichever contract asks for them.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_manifest::Permissions;
use outrigger_transport::tree::{self, Obstacles};
use prost_types::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
    Uid,
};
use rustix::io::Errno;

use super::area::{self, Entry, INLINE, Opening, Place};
use super::kernel::Purpose;
use super::open::{self, size};
use super::{ATTEMPTS, Cx, Follow, Kept, Needs, Put, Wanted, calls, mode, temp};
use crate::fault::Fault;
use crate::granted::Ownership;
use crate::session::Notes;

const WRITE: Needs = Needs::All(Permissions::WRITE);
const CREATE: Needs = Needs::All(Permissions::CREATE);
const DELETE: Needs = Needs::All(Permissions::DELETE);
/// How much is copied before anyone is asked whether to go on, in bytes.
const PORTION: usize = 8 << 20;
/// How much is copied through memory at a time, in bytes.
const BUFFER: usize = 1 << 20;
/// How often whoever waits looks whether the call is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

/// What is said of something by its name.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) stat: Stat,
}

/// Whether something may be put in the place of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    No,
    Yes,
}

impl Replace {
    pub(crate) fn from_flag(replace: bool) -> Self {
        if replace { Self::Yes } else { Self::No }
    }
}

/// Owners to give; nothing where they stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    uid: Option<Uid>,
    gid: Option<Gid>,
}

impl Owners {
    /// The owners that a plugin asks for, where they may be given.
    pub(crate) fn new(cx: &Cx, uid: Option<u32>, gid: Option<u32>) -> Result<Self, Fault> {
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Fault::System(Errno::INVAL));
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        let own = uid.is_none_or(|uid| uid == rustix::process::geteuid())
            && gid.is_none_or(|gid| gid == rustix::process::getegid());
        match cx.session.shared().ownership {
            Ownership::Any => Ok(Self { uid, gid }),
            Ownership::Own if own => Ok(Self { uid, gid }),
            Ownership::Own => Err(Fault::refused("giving files to others is not granted")),
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

impl Cx {
    pub(crate) fn stat_now(&self, wanted: &Wanted) -> Option<Result<Known, Fault>> {
        self.reach_now(wanted, Needs::Know, |place| {
            let (name, stat) = (place.file_name(), place.stat_cached()?);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return None;
            }
            Some(Known { name, stat })
        })
    }

    pub(crate) fn stat(&self, wanted: &Wanted) -> Result<Known, Fault> {
        self.reach(wanted, Follow::Yes, Needs::Know, |place| {
            let (name, inode) = (place.file_name(), place.inode()?);
            let stat = rustix::fs::fstat(inode)?;
            Ok(Known { name, stat })
        })
    }

    pub(crate) fn lstat(&self, wanted: &Wanted) -> Result<Known, Fault> {
        self.reach(wanted, Follow::No, Needs::Know, |place| {
            let (name, inode) = (place.file_name(), place.link_inode()?);
            let stat = rustix::fs::fstat(inode)?;
            Ok(Known { name, stat })
        })
    }

    pub(crate) fn exists(&self, wanted: &Wanted) -> Result<bool, Fault> {
        match self.stat(wanted) {
            Ok(_) => Ok(true),
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    pub(crate) fn read_link(&self, wanted: &Wanted) -> Result<String, Fault> {
        let target = self.reach(wanted, Follow::No, Needs::Know, |place| {
            let entry = place.entry()?.ok_or(Fault::System(Errno::INVAL))?;
            Ok(rustix::fs::readlinkat(
                &entry.parent,
                &entry.name,
                Vec::new(),
            )?)
        })?;
        let target = target.into_string();
        target.map_err(|_| Fault::failed("the link's text is not UTF-8"))
    }

    /// Reads a small file whose path and contents the kernel has at hand.
    pub(crate) fn read_file_now(&self, wanted: &Wanted) -> Option<Result<Vec<u8>, Fault>> {
        if let Err(fault) = self.session.may_move() {
            return Some(Err(fault));
        }
        let most = INLINE.min(self.session.limits().whole_file);
        let read = self.reach_now(wanted, Needs::All(Permissions::READ), |place| {
            let (file, stat) = place.open_cached()?;
            let size = usize::try_from(size(&stat)).ok()?;
            if size > most || size == 0 {
                return None;
            }
            let mut contents = vec![0; size];
            let inline = place.area.inline_for(&stat);
            let read = area::read_inline(&file, &mut contents, 0, inline)?;
            contents.truncate(read);
            Some(contents)
        })?;
        if let Ok(contents) = &read {
            self.read(contents.len() as u64);
        }
        Some(read)
    }

    /// Reads a file that fits into a reply; `instead` says what to use for a
    /// larger one.
    pub(crate) fn read_file(&self, wanted: &Wanted, instead: &str) -> Result<Vec<u8>, Fault> {
        self.session.may_move()?;
        let (file, _, stat) = self.open(wanted, Opening::READ)?;
        let limit = self.session.limits().whole_file;
        let too_large = || {
            let text = format!("the file is larger than {limit} bytes; {instead}");
            Err(Fault::failed_as(
                "file-too-large",
                tonic::Code::FailedPrecondition,
                text,
            ))
        };
        let size = usize::try_from(size(&stat)).unwrap_or(usize::MAX);
        if size > limit {
            return too_large();
        }
        let mut contents = Vec::with_capacity(size + 1);
        // The size is a hint only: a file may grow, and some have none.
        file.take(limit as u64 + 1).read_to_end(&mut contents)?;
        if contents.len() > limit {
            return too_large();
        }
        self.read(contents.len() as u64);
        Ok(contents)
    }

    /// Writes all of `data` to a file that is opened for it.
    pub(crate) fn write_file(
        &self,
        wanted: &Wanted,
        how: Opening,
        data: &[u8],
    ) -> Result<u64, Fault> {
        let length = data.len() as u64;
        self.session.may_move()?;
        self.session.charge(length);
        // Before the file is made or emptied.
        self.session.reserve(length)?;
        self.session.release(length);
        let keeping = Opening {
            truncate: false,
            ..how
        };
        let (file, place, stat) = self.open(wanted, keeping)?;
        let freed = match how.truncate {
            true => temp::on_disk(stat.st_blocks),
            false => 0,
        };
        // What it holds is given up when there is room for what comes.
        self.write_over(length, freed, self.kept(&place.area), |written| {
            if how.truncate {
                rustix::fs::ftruncate(&file, 0)?;
            }
            Ok(area::write_full(&file, data, 0, written)?)
        })?;
        Ok(size(&rustix::fs::fstat(&file)?))
    }

    pub(crate) fn truncate(&self, wanted: &Wanted, to: u64) -> Result<(), Fault> {
        let how = Opening {
            write: true,
            ..Opening::default()
        };
        let (file, place, _) = self.open(wanted, how)?;
        open::resize(self, &file.into(), self.kept(&place.area), to)
    }

    /// Copies a file's contents and permission bits.
    pub(crate) fn copy(&self, from: &Wanted, to: &Wanted, replace: Replace) -> Result<u64, Fault> {
        let (source, _, stat) = self.open(from, Opening::READ)?;
        let how = Opening {
            write: true,
            create: replace == Replace::Yes,
            exclusive: replace == Replace::No,
            mode: stat.st_mode & 0o777,
            ..Opening::default()
        };
        let whole = size(&stat);
        self.session.reserve(whole)?;
        self.session.release(whole);
        let (target, place, target_stat) = self.open(to, how)?;
        let kept = self.kept(&place.area);
        if (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino) {
            return Err(Fault::abuse("both are the same file"));
        }
        // Its contents are given up only for others that there is room for.
        drop(self.room(whole, temp::on_disk(target_stat.st_blocks), kept)?);
        rustix::fs::ftruncate(&target, 0)?;
        let (until, mut copied) = (self.until(), 0_u64);
        loop {
            self.notes.check()?;
            if Instant::now() >= until {
                return Err(Fault::Deadline);
            }
            self.pace_blocking(until)?;
            // The size is a hint only: a file may grow, and some have none.
            let ask = match usize::try_from(whole.saturating_sub(copied)) {
                Ok(0) if area::read_full(&source, &mut [0], copied)? == 0 => return Ok(copied),
                Ok(0) => BUFFER,
                Ok(rest) => rest.min(PORTION),
                Err(_) => PORTION,
            };
            if kept == Kept::InTemp && rustix::fs::fstat(&target)?.st_nlink == 0 {
                // It was removed, and would take room that nobody finds.
                return Err(Fault::System(Errno::NOENT));
            }
            let portion = self.write(ask as u64, kept, |written| {
                copy_portion(&source, &target, copied, ask, written)?;
                Ok(*written)
            })?;
            if portion == 0 {
                return Ok(copied);
            }
            self.session.charge(portion);
            copied += portion;
        }
    }

    /// Waits on this thread until bytes may be moved again.
    fn pace_blocking(&self, until: Instant) -> Result<(), Fault> {
        while let Some(wait) = self.session.owes_bytes() {
            self.notes.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Fault::Deadline);
            }
            std::thread::sleep(wait.min(left).min(GLANCE));
        }
        Ok(())
    }

    pub(crate) fn mkdir(&self, wanted: &Wanted, perm: Mode) -> Result<(), Fault> {
        self.reach(wanted, Follow::No, CREATE, |place| {
            let entry = place.entry()?.ok_or_else(there)?;
            self.may_lie(place, Put::NewDirectory)?;
            Ok(rustix::fs::mkdirat(&entry.parent, &entry.name, perm)?)
        })
    }

    /// Makes what is missing on the way as well.
    pub(crate) fn mkdir_all(&self, wanted: &Wanted, perm: Mode) -> Result<(), Fault> {
        for prefix in self.prefixes(wanted, CREATE)? {
            match self.mkdir(&prefix, perm) {
                Ok(()) | Err(Fault::System(Errno::EXIST)) => {}
                Err(fault) => return Err(fault),
            }
        }
        // What was there already must be a directory.
        self.reach(wanted, Follow::Yes, CREATE, |place| {
            let stat = rustix::fs::fstat(place.inode()?)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Ok(()),
                _ => Err(Fault::System(Errno::NOTDIR)),
            }
        })
    }

    /// Nothing is moved to where more may be done with it, and nothing is
    /// replaced where that is not granted.
    pub(crate) fn rename(&self, from: &Wanted, to: &Wanted, replace: Replace) -> Result<(), Fault> {
        let both = Needs::All(Permissions::CREATE | Permissions::DELETE);
        let find = || {
            let from = self.end(from, DELETE, fixed)?;
            let (to, denied) = match replace {
                Replace::No => (self.end(to, CREATE, fixed)?, None),
                Replace::Yes => match self.end(to, both, fixed) {
                    Ok(end) => return Ok((from, end, (RenameFlags::empty(), None))),
                    Err(Fault::Denied(denial)) => (self.end(to, CREATE, fixed)?, Some(denial)),
                    Err(fault) => return Err(fault),
                },
            };
            Ok((from, to, (RenameFlags::NOREPLACE, denied)))
        };
        self.both_ends(find, |from, to, (flags, denied)| {
            self.holds_no_grant(&from.place)?;
            self.holds_no_grant(&to.place)?;
            self.gains_nothing(&from.place, &to.place)?;
            let kind = from.kind()?;
            self.may_lie(&to.place, Put::Moved(kind))?;
            if to.place.dir_only && kind != FileType::Directory {
                return Err(Fault::System(Errno::NOTDIR));
            }
            let (from, to) = (&from.entry, &to.entry);
            match (calls::rename(from, to, flags), denied) {
                (Err(Errno::EXIST), Some(denial)) => Err(Fault::Denied(denial)),
                (outcome, _) => outcome.map_err(Fault::System),
            }
        })
    }

    /// The last step of a path that an operation on two of them uses.
    /// `top` is what is said when that is a granted directory itself.
    fn end(&self, wanted: &Wanted, needs: Needs, top: impl Fn() -> Fault) -> Result<End, Fault> {
        self.reach(wanted, Follow::No, needs, |place| {
            Ok(End {
                place: place.clone(),
                entry: place.entry()?.ok_or_else(&top)?,
            })
        })
    }

    /// Finds two ends, and acts on both while nothing is moved.
    ///
    /// Finding takes as long as a plugin makes it: meanwhile it may move what
    /// was found first, and then other things into that. So both are looked up
    /// again, by the very names that are judged, once nothing is moved.
    ///
    /// Both are on one device, or the second one's storage would decide how long
    /// everyone waits who moves something on the first one's.
    fn both_ends<X, T>(
        &self,
        find: impl Fn() -> Result<(End, End, X), Fault>,
        act: impl FnOnce(&End, &End, X) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        for _ in 0..ATTEMPTS {
            self.notes.check()?;
            let (mut one, mut other, more) = find()?;
            let device = one.device_with(&other)?;
            let _nothing_is_moved = moving(device, &self.notes, self.until())?;
            match one.look_again().and_then(|()| other.look_again()) {
                Ok(()) if one.device_with(&other)? == device => return act(&one, &other, more),
                // There is a link on the way, or a mount, that was not there before.
                Ok(()) | Err(Fault::System(Errno::LOOP)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::System(Errno::BUSY))
    }

    /// Removes a file, a link or an empty directory.
    pub(crate) fn remove(&self, wanted: &Wanted) -> Result<(), Fault> {
        self.reach(wanted, Follow::No, DELETE, |place| {
            let entry = entry_to_remove(place)?;
            self.holds_no_grant(place)?;
            remove_one(&entry)
        })
    }

    /// Removes a tree. Nothing there is fine too.
    pub(crate) fn remove_all(&self, wanted: &Wanted) -> Result<(), Fault> {
        let removed = self.reach(wanted, Follow::No, DELETE, |place| {
            let entry = entry_to_remove(place)?;
            self.holds_no_grant(place)?;
            let beneath = Place {
                path: place.path.join("x"),
                ..place.clone()
            };
            if !self.rights(&beneath).contains(Permissions::DELETE) {
                // What is in it is not granted: it must be empty.
                return remove_one(&entry);
            }
            let check = || self.notes.check().is_ok();
            let obstacles = Obstacles::Respect;
            tree::remove(
                entry.parent.as_fd(),
                &entry.name,
                obstacles,
                self.until(),
                &check,
            )
            .map_err(Fault::System)
        });
        match removed {
            // What was not judged is not said to be gone.
            Err(Fault::System(Errno::NOENT)) if self.notes.is_allowed() => Ok(()),
            outcome => outcome,
        }
    }

    /// A second name for a file, where no more may be done with it.
    pub(crate) fn link(&self, existing: &Wanted, new: &Wanted) -> Result<(), Fault> {
        let find = || {
            let isdir = || Fault::System(Errno::ISDIR);
            let existing = self.end(existing, Needs::All(Permissions::READ), isdir)?;
            Ok((existing, self.end(new, CREATE, there)?, ()))
        };
        self.both_ends(find, |old, new, ()| {
            self.gains_nothing(&old.place, &new.place)?;
            self.may_lie(&new.place, Put::Moved(FileType::RegularFile))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (from, to) = (&old.entry, &new.entry);
            let file = rustix::fs::openat(&from.parent, &from.name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&file)?;
            old.place.spelled_for(&stat)?;
            new.place.spelled_for(&stat)?;
            area::regular(&stat)?;
            // The file that was looked at, whatever happens to its name.
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, name, &to.parent, &to.name, flags).map_err(Fault::System)
        })
    }

    /// The link's text may only lead down from the directory that the link is
    /// in. Nothing leads our own resolution out, but other programs follow
    /// links too.
    pub(crate) fn symlink(&self, target: &str, new: &Wanted) -> Result<(), Fault> {
        area::check_path(target)?;
        self.reach(new, Follow::No, CREATE, |place| {
            let target = link_text(place, target)?;
            let entry = place.entry()?.ok_or_else(there)?;
            if place.dir_only {
                return Err(Fault::System(Errno::NOTDIR));
            }
            self.may_lie(place, Put::Link)?;
            Ok(rustix::fs::symlinkat(&target, &entry.parent, &entry.name)?)
        })
    }

    pub(crate) fn chmod(&self, wanted: &Wanted, mode: Mode) -> Result<(), Fault> {
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
        wanted: &Wanted,
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

    pub(crate) fn chtimes(&self, wanted: &Wanted, times: &Timestamps) -> Result<(), Fault> {
        self.reach(wanted, Follow::Yes, WRITE, |place| {
            set_times(&self.inode_to_change(place.inode()?)?, times)
        })
    }

    /// An inode whose attributes may be changed: a directory, or a file with
    /// one name.
    fn inode_to_change(&self, inode: OwnedFd) -> Result<OwnedFd, Fault> {
        let stat = rustix::fs::fstat(&inode)?;
        match area::regular(&stat) {
            Ok(()) | Err(Fault::System(Errno::ISDIR)) => {}
            Err(fault) => return Err(fault),
        }
        self.one_name(&stat)?;
        Ok(inode)
    }

    /// A new directory in the plugin's temporary one.
    pub(crate) fn temp_dir(&self, pattern: &str) -> Result<PathBuf, Fault> {
        let (before, after) = temp::split_pattern(pattern)?;
        let area = self.temp()?.area().clone();
        let place = Place {
            area: area.clone(),
            path: PathBuf::from("x"),
            dir_only: false,
            purpose: Purpose::Change,
        };
        let parent = place.entry()?.ok_or(Fault::Broken)?.parent;
        let name = temp::free_name(before, after, |name| {
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)
        })?;
        self.notes.allowed_by(&area.rule);
        Ok(area.canonical.join(name))
    }

    /// A new file in the plugin's temporary directory, open to read and write.
    pub(crate) fn temp_file(&self, pattern: &str) -> Result<(String, PathBuf), Fault> {
        let ((lease, ..), path) =
            self.temp_file_by(pattern, |wanted, how| self.lend(wanted, how))?;
        Ok((lease, path))
    }

    /// [`temp_file`](Self::temp_file), opened by `open`.
    pub(crate) fn temp_file_by<T>(
        &self,
        pattern: &str,
        open: impl Fn(&Wanted, Opening) -> Result<T, Fault>,
    ) -> Result<(T, PathBuf), Fault> {
        let (before, after) = temp::split_pattern(pattern)?;
        let area = self.temp()?.area().clone();
        let how = Opening {
            read: true,
            write: true,
            exclusive: true,
            mode: 0o600,
            ..Opening::default()
        };
        let mut opened = None;
        let name = temp::free_name(before, after, |name| {
            let wanted = Wanted::absolute(area.canonical.join(name));
            match open(&wanted, how) {
                Err(Fault::System(errno)) => Err(errno),
                outcome => {
                    opened = Some(outcome);
                    Ok(())
                }
            }
        })?;
        let opened = opened.unwrap_or(Err(Fault::Broken))?;
        Ok((opened, area.canonical.join(name)))
    }
}

/// One end of an operation on two paths.
struct End {
    place: Place,
    entry: Entry,
}

impl End {
    fn look_again(&mut self) -> Result<(), Fault> {
        self.entry = self.place.entry()?.ok_or(Fault::Broken)?;
        Ok(())
    }

    /// The device that both are on.
    fn device_with(&self, other: &End) -> Result<u64, Fault> {
        let device = |end: &End| Ok::<_, Errno>(rustix::fs::fstat(&end.entry.parent)?.st_dev);
        let shared = device(self)?;
        match device(other)? == shared {
            true => Ok(shared),
            false => Err(Fault::System(Errno::XDEV)),
        }
    }

    /// What is there, a link being a link.
    fn kind(&self) -> Result<FileType, Fault> {
        let (parent, name) = (&self.entry.parent, &self.entry.name);
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.place.spelled_for(&stat)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }
}

/// While it is held, no plugin of this process moves anything on the device.
struct Moving(&'static Turn);

/// Whose turn it is to move something.
struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

impl Drop for Moving {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

/// Waits for the turn to move something on the device. One device's storage does
/// not hold up the others, but for few that share; nor does it keep the threads
/// of those who wait for it longer than their calls last.
fn moving(device: u64, notes: &Notes, until: Instant) -> Result<Moving, Fault> {
    static TURNS: [Turn; 64] = [const {
        Turn {
            taken: Mutex::new(false),
            free: Condvar::new(),
        }
    }; 64];
    let turn = &TURNS[usize::try_from(device % 64).unwrap_or(0)];
    let mut taken = turn.taken.lock().unwrap_or_else(PoisonError::into_inner);
    while *taken {
        notes.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Deadline);
        }
        let waited = turn.free.wait_timeout(taken, left.min(GLANCE));
        taken = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    *taken = true;
    Ok(Moving(turn))
}

/// The last step of a path that is removed.
fn entry_to_remove(place: &Place) -> Result<Entry, Fault> {
    let entry = place.entry()?.ok_or_else(fixed)?;
    let place = place.clone();
    let end = End { place, entry };
    if end.place.dir_only {
        end.kind()?;
    }
    Ok(end.entry)
}

fn fixed() -> Fault {
    Fault::refused("a granted directory itself cannot be moved, replaced or removed")
}

fn there() -> Fault {
    Fault::System(Errno::EXIST)
}

fn remove_one(entry: &Entry) -> Result<(), Fault> {
    match rustix::fs::unlinkat(&entry.parent, &entry.name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(
            &entry.parent,
            &entry.name,
            AtFlags::REMOVEDIR,
        )?),
        outcome => Ok(outcome?),
    }
}

/// Copies at most `length` bytes from `at` on; `written` says how many.
fn copy_portion(
    source: &std::fs::File,
    target: &std::fs::File,
    at: u64,
    length: usize,
    written: &mut u64,
) -> Result<(), Fault> {
    let (mut from, mut to) = (at, at);
    loop {
        let range = (Some(&mut from), Some(&mut to));
        match rustix::fs::copy_file_range(source, range.0, target, range.1, length) {
            Err(Errno::INTR) => {}
            // Two file systems, or one that does not know how; a kernel or a
            // filter without the call.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                break;
            }
            // Files without a size say so, and have contents all the same.
            Ok(0) => break,
            Ok(copied) => {
                *written = copied as u64;
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut buffer = vec![0; length.min(BUFFER)];
    let read = area::read_full(source, &mut buffer, at)?;
    Ok(area::write_full(target, &buffer[..read], at, written)?)
}

/// The text to store: an absolute path into the link's own directory becomes
/// relative, so that it means the same wherever the directory is seen.
fn link_text(link: &Place, target: &str) -> Result<PathBuf, Fault> {
    let mut target = PathBuf::from(target);
    if target.is_absolute() {
        let inside = link.area.relative(&target).ok_or(Fault::Outside)?;
        let parent = link.path.parent().unwrap_or(Path::new(""));
        let outside = || Fault::refused("an absolute link leads out of its own directory");
        target = inside
            .strip_prefix(parent)
            .map_err(|_| outside())?
            .to_owned();
    }
    if target.components().any(|step| step == Component::ParentDir) {
        return Err(Fault::refused(
            "a link with `..` may lead out of the granted directory",
        ));
    }
    if target.as_os_str().is_empty() {
        return Err(Fault::System(Errno::NOENT));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::races;

    #[test]
    fn whoever_waits_to_move_something_waits_no_longer_than_a_call() {
        let notes = Notes::default();
        let far = Instant::now() + Duration::from_secs(60);
        // As good as free: few devices have a share in it.
        let held = moving(63, &notes, far).expect("free");
        let late = moving(63, &notes, Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Fault::Deadline)));
        drop(moving(62, &notes, far).expect("another device"));
        drop(held);
        drop(moving(63, &notes, far).expect("free again"));
    }

    #[test]
    fn nobody_who_moves_things_waits_for_another_device() {
        let here = tempfile::tempdir().expect("a directory");
        let there = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let all = "read, write, list, create, delete";
        let cx = races::cx(
            &[(here.path(), all, true), (there.path(), all, true)],
            false,
        );
        std::fs::write(here.path().join("file"), b"text").expect("a file");
        let wanted = |dir: &tempfile::TempDir| {
            let path = dir.path().join("file");
            Wanted::new(&cx.session, path.to_str().expect("text")).expect("a path")
        };
        let (from, to) = (wanted(&here), wanted(&there));
        let device = rustix::fs::stat(here.path()).expect("there").st_dev;
        let until = Instant::now() + Duration::from_secs(60);
        // It would not come to an end if it waited for its turn first.
        let held = moving(device, &Notes::default(), until).expect("its turn comes");
        let moved = cx.rename(&from, &to, Replace::No);
        let linked = cx.link(&from, &to);
        drop(held);
        for outcome in [moved, linked] {
            assert!(matches!(outcome, Err(Fault::System(Errno::XDEV))));
        }
    }
}
