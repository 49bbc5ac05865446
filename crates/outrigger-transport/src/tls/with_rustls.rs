//! TLS by rustls, and one-time certificates by rcgen.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::TlsError;
use crate::stream::Stream;

/// The name that go-plugin's one-time certificates carry.
const LOCALHOST: &str = "localhost";
/// grpc-go refuses TLS without it, in both roles.
const ALPN_H2: &[u8] = b"h2";
/// How long a peer may take over the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a one-time certificate is valid, as go-plugin's are: 262 980 h.
const VALIDITY: Duration = Duration::from_secs(262_980 * 3600);
/// Tolerated difference between the clocks of host and plugin.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// TLS configuration for both roles: go-plugin uses one for the main
/// connection and, in the other role, for brokered ones.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Static TLS from two rustls configurations. `name` is what the peer's
    /// certificate must be valid for. ALPN `h2` is added where it is missing,
    /// because grpc-go refuses connections without it.
    pub fn new(
        mut client: ClientConfig,
        mut server: ServerConfig,
        name: ServerName<'static>,
    ) -> Self {
        for protocols in [&mut client.alpn_protocols, &mut server.alpn_protocols] {
            if !protocols.iter().any(|p| p == ALPN_H2) {
                protocols.push(ALPN_H2.to_vec());
            }
        }
        Self {
            client: Arc::new(client),
            server: Arc::new(server),
            name,
        }
    }

    /// The name that is verified, also the `:authority` of calls.
    pub fn name(&self) -> String {
        self.name.to_str().into_owned()
    }

    pub(super) async fn connect(&self, stream: Stream) -> Result<Stream, TlsError> {
        let handshake = TlsConnector::from(self.client.clone()).connect(self.name.clone(), stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(TlsError::Handshake(error)),
            Err(_) => Err(TlsError::TimedOut(HANDSHAKE_TIMEOUT)),
        }
    }

    pub(super) async fn accept(&self, stream: Stream) -> Result<Stream, TlsError> {
        let handshake = TlsAcceptor::from(self.server.clone()).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(TlsError::Handshake(error)),
            Err(_) => Err(TlsError::TimedOut(HANDSHAKE_TIMEOUT)),
        }
    }
}

/// One side's one-time certificate, made anew for each launch. The key never
/// leaves the process.
pub struct AutoMtls {
    certificate: CertificateDer<'static>,
    pem: String,
    key: PrivatePkcs8KeyDer<'static>,
}

impl fmt::Debug for AutoMtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoMtls").finish_non_exhaustive()
    }
}

