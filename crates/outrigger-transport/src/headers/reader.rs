//! A reader in front of HTTP/2 that knows where header blocks begin and end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::Headers;
use super::fields::{FIELD, Fields};
use crate::http2::MAX_FRAME;
use crate::through::{Reader, Through};

/// The header of an HTTP/2 frame, in bytes.
const HEADER: usize = 9;
/// What a client sends before its first frame, in bytes.
const PREFACE: usize = 24;
/// A header block up to this length is passed on without a look, in bytes: were
/// each of its bytes a field, it would not be counted yet.
const SMALL: usize = super::SHORT / FIELD;
/// The longest settings frame that is looked at, in bytes: there are few settings.
const LONGEST_SETTINGS: usize = 1024;
/// Frames of one header block. The smallest that peers send hold 16 KiB, of which
/// the longest block needs a quarter of this many.
const MOST_FRAMES: usize = 4096;
/// How long a peer waits whose header lists found no room while no call ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is read at a time where it cannot be judged in place, in bytes.
const HELD: usize = 16 << 10;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The setting with the largest header list that the peer accepts.
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Passes a peer's frames on to HTTP/2. Frames are left as they are, except that
/// the frames of a long header block are joined: HTTP/2 takes only as many as a
/// peer needs that fills them, and peers fill no more than 16 KiB.
///
/// It counts what long blocks take in memory. When there is no room it reads
/// nothing more until calls end, and fails when none does.
pub(crate) struct HeaderReader {
    headers: Arc<Headers>,
    /// How much of the current frame is still to be passed on.
    passing: usize,
    /// The long header block that is being read.
    block: Option<Block>,
    /// What was read and not judged: less than a frame.
    held: BytesMut,
    /// What was judged and is to be passed on first.
    judged: BytesMut,
    /// How long it waits for room still, since that many releases.
    patience: Option<(Pin<Box<Sleep>>, u64)>,
}

/// A long header block.
#[derive(Debug, Default)]
struct Block {
    stream: u32,
    fields: Fields,
    frames: usize,
    /// The fragments that are to be joined.
    joined: BytesMut,
    /// The whole block was read.
    ended: bool,
}

/// The header of a frame.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEADER>()?;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a header block begins here that is looked at.
    fn begins_long_block(self) -> bool {
        self.kind == HEADERS
            && (self.length > SMALL || !self.has(END_HEADERS))
            && self.length <= MAX_FRAME as usize
    }

    fn is_settings(self) -> bool {
        self.kind == SETTINGS && self.length <= LONGEST_SETTINGS
    }
}

impl HeaderReader {
    /// In front of the HTTP/2 of a server.
    pub(crate) fn of_server<S>(stream: S, headers: Arc<Headers>) -> Through<Self, S> {
        let reader = Self::new(headers, PREFACE);
        Through { stream, reader }
    }

    /// In front of the HTTP/2 of a client.
    pub(crate) fn of_client<S>(stream: S, headers: Arc<Headers>) -> Through<Self, S> {
        let reader = Self::new(headers, 0);
        Through { stream, reader }
    }

    fn new(headers: Arc<Headers>, passing: usize) -> Self {
        Self {
            headers,
            passing,
            block: None,
            held: BytesMut::new(),
            judged: BytesMut::new(),
            patience: None,
        }
    }

    /// How many of `bytes` are passed on as they are. What follows is less than
    /// is needed to judge it, or begins a long header block.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let here = self.passing.min(bytes.len() - at);
            at += here;
            self.passing -= here;
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(head) = Head::read(rest) else {
                return at;
            };
            if head.begins_long_block() {
                self.block = Some(Block::default());
                return at;
            }
            if head.is_settings() {
                let Some(payload) = rest.get(HEADER..HEADER + head.length) else {
                    return at;
                };
                self.learn(payload);
            }
            self.passing = HEADER + head.length;
        }
    }

    /// Reads the peer's settings.
    fn learn(&self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if let [i0, i1, v0, v1, v2, v3] = *setting
                && u16::from_be_bytes([i0, i1]) == MAX_HEADER_LIST_SIZE
            {
                let limit = u32::from_be_bytes([v0, v1, v2, v3]);
                self.headers.peer_limit.store(limit, Ordering::Relaxed);
            }
        }
    }
}

