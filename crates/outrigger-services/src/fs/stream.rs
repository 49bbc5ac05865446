//! Files as streams: read at the pace of whoever takes the parts, written at
//! the pace of storage. Nothing is read ahead, so a plugin that stops taking
//! costs no memory.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};

use super::area::{self, INLINE};
use super::open::OpenFile;
use crate::fault::Fault;
use crate::leases::{Held, Lent};
use crate::session::Running;

/// A file that is read part by part.
pub(crate) struct Reading {
    /// Closing the file ends the stream: only the table keeps files open.
    lease: Weak<Held<OpenFile>>,
    /// Nothing means the file's own position, which moves along.
    offset: Option<u64>,
    /// What may still be read; nothing for all up to the end.
    left: Option<u64>,
    chunk: usize,
    buffer: BytesMut,
}

/// One part.
pub(crate) struct Part {
    pub(crate) data: Bytes,
    pub(crate) offset: u64,
    pub(crate) last: bool,
}

impl Reading {
    pub(crate) fn start(
        file: &Lent<OpenFile>,
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

    pub(crate) async fn next(&mut self, running: &Running) -> Result<Part, Fault> {
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
            area::read_inline(&file.file, &mut buffer, offset, file.inline)
        } else {
            None
        };
        let read = match inline {
            Some(read) => read,
            None => {
                let file = file.clone();
                let read = running.session().blocking(move |_| {
                    let read = area::read_full(&file.file, &mut buffer, offset)?;
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

/// Writes one part of a stream: at `at`, or at the file's own position.
pub(crate) async fn write(
    running: &Running,
    file: &Lent<OpenFile>,
    data: Bytes,
    at: Option<u64>,
) -> Result<(), Fault> {
    let (file, cx) = (file.clone(), running.cx());
    file.touch();
    running.session().pace(data.len() as u64).await;
    let write = running.session().blocking(move |_| match at {
        Some(at) => file.write_at(&cx, &data, at),
        None => file.write_on(&cx, &data),
    });
    write.await
}
