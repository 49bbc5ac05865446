//! One open file, whether the kernel or the host reads it.

use std::io::{self, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use outrigger_wire::proto::host as messages;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tonic::Code;

use super::fs::{FileKind, Metadata};
use super::{Host, HostError, call};
use crate::proto::host::filesystem_client::FilesystemClient;

/// Bytes that a stream of a file carries at a time.
const PART: usize = 256 << 10;
/// Bytes that one poll of the `AsyncRead` asks the host for.
const ASKED: usize = 256 << 10;
/// Bytes read without letting other tasks go on.
const TURN: usize = 4 << 20;

/// A file that the host has opened for this plugin.
///
/// It behaves the same whether it came as a descriptor or is read and written by
/// calls. Its position belongs to this value. Dropping it closes it;
/// [`close`](Self::close) also says whether that worked.
///
/// Reading and writing a descriptor happen on the calling thread, like those of
/// `std::fs`: local files do not keep it for long.
#[derive(Debug)]
pub struct File {
    back: Arc<Back>,
    append: bool,
    position: u64,
    asking: Asking,
    /// Counts what changed the contents, so that what was read ahead by call
    /// before is not taken for what is there now.
    changes: AtomicU64,
}

#[derive(Debug)]
enum Back {
    Descriptor(std::fs::File),
    Lease(Lease),
}

/// Work in hand, which two threads may know of and one polls.
pub(super) struct Work<T>(Mutex<BoxFuture<'static, Result<T, HostError>>>);

impl<T> Work<T> {
    pub(super) fn new(work: impl Future<Output = Result<T, HostError>> + Send + 'static) -> Self {
        Self(Mutex::new(work.boxed()))
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, HostError>> {
        let work = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        work.poll_unpin(context)
    }

    pub(super) async fn done(self) -> Result<T, HostError> {
        self.0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .await
    }
}

/// What the `AsyncRead` and `AsyncWrite` wait for.
#[derive(Default)]
enum Asking {
    #[default]
    Nothing,
    /// With the changes that there were before.
    Reading(Work<Bytes>, u64),
    Read(Bytes, u64),
    Writing(Work<u64>, usize),
    Seeking(Work<u64>),
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Reading(..) => "Reading",
            Self::Read(..) => "Read",
            Self::Writing(..) => "Writing",
            Self::Seeking(_) => "Seeking",
        })
    }
}

/// Notes a change when it is over, however it ends.
struct Changing<'a>(&'a AtomicU64);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A name at the host, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) host: Host,
    pub(super) id: String,
}

impl Lease {
    async fn close(mut self) -> Result<(), HostError> {
        let lease = std::mem::take(&mut self.id);
        let request = messages::CloseRequest { lease };
        call!(self.host, FilesystemClient, "filesystem", close, request)?;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let lease = std::mem::take(&mut self.id);
        // Without a runtime the host gives it up when it was idle for long.
        if lease.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let host = self.host.clone();
            runtime.spawn(async move {
                let request = messages::CloseRequest { lease };
                let _ = call!(host, FilesystemClient, "filesystem", close, request);
            });
        }
    }
}

impl File {
    pub(super) fn from_descriptor(file: std::fs::File, append: bool) -> Self {
        Self::new(Back::Descriptor(file), append)
    }

    pub(super) fn from_lease(host: Host, id: String, append: bool) -> Self {
        Self::new(Back::Lease(Lease { host, id }), append)
    }

    fn new(back: Back, append: bool) -> Self {
        Self {
            back: Arc::new(back),
            append,
            position: 0,
            asking: Asking::Nothing,
            changes: AtomicU64::new(0),
        }
    }

