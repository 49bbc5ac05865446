//! TLS for the main connection and for brokered ones.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod with_rustls;

use std::io;
use std::time::Duration;

use crate::stream::Stream;

#[cfg(not(feature = "tls"))]
pub use self::absent::{AutoMtls, Tls};
#[cfg(feature = "tls")]
pub use self::with_rustls::{AutoMtls, Tls};

/// TLS could not be prepared or agreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key is unusable.
    #[error("could not use the certificate")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The peer's handshake failed: no TLS, another certificate, no common parameters.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// TLS is asked for, and this program was built without the feature `tls`.
    /// *Resolution:* build it with the feature, or have the peer go without TLS.
    #[error("this program was built without TLS (the cargo feature `tls`)")]
    NotBuiltIn,
    /// The peer accepted the connection and then said nothing.
    #[error("the peer did not finish the TLS handshake within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl TlsError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate-unusable",
            Self::Handshake(_) => "tls-handshake-failed",
            Self::NotBuiltIn => "tls-not-built-in",
            Self::TimedOut(_) => "tls-handshake-timeout",
        }
    }
}

/// What protects a connection.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Nothing: the rights of the socket alone.
    #[default]
    None,
    /// TLS, in whichever role the connection needs.
    Tls(Tls),
}

impl Security {
    /// Makes the outgoing end of `stream` secure.
    ///
    /// # Errors
    /// The handshake fails or takes too long.
    pub async fn connect(&self, stream: Stream) -> Result<Stream, TlsError> {
        match self {
            Self::None => Ok(stream),
            Self::Tls(tls) => tls.connect(stream).await,
        }
    }

    /// Makes the accepted end of `stream` secure.
    ///
    /// # Errors
    /// The handshake fails or takes too long.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, TlsError> {
        match self {
            Self::None => Ok(stream),
            Self::Tls(tls) => tls.accept(stream).await,
        }
    }
}
