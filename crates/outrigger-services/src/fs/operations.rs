//! The operations of `outrigger.host.v1.Filesystem` that are calls with one reply.

use std::path::PathBuf;

use bytes::Bytes;
use outrigger_manifest::Permissions;
use outrigger_wire::proto::host::*;
use prost_types::Timestamp;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attributes::{self, NamedStat, Owners};
use super::call::FileCall;
use super::contents::Replace;
use super::io::size;
use super::listing::kind_of;
use super::mode;
use super::open_file::{OpenDir, OpenFile};
use super::operation::file_operations;
use super::place::Opening;
use super::requested_path::RequestedPath;
use super::resolve::Follow;
use super::rights::Required;
use crate::arguments::{Arguments, Show};
use crate::fault::Fault;
use crate::operation::Described;

/// Set-user-id, set-group-id and sticky.
const SPECIAL: u32 = 0o7000;

file_operations! {
    Filesystem "open" on ConnectionFirst:
        OpenRequest { path, options } -> OpenResponse = lend;
    Filesystem "create" on Waiting: CreateRequest { path } -> OpenResponse = lend;
    Filesystem "open_at" on Waiting:
        OpenAtRequest { lease, path, options } -> OpenResponse = lend;
    Filesystem "open_dir" on Waiting: OpenDirRequest { path } -> OpenDirResponse = open_dir;
    Filesystem "close" on ConnectionFirst: CloseRequest { lease } -> CloseResponse = close;
    Filesystem "read" on ConnectionFirst:
        ReadRequest { lease, offset, length } -> ReadResponse = |call, request| {
            let length = length(call, request.length)?;
            let file = call.file(&request.lease)?;
            let data = file.read(length, request.offset, call.may_wait)?;
            Ok(read(call, data, length))
        };
    Filesystem "write" on Waiting:
        WriteRequest { lease, offset, data } -> WriteResponse = |call, request| {
            call.session.may_move()?;
            let file = call.file(&request.lease)?;
            call.write_at(&file, &request.data, request.offset)?;
            written(call, &request.data)
        };
    Filesystem "read_next" on ConnectionFirst:
        ReadNextRequest { lease, length } -> ReadResponse = |call, request| {
            let length = length(call, request.length)?;
            let file = call.file(&request.lease)?;
            let at = file.position();
            let data = file.read(length, at, call.may_wait)?;
            file.move_to(at + data.len() as u64);
            Ok(read(call, data, length))
        };
    Filesystem "write_next" on Waiting:
        WriteNextRequest { lease, data } -> WriteResponse = |call, request| {
            call.session.may_move()?;
            let file = call.file(&request.lease)?;
            call.write_on(&file, &request.data)?;
            written(call, &request.data)
        };
    Filesystem "seek" on Waiting:
        SeekRequest { lease, offset, whence } -> SeekResponse = |call, request| {
            let whence = u32::try_from(request.whence).unwrap_or(u32::MAX);
            let position = call.file(&request.lease)?.seek(request.offset, whence)?;
            Ok(SeekResponse { position })
        };
    Filesystem "sync" on Waiting:
        SyncRequest { lease, data_only } -> SyncResponse = |call, request| {
            let file = call.file(&request.lease)?;
            match request.data_only {
                true => rustix::fs::fdatasync(&file.file)?,
                false => rustix::fs::fsync(&file.file)?,
            }
            Ok(SyncResponse {})
        };
    Filesystem "truncate" on Waiting:
        TruncateRequest { lease, path, size as always } -> TruncateResponse = truncate;
    Filesystem "read_file" on ConnectionFirst:
        ReadFileRequest { path } -> ReadFileResponse = |call, request| {
            let path = call.path(&request.path)?;
            let data = call.read_file(&path, "open it and use ReadStream")?.into();
            Ok(ReadFileResponse { data })
        };
    Filesystem "write_file" on Waiting:
        WriteFileRequest { path, data, create_new } -> WriteFileResponse = write_file;
    Filesystem "append" on Waiting:
        AppendRequest { path, data } -> AppendResponse = |call, request| {
            let how = Opening {
                append: true,
                create: true,
                mode: made_with(request.mode, 0o600)?,
                ..Opening::default()
            };
            let size = call.write_file(&call.path(&request.path)?, how, &request.data)?;
            Ok(AppendResponse { size })
        };
    Filesystem "copy" on Waiting:
        CopyRequest { from, to, replace } -> CopyResponse = |call, request| {
            let (from, to) = (call.path(&request.from)?, call.path(&request.to)?);
            let copied = call.copy(&from, &to, Replace::from_flag(request.replace))?;
            Ok(CopyResponse { copied })
        };
    Filesystem "stat" on ConnectionFirst: StatRequest { path } -> StatResponse =
        |call, request| Ok(stated(&call.stat(&call.path(&request.path)?)?));
    Filesystem "lstat" on Waiting: LstatRequest { path } -> StatResponse =
        |call, request| Ok(stated(&call.lstat(&call.path(&request.path)?)?));
    Filesystem "file_stat" on Waiting:
        FileStatRequest { lease } -> StatResponse = |call, request| {
            let file = call.file(&request.lease)?;
            let info = info(&file.name, &file.stat()?);
            Ok(StatResponse { info })
        };
    Filesystem "exists" on ConnectionFirst:
        ExistsRequest { path } -> ExistsResponse = |call, request| {
            let exists = call.exists(&call.path(&request.path)?)?;
            Ok(ExistsResponse { exists })
        };
    Filesystem "list" on Waiting:
        ListRequest { path, limit } -> ListResponse = |call, request| {
            let path = call.path(&request.path)?;
            let (page, next) = call.list(&path, request.limit, &request.cookie)?;
            let (entries, unreadable) = (page.entries, page.unreadable);
            Ok(ListResponse { entries, next, unreadable })
        };
    Filesystem "readlink" on Waiting:
        ReadlinkRequest { path } -> ReadlinkResponse = |call, request| {
            let target = call.read_link(&call.path(&request.path)?)?;
            Ok(ReadlinkResponse { target })
        };
    Filesystem "mkdir" on Waiting:
        MkdirRequest { path, parents } -> MkdirResponse = |call, request| {
            let perm = mode::permissions(made_with(request.mode, 0o700)?);
            let path = call.path(&request.path)?;
            match request.parents {
                true => call.mkdir_all(&path, perm)?,
                false => call.mkdir(&path, perm)?,
            }
            Ok(MkdirResponse {})
        };
    Filesystem "rename" on Waiting:
        RenameRequest { from, to, replace } -> RenameResponse = |call, request| {
            let (from, to) = (call.path(&request.from)?, call.path(&request.to)?);
            call.rename(&from, &to, Replace::from_flag(request.replace))?;
            Ok(RenameResponse {})
        };
    Filesystem "remove" on Waiting:
        RemoveRequest { path } -> RemoveResponse = |call, request| {
            call.remove(&call.path(&request.path)?)?;
            Ok(RemoveResponse {})
        };
    Filesystem "remove_all" on Waiting:
        RemoveAllRequest { path } -> RemoveAllResponse = |call, request| {
            call.remove_all(&call.path(&request.path)?)?;
            Ok(RemoveAllResponse {})
        };
    Filesystem "link" on Waiting:
        LinkRequest { existing, new } -> LinkResponse = |call, request| {
            call.link(&call.path(&request.existing)?, &call.path(&request.new)?)?;
            Ok(LinkResponse {})
        };
    Filesystem "symlink" on Waiting:
        SymlinkRequest { target, new } -> SymlinkResponse = |call, request| {
            call.symlink(&request.target, &call.path(&request.new)?)?;
            Ok(SymlinkResponse {})
        };
    Filesystem "chmod" on Waiting:
        ChmodRequest { path, mode as octal } -> ChmodResponse = |call, request| {
            let path = call.path(&request.path)?;
            call.chmod(&path, mode_to_set(request.mode)?)?;
            Ok(ChmodResponse {})
        };
    Filesystem "chown" on Waiting:
        ChownRequest { path, no_follow, uid, gid } -> ChownResponse = |call, request| {
            let path = call.path(&request.path)?;
            let follow = match request.no_follow {
                true => Follow::No,
                false => Follow::Yes,
            };
            call.chown(&path, Owners::new(call, request.uid, request.gid)?, follow)?;
            Ok(ChownResponse {})
        };
    Filesystem "chtimes" on Waiting:
        ChtimesRequest { path } -> ChtimesResponse = |call, request| {
            let path = call.path(&request.path)?;
            let (accessed, modified) = (request.accessed.as_ref(), request.modified.as_ref());
            call.chtimes(&path, &attributes::times(accessed, modified)?)?;
            Ok(ChtimesResponse {})
        };
    Filesystem "file_chmod" on Waiting:
        FileChmodRequest { lease, mode as octal } -> ChmodResponse = |call, request| {
            let file = call.file(&request.lease)?;
            let mode = mode_to_set(request.mode)?;
            call.may_change(&file)?;
            rustix::fs::fchmod(&file.file, mode)?;
            Ok(ChmodResponse {})
        };
    Filesystem "file_chown" on Waiting:
        FileChownRequest { lease, uid, gid } -> ChownResponse = |call, request| {
            let file = call.file(&request.lease)?;
            let owners = Owners::new(call, request.uid, request.gid)?;
            call.may_change(&file)?;
            owners.give(&file.file)?;
            Ok(ChownResponse {})
        };
    Filesystem "file_chtimes" on Waiting:
        FileChtimesRequest { lease } -> ChtimesResponse = |call, request| {
            let file = call.file(&request.lease)?;
            let (accessed, modified) = (request.accessed.as_ref(), request.modified.as_ref());
            let times = attributes::times(accessed, modified)?;
            call.may_change(&file)?;
            attributes::set_times(&file.file, &times)?;
            Ok(ChtimesResponse {})
        };
    Filesystem "temp_file" on Waiting:
        TempFileRequest { pattern } -> TempFileResponse = |call, request| {
            let (lease, path) = call.temp_file(&request.pattern)?;
            let path = path_text(path)?;
            Ok(TempFileResponse { lease, path })
        };
    Filesystem "temp_dir" on Waiting:
        TempDirRequest { pattern } -> TempDirResponse = |call, request| {
            let path = path_text(call.temp_dir(&request.pattern)?)?;
            Ok(TempDirResponse { path })
        };
}

