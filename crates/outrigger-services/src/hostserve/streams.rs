//! Files as streams, as `hostserve.v1` has them.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_manifest::HostService;
use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Response, Status, Streaming};

use super::failed::failed;
use super::operations::Reply;
use crate::fault::Fault;
use crate::fs::call::SessionFiles;
use crate::fs::stream::{self, Reading, WriteError, WriteMessage};
use crate::operation::{Described, Operation, described};
use crate::running::{Caller, Running};
use crate::streaming::{self, Next, Replies, Source};

described! {
    /// The operations that are streams.
    pub(crate) const STREAMS;
    streamed("FileReader"), FileReadRequest { handle, chunk_size }
    streamed("FileReaderAt"), FileReadAtRequest { handle, offset, chunk_size }
    streamed("FileWriter"), FileWriteRequest { handle }
    streamed("FileWriterAt"), FileWriteAtRequest { handle, offset }
}

const fn streamed(name: &'static str) -> Operation {
    Operation::new(HostService::Filesystem, name)
}

/// A request that starts a stream of a file's parts.
pub(super) trait ReadRequest: Described + Send + 'static {
    type Reply: Reply + Send + 'static;

    fn handle(&self) -> &str;
    fn chunk_size(&self) -> u32;
    /// Where to start; nothing means the file's own position, which moves along.
    fn offset(&self) -> Option<u64>;
    fn reply(chunk: FileChunk) -> Self::Reply;
}

macro_rules! read_requests {
    ($($request:ident -> $reply:ident, |$message:ident| $offset:expr;)*) => {$(
        impl ReadRequest for $request {
            type Reply = $reply;

            fn handle(&self) -> &str {
                &self.handle
            }

            fn chunk_size(&self) -> u32 {
                self.chunk_size
            }

            fn offset(&self) -> Option<u64> {
                let $message = self;
                $offset
            }

            fn reply(chunk: FileChunk) -> $reply {
                $reply { chunk: Some(chunk), error: None }
            }
        }
    )*};
}

read_requests! {
    FileReadRequest -> FileReadResponse, |_message| None;
    FileReadAtRequest -> FileReadAtResponse, |message| Some(message.offset);
}

/// The parts of a file, for the replies to `Q`. The last one says so; it is empty
/// when the file's end is where a part ended.
struct Parts<Q>(Reading, std::marker::PhantomData<fn(Q)>);

impl<Q: ReadRequest> Source for Parts<Q> {
    type Reply = Q::Reply;

    async fn next(&mut self, running: &Running) -> Result<Next<Q::Reply>, Fault> {
        let part = self.0.part(running).await?;
        let reply = Q::reply(FileChunk {
            data: part.data,
            offset: part.offset,
            is_final: part.last,
        });
        Ok(match part.last {
            true => Next::Last(reply),
            false => Next::Reply(reply),
        })
    }
}

/// Starts a stream of the parts of a file.
pub(super) fn read<Q: ReadRequest>(
    files: &Arc<SessionFiles>,
    request: Request<Q>,
) -> Result<Response<Replies<Q::Reply>>, Status> {
    let (caller, request) = Caller::of(request);
    let session = files.session();
    let only = |fault: &Fault| -> Response<Replies<Q::Reply>> {
        let reply = failed(Q::OPERATION.name, "", fault);
        Response::new(Box::pin(futures_util::stream::iter([reply])))
    };
    let running = match session.begin(Q::OPERATION, &caller, |shown| request.show(shown)) {
        Ok(running) => running,
        Err(fault) => return Ok(only(&fault)),
    };
    let file = match files.call(&running).file(request.handle()) {
        Ok(file) => file,
        Err(fault) => {
            running.end(Some(&fault));
            return Ok(only(&fault));
        }
    };
    let chunk = session.limits().chunk_size(request.chunk_size());
    let reading = Reading::start(&file, request.offset(), None, chunk);
    let parts = Parts::<Q>(reading, std::marker::PhantomData);
    let replies = streaming::replies_or(running, parts, |running, fault| {
        running.end(Some(&fault));
        failed(Q::OPERATION.name, "", &fault)
    });
    Ok(Response::new(replies))
}

/// A message of a stream that writes a file.
pub(super) trait WriteRequest: WriteMessage {
    type Reply: Reply;

    fn reply(bytes_written: u32) -> Self::Reply;
}

macro_rules! write_requests {
    ($($request:ident -> $reply:ident, $at:expr;)*) => {$(
        impl WriteMessage for $request {
            const NO_FILE: Option<&'static str> =
                Some("the stream's first message names no handle");
            const SECOND_FILE: &'static str = "the stream names a second handle";
            const MOST: u64 = u32::MAX as u64;

            fn file(&self) -> &str {
                &self.handle
            }

            fn offset(&self, start: &mut Option<u64>, written: u64) -> Result<Option<u64>, Fault> {
                let at: fn(&Self, &mut Option<u64>, u64) -> Option<u64> = $at;
                Ok(at(self, start, written))
            }

            fn take(&mut self) -> (Bytes, bool) {
                match self.chunk.take() {
                    Some(chunk) => (chunk.data, chunk.is_final),
                    None => (Bytes::new(), false),
                }
            }
        }

        impl WriteRequest for $request {
            type Reply = $reply;

            fn reply(bytes_written: u32) -> $reply {
                $reply { bytes_written, error: None }
            }
        }
    )*};
}

write_requests! {
    FileWriteRequest -> FileWriteResponse, |_, _, _| None;
    FileWriteAtRequest -> FileWriteAtResponse, |message, start, written| {
        message.chunk.as_ref().filter(|chunk| !chunk.data.is_empty())?;
        // Peers either repeat where the stream started or say where each part goes.
        Some(match *start.get_or_insert(message.offset) {
            start if start == message.offset => start.saturating_add(written),
            _ => message.offset,
        })
    };
}

/// Writes the parts of a stream one after another.
pub(super) async fn write<Q: WriteRequest>(
    files: &Arc<SessionFiles>,
    request: Request<Streaming<Q>>,
) -> Result<Response<Q::Reply>, Status> {
    let (caller, mut messages) = Caller::of(request);
    let name = Q::OPERATION.name;
    let mut running = match files.session().begin(Q::OPERATION, &caller, |_| {}) {
        Ok(running) => running,
        Err(fault) => return failed(name, "", &fault).map(Response::new),
    };
    match stream::write(files, &mut running, &mut messages).await {
        Ok(written) => {
            running.end(None);
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            Ok(Response::new(Q::reply(written)))
        }
        Err(WriteError::Fault(fault)) => {
            running.end(Some(&fault));
            failed(name, "", &fault).map(Response::new)
        }
        // Its record says that it was given up.
        Err(WriteError::Stream(status)) => Err(status),
    }
}
