//! A key/value store in files `kv_<key>` of its working directory: the plugin
//! that go-plugin's own `grpc` and `negotiated` example hosts load.
//!
//! - `kv`: versions 1 and 3 over gRPC; `--tcp` listens on TCP
//! - `kv netrpc`: version 1 over net/rpc
//! - `kv mixed`: version 2 over net/rpc and version 3 over gRPC

use std::process::ExitCode;

use outrigger_examples::netrpc::kv_methods;
use outrigger_examples::proto::kv::kv_server::{Kv, KvServer};
use outrigger_examples::proto::kv::{DESCRIPTORS, Empty, GetRequest, GetResponse, PutRequest};
use outrigger_examples::{basic_cookie, kv_file};
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

struct Files;

#[tonic::async_trait]
impl Kv for Files {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let file = kv_file(&request.get_ref().key).map_err(Status::invalid_argument)?;
        let value = tokio::fs::read(file).await;
        let value = value.map_err(|error| Status::not_found(error.to_string()))?;
        Ok(Response::new(GetResponse {
            value: value.into(),
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let file = kv_file(&key).map_err(Status::invalid_argument)?;
        let written = tokio::fs::write(file, value).await;
        written.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

fn main() -> ExitCode {
    let netrpc = PluginSet::new().netrpc("kv", |_| kv_methods());
    let grpc = PluginSet::new().grpc("kv", |_| {
        ServiceSet::new()
            .with(KvServer::new(Files))
            .describe(DESCRIPTORS)
    });
    let plugin = Serve::new(basic_cookie());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is = |word: &str| arguments.iter().any(|argument| argument == word);
    let plugin = if is("netrpc") {
        plugin.offer(1, netrpc)
    } else if is("mixed") {
        plugin.offer(2, netrpc).offer(3, grpc)
    } else {
        plugin.offer(1, grpc.clone()).offer(3, grpc)
    };
    outrigger_plugin::serve(if is("--tcp") { plugin.tcp() } else { plugin })
}
