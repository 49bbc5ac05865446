//! A file lister that says how many lines each file has. It touches no file
//! itself: it lists, opens, streams and closes through the services that its
//! host offers.

use std::process::ExitCode;

use futures_util::StreamExt;
use outrigger_examples::host_services_cookie;
use outrigger_examples::hosted::{HostLink, chain};
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::{HostServeError, HostServices, PluginSet, Serve, ServiceSet};
use outrigger_wire::proto::hostserve::{
    DirEntry, FileCloseRequest, FileOpenRequest, FileReadRequest, OpenFileFlags,
};
use tonic::{Request, Response, Status};

/// How many files are read at the same time; each holds one handle of the host.
const AT_ONCE: usize = 8;
/// How much of one file is read, in bytes.
const LONGEST: usize = 256 << 10;
/// Bytes asked for in one piece.
const PIECE: u32 = 32 << 10;

struct Lister(HostLink);

/// Folders as `d name/`, everything else as `- name`, with the number of its
/// lines where it could be read.
async fn line(host: &HostServices, root: &str, path: &str, entry: DirEntry) -> String {
    if entry.is_dir {
        return format!("d {}/", entry.name);
    }
    match lines(host, root, &format!("{path}/{}", entry.name)).await {
        Some(count) => format!("- {}  {count}", entry.name),
        None => format!("- {}", entry.name),
    }
}

/// How many lines a text has; `None` if the host does not let it be read.
async fn lines(host: &HostServices, root: &str, path: &str) -> Option<String> {
    let request = FileOpenRequest {
        root_dir: root.into(),
        path: path.into(),
        flags: OpenFileFlags::ReadOnly.into(),
        perm: 0,
    };
    let opened = host.client().file_open(request).await.ok()?.into_inner();
    if opened.error.is_some() {
        return None;
    }
    let handle = opened.handle;
    let counted = count(host, &handle).await;
    // The host keeps a handle until it is closed, also when reading it failed.
    let closed = host.client().file_close(FileCloseRequest { handle }).await;
    closed.ok()?;
    counted
}

/// Streams what is behind a handle and counts its lines.
async fn count(host: &HostServices, handle: &str) -> Option<String> {
    let request = FileReadRequest {
        handle: handle.into(),
        chunk_size: PIECE,
    };
    let mut pieces = host.client().file_reader(request).await.ok()?.into_inner();
    let (mut read, mut count, mut last) = (0, 0, b'\n');
    while let Some(piece) = pieces.message().await.ok()? {
        if piece.error.is_some() {
            return None;
        }
        let data = piece.chunk.unwrap_or_default().data;
        read += data.len();
        count += data.iter().filter(|byte| **byte == b'\n').count();
        last = data.last().copied().unwrap_or(last);
        if read > LONGEST {
            return Some(format!("more than {count} lines"));
        }
    }
    // The last line may have no end.
    count += usize::from(last != b'\n');
    Some(match count {
        1 => "1 line".to_owned(),
        _ => format!("{count} lines"),
    })
}

/// The lines of one directory.
async fn listing(
    host: &HostServices,
    root: &str,
    path: &str,
) -> Result<Vec<String>, HostServeError> {
    let entries = host.read_dir(root, path).await?;
    let lines = futures_util::stream::iter(entries).map(|entry| line(host, root, path, entry));
    Ok(lines.buffered(AT_ONCE).collect().await)
}

#[tonic::async_trait]
impl FileLister for Lister {
    async fn establish_host_services(
        &self,
        request: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        let (client_id, error) = self.0.answer(request.get_ref().host_service).await;
        Ok(Response::new(HostServiceResponse { client_id, error }))
    }

    async fn list(
        &self,
        request: Request<FileListRequest>,
    ) -> Result<Response<FileListResponse>, Status> {
        let FileListRequest {
            root_dir,
            path,
            host_service,
        } = request.into_inner();
        let host = self.0.services(host_service).await?;
        let path = if path.is_empty() { "." } else { path.as_str() };
        let listed = match listing(&host, &root_dir, path).await {
            Ok(entry) => FileListResponse { entry, error: None },
            Err(error) => FileListResponse {
                entry: Vec::new(),
                error: Some(chain(&error)),
            },
        };
        tracing::debug!(path, entries = listed.entry.len(), "listed");
        Ok(Response::new(listed))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("file-lister", |context| {
        let lister = Lister(HostLink::new(context));
        ServiceSet::new()
            .with(FileListerServer::new(lister))
            .describe(DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