impl AutoMtls {
    /// Makes a key and a self-signed certificate with the fields that
    /// go-plugin's have; the key is ECDSA P-256, which Go peers accept.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] when the system gives no random numbers.
    pub fn generate() -> Result<Self, TlsError> {
        let unusable = |error: rcgen::Error| TlsError::Certificate(Box::new(error));
        let key = rcgen::KeyPair::generate().map_err(unusable)?;
        let certificate = parameters()?.self_signed(&key).map_err(unusable)?;
        Ok(Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// The certificate as PEM, as a host passes it to its plugin.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate as DER, as a plugin prints it in its handshake.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// TLS with the peer that owns `peer` and nobody else, in both roles.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] when `peer` is no certificate.
    pub fn pin(&self, peer: &[u8]) -> Result<Tls, TlsError> {
        let unusable = |error: rustls::Error| TlsError::Certificate(Box::new(error));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pinned = Arc::new(Pinned::new(peer, &provider)?);
        let key = || PrivateKeyDer::Pkcs8(self.key.clone_key());
        let chain = || vec![self.certificate.clone()];
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_client_auth_cert(chain(), key())
            .map_err(unusable)?;
        client.resumption = rustls::client::Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(pinned)
            .with_single_cert(chain(), key())
            .map_err(unusable)?;
        server.send_tls13_tickets = 0;
        let name = ServerName::try_from(LOCALHOST)
            .map_err(|error| TlsError::Certificate(Box::new(error)))?;
        Ok(Tls::new(client, server, name))
    }

    /// Like [`pin`](Self::pin), from the PEM text of `PLUGIN_CLIENT_CERT`.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] when the text holds no certificate.
    pub fn pin_pem(&self, peer: &str) -> Result<Tls, TlsError> {
        use rustls::pki_types::pem::PemObject;

        let peer = CertificateDer::from_pem_slice(peer.as_bytes())
            .map_err(|error| TlsError::Certificate(Box::new(error)))?;
        self.pin(&peer)
    }
}

fn parameters() -> Result<rcgen::CertificateParams, TlsError> {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
        ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SerialNumber, string::PrintableString,
    };
    let unusable = |error: rcgen::Error| TlsError::Certificate(Box::new(error));
    let printable = |text: &str| PrintableString::try_from(text).map(DnValue::PrintableString);

    let mut parameters = CertificateParams::new([LOCALHOST.to_owned()]).map_err(unusable)?;
    let mut subject = DistinguishedName::new();
    subject.push(
        DnType::OrganizationName,
        printable("HashiCorp").map_err(unusable)?,
    );
    subject.push(DnType::CommonName, printable(LOCALHOST).map_err(unusable)?);
    parameters.distinguished_name = subject;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyCertSign,
    ];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let now = SystemTime::now();
    parameters.not_before = (now - CLOCK_SKEW).into();
    parameters.not_after = (now + VALIDITY).into();
    let mut serial = [0; 16];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut serial)
        .map_err(|_| TlsError::Certificate("no random numbers".into()))?;
    // Current Go refuses negative serial numbers and ones of more than 16 octets.
    serial[0] = (serial[0] & 0x7f) | 0x01;
    parameters.serial_number = Some(SerialNumber::from(serial.to_vec()));
    Ok(parameters)
}

/// Accepts one certificate, byte for byte. go-plugin's certificates are
/// self-signed CA certificates used as leaves, which path validation refuses.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(certificate: &[u8], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        rustls::server::ParsedCertificate::try_from(&certificate)
            .map_err(|error| TlsError::Certificate(Box::new(error)))?;
        Ok(Self {
            certificate,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn judge(&self, presented: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if presented.as_ref() == self.certificate.as_ref() {
            Ok(())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A Go client keeps its certificate back when the list holds only others.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair(size: usize) -> (Stream, Stream) {
        let (a, b) = tokio::io::duplex(size);
        (Box::new(a), Box::new(b))
    }

    #[tokio::test]
    async fn two_one_time_certificates_agree_and_strangers_do_not() {
        let (host, plugin, stranger) = (
            AutoMtls::generate().expect("a certificate"),
            AutoMtls::generate().expect("a certificate"),
            AutoMtls::generate().expect("a certificate"),
        );
        let serving = plugin.pin_pem(host.pem()).expect("TLS");
        let calling = host.pin(plugin.der()).expect("TLS");
        let (near, far) = pair(1 << 16);
        let (near, far) = tokio::join!(calling.connect(near), serving.accept(far));
        let (mut near, mut far) = (near.expect("agreed"), far.expect("agreed"));
        near.write_all(b"hello").await.expect("written");
        near.flush().await.expect("flushed");
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.expect("read");
        assert_eq!(&heard, b"hello");

        let strange = stranger.pin(plugin.der()).expect("TLS");
        let (near, far) = pair(1 << 16);
        let (_near, far) = tokio::join!(strange.connect(near), serving.accept(far));
        assert_eq!(far.err().expect("refused").code(), "tls-handshake-failed");
    }

    #[test]
    fn garbage_is_no_certificate() {
        let own = AutoMtls::generate().expect("a certificate");
        assert_eq!(
            own.pin(b"\x30\x03abc").expect_err("refused").code(),
            "certificate-unusable"
        );
        assert_eq!(
            own.pin_pem("nothing").expect_err("refused").code(),
            "certificate-unusable"
        );
    }
}
