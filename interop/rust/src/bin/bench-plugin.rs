//! The Rust plugin that the benchmarks call; its Go twin is under `interop/go`.

use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use outrigger_interop::bench_cookie;
use outrigger_interop::proto::DESCRIPTORS;
use outrigger_interop::proto::bench::bench_host_client::BenchHostClient;
use outrigger_interop::proto::bench::bench_server::{Bench, BenchServer};
use outrigger_interop::proto::bench::{
    CallbackReply, CallbackRequest, Payload, ReadRequest, StreamReply, StreamRequest,
};
use outrigger_plugin::gob::Gob;
use outrigger_plugin::host::HostError;
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{BrokerId, Channel, PluginContext, PluginSet, Serve, ServiceSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status, Streaming};

const READ: u64 = 4096;
/// The part of the host's file that single reads walk through.
const SPAN: u64 = 16 << 20;
const MAX_CHUNK: u32 = 1 << 20;
const MAX_READS: u32 = 1 << 20;
const STREAM_PART: u32 = 64 << 10;

struct Work(PluginContext);

#[tonic::async_trait]
impl Bench for Work {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type DownStream = BoxStream<'static, Result<Payload, Status>>;

    async fn down(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::DownStream>, Status> {
        let StreamRequest { bytes, chunk } = request.into_inner();
        if !(1..=MAX_CHUNK).contains(&chunk) {
            return Err(Status::invalid_argument("the chunk is empty or too large"));
        }
        let data = Bytes::from(vec![0; chunk as usize]);
        let parts = futures_util::stream::unfold(bytes, move |left| {
            let part = left.min(u64::from(chunk));
            let payload = (part > 0).then(|| Payload {
                data: data.slice(..part as usize),
            });
            async move { Some((Ok(payload?), left - part)) }
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn up(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<StreamReply>, Status> {
        let mut parts = request.into_inner();
        let mut bytes = 0;
        while let Some(part) = parts.message().await? {
            bytes += part.data.len() as u64;
        }
        Ok(Response::new(StreamReply { bytes }))
    }

    async fn call_back(
        &self,
        request: Request<CallbackRequest>,
    ) -> Result<Response<CallbackReply>, Status> {
        let request = request.into_inner();
        if let Some(kind) = request.kind.strip_prefix("host.") {
            let measured = measure_host(&self.0, kind, &request).await;
            let measured = measured.map_err(|error| Status::internal(error.to_string()));
            return measured.map(Response::new);
        }
        let channel = self.0.broker().connect(BrokerId(request.broker_id)).await?;
        let host = BenchHostClient::new(channel);
        let reply = match request.kind.as_str() {
            "read4k" => read_one_by_one(host, request.count).await,
            "stream" => read_stream(host, request.bytes).await,
            _ => Err(Status::invalid_argument("unknown kind")),
        };
        reply.map(Response::new)
    }
}

/// The granted file.
const FILE: &str = "file";

/// Through granted services, by the SDK: by calls, or by descriptors.
async fn measure_host(
    context: &PluginContext,
    kind: &str,
    request: &CallbackRequest,
) -> Result<CallbackReply, HostError> {
    let host = context.host_on(request.broker_id).await?;
    let (calls, count) = (host.without_descriptors(), request.count.min(MAX_READS));
    let mut reply = CallbackReply::default();
    match kind {
        "open" => {
            for _ in 0..count {
                let begun = Instant::now();
                let file = host.fs().open(FILE).await?;
                reply.nanos.push(begun.elapsed().as_nanos() as u64);
                reply.bytes += u64::from(file.descriptor().is_some());
            }
        }
        "read4k" | "fd.read4k" => {
            let by = if kind == "read4k" { &calls } else { &host };
            let file = by.fs().open(FILE).await?;
            let mut data = [0; READ as usize];
            for read in 0..u64::from(count) {
                let begun = Instant::now();
                let read = file.read_at(&mut data, read * READ % SPAN).await?;
                reply.nanos.push(begun.elapsed().as_nanos() as u64);
                reply.bytes += read as u64;
            }
        }
        "stream" => {
            let file = calls.fs().open(FILE).await?;
            let begun = Instant::now();
            let mut parts = file.stream(0, 0);
            while let Some(part) = parts.next().await {
                reply.bytes += part?.len() as u64;
            }
            reply.nanos.push(begun.elapsed().as_nanos() as u64);
        }
        // Opened, read to the end and closed.
        _ => {
            let mut data = vec![0; 256 << 10];
            let begun = Instant::now();
            let mut file = host.fs().open(FILE).await?;
            loop {
                match file.read(&mut data).await? {
                    0 => break,
                    read => reply.bytes += read as u64,
                }
            }
            reply.nanos.push(begun.elapsed().as_nanos() as u64);
        }
    }
    Ok(reply)
}

async fn read_one_by_one(
    mut host: BenchHostClient<Channel>,
    count: u32,
) -> Result<CallbackReply, Status> {
    if count > MAX_READS {
        return Err(Status::invalid_argument("too many reads"));
    }
    let mut reply = CallbackReply::default();
    for read in 0..u64::from(count) {
        let begun = Instant::now();
        let request = ReadRequest {
            offset: read * READ % SPAN,
            length: READ,
            chunk: 0,
        };
        let payload = host.read(request).await?.into_inner();
        reply.nanos.push(begun.elapsed().as_nanos() as u64);
        reply.bytes += payload.data.len() as u64;
    }
    Ok(reply)
}

async fn read_stream(
    mut host: BenchHostClient<Channel>,
    bytes: u64,
) -> Result<CallbackReply, Status> {
    let begun = Instant::now();
    let request = ReadRequest {
        offset: 0,
        length: bytes,
        chunk: STREAM_PART,
    };
    let mut parts = host.read_stream(request).await?.into_inner();
    let mut reply = CallbackReply::default();
    while let Some(part) = parts.message().await? {
        reply.bytes += part.data.len() as u64;
    }
    reply.nanos.push(begun.elapsed().as_nanos() as u64);
    Ok(reply)
}

/// How many bytes are wanted on which broker id.
#[derive(Default, Gob)]
struct Wanted {
    #[gob(rename = "ID")]
    id: u32,
    bytes: u64,
}

/// What came over a stream.
#[derive(Default, Gob)]
struct Digest {
    bytes: u64,
    sum: u64,
}

/// The counterpart of [`Work`] over net/rpc.
fn methods(context: &PluginContext) -> Methods {
    let (down, up) = (context.clone(), context.clone());
    Methods::new()
        .method("Echo", |data: Bytes| async move { Ok::<_, String>(data) })
        .method("Produce", move |wanted: Wanted| {
            let context = down.clone();
            async move {
                let dialled = context.broker().dial(BrokerId(wanted.id)).await;
                let mut stream = dialled.map_err(|error| error.to_string())?;
                let pattern: Vec<u8> = (0..STREAM_PART).map(|n| n.to_le_bytes()[0]).collect();
                let mut left = wanted.bytes;
                while left > 0 {
                    let part = left.min(u64::from(STREAM_PART));
                    let written = stream.write_all(&pattern[..part as usize]).await;
                    written.map_err(|error| error.to_string())?;
                    left -= part;
                }
                let shut = stream.shutdown().await;
                shut.map_err(|error| error.to_string())?;
                Ok::<u64, String>(wanted.bytes)
            }
        })
        .method("Sum", move |id: u32| {
            let context = up.clone();
            async move {
                let dialled = context.broker().dial(BrokerId(id)).await;
                let mut stream = dialled.map_err(|error| error.to_string())?;
                let mut digest = Digest::default();
                let mut part = vec![0; STREAM_PART as usize];
                loop {
                    match stream.read(&mut part).await {
                        Ok(0) => return Ok(digest),
                        Ok(read) => {
                            let bytes = part[..read].iter().map(|byte| u64::from(*byte));
                            digest.sum = digest.sum.wrapping_add(bytes.sum());
                            digest.bytes += read as u64;
                        }
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        })
}

fn main() -> ExitCode {
    let netrpc = std::env::var("OUTRIGGER_BENCH_PROTOCOL").is_ok_and(|name| name == "netrpc");
    let set = if netrpc {
        PluginSet::new().netrpc("bench", methods)
    } else {
        PluginSet::new().grpc("bench", |context| {
            ServiceSet::new()
                .with(BenchServer::new(Work(context.clone())))
                .describe(DESCRIPTORS)
        })
    };
    outrigger_plugin::serve(Serve::new(bench_cookie()).offer(1, set))
}
