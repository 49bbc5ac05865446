//! Open files that a plugin holds by name, and the operations on them.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use outrigger_wire::proto::hostserve::*;
use rustix::fs::Stat;
use rustix::io::Errno;
use tokio::sync::OwnedSemaphorePermit;

use crate::area::{self, Access, INLINE, Inline, Opening, Place};
use crate::fault::Fault;
use crate::mode;
use crate::session::Session;
use crate::temp;

/// One open file, lent to one connection until it is closed or the connection
/// ends. The permit counts it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) file: OwnedFd,
    pub(crate) inline: Inline,
    pub(crate) append: Append,
    name: String,
    access: Access,
    /// Where the next read or write without an offset happens. Ours rather than
    /// the kernel's, whose lock would let one slow read hold up a connection.
    position: AtomicU64,
    _slot: OwnedSemaphorePermit,
}

/// Where writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Append {
    /// Where they say.
    No,
    /// To the end, whatever they say.
    Yes,
}

impl Lease {
    fn new(
        place: &Place<'_>,
        file: OwnedFd,
        stat: &Stat,
        append: Append,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            file,
            inline: place.area.inline_for(stat),
            append,
            name: place.file_name(),
            access: place.access,
            position: AtomicU64::new(0),
            _slot: slot,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    pub(crate) fn move_to(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Writes at the position and moves it.
    pub(crate) fn write_on(&self, data: &[u8]) -> Result<(), Fault> {
        let at = self.position();
        area::write_full(&self.file, data, at)?;
        match self.append {
            Append::No => self.move_to(at + data.len() as u64),
            Append::Yes => self.move_to(size(&rustix::fs::fstat(&self.file)?)),
        }
        Ok(())
    }

    /// Writes at `offset`; the position stays.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> Result<(), Fault> {
        match self.append {
            Append::No => Ok(area::write_full(&self.file, data, offset)?),
            Append::Yes => Err(Fault::Failed("the file is open for appending".into())),
        }
    }

    /// Refuses a change of the file itself where only reading is granted.
    fn writable(&self) -> Result<(), Fault> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Fault::Refused("the granted directory is read-only")),
        }
    }
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// How the contract's flags open a file.
fn opening(request: &FileOpenRequest) -> Result<(Opening, Append), Fault> {
    let flags = OpenFileFlags::try_from(request.flags)
        .map_err(|_| Fault::Abuse("`flags` is not one of the contract's values"))?;
    let mode = mode::permissions(request.perm).as_raw_mode();
    let none = Opening {
        mode,
        ..Opening::default()
    };
    let write = Opening {
        write: true,
        create: true,
        ..none
    };
    let both = Opening {
        read: true,
        write: true,
        ..none
    };
    Ok(match flags {
        OpenFileFlags::Unspecified | OpenFileFlags::ReadOnly => (Opening::READ, Append::No),
        OpenFileFlags::WriteCreateTruncate => (
            Opening {
                truncate: true,
                ..write
            },
            Append::No,
        ),
        OpenFileFlags::WriteCreateAppend => (
            Opening {
                append: true,
                ..write
            },
            Append::Yes,
        ),
        OpenFileFlags::WriteCreateExclusive => (
            Opening {
                exclusive: true,
                ..write
            },
            Append::No,
        ),
        OpenFileFlags::ReadWrite => (both, Append::No),
        OpenFileFlags::ReadWriteCreate => (
            Opening {
                create: true,
                ..both
            },
            Append::No,
        ),
        OpenFileFlags::ReadWriteCreateTruncate => (
            Opening {
                create: true,
                truncate: true,
                ..both
            },
            Append::No,
        ),
        OpenFileFlags::ReadWriteCreateAppend => (
            Opening {
                create: true,
                append: true,
                ..both
            },
            Append::Yes,
        ),
    })
}

fn lend(
    session: &Session,
    place: &Place<'_>,
    how: Opening,
    append: Append,
) -> Result<(String, u64), Fault> {
    let slot = session.slot()?;
    let (file, stat) = place.open(how)?;
    let lease = Lease::new(place, file.into(), &stat, append, slot);
    Ok((session.lend(lease), size(&stat)))
}

