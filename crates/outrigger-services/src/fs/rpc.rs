//! `outrigger.host.v1.Filesystem`: one row per call.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_manifest::{HostService, Permissions};
use outrigger_wire::proto::host::*;
use prost_types::Timestamp;
use rustix::fs::{FileType, Stat};
use tonic::{Request, Response, Status, Streaming};

use super::area::Opening;
use super::list::{Listing, kind_of};
use super::open::{Lending, OpenDir, OpenFile, size};
use super::ops::{self, Known, Owners, Replace};
use super::stream::{self, Reading};
use super::watch::Watching;
use super::{Cx, Follow, Needs, Wanted, mode};
use crate::argument::Argument;
use crate::fault::Fault;
use crate::proto::host::filesystem_server;
use crate::session::{Operation, Running, Session};
use crate::work::{self, Replies, Work};

/// Set-user-id, set-group-id and sticky.
const SPECIAL: u32 = 0o7000;
/// Entries in one message of a listing that is streamed.
const LISTED: usize = 1000;

/// The service of one connection.
pub(crate) struct Filesystem(Arc<Session>);

impl Filesystem {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }
}

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Filesystem, name)
}

macro_rules! calls {
    ($($method:ident: $request:ident -> $response:ident, $argument:expr, $work:expr;)*) => {
        #[tonic::async_trait]
        impl filesystem_server::Filesystem for Filesystem {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    let (metadata, _, message) = request.into_parts();
                    let operation = operation(stringify!($method));
                    let argument: fn(&$request, &mut Argument) = $argument;
                    let reply = work::unary(&self.0, operation, &metadata, message, argument, $work);
                    match reply.await {
                        Ok(reply) => Ok(Response::new(reply)),
                        Err(fault) => Err(fault.status(&operation.full_name())),
                    }
                }
            )*

            type ReadStreamStream = Replies<ReadStreamResponse>;

            async fn read_stream(
                &self,
                request: Request<ReadStreamRequest>,
            ) -> Result<Response<Self::ReadStreamStream>, Status> {
                read_stream(&self.0, request)
            }

            async fn write_stream(
                &self,
                request: Request<Streaming<WriteStreamRequest>>,
            ) -> Result<Response<WriteStreamResponse>, Status> {
                write_stream(&self.0, request).await
            }

            type ListStreamStream = Replies<ListStreamResponse>;

            async fn list_stream(
                &self,
                request: Request<ListStreamRequest>,
            ) -> Result<Response<Self::ListStreamStream>, Status> {
                list_stream(&self.0, request).await
            }

            type WatchStream = Replies<WatchResponse>;

            async fn watch(
                &self,
                request: Request<WatchRequest>,
            ) -> Result<Response<Self::WatchStream>, Status> {
                watch(&self.0, request).await
            }
        }
    };
}

