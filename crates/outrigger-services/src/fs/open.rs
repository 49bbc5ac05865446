//! Open files and directories that a plugin holds by name.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_manifest::Permissions;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::area::{self, INLINE, Inline, Opening, Place};
use super::{Cx, Follow, Kept, Needs, Wanted};
use crate::fault::Fault;
use crate::granted::HardLinks;
use crate::leases::{Lent, Slot};

/// One open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: OwnedFd,
    pub(crate) inline: Inline,
    pub(crate) append: Append,
    pub(crate) name: String,
    /// Which rule grants it.
    pub(crate) rule: Arc<str>,
    /// What may be done with it where it was opened.
    rights: Permissions,
    /// Where what is written to it stays.
    kept: Kept,
    /// Where the next read or write without an offset happens. Ours rather than
    /// the kernel's, whose lock would let one slow read hold up a connection.
    position: AtomicU64,
}

/// A file that was lent: its name, itself, and its state when it was opened.
pub(crate) type Lending = (String, Lent<OpenFile>, Stat);

/// One open directory: a place to open files from.
#[derive(Debug)]
pub(crate) struct OpenDir {
    pub(crate) place: Place,
    /// Keeps the directory from being replaced by another one unnoticed.
    pub(crate) dir: OwnedFd,
}

/// Where writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Append {
    /// Where they say.
    No,
    /// To the end, whatever they say.
    Yes,
}