pub(crate) fn create(
    session: &Session,
    request: &FileCreateRequest,
) -> Result<FileCreateResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let how = Opening {
        read: true,
        write: true,
        create: true,
        truncate: true,
        mode: 0o666,
        ..Opening::default()
    };
    let (handle, _) = lend(session, &place, how, Append::No)?;
    Ok(FileCreateResponse {
        handle,
        error: None,
    })
}

pub(crate) fn create_temp(
    session: &Session,
    request: &FileCreateTempRequest,
) -> Result<FileCreateTempResponse, Fault> {
    let (before, after) = temp::split_pattern(&request.pattern)?;
    let how = Opening {
        read: true,
        write: true,
        create: true,
        exclusive: true,
        mode: 0o600,
        ..Opening::default()
    };
    let mut lent = None;
    temp::free_name(before, after, |name| {
        match session
            .in_temp(name)
            .and_then(|place| lend(session, &place, how, Append::No))
        {
            Err(Fault::System(errno)) => Err(errno),
            outcome => {
                lent = Some(outcome);
                Ok(())
            }
        }
    })?;
    let (handle, _) = lent.unwrap_or(Err(Fault::Broken))?;
    Ok(FileCreateTempResponse {
        handle,
        error: None,
    })
}

pub(crate) fn open_now(
    session: &Session,
    request: &FileOpenRequest,
) -> Option<Result<FileOpenResponse, Fault>> {
    let (how, append) = match opening(request) {
        Ok(how) => how,
        Err(fault) => return Some(Err(fault)),
    };
    if how != Opening::READ {
        return None;
    }
    let place = match session.place(&request.root_dir, &request.path) {
        Ok(place) => place,
        Err(fault) => return Some(Err(fault)),
    };
    let slot = match session.slot() {
        Ok(slot) => slot,
        Err(fault) => return Some(Err(fault)),
    };
    let (file, stat) = place.open_cached()?;
    let handle = session.lend(Lease::new(&place, file, &stat, append, slot));
    Some(Ok(FileOpenResponse {
        handle,
        size: size(&stat),
        error: None,
    }))
}

pub(crate) fn open(
    session: &Session,
    request: &FileOpenRequest,
) -> Result<FileOpenResponse, Fault> {
    let (how, append) = opening(request)?;
    let place = session.place(&request.root_dir, &request.path)?;
    let (handle, size) = lend(session, &place, how, append)?;
    Ok(FileOpenResponse {
        handle,
        size,
        error: None,
    })
}

pub(crate) fn stat(
    session: &Session,
    request: &FileStatRequest,
) -> Result<FileStatResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    let stat = rustix::fs::fstat(&lease.file)?;
    Ok(FileStatResponse {
        info: Some(info(lease.name.clone(), &stat)),
        error: None,
    })
}

pub(crate) fn seek(
    session: &Session,
    request: &FileSeekRequest,
) -> Result<FileSeekResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    // The contract sends a signed distance in an unsigned field.
    let distance = request.offset.cast_signed();
    let target = match request.whence {
        0 => u64::try_from(distance).ok(),
        1 => lease.position().checked_add_signed(distance),
        2 => size(&rustix::fs::fstat(&lease.file)?).checked_add_signed(distance),
        _ => return Err(Fault::Abuse("`whence` is none of 0, 1 and 2")),
    };
    let new_offset = target
        .filter(|at| i64::try_from(*at).is_ok())
        .ok_or(Fault::System(Errno::INVAL))?;
    lease.move_to(new_offset);
    Ok(FileSeekResponse {
        new_offset,
        error: None,
    })
}

pub(crate) fn sync(
    session: &Session,
    request: &FileSyncRequest,
) -> Result<FileSyncResponse, Fault> {
    rustix::fs::fsync(&session.lease(&request.handle)?.file)?;
    Ok(FileSyncResponse { error: None })
}

/// Closes on the spot what closes without work for the file system.
pub(crate) fn close_now(
    session: &Session,
    request: &FileCloseRequest,
) -> Option<Result<FileCloseResponse, Fault>> {
    let lease = match session.lease(&request.handle) {
        Ok(lease) => lease,
        Err(fault) => return Some(Err(fault)),
    };
    let stat = rustix::fs::fstat(&lease.file).ok()?;
    // The last name is gone: closing frees the file's blocks, which may take long.
    if lease.inline == Inline::Never || stat.st_nlink == 0 {
        return None;
    }
    Some(close(session, request))
}

