//! The entries of directories: made, moved, linked and removed.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Component, Path, PathBuf};

use outrigger_manifest::Permissions;
use outrigger_transport::tree::{self, Obstacles};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::area::regular;
use super::call::FileCall;
use super::contents::Replace;
use super::fallbacks::{self, Entry};
use super::kernel::Purpose;
use super::moving::moving;
use super::paths::check_path;
use super::place::{Opening, Place};
use super::requested_path::RequestedPath;
use super::resolve::{ATTEMPTS, Follow};
use super::rights::{NewEntry, Required};
use super::temp::{free_name, split_pattern};
use crate::fault::Fault;

const CREATE: Required = Required::All(Permissions::CREATE);
const DELETE: Required = Required::All(Permissions::DELETE);

impl FileCall {
    pub(crate) fn read_link(&self, wanted: &RequestedPath) -> Result<String, Fault> {
        let target = self.reach(wanted, Follow::No, Required::Known, |place| {
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

    pub(crate) fn mkdir(&self, wanted: &RequestedPath, perm: Mode) -> Result<(), Fault> {
        self.reach(wanted, Follow::No, CREATE, |place| {
            let entry = place.entry()?.ok_or_else(there)?;
            self.may_lie(place, NewEntry::Directory)?;
            Ok(rustix::fs::mkdirat(&entry.parent, &entry.name, perm)?)
        })
    }

    /// Makes what is missing on the way as well.
    pub(crate) fn mkdir_all(&self, wanted: &RequestedPath, perm: Mode) -> Result<(), Fault> {
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
    pub(crate) fn rename(
        &self,
        from: &RequestedPath,
        to: &RequestedPath,
        replace: Replace,
    ) -> Result<(), Fault> {
        let both = Required::All(Permissions::CREATE | Permissions::DELETE);
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
            self.may_lie(&to.place, NewEntry::Moved(kind))?;
            if to.place.dir_only && kind != FileType::Directory {
                return Err(Fault::System(Errno::NOTDIR));
            }
            let (from, to) = (&from.entry, &to.entry);
            match (fallbacks::rename(from, to, flags), denied) {
                (Err(Errno::EXIST), Some(denial)) => Err(Fault::Denied(denial)),
                (outcome, _) => outcome.map_err(Fault::System),
            }
        })
    }

    /// The last step of a path that an operation on two of them uses.
    /// `top` is what is said when that is a granted directory itself.
    fn end(
        &self,
        wanted: &RequestedPath,
        needs: Required,
        top: impl Fn() -> Fault,
    ) -> Result<End, Fault> {
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
            self.progress.check()?;
            let (mut one, mut other, more) = find()?;
            let device = one.device_with(&other)?;
            let _nothing_is_moved = moving(device, &self.progress, self.until())?;
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
    pub(crate) fn remove(&self, wanted: &RequestedPath) -> Result<(), Fault> {
        self.reach(wanted, Follow::No, DELETE, |place| {
            let entry = entry_to_remove(place)?;
            self.holds_no_grant(place)?;
            remove_one(&entry)
        })
    }

    /// Removes a tree. Nothing there is fine too.
    pub(crate) fn remove_all(&self, wanted: &RequestedPath) -> Result<(), Fault> {
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
            let check = || self.progress.check().is_ok();
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
            Err(Fault::System(Errno::NOENT)) if self.progress.is_allowed() => Ok(()),
            outcome => outcome,
        }
    }

    /// A second name for a file, where no more may be done with it.
    pub(crate) fn link(&self, existing: &RequestedPath, new: &RequestedPath) -> Result<(), Fault> {
        let find = || {
            let isdir = || Fault::System(Errno::ISDIR);
            let existing = self.end(existing, Required::All(Permissions::READ), isdir)?;
            Ok((existing, self.end(new, CREATE, there)?, ()))
        };
        self.both_ends(find, |old, new, ()| {
            self.gains_nothing(&old.place, &new.place)?;
            self.may_lie(&new.place, NewEntry::Moved(FileType::RegularFile))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (from, to) = (&old.entry, &new.entry);
            let file = rustix::fs::openat(&from.parent, &from.name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&file)?;
            old.place.spelled_for(&stat)?;
            new.place.spelled_for(&stat)?;
            regular(&stat)?;
            // The file that was looked at, whatever happens to its name.
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, name, &to.parent, &to.name, flags).map_err(Fault::System)
        })
    }

    /// The link's text may only lead down from the directory that the link is
    /// in. Nothing leads our own resolution out, but other programs follow
    /// links too.
    pub(crate) fn symlink(&self, target: &str, new: &RequestedPath) -> Result<(), Fault> {
        check_path(target)?;
        self.reach(new, Follow::No, CREATE, |place| {
            let target = link_text(place, target)?;
            let entry = place.entry()?.ok_or_else(there)?;
            if place.dir_only {
                return Err(Fault::System(Errno::NOTDIR));
            }
            self.may_lie(place, NewEntry::Link)?;
            Ok(rustix::fs::symlinkat(&target, &entry.parent, &entry.name)?)
        })
    }

    /// A new directory in the plugin's temporary one.
    pub(crate) fn temp_dir(&self, pattern: &str) -> Result<PathBuf, Fault> {
        let (before, after) = split_pattern(pattern)?;
        let area = self.files.temp()?.area().clone();
        let place = Place {
            area: area.clone(),
            path: PathBuf::from("x"),
            dir_only: false,
            purpose: Purpose::Change,
        };
        let parent = place.entry()?.ok_or(Fault::Broken)?.parent;
        let name = free_name(before, after, |name| {
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)
        })?;
        self.progress.allowed_by(&area.rule);
        Ok(area.canonical.join(name))
    }

