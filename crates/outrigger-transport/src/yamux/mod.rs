//! Many streams over one connection, as hashicorp/yamux v0.1.2 speaks it.
//!
//! A [`Session`] wraps any byte stream; either side opens [`Stream`]s, which are
//! ordinary [`AsyncRead`](tokio::io::AsyncRead) and
//! [`AsyncWrite`](tokio::io::AsyncWrite) objects.
//!
//! - A stream is announced to the peer when it is opened and acknowledged when
//!   the application accepts it, never later: Go peers wait for the one, and
//!   close the session without the other.
//! - Every stream has its own window. A slow reader stops its own peer and
//!   nobody else; a peer that ignores the window loses the session.
//! - A session ends by closing the connection. That is the normal end, there is
//!   no farewell frame.
//!
//! This module deliberately does not know what the streams carry.

mod driver;
mod frame;
mod session;
mod state;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

pub use session::Session;
pub use stream::Stream;

/// The window every stream begins with, in bytes and per direction. It is part
/// of the protocol: both sides assume it without saying so.
const INITIAL_WINDOW: u32 = 256 * 1024;

/// Which side of the connection a session is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Dialled the connection; its streams have odd ids.
    Client,
    /// Accepted the connection; its streams have even ids.
    Server,
}

/// The settings of a [`Session`]. The default is what Go peers use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two pings, `None` for no pings. Default 30 s.
    pub keep_alive: Option<Duration>,
    /// Time the peer has to answer a ping. Default 10 s.
    pub keep_alive_timeout: Duration,
    /// Time the connection may take no bytes at all before writers fail.
    /// Default 10 s.
    pub write_timeout: Duration,
    /// Streams the peer may open before the application accepts one, and
    /// streams this side may open before the peer accepts one; more are reset,
    /// or wait. Default 256.
    pub accept_backlog: usize,
    /// Bytes the peer may send on a stream before the application reads them.
    /// Default, and at least, 262144.
    pub window: u32,
    /// Time the peer has to accept a stream before the session is given up.
    /// Default 75 s.
    pub open_timeout: Duration,
    /// Time the peer has to close a stream after this side did, before the
    /// stream is reset. Default 300 s.
    pub close_timeout: Duration,
    /// Streams that may exist at a time; the peer's further ones are reset.
    /// Default 16384. Go peers have no such limit.
    pub max_streams: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            keep_alive: Some(Duration::from_secs(30)),
            keep_alive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            accept_backlog: 256,
            window: INITIAL_WINDOW,
            open_timeout: Duration::from_secs(75),
            close_timeout: Duration::from_secs(300),
            max_streams: 16384,
        }
    }
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it, or dropped its last handle and its last stream.
    #[error("the session was closed by this side")]
    Local,
    /// The peer closed the connection. Streams read as ended.
    #[error("the peer closed the connection")]
    Peer,
    /// The peer broke the protocol.
    #[error("the peer broke the yamux protocol: {0}")]
    Violation(#[from] Violation),
    /// The peer ended the session and gave a code other than 0: 1 says that
    /// this side broke the protocol, 2 that the peer failed.
    #[error("the peer ended the session with code {0}")]
    GoAway(u32),
    /// A ping was not answered in time.
    #[error("the peer did not answer a ping within {0:?} (`keep_alive_timeout`)")]
    KeepAliveTimeout(Duration),
    /// A stream was not accepted in time.
    #[error("the peer did not accept stream {stream} within {timeout:?} (`open_timeout`)")]
    OpenTimeout {
        /// The stream that was opened.
        stream: u32,
        /// The time it was given.
        timeout: Duration,
    },
    /// The peer demanded answers and did not read them.
    #[error("the connection took no bytes for {0:?} (`write_timeout`)")]
    WriteTimeout(Duration),
    /// The connection failed.
    #[error("the connection failed: {message}")]
    Io {
        /// The kind of the failure.
        kind: io::ErrorKind,
        /// The text of the failure.
        message: String,
    },
    /// The runtime that drove the session stopped.
    #[error("the runtime that drove the session stopped")]
    RuntimeStopped,
}

