//! Writes a stream of chunks to a file and reads it back in chunks: the plugin
//! that go-plugin's own `streaming` example host loads.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use outrigger_examples::basic_cookie;
use outrigger_examples::proto::streaming::streamer_service_server::{
    StreamerService, StreamerServiceServer,
};
use outrigger_examples::proto::streaming::{DESCRIPTORS, configure, read, write};
use outrigger_plugin::{PluginSet, Serve, ServiceSet};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status, Streaming};

/// The largest chunk that a host may ask for, in bytes.
const MAX_CHUNK: usize = 1 << 20;

#[derive(Clone)]
struct Configured {
    path: PathBuf,
    chunk: usize,
}

#[derive(Clone, Default)]
struct Streamer(Arc<Mutex<Option<Configured>>>);

impl Streamer {
    fn configured(&self) -> Result<Configured, Status> {
        let configured = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        configured.ok_or_else(|| Status::failed_precondition("`Configure` was not called"))
    }
}

fn internal(error: std::io::Error) -> Status {
    Status::internal(error.to_string())
}

/// The next `chunk` bytes, fewer at the end, none after it.
async fn next_chunk(file: &mut File, chunk: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(chunk);
    file.take(chunk as u64).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[tonic::async_trait]
impl StreamerService for Streamer {
    async fn configure(
        &self,
        request: Request<configure::Request>,
    ) -> Result<Response<configure::Response>, Status> {
        let configure::Request { path, chunk_size } = request.into_inner();
        let chunk = usize::try_from(chunk_size)
            .ok()
            .filter(|size| (1..=MAX_CHUNK).contains(size));
        let chunk = chunk.ok_or_else(|| {
            Status::invalid_argument(format!(
                "a chunk has 1 to {MAX_CHUNK} bytes, not {chunk_size}"
            ))
        })?;
        let configured = Configured {
            path: path.into(),
            chunk,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(configured);
        Ok(Response::new(configure::Response {}))
    }

    type ReadStream = BoxStream<'static, Result<read::ResponseChunk, Status>>;

    async fn read(&self, _: Request<read::Request>) -> Result<Response<Self::ReadStream>, Status> {
        let Configured { path, chunk } = self.configured()?;
        let file = File::open(path)
            .await
            .map_err(|e| Status::not_found(e.to_string()))?;
        let chunks = stream::try_unfold(file, move |mut file| async move {
            let read_bytes = next_chunk(&mut file, chunk).await.map_err(internal)?;
            let read_bytes = (!read_bytes.is_empty()).then(|| read_bytes.into());
            Ok(read_bytes.map(|read_bytes| (read::ResponseChunk { read_bytes }, file)))
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<write::RequestChunk>>,
    ) -> Result<Response<write::Response>, Status> {
        let mut file = File::create(self.configured()?.path)
            .await
            .map_err(internal)?;
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            file.write_all(&chunk.bytes_to_write)
                .await
                .map_err(internal)?;
        }
        file.flush().await.map_err(internal)?;
        Ok(Response::new(write::Response {}))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("streamer", |_| {
        let streamer = StreamerServiceServer::new(Streamer::default());
        ServiceSet::new().with(streamer).describe(DESCRIPTORS)
    });
    let mut plugin = Serve::new(basic_cookie()).offer(1, set);
    if std::env::args().any(|argument| argument == "--tcp") {
        plugin = plugin.tcp();
    }
    outrigger_plugin::serve(plugin)
}
