//! Files as streams, as `hostserve.v1` has them.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_manifest::HostService;
use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Response, Status, Streaming};

use super::describe::{Describe, Reply};
use super::failed;
use crate::argument::Argument;
use crate::fault::Fault;
use crate::fs::open::OpenFile;
use crate::fs::stream::{self, Part, Reading};
use crate::leases::Lent;
use crate::session::{Operation, Running, Session};
use crate::work::{self, Replies};

/// A request that starts a stream of a file's parts.
pub(super) trait ReadRequest: Describe + Send + 'static {
    type Reply: Reply + Send + 'static;
    const NAME: &'static str;

    fn handle(&self) -> &str;
    fn chunk_size(&self) -> u32;
    /// Where to start; nothing means the file's own position, which moves along.
    fn offset(&self) -> Option<u64>;
    fn reply(chunk: FileChunk) -> Self::Reply;
}

impl ReadRequest for FileReadRequest {
    type Reply = FileReadResponse;
    const NAME: &'static str = "FileReader";

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
    const NAME: &'static str = "FileReaderAt";

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
pub(super) fn read<Q: ReadRequest>(
    session: &Arc<Session>,
    request: Request<Q>,
) -> Result<Response<Replies<Q::Reply>>, Status> {
    let (metadata, _, request) = request.into_parts();
    let operation = Operation::new(HostService::Filesystem, Q::NAME);
    let shown = |shown: &mut Argument| request.arguments(shown);
    let one = |reply: Result<Q::Reply, Status>| -> Response<Replies<Q::Reply>> {
        Response::new(Box::pin(futures_util::stream::iter([reply])))
    };
    let running = match session.begin(operation, &metadata, shown) {
        Ok(running) => running,
        Err(fault) => return Ok(one(failed(Q::NAME, "", &fault))),
    };
    let file = match running.cx().file(request.handle()) {
        Ok(file) => file,
        Err(fault) => {
            running.end(Some(&fault));
            return Ok(one(failed(Q::NAME, "", &fault)));
        }
    };
    let chunk = session.limits().chunk_size(request.chunk_size());
    let reading = Reading::start(&file, request.offset(), None, chunk);
    let producing = (reading, Some(running));
    let parts =
        futures_util::stream::unfold(producing, async |(mut reading, mut running)| match reading
            .next(running.as_ref()?)
            .await
        {
            Ok(part) => {
                if part.last {
                    running.take()?.end(None);
                }
                let Part { data, offset, last } = part;
                let reply = Q::reply(FileChunk {
                    data,
                    offset,
                    is_final: last,
                });
                Some((Ok(reply), (reading, running)))
            }
            Err(fault) => {
                running.take()?.end(Some(&fault));
                Some((failed(Q::NAME, "", &fault), (reading, running)))
            }
        });
    Ok(Response::new(Box::pin(parts)))
}

/// A message of a stream that writes a file.
pub(super) trait WriteRequest: Describe + Send + 'static {
    type Reply: Reply;
    const NAME: &'static str;

    fn handle(&self) -> &str;
    /// Where this part goes; nothing means the file's own position.
    fn offset(&self) -> Option<u64>;
    fn take_chunk(&mut self) -> Option<FileChunk>;
    fn reply(bytes_written: u32) -> Self::Reply;
}

impl WriteRequest for FileWriteRequest {
    type Reply = FileWriteResponse;
    const NAME: &'static str = "FileWriter";

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
    const NAME: &'static str = "FileWriterAt";

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
pub(super) async fn write<Q: WriteRequest>(
    session: &Arc<Session>,
    request: Request<Streaming<Q>>,
) -> Result<Response<Q::Reply>, Status> {
    let (metadata, _, mut messages) = request.into_parts();
    let operation = Operation::new(HostService::Filesystem, Q::NAME);
    let mut running = match session.begin(operation, &metadata, |_| {}) {
        Ok(running) => running,
        Err(fault) => return failed(Q::NAME, "", &fault).map(Response::new),
    };
    let first = work::first(session, &mut messages).await;
    if let Ok(first) = &first {
        running.show(|shown| first.arguments(shown));
    }
    let mut writing = Writing {
        file: None,
        handle: String::new(),
        start: None,
        written: 0,
    };
    match writing.run(&running, first, &mut messages).await {
        Ok(()) => {
            running.end(None);
            let written = u32::try_from(writing.written).unwrap_or(u32::MAX);
            Ok(Response::new(Q::reply(written)))
        }
        Err(Stop::Fault(fault)) => {
            running.end(Some(&fault));
            failed(Q::NAME, "", &fault).map(Response::new)
        }
        // It is recorded as given up.
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
    file: Option<Lent<OpenFile>>,
    handle: String,
    start: Option<u64>,
    written: u64,
}

impl Writing {
    async fn run<Q: WriteRequest>(
        &mut self,
        running: &Running,
        first: Result<Q, Fault>,
        messages: &mut Streaming<Q>,
    ) -> Result<(), Stop> {
        let patience = running.session().limits().call_timeout;
        let mut message = first?;
        loop {
            let chunk = message.take_chunk();
            let file = self.file_for(running, &message)?;
            let last = chunk.as_ref().is_some_and(|chunk| chunk.is_final);
            if let Some(data) = chunk
                .map(|chunk| chunk.data)
                .filter(|data| !data.is_empty())
            {
                self.write(running, &file, data, message.offset()).await?;
            }
            if last {
                return Ok(());
            }
            let next = tokio::time::timeout(patience, messages.message()).await;
            match next.map_err(|_| Fault::Deadline)?.map_err(Stop::Status)? {
                Some(next) => message = next,
                None => return Ok(()),
            }
        }
    }

    /// The file of the stream: the first message names it, later ones may only
    /// repeat it.
    fn file_for<Q: WriteRequest>(
        &mut self,
        running: &Running,
        message: &Q,
    ) -> Result<Lent<OpenFile>, Fault> {
        match &self.file {
            None if message.handle().is_empty() => {
                Err(Fault::abuse("the stream's first message names no handle"))
            }
            None => {
                self.handle = message.handle().to_owned();
                let file = running.cx().file(message.handle())?;
                self.file = Some(file.clone());
                Ok(file)
            }
            Some(file) if message.handle().is_empty() || message.handle() == self.handle => {
                Ok(file.clone())
            }
            Some(_) => Err(Fault::abuse("the stream names a second handle")),
        }
    }

    async fn write(
        &mut self,
        running: &Running,
        file: &Lent<OpenFile>,
        data: Bytes,
        offset: Option<u64>,
    ) -> Result<(), Fault> {
        let total = self.written + data.len() as u64;
        if u32::try_from(total).is_err() {
            return Err(Fault::exhausted(
                "stream-too-long",
                "a stream writes less than 4 GiB",
            ));
        }
        // Peers either repeat where the stream started or say where each part goes.
        let at = offset.map(|offset| match *self.start.get_or_insert(offset) {
            start if start == offset => offset.saturating_add(self.written),
            _ => offset,
        });
        stream::write(running, file, data, at).await?;
        self.written = total;
        Ok(())
    }
}