calls! {
    open: OpenRequest -> OpenResponse,
        |q, a| { a.text("path", &q.path); options_shown(q.options.as_ref(), a); },
        Work::Try(open_now, open);
    create: CreateRequest -> OpenResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(create);
    open_dir: OpenDirRequest -> OpenDirResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(open_dir);
    open_at: OpenAtRequest -> OpenResponse,
        |q, a| {
            a.id("lease", &q.lease).text("path", &q.path);
            options_shown(q.options.as_ref(), a);
        },
        Work::Blocking(open_at);
    close: CloseRequest -> CloseResponse,
        |q, a| { a.id("lease", &q.lease); }, Work::Try(close_now, close);
    read: ReadRequest -> ReadResponse,
        |q, a| { a.id("lease", &q.lease).number("offset", q.offset).number("length", q.length); },
        Work::Try(read_now, read);
    write: WriteRequest -> WriteResponse,
        |q, a| {
            a.id("lease", &q.lease).number("offset", q.offset).bytes("data", q.data.len());
        },
        Work::Blocking(write);
    read_next: ReadNextRequest -> ReadResponse,
        |q, a| { a.id("lease", &q.lease).number("length", q.length); },
        Work::Try(read_next_now, read_next);
    write_next: WriteNextRequest -> WriteResponse,
        |q, a| { a.id("lease", &q.lease).bytes("data", q.data.len()); },
        Work::Blocking(write_next);
    seek: SeekRequest -> SeekResponse,
        |q, a| {
            a.id("lease", &q.lease).number("offset", q.offset).number("whence", q.whence);
        },
        Work::Blocking(seek);
    sync: SyncRequest -> SyncResponse,
        |q, a| { a.id("lease", &q.lease).flag("data_only", q.data_only); }, Work::Blocking(sync);
    truncate: TruncateRequest -> TruncateResponse,
        |q, a| { a.id("lease", &q.lease).text("path", &q.path).shown("size", q.size); },
        Work::Blocking(truncate);
    read_file: ReadFileRequest -> ReadFileResponse,
        |q, a| { a.text("path", &q.path); }, Work::Try(read_file_now, read_file);
    write_file: WriteFileRequest -> WriteFileResponse,
        |q, a| {
            a.text("path", &q.path).bytes("data", q.data.len()).flag("create_new", q.create_new);
        },
        Work::Blocking(write_file);
    append: AppendRequest -> AppendResponse,
        |q, a| { a.text("path", &q.path).bytes("data", q.data.len()); }, Work::Blocking(append);
    copy: CopyRequest -> CopyResponse,
        |q, a| { a.text("from", &q.from).text("to", &q.to).flag("replace", q.replace); },
        Work::Blocking(copy);
    stat: StatRequest -> StatResponse,
        |q, a| { a.text("path", &q.path); }, Work::Try(stat_now, stat);
    lstat: LstatRequest -> StatResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(lstat);
    file_stat: FileStatRequest -> StatResponse,
        |q, a| { a.id("lease", &q.lease); }, Work::Blocking(file_stat);
    exists: ExistsRequest -> ExistsResponse,
        |q, a| { a.text("path", &q.path); }, Work::Try(exists_now, exists);
    list: ListRequest -> ListResponse,
        |q, a| { a.text("path", &q.path).number("limit", q.limit); }, Work::Blocking(list);
    readlink: ReadlinkRequest -> ReadlinkResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(readlink);
    mkdir: MkdirRequest -> MkdirResponse,
        |q, a| { a.text("path", &q.path).flag("parents", q.parents); }, Work::Blocking(mkdir);
    rename: RenameRequest -> RenameResponse,
        |q, a| { a.text("from", &q.from).text("to", &q.to).flag("replace", q.replace); },
        Work::Blocking(rename);
    remove: RemoveRequest -> RemoveResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(remove);
    remove_all: RemoveAllRequest -> RemoveAllResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(remove_all);
    link: LinkRequest -> LinkResponse,
        |q, a| { a.text("existing", &q.existing).text("new", &q.new); }, Work::Blocking(link);
    symlink: SymlinkRequest -> SymlinkResponse,
        |q, a| { a.text("target", &q.target).text("new", &q.new); }, Work::Blocking(symlink);
    chmod: ChmodRequest -> ChmodResponse,
        |q, a| { a.text("path", &q.path).shown("mode", format_args!("{:o}", q.mode)); },
        Work::Blocking(chmod);
    chown: ChownRequest -> ChownResponse,
        |q, a| {
            a.text("path", &q.path).flag("no_follow", q.no_follow);
            owners_shown(q.uid, q.gid, a);
        },
        Work::Blocking(chown);
    chtimes: ChtimesRequest -> ChtimesResponse,
        |q, a| { a.text("path", &q.path); }, Work::Blocking(chtimes);
    file_chmod: FileChmodRequest -> ChmodResponse,
        |q, a| { a.id("lease", &q.lease).shown("mode", format_args!("{:o}", q.mode)); },
        Work::Blocking(file_chmod);
    file_chown: FileChownRequest -> ChownResponse,
        |q, a| { a.id("lease", &q.lease); owners_shown(q.uid, q.gid, a); },
        Work::Blocking(file_chown);
    file_chtimes: FileChtimesRequest -> ChtimesResponse,
        |q, a| { a.id("lease", &q.lease); }, Work::Blocking(file_chtimes);
    temp_file: TempFileRequest -> TempFileResponse,
        |q, a| { a.text("pattern", &q.pattern); }, Work::Blocking(temp_file);
    temp_dir: TempDirRequest -> TempDirResponse,
        |q, a| { a.text("pattern", &q.pattern); }, Work::Blocking(temp_dir);
}

