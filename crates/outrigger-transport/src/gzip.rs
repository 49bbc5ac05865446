//! Messages that are compressed with gzip, both ways.
//!
//! Every service and every client takes them, without being told. What arrives
//! compressed is unpacked before a service or client sees it, so its own limit
//! on messages holds: a compressed message says its length at its end, and that
//! is passed on first. What is sent is compressed where a call asks for it.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Reader};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// What the compressed messages of one connection may take in memory together
/// while they arrive, in bytes.
const ARRIVING: usize = 64 << 20;
/// How much is unpacked at a time, in bytes.
const PIECE: usize = 64 << 10;
/// A message's flag and length, in bytes.
const PREFIX: usize = 5;
/// The least that is compressed, in bytes: gzip's own header and end.
const SMALLEST: usize = 18;
/// Nothing that comes out of gzip is longer than this many times what went in.
const BEST_RATIO: usize = 1032;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const GZIP_OR_NOT: HeaderValue = HeaderValue::from_static("gzip,identity");

/// In the extensions of a request or a reply: its messages are sent compressed
/// with gzip.
///
/// A host or plugin that does not know gzip answers a compressed request with
/// `UNIMPLEMENTED`; a Go program knows it if it imports `encoding/gzip`. A reply
/// is compressed only if the request says that its sender takes it.
///
/// # Examples
/// ```
/// use outrigger_transport::SendGzip;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(SendGzip);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SendGzip;

/// Room for the compressed messages of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ARRIVING)))
    }

    fn take(&self, length: usize) -> Result<OwnedSemaphorePermit, Status> {
        let permit = u32::try_from(length)
            .ok()
            .and_then(|length| self.0.clone().try_acquire_many_owned(length).ok());
        permit.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "a compressed message of {length} bytes finds no room; those of one connection may take {ARRIVING} bytes while they arrive"
            ))
        })
    }
}

/// Says what this side takes, and whether it sends `messages` compressed.
pub(crate) fn prepare_request(request: &mut http::Request<tonic::body::Body>) {
    let compress = request.extensions().get::<SendGzip>().is_some();
    let headers = request.headers_mut();
    // A client that has its own compression has said what it takes.
    headers.entry(ACCEPTED).or_insert(GZIP_OR_NOT);
    // It may have compressed the messages already.
    if compress && !headers.contains_key(ENCODING) {
        headers.insert(ENCODING, GZIP);
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = tonic::body::Body::new(Compressing::new(body));
    }
}

/// Says what this side takes, and compresses the reply if it asks for that and
/// the peer takes it.
pub(crate) fn prepare_reply(reply: &mut http::Response<tonic::body::Body>, peer_takes_it: bool) {
    let compress = peer_takes_it && reply.extensions().get::<SendGzip>().is_some();
    let headers = reply.headers_mut();
    match headers.get(ACCEPTED) {
        Some(others) if !names_gzip(others) => {
            let all = [GZIP.as_bytes(), b",", others.as_bytes()].concat();
            headers.insert(
                ACCEPTED,
                HeaderValue::from_bytes(&all).unwrap_or(GZIP_OR_NOT),
            );
        }
        Some(_) => {}
        None => drop(headers.insert(ACCEPTED, GZIP_OR_NOT)),
    }
    // A service that has its own compression has done it.
    if compress && !headers.contains_key(ENCODING) {
        headers.insert(ENCODING, GZIP);
        let body = std::mem::take(reply.body_mut());
        *reply.body_mut() = tonic::body::Body::new(Compressing::new(body));
    }
}

/// Whether the sender of these headers takes compressed messages.
pub(crate) fn is_taken(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPTED).iter().any(names_gzip)
}

fn names_gzip(list: &HeaderValue) -> bool {
    let mut names = list.as_bytes().split(|byte| *byte == b',');
    names.any(|name| name.trim_ascii() == GZIP.as_bytes())
}

/// Takes away that messages arrive compressed, if they do: they are unpacked here.
pub(crate) fn unpacking(headers: &mut HeaderMap, room: &Room) -> Option<Unpacking> {
    if headers.get(ENCODING) != Some(&GZIP) {
        return None;
    }
    headers.remove(ENCODING);
    Some(Unpacking::new(room.clone()))
}

/// Unpacks the messages of one stream. Those that are not compressed pass as they are.
#[derive(Debug)]
pub(crate) struct Unpacking {
    room: Room,
    arrived: BytesMut,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// A message begins.
    Begin,
    /// This much of a message passes as it is.
    Pass(usize),
    /// A compressed message of this length arrives.
    Arrive(usize, OwnedSemaphorePermit),
    /// It has arrived and is unpacked.
    Unpack {
        decoder: Box<GzDecoder<Reader<Bytes>>>,
        /// This much is still to come out of it.
        left: usize,
        _room: OwnedSemaphorePermit,
    },
}

