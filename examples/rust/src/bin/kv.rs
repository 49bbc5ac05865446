//! A key/value store in files `kv_<key>` of its working directory: the plugin
//! that go-plugin's own `grpc` and `negotiated` example hosts load.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrigger_examples::basic_cookie;
use outrigger_examples::proto::kv::kv_server::{Kv, KvServer};
use outrigger_examples::proto::kv::{DESCRIPTORS, Empty, GetRequest, GetResponse, PutRequest};
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

struct Files;

/// A key is a file name, never a path.
fn file_of(key: &str) -> Result<PathBuf, Status> {
    let name = format!("kv_{key}");
    match Path::new(&name).file_name() {
        Some(only) if only == name.as_str() && !key.contains('\0') => Ok(name.into()),
        _ => Err(Status::invalid_argument(
            "a key is not empty and has no slash",
        )),
    }
}

#[tonic::async_trait]
impl Kv for Files {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let value = tokio::fs::read(file_of(&request.get_ref().key)?).await;
        let value = value.map_err(|error| Status::not_found(error.to_string()))?;
        Ok(Response::new(GetResponse {
            value: value.into(),
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let written = tokio::fs::write(file_of(&key)?, value).await;
        written.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("kv", |_| {
        ServiceSet::new()
            .with(KvServer::new(Files))
            .describe(DESCRIPTORS)
    });
    let mut plugin = Serve::new(basic_cookie())
        .offer(1, set.clone())
        .offer(3, set);
    if std::env::args().any(|argument| argument == "--tcp") {
        plugin = plugin.tcp();
    }
    outrigger_plugin::serve(plugin)
}