impl Block {
    /// Takes whole frames of the block out of `held` and puts what is to be passed
    /// on into `judged`.
    fn take(&mut self, held: &mut BytesMut, judged: &mut BytesMut) -> io::Result<()> {
        while !self.ended {
            let Some(head) = Head::read(held) else {
                return Ok(());
            };
            let first = self.frames == 0;
            let belongs = first || head.kind == CONTINUATION && head.stream == self.stream;
            if !belongs || head.length > MAX_FRAME as usize {
                // HTTP/2 says what is wrong with it.
                self.pass_joined(judged, 0);
                self.ended = true;
                return Ok(());
            }
            if held.len() < HEADER + head.length {
                return Ok(());
            }
            self.frames += 1;
            if self.frames > MOST_FRAMES {
                let error =
                    format!("the peer sent a header block of more than {MOST_FRAMES} frames");
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            let frame = held.split_to(HEADER + head.length);
            let payload = frame.get(HEADER..).unwrap_or_default();
            self.fields.see(fragment(head, payload));
            self.ended = head.has(END_HEADERS);
            if first {
                self.stream = head.stream;
                judged.extend_from_slice(&frame);
                continue;
            }
            if self.joined.len() + head.length > MAX_FRAME as usize {
                self.pass_joined(judged, 0);
            }
            self.joined.extend_from_slice(payload);
            if self.ended {
                self.pass_joined(judged, END_HEADERS);
            }
        }
        Ok(())
    }

    /// Passes the joined fragments on as one frame.
    fn pass_joined(&mut self, judged: &mut BytesMut, flags: u8) {
        if self.joined.is_empty() && flags == 0 {
            return;
        }
        let [_, l0, l1, l2] = u32::try_from(self.joined.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        judged.extend_from_slice(&[l0, l1, l2, CONTINUATION, flags]);
        judged.extend_from_slice(&self.stream.to_be_bytes());
        judged.extend_from_slice(&self.joined);
        self.joined.clear();
    }
}

/// The part of a frame's payload that belongs to the header block.
fn fragment(head: Head, payload: &[u8]) -> &[u8] {
    if head.kind != HEADERS {
        return payload;
    }
    let mut start = 0;
    let mut end = payload.len();
    if head.has(PADDED) {
        start += 1;
        // More padding than payload is nonsense, which HTTP/2 refuses.
        end = end.saturating_sub(payload.first().copied().unwrap_or_default() as usize);
    }
    if head.has(PRIORITY) {
        start += 5;
    }
    payload.get(start..end).unwrap_or_default()
}

impl HeaderReader {
    /// Reads on in the long block at hand, until something is to be passed on.
    fn poll_block(
        &mut self,
        mut from: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(block) = &mut self.block {
            if !block.ended {
                if !self.judged.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                block.take(&mut self.held, &mut self.judged)?;
            }
            if block.ended {
                let (stream, size) = (block.stream, block.fields.size());
                ready!(self.poll_room(context, stream, size))?;
                self.block = None;
                self.judge_held();
            } else if self.judged.is_empty() && ready!(self.poll_hold(from.as_mut(), context))? == 0
            {
                // The connection ended inside the block; HTTP/2 sees that itself.
                self.block = None;
                self.judged = std::mem::take(&mut self.held);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more behind what is held.
    fn poll_hold(
        &mut self,
        from: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.held.reserve(HELD);
        poll_read_buf(from, context, &mut self.held)
    }

    fn judge_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        let pass = self.judge(&held);
        self.judged.unsplit(held.split_to(pass));
        self.held = held;
    }

    /// Waits until the block may be kept.
    fn poll_room(
        &mut self,
        context: &mut Context<'_>,
        stream: u32,
        size: usize,
    ) -> Poll<io::Result<()>> {
        let Err(releases) = self.headers.count(stream, size, context.waker()) else {
            self.patience = None;
            return Poll::Ready(Ok(()));
        };
        self.patience = self.patience.take().filter(|(_, seen)| *seen == releases);
        let (patience, _) = self
            .patience
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(PATIENCE)), releases));
        ready!(patience.as_mut().poll(context));
        let error = format!(
            "the peer sent more headers than calls have room for, and none ended within {} s",
            PATIENCE.as_secs()
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, error)))
    }

    /// Reads into `buffer` and leaves there what may be passed on as it is.
    fn poll_pass(
        &mut self,
        from: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Passed>> {
        let start = buffer.filled().len();
        buffer.put_slice(&self.held);
        let read = from.poll_read(context, buffer);
        if !matches!(read, Poll::Ready(Ok(()))) {
            buffer.set_filled(start);
            return read.map_ok(|()| Passed::Nothing);
        }
        let fresh = buffer.filled().get(start..).unwrap_or_default();
        let ended = fresh.len() == self.held.len();
        self.held.clear();
        if ended {
            // What was held is no whole frame; HTTP/2 sees that itself.
            return Poll::Ready(Ok(Passed::Something));
        }
        let pass = self.judge(fresh);
        self.held
            .extend_from_slice(fresh.get(pass..).unwrap_or_default());
        buffer.set_filled(start + pass);
        Poll::Ready(Ok(if pass > 0 {
            Passed::Something
        } else {
            Passed::Nothing
        }))
    }
}

