//! The third step: the plugin has said what it speaks and where it listens.

use std::time::Duration;

use outrigger_transport::Security;
use outrigger_wire::{Address, Excerpt, HandshakeLine, HandshakeRules};

use super::builder::TlsChoice;
use super::spawned::{LAST_WORDS, Spawned};
use crate::error::{LaunchError, LaunchErrorKind};
use crate::output::FirstLine;

/// A process that has shaken hands.
pub(super) struct Shaken {
    pub(super) spawned: Spawned,
    pub(super) line: HandshakeLine,
    /// Where this host reaches it.
    pub(super) address: Address,
    pub(super) security: Security,
    /// From the start of the process to its line.
    pub(super) took: Duration,
}

impl Shaken {
    pub(super) async fn hands(mut spawned: Spawned) -> Result<Self, LaunchError> {
        let line = match handshake(&mut spawned).await {
            Ok(line) => line,
            Err(kind) => return Err(spawned.fail(kind).await),
        };
        let took = spawned.held.began.elapsed();
        match agree(&spawned, &line) {
            Ok((address, security)) => Ok(Self {
                spawned,
                line,
                address,
                security,
                took,
            }),
            Err(kind) => Err(spawned.fail(kind).await),
        }
    }
}

/// Waits for the first line and judges it.
async fn handshake(spawned: &mut Spawned) -> Result<HandshakeLine, LaunchErrorKind> {
    let (launch, process) = (&spawned.launch, spawned.held.process());
    let limit = launch.settings.deadlines.start;
    let first = &mut spawned.first;
    let first = tokio::select! {
        biased;
        line = &mut *first => line.ok(),
        _ = process.wait() => {
            // What it printed before it ended may still be on its way.
            tokio::time::timeout(LAST_WORDS, first).await.ok().and_then(Result::ok)
        }
        () = tokio::time::sleep(limit) => return Err(LaunchErrorKind::HandshakeTimeout(limit)),
    };
    match first {
        Some(FirstLine::Line(line)) => {
            let rules = HandshakeRules {
                offered: &launch.settings.versions.keys().copied().collect(),
                allowed: launch.allowed,
                mux_requested: launch.mux,
            };
            HandshakeLine::parse(&line, &rules).map_err(LaunchErrorKind::Handshake)
        }
        Some(FirstLine::TooLong(start)) => {
            Err(LaunchErrorKind::HandshakeEndless(Excerpt::new(&start)))
        }
        Some(FirstLine::Nothing) | None => {
            let ended = tokio::time::timeout(LAST_WORDS, process.wait()).await;
            Err(match ended {
                Ok(_) => LaunchErrorKind::ExitedEarly,
                Err(_) => LaunchErrorKind::StdoutClosed,
            })
        }
    }
}

/// What the line and the launch say together: where the plugin is reached, and
/// what protects the connection.
fn agree(spawned: &Spawned, line: &HandshakeLine) -> Result<(Address, Security), LaunchErrorKind> {
    let launch = &spawned.launch;
    let address = launch.translator().plugin_to_host(line.address.clone());
    if let Ok(address) = &address {
        spawned.held.places().announced(address, |name| {
            let mut environment = spawned.command.environment.iter();
            let found = environment.find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_os_str())
        });
    }
    let security = match (&launch.tls, &spawned.certificate, &line.certificate) {
        (TlsChoice::Static(tls), _, _) => Security::Tls(tls.clone()),
        (_, Some(own), Some(peer)) => {
            let pinned = own.pin(peer);
            Security::Tls(pinned.map_err(LaunchErrorKind::CertificateUnusable)?)
        }
        (_, Some(_), None) => return Err(LaunchErrorKind::CertificateMissing),
        (_, None, Some(_)) => return Err(LaunchErrorKind::CertificateUnexpected),
        (_, None, None) => Security::None,
    };
    let address = address.map_err(LaunchErrorKind::Untranslatable)?;
    Ok((address, security))
}