pub(crate) fn options_shown(options: Option<&OpenOptions>, argument: &mut Argument) {
    let Some(options) = options else { return };
    argument
        .flag("read", options.read)
        .flag("write", options.write)
        .flag("append", options.append)
        .flag("truncate", options.truncate)
        .flag("create", options.create)
        .flag("create_new", options.create_new);
}

fn owners_shown(uid: Option<u32>, gid: Option<u32>, argument: &mut Argument) {
    for (key, id) in [("uid", uid), ("gid", gid)] {
        if let Some(id) = id {
            argument.shown(key, id);
        }
    }
}

/// The permission bits of something that is made.
fn made_with(mode: u32, otherwise: u32) -> Result<u32, Fault> {
    ops::mode_to_set(mode & SPECIAL != 0, mode)?;
    Ok(if mode == 0 { otherwise } else { mode & 0o777 })
}

/// How the contract's options open a file; absent ones read it.
pub(crate) fn opening(options: Option<&OpenOptions>) -> Result<Opening, Fault> {
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

fn opened((lease, file, stat): Lending) -> OpenResponse {
    let info = info(&file.name, &stat);
    OpenResponse { lease, info }
}

fn open_now(cx: &Cx, request: &OpenRequest) -> Option<Result<OpenResponse, Fault>> {
    let wanted = match opening(request.options.as_ref()) {
        Ok(Opening::READ) => Wanted::new(&cx.session, &request.path),
        Ok(how)
            if how
                == (Opening {
                    mode: how.mode,
                    ..Opening::READ
                }) =>
        {
            Wanted::new(&cx.session, &request.path)
        }
        Ok(_) => return None,
        Err(fault) => Err(fault),
    };
    match wanted {
        Ok(wanted) => Some(cx.lend_now(&wanted)?.map(opened)),
        Err(fault) => Some(Err(fault)),
    }
}

fn open(cx: &Cx, request: &OpenRequest) -> Result<OpenResponse, Fault> {
    let how = opening(request.options.as_ref())?;
    let wanted = Wanted::new(&cx.session, &request.path)?;
    cx.lend(&wanted, how).map(opened)
}

/// How `Create` opens a file.
pub(crate) fn creating(request: &CreateRequest) -> Result<Opening, Fault> {
    Ok(Opening {
        write: true,
        create: true,
        truncate: true,
        mode: made_with(request.mode, 0o600)?,
        ..Opening::default()
    })
}

fn create(cx: &Cx, request: &CreateRequest) -> Result<OpenResponse, Fault> {
    let how = creating(request)?;
    let wanted = Wanted::new(&cx.session, &request.path)?;
    cx.lend(&wanted, how).map(opened)
}

pub(crate) fn open_dir(cx: &Cx, request: &OpenDirRequest) -> Result<OpenDirResponse, Fault> {
    let slot = cx.session.slot()?;
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let needs = Needs::All(Permissions::LIST);
    let dir = cx.reach(&wanted, Follow::Yes, needs, |place| {
        Ok(OpenDir {
            dir: place.directory()?,
            place: place.clone(),
        })
    })?;
    let (lease, _) = cx.session.lend(slot, dir);
    Ok(OpenDirResponse { lease })
}

fn open_at(cx: &Cx, request: &OpenAtRequest) -> Result<OpenResponse, Fault> {
    let how = opening(request.options.as_ref())?;
    cx.lend(&wanted_at(cx, request)?, how).map(opened)
}

/// Where a path beneath an open directory leads.
pub(crate) fn wanted_at(cx: &Cx, request: &OpenAtRequest) -> Result<Wanted, Fault> {
    let dir = cx.session.lease::<OpenDir>(&request.lease)?;
    if request.path.is_empty() {
        return Err(Fault::abuse("the path is empty"));
    }
    let wanted = Wanted::beneath(&dir.place, &request.path)?;
    if !dir.place.still_is(&dir.dir)? {
        return Err(Fault::System(rustix::io::Errno::NOENT));
    }
    Ok(wanted)
}

/// Closes on the spot what closes without work for the file system.
fn close_now(cx: &Cx, request: &CloseRequest) -> Option<Result<CloseResponse, Fault>> {
    match cx.session.lease::<OpenFile>(&request.lease) {
        Ok(file) if !file.closes_at_once() => None,
        _ => Some(close(cx, request)),
    }
}

fn close(cx: &Cx, request: &CloseRequest) -> Result<CloseResponse, Fault> {
    if cx.session.give_back::<OpenFile>(&request.lease).is_err() {
        cx.session.give_back::<OpenDir>(&request.lease)?;
    }
    Ok(CloseResponse {})
}

/// The length to read, if one reply can carry it.
fn length(cx: &Cx, length: u32) -> Result<usize, Fault> {
    cx.session.may_move()?;
    let (length, limit) = (length as usize, cx.session.limits().payload());
    if length > limit {
        let text = format!("one read has at most {limit} bytes (`message`)");
        return Err(Fault::exhausted("read-too-long", text));
    }
    Ok(length)
}

fn got(cx: &Cx, data: Vec<u8>, length: usize) -> ReadResponse {
    cx.read(data.len() as u64);
    let end = data.len() < length;
    let data = data.into();
    ReadResponse { data, end }
}

fn read_now(cx: &Cx, request: &ReadRequest) -> Option<Result<ReadResponse, Fault>> {
    let checked =
        length(cx, request.length).and_then(|length| Ok((length, cx.file(&request.lease)?)));
    match checked {
        Ok((length, file)) => {
            let data = file.read_now(length, request.offset)?;
            Some(Ok(got(cx, data, length)))
        }
        Err(fault) => Some(Err(fault)),
    }
}

fn read(cx: &Cx, request: &ReadRequest) -> Result<ReadResponse, Fault> {
    let length = length(cx, request.length)?;
    let data = cx.file(&request.lease)?.read(length, request.offset)?;
    Ok(got(cx, data, length))
}

fn read_next_now(cx: &Cx, request: &ReadNextRequest) -> Option<Result<ReadResponse, Fault>> {
    let checked =
        length(cx, request.length).and_then(|length| Ok((length, cx.file(&request.lease)?)));
    match checked {
        Ok((length, file)) => {
            let at = file.position();
            let data = file.read_now(length, at)?;
            file.move_to(at + data.len() as u64);
            Some(Ok(got(cx, data, length)))
        }
        Err(fault) => Some(Err(fault)),
    }
}

fn read_next(cx: &Cx, request: &ReadNextRequest) -> Result<ReadResponse, Fault> {
    let length = length(cx, request.length)?;
    let file = cx.file(&request.lease)?;
    let at = file.position();
    let data = file.read(length, at)?;
    file.move_to(at + data.len() as u64);
    Ok(got(cx, data, length))
}

fn wrote(cx: &Cx, data: &Bytes) -> Result<WriteResponse, Fault> {
    cx.session.charge(data.len() as u64);
    let written = u32::try_from(data.len()).map_err(|_| Fault::Broken)?;
    Ok(WriteResponse { written })
}

fn write(cx: &Cx, request: &WriteRequest) -> Result<WriteResponse, Fault> {
    cx.session.may_move()?;
    let file = cx.file(&request.lease)?;
    file.write_at(cx, &request.data, request.offset)?;
    wrote(cx, &request.data)
}

fn write_next(cx: &Cx, request: &WriteNextRequest) -> Result<WriteResponse, Fault> {
    cx.session.may_move()?;
    cx.file(&request.lease)?.write_on(cx, &request.data)?;
    wrote(cx, &request.data)
}

fn seek(cx: &Cx, request: &SeekRequest) -> Result<SeekResponse, Fault> {
    let whence = u32::try_from(request.whence).unwrap_or(u32::MAX);
    let position = cx.file(&request.lease)?.seek(request.offset, whence)?;
    Ok(SeekResponse { position })
}

fn sync(cx: &Cx, request: &SyncRequest) -> Result<SyncResponse, Fault> {
    let file = cx.file(&request.lease)?;
    if request.data_only {
        rustix::fs::fdatasync(&file.file)?;
    } else {
        rustix::fs::fsync(&file.file)?;
    }
    Ok(SyncResponse {})
}

fn truncate(cx: &Cx, request: &TruncateRequest) -> Result<TruncateResponse, Fault> {
    match (request.lease.as_str(), request.path.as_str()) {
        (lease, "") => cx.file(lease)?.resize(cx, request.size)?,
        ("", path) => cx.truncate(&Wanted::new(&cx.session, path)?, request.size)?,
        _ => return Err(Fault::abuse("either `lease` or `path` says which file")),
    }
    Ok(TruncateResponse {})
}

fn read_file_now(cx: &Cx, request: &ReadFileRequest) -> Option<Result<ReadFileResponse, Fault>> {
    let read = match Wanted::new(&cx.session, &request.path) {
        Ok(wanted) => cx.read_file_now(&wanted)?,
        Err(fault) => Err(fault),
    };
    Some(read.map(|data| ReadFileResponse { data: data.into() }))
}

fn read_file(cx: &Cx, request: &ReadFileRequest) -> Result<ReadFileResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let data = cx.read_file(&wanted, "open it and use ReadStream")?;
    Ok(ReadFileResponse { data: data.into() })
}

