//! Files as streams: read at the pace of whoever takes the parts, written at
//! the pace of storage. Nothing is read ahead, so a plugin that stops taking
//! costs no memory.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use outrigger_wire::proto::hostserve::*;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::area::{self, INLINE};
use crate::describe::{Describe, Reply};
use crate::fault::Fault;
use crate::handles::Lease;
use crate::session::{Call, Session, failed};

/// A stream of replies, as the generated server takes it.
pub(crate) type Replies<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// A request that starts a stream of a file's parts.
pub(crate) trait ReadRequest: Describe + Send + 'static {
    type Reply: Reply + Send + 'static;
    const OPERATION: &'static str;

    fn handle(&self) -> &str;
    fn chunk_size(&self) -> u32;
    /// Where to start; nothing means the file's own position, which moves along.
    fn offset(&self) -> Option<u64>;
    fn reply(chunk: FileChunk) -> Self::Reply;
}

impl ReadRequest for FileReadRequest {
    type Reply = FileReadResponse;
    const OPERATION: &'static str = "FileReader";

    fn handle(&self) -> &str {
        &self.handle
    }

    fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    fn offset(&self) -> Option<u64> {
        None
    }

    fn reply(chunk: FileChunk) -> FileReadResponse {
        FileReadResponse {
            chunk: Some(chunk),
            error: None,
        }
    }
}

impl ReadRequest for FileReadAtRequest {
    type Reply = FileReadAtResponse;
    const OPERATION: &'static str = "FileReaderAt";

    fn handle(&self) -> &str {
        &self.handle
    }

    fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    fn offset(&self) -> Option<u64> {
        Some(self.offset)
    }

    fn reply(chunk: FileChunk) -> FileReadAtResponse {
        FileReadAtResponse {
            chunk: Some(chunk),
            error: None,
        }
    }
}

/// Starts a stream of the parts of a file. The last one says so; it is empty
/// when the file's end is where a part ended.
pub(crate) fn read<Q: ReadRequest>(
    session: &Arc<Session>,
    request: Request<Q>,
) -> Response<Replies<Q::Reply>> {
    let (metadata, _, request) = request.into_parts();
    let mut record = Record::new(session, Q::OPERATION, metadata, Some(request));
    let reading = match Reading::start(session, record.request.as_ref()) {
        Ok(reading) => Some(reading),
        Err(fault) => {
            let reply = record.end(fault);
            return Response::new(Box::pin(futures_util::stream::iter([reply])));
        }
    };
    let parts = futures_util::stream::unfold((reading, record), async |(reading, mut record)| {
        let mut reading = reading?;
        match reading.next(&record.session).await {
            Ok(chunk) => {
                let rest = if chunk.is_final {
                    record.ended = Some(None);
                    None
                } else {
                    Some(reading)
                };
                Some((Ok(Q::reply(chunk)), (rest, record)))
            }
            Err(fault) => {
                let reply = record.end(fault);
                Some((reply, (None, record)))
            }
        }
    });
    Response::new(Box::pin(parts))
}

struct Reading {
    /// Closing the handle ends the stream: only the table keeps files open.
    lease: Weak<Lease>,
    offset: Option<u64>,
    chunk: usize,
    buffer: BytesMut,
}

impl Reading {
    fn start<Q: ReadRequest>(session: &Session, request: Option<&Q>) -> Result<Self, Fault> {
        let request = request.ok_or(Fault::Broken)?;
        Ok(Self {
            lease: Arc::downgrade(&session.lease(request.handle())?),
            offset: request.offset(),
            chunk: session.limits().chunk_size(request.chunk_size()),
            buffer: BytesMut::new(),
        })
    }

    async fn next(&mut self, session: &Arc<Session>) -> Result<FileChunk, Fault> {
        let lease = self.lease.upgrade().ok_or(Fault::UnknownHandle)?;
        let offset = self.offset.unwrap_or_else(|| lease.position());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(self.chunk, 0);
        let inline = if self.chunk <= INLINE {
            area::read_inline(&lease.file, &mut buffer, offset, lease.inline)
        } else {
            None
        };
        let read = match inline {
            Some(read) => read,
            None => {
                let file = lease.clone();
                let read = session.blocking(move |_| {
                    let read = area::read_full(&file.file, &mut buffer, offset)?;
                    Ok((buffer, read))
                });
                let read = read.await?;
                buffer = read.0;
                read.1
            }
        };
        let data = buffer.split_to(read).freeze();
        self.buffer = buffer;
        match &mut self.offset {
            Some(offset) => *offset += read as u64,
            None => lease.move_to(offset + read as u64),
        }
        Ok(FileChunk {
            data,
            offset,
            is_final: read < self.chunk,
        })
    }
}

/// A message of a stream that writes a file.
pub(crate) trait WriteRequest: Describe + Send + 'static {
    type Reply: Reply;
    const OPERATION: &'static str;

    fn handle(&self) -> &str;
    /// Where this part goes; nothing means the file's own position.
    fn offset(&self) -> Option<u64>;
    fn take_chunk(&mut self) -> Option<FileChunk>;
    fn reply(bytes_written: u32) -> Self::Reply;
}

impl WriteRequest for FileWriteRequest {
    type Reply = FileWriteResponse;
    const OPERATION: &'static str = "FileWriter";

    fn handle(&self) -> &str {
        &self.handle
    }

    fn offset(&self) -> Option<u64> {
        None
    }

    fn take_chunk(&mut self) -> Option<FileChunk> {
        self.chunk.take()
    }

    fn reply(bytes_written: u32) -> FileWriteResponse {
        FileWriteResponse {
            bytes_written,
            error: None,
        }
    }
}

