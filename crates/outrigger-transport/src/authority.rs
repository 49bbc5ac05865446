//! A client's stream, with authorities that HTTP/2's library accepts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use outrigger_wire::AuthorityFilter;
use tokio::io::{AsyncRead, ReadBuf};

use crate::stream::Stream;
use crate::through::{Reader, Through};

/// How much is read at a time while a header is incomplete, in bytes.
const MORE: usize = 512;

/// Reads a client's bytes through an [`AuthorityFilter`].
pub(crate) struct Authorities {
    filter: AuthorityFilter,
    /// Bytes that came and are not given on: the end of what was read, in the
    /// middle of a header, and what came after that.
    held: Vec<u8>,
    /// How many of them may be given on.
    settled: usize,
}

impl Authorities {
    /// The stream of a client that has not sent anything yet.
    pub(crate) fn of(stream: Stream) -> Through<Self> {
        let reader = Self {
            filter: AuthorityFilter::new(),
            held: Vec::new(),
            settled: 0,
        };
        Through { stream, reader }
    }

    /// Gives on what may be given on of the bytes that were held back.
    fn release(&mut self, buffer: &mut ReadBuf<'_>) {
        let released = self.settled.min(buffer.remaining());
        buffer.put_slice(&self.held[..released]);
        self.held.drain(..released);
        self.settled -= released;
    }

    /// Reads on where a header is incomplete.
    fn poll_more(
        &mut self,
        stream: Pin<&mut Stream>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let known = self.held.len();
        self.held.resize(known + MORE, 0);
        let mut more = ReadBuf::new(&mut self.held[known..]);
        let read = stream.poll_read(context, &mut more);
        let came = more.filled().len();
        self.held.truncate(known + came);
        ready!(read)?;
        self.settled = match came {
            // The header stays incomplete.
            0 => known,
            _ => self.filter.pass(&mut self.held),
        };
        Poll::Ready(Ok(()))
    }
}

impl Reader<Stream> for Authorities {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut Stream>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.settled == 0 {
            if !self.held.is_empty() {
                ready!(self.poll_more(stream.as_mut(), context))?;
                continue;
            }
            let before = buffer.filled().len();
            ready!(stream.as_mut().poll_read(context, buffer))?;
            let came = &mut buffer.filled_mut()[before..];
            let settled = self.filter.pass(came);
            if settled == came.len() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(&came[settled..]);
            buffer.set_filled(before + settled);
            if settled > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        self.release(buffer);
        Poll::Ready(Ok(()))
    }
}
