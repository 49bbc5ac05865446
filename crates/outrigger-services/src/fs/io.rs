//! Reading and writing an open file, on the thread of a connection where that
//! waits for nobody.

use std::os::fd::AsFd;

use rustix::fs::{Stat, StatFs};
use rustix::io::{Errno, ReadWriteFlags};

/// The most that is read on the thread of the connection itself, in bytes.
pub(crate) const INLINE: usize = 64 << 10;

const EXT4: u64 = 0xef53;
const BTRFS: u64 = 0x9123_683e;
const XFS: u64 = 0x5846_5342;
const F2FS: u64 = 0xf2f5_2010;
pub(super) const TMPFS: u64 = 0x0102_1994;
pub(super) const RAMFS: u64 = 0x8584_58f6;
const OVERLAY: u64 = 0x794c_7630;

/// Whether a read may happen without a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inline {
    /// When the kernel can promise not to wait (`RWF_NOWAIT`).
    IfCached,
    /// Always: the file system is memory, or sits on one that is local.
    Always,
    /// Not at all: a server or a program may be behind the file system.
    Never,
}

impl Inline {
    /// Only file systems known to be local take part; whatever is unknown may
    /// wait for someone and gets a thread.
    pub(crate) fn of(file_system: &StatFs) -> Self {
        match file_system.f_type as u64 {
            EXT4 | BTRFS | XFS | F2FS => Self::IfCached,
            TMPFS | RAMFS | OVERLAY => Self::Always,
            _ => Self::Never,
        }
    }
}

/// Reads at `offset` until `buffer` is full or the file ends, without waiting.
/// Nothing is returned when that needs someone to be waited for.
pub(crate) fn read_inline(
    file: impl AsFd,
    buffer: &mut [u8],
    offset: u64,
    inline: Inline,
) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let (rest, at) = (&mut buffer[filled..], offset.checked_add(filled as u64)?);
        let read = match inline {
            Inline::Never => return None,
            Inline::Always => rustix::io::pread(&file, rest, at),
            Inline::IfCached => {
                let mut rest = [std::io::IoSliceMut::new(rest)];
                rustix::io::preadv2(&file, &mut rest, at, ReadWriteFlags::NOWAIT)
            }
        };
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(filled)
}

/// Reads at `offset` until `buffer` is full or the file ends.
pub(crate) fn read_full(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset.checked_add(filled as u64).ok_or(Errno::INVAL)?;
        match rustix::io::pread(&file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Writes all of `data` at `offset`; `written` says how far it came.
pub(crate) fn write_full(
    file: impl AsFd,
    data: &[u8],
    offset: u64,
    written: &mut u64,
) -> Result<(), Errno> {
    let mut rest = data;
    while !rest.is_empty() {
        let at = offset.checked_add(*written).ok_or(Errno::FBIG)?;
        match rustix::io::pwrite(&file, rest, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                rest = &rest[count..];
                *written += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The size that a file says it has, in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// What so many blocks, as the system counts them, take in bytes.
pub(crate) fn on_disk(blocks: i64) -> u64 {
    u64::try_from(blocks).unwrap_or(0).saturating_mul(512)
}
