//! `outrigger.host.v1.Filesystem` for one plugin connection.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_manifest::HostService;
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status, Streaming};

use super::call::SessionFiles;
use super::listing::Listing;
use super::operation::{self, FileOperation};
use super::stream::{self, Reading, WriteError, WriteMessage};
use super::watch::Watching;
use crate::fault::Fault;
use crate::operation::{Described, Operation, described};
use crate::proto::host::filesystem_server;
use crate::running::{Caller, Running};
use crate::streaming::{self, Next, Replies, Source};

/// Entries in one message of a listing that is streamed.
const LISTED: usize = 1000;

described! {
    streamed("read_stream"), ReadStreamRequest { lease, offset, length, chunk }
    streamed("write_stream"), WriteStreamRequest { lease, offset }
    streamed("list_stream"), ListStreamRequest { path }
    streamed("watch"), WatchRequest { path, recursive }
}

const fn streamed(name: &'static str) -> Operation {
    Operation::new(HostService::Filesystem, name)
}

/// The operations that are streams.
pub(crate) const STREAMS: &[Operation] = &[
    ReadStreamRequest::OPERATION,
    WriteStreamRequest::OPERATION,
    ListStreamRequest::OPERATION,
    WatchRequest::OPERATION,
];

/// The service of one connection.
pub(crate) struct Filesystem(Arc<SessionFiles>);

impl Filesystem {
    pub(crate) fn new(files: Arc<SessionFiles>) -> Self {
        Self(files)
    }

    async fn run<Q: FileOperation>(
        &self,
        request: Request<Q>,
    ) -> Result<Response<Q::Reply>, Status> {
        let (caller, message) = Caller::of(request);
        let reply = operation::run(&self.0, &caller, message).await;
        let reply = reply.map_err(|fault| fault.status(&Q::OPERATION.full_name()))?;
        Ok(Response::new(reply))
    }

    /// Begins an operation whose replies come one after another, from what `start`
    /// makes.
    async fn stream<Q: Described, S: Source>(
        &self,
        request: Request<Q>,
        start: impl AsyncFnOnce(&Running, Q) -> Result<S, Fault>,
    ) -> Result<Response<Replies<S::Reply>>, Status> {
        let (caller, message) = Caller::of(request);
        let session = self.0.session();
        let running = session.begin_call(Q::OPERATION, &caller, |shown| message.show(shown))?;
        match start(&running, message).await {
            Ok(source) => Ok(Response::new(streaming::replies(running, source))),
            Err(fault) => Err(running.fail(&fault)),
        }
    }
}

macro_rules! calls {
    ($($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl filesystem_server::Filesystem for Filesystem {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    self.run(request).await
                }
            )*

            type ReadStreamStream = Replies<ReadStreamResponse>;

            async fn read_stream(
                &self,
                request: Request<ReadStreamRequest>,
            ) -> Result<Response<Self::ReadStreamStream>, Status> {
                let start = async |running: &Running, request: ReadStreamRequest| {
                    let file = self.0.call(running).file(&request.lease)?;
                    let length = (request.length != 0).then_some(request.length);
                    let chunk = running.session().limits().chunk_size(request.chunk);
                    Ok(Reading::start(&file, Some(request.offset), length, chunk))
                };
                self.stream(request, start).await
            }

            async fn write_stream(
                &self,
                request: Request<Streaming<WriteStreamRequest>>,
            ) -> Result<Response<WriteStreamResponse>, Status> {
                let (caller, mut messages) = Caller::of(request);
                let operation = WriteStreamRequest::OPERATION;
                let mut running = self.0.session().begin_call(operation, &caller, |_| {})?;
                let written = stream::write(&self.0, &mut running, &mut messages).await;
                let written = written.map_err(|error| match error {
                    WriteError::Fault(fault) => fault,
                    WriteError::Stream(_) => Fault::Cancelled,
                });
                let reply = written.map(|written| WriteStreamResponse { written });
                running.finish(reply).map(Response::new)
            }

            type ListStreamStream = Replies<ListStreamResponse>;

            async fn list_stream(
                &self,
                request: Request<ListStreamRequest>,
            ) -> Result<Response<Self::ListStreamStream>, Status> {
                let start = async |running: &Running, request: ListStreamRequest| {
                    let call = self.0.call(running);
                    let path = call.path(&request.path)?;
                    let listing = running.session().blocking(move || call.listing(&path));
                    Ok(Some(listing.await?))
                };
                self.stream(request, start).await
            }

            type WatchStream = Replies<WatchResponse>;

            async fn watch(
                &self,
                request: Request<WatchRequest>,
            ) -> Result<Response<Self::WatchStream>, Status> {
                let start = async |running: &Running, request: WatchRequest| {
                    let call = self.0.call(running);
                    let path = call.path(&request.path)?;
                    Watching::start(call, path, request.recursive).await
                };
                self.stream(request, start).await
            }
        }
    };
}

