//! Files and directories that a plugin holds open by name.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_manifest::Permissions;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::io::{INLINE, Inline, read_full, read_inline, size};
use super::place::{Opening, Place};
use crate::fault::Fault;
use crate::leases::Lease;

/// Where what is written to a file takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In the temporary directory, of which a plugin has only so much.
    Temporary,
    Other,
}

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
    pub(crate) rights: Permissions,
    /// Where what is written to it stays.
    pub(crate) storage: Storage,
    /// Where the next read or write without an offset happens. Ours rather than
    /// the kernel's, whose lock would let one slow read hold up a connection.
    position: AtomicU64,
}

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
    pub(crate) fn new(
        place: &Place,
        file: OwnedFd,
        stat: &Stat,
        how: Opening,
        storage: Storage,
    ) -> Self {
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
            storage,
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

    /// Reads at `offset`; without `may_wait` only what can be promised not to wait.
    pub(crate) fn read(
        &self,
        length: usize,
        offset: u64,
        may_wait: bool,
    ) -> Result<Vec<u8>, Fault> {
        if !may_wait && length > INLINE {
            return Err(Fault::WouldWait);
        }
        let mut contents = vec![0; length];
        let read = match may_wait {
            true => read_full(&self.file, &mut contents, offset)?,
            false => {
                let read = read_inline(&self.file, &mut contents, offset, self.inline);
                read.ok_or(Fault::WouldWait)?
            }
        };
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

impl Lease for OpenFile {}
impl Lease for OpenDir {}
