//! Why a connection could not be made.

use std::error::Error as StdError;
use std::time::Duration;

use outrigger_wire::Excerpt;

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No socket, or the peer closed it.
    #[error("could not connect to {address}")]
    Socket {
        /// The address that was dialled.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// TLS failed.
    #[error("could not agree on TLS")]
    Tls(#[from] crate::tls::TlsError),
    /// The multiplexed connection failed.
    #[error("could not start the multiplexed connection")]
    Mux(#[source] crate::yamux::YamuxError),
    /// HTTP/2 could not be started on the connection.
    #[error("could not start HTTP/2")]
    Http2(#[source] Box<dyn StdError + Send + Sync>),
    /// The peer speaks net/rpc, and this program was built without the feature
    /// `netrpc`. *Resolution:* build it with the feature.
    #[error(
        "the peer speaks net/rpc, and this program was built without it (the cargo feature `netrpc`)"
    )]
    NoNetRpc,
    /// The peer's first bytes are no HTTP/2.
    #[error("the peer does not speak HTTP/2; it began with {0}")]
    NotHttp2(Excerpt),
    /// The peer's first bytes are TLS, which this side did not use.
    #[error("the peer uses TLS and this side does not")]
    PeerUsesTls,
    /// The peer closed the connection before it said anything.
    #[error("the peer closed the connection without a word")]
    ClosedAtOnce,
    /// The peer accepted but did not answer in time.
    #[error("the peer did not answer within {} s (`connect_timeout`)", .0.as_secs_f64())]
    TimedOut(Duration),
}

impl ConnectError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "connect-failed",
            Self::Tls(error) => error.code(),
            Self::Mux(error) => error.code(),
            Self::Http2(_) => "http2-failed",
            Self::NoNetRpc => "netrpc-not-built-in",
            Self::NotHttp2(_) => "not-http2",
            Self::PeerUsesTls => "peer-uses-tls",
            Self::ClosedAtOnce => "closed-at-once",
            Self::TimedOut(_) => "connect-timeout",
        }
    }
}