pub(crate) fn close(
    session: &Session,
    request: &FileCloseRequest,
) -> Result<FileCloseResponse, Fault> {
    drop(session.give_back(&request.handle)?);
    Ok(FileCloseResponse { error: None })
}

pub(crate) fn truncate(
    session: &Session,
    request: &FileTruncateRequest,
) -> Result<FileTruncateResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    let size = u64::try_from(request.size).map_err(|_| Fault::System(Errno::INVAL))?;
    // The kernel refuses it for a file that was not opened for writing.
    rustix::fs::ftruncate(&lease.file, size)?;
    Ok(FileTruncateResponse { error: None })
}

pub(crate) fn chmod(
    session: &Session,
    request: &FileChmodRequest,
) -> Result<FileChmodResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    lease.writable()?;
    rustix::fs::fchmod(&lease.file, mode_to_set(request.mode)?)?;
    Ok(FileChmodResponse { error: None })
}

pub(crate) fn chown(
    session: &Session,
    request: &FileChownRequest,
) -> Result<FileChownResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    lease.writable()?;
    let (uid, gid) = session.owners(request.uid, request.gid)?;
    rustix::fs::fchown(&lease.file, uid, gid)?;
    Ok(FileChownResponse { error: None })
}

/// The length to read, if one reply can carry it.
fn section(session: &Session, request: &FileReadSectionRequest) -> Result<usize, Fault> {
    let (length, limit) = (request.length as usize, session.limits().payload());
    if length > limit {
        return Err(Fault::Exhausted(format!(
            "a section has at most {limit} bytes (`message`)"
        )));
    }
    Ok(length)
}

pub(crate) fn read_section_now(
    session: &Session,
    request: &FileReadSectionRequest,
) -> Option<Result<FileReadSectionResponse, Fault>> {
    let checked =
        section(session, request).and_then(|length| Ok((length, session.lease(&request.handle)?)));
    let (length, lease) = match checked {
        Ok(checked) => checked,
        Err(fault) => return Some(Err(fault)),
    };
    if length > INLINE {
        return None;
    }
    let mut contents = vec![0; length];
    let read = area::read_inline(&lease.file, &mut contents, request.offset, lease.inline)?;
    contents.truncate(read);
    Some(Ok(FileReadSectionResponse {
        contents: contents.into(),
        error: None,
    }))
}

pub(crate) fn read_section(
    session: &Session,
    request: &FileReadSectionRequest,
) -> Result<FileReadSectionResponse, Fault> {
    let length = section(session, request)?;
    let lease = session.lease(&request.handle)?;
    let mut contents = vec![0; length];
    let read = area::read_full(&lease.file, &mut contents, request.offset)?;
    contents.truncate(read);
    Ok(FileReadSectionResponse {
        contents: contents.into(),
        error: None,
    })
}

/// Writes at most `max_length` bytes of `data` (all when it is 0). `perm` has
/// no meaning for an open file.
pub(crate) fn write_section(
    session: &Session,
    request: &FileWriteSectionRequest,
) -> Result<FileWriteSectionResponse, Fault> {
    let lease = session.lease(&request.handle)?;
    let data: &Bytes = &request.data;
    let length = match request.max_length {
        0 => data.len(),
        most => data.len().min(most as usize),
    };
    lease.write_at(&data[..length], request.offset)?;
    let bytes_written = u32::try_from(length).map_err(|_| Fault::Broken)?;
    Ok(FileWriteSectionResponse {
        bytes_written,
        error: None,
    })
}

/// What a reply says about a file.
pub(crate) fn info(name: String, stat: &Stat) -> FileInfo {
    let mode = mode::from_unix(stat.st_mode);
    FileInfo {
        name,
        size: stat.st_size,
        mode,
        mod_time: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }),
        is_dir: mode & (1 << 31) != 0,
    }
}

/// A mode that a plugin may set: permission bits only. Others lend authority.
pub(crate) fn mode_to_set(go: u32) -> Result<rustix::fs::Mode, Fault> {
    if go & mode::SPECIAL != 0 {
        return Err(Fault::Refused(
            "set-user-id, set-group-id and sticky bits are not granted",
        ));
    }
    Ok(mode::permissions(go))
}
