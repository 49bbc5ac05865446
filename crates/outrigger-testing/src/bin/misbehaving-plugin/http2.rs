//! As much of HTTP/2 and gRPC as a plugin needs that answers one host, by hand.
//!
//! Header blocks are not decoded: calls are told apart by their messages, and the
//! two streams of go-plugin by the code of their paths.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `:status: 200` and `content-type: application/grpc`, as literals without index.
pub(crate) const RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// `grpc-status: 12`.
const UNIMPLEMENTED: &[u8] = b"\x00\x0bgrpc-status\x0212";

/// `/plugin.GRPCBroker/StartStream` and `/plugin.GRPCStdio/StreamStdio` in the
/// Huffman code of header blocks. A host opens each stream once, so that its path
/// is written out.
const BROKER_PATH: &[u8] = b"b\xba-\x98\xd5/\x8bn\xbb\xd7l?R\xd8\xc6\xe4\x8e\xc4\xeeM\x85\x1d?";
const STDIO_PATH: &[u8] = b"b\xba-\x98\xd5/\x8bn\xbb\xdb\x93!\x8e\xc6\xe4\xd8Q\xd3\xb92\x18\xff";

/// A byte stream in both directions.
pub(crate) trait Io: Read + Write {}
impl<T: Read + Write> Io for T {}

/// What a call is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Health,
    Stdio,
    Shutdown,
    /// The host ended the broker's stream.
    BrokerEnd,
    Other,
}

/// The answering end of one connection.
pub(crate) struct Connection {
    stream: Box<dyn Io>,
    /// Calls whose message is not complete.
    open: BTreeMap<u32, Vec<u8>>,
    /// The streams that a host opens once.
    broker: Option<u32>,
    stdio: Option<u32>,
    /// What may be sent in all, and on one stream.
    window: i64,
    stream_window: BTreeMap<u32, i64>,
    initial_window: i64,
}

impl Connection {
    /// Takes the client's preface and answers with settings.
    pub(crate) fn start(mut stream: Box<dyn Io>) -> io::Result<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface)?;
        let mut connection = Self {
            stream,
            open: BTreeMap::new(),
            broker: None,
            stdio: None,
            window: 65_535,
            stream_window: BTreeMap::new(),
            initial_window: 65_535,
        };
        connection.frame(SETTINGS, 0, 0, b"")?;
        Ok(connection)
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.raw(&frame)
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes frames until a call is complete.
    pub(crate) fn next(&mut self) -> io::Result<(u32, Call)> {
        loop {
            if let Some(call) = self.take_frame()? {
                return Ok(call);
            }
        }
    }

    /// The stream of the broker.
    pub(crate) fn broker(&mut self) -> io::Result<u32> {
        loop {
            if let Some(id) = self.broker {
                return Ok(id);
            }
            self.take_frame()?;
        }
    }

    /// Takes one frame; gives the call that it completes, if it does.
    pub(crate) fn take_frame(&mut self) -> io::Result<Option<(u32, Call)>> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header)?;
        let [l0, l1, l2, kind, flags, i0, i1, i2, i3] = header;
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                self.take_settings(&payload);
                self.frame(SETTINGS, ACK, 0, b"")?;
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
            WINDOW_UPDATE => self.widen(id, number(&payload)),
            HEADERS => {
                self.open.insert(id, Vec::new());
                self.stream_window.insert(id, self.initial_window);
                let is_for = |path: &[u8]| payload.windows(path.len()).any(|part| part == path);
                if is_for(BROKER_PATH) {
                    self.broker = Some(id);
                } else if is_for(STDIO_PATH) {
                    self.stdio = Some(id);
                }
            }
            DATA => {
                self.frame(
                    WINDOW_UPDATE,
                    0,
                    0,
                    &(payload.len().max(1) as u32).to_be_bytes(),
                )?;
                if let Some(message) = self.open.get_mut(&id) {
                    message.extend(payload);
                }
            }
            RESET => {
                self.open.remove(&id);
            }
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            let message = self.open.remove(&id).unwrap_or_default();
            return Ok(Some((id, self.kind_of(id, &message))));
        }
        Ok(None)
    }

    fn take_settings(&mut self, payload: &[u8]) {
        const INITIAL_WINDOW_SIZE: u32 = 4;
        for setting in payload.chunks_exact(6) {
            if number(&setting[..2]) == INITIAL_WINDOW_SIZE {
                self.initial_window = number(&setting[2..]).into();
            }
        }
    }

    fn widen(&mut self, id: u32, by: u32) {
        match id {
            0 => self.window += i64::from(by),
            id => *self.stream_window.entry(id).or_default() += i64::from(by),
        }
    }

    fn kind_of(&self, id: u32, message: &[u8]) -> Call {
        match message {
            _ if self.broker == Some(id) => Call::BrokerEnd,
            _ if self.stdio == Some(id) => Call::Stdio,
            [0, 0, 0, 0, 0] => Call::Shutdown,
            other if other.ends_with(b"plugin") => Call::Health,
            _ => Call::Other,
        }
    }

    /// Begins a reply.
    pub(crate) fn begin(&mut self, id: u32) -> io::Result<()> {
        self.frame(HEADERS, END_HEADERS, id, RESPONSE)
    }

    /// Ends a reply well.
    pub(crate) fn end(&mut self, id: u32) -> io::Result<()> {
        self.frame(HEADERS, END_HEADERS | END_STREAM, id, TRAILERS)
    }

    /// Says that there is no such method.
    pub(crate) fn unimplemented(&mut self, id: u32) -> io::Result<()> {
        self.open.remove(&id);
        let block = [RESPONSE, UNIMPLEMENTED].concat();
        self.frame(HEADERS, END_HEADERS | END_STREAM, id, &block)
    }

    /// Replies with one message.
    pub(crate) fn reply(&mut self, id: u32, message: &[u8]) -> io::Result<()> {
        self.begin(id)?;
        self.data(id, &framed(message))?;
        self.end(id)
    }

    /// Sends bytes of a reply. The host's windows are counted, not kept.
    pub(crate) fn data(&mut self, id: u32, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(16 << 10) {
            self.frame(DATA, 0, id, chunk)?;
            self.window -= chunk.len() as i64;
            *self.stream_window.entry(id).or_default() -= chunk.len() as i64;
        }
        Ok(())
    }

    /// Whether the host takes `length` more bytes on a stream now.
    pub(crate) fn has_room(&self, id: u32, length: usize) -> bool {
        let length = length as i64;
        self.window >= length
            && self
                .stream_window
                .get(&id)
                .is_some_and(|room| *room >= length)
    }
}

/// A gRPC message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
