//! Whole files: read, written, cut and copied.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::call::FileCall;
use super::io::{INLINE, on_disk, read_full, read_inline, size, write_full};
use super::open_file::Storage;
use super::place::{Opening, Place};
use super::requested_path::RequestedPath;
use crate::fault::Fault;

/// How much is copied before anyone is asked whether to go on, in bytes.
const PORTION: usize = 8 << 20;
/// How much is copied through memory at a time, in bytes.
const BUFFER: usize = 1 << 20;
/// How often a copy that waits looks whether its call is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

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

impl FileCall {
    /// Reads a file that fits into a reply; `instead` says what to use for a
    /// larger one.
    pub(crate) fn read_file(
        &self,
        wanted: &RequestedPath,
        instead: &str,
    ) -> Result<Vec<u8>, Fault> {
        self.session.may_move()?;
        let (file, place, stat) = self.open(wanted, Opening::READ)?;
        let contents = match self.may_wait {
            true => self.whole(file, &stat, instead)?,
            false => self.whole_cached(&file, &place, &stat)?,
        };
        self.got(contents.len() as u64);
        Ok(contents)
    }

    fn whole(&self, file: File, stat: &Stat, instead: &str) -> Result<Vec<u8>, Fault> {
        let limit = self.session.limits().whole_file;
        let too_large = || {
            let text = format!("the file is larger than {limit} bytes; {instead}");
            let code = tonic::Code::FailedPrecondition;
            Err(Fault::failed_as("file-too-large", code, text))
        };
        let size = usize::try_from(size(stat)).unwrap_or(usize::MAX);
        if size > limit {
            return too_large();
        }
        let mut contents = Vec::with_capacity(size + 1);
        // The size is a hint only: a file may grow, and some have none.
        file.take(limit as u64 + 1).read_to_end(&mut contents)?;
        if contents.len() > limit {
            return too_large();
        }
        Ok(contents)
    }

    /// A small file whose contents the kernel has at hand.
    fn whole_cached(&self, file: &File, place: &Place, stat: &Stat) -> Result<Vec<u8>, Fault> {
        let most = INLINE.min(self.session.limits().whole_file);
        let size = usize::try_from(size(stat)).unwrap_or(usize::MAX);
        if size > most || size == 0 {
            return Err(Fault::WouldWait);
        }
        let mut contents = vec![0; size];
        let inline = place.area.inline_for(stat);
        let read = read_inline(file, &mut contents, 0, inline).ok_or(Fault::WouldWait)?;
        contents.truncate(read);
        Ok(contents)
    }

    /// Writes all of `data` to a file that is opened for it.
    pub(crate) fn write_file(
        &self,
        wanted: &RequestedPath,
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
            true => on_disk(stat.st_blocks),
            false => 0,
        };
        // What it holds is given up when there is room for what comes.
        self.write_over(length, freed, self.storage_of(&place.area), |written| {
            if how.truncate {
                rustix::fs::ftruncate(&file, 0)?;
            }
            Ok(write_full(&file, data, 0, written)?)
        })?;
        Ok(size(&rustix::fs::fstat(&file)?))
    }

    pub(crate) fn truncate(&self, wanted: &RequestedPath, to: u64) -> Result<(), Fault> {
        let how = Opening {
            write: true,
            ..Opening::default()
        };
        let (file, place, _) = self.open(wanted, how)?;
        self.resize(&file.into(), self.storage_of(&place.area), to)
    }

    /// Copies a file's contents and permission bits.
    pub(crate) fn copy(
        &self,
        from: &RequestedPath,
        to: &RequestedPath,
        replace: Replace,
    ) -> Result<u64, Fault> {
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
        let storage = self.storage_of(&place.area);
        if (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino) {
            return Err(Fault::abuse("both are the same file"));
        }
        // Its contents are given up only for others that there is room for.
        drop(self.room(whole, on_disk(target_stat.st_blocks), storage)?);
        rustix::fs::ftruncate(&target, 0)?;
        let (until, mut copied) = (self.until(), 0_u64);
        loop {
            self.progress.check()?;
            if Instant::now() >= until {
                return Err(Fault::Deadline);
            }
            self.pace_blocking(until)?;
            // The size is a hint only: a file may grow, and some have none.
            let ask = match usize::try_from(whole.saturating_sub(copied)) {
                Ok(0) if read_full(&source, &mut [0], copied)? == 0 => return Ok(copied),
                Ok(0) => BUFFER,
                Ok(rest) => rest.min(PORTION),
                Err(_) => PORTION,
            };
            if storage == Storage::Temporary && rustix::fs::fstat(&target)?.st_nlink == 0 {
                // It was removed, and would take room that nobody finds.
                return Err(Fault::System(Errno::NOENT));
            }
            let portion = self.write(ask as u64, storage, |written| {
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
            self.progress.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Fault::Deadline);
            }
            std::thread::sleep(wait.min(left).min(GLANCE));
        }
        Ok(())
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
    let read = read_full(source, &mut buffer, at)?;
    Ok(write_full(target, &buffer[..read], at, written)?)
}
