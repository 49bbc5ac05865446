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
use outrigger_plugin::host::{DirEntry, FileKind};
use outrigger_plugin::{HostServe, HostServeError, HostServeFile, PluginSet, Serve, ServiceSet};
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
async fn line(host: &HostServe, root: &str, path: &str, entry: DirEntry) -> String {
    if entry.kind == FileKind::Directory {
        return format!("d {}/", entry.name);
    }
    match lines(host, root, &format!("{path}/{}", entry.name)).await {
        Some(count) => format!("- {}  {count}", entry.name),
        None => format!("- {}", entry.name),
    }
}

/// How many lines a text has; `None` if the host does not let it be read.
async fn lines(host: &HostServe, root: &str, path: &str) -> Option<String> {
    let file = host.open(root, path).await.ok()?;
    let counted = count(&file).await;
    file.close().await.ok()?;
    counted
}

/// Streams a file and counts its lines.
async fn count(file: &HostServeFile) -> Option<String> {
    let mut pieces = Box::pin(file.parts(PIECE).await.ok()?);
    let (mut read, mut count, mut last) = (0, 0, b'\n');
    while let Some(data) = pieces.next().await {
        let data = data.ok()?;
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
async fn listing(host: &HostServe, root: &str, path: &str) -> Result<Vec<String>, HostServeError> {
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
