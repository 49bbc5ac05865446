//! The operations of `hostserve.v1` on files: where its `root_dir` and `path`
//! lead, and what its flags and modes mean.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use outrigger_wire::proto::hostserve::*;
use rustix::fs::{FileType, Stat};

use crate::fault::Fault;
use crate::fs::attributes::{self, NamedStat, Owners};
use crate::fs::call::FileCall;
use crate::fs::contents::Replace;
use crate::fs::io::size;
use crate::fs::mode;
use crate::fs::open_file::OpenFile;
use crate::fs::operations::path_text;
use crate::fs::paths::{MAX_PATH, check_path, clean, leaves_start};
use crate::fs::place::Opening;
use crate::fs::requested_path::RequestedPath;
use crate::fs::resolve::Follow;

/// What an entry of a listing takes beside its name, in bytes, at most.
const ENTRY_OVERHEAD: usize = 12;

/// Where `path`, seen from `root_dir`, is.
///
/// `root_dir` is no authority: it is relative to the first granted directory,
/// or an absolute name, and what lies there must be granted like anything else.
/// An absolute `path` stands for itself; a relative one may not lead above
/// `root_dir` by its text. An empty one, and `.`, mean `root_dir` itself, file or
/// directory; and slashes at the end of either say nothing, for the contract's own
/// host joins both with Go's `filepath.Join`.
fn wanted(call: &FileCall, root_dir: &str, path: &str) -> Result<RequestedPath, Fault> {
    check_path(root_dir)?;
    check_path(path)?;
    // What the slashes separate, without a slash at the end.
    let steps = |text| Path::new(text).components().collect::<PathBuf>();
    let (root_dir, path) = (steps(root_dir), steps(path));
    if path.is_absolute() {
        return Ok(RequestedPath::absolute(path));
    }
    if leaves_start(&path) {
        return Err(Fault::Outside);
    }
    let root_dir = match root_dir.is_absolute() {
        true => clean(&root_dir),
        false => root_dir,
    };
    let all = root_dir.components().chain(path.components());
    let joined: PathBuf = all.filter(|step| *step != Component::CurDir).collect();
    if joined.as_os_str().len() >= MAX_PATH {
        return Err(Fault::System(rustix::io::Errno::NAMETOOLONG));
    }
    if root_dir.is_absolute() {
        Ok(RequestedPath::absolute(joined))
    } else {
        RequestedPath::in_first(&call.files, joined)
    }
}

/// What a reply says about a file.
fn info(name: String, stat: &Stat) -> Option<FileInfo> {
    let mode = mode::from_unix(stat.st_mode);
    Some(FileInfo {
        name,
        size: stat.st_size,
        mode,
        mod_time: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }),
        is_dir: mode & (1 << 31) != 0,
    })
}

fn mode_to_set(go: u32) -> Result<rustix::fs::Mode, Fault> {
    attributes::mode_to_set(go & mode::SPECIAL != 0, go)
}

/// The contract writes −1 for an owner that stays.
fn owners(call: &FileCall, uid: i32, gid: i32) -> Result<Owners, Fault> {
    let id = |id: i32| match id {
        -1 => Ok(None),
        id => u32::try_from(id)
            .map(Some)
            .map_err(|_| Fault::System(rustix::io::Errno::INVAL)),
    };
    Owners::new(call, id(uid)?, id(gid)?)
}

pub(super) fn read_dir(
    call: &FileCall,
    request: &ReadDirRequest,
) -> Result<ReadDirResponse, Fault> {
    let mut listing = call.listing(&wanted(call, &request.root_dir, &request.path)?)?;
    let limits = call.session.limits();
    let (most, mut room) = (limits.list_entries, limits.payload());
    let mut entries = Vec::new();
    listing.each(|name, kind| {
        // The contract has no other way to write a name that is not UTF-8.
        let name = name.to_string_lossy().into_owned();
        room = match room.checked_sub(name.len() + ENTRY_OVERHEAD) {
            Some(room) if entries.len() < most => room,
            _ => {
                let text = format!("the directory has more than {} entries", entries.len());
                let text = format!("{text} (`list_entries`, `message`)");
                return Err(Fault::exhausted("directory-too-large", text));
            }
        };
        entries.push(DirEntry {
            name,
            is_dir: kind == FileType::Directory,
        });
        Ok(())
    })?;
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(ReadDirResponse {
        entries,
        error: None,
    })
}

