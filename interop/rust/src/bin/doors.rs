//! A plugin that asks its host for one operation, in the way that it is told, and
//! says how that failed: for a test that compares the ways.
//!
//! `List` takes the way (`descriptor`, `call` or `hostserve`), the operation and
//! its arguments as the lines of `path`; `host_service` is a broker id for
//! `hostserve`, or for services of which the limits are to be met. The reply has
//! `ok`, or the facts of the error in a fixed order.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_examples::host_services_cookie;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::host::{File, Host, OpenOptions};
use outrigger_plugin::proto::hostserve as messages;
use outrigger_plugin::{HostError, HostServe, PluginContext, PluginSet, Serve, ServiceSet};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

/// The connections, by broker id.
struct Doors {
    context: PluginContext,
    hosts: Mutex<HashMap<u32, Host>>,
    host_serves: Mutex<HashMap<u32, HostServe>>,
}

/// The operation and its arguments.
struct Asked<'a> {
    /// Whether a limit may make the host do itself what it is asked for.
    limited: bool,
    operation: &'a str,
    arguments: Vec<&'a str>,
}

impl Asked<'_> {
    fn text(&self, index: usize) -> &str {
        self.arguments.get(index).copied().unwrap_or_default()
    }

    fn number<T: std::str::FromStr + Default>(&self, index: usize) -> T {
        self.text(index).parse().unwrap_or_default()
    }
}

fn unknown(operation: &str) -> Status {
    Status::invalid_argument(format!("no such operation: {operation}"))
}

/// What a plugin can know of an error.
fn facts(error: HostError) -> Vec<String> {
    let status = i32::from(error.grpc_code()).to_string();
    let known = [
        error.errno().unwrap_or_default(),
        error.code(),
        error.operation(),
    ]
    .map(str::to_owned);
    let text = error.to_string();
    let kind = format!("{:?}", std::io::Error::from(error).kind());
    let [errno, code, operation] = known;
    vec![status, errno, code, operation, text, kind]
}

/// The error of the host in an error of a stream.
fn inner(error: std::io::Error) -> HostError {
    let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
    *inner.expect("an error of the host")
}

/// How `mode` opens a file: letters of read, write, append, truncate, create, new.
fn options(host: &Host, mode: &str) -> OpenOptions {
    let options = host.fs().options();
    options
        .read(mode.contains('r'))
        .write(mode.contains('w'))
        .append(mode.contains('a'))
        .truncate(mode.contains('t'))
        .create(mode.contains('c'))
        .create_new(mode.contains('n'))
}