impl Show for Option<OpenOptions> {
    fn show(&self, _: &str, shown: &mut Arguments) {
        let Some(options) = self else { return };
        shown
            .flag("read", options.read)
            .flag("write", options.write)
            .flag("append", options.append)
            .flag("truncate", options.truncate)
            .flag("create", options.create)
            .flag("create_new", options.create_new);
    }
}

/// A message that asks for a file to be opened.
pub(crate) trait Opens: Described {
    /// Which file, and how.
    fn opens(&self, call: &FileCall) -> Result<(RequestedPath, Opening), Fault>;
}

impl Opens for OpenRequest {
    fn opens(&self, call: &FileCall) -> Result<(RequestedPath, Opening), Fault> {
        let how = opening(self.options.as_ref())?;
        Ok((call.path(&self.path)?, how))
    }
}

impl Opens for CreateRequest {
    fn opens(&self, call: &FileCall) -> Result<(RequestedPath, Opening), Fault> {
        let how = Opening {
            write: true,
            create: true,
            truncate: true,
            mode: made_with(self.mode, 0o600)?,
            ..Opening::default()
        };
        Ok((call.path(&self.path)?, how))
    }
}

impl Opens for OpenAtRequest {
    /// A path beneath an open directory.
    fn opens(&self, call: &FileCall) -> Result<(RequestedPath, Opening), Fault> {
        let how = opening(self.options.as_ref())?;
        let dir = call.session.lease::<OpenDir>(&self.lease)?;
        if self.path.is_empty() {
            return Err(Fault::abuse("the path is empty"));
        }
        let path = RequestedPath::beneath(&dir.place, &self.path)?;
        match dir.place.still_is(&dir.dir)? {
            true => Ok((path, how)),
            false => Err(Fault::System(Errno::NOENT)),
        }
    }
}