    /// A new file in the plugin's temporary directory, open to read and write.
    pub(crate) fn temp_file(&self, pattern: &str) -> Result<(String, PathBuf), Fault> {
        let (lent, path) = self.temp_file_by(pattern, |wanted, how| self.lend(wanted, how))?;
        Ok((lent.lease, path))
    }

    /// [`temp_file`](Self::temp_file), opened by `open`.
    pub(crate) fn temp_file_by<T>(
        &self,
        pattern: &str,
        open: impl Fn(&RequestedPath, Opening) -> Result<T, Fault>,
    ) -> Result<(T, PathBuf), Fault> {
        let (before, after) = split_pattern(pattern)?;
        let area = self.files.temp()?.area().clone();
        let how = Opening {
            read: true,
            write: true,
            exclusive: true,
            mode: 0o600,
            ..Opening::default()
        };
        let mut opened = None;
        let name = free_name(before, after, |name| {
            let wanted = RequestedPath::absolute(area.canonical.join(name));
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
    use std::time::{Duration, Instant};

    use super::*;
    use crate::progress::Progress;
    use crate::testing::file_call;

    #[test]
    fn nobody_who_moves_things_waits_for_another_device() {
        let here = tempfile::tempdir().expect("a directory");
        let there = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let all = "read, write, list, create, delete";
        let call = file_call(
            &[(here.path(), all, true), (there.path(), all, true)],
            false,
        );
        std::fs::write(here.path().join("file"), b"text").expect("a file");
        let wanted = |dir: &tempfile::TempDir| {
            let path = dir.path().join("file");
            call.path(path.to_str().expect("text")).expect("a path")
        };
        let (from, to) = (wanted(&here), wanted(&there));
        let device = rustix::fs::stat(here.path()).expect("there").st_dev;
        let until = Instant::now() + Duration::from_secs(60);
        // It would not come to an end if it waited for its turn first.
        let held = moving(device, &Progress::default(), until).expect("its turn comes");
        let moved = call.rename(&from, &to, Replace::No);
        let linked = call.link(&from, &to);
        drop(held);
        for outcome in [moved, linked] {
            assert!(matches!(outcome, Err(Fault::System(Errno::XDEV))));
        }
    }
}
