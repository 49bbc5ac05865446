//! A file lister that uses what its host offers from the start: its manifest says
//! what it wants to read, its host's policy what it may. It introduces nobody.

use std::process::ExitCode;

use outrigger_examples::host_services_cookie;
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::host::FileKind;
use outrigger_plugin::{HostError, PluginContext, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

struct Lister(PluginContext);

impl Lister {
    /// Folders as `d name/`, everything else as `- name` with its size in bytes.
    async fn listing(&self, folder: &str) -> Result<Vec<String>, HostError> {
        let files = self.0.host().await?.fs();
        let mut entries = files.read_dir(folder);
        let mut lines = Vec::new();
        while let Some(entry) = entries.next().await? {
            lines.push(match entry.kind {
                FileKind::Directory => format!("d {}/", entry.name),
                _ => {
                    let path = format!("{folder}/{}", entry.name);
                    let size = files.symlink_metadata(path).await?.len();
                    format!("- {} {size}", entry.name)
                }
            });
        }
        lines.sort();
        Ok(lines)
    }
}

#[tonic::async_trait]
impl FileLister for Lister {
    async fn establish_host_services(
        &self,
        _: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        Err(Status::unimplemented(
            "the host's services are known already",
        ))
    }

    async fn list(
        &self,
        request: Request<FileListRequest>,
    ) -> Result<Response<FileListResponse>, Status> {
        let folder = &request.get_ref().path;
        Ok(Response::new(match self.listing(folder).await {
            Ok(entry) => FileListResponse { entry, error: None },
            Err(error) => FileListResponse {
                entry: Vec::new(),
                error: Some(format!("{}: {error}", error.code())),
            },
        }))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("granted-lister", |context| {
        ServiceSet::new()
            .with(FileListerServer::new(Lister(context.clone())))
            .describe(DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
