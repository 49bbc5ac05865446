//! What a peer says first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use outrigger_wire::Excerpt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::stream::Stream;

/// The header of a frame.
const HEADER: usize = 9;
/// What a peer says is kept up to this many bytes, to be quoted.
const KEPT: usize = 64;

/// What is known about a peer's first words.
#[derive(Clone, Debug)]
pub(crate) enum Greeting {
    /// It has not said enough.
    Awaited,
    /// It began as HTTP/2 begins.
    Settings,
    /// It did not.
    Other(Greeted),
}

/// Why a connection is not one of HTTP/2.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Greeted {
    #[error("the peer closed the connection without a word")]
    Closed,
    #[error("the peer does not speak HTTP/2; it began with {0}")]
    Otherwise(Excerpt),
}

/// A stream whose first bytes are looked at on their way.
pub(crate) struct Listening {
    inner: Stream,
    /// What came so far, until that is enough.
    heard: Option<Vec<u8>>,
    told: watch::Sender<Greeting>,
}

impl Listening {
    pub(crate) fn to(inner: Stream) -> (Self, watch::Receiver<Greeting>) {
        let (told, greeting) = watch::channel(Greeting::Awaited);
        (Self { inner, heard: Some(Vec::new()), told }, greeting)
    }

    /// Takes in what was read; nothing means that the peer is done.
    fn hear(&mut self, bytes: &[u8]) {
        let Some(heard) = &mut self.heard else { return };
        heard.extend_from_slice(&bytes[..bytes.len().min(KEPT)]);
        let ended = bytes.is_empty();
        let greeting = match judge(heard) {
            Some(true) => Greeting::Settings,
            None if !ended => return,
            None if heard.is_empty() => Greeting::Other(Greeted::Closed),
            _ => Greeting::Other(Greeted::Otherwise(Excerpt::new(heard))),
        };
        self.told.send_replace(greeting);
        self.heard = None;
    }
}

/// Whether this is the beginning of a settings frame on the connection itself.
fn judge(heard: &[u8]) -> Option<bool> {
    /// A settings frame is some entries of 6 bytes; a kilobyte holds them all.
    const MOST: u32 = 1024;
    const SETTINGS: u8 = 4;
    let Some(&[l0, l1, l2, kind, flags, i0, i1, i2, i3]) = heard.first_chunk::<HEADER>() else {
        // Three bytes tell most other protocols already.
        let long = heard.first_chunk::<2>().is_some_and(|[l0, l1]| *l0 != 0 || *l1 > 4);
        return long.then_some(false);
    };
    let length = u32::from_be_bytes([0, l0, l1, l2]);
    let on_connection = [i0 & 0x7f, i1, i2, i3] == [0; 4];
    Some(kind == SETTINGS && flags & 1 == 0 && on_connection && length <= MOST)
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_none() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(context, buffer));
        // A read that failed ends the connection as well.
        self.hear(&buffer.filled()[before..]);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn greeting_of(words: &[&[u8]]) -> Greeting {
        let (mut peer, own) = tokio::io::duplex(1024);
        let (mut listening, greeting) = Listening::to(Box::new(own));
        for word in words {
            peer.write_all(word).await.expect("written");
            let mut buffer = vec![0; word.len()];
            listening.read_exact(&mut buffer).await.expect("passed on");
            assert_eq!(buffer, *word);
        }
        drop(peer);
        let _ = listening.read(&mut [0]).await;
        let greeting = greeting.borrow();
        greeting.clone()
    }

    #[tokio::test]
    async fn settings_are_known_in_pieces_and_anything_else_is_quoted() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        assert!(matches!(greeting_of(&[&settings]).await, Greeting::Settings));
        assert!(matches!(greeting_of(&[&settings[..4], &settings[4..]]).await, Greeting::Settings));
        let closed = greeting_of(&[]).await;
        assert!(matches!(closed, Greeting::Other(Greeted::Closed)), "{closed:?}");
        for other in [b"HTTP/1.1 400 Bad Request\r\n".as_slice(), &[21, 3, 3, 0, 2], &[0, 0]] {
            let greeting = greeting_of(&[other]).await;
            let Greeting::Other(Greeted::Otherwise(said)) = greeting else {
                panic!("{other:?}: {greeting:?}")
            };
            assert_eq!(said, Excerpt::new(other));
        }
        // A ping first, or settings that belong to a call, is not HTTP/2 either.
        for frame in [[0, 0, 8, 6, 0, 0, 0, 0, 0], [0, 0, 0, 4, 0, 0, 0, 0, 1]] {
            assert!(matches!(greeting_of(&[&frame]).await, Greeting::Other(_)));
        }
    }
}