fn write_file(cx: &Cx, request: &WriteFileRequest) -> Result<WriteFileResponse, Fault> {
    let how = Opening {
        write: true,
        create: true,
        exclusive: request.create_new,
        truncate: !request.create_new,
        mode: made_with(request.mode, 0o600)?,
        ..Opening::default()
    };
    let wanted = Wanted::new(&cx.session, &request.path)?;
    cx.write_file(&wanted, how, &request.data)?;
    Ok(WriteFileResponse {})
}

fn append(cx: &Cx, request: &AppendRequest) -> Result<AppendResponse, Fault> {
    let how = Opening {
        append: true,
        create: true,
        mode: made_with(request.mode, 0o600)?,
        ..Opening::default()
    };
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let size = cx.write_file(&wanted, how, &request.data)?;
    Ok(AppendResponse { size })
}

fn copy(cx: &Cx, request: &CopyRequest) -> Result<CopyResponse, Fault> {
    let from = Wanted::new(&cx.session, &request.from)?;
    let to = Wanted::new(&cx.session, &request.to)?;
    let copied = cx.copy(&from, &to, Replace::from_flag(request.replace))?;
    Ok(CopyResponse { copied })
}

fn known(known: &Known) -> StatResponse {
    StatResponse {
        info: info(&known.name, &known.stat),
    }
}

