//! The operations of `hostserve.v1` on files: where its `root_dir` and `path`
//! lead, and what its flags and modes mean.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use outrigger_wire::proto::hostserve::*;
use rustix::fs::{FileType, Stat};

use crate::fault::Fault;
use crate::fs::area::{self, Opening};
use crate::fs::open::{OpenFile, size};
use crate::fs::ops::{self, Owners, Replace};
use crate::fs::{Cx, Follow, Wanted, mode};

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
fn wanted(cx: &Cx, root_dir: &str, path: &str) -> Result<Wanted, Fault> {
    area::check_path(root_dir)?;
    area::check_path(path)?;
    // What the slashes separate, without a slash at the end.
    let steps = |text| Path::new(text).components().collect::<PathBuf>();
    let (root_dir, path) = (steps(root_dir), steps(path));
    if path.is_absolute() {
        return Ok(Wanted::absolute(path));
    }
    if area::leaves_start(&path) {
        return Err(Fault::Outside);
    }
    let root_dir = match root_dir.is_absolute() {
        true => area::clean(&root_dir),
        false => root_dir,
    };
    let all = root_dir.components().chain(path.components());
    let joined: PathBuf = all.filter(|step| *step != Component::CurDir).collect();
    if joined.as_os_str().len() >= area::MAX_PATH {
        return Err(Fault::System(rustix::io::Errno::NAMETOOLONG));
    }
    if root_dir.is_absolute() {
        Ok(Wanted::absolute(joined))
    } else {
        Wanted::in_first(&cx.session, joined)
    }
}

/// The same as the value of an expression that may be tried on the spot.
macro_rules! now {
    ($expression:expr) => {
        match $expression {
            Ok(value) => value,
            Err(fault) => return Some(Err(fault)),
        }
    };
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
    ops::mode_to_set(go & mode::SPECIAL != 0, go)
}

/// The contract writes −1 for an owner that stays.
fn owners(cx: &Cx, uid: i32, gid: i32) -> Result<Owners, Fault> {
    let id = |id: i32| match id {
        -1 => Ok(None),
        id => u32::try_from(id)
            .map(Some)
            .map_err(|_| Fault::System(rustix::io::Errno::INVAL)),
    };
    Owners::new(cx, id(uid)?, id(gid)?)
}

pub(super) fn read_dir(cx: &Cx, request: &ReadDirRequest) -> Result<ReadDirResponse, Fault> {
    let mut listing = cx.listing(&wanted(cx, &request.root_dir, &request.path)?)?;
    let limits = cx.session.limits();
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

pub(super) fn read_file_now(
    cx: &Cx,
    request: &ReadFileRequest,
) -> Option<Result<ReadFileResponse, Fault>> {
    let wanted = now!(wanted(cx, &request.root_dir, &request.path));
    Some(cx.read_file_now(&wanted)?.map(contents))
}

pub(super) fn read_file(cx: &Cx, request: &ReadFileRequest) -> Result<ReadFileResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    cx.read_file(&wanted, "open it and use FileReader")
        .map(contents)
}

pub(super) fn write_file(cx: &Cx, request: &WriteFileRequest) -> Result<WriteFileResponse, Fault> {
    let how = Opening {
        write: true,
        create: true,
        truncate: true,
        mode: request.perm & 0o777,
        ..Opening::default()
    };
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    cx.write_file(&wanted, how, &request.data)?;
    Ok(WriteFileResponse { error: None })
}

fn stated(known: ops::Known) -> StatResponse {
    StatResponse {
        info: info(known.name, &known.stat),
        error: None,
    }
}

pub(super) fn stat_now(cx: &Cx, request: &StatRequest) -> Option<Result<StatResponse, Fault>> {
    let wanted = now!(wanted(cx, &request.root_dir, &request.path));
    Some(cx.stat_now(&wanted)?.map(stated))
}

pub(super) fn stat(cx: &Cx, request: &StatRequest) -> Result<StatResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    cx.stat(&wanted).map(stated)
}

pub(super) fn lstat(cx: &Cx, request: &LstatRequest) -> Result<LstatResponse, Fault> {
    let known = cx.lstat(&wanted(cx, &request.root_dir, &request.path)?)?;
    Ok(LstatResponse {
        info: info(known.name, &known.stat),
        error: None,
    })
}

pub(super) fn rename(cx: &Cx, request: &RenameRequest) -> Result<RenameResponse, Fault> {
    let from = wanted(cx, &request.root_dir, &request.old_name)?;
    let to = wanted(cx, &request.root_dir, &request.new_name)?;
    cx.rename(&from, &to, Replace::Yes)?;
    Ok(RenameResponse { error: None })
}