/// Whether a read gave something that may be passed on, or the end.
enum Passed {
    Something,
    Nothing,
}

impl<S: AsyncRead> Reader<S> for HeaderReader {
    fn poll_read(
        &mut self,
        mut stream: Pin<&mut S>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_block(stream.as_mut(), context))?;
            if !self.judged.is_empty() {
                let here = self.judged.len().min(buffer.remaining());
                buffer.put_slice(&self.judged.split_to(here));
                return Poll::Ready(Ok(()));
            }
            if buffer.remaining() <= self.held.len() {
                // There is too little room to judge where it is read to.
                if ready!(self.poll_hold(stream.as_mut(), context))? > 0 {
                    self.judge_held();
                } else if self.held.is_empty() {
                    return Poll::Ready(Ok(()));
                } else {
                    self.judged = std::mem::take(&mut self.held);
                }
                continue;
            }
            if let Passed::Something = ready!(self.poll_pass(stream.as_mut(), context, buffer))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::stream::Stream;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, l0, l1, l2] = u32::try_from(payload.len())
            .expect("a length")
            .to_be_bytes();
        let mut frame = vec![l0, l1, l2, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A literal field of `length` bytes.
    fn literal(length: usize) -> Vec<u8> {
        let mut block = b"\x00\x01a\x7f".to_vec();
        let mut rest = length - 127;
        while rest >= 0x80 {
            block.push((rest % 0x80) as u8 | 0x80);
            rest /= 0x80;
        }
        block.push(rest as u8);
        block.extend(vec![b'v'; length]);
        block
    }

    /// A header block in frames of at most `size` bytes.
    fn block(stream: u32, block: &[u8], size: usize) -> Vec<u8> {
        let last = block.len().div_ceil(size) - 1;
        let fragments = block.chunks(size).enumerate().map(|(number, fragment)| {
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            let flags = if number == last { END_HEADERS } else { 0 };
            frame(kind, flags, stream, fragment)
        });
        fragments.collect::<Vec<_>>().concat()
    }

    /// What comes out when `bytes` are written in pieces and read into buffers of a size.
    async fn through(
        reader: fn(Stream, Arc<Headers>) -> Through<HeaderReader>,
        headers: &Arc<Headers>,
        bytes: &[u8],
        piece: usize,
        buffer: usize,
    ) -> io::Result<Vec<u8>> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut reader = reader(Box::new(near), headers.clone());
        let write = async {
            for piece in bytes.chunks(piece) {
                if far.write_all(piece).await.is_err() {
                    break;
                }
            }
            drop(far);
        };
        let read = async {
            let mut out = Vec::new();
            let mut buffer = vec![0; buffer];
            loop {
                match reader.read(&mut buffer).await? {
                    0 => return Ok(out),
                    read => out.extend(&buffer[..read]),
                }
            }
        };
        tokio::join!(write, read).1
    }

    /// Header blocks of a stream of frames, and everything else.
    fn split(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>, usize) {
        let (mut blocks, mut others, mut frames) = (Vec::new(), Vec::new(), 0);
        while let Some(head) = Head::read(bytes) {
            let (frame, rest) = bytes.split_at(HEADER + head.length);
            let fragment = fragment(head, &frame[HEADER..]);
            match head.kind {
                HEADERS => blocks.push(fragment.to_vec()),
                CONTINUATION => blocks.last_mut().expect("a block").extend(fragment),
                _ => others.extend(frame),
            }
            frames += usize::from(head.kind == CONTINUATION);
            bytes = rest;
        }
        (blocks, others, frames)
    }

    #[tokio::test]
    async fn frames_pass_as_they_are_and_those_of_a_long_block_are_joined() {
        let mut padded = vec![3, 0, 0, 0, 0, 9];
        padded.extend(literal(600));
        padded.extend([0; 3]);
        let bytes = [
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 6, 0, 0, 64, 0]),
            block(1, &literal(200), 1000),
            frame(0, 0, 1, &[1; 3000]),
            block(3, &literal(100_000), 700),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 5, &padded),
            block(7, &literal(600_000), 16 << 10),
            block(9, &literal(1000), 10),
            frame(6, 0, 0, &[7; 8]),
        ]
        .concat();
        let expected = split(&bytes);
        for (piece, buffer) in [
            (1, 8192),
            (7, 1),
            (1000, 11),
            (100_000, 100),
            (1 << 20, 1 << 20),
        ] {
            let headers = Headers::of_client();
            let reader = HeaderReader::of_client;
            let out = through(reader, &headers, &bytes, piece, buffer);
            let out = split(&out.await.expect("all of it"));
            assert!(out.0 == expected.0, "blocks in pieces of {piece}");
            assert!(out.1 == expected.1, "others in pieces of {piece}");
            assert_eq!(out.2, 1 + 3 + 1, "continuations");
            assert_eq!(headers.peer_limit(), 16 << 10);
        }
    }

    #[tokio::test]
    async fn a_server_passes_the_preface_and_whatever_is_no_http2() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let http1 = b"GET / HTTP/1.1\r\nHost: somewhere else\r\nAccept: */*\r\n\r\n".to_vec();
        let endless = [preface.clone(), frame(HEADERS, 0, 1, &[0x82; 100])].concat();
        let other = [endless.clone(), frame(0, 0, 1, &[1; 10])].concat();
        let padding = [preface.clone(), frame(HEADERS, PADDED, 1, &[255])].concat();
        for bytes in [preface, http1, endless, other, padding, vec![0xff; 5000]] {
            for piece in [1, 10_000] {
                let headers = Headers::of_server();
                let reader = HeaderReader::of_server;
                let out = through(reader, &headers, &bytes, piece, 4096).await;
                assert_eq!(out.expect("all of it"), bytes);
            }
        }
    }

    #[tokio::test]
    async fn a_block_of_endless_frames_is_an_error() {
        let mut bytes = frame(HEADERS, 0, 1, &[0x82]);
        bytes.extend(frame(CONTINUATION, 0, 1, &[]).repeat(MOST_FRAMES));
        let headers = Headers::of_client();
        let out = through(HeaderReader::of_client, &headers, &bytes, 4096, 4096).await;
        let error = out.expect_err("too many");
        assert!(
            error.to_string().contains("more than 4096 frames"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_without_room_waits_until_a_call_ends_and_not_for_ever() {
        let headers = Headers::of_client();
        let first = headers.call(1);
        let second = headers.call(3);
        let large = block(1, &literal(KEPT_HALF), 16 << 10);
        let other = block(3, &literal(KEPT_HALF + 1), 16 << 10);
        let bytes = [large, other].concat();
        let reader = HeaderReader::of_client;
        let out = through(reader, &headers, &bytes, 1 << 16, 1 << 16).await;
        let error = out.expect_err("no room");
        assert!(
            error.to_string().contains("none ended within 10 s"),
            "{error}"
        );
        drop(first);
        let first = headers.call(1);
        let ends = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        };
        let read = through(reader, &headers, &bytes, 1 << 16, 1 << 16);
        let out = tokio::join!(ends, read).1.expect("all of it");
        assert!(split(&out).0 == split(&bytes).0);
        assert!(second.is_too_much());
        drop(second);
        assert_eq!(headers.account().total, 0);
    }

    const KEPT_HALF: usize = 32 << 20;
}
