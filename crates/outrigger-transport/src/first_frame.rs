//! A look at the first bytes of a peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use outrigger_wire::Excerpt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

use crate::connect_error::ConnectError;
use crate::stream::Stream;
use crate::through::{Reader, Through};

/// The header of an HTTP/2 frame, in bytes.
const HEADER: usize = 9;
/// What is kept of a peer that speaks something else, in bytes.
const KEPT: usize = 128;
/// The type of the frame that a server must send first (RFC 9113, section 3.4).
const SETTINGS: u8 = 4;
/// The longest settings frame of a sane peer, in bytes: there are few settings.
const LONGEST: u32 = 1024;

type Verdict = Result<(), ConnectError>;

/// Judges the first bytes of a stream as they pass.
pub(crate) struct FirstFrame {
    watching: Option<Watching>,
}

struct Watching {
    verdict: oneshot::Sender<Verdict>,
    seen: Vec<u8>,
}

impl FirstFrame {
    /// The stream, and what its first bytes turn out to be.
    pub(crate) fn watch(stream: Stream) -> (Through<Self>, oneshot::Receiver<Verdict>) {
        let (verdict, receiver) = oneshot::channel();
        let seen = Vec::new();
        let watching = Some(Watching { verdict, seen });
        let reader = Self { watching };
        (Through { stream, reader }, receiver)
    }

    /// Takes in what was read; nothing means that no more comes.
    fn saw(&mut self, bytes: &[u8]) {
        let Some(mut watching) = self.watching.take() else {
            return;
        };
        let room = KEPT - watching.seen.len().min(KEPT);
        watching
            .seen
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match judge(&watching.seen, bytes.is_empty()) {
            // Nobody waits any more when connecting was given up.
            Some(verdict) => drop(watching.verdict.send(verdict)),
            None => self.watching = Some(watching),
        }
    }
}

/// What the first bytes are, once there are enough of them or no more come.
fn judge(seen: &[u8], ended: bool) -> Option<Verdict> {
    if let [0x14..=0x17, 0x03, 0x00..=0x04, ..] = seen {
        return Some(Err(ConnectError::PeerUsesTls));
    }
    let other = || Some(Err(ConnectError::NotHttp2(Excerpt::new(seen))));
    match seen.get(..HEADER) {
        Some([l0, l1, l2, SETTINGS, 0, 0, 0, 0, 0])
            if u32::from_be_bytes([0, *l0, *l1, *l2]) <= LONGEST =>
        {
            Some(Ok(()))
        }
        Some(_) => other(),
        None if ended && seen.is_empty() => Some(Err(ConnectError::ClosedAtOnce)),
        None if ended => other(),
        None => None,
    }
}

impl Reader<Stream> for FirstFrame {
    fn poll_read(
        &mut self,
        stream: Pin<&mut Stream>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = stream.poll_read(context, buffer);
        if self.watching.is_some() {
            match &read {
                Poll::Ready(Ok(())) => self.saw(&buffer.filled()[before..]),
                Poll::Ready(Err(_)) => self.saw(&[]),
                Poll::Pending => {}
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(bytes: &[u8], ended: bool) -> Option<&'static str> {
        judge(bytes, ended).map(|verdict| verdict.map_or_else(|error| error.code(), |()| "ok"))
    }

    #[test]
    fn the_first_bytes_tell_what_a_peer_speaks() {
        assert_eq!(code_of(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 1], false), Some("ok"));
        assert_eq!(code_of(&[0, 0, 6, 4, 0], false), None);
        assert_eq!(code_of(&[0, 0, 6, 4, 0], true), Some("not-http2"));
        assert_eq!(
            code_of(&[9, 0, 0, 4, 0, 0, 0, 0, 0], false),
            Some("not-http2")
        );
        assert_eq!(
            code_of(b"HTTP/1.1 400 Bad Request\r\n", false),
            Some("not-http2")
        );
        assert_eq!(code_of(&[0x15, 3, 1, 0, 2], false), Some("peer-uses-tls"));
        assert_eq!(code_of(b"", true), Some("closed-at-once"));
        assert_eq!(code_of(b"", false), None);
    }
}
