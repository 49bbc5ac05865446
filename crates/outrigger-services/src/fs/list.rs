//! Directories, page by page: at any size with bounded memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use outrigger_manifest::Permissions;
use outrigger_wire::proto::host::{DirEntry, FileKind};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;
use uuid::Uuid;

use super::area::Place;
use super::{Cx, Follow, Needs, Wanted};
use crate::fault::Fault;

/// How many directories a connection keeps open between two pages; further ones
/// are opened again and continued at their position.
const OPEN: usize = 4;
/// Entries of a page when the plugin names no number.
const DEFAULT: usize = 1000;
/// Most entries of a page.
const MOST: usize = 16_384;
/// What one entry may take in a reply, in bytes: the longest name of any file
/// system, FUSE's, and what is around it.
const ENTRY: usize = 1024 + OVERHEAD;
/// What an entry takes beside its name, in bytes, at most.
const OVERHEAD: usize = 16;

const LIST: Needs = Needs::All(Permissions::LIST);

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
    dir: Dir,
    place: Place,
    /// Where the next page starts, as the file system counts.
    at: i64,
}

/// Listings between two of their pages.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<VecDeque<(u128, Listing)>>);

impl Cursors {
    fn take(&self, id: u128) -> Option<Listing> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(kept, _)| *kept == id)?;
        kept.remove(at).map(|(_, listing)| listing)
    }

    /// Keeps a listing; what has waited longest makes room.
    fn keep(&self, id: u128, listing: Listing) {
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

impl Cx {
    /// The directory that `wanted` leads to, from its beginning.
    pub(crate) fn listing(&self, wanted: &Wanted) -> Result<Listing, Fault> {
        self.reach(wanted, Follow::Yes, LIST, |place| {
            Ok(Listing {
                dir: Dir::new(place.directory()?)?,
                place: place.clone(),
                at: 0,
            })
        })
    }

    /// One page, and the cookie of the next.
    pub(crate) fn list(
        &self,
        wanted: &Wanted,
        limit: u32,
        cookie: &str,
    ) -> Result<(Page, String), Fault> {
        let (id, at) = parse(cookie)?;
        let kept = id.and_then(|id| self.session.own().cursors.take(id));
        let mut listing = match kept {
            // Whatever was granted then must be granted now.
            Some(listing) if listing.at == at => {
                let place = self.reach(wanted, Follow::Yes, LIST, |place| {
                    place.inode()?;
                    Ok(place.clone())
                })?;
                let same = (&place.path, place.spelled());
                if same != (&listing.place.path, listing.place.spelled()) {
                    return Err(Fault::abuse("the cookie belongs to another directory"));
                }
                listing
            }
            _ => self.listing(wanted)?,
        };
        if listing.at != at {
            listing.dir.seek(at)?;
            listing.at = at;
        }
        let most = match limit as usize {
            0 => DEFAULT,
            limit => limit.min(MOST),
        };
        let page = listing.page(most, self.session.limits().payload())?;
        if !page.more {
            return Ok((page, String::new()));
        }
        let id = id.unwrap_or_else(|| Uuid::new_v4().as_u128());
        let next = format!("{id:032x}{:x}", listing.at);
        self.session.own().cursors.keep(id, listing);
        Ok((page, next))
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

fn parse(cookie: &str) -> Result<(Option<u128>, i64), Fault> {
    if cookie.is_empty() {
        return Ok((None, 0));
    }
    let parse = || {
        if !cookie.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let id = u128::from_str_radix(cookie.get(..32)?, 16).ok()?;
        let at = i64::from_str_radix(cookie.get(32..)?, 16).ok()?;
        Some((Some(id), at))
    };
    parse().ok_or_else(|| Fault::abuse("`cookie` is not one of a listing"))
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