fn contents(contents: Vec<u8>) -> ReadFileResponse {
    ReadFileResponse {
        contents: contents.into(),
        error: None,
    }
}

pub(super) fn read_file(
    call: &FileCall,
    request: &ReadFileRequest,
) -> Result<ReadFileResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    call.read_file(&wanted, "open it and use FileReader")
        .map(contents)
}

pub(super) fn write_file(
    call: &FileCall,
    request: &WriteFileRequest,
) -> Result<WriteFileResponse, Fault> {
    let how = Opening {
        write: true,
        create: true,
        truncate: true,
        mode: request.perm & 0o777,
        ..Opening::default()
    };
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    call.write_file(&wanted, how, &request.data)?;
    Ok(WriteFileResponse { error: None })
}

fn stated(known: NamedStat) -> StatResponse {
    StatResponse {
        info: info(known.name, &known.stat),
        error: None,
    }
}

pub(super) fn stat(call: &FileCall, request: &StatRequest) -> Result<StatResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    call.stat(&wanted).map(stated)
}

pub(super) fn lstat(call: &FileCall, request: &LstatRequest) -> Result<LstatResponse, Fault> {
    let known = call.lstat(&wanted(call, &request.root_dir, &request.path)?)?;
    Ok(LstatResponse {
        info: info(known.name, &known.stat),
        error: None,
    })
}

pub(super) fn rename(call: &FileCall, request: &RenameRequest) -> Result<RenameResponse, Fault> {
    let from = wanted(call, &request.root_dir, &request.old_name)?;
    let to = wanted(call, &request.root_dir, &request.new_name)?;
    call.rename(&from, &to, Replace::Yes)?;
    Ok(RenameResponse { error: None })
}

pub(super) fn remove(call: &FileCall, request: &RemoveRequest) -> Result<RemoveResponse, Fault> {
    call.remove(&wanted(call, &request.root_dir, &request.path)?)?;
    Ok(RemoveResponse { error: None })
}

pub(super) fn remove_all(
    call: &FileCall,
    request: &RemoveAllRequest,
) -> Result<RemoveAllResponse, Fault> {
    call.remove_all(&wanted(call, &request.root_dir, &request.path)?)?;
    Ok(RemoveAllResponse { error: None })
}

pub(super) fn mkdir(call: &FileCall, request: &MkdirRequest) -> Result<MkdirResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.name)?;
    call.mkdir(&wanted, mode::permissions(request.perm))?;
    Ok(MkdirResponse { error: None })
}

pub(super) fn mkdir_all(
    call: &FileCall,
    request: &MkdirAllRequest,
) -> Result<MkdirAllResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    call.mkdir_all(&wanted, mode::permissions(request.perm))?;
    Ok(MkdirAllResponse { error: None })
}

/// Always in the plugin's own temporary directory, whatever `root_dir` says.
pub(super) fn mkdir_temp(
    call: &FileCall,
    request: &MkdirTempRequest,
) -> Result<MkdirTempResponse, Fault> {
    let path = path_text(call.temp_dir(&request.pattern)?)?;
    Ok(MkdirTempResponse { path, error: None })
}

pub(super) fn chmod(call: &FileCall, request: &ChmodRequest) -> Result<ChmodResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    call.chmod(&wanted, mode_to_set(request.mode)?)?;
    Ok(ChmodResponse { error: None })
}

pub(super) fn chown(call: &FileCall, request: &ChownRequest) -> Result<ChownResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    let owners = owners(call, request.uid, request.gid)?;
    call.chown(&wanted, owners, Follow::Yes)?;
    Ok(ChownResponse { error: None })
}