pub(super) fn remove(cx: &Cx, request: &RemoveRequest) -> Result<RemoveResponse, Fault> {
    cx.remove(&wanted(cx, &request.root_dir, &request.path)?)?;
    Ok(RemoveResponse { error: None })
}

pub(super) fn remove_all(cx: &Cx, request: &RemoveAllRequest) -> Result<RemoveAllResponse, Fault> {
    cx.remove_all(&wanted(cx, &request.root_dir, &request.path)?)?;
    Ok(RemoveAllResponse { error: None })
}

pub(super) fn mkdir(cx: &Cx, request: &MkdirRequest) -> Result<MkdirResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.name)?;
    cx.mkdir(&wanted, mode::permissions(request.perm))?;
    Ok(MkdirResponse { error: None })
}

pub(super) fn mkdir_all(cx: &Cx, request: &MkdirAllRequest) -> Result<MkdirAllResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    cx.mkdir_all(&wanted, mode::permissions(request.perm))?;
    Ok(MkdirAllResponse { error: None })
}

/// Always in the plugin's own temporary directory, whatever `root_dir` says.
pub(super) fn mkdir_temp(cx: &Cx, request: &MkdirTempRequest) -> Result<MkdirTempResponse, Fault> {
    let path: PathBuf = cx.temp_dir(&request.pattern)?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| Fault::failed("the temporary directory is not UTF-8"))?;
    Ok(MkdirTempResponse { path, error: None })
}

pub(super) fn chmod(cx: &Cx, request: &ChmodRequest) -> Result<ChmodResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    cx.chmod(&wanted, mode_to_set(request.mode)?)?;
    Ok(ChmodResponse { error: None })
}

pub(super) fn chown(cx: &Cx, request: &ChownRequest) -> Result<ChownResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    let owners = owners(cx, request.uid, request.gid)?;
    cx.chown(&wanted, owners, Follow::Yes)?;
    Ok(ChownResponse { error: None })
}

pub(super) fn lchown(cx: &Cx, request: &LchownRequest) -> Result<LchownResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    let owners = owners(cx, request.uid, request.gid)?;
    cx.chown(&wanted, owners, Follow::No)?;
    Ok(LchownResponse { error: None })
}

pub(super) fn chtimes(cx: &Cx, request: &ChtimesRequest) -> Result<ChtimesResponse, Fault> {
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    let times = ops::times(request.atime.as_ref(), request.mtime.as_ref())?;
    cx.chtimes(&wanted, &times)?;
    Ok(ChtimesResponse { error: None })
}

pub(super) fn readlink(cx: &Cx, request: &ReadlinkRequest) -> Result<ReadlinkResponse, Fault> {
    let destination = cx.read_link(&wanted(cx, &request.root_dir, &request.path)?)?;
    Ok(ReadlinkResponse {
        destination,
        error: None,
    })
}

pub(super) fn link(cx: &Cx, request: &LinkRequest) -> Result<LinkResponse, Fault> {
    let old = wanted(cx, &request.root_dir, &request.old_path)?;
    let new = wanted(cx, &request.root_dir, &request.new_path)?;
    cx.link(&old, &new)?;
    Ok(LinkResponse { error: None })
}

pub(super) fn symlink(cx: &Cx, request: &SymlinkRequest) -> Result<SymlinkResponse, Fault> {
    let new = wanted(cx, &request.root_dir, &request.new_path)?;
    cx.symlink(&request.old_path, &new)?;
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
    cx: &Cx,
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
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    let (handle, ..) = cx.lend(&wanted, how)?;
    Ok(FileCreateResponse {
        handle,
        error: None,
    })
}

/// Always in the plugin's own temporary directory, whatever `root_dir` says.
pub(super) fn file_create_temp(
    cx: &Cx,
    request: &FileCreateTempRequest,
) -> Result<FileCreateTempResponse, Fault> {
    let (handle, _) = cx.temp_file(&request.pattern)?;
    Ok(FileCreateTempResponse {
        handle,
        error: None,
    })
}

pub(super) fn file_open_now(
    cx: &Cx,
    request: &FileOpenRequest,
) -> Option<Result<FileOpenResponse, Fault>> {
    if now!(opening(request)) != Opening::READ {
        return None;
    }
    let wanted = now!(wanted(cx, &request.root_dir, &request.path));
    let (handle, _, stat) = now!(cx.lend_now(&wanted)?);
    Some(Ok(FileOpenResponse {
        handle,
        size: size(&stat),
        error: None,
    }))
}

pub(super) fn file_open(cx: &Cx, request: &FileOpenRequest) -> Result<FileOpenResponse, Fault> {
    let how = opening(request)?;
    let wanted = wanted(cx, &request.root_dir, &request.path)?;
    let (handle, _, stat) = cx.lend(&wanted, how)?;
    Ok(FileOpenResponse {
        handle,
        size: size(&stat),
        error: None,
    })
}