calls! {
    open: OpenRequest -> OpenResponse;
    create: CreateRequest -> OpenResponse;
    open_dir: OpenDirRequest -> OpenDirResponse;
    open_at: OpenAtRequest -> OpenResponse;
    close: CloseRequest -> CloseResponse;
    read: ReadRequest -> ReadResponse;
    write: WriteRequest -> WriteResponse;
    read_next: ReadNextRequest -> ReadResponse;
    write_next: WriteNextRequest -> WriteResponse;
    seek: SeekRequest -> SeekResponse;
    sync: SyncRequest -> SyncResponse;
    truncate: TruncateRequest -> TruncateResponse;
    read_file: ReadFileRequest -> ReadFileResponse;
    write_file: WriteFileRequest -> WriteFileResponse;
    append: AppendRequest -> AppendResponse;
    copy: CopyRequest -> CopyResponse;
    stat: StatRequest -> StatResponse;
    lstat: LstatRequest -> StatResponse;
    file_stat: FileStatRequest -> StatResponse;
    exists: ExistsRequest -> ExistsResponse;
    list: ListRequest -> ListResponse;
    readlink: ReadlinkRequest -> ReadlinkResponse;
    mkdir: MkdirRequest -> MkdirResponse;
    rename: RenameRequest -> RenameResponse;
    remove: RemoveRequest -> RemoveResponse;
    remove_all: RemoveAllRequest -> RemoveAllResponse;
    link: LinkRequest -> LinkResponse;
    symlink: SymlinkRequest -> SymlinkResponse;
    chmod: ChmodRequest -> ChmodResponse;
    chown: ChownRequest -> ChownResponse;
    chtimes: ChtimesRequest -> ChtimesResponse;
    file_chmod: FileChmodRequest -> ChmodResponse;
    file_chown: FileChownRequest -> ChownResponse;
    file_chtimes: FileChtimesRequest -> ChtimesResponse;
    temp_file: TempFileRequest -> TempFileResponse;
    temp_dir: TempDirRequest -> TempDirResponse;
}

impl Source for Reading {
    type Reply = ReadStreamResponse;

    async fn next(&mut self, running: &Running) -> Result<Next<ReadStreamResponse>, Fault> {
        let part = self.part(running).await?;
        let reply = ReadStreamResponse { data: part.data };
        Ok(match part.last {
            true if reply.data.is_empty() => Next::End,
            true => Next::Last(reply),
            false => Next::Reply(reply),
        })
    }
}

impl WriteMessage for WriteStreamRequest {
    const NO_FILE: Option<&'static str> = None;
    const SECOND_FILE: &'static str = "the stream names a second lease";
    const MOST: u64 = u64::MAX;

    fn file(&self) -> &str {
        &self.lease
    }

    /// The first message alone says where the stream starts.
    fn offset(&self, start: &mut Option<u64>, written: u64) -> Result<Option<u64>, Fault> {
        let at = start.get_or_insert(self.offset).checked_add(written);
        match at {
            Some(at) => Ok(Some(at)),
            None => Err(Fault::abuse("`offset` is too large")),
        }
    }

    fn take(&mut self) -> (Bytes, bool) {
        (std::mem::take(&mut self.data), false)
    }
}

/// A directory that is listed page by page; nothing after its last page.
impl Source for Option<Listing> {
    type Reply = ListStreamResponse;

    async fn next(&mut self, running: &Running) -> Result<Next<ListStreamResponse>, Fault> {
        let Some(mut listing) = self.take() else {
            return Ok(Next::End);
        };
        let room = running.session().limits().payload();
        let page = running.session().blocking(move || {
            let page = listing.page(LISTED, room)?;
            Ok((page, listing))
        });
        let (page, listing) = page.await?;
        let (entries, unreadable) = (page.entries, page.unreadable);
        let nothing = entries.is_empty() && unreadable == 0;
        let reply = ListStreamResponse {
            entries,
            unreadable,
        };
        if page.more {
            *self = Some(listing);
            return Ok(Next::Reply(reply));
        }
        Ok(match nothing {
            true => Next::End,
            false => Next::Last(reply),
        })
    }
}

impl Source for Watching {
    type Reply = WatchResponse;

    async fn next(&mut self, _: &Running) -> Result<Next<WatchResponse>, Fault> {
        self.change().await.map(Next::Reply)
    }
}