impl CloseReason {
    /// A stable name of this reason.
    pub fn code(&self) -> &'static str {
        match self {
            CloseReason::Local => "closed-locally",
            CloseReason::Peer => "closed-by-peer",
            CloseReason::Violation(_) => "yamux-violation",
            CloseReason::GoAway(_) => "yamux-go-away",
            CloseReason::KeepAliveTimeout(_) => "keep-alive-timeout",
            CloseReason::OpenTimeout { .. } => "stream-open-timeout",
            CloseReason::WriteTimeout(_) => "connection-write-timeout",
            CloseReason::Io { .. } => "connection-failed",
            CloseReason::RuntimeStopped => "runtime-stopped",
        }
    }

    /// Whether readers see the end of their stream rather than an error.
    fn is_orderly(&self) -> bool {
        match self {
            CloseReason::Local | CloseReason::Peer => true,
            CloseReason::Violation(_)
            | CloseReason::GoAway(_)
            | CloseReason::KeepAliveTimeout(_)
            | CloseReason::OpenTimeout { .. }
            | CloseReason::WriteTimeout(_)
            | CloseReason::Io { .. }
            | CloseReason::RuntimeStopped => false,
        }
    }

    /// A peer that vanishes is reported by the kernel in several ways.
    fn from_io(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => CloseReason::Peer,
            kind => CloseReason::Io {
                kind,
                message: error.to_string(),
            },
        }
    }
}

outrigger_wire::coded!(CloseReason);

/// What a peer did that ends the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A frame of another version.
    #[error("frame of version {0}, expected 0")]
    Version(u8),
    /// A frame of no known type.
    #[error("frame of type {0}, expected 0 to 3")]
    FrameType(u8),
    /// More data than the window allowed.
    #[error("{sent} bytes on stream {stream}, whose window had {window} left")]
    WindowExceeded {
        /// The stream.
        stream: u32,
        /// Length of the frame, in bytes.
        sent: u32,
        /// What was allowed, in bytes.
        window: u32,
    },
    /// A stream was opened that is open already.
    #[error("stream {0} opened twice")]
    DuplicateStream(u32),
    /// A stream was opened with an id that is not the peer's to use.
    #[error("stream {0} opened by the wrong side")]
    ForeignStream(u32),
    /// A stream was closed twice.
    #[error("stream {0} closed twice")]
    DuplicateFin(u32),
}

/// Why an operation on a session or a stream failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum YamuxError {
    /// The session has ended.
    #[error("the yamux session has ended")]
    SessionClosed(#[source] CloseReason),
    /// The peer takes no new streams.
    #[error("the peer takes no new streams")]
    RemoteGoAway,
    /// Every stream id has been used.
    #[error("the yamux session has used all its stream ids")]
    StreamsExhausted,
    /// The peer reset the stream.
    #[error("the peer reset the stream")]
    StreamReset,
    /// This side has shut the stream down and cannot write any more.
    #[error("the stream was shut down by this side")]
    StreamClosed,
    /// The peer did not close the stream after this side did.
    #[error("the peer did not close the stream within {0:?} (`close_timeout`)")]
    CloseTimeout(Duration),
    /// The connection takes no bytes.
    #[error("the connection took no bytes for {0:?} (`write_timeout`)")]
    WriteTimeout(Duration),
    /// A ping was not answered in time.
    #[error("the peer did not answer a ping within {0:?} (`keep_alive_timeout`)")]
    PingTimeout(Duration),
}

impl YamuxError {
    /// A stable name of this kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            YamuxError::SessionClosed(_) => "yamux-session-closed",
            YamuxError::RemoteGoAway => "yamux-remote-go-away",
            YamuxError::StreamsExhausted => "yamux-streams-exhausted",
            YamuxError::StreamReset => "yamux-stream-reset",
            YamuxError::StreamClosed => "yamux-stream-closed",
            YamuxError::CloseTimeout(_) => "yamux-close-timeout",
            YamuxError::WriteTimeout(_) => "yamux-write-timeout",
            YamuxError::PingTimeout(_) => "yamux-ping-timeout",
        }
    }
}

outrigger_wire::coded!(YamuxError);

impl From<YamuxError> for io::Error {
    fn from(error: YamuxError) -> io::Error {
        let kind = match &error {
            YamuxError::SessionClosed(CloseReason::Io { kind, .. }) => *kind,
            YamuxError::SessionClosed(_) | YamuxError::StreamClosed => io::ErrorKind::BrokenPipe,
            YamuxError::StreamReset => io::ErrorKind::ConnectionReset,
            YamuxError::RemoteGoAway | YamuxError::StreamsExhausted => {
                io::ErrorKind::ConnectionRefused
            }
            YamuxError::CloseTimeout(_)
            | YamuxError::WriteTimeout(_)
            | YamuxError::PingTimeout(_) => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, error)
    }
}
