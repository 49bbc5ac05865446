//! One stream.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::session::Shared;
use super::state::{Key, Received};

/// One of the streams of a [`Session`](super::Session).
///
/// Shutting it down closes this side only; the peer may go on sending for
/// [`close_timeout`](super::Config::close_timeout). Dropping it shuts it down
/// too and throws away what the peer still sends. Data already written is sent
/// in both cases.
///
/// Reading ends when the peer shuts the stream down, and also when either side
/// closes the session: Go peers take no other leave.
///
/// # Errors
///
/// Every error that reading and writing return is a
/// [`YamuxError`](super::YamuxError) within the [`io::Error`].
///
/// # Cancel safety
///
/// Reads and writes are polled: what was not returned has not happened.
pub struct Stream {
    shared: Arc<Shared>,
    key: Key,
    id: u32,
    /// Received, not yet read, and known to nobody else.
    unread: VecDeque<BytesMut>,
    /// Read, and not yet given back to the peer as credit.
    consumed: u32,
}

impl Stream {
    /// The state has counted the stream as a handle already.
    pub(super) fn new(shared: Arc<Shared>, key: Key, id: u32) -> Stream {
        Stream {
            shared,
            key,
            id,
            unread: VecDeque::new(),
            consumed: 0,
        }
    }

    /// The stream's id: odd when the client opened it, even when the server did.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Copies what is at hand; returns the number of bytes.
    fn read_at_hand(&mut self, into: &mut ReadBuf<'_>) -> usize {
        let before = into.remaining();
        while into.remaining() > 0
            && let Some(front) = self.unread.front_mut()
        {
            let length = front.len().min(into.remaining());
            into.put_slice(front.get(..length).unwrap_or_default());
            if length == front.len() {
                self.unread.pop_front();
            } else {
                front.advance(length);
            }
        }
        before - into.remaining()
    }

    fn give_credit(&mut self) {
        if self.consumed >= self.shared.credit_step {
            let consumed = std::mem::take(&mut self.consumed);
            if self.shared.with(|state| state.consume(self.key, consumed)) {
                self.shared.kick();
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        if this.unread.is_empty() {
            let unread = &mut this.unread;
            match this
                .shared
                .with(|state| state.receive(this.key, unread, cx.waker()))?
            {
                Received::Data => {}
                Received::End => return Poll::Ready(Ok(())),
                Received::Wait => return Poll::Pending,
            }
        }
        // A window is a u32, and nobody reads more than the window.
        this.consumed += this.read_at_hand(into) as u32;
        this.give_credit();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        body: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(body)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        body: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared
            .poll_write(self.key, cx, body)
            .map_err(io::Error::from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared
            .poll_written(self.key, cx)
            .map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared
            .with(|state| state.shutdown(self.key, Instant::now()));
        self.shared.kick();
        ready!(self.shared.poll_written(self.key, cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared
            .with(|state| state.release(self.key, Instant::now()));
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
