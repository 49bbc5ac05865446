//! A plugin that a test ends while it is at work: asked to list, it writes a secret
//! into a temporary directory of its host, starts a command there, and waits.

use std::convert::Infallible;
use std::process::ExitCode;

use outrigger_examples::host_services_cookie;
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::filelister::file_lister_server::{FileLister, FileListerServer};
use outrigger_examples::proto::filelister::{
    FileListRequest, FileListResponse, HostServiceRequest, HostServiceResponse,
};
use outrigger_plugin::{HostError, PluginContext, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

struct Waiting(PluginContext);

impl Waiting {
    async fn wait(&self) -> Result<Infallible, HostError> {
        let host = self.0.host().await?;
        let command = host.process().command("/bin/sleep").arg("300");
        let _running = command.spawn().await?;
        let dir = host.fs().temp_dir("waiting-").await?;
        let secret = dir.join("secret").display().to_string();
        host.fs().write(secret, "hush").await?;
        std::future::pending().await
    }
}

#[tonic::async_trait]
impl FileLister for Waiting {
    async fn establish_host_services(
        &self,
        _: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list(
        &self,
        _: Request<FileListRequest>,
    ) -> Result<Response<FileListResponse>, Status> {
        match self.wait().await {
            Ok(never) => match never {},
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("waiting", |context| {
        ServiceSet::new()
            .with(FileListerServer::new(Waiting(context.clone())))
            .describe(DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