impl Unpacking {
    fn new(room: Room) -> Self {
        Self {
            room,
            arrived: BytesMut::new(),
            step: Step::Begin,
        }
    }

    pub(crate) fn arrived(&mut self, data: &[u8]) {
        self.arrived.extend_from_slice(data);
    }

    /// Whether everything that arrived was given out.
    pub(crate) fn is_done(&self) -> bool {
        self.arrived.is_empty() && matches!(self.step, Step::Begin)
    }

    /// What is left when nothing more comes.
    pub(crate) fn end(&mut self) -> Result<Option<Bytes>, Status> {
        if let Step::Arrive(length, _) = self.step {
            return Err(broken(&format!(
                "ended before all of its {length} bytes arrived"
            )));
        }
        // The beginning of a message is no message; its reader says so.
        Ok((!self.arrived.is_empty()).then(|| self.arrived.split().freeze()))
    }

    /// What can be passed on of what arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match &mut self.step {
                Step::Begin => {
                    let Some([flag, l0, l1, l2, l3]) = self.arrived.first_chunk::<PREFIX>() else {
                        return Ok(None);
                    };
                    let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
                    self.step = if *flag == 1 {
                        let room = self.room.take(length)?;
                        self.arrived.advance(PREFIX);
                        Step::Arrive(length, room)
                    } else {
                        Step::Pass(PREFIX + length)
                    };
                }
                Step::Pass(0) => self.step = Step::Begin,
                Step::Pass(left) => {
                    if self.arrived.is_empty() {
                        return Ok(None);
                    }
                    let here = self.arrived.len().min(*left);
                    *left -= here;
                    return Ok(Some(self.arrived.split_to(here).freeze()));
                }
                Step::Arrive(length, _) if self.arrived.len() < *length => return Ok(None),
                Step::Arrive(..) => return self.begin_to_unpack().map(Some),
                Step::Unpack { decoder, left, .. } => {
                    if let Some(piece) = unpack(decoder, left)? {
                        return Ok(Some(piece));
                    }
                    self.step = Step::Begin;
                }
            }
        }
    }

    /// The prefix of the message that comes out of the compressed one.
    fn begin_to_unpack(&mut self) -> Result<Bytes, Status> {
        let Step::Arrive(length, _room) = std::mem::replace(&mut self.step, Step::Begin) else {
            return Ok(Bytes::new());
        };
        let message = self.arrived.split_to(length).freeze();
        let said = match message.last_chunk::<4>() {
            Some(length) if message.len() >= SMALLEST => u32::from_le_bytes(*length),
            _ => return Err(broken("is too short to be one")),
        };
        if said as usize / BEST_RATIO > message.len() {
            return Err(broken("says an impossible length"));
        }
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(said);
        let decoder = Box::new(GzDecoder::new(message.reader()));
        let left = said as usize;
        self.step = Step::Unpack {
            decoder,
            left,
            _room,
        };
        Ok(prefix.freeze())
    }
}

/// The next piece of a message; none after the last.
fn unpack(
    decoder: &mut GzDecoder<Reader<Bytes>>,
    left: &mut usize,
) -> Result<Option<Bytes>, Status> {
    let mut read = |buffer: &mut [u8]| {
        decoder
            .read(buffer)
            .map_err(|error| broken(&error.to_string()))
    };
    let mut piece = vec![0; PIECE.min(*left)];
    let mut filled = 0;
    while filled < piece.len() {
        match read(piece.get_mut(filled..).unwrap_or_default())? {
            0 => return Err(broken("is shorter than it says")),
            more => filled += more,
        }
    }
    *left -= filled;
    // The end is checked before the last piece is given out.
    if *left == 0 && read(&mut [0])? > 0 {
        return Err(broken("is longer than it says"));
    }
    Ok((filled > 0).then(|| piece.into()))
}

fn broken(what: &str) -> Status {
    Status::internal(format!("a message that is compressed with gzip {what}"))
}

/// Compresses the messages of a body that are not compressed yet.
struct Compressing {
    body: tonic::body::Body,
    waiting: BytesMut,
}

impl Compressing {
    fn new(body: tonic::body::Body) -> Self {
        let waiting = BytesMut::new();
        Self { body, waiting }
    }