impl WriteRequest for FileWriteAtRequest {
    type Reply = FileWriteAtResponse;
    const OPERATION: &'static str = "FileWriterAt";

    fn handle(&self) -> &str {
        &self.handle
    }

    fn offset(&self) -> Option<u64> {
        Some(self.offset)
    }

    fn take_chunk(&mut self) -> Option<FileChunk> {
        self.chunk.take()
    }

    fn reply(bytes_written: u32) -> FileWriteAtResponse {
        FileWriteAtResponse {
            bytes_written,
            error: None,
        }
    }
}

/// Writes the parts of a stream one after another, until one says that it is
/// the last or the stream ends.
pub(crate) async fn write<Q: WriteRequest>(
    session: &Arc<Session>,
    request: Request<Streaming<Q>>,
) -> Result<Response<Q::Reply>, Status> {
    let (metadata, _, mut messages) = request.into_parts();
    let mut record = Record::new(session, Q::OPERATION, metadata, None);
    let mut writing = Writing {
        lease: None,
        handle: String::new(),
        start: None,
        written: 0,
    };
    match writing
        .run(session, &mut messages, &mut record.request)
        .await
    {
        Ok(()) => {
            record.ended = Some(None);
            let written = u32::try_from(writing.written).unwrap_or(u32::MAX);
            Ok(Response::new(Q::reply(written)))
        }
        Err(Stop::Fault(fault)) => record.end(fault).map(Response::new),
        Err(Stop::Status(status)) => Err(status),
    }
}

enum Stop {
    Fault(Fault),
    /// The stream itself failed; the plugin knows.
    Status(Status),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Writing {
    lease: Option<Arc<Lease>>,
    handle: String,
    start: Option<u64>,
    written: u64,
}

impl Writing {
    async fn run<Q: WriteRequest>(
        &mut self,
        session: &Arc<Session>,
        messages: &mut Streaming<Q>,
        first: &mut Option<Q>,
    ) -> Result<(), Stop> {
        loop {
            let next = tokio::time::timeout(session.limits().call_timeout, messages.message());
            let message = next
                .await
                .map_err(|_| Fault::Deadline)?
                .map_err(Stop::Status)?;
            let Some(mut message) = message else { break };
            let chunk = message.take_chunk();
            let lease = self.lease_for(session, &message)?;
            let last = chunk.as_ref().is_some_and(|chunk| chunk.is_final);
            let (data, offset) = (chunk.map(|chunk| chunk.data), message.offset());
            if first.is_none() {
                *first = Some(message);
            }
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                self.write(session, lease, data, offset).await?;
            }
            if last {
                break;
            }
        }
        match self.lease {
            Some(_) => Ok(()),
            None => Err(Fault::Abuse("the stream names no handle").into()),
        }
    }

    /// The file of the stream: the first message names it, later ones may only
    /// repeat it.
    fn lease_for<Q: WriteRequest>(
        &mut self,
        session: &Session,
        message: &Q,
    ) -> Result<Arc<Lease>, Fault> {
        match &self.lease {
            None if message.handle().is_empty() => {
                Err(Fault::Abuse("the stream's first message names no handle"))
            }
            None => {
                self.handle = message.handle().to_owned();
                let lease = session.lease(message.handle())?;
                self.lease = Some(lease.clone());
                Ok(lease)
            }
            Some(lease) if message.handle().is_empty() || message.handle() == self.handle => {
                Ok(lease.clone())
            }
            Some(_) => Err(Fault::Abuse("the stream names a second handle")),
        }
    }

    async fn write(
        &mut self,
        session: &Arc<Session>,
        lease: Arc<Lease>,
        data: Bytes,
        offset: Option<u64>,
    ) -> Result<(), Fault> {
        let total = self.written + data.len() as u64;
        if u32::try_from(total).is_err() {
            return Err(Fault::Exhausted("a stream writes less than 4 GiB".into()));
        }
        // Peers either repeat where the stream started or say where each part goes.
        let at = offset.map(|offset| match *self.start.get_or_insert(offset) {
            start if start == offset => offset.saturating_add(self.written),
            _ => offset,
        });
        session
            .blocking(move |_| match at {
                Some(at) => lease.write_at(&data, at),
                None => lease.write_on(&data),
            })
            .await?;
        self.written = total;
        Ok(())
    }
}

/// Writes the event of a stream when it is over, however it ends.
struct Record<Q: Describe> {
    session: Arc<Session>,
    operation: &'static str,
    metadata: MetadataMap,
    started: Instant,
    request: Option<Q>,
    ended: Option<Option<Fault>>,
}

impl<Q: Describe> Record<Q> {
    fn new(
        session: &Arc<Session>,
        operation: &'static str,
        metadata: MetadataMap,
        request: Option<Q>,
    ) -> Self {
        let (session, started) = (session.clone(), Instant::now());
        Self {
            session,
            operation,
            metadata,
            started,
            request,
            ended: None,
        }
    }

    /// The answer to a stream that failed.
    fn end<R: Reply>(&mut self, fault: Fault) -> Result<R, Status> {
        let reply = failed(self.operation, "", &fault);
        self.ended = Some(Some(fault));
        reply
    }
}

impl<Q: Describe> Drop for Record<Q> {
    fn drop(&mut self) {
        let left = || Some(Fault::Failed("the plugin left before the end".into()));
        let fault = self.ended.take().unwrap_or_else(left);
        let (session, operation, metadata) = (&*self.session, self.operation, &self.metadata);
        let call = Call {
            session,
            operation,
            metadata,
            started: self.started,
        };
        match &self.request {
            Some(request) => call.record(request, fault.as_ref()),
            None => call.record(&GetuidRequest {}, fault.as_ref()),
        }
    }
}
