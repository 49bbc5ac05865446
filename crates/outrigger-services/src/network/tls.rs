//! Whom a plugin's HTTPS requests trust: the certificates of this machine, and
//! those that the host adds.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure;
use crate::fault::Fault;

/// The certificates by which servers of HTTPS requests are known.
#[derive(Clone, Debug)]
pub struct TrustedRoots {
    system: bool,
    added: Vec<CertificateDer<'static>>,
}

/// A text that holds no certificates.
///
/// *Cause*: it is empty, in DER form, or damaged.
/// *Resolution*: give the certificates as PEM, each between its `BEGIN` and
/// `END` lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text holds no certificate in PEM form")]
pub struct NoCertificates;

impl NoCertificates {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "no-certificates"
    }
}

impl TrustedRoots {
    /// Those that this machine trusts, read when they are first needed.
    pub fn system() -> Self {
        Self {
            system: true,
            added: Vec::new(),
        }
    }

    /// None; for hosts that add their own.
    pub fn none() -> Self {
        Self {
            system: false,
            added: Vec::new(),
        }
    }

    /// These and the certificates in `pem`.
    ///
    /// # Errors
    /// When the text holds none that can be read.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, NoCertificates> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(found) if !found.is_empty() => self.added.extend(found),
            Ok(_) | Err(_) => return Err(NoCertificates),
        }
        Ok(self)
    }
}

impl Default for TrustedRoots {
    /// Those of the machine.
    fn default() -> Self {
        Self::system()
    }
}

/// Makes TLS connections over connections that were judged already.
#[derive(Debug)]
pub(crate) struct Tls {
    roots: TrustedRoots,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(roots: TrustedRoots) -> Self {
        Self {
            roots,
            config: OnceCell::new(),
        }
    }

    /// TLS with the server that `name` names, over `stream`.
    pub(crate) async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let config = self.config.get_or_try_init(|| self.load()).await?;
        let connected = TlsConnector::from(config.clone()).connect(name, stream);
        connected.await.map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => {
                failure::peer(format!("TLS failed: {inner}"))
            }
            _ => failure::io(&error),
        })
    }

    async fn load(&self) -> Result<Arc<ClientConfig>, Fault> {
        let roots = self.roots.clone();
        let load = tokio::task::spawn_blocking(move || {
            let mut store = RootCertStore::empty();
            if roots.system {
                let found = rustls_native_certs::load_native_certs();
                for error in &found.errors {
                    tracing::warn!(%error, "a trusted certificate of the machine cannot be read");
                }
                store.add_parsable_certificates(found.certs);
            }
            store.add_parsable_certificates(roots.added);
            store
        });
        let store = load
            .await
            .map_err(|_| failure::broken("reading the trusted certificates failed"))?;
        if store.is_empty() {
            return Err(failure::broken("this host trusts no certificates"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| failure::broken("TLS cannot be set up"))?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