    /// The whole messages that wait, compressed.
    fn compressed(&mut self) -> Result<BytesMut, Status> {
        let mut done = BytesMut::new();
        while let Some([flag, l0, l1, l2, l3]) = self.waiting.first_chunk::<PREFIX>() {
            let length = PREFIX + u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
            let compressed = *flag == 1;
            if self.waiting.len() < length {
                break;
            }
            let message = self.waiting.split_to(length);
            let plain = message.get(PREFIX..).unwrap_or_default();
            let mut packed = Vec::new();
            if !compressed && plain.len() > SMALLEST {
                GzEncoder::new(plain, Compression::default())
                    .read_to_end(&mut packed)
                    .map_err(|error| Status::internal(format!("could not compress: {error}")))?;
            }
            // What compression does not make smaller is sent as it is.
            match u32::try_from(packed.len()) {
                Ok(length @ 1..) if packed.len() < plain.len() => {
                    done.put_u8(1);
                    done.put_u32(length);
                    done.put_slice(&packed);
                }
                _ => done.unsplit(message),
            }
        }
        Ok(done)
    }
}

impl Body for Compressing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            self.waiting.extend_from_slice(&data);
            let compressed = self.compressed()?;
            if !compressed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(compressed.freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = GzEncoder::new(plain, Compression::default());
        encoder.read_to_end(&mut packed).expect("compressed");
        packed
    }

    fn message(flag: u8, content: &[u8]) -> Vec<u8> {
        let mut message = vec![flag];
        message.extend(
            u32::try_from(content.len())
                .expect("a length")
                .to_be_bytes(),
        );
        message.extend(content);
        message
    }

    /// What comes out of `bytes` that arrive in pieces of a size.
    fn unpacked(bytes: &[u8], piece: usize) -> Result<Vec<u8>, Status> {
        let mut unpacking = Unpacking::new(Room::new());
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            unpacking.arrived(piece);
            while let Some(data) = unpacking.next()? {
                assert!(data.len() <= PIECE.max(piece.len() + PREFIX));
                out.extend(data);
            }
        }
        out.extend(unpacking.end()?.unwrap_or_default());
        assert!(unpacking.is_done() || bytes.is_empty());
        Ok(out)
    }

    #[test]
    fn compressed_messages_and_others_come_out_plain_however_they_arrive() {
        let long = b"all work and no play ".repeat(20_000);
        let contents = [&b""[..], b"x", &long, b"", &[7; 100]];
        let plain: Vec<u8> = contents.map(|content| message(0, content)).concat();
        let mut packed = Vec::new();
        for (number, content) in contents.iter().enumerate() {
            match number % 4 {
                3 => packed.extend(message(0, content)),
                _ => packed.extend(message(1, &gzip(content))),
            }
        }
        for piece in [1, 3, 1000, 1 << 20] {
            assert!(
                unpacked(&packed, piece).expect("all of it") == plain,
                "{piece}"
            );
        }
    }

    #[test]
    fn a_message_that_lies_about_its_length_or_is_broken_is_an_error() {
        let whole = gzip(&[7; 100_000]);
        let says = |length: u32| {
            let mut message = whole.clone();
            let end = message.len() - 4;
            message.truncate(end);
            message.extend(length.to_le_bytes());
            message
        };
        let mut changed = gzip(b"some text that is changed afterwards");
        changed[15] ^= 0x55;
        let cases = [
            (says(99_999), "longer than it says"),
            (says(0), "longer than it says"),
            (says(100_001), ""),
            (says(u32::MAX), "impossible length"),
            (changed, ""),
            (b"no gzip, but long enough".to_vec(), ""),
            (b"short".to_vec(), "too short"),
            (gzip(&[])[..19].to_vec(), ""),
        ];
        for (content, part) in cases {
            let error = unpacked(&message(1, &content), 1000).expect_err("an error");
            assert_eq!(error.code(), tonic::Code::Internal, "{error}");
            assert!(error.message().contains(part), "{error}");
        }
        let cut = message(1, &whole);
        let error = unpacked(&cut[..cut.len() - 1], 1000).expect_err("an error");
        assert!(error.message().contains("before all of its"), "{error}");
    }

    #[test]
    fn compressed_messages_that_arrive_take_only_so_much_room() {
        let room = Room::new();
        let mut begun = Vec::new();
        let prefix = [&[1], &(24_u32 << 20).to_be_bytes()[..]].concat();
        for _ in 0..2 {
            let mut unpacking = Unpacking::new(room.clone());
            unpacking.arrived(&prefix);
            assert!(unpacking.next().expect("room").is_none());
            begun.push(unpacking);
        }
        let mut third = Unpacking::new(room.clone());
        third.arrived(&prefix);
        let error = third.next().expect_err("no room");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error}");
        begun.clear();
        let mut fourth = Unpacking::new(room);
        fourth.arrived(&prefix);
        assert!(fourth.next().expect("room").is_none());
    }
}
