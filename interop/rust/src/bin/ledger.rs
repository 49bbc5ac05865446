//! A plugin that writes down every call before it does anything else: the ledger of
//! what was executed, which outlives it.
//!
//! It serves the bench's service in its own way: `Echo` answers with what it got, a
//! number; `Down` streams as many small parts as `chunk` says, one each 10 ms, and
//! `bytes` is the number of the call.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use outrigger_interop::bench_cookie;
use outrigger_interop::proto::bench::bench_server::{Bench, BenchServer};
use outrigger_interop::proto::bench::{
    CallbackReply, CallbackRequest, Payload, StreamReply, StreamRequest,
};
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status, Streaming};

/// The file that the ledger is written to.
const LEDGER: &str = "OUTRIGGER_LEDGER";
const PAUSE: Duration = Duration::from_millis(10);
const MAX_PARTS: u32 = 1000;

struct Ledger(File);

impl Ledger {
    /// Lines of several processes do not mix: each is written at once, at the end.
    fn write(&self, id: u64) -> Result<(), Status> {
        (&self.0)
            .write_all(format!("{id}\n").as_bytes())
            .map_err(|error| Status::data_loss(error.to_string()))
    }
}

#[tonic::async_trait]
impl Bench for Ledger {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let payload = request.into_inner();
        let id = payload.data.as_ref().try_into();
        let id = id.map_err(|_| Status::invalid_argument("not eight bytes"))?;
        self.write(u64::from_be_bytes(id))?;
        Ok(Response::new(payload))
    }

    type DownStream = BoxStream<'static, Result<Payload, Status>>;

    async fn down(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::DownStream>, Status> {
        let StreamRequest { bytes: id, chunk } = request.into_inner();
        self.write(id)?;
        let parts = stream::unfold(chunk.min(MAX_PARTS), move |left| async move {
            let left = left.checked_sub(1)?;
            tokio::time::sleep(PAUSE).await;
            let data = Bytes::copy_from_slice(&id.to_be_bytes());
            Some((Ok(Payload { data }), left))
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn up(&self, _: Request<Streaming<Payload>>) -> Result<Response<StreamReply>, Status> {
        Err(Status::unimplemented("no part of the ledger"))
    }

    async fn call_back(
        &self,
        _: Request<CallbackRequest>,
    ) -> Result<Response<CallbackReply>, Status> {
        Err(Status::unimplemented("no part of the ledger"))
    }
}

fn main() -> ExitCode {
    let path = std::env::var_os(LEDGER).unwrap_or_default();
    let file = match OpenOptions::new().append(true).create(true).open(path) {
        Ok(file) => file,
        // The plugin has said nothing yet: its host sees that it ended.
        Err(_) => return ExitCode::FAILURE,
    };
    let file = std::sync::Arc::new(file);
    let set = PluginSet::new().grpc("bench", move |_| {
        // A descriptor of its own, for the same file.
        match file.try_clone() {
            Ok(own) => ServiceSet::new().with(BenchServer::new(Ledger(own))),
            Err(_) => ServiceSet::new(),
        }
    });
    outrigger_plugin::serve(Serve::new(bench_cookie()).offer(1, set))
}
