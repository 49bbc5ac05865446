//! Counters in files `counter_<key>` of its working directory, added up by the
//! host: the plugin that go-plugin's own `bidirectional` example host loads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrigger_examples::basic_cookie;
use outrigger_examples::proto::counter::add_helper_client::AddHelperClient;
use outrigger_examples::proto::counter::counter_server::{Counter, CounterServer};
use outrigger_examples::proto::counter::{
    DESCRIPTORS, Empty, GetRequest, GetResponse, PutRequest, SumRequest,
};
use outrigger_plugin::{BrokerId, PluginContext, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

struct Files {
    context: PluginContext,
    /// A put reads, asks the host, and writes: one at a time.
    putting: tokio::sync::Mutex<()>,
}

fn file_of(key: &str) -> Result<PathBuf, Status> {
    let name = format!("counter_{key}");
    match Path::new(&name).file_name() {
        Some(only) if only == name.as_str() && !key.contains('\0') => Ok(name.into()),
        _ => Err(Status::invalid_argument(
            "a key is not empty and has no slash",
        )),
    }
}

async fn read(key: &str) -> Result<i64, Status> {
    match tokio::fs::read_to_string(file_of(key)?).await {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| Status::data_loss("the counter is no number")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

#[tonic::async_trait]
impl Counter for Files {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let value = read(&request.get_ref().key).await?;
        Ok(Response::new(GetResponse { value }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        let PutRequest {
            add_server,
            key,
            value,
        } = request.into_inner();
        let file = file_of(&key)?;
        let host = self.context.broker().connect(BrokerId(add_server)).await?;
        let _one_at_a_time = self.putting.lock().await;
        let sum = SumRequest {
            a: read(&key).await?,
            b: value,
        };
        let sum = AddHelperClient::new(host).sum(sum).await?.into_inner().r;
        let written = tokio::fs::write(file, sum.to_string()).await;
        written.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("counter", |context| {
        let files = Files {
            context: context.clone(),
            putting: tokio::sync::Mutex::default(),
        };
        ServiceSet::new()
            .with(CounterServer::new(files))
            .describe(DESCRIPTORS)
    });
    let mut plugin = Serve::new(basic_cookie()).offer(1, set);
    if std::env::args().any(|argument| argument == "--tcp") {
        plugin = plugin.tcp();
    }
    outrigger_plugin::serve(plugin)
}
