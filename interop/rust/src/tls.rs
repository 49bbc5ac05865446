//! Static TLS from the files that the Go peers write (`helper make-tls DIR`).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use outrigger_host::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The variable that names the folder of the files to a plugin.
pub const TLS_DIR: &str = "OUTRIGGER_TLS_DIR";

/// One certificate for both roles, signed by the one authority that counts.
/// Peers without a certificate are accepted, as the Go peers do.
///
/// # Errors
/// A file is missing or holds something else.
pub fn static_tls(dir: &Path) -> Result<Tls> {
    let pem = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))
    };
    let chain = || -> Result<Vec<CertificateDer<'static>>> {
        Ok(vec![CertificateDer::from_pem_slice(&pem("leaf.pem")?)?])
    };
    let key = || -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_slice(&pem("leaf-key.pem")?)?)
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")?)?)?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain()?, key()?)?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain()?, key()?)?;
    Ok(Tls::new(client, server, ServerName::try_from("127.0.0.1")?))
}