async fn by_host(host: &Host, asked: &Asked<'_>) -> Result<Result<(), HostError>, Status> {
    let (fs, first, second) = (host.fs(), asked.text(0), asked.text(1));
    if let Some(operation) = asked.operation.strip_prefix("file.") {
        let file = match options(host, second).open(first).await {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        if !asked.limited && file.descriptor().is_some() != host.has_descriptors() {
            return Err(Status::internal("not in the way that was asked for"));
        }
        return by_file(file, operation, asked).await;
    }
    Ok(match asked.operation {
        "open" => options(host, second).open(first).await.map(drop),
        "create" => fs.create(first).await.map(drop),
        "open_dir" => fs.open_dir(first).await.map(drop),
        "open_at" => match fs.open_dir(first).await {
            Ok(dir) => dir.open(second).await.map(drop),
            Err(error) => Err(error),
        },
        "read" => fs.read(first).await.map(drop),
        "write" => fs.write(first, "new").await,
        "append" => fs.append(first, &b"more"[..]).await.map(drop),
        "copy" => fs.copy(first, second).await.map(drop),
        "metadata" => fs.metadata(first).await.map(drop),
        "symlink_metadata" => fs.symlink_metadata(first).await.map(drop),
        "exists" => fs.exists(first).await.map(drop),
        "read_dir" => {
            let mut entries = fs.read_dir(first);
            loop {
                match entries.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        }
        "read_link" => fs.read_link(first).await.map(drop),
        "create_dir" => fs.create_dir(first).await,
        "create_dir_all" => fs.create_dir_all(first).await,
        "rename" => fs.rename(first, second).await,
        "remove" => fs.remove(first).await,
        "remove_all" => fs.remove_all(first).await,
        "hard_link" => fs.hard_link(first, second).await,
        "symlink" => fs.symlink(first, second).await,
        "set_permissions" => fs.set_permissions(first, asked.number(1)).await,
        "set_owner" => fs.set_owner(first, Some(asked.number(1)), None).await,
        "set_times" => {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(asked.number(1));
            fs.set_times(first, None, Some(time)).await
        }
        "truncate" => fs.truncate(first, asked.number(1)).await,
        "temp_file" => fs.temp_file(first).await.map(drop),
        "temp_dir" => fs.temp_dir(first).await.map(drop),
        "watch" => fs.watch(first, false).await.map(drop),
        "run" => command(host, asked).output().await.map(drop),
        "spawn" => match command(host, asked).spawn().await {
            Ok(mut child) => child.wait().await.map(drop),
            Err(error) => Err(error),
        },
        "signal" => match command(host, asked).spawn().await {
            Ok(mut child) => child.signal(0).await,
            Err(error) => Err(error),
        },
        "resolve" => {
            let found = host.network().resolve(first, asked.number(1)).await;
            found.map(drop)
        }
        "connect" => {
            let found = host.network().connect(first, asked.number(1)).await;
            found.map(drop)
        }
        "connect_udp" => udp(host, asked).await,
        "bind_udp" => {
            let found = host.network().bind_udp(None, asked.number(0)).await;
            found.map(drop)
        }
        "listen" => {
            let found = host.network().listen(None, asked.number(0)).await;
            found.map(drop)
        }
        "get" => host.network().get(first).await.map(drop),
        "var" => host.env().var(first).await.map(drop),
        "random" => host.clock().random(asked.number(0)).await.map(drop),
        "sleep" => {
            let time = Duration::from_millis(asked.number(0));
            host.clock().sleep(time).await
        }
        other => return Err(unknown(other)),
    })
}

/// Connects, sends a datagram of so many bytes, and one to another place.
async fn udp(host: &Host, asked: &Asked<'_>) -> Result<(), HostError> {
    let network = host.network();
    let socket = network.connect_udp(asked.text(0), asked.number(1)).await?;
    socket.send(&vec![0; asked.number(2)]).await?;
    let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    socket.send_to(b"", elsewhere).await.map(drop)
}

fn command(host: &Host, asked: &Asked<'_>) -> outrigger_plugin::host::Command {
    let command = host.process().command(asked.text(0));
    let command = command.args(asked.arguments.iter().skip(2).copied());
    match asked.text(1) {
        "" => command,
        directory => command.current_dir(directory),
    }
}

async fn by_file(
    mut file: File,
    operation: &str,
    asked: &Asked<'_>,
) -> Result<Result<(), HostError>, Status> {
    let at = asked.number(2);
    let mut buffer = [0; 8];
    Ok(match operation {
        "read_at" => file.read_at(&mut buffer, at).await.map(drop),
        "read_at_empty" => file.read_at(&mut [], at).await.map(drop),
        "read_exact_at" => file.read_exact_at(&mut buffer, at).await,
        "read" => file.read(&mut buffer).await.map(drop),
        "write_at" => file.write_all_at(b"new", at).await,
        "write_at_empty" => file.write_all_at(b"", at).await,
        "write" => file.write_all(b"new").await,
        "seek" => file
            .seek(SeekFrom::Current(asked.number(2)))
            .await
            .map(drop),
        "set_len" => file.set_len(at).await,
        "sync_all" => file.sync_all().await,
        "metadata" => file.metadata().await.map(drop),
        "stream" => {
            let mut parts = file.stream(at, 0);
            loop {
                match parts.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                }
            }
        }
        "write_stream" => {
            let parts = futures_util::stream::iter([Bytes::from_static(b"new")]);
            file.write_stream(at, parts).await.map(drop)
        }
        "poll_read" => AsyncReadExt::read(&mut file, &mut buffer)
            .await
            .map(drop)
            .map_err(inner),
        "poll_write" => AsyncWriteExt::write_all(&mut file, b"new")
            .await
            .map_err(inner),
        "poll_seek" => AsyncSeekExt::seek(&mut file, SeekFrom::Current(asked.number(2)))
            .await
            .map(drop)
            .map_err(inner),
        other => return Err(unknown(other)),
    })
}

/// Go has the set-user-id bit in another place.
fn go_mode(mode: u32) -> u32 {
    let set_user_id = if mode & 0o4000 == 0 { 0 } else { 1 << 23 };
    (mode & 0o777) | set_user_id
}

/// How `hostserve.v1` told it: the call's status, or its answer's error.
async fn by_host_serve(host: &HostServe, asked: &Asked<'_>) -> Result<Vec<String>, Status> {
    let mut client = host.client();
    let (first, second) = (asked.text(0).to_owned(), asked.text(1).to_owned());
    macro_rules! ask {
        ($method:ident, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {{
            #[allow(clippy::needless_update, reason = "some requests have no more fields")]
            let request = messages::$request { $($field: $value,)* ..Default::default() };
            match client.$method(request).await {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    match reply.error.clone() {
                        None => Ok(reply),
                        Some(text) => Err(vec!["in-band".to_owned(), text]),
                    }
                }
                Err(status) => {
                    let code = i32::from(status.code()).to_string();
                    Err(vec!["status".to_owned(), code, status.message().to_owned()])
                }
            }
        }};
    }
    if asked.operation == "open" || asked.operation.starts_with("file.") {
        let flags = match second.as_str() {
            "r" => messages::OpenFileFlags::ReadOnly,
            "wct" => messages::OpenFileFlags::WriteCreateTruncate,
            "wca" => messages::OpenFileFlags::WriteCreateAppend,
            "wn" => messages::OpenFileFlags::WriteCreateExclusive,
            "rw" => messages::OpenFileFlags::ReadWrite,
            _ => return Ok(Vec::new()),
        };
        let flags = flags.into();
        let opened = ask!(
            file_open,
            FileOpenRequest {
                path: first,
                flags: flags,
                perm: 0o600
            }
        );
        let handle = match opened {
            Ok(opened) => opened.handle,
            Err(facts) => return Ok(facts),
        };
        let (lent, offset) = (handle.clone(), asked.number(2));
        let done = match asked.operation {
            "file.read_at" => ask!(
                file_read_section,
                FileReadSectionRequest {
                    handle: lent,
                    offset: offset,
                    length: 8
                }
            )
            .map(drop),
            "file.write_at" => {
                let data = Bytes::from_static(b"new");
                ask!(
                    file_write_section,
                    FileWriteSectionRequest {
                        handle: lent,
                        offset: offset,
                        data: data
                    }
                )
                .map(drop)
            }
            "file.seek" => {
                let offset = asked.number::<i64>(2).cast_unsigned();
                ask!(
                    file_seek,
                    FileSeekRequest {
                        handle: lent,
                        offset: offset,
                        whence: 1
                    }
                )
                .map(drop)
            }
            "file.set_len" => match i64::try_from(offset) {
                Ok(size) => ask!(
                    file_truncate,
                    FileTruncateRequest {
                        handle: lent,
                        size: size
                    }
                )
                .map(drop),
                Err(_) => Err(Vec::new()),
            },
            "file.sync_all" => ask!(file_sync, FileSyncRequest { handle: lent }).map(drop),
            "open" => Ok(()),
            _ => Err(Vec::new()),
        };
        let _ = ask!(file_close, FileCloseRequest { handle: handle });
        return Ok(done.err().unwrap_or_else(|| vec!["ok".to_owned()]));
    }
    let done = match asked.operation {
        "read" => ask!(read_file, ReadFileRequest { path: first }).map(drop),
        "write" => {
            let data = Bytes::from_static(b"new");
            ask!(
                write_file,
                WriteFileRequest {
                    path: first,
                    data: data,
                    perm: 0o600
                }
            )
            .map(drop)
        }
        "metadata" => ask!(stat, StatRequest { path: first }).map(drop),
        "symlink_metadata" => ask!(lstat, LstatRequest { path: first }).map(drop),
        "read_dir" => ask!(read_dir, ReadDirRequest { path: first }).map(drop),
        "read_link" => ask!(readlink, ReadlinkRequest { path: first }).map(drop),
        "create_dir" => ask!(
            mkdir,
            MkdirRequest {
                name: first,
                perm: 0o700
            }
        )
        .map(drop),
        "create_dir_all" => ask!(
            mkdir_all,
            MkdirAllRequest {
                path: first,
                perm: 0o700
            }
        )
        .map(drop),
        "rename" => ask!(
            rename,
            RenameRequest {
                old_name: first,
                new_name: second
            }
        )
        .map(drop),
        "remove" => ask!(remove, RemoveRequest { path: first }).map(drop),
        "remove_all" => ask!(remove_all, RemoveAllRequest { path: first }).map(drop),
        "hard_link" => ask!(
            link,
            LinkRequest {
                old_path: first,
                new_path: second
            }
        )
        .map(drop),
        "symlink" => ask!(
            symlink,
            SymlinkRequest {
                old_path: first,
                new_path: second
            }
        )
        .map(drop),
        "set_permissions" => ask!(
            chmod,
            ChmodRequest {
                path: first,
                mode: go_mode(asked.number(1))
            }
        )
        .map(drop),
        "set_owner" => ask!(
            chown,
            ChownRequest {
                path: first,
                uid: asked.number(1),
                gid: -1
            }
        )
        .map(drop),
        "set_times" => {
            let mtime = prost_types::Timestamp {
                seconds: asked.number(1),
                nanos: 0,
            };
            ask!(
                chtimes,
                ChtimesRequest {
                    path: first,
                    mtime: Some(mtime)
                }
            )
            .map(drop)
        }
        "temp_file" => match ask!(file_create_temp, FileCreateTempRequest { pattern: first }) {
            Ok(made) => {
                let handle = made.handle;
                ask!(file_close, FileCloseRequest { handle: handle }).map(drop)
            }
            Err(facts) => Err(facts),
        },
        "temp_dir" => ask!(mkdir_temp, MkdirTempRequest { pattern: first }).map(drop),
        // It has no such operation, or its own meaning of it.
        _ => return Ok(Vec::new()),
    };
    Ok(done.err().unwrap_or_else(|| vec!["ok".to_owned()]))
}

impl Doors {
    async fn host(&self, id: u32) -> Result<Host, HostError> {
        let mut hosts = self.hosts.lock().await;
        if let Some(host) = hosts.get(&id) {
            return Ok(host.clone());
        }
        let host = match id {
            0 => self.context.host().await?,
            id => self.context.host_on(id).await?,
        };
        hosts.insert(id, host.clone());
        Ok(host)
    }

    async fn host_serve(&self, id: u32) -> Result<HostServe, Status> {
        let mut known = self.host_serves.lock().await;
        if let Some(host) = known.get(&id) {
            return Ok(host.clone());
        }
        let host = self.context.host_serve(id).await;
        let host = host.map_err(|error| Status::unavailable(error.to_string()))?;
        known.insert(id, host.clone());
        Ok(host)
    }
}

#[tonic::async_trait]
impl FileLister for Doors {
    async fn establish_host_services(
        &self,
        _: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list(
        &self,
        request: Request<FileListRequest>,
    ) -> Result<Response<FileListResponse>, Status> {
        let request = request.into_inner();
        let mut lines = request.path.split('\n');
        let way = lines.next().unwrap_or_default();
        let operation = lines.next().unwrap_or_default();
        let arguments = lines.collect();
        let asked = Asked {
            limited: request.host_service != 0,
            operation,
            arguments,
        };
        let entry = match way {
            "hostserve" => {
                let host = self.host_serve(request.host_service).await?;
                by_host_serve(&host, &asked).await?
            }
            way => {
                let host = self.host(request.host_service).await;
                let host = host.map_err(|error| Status::unavailable(error.to_string()))?;
                let host = match way {
                    "descriptor" if host.has_descriptors() => host,
                    "call" => host.without_descriptors(),
                    way => return Err(Status::unavailable(format!("no way by {way}"))),
                };
                match by_host(&host, &asked).await? {
                    Ok(()) => vec!["ok".to_owned()],
                    Err(error) => facts(error),
                }
            }
        };
        Ok(Response::new(FileListResponse { entry, error: None }))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("doors", |context| {
        ServiceSet::new().with(FileListerServer::new(Doors {
            context: context.clone(),
            hosts: Mutex::default(),
            host_serves: Mutex::default(),
        }))
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