impl OpenFile {
    fn new(place: &Place, file: OwnedFd, stat: &Stat, how: Opening, kept: Kept) -> Self {
        // What the kernel tells is never changed, not by a handle to read it either.
        let rights = match place.keeps(&file, stat) {
            Ok(true) => place.area.permissions,
            Ok(false) | Err(_) => place.area.permissions - Permissions::WRITE,
        };
        Self {
            file,
            inline: place.area.inline_for(stat),
            append: if how.append { Append::Yes } else { Append::No },
            name: place.file_name(),
            rule: place.area.rule.clone(),
            rights,
            kept,
            position: AtomicU64::new(0),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    pub(crate) fn move_to(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Moves the position; `whence` is 0 for the start, 1 for where it is, 2
    /// for the end.
    pub(crate) fn seek(&self, distance: i64, whence: u32) -> Result<u64, Fault> {
        let target = match whence {
            0 => u64::try_from(distance).ok(),
            1 => self.position().checked_add_signed(distance),
            2 => size(&self.stat()?).checked_add_signed(distance),
            _ => return Err(Fault::abuse("`whence` is none of 0, 1 and 2")),
        };
        let target = target
            .filter(|at| i64::try_from(*at).is_ok())
            .ok_or(Fault::System(Errno::INVAL))?;
        self.move_to(target);
        Ok(target)
    }

    pub(crate) fn stat(&self) -> Result<Stat, Fault> {
        Ok(rustix::fs::fstat(&self.file)?)
    }

    /// Writes at the position and moves it.
    pub(crate) fn write_on(&self, cx: &Cx, data: &[u8]) -> Result<(), Fault> {
        let at = self.position();
        cx.write(data.len() as u64, self.kept, |written| {
            Ok(area::write_full(&self.file, data, at, written)?)
        })?;
        match self.append {
            Append::No => self.move_to(at + data.len() as u64),
            Append::Yes => self.move_to(size(&self.stat()?)),
        }
        Ok(())
    }

    /// Writes at `offset`; the position stays.
    pub(crate) fn write_at(&self, cx: &Cx, data: &[u8], offset: u64) -> Result<(), Fault> {
        if self.append == Append::Yes {
            return Err(Fault::failed("the file is open for appending"));
        }
        cx.write(data.len() as u64, self.kept, |written| {
            Ok(area::write_full(&self.file, data, offset, written)?)
        })
    }

    /// Cuts or grows it; growing counts as writing.
    pub(crate) fn resize(&self, cx: &Cx, to: u64) -> Result<(), Fault> {
        resize(cx, &self.file, self.kept, to)
    }

    /// Refuses a change of the file itself where writing is not granted.
    pub(crate) fn changeable(&self, cx: &Cx) -> Result<(), Fault> {
        if !self.rights.contains(Permissions::WRITE) {
            return Err(Fault::refused("writing is not granted where it was opened"));
        }
        cx.one_name(&self.stat()?)
    }

    /// Reads at `offset`, if that can be promised not to wait.
    pub(crate) fn read_now(&self, length: usize, offset: u64) -> Option<Vec<u8>> {
        if length > INLINE {
            return None;
        }
        let mut contents = vec![0; length];
        let read = area::read_inline(&self.file, &mut contents, offset, self.inline)?;
        contents.truncate(read);
        Some(contents)
    }

    /// Reads at `offset`.
    pub(crate) fn read(&self, length: usize, offset: u64) -> Result<Vec<u8>, Fault> {
        let mut contents = vec![0; length];
        let read = area::read_full(&self.file, &mut contents, offset)?;
        contents.truncate(read);
        Ok(contents)
    }

    /// Whether closing it is no work for the file system.
    pub(crate) fn closes_at_once(&self) -> bool {
        // When the last name is gone, closing frees the file's blocks.
        self.inline != Inline::Never
            && rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 0)
    }
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Cuts or grows a file; growing counts as writing.
pub(crate) fn resize(cx: &Cx, file: &OwnedFd, kept: Kept, to: u64) -> Result<(), Fault> {
    if i64::try_from(to).is_err() {
        return Err(Fault::System(Errno::INVAL));
    }
    let now = size(&rustix::fs::fstat(file)?);
    cx.write(to.saturating_sub(now), kept, |grown| {
        // The kernel refuses it for a file that was not opened for writing.
        rustix::fs::ftruncate(file, to)?;
        *grown = to.saturating_sub(now);
        Ok(())
    })
}

impl Cx {
    /// Opens the regular file that `wanted` leads to.
    pub(crate) fn open(&self, wanted: &Wanted, how: Opening) -> Result<(File, Place, Stat), Fault> {
        self.open_if(wanted, how, |_| Ok(()))
    }

    /// [`open`](Self::open), if `admit` lets what is there be opened or made.
    pub(crate) fn open_if(
        &self,
        wanted: &Wanted,
        how: Opening,
        admit: impl Fn(&Place) -> Result<(), Fault>,
    ) -> Result<(File, Place, Stat), Fault> {
        if !how.read && !how.writes() {
            return Err(Fault::abuse("a file is opened to read, to write, or both"));
        }
        let judge = |stat: &Stat| {
            if how.writes() || how.truncate {
                self.one_name(stat)
            } else {
                Ok(())
            }
        };
        let open = |place: &Place, how: Opening| {
            admit(place)?;
            let (file, stat) = place.open(how, judge)?;
            Ok((file, place.clone(), stat))
        };
        let needs = how.needs();
        if !how.create && !how.exclusive {
            return self.reach(wanted, Follow::Yes, Needs::All(needs), |place| {
                open(place, how)
            });
        }
        // An exclusive one does not follow a link in its place.
        let follow = if how.exclusive {
            Follow::No
        } else {
            Follow::Yes
        };
        let making = needs | Permissions::CREATE;
        match self.reach(wanted, follow, Needs::All(making), |place| open(place, how)) {
            Err(Fault::Denied(denial)) if !how.exclusive => {
                let existing = Opening {
                    create: false,
                    ..how
                };
                let opened = self.reach(wanted, Follow::Yes, Needs::All(needs), |place| {
                    open(place, existing)
                });
                match opened {
                    // It is not there, and making it is what is not granted.
                    Err(Fault::System(Errno::NOENT)) => Err(Fault::Denied(denial)),
                    outcome => outcome,
                }
            }
            Err(Fault::System(Errno::LOOP)) if how.exclusive => Err(Fault::System(Errno::EXIST)),
            outcome => outcome,
        }
    }

    /// Opens a file and lends it.
    pub(crate) fn lend(&self, wanted: &Wanted, how: Opening) -> Result<Lending, Fault> {
        let slot = self.session.slot()?;
        let (file, place, stat) = self.open(wanted, how)?;
        Ok(self.lend_open(slot, &place, file.into(), stat, how))
    }

    fn lend_open(
        &self,
        slot: Slot,
        place: &Place,
        file: OwnedFd,
        stat: Stat,
        how: Opening,
    ) -> Lending {
        let kept = self.kept(&place.area);
        let file = OpenFile::new(place, file, &stat, how, kept);
        let (lease, lent) = self.session.lend(slot, file);
        if let (Kept::InTemp, Some(temp)) = (kept, self.session.own().temp.get()) {
            temp.note_open(&lent);
        }
        (lease, lent, stat)
    }

    /// [`lend`](Self::lend) for reading, if no one has to be waited for.
    pub(crate) fn lend_now(&self, wanted: &Wanted) -> Option<Result<Lending, Fault>> {
        let slot = match self.session.slot() {
            Ok(slot) => slot,
            Err(fault) => return Some(Err(fault)),
        };
        let opened = self.open_now(wanted)?;
        let lend = |(file, place, stat)| self.lend_open(slot, &place, file, stat, Opening::READ);
        Some(opened.map(lend))
    }

    /// [`open`](Self::open) for reading, if no one has to be waited for.
    pub(crate) fn open_now(
        &self,
        wanted: &Wanted,
    ) -> Option<Result<(OwnedFd, Place, Stat), Fault>> {
        self.reach_now(wanted, Needs::All(Permissions::READ), |place| {
            let (file, stat) = place.open_cached()?;
            Some((file, place.clone(), stat))
        })
    }

    /// The open file that `lease` names.
    pub(crate) fn file(&self, lease: &str) -> Result<Lent<OpenFile>, Fault> {
        let file = self.session.lease::<OpenFile>(lease)?;
        self.notes.allowed_by(&file.rule);
        Ok(file)
    }

    /// Refuses to change a file with several names, of which some may lie
    /// outside every grant.
    pub(crate) fn one_name(&self, stat: &Stat) -> Result<(), Fault> {
        let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        match self.session.shared().hard_links {
            HardLinks::ReadOnly if file && stat.st_nlink > 1 => Err(Fault::refused(
                "it has more than one name, and some may lie outside the grant (hard links)",
            )),
            HardLinks::ReadOnly | HardLinks::Writable => Ok(()),
        }
    }
}