pub(super) fn file_stat(cx: &Cx, request: &FileStatRequest) -> Result<FileStatResponse, Fault> {
    let file = cx.file(&request.handle)?;
    Ok(FileStatResponse {
        info: info(file.name.clone(), &file.stat()?),
        error: None,
    })
}

pub(super) fn file_seek(cx: &Cx, request: &FileSeekRequest) -> Result<FileSeekResponse, Fault> {
    // The contract sends a signed distance in an unsigned field.
    let distance = request.offset.cast_signed();
    let new_offset = cx.file(&request.handle)?.seek(distance, request.whence)?;
    Ok(FileSeekResponse {
        new_offset,
        error: None,
    })
}

pub(super) fn file_sync(cx: &Cx, request: &FileSyncRequest) -> Result<FileSyncResponse, Fault> {
    rustix::fs::fsync(&cx.file(&request.handle)?.file)?;
    Ok(FileSyncResponse { error: None })
}

/// Closes on the spot what closes without work for the file system.
pub(super) fn file_close_now(
    cx: &Cx,
    request: &FileCloseRequest,
) -> Option<Result<FileCloseResponse, Fault>> {
    if now!(cx.file(&request.handle)).closes_at_once() {
        Some(file_close(cx, request))
    } else {
        None
    }
}

pub(super) fn file_close(cx: &Cx, request: &FileCloseRequest) -> Result<FileCloseResponse, Fault> {
    drop(cx.session.give_back::<OpenFile>(&request.handle)?);
    Ok(FileCloseResponse { error: None })
}

pub(super) fn file_truncate(
    cx: &Cx,
    request: &FileTruncateRequest,
) -> Result<FileTruncateResponse, Fault> {
    let file = cx.file(&request.handle)?;
    let size = u64::try_from(request.size).map_err(|_| Fault::System(rustix::io::Errno::INVAL))?;
    file.resize(cx, size)?;
    Ok(FileTruncateResponse { error: None })
}

pub(super) fn file_chmod(cx: &Cx, request: &FileChmodRequest) -> Result<FileChmodResponse, Fault> {
    let file = cx.file(&request.handle)?;
    file.changeable(cx)?;
    rustix::fs::fchmod(&file.file, mode_to_set(request.mode)?)?;
    Ok(FileChmodResponse { error: None })
}

pub(super) fn file_chown(cx: &Cx, request: &FileChownRequest) -> Result<FileChownResponse, Fault> {
    let file = cx.file(&request.handle)?;
    file.changeable(cx)?;
    owners(cx, request.uid, request.gid)?.give(&file.file)?;
    Ok(FileChownResponse { error: None })
}

/// The length to read, if one reply can carry it.
fn section(cx: &Cx, request: &FileReadSectionRequest) -> Result<usize, Fault> {
    cx.session.may_move()?;
    let (length, limit) = (request.length as usize, cx.session.limits().payload());
    if length > limit {
        let text = format!("a section has at most {limit} bytes (`message`)");
        return Err(Fault::exhausted("read-too-long", text));
    }
    Ok(length)
}

fn got(cx: &Cx, contents: Vec<u8>) -> FileReadSectionResponse {
    cx.read(contents.len() as u64);
    FileReadSectionResponse {
        contents: contents.into(),
        error: None,
    }
}

pub(super) fn file_read_section_now(
    cx: &Cx,
    request: &FileReadSectionRequest,
) -> Option<Result<FileReadSectionResponse, Fault>> {
    let length = now!(section(cx, request));
    let contents = now!(cx.file(&request.handle)).read_now(length, request.offset)?;
    Some(Ok(got(cx, contents)))
}

pub(super) fn file_read_section(
    cx: &Cx,
    request: &FileReadSectionRequest,
) -> Result<FileReadSectionResponse, Fault> {
    let length = section(cx, request)?;
    let contents = cx.file(&request.handle)?.read(length, request.offset)?;
    Ok(got(cx, contents))
}

/// Writes at most `max_length` bytes of `data` (all when it is 0). `perm` has
/// no meaning for an open file.
pub(super) fn file_write_section(
    cx: &Cx,
    request: &FileWriteSectionRequest,
) -> Result<FileWriteSectionResponse, Fault> {
    cx.session.may_move()?;
    let file = cx.file(&request.handle)?;
    let data: &Bytes = &request.data;
    let length = match request.max_length {
        0 => data.len(),
        most => data.len().min(most as usize),
    };
    file.write_at(cx, &data[..length], request.offset)?;
    cx.session.charge(length as u64);
    let bytes_written = u32::try_from(length).map_err(|_| Fault::Broken)?;
    Ok(FileWriteSectionResponse {
        bytes_written,
        error: None,
    })
}
