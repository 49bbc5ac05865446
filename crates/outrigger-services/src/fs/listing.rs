//! Directories, page by page: at any size with bounded memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use outrigger_wire::proto::host::{DirEntry, FileKind};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::place::Place;
use crate::fault::Fault;

/// How many directories a connection keeps open between two pages; further ones
/// are opened again and continued at their position.
const OPEN: usize = 4;
/// What one entry may take in a reply, in bytes: the longest name of any file
/// system, FUSE's, and what is around it.
const ENTRY: usize = 1024 + OVERHEAD;
/// What an entry takes beside its name, in bytes, at most.
const OVERHEAD: usize = 16;

/// One page of a directory.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<DirEntry>,
    pub(crate) unreadable: u32,
    /// Whether there may be more.
    pub(crate) more: bool,
}

/// A directory that is being listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) dir: Dir,
    pub(crate) place: Place,
    /// Where the next page starts, as the file system counts.
    pub(crate) at: i64,
}

/// Listings between two of their pages.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<VecDeque<(u128, Listing)>>);

impl Cursors {
    pub(crate) fn take(&self, id: u128) -> Option<Listing> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(kept, _)| *kept == id)?;
        kept.remove(at).map(|(_, listing)| listing)
    }

    /// Keeps a listing; what has waited longest makes room.
    pub(crate) fn keep(&self, id: u128, listing: Listing) {
        let forgotten = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back((id, listing));
            if kept.len() > OPEN {
                kept.pop_front()
            } else {
                None
            }
        };
        drop(forgotten);
    }
}

impl Listing {
    /// Refuses what was read when the directory is no longer where it may be
    /// listed.
    fn in_place(&self) -> Result<(), Fault> {
        match self.place.still_is(self.dir.fd()?)? {
            true => Ok(()),
            false => Err(Fault::System(Errno::NOENT)),
        }
    }

    /// Every entry, whatever its name.
    pub(crate) fn each(
        &mut self,
        mut take: impl FnMut(&std::ffi::CStr, FileType) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while let Some(entry) = self.dir.read() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                take(
                    entry.file_name(),
                    self.kind(entry.file_name(), entry.file_type())?,
                )?;
            }
        }
        self.in_place()
    }

    /// What an entry is, where the file system does not say it in the listing.
    fn kind(&self, name: &std::ffi::CStr, known: FileType) -> Result<FileType, Fault> {
        if known != FileType::Unknown {
            return Ok(known);
        }
        let stat = rustix::fs::statat(self.dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat.map_or(known, |stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// The next entries: at most `most`, in at most `room` bytes.
    pub(crate) fn page(&mut self, most: usize, room: usize) -> Result<Page, Fault> {
        let page = self.read_page(most, room)?;
        // Only what was read from it there is shown.
        self.in_place()?;
        Ok(page)
    }

    fn read_page(&mut self, most: usize, room: usize) -> Result<Page, Fault> {
        let (mut page, mut room) = (Page::default(), room.max(ENTRY));
        // Names that are left out take part, so that a page ends.
        let mut seen = 0;
        while room >= ENTRY && seen < most {
            let Some(entry) = self.dir.read() else {
                return Ok(page);
            };
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed: it has no more entries.
                Err(Errno::NOENT) => return Ok(page),
                Err(errno) => return Err(errno.into()),
            };
            self.at = entry.offset();
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            seen += 1;
            let Ok(name) = entry.file_name().to_str() else {
                page.unreadable += 1;
                continue;
            };
            room = left(room, name);
            let kind = self.kind(entry.file_name(), entry.file_type())?;
            page.entries.push(DirEntry {
                name: name.to_owned(),
                kind: kind_of(kind).into(),
            });
        }
        page.more = true;
        Ok(page)
    }
}

/// What remains of `room` after an entry of this name.
fn left(room: usize, name: &str) -> usize {
    room.saturating_sub(name.len() + OVERHEAD)
}

pub(crate) fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_longer_than_any_other_ends_its_page_and_no_more() {
        assert_eq!(left(ENTRY, &"x".repeat(1024)), 0);
        assert_eq!(left(ENTRY, &"x".repeat(4000)), 0);
        assert_eq!(left(ENTRY + 1, "xy"), ENTRY - 1 - OVERHEAD);
    }
}