fn stat_now(cx: &Cx, request: &StatRequest) -> Option<Result<StatResponse, Fault>> {
    match Wanted::new(&cx.session, &request.path) {
        Ok(wanted) => Some(cx.stat_now(&wanted)?.map(|stat| known(&stat))),
        Err(fault) => Some(Err(fault)),
    }
}

fn stat(cx: &Cx, request: &StatRequest) -> Result<StatResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    Ok(known(&cx.stat(&wanted)?))
}

fn lstat(cx: &Cx, request: &LstatRequest) -> Result<StatResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    Ok(known(&cx.lstat(&wanted)?))
}

fn file_stat(cx: &Cx, request: &FileStatRequest) -> Result<StatResponse, Fault> {
    let file = cx.file(&request.lease)?;
    Ok(StatResponse {
        info: info(&file.name, &file.stat()?),
    })
}

fn exists_now(cx: &Cx, request: &ExistsRequest) -> Option<Result<ExistsResponse, Fault>> {
    match Wanted::new(&cx.session, &request.path) {
        Ok(wanted) => Some(
            cx.stat_now(&wanted)?
                .map(|_| ExistsResponse { exists: true }),
        ),
        Err(fault) => Some(Err(fault)),
    }
}

fn exists(cx: &Cx, request: &ExistsRequest) -> Result<ExistsResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let exists = cx.exists(&wanted)?;
    Ok(ExistsResponse { exists })
}

