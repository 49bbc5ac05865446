//! What a connection may read and write: all of it is counted here.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::area::Area;
use super::call::FileCall;
use super::io::{size, write_full};
use super::open_file::{Append, OpenFile, Storage};
use super::temp::Room;
use crate::fault::Fault;

impl FileCall {
    /// Bytes that the plugin got without waiting.
    pub(crate) fn got(&self, bytes: u64) {
        self.progress.moved(bytes);
        self.session.count_read(bytes);
        self.session.charge(bytes);
    }

    /// Does a write of `count` bytes under the quotas; `write` says how far it
    /// came even if it failed.
    pub(crate) fn write<T>(
        &self,
        count: u64,
        storage: Storage,
        write: impl FnOnce(&mut u64) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.write_over(count, 0, storage, write)
    }

    /// [`write`](Self::write), where `write` first gives `freed` bytes back to
    /// storage.
    pub(crate) fn write_over<T>(
        &self,
        count: u64,
        freed: u64,
        storage: Storage,
        write: impl FnOnce(&mut u64) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let _room = self.room(count, freed, storage)?;
        self.session.reserve(count)?;
        let mut written = 0;
        let outcome = write(&mut written);
        let written = written.min(count);
        self.session.release(count - written);
        self.progress.moved(written);
        outcome
    }

    /// Room for `count` bytes in the place of `freed`, where it is limited.
    pub(crate) fn room(
        &self,
        count: u64,
        freed: u64,
        storage: Storage,
    ) -> Result<Option<Room<'_>>, Fault> {
        let most = self.session.limits().temp_bytes;
        let temp = match storage {
            Storage::Temporary if most != 0 => self.files.temp_if_made(),
            Storage::Temporary | Storage::Other => None,
        };
        let room = temp.map(|temp| temp.room(count, freed, most, self.until()));
        room.transpose()
    }

    /// Where what is written to a file of this area stays.
    pub(crate) fn storage_of(&self, area: &Arc<Area>) -> Storage {
        if self.files.is_temp(area) {
            Storage::Temporary
        } else {
            Storage::Other
        }
    }

    /// Writes at the position of `file` and moves it.
    pub(crate) fn write_on(&self, file: &OpenFile, data: &[u8]) -> Result<(), Fault> {
        let at = file.position();
        self.write(data.len() as u64, file.storage, |written| {
            Ok(write_full(&file.file, data, at, written)?)
        })?;
        match file.append {
            Append::No => file.move_to(at + data.len() as u64),
            Append::Yes => file.move_to(size(&file.stat()?)),
        }
        Ok(())
    }

    /// Writes at `offset` of `file`; the position stays.
    pub(crate) fn write_at(&self, file: &OpenFile, data: &[u8], offset: u64) -> Result<(), Fault> {
        if file.append == Append::Yes {
            return Err(Fault::failed("the file is open for appending"));
        }
        self.write(data.len() as u64, file.storage, |written| {
            Ok(write_full(&file.file, data, offset, written)?)
        })
    }

    /// Cuts or grows a file; growing counts as writing.
    pub(crate) fn resize(&self, file: &OwnedFd, storage: Storage, to: u64) -> Result<(), Fault> {
        if i64::try_from(to).is_err() {
            return Err(Fault::System(Errno::INVAL));
        }
        let now = size(&rustix::fs::fstat(file)?);
        self.write(to.saturating_sub(now), storage, |grown| {
            // The kernel refuses it for a file that was not opened for writing.
            rustix::fs::ftruncate(file, to)?;
            *grown = to.saturating_sub(now);
            Ok(())
        })
    }
}
