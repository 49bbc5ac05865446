//! The contents of an open file, whether the kernel or the host reads them.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::lease::Lease;
use super::{HostError, Metadata};

/// The most that a stream of a descriptor yields at a time, in bytes.
const PART: usize = 256 << 10;
/// Bytes read or written without letting other tasks go on.
const TURN: usize = 4 << 20;

/// An open file, by a descriptor that the host handed over or by a name at the
/// host. It has no position.
#[derive(Debug)]
pub(super) enum Contents {
    Descriptor(std::fs::File),
    Lease(Lease),
}

impl Contents {
    pub(super) async fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, HostError> {
        match self {
            Self::Descriptor(file) => read_descriptor(file, buffer, offset),
            Self::Lease(lease) => {
                let data = lease.read(offset, buffer.len()).await?;
                let into = buffer.get_mut(..data.len());
                let into = into.ok_or_else(|| HostError::protocol("filesystem.read"))?;
                into.copy_from_slice(&data);
                Ok(data.len())
            }
        }
    }

    pub(super) async fn write_at(&self, data: Bytes, offset: u64) -> Result<(), HostError> {
        match self {
            Self::Descriptor(file) => {
                let written = file.write_all_at(&data, offset);
                written.map_err(|error| HostError::system("filesystem.write", error))
            }
            Self::Lease(lease) => lease.write(data, offset).await,
        }
    }

    /// Writes at the end of a file that is open for appending.
    pub(super) async fn append(&self, data: Bytes) -> Result<(), HostError> {
        match self {
            Self::Descriptor(file) => {
                let written = io::Write::write_all(&mut &*file, &data);
                written.map_err(|error| HostError::system("filesystem.write_next", error))
            }
            Self::Lease(lease) => lease.append(data).await,
        }
    }

    /// `length` bytes from `offset` on, all of them for 0.
    pub(super) fn stream(
        self: Arc<Self>,
        offset: u64,
        length: u64,
    ) -> BoxStream<'static, Result<Bytes, HostError>> {
        match &*self {
            Self::Descriptor(_) => {
                let end = (length != 0).then(|| offset.saturating_add(length));
                stream_descriptor(self, offset, end).boxed()
            }
            Self::Lease(_) => stream_lease(self, offset, length).boxed(),
        }
    }

    pub(super) async fn write_stream(
        &self,
        offset: u64,
        parts: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<u64, HostError> {
        match self {
            Self::Descriptor(file) => {
                let mut parts = std::pin::pin!(parts);
                let (mut at, mut turn) = (offset, 0);
                while let Some(part) = parts.next().await {
                    let written = file.write_all_at(&part, at);
                    written.map_err(|error| HostError::system("filesystem.write_stream", error))?;
                    at += part.len() as u64;
                    give_way(&mut turn, part.len()).await;
                }
                Ok(at - offset)
            }
            Self::Lease(lease) => {
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
                Ok(call!(lease.host, filesystem.write_stream, all)?.written)
            }
        }
    }

    pub(super) async fn metadata(&self) -> Result<Metadata, HostError> {
        match self {
            Self::Descriptor(file) => {
                let found = file.metadata();
                found
                    .map(|found| Metadata::from_system(&found))
                    .map_err(|error| HostError::system("filesystem.file_stat", error))
            }
            Self::Lease(lease) => {
                let request = messages::FileStatRequest {
                    lease: lease.id.clone(),
                };
                let stat = call!(lease.host, filesystem.file_stat, request)?;
                Ok(Metadata::from_wire(stat.info))
            }
        }
    }

    pub(super) async fn set_len(&self, size: u64) -> Result<(), HostError> {
        match self {
            Self::Descriptor(file) => {
                let set = file.set_len(size);
                set.map_err(|error| HostError::system("filesystem.truncate", error))
            }
            Self::Lease(lease) => {
                let request = messages::TruncateRequest {
                    lease: lease.id.clone(),
                    path: String::new(),
                    size,
                };
                call!(lease.host, filesystem.truncate, request)?;
                Ok(())
            }
        }
    }

    pub(super) async fn sync(self: Arc<Self>, data_only: bool) -> Result<(), HostError> {
        if let Self::Lease(lease) = &*self {
            let request = messages::SyncRequest {
                lease: lease.id.clone(),
                data_only,
            };
            call!(lease.host, filesystem.sync, request)?;
            return Ok(());
        }
        // Storage may take its time.
        let synced = tokio::task::spawn_blocking(move || match &*self {
            Self::Descriptor(file) if data_only => file.sync_data(),
            Self::Descriptor(file) => file.sync_all(),
            Self::Lease(_) => Ok(()),
        });
        let synced = synced.await.map_err(io::Error::other).flatten();
        synced.map_err(|error| HostError::system("filesystem.sync", error))
    }

    /// Closes the file, unless somebody else has it too: the last one closes it then.
    pub(super) async fn close(self: Arc<Self>) -> Result<(), HostError> {
        match Arc::try_unwrap(self) {
            Ok(Self::Lease(lease)) => lease.close().await,
            Ok(Self::Descriptor(_)) | Err(_) => Ok(()),
        }
    }
}

