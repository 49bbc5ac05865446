//! What a call streams, read as bytes.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;

/// Parts that wait to be read. While so many do, no more are taken from the host.
pub(super) const WAITING: usize = 4;

/// The reading end of a channel of parts. An empty part ends the reading, as the
/// end of the channel does.
#[derive(Debug)]
pub(super) struct Parts {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
    ended: bool,
}

impl Parts {
    pub(super) fn channel() -> (Self, mpsc::Sender<io::Result<Bytes>>) {
        let (sender, parts) = mpsc::channel(WAITING);
        let (rest, ended) = (Bytes::new(), false);
        (Self { parts, rest, ended }, sender)
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && !self.ended {
            match ready!(self.parts.poll_recv(context)).transpose()? {
                Some(part) if !part.is_empty() => self.rest = part,
                Some(_) | None => self.ended = true,
            }
        }
        let part = self.rest.split_to(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}