fn lend<Q: Opens>(call: &FileCall, request: &Q) -> Result<OpenResponse, Fault> {
    let (path, how) = request.opens(call)?;
    let lent = call.lend(&path, how)?;
    let info = info(&lent.file.name, &lent.stat);
    let lease = lent.lease;
    Ok(OpenResponse { lease, info })
}

/// The permission bits of something that is made.
fn made_with(mode: u32, otherwise: u32) -> Result<u32, Fault> {
    mode_to_set(mode)?;
    Ok(if mode == 0 { otherwise } else { mode & 0o777 })
}

/// How the contract's options open a file; absent ones read it.
fn opening(options: Option<&OpenOptions>) -> Result<Opening, Fault> {
    let Some(options) = options else {
        return Ok(Opening::READ);
    };
    let how = Opening {
        read: options.read,
        write: options.write,
        append: options.append,
        truncate: options.truncate,
        create: options.create,
        exclusive: options.create_new,
        mode: made_with(options.mode, 0o600)?,
    };
    match how {
        Opening { truncate: true, .. } if !how.writes() => {
            Err(Fault::abuse("`truncate` is for files opened to write"))
        }
        Opening {
            truncate: true,
            append: true,
            ..
        } => Err(Fault::abuse("`truncate` and `append` exclude each other")),
        how => Ok(how),
    }
}

