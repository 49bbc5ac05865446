//! A file lister that colours what it lists: folders, links, programs, files.
//! Asked again, it says what is new. What it saw it keeps in a temporary file of
//! its host, which is removed when this plugin is gone.

use std::collections::BTreeSet;
use std::process::ExitCode;

use futures_util::StreamExt;
use outrigger_examples::host_services_cookie;
use outrigger_examples::hosted::{HostLink, chain};
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::host::FileKind;
use outrigger_plugin::{HostServe, HostServeError, PluginSet, Serve, ServiceSet};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

/// How many entries are asked about at the same time.
const AT_ONCE: usize = 16;

struct Lister {
    host: HostLink,
    /// The temporary directory with what was seen, once there is one.
    seen: Mutex<Option<String>>,
}

/// What there is to colour.
enum Kind {
    Folder,
    Link {
        target: String,
    },
    Program {
        size: u64,
    },
    File {
        size: u64,
    },
    /// The host could not tell.
    Unknown,
}

impl Kind {
    async fn of(host: &HostServe, root: &str, path: &str) -> Self {
        let Ok(found) = host.symlink_metadata(root, path).await else {
            return Self::Unknown;
        };
        let size = found.len();
        match found.kind() {
            FileKind::Directory => Self::Folder,
            FileKind::Symlink => {
                let target = host.read_link(root, path).await.unwrap_or_default();
                Self::Link { target }
            }
            FileKind::File | FileKind::Other if found.mode() & 0o111 != 0 => Self::Program { size },
            FileKind::File | FileKind::Other => Self::File { size },
        }
    }

    fn line(&self, name: &str, new: bool) -> String {
        let line = self.text(name);
        match new {
            true => format!("{line}  \x1b[33mnew\x1b[0m"),
            false => line,
        }
    }

    fn text(&self, name: &str) -> String {
        // A name may hold terminal codes of its own.
        let name = name.escape_debug();
        match self {
            Self::Folder => format!("\x1b[1;34m{name}/\x1b[0m"),
            Self::Link { target } => format!("\x1b[36m{name}\x1b[0m -> {}", target.escape_debug()),
            Self::Program { size } => format!("\x1b[32m{name}\x1b[0m  {}", size_text(*size)),
            Self::File { size } => format!("{name}  {}", size_text(*size)),
            Self::Unknown => format!("\x1b[31m{name}\x1b[0m"),
        }
    }
}

fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// The file in the temporary directory that keeps the names of one listing.
const SEEN: &str = "seen";

impl Lister {
    async fn entries(
        &self,
        host: &HostServe,
        root: &str,
        path: &str,
    ) -> Result<Vec<String>, HostServeError> {
        let entries = host.read_dir(root, path).await?;
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let known = self.remember(host, root, path, &names).await;
        let is_new = |name: &str| known.as_ref().is_some_and(|known| !known.contains(name));
        let lines = futures_util::stream::iter(entries).map(|entry| {
            let new = is_new(&entry.name);
            async move {
                let kind = Kind::of(host, root, &format!("{path}/{}", entry.name)).await;
                kind.line(&entry.name, new)
            }
        });
        Ok(lines.buffered(AT_ONCE).collect().await)
    }

    /// Keeps the names of a directory with the host, and gives those of the last
    /// time if that was the same directory. A host without temporary files is
    /// one for which nothing is ever new.
    async fn remember(
        &self,
        host: &HostServe,
        root: &str,
        path: &str,
        names: &[&str],
    ) -> Option<BTreeSet<String>> {
        // No name contains a NUL.
        let directory = format!("{root}\0{path}\0");
        let content = format!("{directory}{}", names.join("\0"));
        let mut seen = self.seen.lock().await;
        let folder = match &*seen {
            Some(folder) => folder.clone(),
            None => host.create_temp_dir("listed-*").await.ok()?,
        };
        let before = host.read_file(&folder, SEEN).await;
        let kept = host.write_file(&folder, SEEN, content, 0o600).await;
        // Of a host that was introduced anew, the old directory is gone.
        *seen = kept.is_ok().then_some(folder);
        let before = String::from_utf8(before.ok()?.to_vec()).ok()?;
        let names = before.strip_prefix(&directory)?;
        Some(names.split('\0').map(str::to_owned).collect())
    }
}

#[tonic::async_trait]
impl FileLister for Lister {
    async fn establish_host_services(
        &self,
        request: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        let (client_id, error) = self.host.answer(request.get_ref().host_service).await;
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
        let host = self.host.services(host_service).await?;
        let path = if path.is_empty() { "." } else { path.as_str() };
        let listed = match self.entries(&host, &root_dir, path).await {
            Ok(entry) => FileListResponse { entry, error: None },
            Err(error) => FileListResponse {
                entry: Vec::new(),
                error: Some(chain(&error)),
            },
        };
        Ok(Response::new(listed))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("color-lister", |context| {
        let lister = Lister {
            host: HostLink::new(context),
            seen: Mutex::default(),
        };
        ServiceSet::new()
            .with(FileListerServer::new(lister))
            .describe(DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