fn list(cx: &Cx, request: &ListRequest) -> Result<ListResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let (page, next) = cx.list(&wanted, request.limit, &request.cookie)?;
    Ok(ListResponse {
        entries: page.entries,
        next,
        unreadable: page.unreadable,
    })
}

fn readlink(cx: &Cx, request: &ReadlinkRequest) -> Result<ReadlinkResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let target = cx.read_link(&wanted)?;
    Ok(ReadlinkResponse { target })
}

fn mkdir(cx: &Cx, request: &MkdirRequest) -> Result<MkdirResponse, Fault> {
    let perm = mode::permissions(made_with(request.mode, 0o700)?);
    let wanted = Wanted::new(&cx.session, &request.path)?;
    if request.parents {
        cx.mkdir_all(&wanted, perm)?;
    } else {
        cx.mkdir(&wanted, perm)?;
    }
    Ok(MkdirResponse {})
}

fn rename(cx: &Cx, request: &RenameRequest) -> Result<RenameResponse, Fault> {
    let from = Wanted::new(&cx.session, &request.from)?;
    let to = Wanted::new(&cx.session, &request.to)?;
    cx.rename(&from, &to, Replace::from_flag(request.replace))?;
    Ok(RenameResponse {})
}

fn remove(cx: &Cx, request: &RemoveRequest) -> Result<RemoveResponse, Fault> {
    cx.remove(&Wanted::new(&cx.session, &request.path)?)?;
    Ok(RemoveResponse {})
}

fn remove_all(cx: &Cx, request: &RemoveAllRequest) -> Result<RemoveAllResponse, Fault> {
    cx.remove_all(&Wanted::new(&cx.session, &request.path)?)?;
    Ok(RemoveAllResponse {})
}

fn link(cx: &Cx, request: &LinkRequest) -> Result<LinkResponse, Fault> {
    let existing = Wanted::new(&cx.session, &request.existing)?;
    let new = Wanted::new(&cx.session, &request.new)?;
    cx.link(&existing, &new)?;
    Ok(LinkResponse {})
}

fn symlink(cx: &Cx, request: &SymlinkRequest) -> Result<SymlinkResponse, Fault> {
    cx.symlink(&request.target, &Wanted::new(&cx.session, &request.new)?)?;
    Ok(SymlinkResponse {})
}

fn chmod(cx: &Cx, request: &ChmodRequest) -> Result<ChmodResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let mode = ops::mode_to_set(request.mode & SPECIAL != 0, request.mode)?;
    cx.chmod(&wanted, mode)?;
    Ok(ChmodResponse {})
}

fn chown(cx: &Cx, request: &ChownRequest) -> Result<ChownResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let follow = if request.no_follow {
        Follow::No
    } else {
        Follow::Yes
    };
    let owners = Owners::new(cx, request.uid, request.gid)?;
    cx.chown(&wanted, owners, follow)?;
    Ok(ChownResponse {})
}

fn chtimes(cx: &Cx, request: &ChtimesRequest) -> Result<ChtimesResponse, Fault> {
    let wanted = Wanted::new(&cx.session, &request.path)?;
    let times = ops::times(request.accessed.as_ref(), request.modified.as_ref())?;
    cx.chtimes(&wanted, &times)?;
    Ok(ChtimesResponse {})
}

fn file_chmod(cx: &Cx, request: &FileChmodRequest) -> Result<ChmodResponse, Fault> {
    let file = cx.file(&request.lease)?;
    let mode = ops::mode_to_set(request.mode & SPECIAL != 0, request.mode)?;
    file.changeable(cx)?;
    rustix::fs::fchmod(&file.file, mode)?;
    Ok(ChmodResponse {})
}

fn file_chown(cx: &Cx, request: &FileChownRequest) -> Result<ChownResponse, Fault> {
    let file = cx.file(&request.lease)?;
    let owners = Owners::new(cx, request.uid, request.gid)?;
    file.changeable(cx)?;
    owners.give(&file.file)?;
    Ok(ChownResponse {})
}

