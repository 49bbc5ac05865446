//! An open file with a position, as the standard library has it.

use std::io::{self, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tonic::Code;

use super::contents::{Contents, read_descriptor, write_descriptor};
use super::lease::Lease;
use super::pending::Pending;
use super::{Host, HostError, Metadata};

/// The least that a poll asks the host for, in bytes: what is left is read from memory.
const READ_AHEAD: usize = 256 << 10;
/// The most that a poll sends to the host, in bytes.
const WRITE_MOST: usize = 1 << 20;
/// The most memory that is taken at once for a file that is read whole, in bytes.
const RESERVED: usize = 1 << 30;

/// A file that the host has opened for this plugin.
///
/// It behaves the same whether it came as a descriptor or is read and written by
/// calls. Its position belongs to this value. Dropping it closes it;
/// [`close`](Self::close) also says whether that worked.
///
/// Methods that `tokio::io` has too mean the same here and tell more of an error.
/// Reading and writing a descriptor happen on the calling thread, like those of
/// `std::fs`: local files do not keep it for long.
///
/// # Examples
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::SeekFrom;
/// use tokio::io::{AsyncBufReadExt, BufReader};
///
/// let mut file = host.fs().options().read(true).append(true).open("notes.txt").await?;
/// file.write_all(b"one more line\n").await?;
/// file.seek(SeekFrom::Start(0)).await?;
///
/// let mut lines = BufReader::new(file).lines();
/// while let Some(line) = lines.next_line().await? {
///     println!("{line}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct File {
    contents: Arc<Contents>,
    append: bool,
    position: u64,
    polled: Polled,
    /// How often the contents were changed through this value: what was read
    /// ahead by a call before is out of date.
    changes: AtomicU64,
}

/// What `AsyncRead`, `AsyncWrite` and `AsyncSeek` keep between two polls.
#[derive(Default)]
enum Polled {
    #[default]
    Nothing,
    /// Reading ahead, with the changes that there were before.
    Reading(Pending<Bytes>, u64),
    /// What was read ahead, with the changes that there were before.
    ReadAhead(Bytes, u64),
    /// Writing so many bytes; yields the position behind them.
    Writing(Pending<u64>, usize),
    /// Yields the new position.
    Seeking(Pending<u64>),
}

impl std::fmt::Debug for Polled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Reading(..) => "Reading",
            Self::ReadAhead(..) => "ReadAhead",
            Self::Writing(..) => "Writing",
            Self::Seeking(_) => "Seeking",
        })
    }
}

/// Counts a change when it is over, however it ends.
struct Changing<'a>(&'a AtomicU64);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl File {
    pub(super) fn from_descriptor(file: std::fs::File, append: bool) -> Self {
        Self::new(Contents::Descriptor(file), append)
    }

    pub(super) fn from_lease(host: Host, id: String, append: bool) -> Self {
        Self::new(Contents::Lease(Lease { host, id }), append)
    }

    fn new(contents: Contents, append: bool) -> Self {
        Self {
            contents: Arc::new(contents),
            append,
            position: 0,
            polled: Polled::Nothing,
            changes: AtomicU64::new(0),
        }
    }

    /// The descriptor, where the host handed one over: for `mmap` and the like.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &*self.contents {
            Contents::Descriptor(file) => Some(file.as_fd()),
            Contents::Lease(_) => None,
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
        self.contents.read_at(buffer, offset).await
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
    pub async fn write_all_at(&self, data: &[u8], offset: u64) -> Result<(), HostError> {
        self.refuse_append()?;
        let _changing = Changing(&self.changes);
        match &*self.contents {
            // Nothing is copied for the kernel.
            Contents::Descriptor(file) => {
                std::os::unix::fs::FileExt::write_all_at(file, data, offset)
                    .map_err(|error| HostError::system("filesystem.write", error))
            }
            Contents::Lease(lease) => lease.write(Bytes::copy_from_slice(data), offset).await,
        }
    }

    /// A file that is open for appending has no place to write at but its end.
    fn refuse_append(&self) -> Result<(), HostError> {
        if !self.append {
            return Ok(());
        }
        let text = "filesystem.write: the file is open for appending";
        let status = Code::FailedPrecondition;
        Err(HostError::local("failed", "filesystem.write", status, text))
    }

    /// Reads at the position and moves it, as [`read_at`](Self::read_at).
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HostError> {
        self.forget_polls();
        let read = self.read_at(buffer, self.position).await?;
        self.position += read as u64;
        Ok(read)
    }

    /// Writes all of `data` at the position, or at the end of a file that is
    /// open for appending, and moves the position behind it.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// A part may be written when the future is dropped; the position is where it was.
    pub async fn write_all(&mut self, data: &[u8]) -> Result<(), HostError> {
        self.forget_polls();
        let data = Bytes::copy_from_slice(data);
        self.position = write_on(&self.contents, self.append, data, self.position).await?;
        Ok(())
    }

    /// Moves the position and says where it is.
    ///
    /// # Errors
    /// The target is before the start of the file, or see [`HostError`].
    pub async fn seek(&mut self, to: SeekFrom) -> Result<u64, HostError> {
        self.forget_polls();
        self.position = target(&self.contents, self.position, to).await?;
        Ok(self.position)
    }

