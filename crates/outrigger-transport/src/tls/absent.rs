//! What stands for TLS in a program that was built without it. Values of these
//! types do not exist, so that nothing can be plain that should be secure.

use super::TlsError;
use crate::stream::Stream;

#[derive(Clone, Debug)]
enum Never {}

/// TLS configuration for both roles. Without the feature `tls` there is none.
#[derive(Clone, Debug)]
pub struct Tls(Never);

impl Tls {
    /// The name that is verified, also the `:authority` of calls.
    pub fn name(&self) -> String {
        match self.0 {}
    }

    pub(super) async fn connect(&self, _: Stream) -> Result<Stream, TlsError> {
        match self.0 {}
    }

    pub(super) async fn accept(&self, _: Stream) -> Result<Stream, TlsError> {
        match self.0 {}
    }
}

/// One side's one-time certificate. Without the feature `tls` there is none.
#[derive(Debug)]
pub struct AutoMtls(Never);

impl AutoMtls {
    /// Makes nothing.
    ///
    /// # Errors
    /// Always [`TlsError::NotBuiltIn`].
    pub fn generate() -> Result<Self, TlsError> {
        Err(TlsError::NotBuiltIn)
    }

    /// The certificate as PEM, as a host passes it to its plugin.
    pub fn pem(&self) -> &str {
        match self.0 {}
    }

    /// The certificate as DER, as a plugin prints it in its handshake.
    pub fn der(&self) -> &[u8] {
        match self.0 {}
    }

    /// TLS with the peer that owns `peer` and nobody else, in both roles.
    ///
    /// # Errors
    /// Never.
    pub fn pin(&self, _peer: &[u8]) -> Result<Tls, TlsError> {
        match self.0 {}
    }

    /// Like [`pin`](Self::pin), from the PEM text of `PLUGIN_CLIENT_CERT`.
    ///
    /// # Errors
    /// Never.
    pub fn pin_pem(&self, _peer: &str) -> Result<Tls, TlsError> {
        match self.0 {}
    }
}