    /// The descriptor, where the host handed one over: for `mmap` and the like.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &*self.back {
            Back::Descriptor(file) => Some(file.as_fd()),
            Back::Lease(_) => None,
        }
    }

    /// Reads at `offset`, without moving the position, and says how much; less
    /// than asked for at the end of the file or when more than a message is
    /// wanted, and 0 only at the end.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// Nothing changes when the future is dropped.
    pub async fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, HostError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match &*self.back {
            Back::Descriptor(file) => {
                let read = retry(|| file.read_at(buffer, offset));
                read.map_err(|error| HostError::system("filesystem.read", error))
            }
            Back::Lease(lease) => {
                let data = lease.read(offset, buffer.len()).await?;
                let into = buffer.get_mut(..data.len());
                let into = into.ok_or_else(|| HostError::protocol("filesystem.read"))?;
                into.copy_from_slice(&data);
                Ok(data.len())
            }
        }
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The file ends before that, or see [`HostError`].
    pub async fn read_exact_at(
        &self,
        mut buffer: &mut [u8],
        mut offset: u64,
    ) -> Result<(), HostError> {
        while !buffer.is_empty() {
            let read = self.read_at(buffer, offset).await?;
            if read == 0 {
                return Err(HostError::unexpected_end("filesystem.read"));
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
            offset += read as u64;
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`, without moving the position.
    ///
    /// # Errors
    /// The file is open for appending, or see [`HostError`].
    ///
    /// # Cancel safety
    /// A part may be written when the future is dropped.
    pub async fn write_at(&self, data: &[u8], offset: u64) -> Result<(), HostError> {
        if self.append {
            let text = "filesystem.write: the file is open for appending";
            let status = Code::FailedPrecondition;
            return Err(HostError::local("failed", "filesystem.write", status, text));
        }
        let _changing = Changing(&self.changes);
        match &*self.back {
            Back::Descriptor(file) => file
                .write_all_at(data, offset)
                .map_err(|error| HostError::system("filesystem.write", error)),
            Back::Lease(lease) => lease.write(Bytes::copy_from_slice(data), offset).await,
        }
    }

    /// Reads at the position and moves it, as [`read_at`](Self::read_at).
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HostError> {
        self.settle();
        let read = self.read_at(buffer, self.position).await?;
        self.position += read as u64;
        Ok(read)
    }

    /// Writes all of `data` at the position, or at the end of a file that is
    /// open for appending, and moves the position behind it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn write(&mut self, data: &[u8]) -> Result<(), HostError> {
        self.settle();
        let data = Bytes::copy_from_slice(data);
        self.position = write_on(self.back.clone(), self.append, data, self.position).await?;
        Ok(())
    }

    /// Moves the position and says where it is.
    ///
    /// # Errors
    /// The target is before the start of the file, or see [`HostError`].
    pub async fn seek(&mut self, to: SeekFrom) -> Result<u64, HostError> {
        self.settle();
        self.position = target(&self.back, self.position, to).await?;
        Ok(self.position)
    }

    /// Reads from the position to the end and appends it to `contents`. A
    /// descriptor is read by the kernel alone, other files as a stream.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read_to_end(&mut self, contents: &mut Vec<u8>) -> Result<usize, HostError> {
        self.settle();
        let before = contents.len();
        let size = self.metadata().await?.len();
        let rest = usize::try_from(size.saturating_sub(self.position)).unwrap_or(0);
        contents.reserve(rest.min(1 << 30));
        let mut parts = self.stream(self.position, 0);
        while let Some(part) = parts.next().await {
            contents.extend_from_slice(&part?);
        }
        let read = contents.len() - before;
        self.position += read as u64;
        Ok(read)
    }

    /// The contents from `offset` on, `length` bytes or, for 0, up to the end,
    /// in parts of some hundred KiB. Only what is taken is read ahead by a few
    /// parts.
    pub fn stream(&self, offset: u64, length: u64) -> BoxStream<'static, Result<Bytes, HostError>> {
        match &*self.back {
            Back::Descriptor(_) => {
                let end = (length != 0).then(|| offset.saturating_add(length));
                local_stream(self.back.clone(), offset, end).boxed()
            }
            Back::Lease(lease) => {
                let request = messages::ReadStreamRequest {
                    lease: lease.id.clone(),
                    offset,
                    length,
                    // The host knows best what it reads without a thread of its own.
                    chunk: 0,
                };
                // Keeps the lease until the stream is done.
                remote_stream(self.back.clone(), lease.host.clone(), request).boxed()
            }
        }
    }

    /// Writes what `parts` yields from `offset` on and says how much it was.
    /// The host takes it as fast as it is written.
    ///
    /// # Errors
    /// The file is open for appending, or see [`HostError`].
    pub async fn write_stream(
        &self,
        offset: u64,
        parts: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<u64, HostError> {
        if self.append {
            self.write_at(&[], offset).await?;
        }
        let _changing = Changing(&self.changes);
        match &*self.back {
            Back::Descriptor(file) => {
                let mut parts = std::pin::pin!(parts);
                let (mut at, mut turn) = (offset, 0);
                while let Some(part) = parts.next().await {
                    let written = file.write_all_at(&part, at);
                    written.map_err(|error| HostError::system("filesystem.write_stream", error))?;
                    at += part.len() as u64;
                    turn += part.len();
                    if turn >= TURN {
                        turn = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Ok(at - offset)
            }
            Back::Lease(lease) => {
                let first = messages::WriteStreamRequest {
                    lease: lease.id.clone(),
                    offset,
                    data: Bytes::new(),
                };
                let limit = lease.host.payload();
                let rest = parts.flat_map(move |part| {
                    let starts = (0..part.len()).step_by(limit);
                    let cut = move |start: usize| messages::WriteStreamRequest {
                        data: part.slice(start..part.len().min(start + limit)),
                        ..messages::WriteStreamRequest::default()
                    };
                    futures_util::stream::iter(starts.map(cut))
                });
                let all = futures_util::stream::iter([first]).chain(rest);
                let host = &lease.host;
                let written = call!(host, FilesystemClient, "filesystem", write_stream, all)?;
                Ok(written.written)
            }
        }
    }

    /// What the file is now.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn metadata(&self) -> Result<Metadata, HostError> {
        self.back.metadata().await
    }

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// The file is not open for writing, or see [`HostError`].
    pub async fn set_len(&self, size: u64) -> Result<(), HostError> {
        let _changing = Changing(&self.changes);
        match &*self.back {
            Back::Descriptor(file) => file
                .set_len(size)
                .map_err(|error| HostError::system("filesystem.truncate", error)),
            Back::Lease(lease) => {
                let request = messages::TruncateRequest {
                    lease: lease.id.clone(),
                    path: String::new(),
                    size,
                };
                call!(
                    lease.host,
                    FilesystemClient,
                    "filesystem",
                    truncate,
                    request
                )?;
                Ok(())
            }
        }
    }

    /// Waits until contents and attributes are on storage.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sync_all(&self) -> Result<(), HostError> {
        self.sync(false).await
    }

    /// Waits until the contents are on storage.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sync_data(&self) -> Result<(), HostError> {
        self.sync(true).await
    }

    async fn sync(&self, data_only: bool) -> Result<(), HostError> {
        match &*self.back {
            Back::Descriptor(_) => {
                // Storage may take its time.
                let back = self.back.clone();
                let synced = tokio::task::spawn_blocking(move || match &*back {
                    Back::Descriptor(file) if data_only => file.sync_data(),
                    Back::Descriptor(file) => file.sync_all(),
                    Back::Lease(_) => Ok(()),
                });
                let synced = synced
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                synced.map_err(|error| HostError::system("filesystem.sync", error))
            }
            Back::Lease(lease) => {
                let id = lease.id.clone();
                let request = messages::SyncRequest {
                    lease: id,
                    data_only,
                };
                call!(lease.host, FilesystemClient, "filesystem", sync, request)?;
                Ok(())
            }
        }
    }

    /// Closes the file and says whether that worked.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn close(mut self) -> Result<(), HostError> {
        self.settle();
        match Arc::try_unwrap(self.back) {
            Ok(Back::Lease(lease)) => lease.close().await,
            // Someone still streams from it and closes it then.
            Ok(Back::Descriptor(_)) | Err(_) => Ok(()),
        }
    }

    /// Forgets what a poll was about.
    fn settle(&mut self) {
        self.asking = Asking::Nothing;
    }
}

impl Back {
    async fn metadata(&self) -> Result<Metadata, HostError> {
        match self {
            Self::Descriptor(file) => {
                let found = file.metadata();
                let found =
                    found.map_err(|error| HostError::system("filesystem.file_stat", error))?;
                Ok(Metadata::from_system(&found))
            }
            Self::Lease(lease) => {
                let request = messages::FileStatRequest {
                    lease: lease.id.clone(),
                };
                let host = &lease.host;
                let stat = call!(host, FilesystemClient, "filesystem", file_stat, request)?;
                Ok(Metadata::new(stat.info.unwrap_or_default()))
            }
        }
    }
}

impl Lease {
    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, HostError> {
        let length = length.min(self.host.payload());
        let request = messages::ReadRequest {
            lease: self.id.clone(),
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        Ok(call!(self.host, FilesystemClient, "filesystem", read, request)?.data)
    }

    async fn write(&self, mut data: Bytes, mut offset: u64) -> Result<(), HostError> {
        loop {
            let part = data.split_to(data.len().min(self.host.payload()));
            let length = part.len() as u64;
            let request = messages::WriteRequest {
                lease: self.id.clone(),
                offset,
                data: part,
            };
            call!(self.host, FilesystemClient, "filesystem", write, request)?;
            offset += length;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    async fn append(&self, mut data: Bytes) -> Result<(), HostError> {
        loop {
            let part = data.split_to(data.len().min(self.host.payload()));
            let request = messages::WriteNextRequest {
                lease: self.id.clone(),
                data: part,
            };
            call!(
                self.host,
                FilesystemClient,
                "filesystem",
                write_next,
                request
            )?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Writes at `position`, or at the end, and says where the position is then.
async fn write_on(
    back: Arc<Back>,
    append: bool,
    data: Bytes,
    position: u64,
) -> Result<u64, HostError> {
    let length = data.len() as u64;
    match &*back {
        Back::Descriptor(file) if append => {
            let written = io::Write::write_all(&mut &*file, &data);
            written.map_err(|error| HostError::system("filesystem.write_next", error))?;
        }
        Back::Descriptor(file) => {
            let written = file.write_all_at(&data, position);
            written.map_err(|error| HostError::system("filesystem.write", error))?;
        }
        Back::Lease(lease) if append => lease.append(data).await?,
        Back::Lease(lease) => lease.write(data, position).await?,
    }
    if append {
        return Ok(back.metadata().await?.len());
    }
    Ok(position + length)
}

async fn target(back: &Back, position: u64, to: SeekFrom) -> Result<u64, HostError> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(distance) => position.checked_add_signed(distance),
        SeekFrom::End(distance) => back.metadata().await?.len().checked_add_signed(distance),
    };
    target
        .filter(|at| i64::try_from(*at).is_ok())
        .ok_or_else(|| HostError::system("filesystem.seek", io::ErrorKind::InvalidInput.into()))
}

fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Reads a descriptor part by part, on the thread that asks.
fn local_stream(
    back: Arc<Back>,
    offset: u64,
    end: Option<u64>,
) -> impl Stream<Item = Result<Bytes, HostError>> + Send {
    struct State {
        back: Arc<Back>,
        at: u64,
        turn: usize,
        buffer: BytesMut,
    }
    let state = State {
        back,
        at: offset,
        turn: 0,
        buffer: BytesMut::new(),
    };
    futures_util::stream::try_unfold(state, move |mut state| async move {
        let left = end.map_or(u64::MAX, |end| end - state.at);
        let length = usize::try_from(left).unwrap_or(PART).min(PART);
        let Back::Descriptor(file) = &*state.back else {
            return Ok(None);
        };
        if length == 0 {
            return Ok(None);
        }
        // The same memory again, once the parts before are dropped.
        state.buffer.resize(length, 0);
        let read = retry(|| file.read_at(&mut state.buffer, state.at));
        let read = read.map_err(|error| HostError::system("filesystem.read_stream", error))?;
        if read == 0 {
            return Ok(None);
        }
        state.at += read as u64;
        state.turn += read;
        if state.turn >= TURN {
            state.turn = 0;
            tokio::task::yield_now().await;
        }
        let part = state.buffer.split_to(read).freeze();
        Ok(Some((part, state)))
    })
}

fn remote_stream(
    back: Arc<Back>,
    host: Host,
    request: messages::ReadStreamRequest,
) -> impl Stream<Item = Result<Bytes, HostError>> + Send {
    let opened = async move { call!(host, FilesystemClient, "filesystem", read_stream, request) };
    opened
        .map(move |opened| match opened {
            Ok(parts) => {
                let part = move |part: Result<messages::ReadStreamResponse, tonic::Status>| {
                    let _kept = &back;
                    part.map(|part| part.data)
                        .map_err(|status| HostError::status("filesystem.read_stream", status))
                };
                parts.map(part).boxed()
            }
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        })
        .flatten_stream()
}

impl AsyncRead for File {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Back::Descriptor(file) = &*self.back {
            let room = buffer.initialize_unfilled();
            let read = retry(|| file.read_at(room, self.position));
            let read = read.map_err(|error| HostError::system("filesystem.read", error))?;
            buffer.advance(read);
            self.position += read as u64;
            return Poll::Ready(Ok(()));
        }
        let changes = self.changes.load(Ordering::Acquire);
        loop {
            match &mut self.asking {
                Asking::Read(data, since) if !data.is_empty() && *since == changes => {
                    let part = data.split_to(data.len().min(buffer.remaining()));
                    buffer.put_slice(&part);
                    self.position += part.len() as u64;
                    return Poll::Ready(Ok(()));
                }
                Asking::Reading(reading, since) if *since == changes => {
                    let data = ready!(reading.poll(context));
                    self.asking = Asking::Nothing;
                    let data = data?;
                    if data.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    self.asking = Asking::Read(data, changes);
                }
                _ => {
                    let (back, position) = (self.back.clone(), self.position);
                    let length = buffer.remaining().max(ASKED);
                    let reading = async move {
                        match &*back {
                            Back::Lease(lease) => lease.read(position, length).await,
                            Back::Descriptor(_) => Ok(Bytes::new()),
                        }
                    };
                    self.asking = Asking::Reading(Work::new(reading), changes);
                }
            }
        }
    }
}

impl AsyncWrite for File {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Asking::Writing(writing, length) = &mut self.asking {
                let (position, length) = (ready!(writing.poll(context)), *length);
                self.asking = Asking::Nothing;
                self.position = position?;
                return Poll::Ready(Ok(length));
            }
            if let (Back::Descriptor(file), false) = (&*self.back, self.append) {
                let written = retry(|| file.write_at(data, self.position));
                let written =
                    written.map_err(|error| HostError::system("filesystem.write", error))?;
                self.position += written as u64;
                return Poll::Ready(Ok(written));
            }
            let part = data.get(..data.len().min(1 << 20)).unwrap_or_default();
            let data = Bytes::copy_from_slice(part);
            let (length, back) = (data.len(), self.back.clone());
            let writing = write_on(back, self.append, data, self.position);
            self.asking = Asking::Writing(Work::new(writing), length);
        }
    }

    /// What was written is with the host already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for File {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let (back, position) = (self.back.clone(), self.position);
        let seeking = async move { target(&back, position, to).await };
        self.asking = Asking::Seeking(Work::new(seeking));
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if let Asking::Seeking(seeking) = &mut self.asking {
            let position = ready!(seeking.poll(context));
            self.asking = Asking::Nothing;
            self.position = position?;
        }
        Poll::Ready(Ok(self.position))
    }
}

impl Metadata {
    fn from_system(found: &std::fs::Metadata) -> Self {
        let kind = if found.is_file() {
            FileKind::File
        } else if found.is_dir() {
            FileKind::Directory
        } else {
            FileKind::Other
        };
        let time = |seconds, nanos: i64| {
            Some(prost_types::Timestamp {
                seconds,
                nanos: i32::try_from(nanos).unwrap_or(0),
            })
        };
        Self::new(messages::FileInfo {
            name: String::new(),
            kind: kind.to_wire().into(),
            size: found.len(),
            mode: found.mode() & 0o7777,
            modified: time(found.mtime(), found.mtime_nsec()),
            accessed: time(found.atime(), found.atime_nsec()),
            uid: found.uid(),
            gid: found.gid(),
            links: found.nlink(),
        })
    }
}

/// The time of a message.
pub(super) fn time(stamp: Option<prost_types::Timestamp>) -> Option<std::time::SystemTime> {
    let stamp = stamp?;
    let nanos = Duration::from_nanos(u64::try_from(stamp.nanos).unwrap_or(0));
    let epoch = std::time::UNIX_EPOCH;
    let whole = match u64::try_from(stamp.seconds) {
        Ok(after) => epoch.checked_add(Duration::from_secs(after)),
        Err(_) => epoch.checked_sub(Duration::from_secs(stamp.seconds.unsigned_abs())),
    };
    whole?.checked_add(nanos)
}

/// A time as a message has it.
pub(super) fn stamp(time: std::time::SystemTime) -> prost_types::Timestamp {
    time.into()
}