    /// Reads from the position to the end and appends it to `contents`. A
    /// descriptor is read by the kernel alone, other files as a stream.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn read_to_end(&mut self, contents: &mut Vec<u8>) -> Result<usize, HostError> {
        self.forget_polls();
        let before = contents.len();
        let size = self.metadata().await?.len();
        let rest = usize::try_from(size.saturating_sub(self.position)).unwrap_or(0);
        contents.reserve(rest.min(RESERVED));
        let mut parts = self.stream(self.position, 0);
        while let Some(part) = parts.next().await {
            contents.extend_from_slice(&part?);
        }
        let read = contents.len() - before;
        self.position += read as u64;
        Ok(read)
    }

    /// The contents from `offset` on, `length` bytes or, for 0, up to the end,
    /// in parts of some hundred KiB. The host reads a few parts ahead of what is
    /// taken.
    pub fn stream(&self, offset: u64, length: u64) -> BoxStream<'static, Result<Bytes, HostError>> {
        self.contents.clone().stream(offset, length)
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
        self.refuse_append()?;
        let _changing = Changing(&self.changes);
        self.contents.write_stream(offset, parts).await
    }

    /// What the file is now.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn metadata(&self) -> Result<Metadata, HostError> {
        self.contents.metadata().await
    }

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// The file is not open for writing, or see [`HostError`].
    pub async fn set_len(&self, size: u64) -> Result<(), HostError> {
        let _changing = Changing(&self.changes);
        self.contents.set_len(size).await
    }

    /// Waits until contents and attributes are on storage.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sync_all(&self) -> Result<(), HostError> {
        self.contents.clone().sync(false).await
    }

    /// Waits until the contents are on storage.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sync_data(&self) -> Result<(), HostError> {
        self.contents.clone().sync(true).await
    }

    /// Closes the file and says whether that worked.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn close(mut self) -> Result<(), HostError> {
        self.forget_polls();
        self.contents.close().await
    }

    fn forget_polls(&mut self) {
        self.polled = Polled::Nothing;
    }
}

/// Writes at `position`, or at the end, and says where the position is then.
async fn write_on(
    contents: &Contents,
    append: bool,
    data: Bytes,
    position: u64,
) -> Result<u64, HostError> {
    let length = data.len() as u64;
    if append {
        contents.append(data).await?;
        return Ok(contents.metadata().await?.len());
    }
    contents.write_at(data, position).await?;
    Ok(position + length)
}

/// Where `to` leads from `position`.
async fn target(contents: &Contents, position: u64, to: SeekFrom) -> Result<u64, HostError> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(distance) => position.checked_add_signed(distance),
        SeekFrom::End(distance) => {
            let end = contents.metadata().await?.len();
            end.checked_add_signed(distance)
        }
    };
    target
        .filter(|at| i64::try_from(*at).is_ok())
        .ok_or_else(|| HostError::system("filesystem.seek", io::ErrorKind::InvalidInput.into()))
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
        if let Contents::Descriptor(file) = &*self.contents {
            let read = read_descriptor(file, buffer.initialize_unfilled(), self.position)?;
            buffer.advance(read);
            self.position += read as u64;
            return Poll::Ready(Ok(()));
        }
        let changes = self.changes.load(Ordering::Acquire);
        loop {
            match &mut self.polled {
                Polled::ReadAhead(data, since) if !data.is_empty() && *since == changes => {
                    let part = data.split_to(data.len().min(buffer.remaining()));
                    buffer.put_slice(&part);
                    self.position += part.len() as u64;
                    return Poll::Ready(Ok(()));
                }
                Polled::Reading(reading, since) if *since == changes => {
                    let data = ready!(reading.poll(context));
                    self.polled = Polled::Nothing;
                    let data = data?;
                    if data.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    self.polled = Polled::ReadAhead(data, changes);
                }
                _ => {
                    let (contents, position) = (self.contents.clone(), self.position);
                    let length = buffer.remaining().max(READ_AHEAD);
                    let reading = async move {
                        match &*contents {
                            Contents::Lease(lease) => lease.read(position, length).await,
                            Contents::Descriptor(_) => Ok(Bytes::new()),
                        }
                    };
                    self.polled = Polled::Reading(Pending::new(reading), changes);
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
            if let Polled::Writing(writing, length) = &mut self.polled {
                let (position, length) = (ready!(writing.poll(context)), *length);
                self.polled = Polled::Nothing;
                self.position = position?;
                return Poll::Ready(Ok(length));
            }
            if let (Contents::Descriptor(file), false) = (&*self.contents, self.append) {
                let written = write_descriptor(file, data, self.position)?;
                self.position += written as u64;
                return Poll::Ready(Ok(written));
            }
            let part = data.get(..data.len().min(WRITE_MOST)).unwrap_or_default();
            let data = Bytes::copy_from_slice(part);
            let (length, contents) = (data.len(), self.contents.clone());
            let (append, position) = (self.append, self.position);
            let writing = async move { write_on(&contents, append, data, position).await };
            self.polled = Polled::Writing(Pending::new(writing), length);
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
        let (contents, position) = (self.contents.clone(), self.position);
        let seeking = async move { target(&contents, position, to).await };
        self.polled = Polled::Seeking(Pending::new(seeking));
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if let Polled::Seeking(seeking) = &mut self.polled {
            let position = ready!(seeking.poll(context));
            self.polled = Polled::Nothing;
            self.position = position?;
        }
        Poll::Ready(Ok(self.position))
    }
}