pub(super) fn lchown(call: &FileCall, request: &LchownRequest) -> Result<LchownResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    let owners = owners(call, request.uid, request.gid)?;
    call.chown(&wanted, owners, Follow::No)?;
    Ok(LchownResponse { error: None })
}

pub(super) fn chtimes(call: &FileCall, request: &ChtimesRequest) -> Result<ChtimesResponse, Fault> {
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    let times = attributes::times(request.atime.as_ref(), request.mtime.as_ref())?;
    call.chtimes(&wanted, &times)?;
    Ok(ChtimesResponse { error: None })
}

pub(super) fn readlink(
    call: &FileCall,
    request: &ReadlinkRequest,
) -> Result<ReadlinkResponse, Fault> {
    let destination = call.read_link(&wanted(call, &request.root_dir, &request.path)?)?;
    Ok(ReadlinkResponse {
        destination,
        error: None,
    })
}

pub(super) fn link(call: &FileCall, request: &LinkRequest) -> Result<LinkResponse, Fault> {
    let old = wanted(call, &request.root_dir, &request.old_path)?;
    let new = wanted(call, &request.root_dir, &request.new_path)?;
    call.link(&old, &new)?;
    Ok(LinkResponse { error: None })
}

pub(super) fn symlink(call: &FileCall, request: &SymlinkRequest) -> Result<SymlinkResponse, Fault> {
    let new = wanted(call, &request.root_dir, &request.new_path)?;
    call.symlink(&request.old_path, &new)?;
    Ok(SymlinkResponse { error: None })
}

/// How the contract's flags open a file.
fn opening(request: &FileOpenRequest) -> Result<Opening, Fault> {
    let flags = OpenFileFlags::try_from(request.flags)
        .map_err(|_| Fault::abuse("`flags` is not one of the contract's values"))?;
    let none = Opening {
        mode: request.perm & 0o777,
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
        OpenFileFlags::Unspecified | OpenFileFlags::ReadOnly => Opening::READ,
        OpenFileFlags::WriteCreateTruncate => Opening {
            truncate: true,
            ..write
        },
        OpenFileFlags::WriteCreateAppend => Opening {
            append: true,
            ..write
        },
        OpenFileFlags::WriteCreateExclusive => Opening {
            exclusive: true,
            ..write
        },
        OpenFileFlags::ReadWrite => both,
        OpenFileFlags::ReadWriteCreate => Opening {
            create: true,
            ..both
        },
        OpenFileFlags::ReadWriteCreateTruncate => Opening {
            create: true,
            truncate: true,
            ..both
        },
        OpenFileFlags::ReadWriteCreateAppend => Opening {
            create: true,
            append: true,
            ..both
        },
    })
}

pub(super) fn file_create(
    call: &FileCall,
    request: &FileCreateRequest,
) -> Result<FileCreateResponse, Fault> {
    let how = Opening {
        read: true,
        write: true,
        create: true,
        truncate: true,
        mode: 0o666,
        ..Opening::default()
    };
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    let lent = call.lend(&wanted, how)?;
    Ok(FileCreateResponse {
        handle: lent.lease,
        error: None,
    })
}

/// Always in the plugin's own temporary directory, whatever `root_dir` says.
pub(super) fn file_create_temp(
    call: &FileCall,
    request: &FileCreateTempRequest,
) -> Result<FileCreateTempResponse, Fault> {
    let (handle, _) = call.temp_file(&request.pattern)?;
    Ok(FileCreateTempResponse {
        handle,
        error: None,
    })
}

pub(super) fn file_open(
    call: &FileCall,
    request: &FileOpenRequest,
) -> Result<FileOpenResponse, Fault> {
    let how = opening(request)?;
    let wanted = wanted(call, &request.root_dir, &request.path)?;
    let lent = call.lend(&wanted, how)?;
    Ok(FileOpenResponse {
        handle: lent.lease,
        size: size(&lent.stat),
        error: None,
    })
}

pub(super) fn file_stat(
    call: &FileCall,
    request: &FileStatRequest,
) -> Result<FileStatResponse, Fault> {
    let file = call.file(&request.handle)?;
    Ok(FileStatResponse {
        info: info(file.name.clone(), &file.stat()?),
        error: None,
    })
}