fn file_chtimes(cx: &Cx, request: &FileChtimesRequest) -> Result<ChtimesResponse, Fault> {
    let file = cx.file(&request.lease)?;
    let times = ops::times(request.accessed.as_ref(), request.modified.as_ref())?;
    file.changeable(cx)?;
    ops::set_times(&file.file, &times)?;
    Ok(ChtimesResponse {})
}

fn path_text(path: std::path::PathBuf) -> Result<String, Fault> {
    let path = path.into_os_string().into_string();
    path.map_err(|_| Fault::failed("the temporary directory is not UTF-8"))
}

fn temp_file(cx: &Cx, request: &TempFileRequest) -> Result<TempFileResponse, Fault> {
    let (lease, path) = cx.temp_file(&request.pattern)?;
    let path = path_text(path)?;
    Ok(TempFileResponse { lease, path })
}

fn temp_dir(cx: &Cx, request: &TempDirRequest) -> Result<TempDirResponse, Fault> {
    let path = path_text(cx.temp_dir(&request.pattern)?)?;
    Ok(TempDirResponse { path })
}

/// A stream that ends with its record.
struct Producing<S> {
    source: S,
    running: Option<Running>,
}

impl<S> Producing<S> {
    /// The end, with what the plugin is told of it.
    fn end<R>(&mut self, outcome: Result<(), Fault>) -> Option<Result<R, Status>> {
        match self.running.take()?.finish(outcome) {
            Ok(()) => None,
            Err(status) => Some(Err(status)),
        }
    }
}

fn read_stream(
    session: &Arc<Session>,
    request: Request<ReadStreamRequest>,
) -> Result<Response<Replies<ReadStreamResponse>>, Status> {
    let (metadata, _, request) = request.into_parts();
    let operation = operation("read_stream");
    let shown = |shown: &mut Argument| {
        shown
            .id("lease", &request.lease)
            .number("offset", request.offset)
            .number("length", request.length)
            .number("chunk", request.chunk);
    };
    let running = session.begin(operation, &metadata, shown);
    let running = running.map_err(|fault| fault.status(&operation.full_name()))?;
    let file = match running.cx().file(&request.lease) {
        Ok(file) => file,
        Err(fault) => return Err(refused(running, fault)),
    };
    let length = (request.length != 0).then_some(request.length);
    let chunk = session.limits().chunk_size(request.chunk);
    let producing = Producing {
        source: Reading::start(&file, Some(request.offset), length, chunk),
        running: Some(running),
    };
    let parts = futures_util::stream::unfold(producing, async |mut producing| {
        let running = producing.running.as_ref()?;
        match producing.source.next(running).await {
            Ok(part) => {
                if part.last {
                    producing.end::<()>(Ok(()));
                    if part.data.is_empty() {
                        return None;
                    }
                }
                Some((Ok(ReadStreamResponse { data: part.data }), producing))
            }
            Err(fault) => Some((producing.end(Err(fault))?, producing)),
        }
    });
    Ok(Response::new(Box::pin(parts)))
}

/// Ends an operation before it has begun to answer.
fn refused(running: Running, fault: Fault) -> Status {
    match running.finish::<()>(Err(fault)) {
        Err(status) => status,
        Ok(()) => Status::internal("the host failed"),
    }
}

