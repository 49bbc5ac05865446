//! What a plugin can do through its host: variables, ids, temporary files,
//! folders and files, and a text read in pieces.

use std::fmt::Write as _;
use std::process::ExitCode;

use futures_util::StreamExt;
use outrigger_examples::host_services_cookie;
use outrigger_examples::hosted::{HostLink, chain};
use outrigger_examples::proto::DESCRIPTORS;
use outrigger_examples::proto::hostdemo::host_demo_server::{HostDemo, HostDemoServer};
use outrigger_examples::proto::hostdemo::{
    CreateDemoReq, CreateDemoResp, EnvDemoReq, EnvDemoResp, GetEnvDemoReq, GetEnvDemoResp,
    HostServiceRequest, HostServiceResponse, ReadFrankensteinReq, ReadFrankensteinResp,
    TempDemoReq, TempDemoResp,
};
use outrigger_plugin::{HostServe, HostServeError, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

/// The text that is read in pieces.
const TEXT: &str = "frankenstein.txt";
/// The largest text that is put into one answer, in bytes.
const LONGEST: usize = 1 << 20;
/// Bytes asked for in one piece.
const PIECE: u32 = 256;

struct Demo(HostLink);

/// Why a demo did not work.
#[derive(Debug)]
struct Failure(String);

impl From<HostServeError> for Failure {
    fn from(error: HostServeError) -> Self {
        Self(chain(&error))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(format!("{}: {}", status.code(), status.message()))
    }
}

/// The two fields that every answer has.
fn answered(outcome: Result<String, Failure>) -> (String, Option<String>) {
    match outcome {
        Ok(text) => (text, None),
        Err(Failure(text)) => (String::new(), Some(text)),
    }
}

async fn variable(host: &HostServe, key: &str) -> Result<String, Failure> {
    let value = host.env(key).await?;
    Ok(format!("{key} is {value:?} to the host"))
}

async fn ids_and_folders(host: &HostServe) -> Result<String, Failure> {
    let (uid, pid) = (host.uid().await?, host.pid().await?);
    let (home, temp) = (host.home_dir().await?, host.temp_dir().await?);
    Ok(format!(
        "the host runs as user {uid}, process {pid}\nits home is {home}\nmy temporary folder is {temp}"
    ))
}

async fn temporary(host: &HostServe, pattern: &str, text: &str) -> Result<String, Failure> {
    let folder = host.create_temp_dir(pattern).await?;
    host.write_file(&folder, "note.txt", text.to_owned(), 0o600)
        .await?;
    let read = host.read_file(&folder, "note.txt").await?;
    host.remove(&folder, "note.txt").await?;
    host.remove("", &folder).await?;
    let same = if read == text.as_bytes() {
        "the same"
    } else {
        "something else"
    };
    Ok(format!(
        "made {folder}\nwrote {} bytes to note.txt in it, read back {same}\nremoved both",
        text.len()
    ))
}

async fn folder_and_file(host: &HostServe, folder: &str, file: &str) -> Result<String, Failure> {
    host.create_dir_all("", folder, 0o755).await?;
    let text = "written by a plugin, through its host\n";
    host.write_file(folder, file, text, 0o644).await?;
    let size = host.metadata(folder, file).await?.len();
    Ok(format!("made {folder}/ and in it {file} of {size} bytes"))
}

/// Opens the text and streams it, as a plugin does with a file that does not
/// fit into one message.
async fn text_in_pieces(host: &HostServe) -> Result<String, Failure> {
    let file = host.open("", TEXT).await?;
    let mut pieces = Box::pin(file.parts(PIECE).await?);
    let (mut text, mut count) = (Vec::new(), 0);
    while let Some(data) = pieces.next().await {
        let data = data?;
        if text.len() + data.len() > LONGEST {
            return Err(Failure(format!("{TEXT} is longer than {LONGEST} bytes")));
        }
        count += usize::from(!data.is_empty());
        text.extend_from_slice(&data);
    }
    file.close().await?;
    let mut answer = String::from_utf8_lossy(&text).into_owned();
    // Writing to a `String` cannot fail.
    let _ = write!(answer, "\n({} bytes in {count} pieces)", text.len());
    Ok(answer)
}

#[tonic::async_trait]
impl HostDemo for Demo {
    async fn establish_host_services(
        &self,
        request: Request<HostServiceRequest>,
    ) -> Result<Response<HostServiceResponse>, Status> {
        let (client_id, error) = self.0.answer(request.get_ref().host_service).await;
        Ok(Response::new(HostServiceResponse { client_id, error }))
    }

    async fn get_env_demo(
        &self,
        request: Request<GetEnvDemoReq>,
    ) -> Result<Response<GetEnvDemoResp>, Status> {
        let host = self.0.services(0).await?;
        let (resp, error) = answered(variable(&host, &request.get_ref().key).await);
        Ok(Response::new(GetEnvDemoResp { resp, error }))
    }

    async fn env_demo(&self, _: Request<EnvDemoReq>) -> Result<Response<EnvDemoResp>, Status> {
        let (resp, error) = answered(ids_and_folders(&self.0.services(0).await?).await);
        Ok(Response::new(EnvDemoResp { resp, error }))
    }

    async fn temp_demo(
        &self,
        request: Request<TempDemoReq>,
    ) -> Result<Response<TempDemoResp>, Status> {
        let TempDemoReq {
            pattern,
            text_to_write,
        } = request.into_inner();
        let host = self.0.services(0).await?;
        let (resp, error) = answered(temporary(&host, &pattern, &text_to_write).await);
        Ok(Response::new(TempDemoResp { resp, error }))
    }

    async fn create_dir_file_demo(
        &self,
        request: Request<CreateDemoReq>,
    ) -> Result<Response<CreateDemoResp>, Status> {
        let CreateDemoReq {
            dir_to_create,
            file_to_create,
        } = request.into_inner();
        let host = self.0.services(0).await?;
        let outcome = folder_and_file(&host, &dir_to_create, &file_to_create).await;
        let (demo_resp, error) = answered(outcome);
        Ok(Response::new(CreateDemoResp { demo_resp, error }))
    }

    async fn read_frankenstein(
        &self,
        _: Request<ReadFrankensteinReq>,
    ) -> Result<Response<ReadFrankensteinResp>, Status> {
        let (frank, error) = answered(text_in_pieces(&self.0.services(0).await?).await);
        Ok(Response::new(ReadFrankensteinResp { frank, error }))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("host-demo", |context| {
        let demo = Demo(HostLink::new(context));
        ServiceSet::new()
            .with(HostDemoServer::new(demo))
            .describe(DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(host_services_cookie()).offer(1, set))
}
