//! The accepting end of a broker id.

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_wire::BrokerId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{BrokerError, BrokerErrorKind, SERVED_LIMITS, Side};
use crate::server::{ServeLimits, ServiceSet, serve_connection};
use crate::sockets::BoundListener;
use crate::stream::Stream;
use crate::task::OwnedTask;
use crate::tls::Security;

/// Connections to one id at the same time, each with its TLS handshake.
const MAX_CONNECTIONS: usize = 64;
/// Pause after the system refused to accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Accepts the peer's connections to one id. Dropping it ends that and removes
/// its socket.
#[derive(Debug)]
pub struct Listener {
    id: BrokerId,
    side: Side,
    closed: CancellationToken,
    security: Security,
    source: Source,
    handshakes: JoinSet<Result<Stream, BoxError>>,
    _registration: Option<Registration>,
}

/// What to undo when a listener goes.
pub(crate) struct Registration(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Registration {
    pub(crate) fn new(undo: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registration")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

/// A stream that is usable once this has ended.
pub(crate) type Pending = BoxFuture<'static, io::Result<Stream>>;

/// Where a listener's connections come from.
pub(crate) enum Source {
    /// A socket of its own.
    Socket(BoundListener),
    /// Streams of the one connection.
    Streams(mpsc::Receiver<Stream>),
    /// Streams that need a few words first, said when they are taken.
    #[cfg_attr(not(feature = "netrpc"), expect(dead_code))]
    Pending(mpsc::Receiver<Pending>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(listener) => listener.address().fmt(f),
            Self::Streams(_) | Self::Pending(_) => f.write_str("streams"),
        }
    }
}

/// A connection that has come, before TLS.
enum Raw {
    Stream(Stream),
    Pending(Pending),
}

impl Source {
    async fn next(&mut self) -> Result<Raw, BrokerErrorKind> {
        match self {
            Self::Socket(listener) => {
                let accepted = listener.accept().await.map_err(BrokerErrorKind::Accept)?;
                Ok(Raw::Stream(accepted))
            }
            Self::Streams(streams) => {
                let stream = streams.recv().await.ok_or(BrokerErrorKind::Closed)?;
                Ok(Raw::Stream(stream))
            }
            Self::Pending(streams) => {
                let stream = streams.recv().await.ok_or(BrokerErrorKind::Closed)?;
                Ok(Raw::Pending(stream))
            }
        }
    }
}

impl Listener {
    pub(crate) fn new(
        id: BrokerId,
        side: Side,
        closed: CancellationToken,
        security: Security,
        source: Source,
    ) -> Self {
        Self {
            id,
            side,
            closed,
            security,
            source,
            handshakes: JoinSet::new(),
            _registration: None,
        }
    }

    /// Undoes `registration` when the listener goes.
    pub(crate) fn registered(mut self, registration: Registration) -> Self {
        self._registration = Some(registration);
        self
    }

    fn error(&self, kind: BrokerErrorKind) -> BrokerError {
        BrokerError::new(self.side, self.id, kind)
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
                () = self.closed.cancelled() => {
                    return Err(self.error(BrokerErrorKind::Closed));
                }
                raw = self.source.next(), if !crowded => {
                    match raw.map_err(|kind| self.error(kind))? {
                        Raw::Stream(raw) if matches!(self.security, Security::None) => {
                            return Ok(raw);
                        }
                        Raw::Stream(raw) => {
                            let security = self.security.clone();
                            self.handshakes
                                .spawn(async move { Ok(security.accept(raw).await?) });
                        }
                        Raw::Pending(stream) => {
                            self.handshakes.spawn(async move { Ok(stream.await?) });
                        }
                    }
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => {
                        let error = &*error as &dyn std::error::Error;
                        tracing::warn!(id = self.id.0, error, "refused a brokered connection");
                    }
                    Err(error) => tracing::error!(%error, "a brokered connection's handshake ended abnormally"),
                },
            }
        }
    }
}

/// Services on a broker id, or on a socket. Dropping it ends them.
#[derive(Debug)]
pub struct Serving {
    id: BrokerId,
    stop: CancellationToken,
    task: OwnedTask,
}

/// What stands for the id of a socket that no broker announces.
const UNANNOUNCED: BrokerId = BrokerId(0);

impl Serving {
    /// Serves `services` on every connection to a socket that the peer learns of by
    /// other ways than a broker, until the returned value is dropped.
    pub fn on_socket(socket: BoundListener, services: ServiceSet) -> Self {
        let listener = Listener::new(
            UNANNOUNCED,
            Side::Host,
            CancellationToken::new(),
            Security::None,
            Source::Socket(socket),
        );
        Self::start(listener, services, SERVED_LIMITS)
    }

    pub(super) fn start(listener: Listener, services: ServiceSet, limits: ServeLimits) -> Self {
        Self::start_with(listener, move |stream, stop| {
            serve_connection(stream, services.clone(), limits, stop)
        })
    }

    /// Answers each connection with `answer`, which ends soon after its token fires.
    pub(crate) fn start_with<F>(
        listener: Listener,
        answer: impl Fn(Stream, CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let id = listener.id();
        let task = OwnedTask::spawn(serve(listener, answer, stop.clone()));
        Self { id, stop, task }
    }

    /// Answers the first connection only, and nothing if none comes within `wait`.
    #[cfg(feature = "netrpc")]
    pub(crate) fn start_once<F>(
        mut listener: Listener,
        wait: Duration,
        answer: impl FnOnce(Stream, CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (id, stopped) = (listener.id(), stop.clone());
        let task = OwnedTask::spawn(async move {
            let accepted = tokio::select! {
                () = stopped.cancelled() => return,
                accepted = tokio::time::timeout(wait, listener.accept()) => accepted,
            };
            drop(listener);
            match accepted {
                Ok(Ok(stream)) => answer(stream, stopped).await,
                Ok(Err(error)) => tracing::debug!(%error, "nobody dialled what was served once"),
                Err(_) => tracing::debug!(id = id.0, "nobody dialled what was served once in time"),
            }
        });
        Self { id, stop, task }
    }

    /// The id to tell the peer; 0 where there is none, for a
    /// [socket](Self::on_socket).
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

async fn serve<F>(
    mut listener: Listener,
    answer: impl Fn(Stream, CancellationToken) -> F + Send,
    stop: CancellationToken,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let crowded = connections.len() >= MAX_CONNECTIONS;
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept(), if !crowded => match accepted {
                Ok(stream) => {
                    connections.spawn(answer(stream, stop.clone()));
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