async fn write_stream(
    session: &Arc<Session>,
    request: Request<Streaming<WriteStreamRequest>>,
) -> Result<Response<WriteStreamResponse>, Status> {
    let (metadata, _, mut messages) = request.into_parts();
    let operation = operation("write_stream");
    let timeout = session.limits().call_timeout;
    let running = session.begin(operation, &metadata, |_| {});
    let mut running = running.map_err(|fault| fault.status(&operation.full_name()))?;
    let first = work::first(session, &mut messages).await;
    if let Ok(first) = &first {
        running.show(|shown| {
            shown
                .id("lease", &first.lease)
                .number("offset", first.offset);
        });
    }
    let write = async || {
        let first = first?;
        let file = running.cx().file(&first.lease)?;
        let (mut at, mut written, mut data) = (first.offset, 0_u64, first.data);
        loop {
            let length = data.len() as u64;
            if length > 0 {
                stream::write(&running, &file, data, Some(at)).await?;
                written += length;
                at = at
                    .checked_add(length)
                    .ok_or_else(|| Fault::abuse("`offset` is too large"))?;
            }
            let next = tokio::time::timeout(timeout, messages.message()).await;
            match next.map_err(|_| Fault::Deadline)? {
                Ok(None) => return Ok(WriteStreamResponse { written }),
                Ok(Some(next)) if !next.lease.is_empty() && next.lease != first.lease => {
                    return Err(Fault::abuse("the stream names a second lease"));
                }
                Ok(Some(next)) => data = next.data,
                // The stream itself failed; the plugin knows.
                Err(_) => return Err(Fault::Cancelled),
            }
        }
    };
    let outcome = write().await;
    running.finish(outcome).map(Response::new)
}

async fn list_stream(
    session: &Arc<Session>,
    request: Request<ListStreamRequest>,
) -> Result<Response<Replies<ListStreamResponse>>, Status> {
    let (metadata, _, request) = request.into_parts();
    let operation = operation("list_stream");
    let shown = |shown: &mut Argument| {
        shown.text("path", &request.path);
    };
    let running = session.begin(operation, &metadata, shown);
    let running = running.map_err(|fault| fault.status(&operation.full_name()))?;
    let cx = running.cx();
    let listing = match Wanted::new(session, &request.path) {
        Ok(wanted) => session.blocking(move |_| cx.listing(&wanted)).await,
        Err(fault) => Err(fault),
    };
    let listing = match listing {
        Ok(listing) => listing,
        Err(fault) => return Err(refused(running, fault)),
    };
    let producing = Producing {
        source: Some(listing),
        running: Some(running),
    };
    let pages = futures_util::stream::unfold(producing, async |mut producing| {
        let session = producing.running.as_ref()?.session().clone();
        let mut listing: Listing = producing.source.take()?;
        let page = session.blocking(move |session| {
            let page = listing.page(LISTED, session.limits().payload())?;
            Ok((page, listing))
        });
        match page.await {
            Ok((page, listing)) => {
                if page.more {
                    producing.source = Some(listing);
                } else {
                    producing.end::<()>(Ok(()));
                    if page.entries.is_empty() && page.unreadable == 0 {
                        return None;
                    }
                }
                let (entries, unreadable) = (page.entries, page.unreadable);
                let reply = ListStreamResponse {
                    entries,
                    unreadable,
                };
                Some((Ok(reply), producing))
            }
            Err(fault) => Some((producing.end(Err(fault))?, producing)),
        }
    });
    Ok(Response::new(Box::pin(pages)))
}

async fn watch(
    session: &Arc<Session>,
    request: Request<WatchRequest>,
) -> Result<Response<Replies<WatchResponse>>, Status> {
    let (metadata, _, request) = request.into_parts();
    let operation = operation("watch");
    let shown = |shown: &mut Argument| {
        shown
            .text("path", &request.path)
            .flag("recursive", request.recursive);
    };
    let running = session.begin(operation, &metadata, shown);
    let running = running.map_err(|fault| fault.status(&operation.full_name()))?;
    let started = match Wanted::new(session, &request.path) {
        Ok(wanted) => Watching::start(&running, wanted, request.recursive).await,
        Err(fault) => Err(fault),
    };
    let watching = match started {
        Ok(watching) => watching,
        Err(fault) => return Err(refused(running, fault)),
    };
    let producing = Producing {
        source: watching,
        running: Some(running),
    };
    let changes = futures_util::stream::unfold(producing, async |mut producing| {
        let running = producing.running.as_ref()?;
        match producing.source.next(running).await {
            Ok(change) => Some((Ok(change), producing)),
            Err(fault) => Some((producing.end(Err(fault))?, producing)),
        }
    });
    Ok(Response::new(Box::pin(changes)))
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