pub(crate) fn info(name: &str, stat: &Stat) -> Option<FileInfo> {
    let time = |seconds: i64, nanos| {
        let nanos = i32::try_from(nanos).unwrap_or(0);
        Some(Timestamp { seconds, nanos })
    };
    Some(FileInfo {
        name: name.to_owned(),
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)).into(),
        size: size(stat),
        mode: stat.st_mode & 0o7777,
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        uid: stat.st_uid,
        gid: stat.st_gid,
        #[allow(
            clippy::useless_conversion,
            reason = "its width depends on the machine"
        )]
        links: stat.st_nlink.into(),
    })
}

fn stated(stat: &NamedStat) -> StatResponse {
    let info = info(&stat.name, &stat.stat);
    StatResponse { info }
}

/// The permission bits to set.
fn mode_to_set(mode: u32) -> Result<rustix::fs::Mode, Fault> {
    attributes::mode_to_set(mode & SPECIAL != 0, mode)
}

fn open_dir(call: &FileCall, request: &OpenDirRequest) -> Result<OpenDirResponse, Fault> {
    let slot = call.session.slot()?;
    let path = call.path(&request.path)?;
    let list = Required::All(Permissions::LIST);
    let dir = call.reach(&path, Follow::Yes, list, |place| {
        Ok(OpenDir {
            dir: place.directory()?,
            place: place.clone(),
        })
    })?;
    let (lease, _) = call.session.lend(slot, dir);
    Ok(OpenDirResponse { lease })
}

fn close(call: &FileCall, request: &CloseRequest) -> Result<CloseResponse, Fault> {
    let file = call.session.lease::<OpenFile>(&request.lease);
    if file.is_ok_and(|file| !file.closes_at_once()) {
        call.wait()?;
    }
    if call.session.give_back::<OpenFile>(&request.lease).is_err() {
        call.session.give_back::<OpenDir>(&request.lease)?;
    }
    Ok(CloseResponse {})
}

/// The length to read, if one reply can carry it.
fn length(call: &FileCall, length: u32) -> Result<usize, Fault> {
    call.session.may_move()?;
    let (length, limit) = (length as usize, call.session.limits().payload());
    if length > limit {
        let text = format!("one read has at most {limit} bytes (`message`)");
        return Err(Fault::exhausted("read-too-long", text));
    }
    Ok(length)
}

fn read(call: &FileCall, data: Vec<u8>, length: usize) -> ReadResponse {
    call.got(data.len() as u64);
    let end = data.len() < length;
    let data = data.into();
    ReadResponse { data, end }
}

fn written(call: &FileCall, data: &Bytes) -> Result<WriteResponse, Fault> {
    call.session.charge(data.len() as u64);
    let written = u32::try_from(data.len()).map_err(|_| Fault::Broken)?;
    Ok(WriteResponse { written })
}

fn truncate(call: &FileCall, request: &TruncateRequest) -> Result<TruncateResponse, Fault> {
    match (request.lease.as_str(), request.path.as_str()) {
        (lease, "") => {
            let file = call.file(lease)?;
            call.resize(&file.file, file.storage, request.size)?;
        }
        ("", path) => call.truncate(&call.path(path)?, request.size)?,
        _ => return Err(Fault::abuse("either `lease` or `path` says which file")),
    }
    Ok(TruncateResponse {})
}

fn write_file(call: &FileCall, request: &WriteFileRequest) -> Result<WriteFileResponse, Fault> {
    let how = Opening {
        write: true,
        create: true,
        exclusive: request.create_new,
        truncate: !request.create_new,
        mode: made_with(request.mode, 0o600)?,
        ..Opening::default()
    };
    call.write_file(&call.path(&request.path)?, how, &request.data)?;
    Ok(WriteFileResponse {})
}

/// A path in the temporary directory, as text.
pub(crate) fn path_text(path: PathBuf) -> Result<String, Fault> {
    let path = path.into_os_string().into_string();
    path.map_err(|_| Fault::failed("the temporary directory is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        assert_eq!(opening(None).ok(), Some(Opening::READ));
        let wrong = [
            OpenOptions {
                read: true,
                truncate: true,
                ..OpenOptions::default()
            },
            OpenOptions {
                append: true,
                truncate: true,
                ..OpenOptions::default()
            },
            OpenOptions {
                write: true,
                mode: 0o4755,
                ..OpenOptions::default()
            },
        ];
        for options in wrong {
            assert!(opening(Some(&options)).is_err(), "{options:?}");
        }
    }
}