/// Reads on the calling thread.
pub(super) fn read_descriptor(
    file: &std::fs::File,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, HostError> {
    let read = retry(|| file.read_at(buffer, offset));
    read.map_err(|error| HostError::system("filesystem.read", error))
}

/// Writes as much as the kernel takes, on the calling thread.
pub(super) fn write_descriptor(
    file: &std::fs::File,
    data: &[u8],
    offset: u64,
) -> Result<usize, HostError> {
    let written = retry(|| file.write_at(data, offset));
    written.map_err(|error| HostError::system("filesystem.write", error))
}

fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Lets other tasks go on after so many bytes.
async fn give_way(turn: &mut usize, bytes: usize) {
    *turn += bytes;
    if *turn >= TURN {
        *turn = 0;
        tokio::task::yield_now().await;
    }
}

/// Reads a descriptor part by part, on the thread that asks.
fn stream_descriptor(
    contents: Arc<Contents>,
    offset: u64,
    end: Option<u64>,
) -> impl Stream<Item = Result<Bytes, HostError>> + Send {
    struct State {
        contents: Arc<Contents>,
        at: u64,
        turn: usize,
        buffer: BytesMut,
    }
    let state = State {
        contents,
        at: offset,
        turn: 0,
        buffer: BytesMut::new(),
    };
    futures_util::stream::try_unfold(state, move |mut state| async move {
        let left = end.map_or(u64::MAX, |end| end - state.at);
        let length = usize::try_from(left).unwrap_or(PART).min(PART);
        let Contents::Descriptor(file) = &*state.contents else {
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
        give_way(&mut state.turn, read).await;
        let part = state.buffer.split_to(read).freeze();
        Ok(Some((part, state)))
    })
}

/// Has the host stream a file, which stays open until the stream is dropped.
fn stream_lease(
    contents: Arc<Contents>,
    offset: u64,
    length: u64,
) -> impl Stream<Item = Result<Bytes, HostError>> + Send {
    let opened = async move {
        let Contents::Lease(lease) = &*contents else {
            return Ok(None);
        };
        let request = messages::ReadStreamRequest {
            lease: lease.id.clone(),
            offset,
            length,
            // The host knows best what it reads without a thread of its own.
            chunk: 0,
        };
        let parts = call!(lease.host, filesystem.read_stream, request)?;
        Ok(Some((parts, contents)))
    };
    let parts = |opened| match opened {
        Ok(None) => futures_util::stream::empty().boxed(),
        Ok(Some((parts, contents))) => {
            let parts: tonic::Streaming<messages::ReadStreamResponse> = parts;
            let part = move |part: Result<messages::ReadStreamResponse, tonic::Status>| {
                let _kept: &Arc<Contents> = &contents;
                part.map(|part| part.data)
                    .map_err(|status| HostError::status("filesystem.read_stream", status))
            };
            parts.map(part).boxed()
        }
        Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
    };
    opened.map(parts).flatten_stream()
}
