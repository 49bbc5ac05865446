//! The accepting end of a broker id.

use std::sync::Arc;
use std::time::Duration;

use outrigger_wire::BrokerId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::{BrokerError, BrokerErrorKind};
use crate::server::{ServeLimits, ServiceSet, serve_connection};
use crate::sockets::BoundListener;
use crate::stream::Stream;
use crate::task::OwnedTask;
use crate::tls::{Security, TlsError};

/// Connections to one id at the same time, each with its TLS handshake.
const MAX_CONNECTIONS: usize = 64;
/// Pause after the system refused to accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts the peer's connections to one id. Dropping it ends that and removes
/// its socket.
#[derive(Debug)]
pub struct Listener {
    id: BrokerId,
    shared: Arc<Shared>,
    source: Source,
    handshakes: JoinSet<Result<Stream, TlsError>>,
}

enum Source {
    Socket(BoundListener),
    Streams(mpsc::Receiver<Stream>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(listener) => listener.address().fmt(f),
            Self::Streams(_) => f.write_str("streams"),
        }
    }
}

impl Source {
    async fn next(&mut self) -> Result<Stream, BrokerErrorKind> {
        match self {
            Self::Socket(listener) => listener.accept().await.map_err(BrokerErrorKind::Accept),
            Self::Streams(streams) => streams.recv().await.ok_or(BrokerErrorKind::Closed),
        }
    }
}

impl Listener {
    pub(super) fn socket(id: BrokerId, shared: Arc<Shared>, listener: BoundListener) -> Self {
        Self {
            id,
            shared,
            source: Source::Socket(listener),
            handshakes: JoinSet::new(),
        }
    }

    pub(super) fn streams(
        id: BrokerId,
        shared: Arc<Shared>,
        streams: mpsc::Receiver<Stream>,
    ) -> Self {
        Self {
            id,
            shared,
            source: Source::Streams(streams),
            handshakes: JoinSet::new(),
        }
    }

    /// The id that is accepted.
    pub fn id(&self) -> BrokerId {
        self.id
    }

    /// Waits for the next connection, with TLS in place where it is agreed. A
    /// connection whose TLS fails is logged and skipped.
    ///
    /// # Errors
    /// The broker is closed, or the system refuses to accept.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub async fn accept(&mut self) -> Result<Stream, BrokerError> {
        loop {
            let crowded = self.handshakes.len() >= MAX_CONNECTIONS;
            tokio::select! {
                () = self.shared.closed.cancelled() => {
                    return Err(self.shared.error(self.id, BrokerErrorKind::Closed));
                }
                raw = self.source.next(), if !crowded => {
                    let raw = raw.map_err(|kind| self.shared.error(self.id, kind))?;
                    let security = self.shared.options.security.clone();
                    if matches!(security, Security::None) {
                        return Ok(raw);
                    }
                    self.handshakes.spawn(async move { security.accept(raw).await });
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(id = self.id.0, error, "refused a brokered connection");
                    }
                    Err(error) => tracing::error!(%error, "a TLS handshake ended abnormally"),
                },
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(mux) = &self.shared.mux {
            mux.forget(self.id);
        }
    }
}

/// Services on a broker id. Dropping it ends them.
#[derive(Debug)]
pub struct Serving {
    id: BrokerId,
    stop: CancellationToken,
    task: OwnedTask,
}

impl Serving {
    pub(super) fn start(listener: Listener, services: ServiceSet, limits: ServeLimits) -> Self {
        let stop = CancellationToken::new();
        let id = listener.id();
        let task = OwnedTask::spawn(serve(listener, services, limits, stop.clone()));
        Self { id, stop, task }
    }

    /// The id to tell the peer.
    pub fn id(&self) -> BrokerId {
        self.id
    }

    /// Takes no new calls and lets the running ones finish for a short time.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Keeps the services until the broker closes.
    pub fn detach(self) {
        self.task.detach();
    }
}

async fn serve(
    mut listener: Listener,
    services: ServiceSet,
    limits: ServeLimits,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let crowded = connections.len() >= MAX_CONNECTIONS;
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept(), if !crowded => match accepted {
                Ok(stream) => {
                    let stop = stop.clone();
                    connections.spawn(serve_connection(stream, services.clone(), limits, stop));
                }
                Err(error) => match error.kind() {
                    BrokerErrorKind::Accept(cause) => {
                        tracing::warn!(id = listener.id().0, %cause, "could not accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    _ => break,
                },
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stop.cancel();
    while connections.join_next().await.is_some() {}
}
