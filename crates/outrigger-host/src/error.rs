//! Why a plugin did not start.

use std::fmt;
use std::time::Duration;

use outrigger_transport::{BrokerError, ConnectError, TlsError};
use outrigger_wire::{Coded, DigestError, Excerpt, HandshakeError};

use crate::diagnose::Diagnosis;
use crate::exit::ExitStatus;
use crate::runner::RunnerError;

/// A plugin did not start: which one, why, and what is known about it.
#[derive(Debug)]
pub struct LaunchError {
    pub(crate) plugin: String,
    pub(crate) kind: LaunchErrorKind,
    pub(crate) facts: Box<Facts>,
}

/// What is known about a plugin that did not start.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) diagnosis: Option<Diagnosis>,
    pub(crate) stderr: Vec<String>,
    pub(crate) exit: Option<(ExitStatus, Duration)>,
}

/// Why a plugin did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchErrorKind {
    /// The program's content is not what was expected; it was not started.
    #[error(transparent)]
    Digest(DigestError),
    /// The program could not be started.
    #[error("could not be started")]
    Start(#[source] RunnerError),
    /// The directory for the sockets could not be made.
    #[error("has no directory for its sockets")]
    Workspace(#[source] std::io::Error),
    /// No one-time certificate could be made.
    #[error("has no certificate to present")]
    Certificate(#[source] TlsError),
    /// Nothing came on stdout in time.
    #[error("printed no handshake line within {} s (`start`)", .0.as_secs_f64())]
    HandshakeTimeout(Duration),
    /// The process ended first.
    #[error("exited before its handshake")]
    ExitedEarly,
    /// The process ended between its handshake and the first answer.
    #[error("exited after its handshake, before it could be reached")]
    ExitedUnreached,
    /// Stdout was closed and the process went on.
    #[error("closed its stdout without a handshake line")]
    StdoutClosed,
    /// More came than a handshake line has.
    #[error("printed more than 65536 bytes without a line end; it begins with {0}")]
    HandshakeEndless(Excerpt),
    /// The line is no handshake, or not one for this host.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// One-time certificates were asked for and the plugin sent none.
    #[error("sent no certificate although AutoMTLS was asked for")]
    CertificateMissing,
    /// The plugin wants TLS that the host did not ask for.
    #[error("sent a certificate although this host uses no TLS")]
    CertificateUnexpected,
    /// The plugin's certificate is unusable.
    #[error("sent an unusable certificate")]
    CertificateUnusable(#[source] TlsError),
    /// The runner could not translate the address.
    #[error("announced an address that cannot be translated: {0}")]
    Untranslatable(String),
    /// The plugin announced an address and cannot be reached there.
    #[error("could not be reached")]
    Connect(#[source] ConnectError),
    /// The host's services could not be offered to it.
    #[error("could not be offered the host's services")]
    HostServices(#[source] BrokerError),
    /// There is nothing to attach to.
    #[error("is not running any more; there is no such process or nothing listens at its address")]
    ProcessNotFound,
}

impl LaunchError {
    pub(crate) fn new(plugin: &str, kind: LaunchErrorKind) -> Self {
        Self {
            plugin: plugin.to_owned(),
            kind,
            facts: Box::default(),
        }
    }

    /// The name that the host gave the plugin.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Why it did not start.
    pub fn kind(&self) -> &LaunchErrorKind {
        &self.kind
    }

    /// The last lines of its stderr, escaped and cut.
    pub fn stderr(&self) -> &[String] {
        &self.facts.stderr
    }

    /// How the process ended by itself and after what time, if it did.
    pub fn exit(&self) -> Option<(ExitStatus, Duration)> {
        self.facts.exit
    }

    /// What a look at the program shows, where that may matter.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        self.facts.diagnosis.as_ref()
    }

    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match &self.kind {
            LaunchErrorKind::Digest(error) => error.code(),
            LaunchErrorKind::Start(RunnerError::NotFound(error)) => error.code(),
            LaunchErrorKind::Start(error) if error.is_busy() => "program-busy",
            LaunchErrorKind::Start(_) => self.verdict().map_or("start-failed", |(code, _)| code),
            LaunchErrorKind::Workspace(_) => "socket-directory-failed",
            LaunchErrorKind::Certificate(error @ TlsError::NotBuiltIn) => error.code(),
            LaunchErrorKind::Certificate(_) => "certificate-not-made",
            LaunchErrorKind::HandshakeTimeout(_) => "handshake-timeout",
            LaunchErrorKind::ExitedEarly | LaunchErrorKind::ExitedUnreached => "exited-early",
            LaunchErrorKind::StdoutClosed => "stdout-closed",
            LaunchErrorKind::HandshakeEndless(_) => "handshake-endless",
            LaunchErrorKind::Handshake(error) => error.code(),
            LaunchErrorKind::CertificateMissing => "certificate-missing",
            LaunchErrorKind::CertificateUnexpected => "certificate-unexpected",
            LaunchErrorKind::CertificateUnusable(_) => "certificate-unusable",
            LaunchErrorKind::Untranslatable(_) => "address-untranslatable",
            LaunchErrorKind::Connect(error) => error.code(),
            LaunchErrorKind::HostServices(error) => error.code(),
            LaunchErrorKind::ProcessNotFound => "process-not-found",
        }
    }

    /// One true thing that the reader can do now.
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            LaunchErrorKind::Start(error) if error.is_busy() => {
                Some("somebody has it open for writing; wait until it is written".into())
            }
            LaunchErrorKind::Start(_) => self.verdict().map(|(_, remedy)| remedy),
            LaunchErrorKind::ExitedEarly => self.verdict().map(|(_, remedy)| remedy).or_else(|| {
                let silent = self.facts.stderr.is_empty();
                (self.facts.exit.is_some_and(|(status, _)| status == ExitStatus::Code(1)) && !silent)
                    .then(|| "read its stderr above; a plugin that complains about being run by hand did not get its magic cookie".to_owned())
            }),
            LaunchErrorKind::Handshake(error) => error.hint().map(Into::into),
            LaunchErrorKind::HandshakeTimeout(_) => {
                Some("do slow work after serving began, or raise `start`".into())
            }
            LaunchErrorKind::CertificateMissing => {
                Some("launch it without AutoMTLS, or update its plugin library".into())
            }
            LaunchErrorKind::CertificateUnexpected => {
                Some("launch it with `auto_mtls()`".into())
            }
            LaunchErrorKind::Connect(ConnectError::Tls(_)) => Some(
                "check that host and plugin agree on TLS: none, AutoMTLS, or the same certificates"
                    .into(),
            ),
            LaunchErrorKind::HandshakeEndless(_) | LaunchErrorKind::StdoutClosed => {
                Some("keep stdout for the handshake; print everything else to stderr".into())
            }
            _ => None,
        }
    }

    fn verdict(&self) -> Option<(&'static str, String)> {
        self.facts.diagnosis.as_ref()?.verdict()
    }
}

impl Coded for LaunchError {
    fn code(&self) -> &'static str {
        Self::code(self)
    }

    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        Self::hint(self).map(Into::into)
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}` ", self.plugin)?;
        match &self.kind {
            // These speak of the line or the file, not of the plugin.
            LaunchErrorKind::Handshake(_) => f.write_str("printed no usable handshake line")?,
            LaunchErrorKind::Digest(_) => f.write_str("is not the program that was meant")?,
            kind => write!(f, "{kind}")?,
        }
        if let Some((status, after)) = self.facts.exit {
            write!(f, "; it {status} after {} ms", after.as_millis())?;
        }
        if let Some(last) = self.facts.stderr.last() {
            write!(f, "; its last line on stderr: {last}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            // The phrase of these is not part of ours, so they are the source themselves.
            LaunchErrorKind::Handshake(error) => Some(error),
            LaunchErrorKind::Digest(error) => Some(error),
            kind => std::error::Error::source(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: usize = 17;

    /// A number for each kind; a new one is missing here until it has an example below.
    fn number_of(kind: &LaunchErrorKind) -> usize {
        match kind {
            LaunchErrorKind::HostServices(_) => 0,
            LaunchErrorKind::Digest(_) => 1,
            LaunchErrorKind::Start(_) => 2,
            LaunchErrorKind::Workspace(_) => 3,
            LaunchErrorKind::Certificate(_) => 4,
            LaunchErrorKind::HandshakeTimeout(_) => 5,
            LaunchErrorKind::ExitedEarly => 6,
            LaunchErrorKind::StdoutClosed => 7,
            LaunchErrorKind::HandshakeEndless(_) => 8,
            LaunchErrorKind::Handshake(_) => 9,
            LaunchErrorKind::CertificateMissing => 10,
            LaunchErrorKind::CertificateUnexpected => 11,
            LaunchErrorKind::CertificateUnusable(_) => 12,
            LaunchErrorKind::Untranslatable(_) => 13,
            LaunchErrorKind::Connect(_) => 14,
            LaunchErrorKind::ProcessNotFound => 15,
            LaunchErrorKind::ExitedUnreached => 16,
        }
    }

    fn io() -> std::io::Error {
        std::io::ErrorKind::PermissionDenied.into()
    }

    fn closed() -> BrokerError {
        use outrigger_transport::{Broker, BrokerOptions, GrpcBroker, Side};
        let broker = GrpcBroker::plain(BrokerOptions::new(Side::Host));
        broker.close();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let accepted = runtime.block_on(broker.accept(outrigger_wire::BrokerId(7)));
        accepted.expect_err("it is closed")
    }

    /// An example of each kind, with its code, its causes and its hint.
    fn examples() -> Vec<(LaunchErrorKind, &'static str, &'static str, bool)> {
        use LaunchErrorKind as Kind;
        let tls = || TlsError::Certificate("bad encoding".into());
        let late = Duration::from_millis(2500);
        let line = HandshakeError::CoreVersionMismatch { observed: 2 };
        vec![
            (
                Kind::Digest(DigestError::Missing),
                "digest-missing",
                "is not the program that was meant\nno checksum provided",
                false,
            ),
            (
                Kind::Start(RunnerError::Spawn(io())),
                "start-failed",
                "could not be started\ncould not start the program\npermission denied",
                false,
            ),
            (
                Kind::Workspace(io()),
                "socket-directory-failed",
                "has no directory for its sockets\npermission denied",
                false,
            ),
            (
                Kind::Certificate(tls()),
                "certificate-not-made",
                "has no certificate to present\n",
                false,
            ),
            (
                Kind::HandshakeTimeout(late),
                "handshake-timeout",
                "printed no handshake line within 2.5 s (`start`)",
                true,
            ),
            (
                Kind::ExitedEarly,
                "exited-early",
                "exited before its handshake",
                false,
            ),
            (
                Kind::StdoutClosed,
                "stdout-closed",
                "closed its stdout without a handshake line",
                true,
            ),
            (
                Kind::HandshakeEndless(Excerpt::new(b"xx")),
                "handshake-endless",
                "printed more than 65536 bytes without a line end; it begins with \"xx\"",
                true,
            ),
            (
                Kind::Handshake(line),
                "core-version-mismatch",
                "printed no usable handshake line\nplugin speaks core protocol 2, this host 1",
                true,
            ),
            (
                Kind::CertificateMissing,
                "certificate-missing",
                "sent no certificate although AutoMTLS was asked for",
                true,
            ),
            (
                Kind::CertificateUnexpected,
                "certificate-unexpected",
                "sent a certificate although this host uses no TLS",
                true,
            ),
            (
                Kind::CertificateUnusable(tls()),
                "certificate-unusable",
                "sent an unusable certificate\n",
                false,
            ),
            (
                Kind::Untranslatable("no way in".into()),
                "address-untranslatable",
                "announced an address that cannot be translated: no way in",
                false,
            ),
            (
                Kind::Connect(ConnectError::TimedOut(late)),
                "connect-timeout",
                "could not be reached\nthe peer did not answer within 2.5 s",
                false,
            ),
            (
                Kind::HostServices(closed()),
                "broker-closed",
                "could not be offered the host's services\nthe host could not open broker id 7",
                false,
            ),
            (
                Kind::ExitedUnreached,
                "exited-early",
                "exited after its handshake, before it could be reached",
                false,
            ),
            (
                Kind::ProcessNotFound,
                "process-not-found",
                "is not running any more; there is no such process or nothing listens",
                false,
            ),
        ]
    }

    #[test]
    fn every_kind_has_its_code_its_words_and_its_hint() {
        let mut seen = std::collections::BTreeSet::new();
        for (kind, code, words, has_hint) in examples() {
            seen.insert(number_of(&kind));
            let error = LaunchError::new("greeter", kind);
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text += &format!("\n{error}");
                source = error.source();
            }
            assert_eq!(error.code(), code, "{text}");
            assert!(
                text.starts_with(&format!("plugin `greeter` {words}")),
                "{text}"
            );
            assert_eq!(error.hint().is_some(), has_hint, "{text}");
        }
        assert_eq!(seen, (0..KINDS).collect());
    }
}