pub(super) fn file_seek(
    call: &FileCall,
    request: &FileSeekRequest,
) -> Result<FileSeekResponse, Fault> {
    // The contract sends a signed distance in an unsigned field.
    let distance = request.offset.cast_signed();
    let new_offset = call.file(&request.handle)?.seek(distance, request.whence)?;
    Ok(FileSeekResponse {
        new_offset,
        error: None,
    })
}

pub(super) fn file_sync(
    call: &FileCall,
    request: &FileSyncRequest,
) -> Result<FileSyncResponse, Fault> {
    rustix::fs::fsync(&call.file(&request.handle)?.file)?;
    Ok(FileSyncResponse { error: None })
}

pub(super) fn file_close(
    call: &FileCall,
    request: &FileCloseRequest,
) -> Result<FileCloseResponse, Fault> {
    if !call.may_wait && !call.file(&request.handle)?.closes_at_once() {
        return Err(Fault::WouldWait);
    }
    drop(call.session.give_back::<OpenFile>(&request.handle)?);
    Ok(FileCloseResponse { error: None })
}

pub(super) fn file_truncate(
    call: &FileCall,
    request: &FileTruncateRequest,
) -> Result<FileTruncateResponse, Fault> {
    let file = call.file(&request.handle)?;
    let size = u64::try_from(request.size).map_err(|_| Fault::System(rustix::io::Errno::INVAL))?;
    call.resize(&file.file, file.storage, size)?;
    Ok(FileTruncateResponse { error: None })
}

pub(super) fn file_chmod(
    call: &FileCall,
    request: &FileChmodRequest,
) -> Result<FileChmodResponse, Fault> {
    let file = call.file(&request.handle)?;
    call.may_change(&file)?;
    rustix::fs::fchmod(&file.file, mode_to_set(request.mode)?)?;
    Ok(FileChmodResponse { error: None })
}

pub(super) fn file_chown(
    call: &FileCall,
    request: &FileChownRequest,
) -> Result<FileChownResponse, Fault> {
    let file = call.file(&request.handle)?;
    call.may_change(&file)?;
    owners(call, request.uid, request.gid)?.give(&file.file)?;
    Ok(FileChownResponse { error: None })
}

/// The length to read, if one reply can carry it.
fn section(call: &FileCall, request: &FileReadSectionRequest) -> Result<usize, Fault> {
    call.session.may_move()?;
    let (length, limit) = (request.length as usize, call.session.limits().payload());
    if length > limit {
        let text = format!("a section has at most {limit} bytes (`message`)");
        return Err(Fault::exhausted("read-too-long", text));
    }
    Ok(length)
}

fn got(call: &FileCall, contents: Vec<u8>) -> FileReadSectionResponse {
    call.got(contents.len() as u64);
    FileReadSectionResponse {
        contents: contents.into(),
        error: None,
    }
}

pub(super) fn file_read_section(
    call: &FileCall,
    request: &FileReadSectionRequest,
) -> Result<FileReadSectionResponse, Fault> {
    let length = section(call, request)?;
    let contents = call
        .file(&request.handle)?
        .read(length, request.offset, call.may_wait)?;
    Ok(got(call, contents))
}

/// Writes at most `max_length` bytes of `data` (all when it is 0). `perm` has
/// no meaning for an open file.
pub(super) fn file_write_section(
    call: &FileCall,
    request: &FileWriteSectionRequest,
) -> Result<FileWriteSectionResponse, Fault> {
    call.session.may_move()?;
    let file = call.file(&request.handle)?;
    let data: &Bytes = &request.data;
    let length = match request.max_length {
        0 => data.len(),
        most => data.len().min(most as usize),
    };
    call.write_at(&file, &data[..length], request.offset)?;
    call.session.charge(length as u64);
    let bytes_written = u32::try_from(length).map_err(|_| Fault::Broken)?;
    Ok(FileWriteSectionResponse {
        bytes_written,
        error: None,
    })
}
