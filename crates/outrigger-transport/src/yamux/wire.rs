//! The connection under a session, and the bytes that go to it next.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::frame::{HEADER_LEN, Header};

/// Most pieces given to one write. Linux takes up to 1024.
const MAX_SLICES: usize = 64;

/// Most pieces of an application's vectored write put into one frame.
pub(super) const MAX_BODY_SLICES: usize = 16;

/// A connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

enum Segment {
    Header {
        bytes: [u8; HEADER_LEN],
        sent: usize,
    },
    Body(Bytes),
}

impl Segment {
    fn rest(&self) -> &[u8] {
        match self {
            Segment::Header { bytes, sent } => bytes.get(*sent..).unwrap_or_default(),
            Segment::Body(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Segment::Header { sent, .. } => *sent += count,
            Segment::Body(bytes) => bytes.advance(count),
        }
    }
}

/// The connection and the frames that are committed to it.
pub(super) struct Wire {
    io: Box<dyn Io>,
    out: VecDeque<Segment>,
    out_len: usize,
    written: u64,
    /// The connection did not take what was offered last, and holds a waker.
    pub(super) blocked: bool,
    unflushed: bool,
}

impl Wire {
    pub(super) fn new(io: Box<dyn Io>) -> Wire {
        Wire {
            io,
            out: VecDeque::new(),
            out_len: 0,
            written: 0,
            blocked: false,
            unflushed: false,
        }
    }

    /// Whether every committed frame has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.out_len == 0
    }

    /// Bytes of committed frames that are not written yet.
    pub(super) fn len(&self) -> usize {
        self.out_len
    }

    /// Bytes ever written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes ever written once everything committed is written.
    pub(super) fn committed(&self) -> u64 {
        self.written + self.out_len as u64
    }

    pub(super) fn push_header(&mut self, header: Header) {
        self.out_len += HEADER_LEN;
        self.out.push_back(Segment::Header {
            bytes: header.encode(),
            sent: 0,
        });
    }

    pub(super) fn push_body(&mut self, body: Bytes) {
        if !body.is_empty() {
            self.out_len += body.len();
            self.out.push_back(Segment::Body(body));
        }
    }

    /// Forgets every committed frame, when none can be written any more.
    pub(super) fn discard(&mut self) {
        self.out.clear();
        self.out_len = 0;
        self.unflushed = false;
    }

    /// Writes committed frames until none is left or the connection is full.
    /// Returns whether all were written.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.blocked = false;
        while self.out_len > 0 {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slot, segment) in slices.iter_mut().zip(&self.out) {
                *slot = IoSlice::new(segment.rest());
                count += 1;
            }
            let offered = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write_vectored(cx, offered) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => self.advance(taken),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut taken: usize) {
        self.written += taken as u64;
        self.out_len -= taken;
        self.unflushed = true;
        while let Some(front) = self.out.front_mut() {
            let length = front.rest().len();
            if taken < length {
                front.advance(taken);
                return;
            }
            taken -= length;
            self.out.pop_front();
        }
    }

    /// Writes one frame straight from the application's buffers; what the
    /// connection does not take at once is copied and stays committed.
    ///
    /// `length` bytes of `body` are used, at most [`MAX_BODY_SLICES`] pieces.
    /// Nothing else may be committed.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        header: Header,
        body: &[IoSlice<'_>],
        length: usize,
    ) -> Poll<io::Result<()>> {
        debug_assert!(self.is_empty());
        let header = header.encode();
        let mut slices = [IoSlice::new(&[]); 1 + MAX_BODY_SLICES];
        let mut rest = length;
        let mut count = 1;
        slices[0] = IoSlice::new(&header);
        for (slot, piece) in slices.iter_mut().skip(1).zip(body) {
            let take = piece.len().min(rest);
            *slot = IoSlice::new(piece.get(..take).unwrap_or_default());
            rest -= take;
            count += 1;
        }
        let mut unsent = slices.get_mut(..count).unwrap_or_default();
        if self.io.is_write_vectored() {
            while !unsent.is_empty() {
                match Pin::new(&mut self.io).poll_write_vectored(cx, unsent) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(taken)) => {
                        self.written += taken as u64;
                        self.unflushed = true;
                        IoSlice::advance_slices(&mut unsent, taken);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let mut copy = BytesMut::with_capacity(unsent.iter().map(|piece| piece.len()).sum());
        for piece in unsent.iter() {
            copy.extend_from_slice(piece);
        }
        self.push_body(copy.freeze());
        // A connection without vectored writes has not been asked yet.
        self.poll_drain(cx)
    }

    /// Makes the connection pass on what it may hold back.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            self.unflushed = false;
        }
        result
    }

    /// Reads once. Returns the number of bytes, 0 at the end of the connection.
    pub(super) fn poll_read<B: BufMut + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<usize>> {
        // The future holds nothing between polls, so a fresh one each time is
        // the same as `poll_read` without its uninitialised memory.
        pin!(self.io.read_buf(buffer)).poll(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
