//! Files as streams: read at the pace of whoever takes the parts, written at
//! the pace of storage. Nothing is read ahead, so a plugin that stops taking
//! costs no memory.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tonic::{Status, Streaming};

use super::call::{FileCall, SessionFiles};
use super::io::{INLINE, read_full, read_inline};
use super::open_file::OpenFile;
use crate::fault::Fault;
use crate::leases::Leased;
use crate::operation::Described;
use crate::running::Running;
use crate::streaming;

/// A file that is read part by part.
pub(crate) struct Reading {
    /// Closing the file ends the stream: only the table keeps files open.
    lease: Weak<Leased<OpenFile>>,
    /// Nothing means the file's own position, which moves along.
    offset: Option<u64>,
    /// What may still be read; nothing for all up to the end.
    left: Option<u64>,
    chunk: usize,
    buffer: BytesMut,
}

/// One part of a file.
pub(crate) struct Part {
    pub(crate) data: Bytes,
    pub(crate) offset: u64,
    pub(crate) last: bool,
}

impl Reading {
    pub(crate) fn start(
        file: &Arc<Leased<OpenFile>>,
        offset: Option<u64>,
        length: Option<u64>,
        chunk: usize,
    ) -> Self {
        Self {
            lease: Arc::downgrade(file),
            offset,
            left: length,
            chunk,
            buffer: BytesMut::new(),
        }
    }

    /// The next part, at the pace that was granted.
    pub(crate) async fn part(&mut self, running: &Running) -> Result<Part, Fault> {
        let file = self.lease.upgrade().ok_or(Fault::UnknownLease)?;
        file.touch();
        let offset = self.offset.unwrap_or_else(|| file.position());
        let left = self.left.map_or(self.chunk, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let wanted = self.chunk.min(left);
        running.session().pace(wanted as u64).await;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(wanted, 0);
        let inline = if wanted <= INLINE {
            read_inline(&file.file, &mut buffer, offset, file.inline)
        } else {
            None
        };
        let read = match inline {
            Some(read) => read,
            None => {
                let file = file.clone();
                let read = running.session().blocking(move || {
                    let read = read_full(&file.file, &mut buffer, offset)?;
                    Ok((buffer, read))
                });
                let read = read.await?;
                buffer = read.0;
                read.1
            }
        };
        running.read(read as u64);
        let data = buffer.split_to(read).freeze();
        self.buffer = buffer;
        match &mut self.offset {
            Some(offset) => *offset += read as u64,
            None => file.move_to(offset + read as u64),
        }
        if let Some(left) = &mut self.left {
            *left -= read as u64;
        }
        Ok(Part {
            data,
            offset,
            last: read < wanted || self.left == Some(0),
        })
    }
}

/// A message of a stream that writes a file.
pub(crate) trait WriteMessage: Described + Send + 'static {
    /// Why a first message that names no file is refused, where that is said.
    const NO_FILE: Option<&'static str>;
    /// Why a message that names another file than the first one is refused.
    const SECOND_FILE: &'static str;
    /// The most bytes that one stream writes.
    const MOST: u64;

    /// The file: the first message names it, later ones may only repeat it.
    fn file(&self) -> &str;

    /// Where the contents go, in a stream that started at `start` and of which
    /// `written` bytes came before; nothing means the file's own position.
    fn offset(&self, start: &mut Option<u64>, written: u64) -> Result<Option<u64>, Fault>;

    /// Takes the contents out, and says whether they are the last ones.
    fn take(&mut self) -> (Bytes, bool);
}

/// Why a stream that writes a file ended early.
pub(crate) enum WriteError {
    Fault(Fault),
    /// The stream itself failed; the plugin knows.
    Stream(Status),
}

impl From<Fault> for WriteError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Writes the contents of a stream one after another, until a message says that
/// they are the last or the stream ends, and says how many bytes there were.
pub(crate) async fn write<Q: WriteMessage>(
    files: &Arc<SessionFiles>,
    running: &mut Running,
    messages: &mut Streaming<Q>,
) -> Result<u64, WriteError> {
    let session = files.session();
    let mut message = streaming::first(session, messages).await?;
    running.show(|shown| message.show(shown));
    let name = message.file().to_owned();
    if let Some(text) = Q::NO_FILE
        && name.is_empty()
    {
        return Err(Fault::abuse(text).into());
    }
    let call = files.call(running);
    let file = call.file(&name)?;
    let (mut start, mut written) = (None, 0);
    loop {
        let at = message.offset(&mut start, written)?;
        let (data, last) = message.take();
        if !data.is_empty() {
            let total = written + data.len() as u64;
            if total > Q::MOST {
                let text = "a stream writes less than 4 GiB";
                return Err(Fault::exhausted("stream-too-long", text).into());
            }
            write_part(&call, &file, data, at).await?;
            written = total;
        }
        if last {
            return Ok(written);
        }
        let next = tokio::time::timeout(session.limits().call_timeout, messages.message()).await;
        match next
            .map_err(|_| Fault::Deadline)?
            .map_err(WriteError::Stream)?
        {
            None => return Ok(written),
            Some(next) => message = next,
        }
        if !message.file().is_empty() && message.file() != name {
            return Err(Fault::abuse(Q::SECOND_FILE).into());
        }
    }
}

/// Writes at `at`, or at the file's own position.
async fn write_part(
    call: &FileCall,
    file: &Arc<Leased<OpenFile>>,
    data: Bytes,
    at: Option<u64>,
) -> Result<(), Fault> {
    let (file, call) = (file.clone(), call.clone());
    file.touch();
    let session = call.session.clone();
    session.pace(data.len() as u64).await;
    let write = session.blocking(move || match at {
        Some(at) => call.write_at(&file, &data, at),
        None => call.write_on(&file, &data),
    });
    write.await
}
