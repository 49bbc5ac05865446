//! A file lister. It touches no file itself: it lists through the services that
//! its host offers.

use std::process::ExitCode;

use outrigger_examples::host_services_cookie;
use outrigger_examples::hosted::{HostLink, chain};
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use outrigger_wire::proto::hostserve::DirEntry;
use tonic::{Request, Response, Status};

struct Lister(HostLink);

/// Folders as `d name/`, everything else as `- name`.
fn line(entry: &DirEntry) -> String {
    match entry.is_dir {
        true => format!("d {}/", entry.name),
        false => format!("- {}", entry.name),
    }
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
        let listed = match host.read_dir(&root_dir, &path).await {
            Ok(entries) => FileListResponse {
                entry: entries.iter().map(line).collect(),
                error: None,
            },
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
