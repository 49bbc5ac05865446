//! go-plugin's MuxBroker: each brokered connection is a stream of the session,
//! which begins with the id in four little-endian bytes and their echo.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use outrigger_wire::BrokerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{BROKER_WAIT, Budget, Client, Connected, Methods, serve_within};
use crate::broker::listener::{Pending, Registration, Source};
use crate::broker::{Broker, BrokerError, BrokerErrorKind, Listener, SERVED_LIMITS, Serving, Side};
use crate::fate::Fate;
use crate::stream::Stream;
use crate::task::OwnedTask;
use crate::tls::Security;
use crate::yamux;

/// Streams whose id has not come yet, or that no one accepts yet.
const MAX_UNCLAIMED: usize = 256;
/// Ids that one side accepts at the same time.
const MAX_LISTENERS: usize = 1024;
/// Streams that wait for their listener to take them.
const LISTENER_BACKLOG: usize = 16;

/// The broker of a net/rpc session. Dropping it closes it.
#[derive(Debug)]
pub struct MuxBroker {
    shared: Arc<Shared>,
    _acceptor: OwnedTask,
}

#[derive(Debug)]
struct Shared {
    side: Side,
    session: yamux::Session,
    fate: Fate,
    budget: Budget,
    wait: Duration,
    next: AtomicU32,
    closed: CancellationToken,
    ids: Mutex<HashMap<BrokerId, IdState>>,
}

/// What is known of an id.
#[derive(Debug)]
enum IdState {
    /// A stream came before anyone accepts it; it is one of many if it comes
    /// again. Dropping the sender tells its task that it is waited for no more.
    Early {
        claim: Claim,
        _parked: oneshot::Sender<()>,
    },
    /// Streams go to a listener, which acknowledges those that it takes.
    Open(mpsc::Sender<Pending>),
}

/// A stream that names the id it wants, before that is acknowledged.
#[derive(Debug)]
struct Claim {
    id: BrokerId,
    stream: yamux::Stream,
    wait: Duration,
}

impl Claim {
    /// Tells the dialler that its stream was accepted.
    async fn acknowledge(mut self) -> io::Result<Stream> {
        let echo = self.id.0.to_le_bytes();
        tokio::time::timeout(self.wait, self.stream.write_all(&echo)).await??;
        Ok(Box::new(self.stream))
    }
}

impl MuxBroker {
    /// A broker over the further streams of `session`.
    pub(super) fn new(
        side: Side,
        session: yamux::Session,
        fate: Fate,
        budget: Budget,
        wait: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            side,
            session,
            fate,
            budget,
            wait,
            next: AtomicU32::new(0),
            closed: CancellationToken::new(),
            ids: Mutex::default(),
        });
        let acceptor = OwnedTask::spawn(shared.clone().take_streams());
        Self {
            shared,
            _acceptor: acceptor,
        }
    }
}

#[cfg(test)]
impl MuxBroker {
    /// How many streams wait for someone to accept their id.
    pub(super) fn parked(&self) -> usize {
        let ids = self.shared.ids();
        let early = |state: &&IdState| matches!(state, IdState::Early { .. });
        ids.values().filter(early).count()
    }
}

impl dyn Broker + '_ {
    /// Serves net/rpc methods, as `Plugin.*`, on every connection that the peer
    /// makes to `id`, until the returned value is dropped or the broker closes.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn serve_netrpc(
        &self,
        id: BrokerId,
        methods: Methods,
    ) -> Result<Serving, BrokerError> {
        let listener = self.accept(id).await?;
        let budget = self.budget();
        Ok(Serving::start_with(listener, move |stream, stop| {
            let (methods, budget) = (methods.clone(), budget.clone());
            serve_within(stream, methods, SERVED_LIMITS, budget, stop)
        }))
    }

    /// Serves net/rpc methods, as `Plugin.*`, on the first connection that the
    /// peer makes to `id`, as go-plugin's `AcceptAndServe` does. Nothing is left
    /// once that connection has ended, or when none comes within 5 s.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn serve_netrpc_once(
        &self,
        id: BrokerId,
        methods: Methods,
    ) -> Result<Serving, BrokerError> {
        let listener = self.accept(id).await?;
        let (wait, budget) = (BROKER_WAIT, self.budget());
        Ok(Serving::start_once(listener, wait, move |stream, stop| {
            serve_within(stream, methods, SERVED_LIMITS, budget, stop)
        }))
    }

    /// Dials `id` and starts net/rpc on the connection.
    ///
    /// # Errors
    /// As [`Broker::dial`].
    pub async fn connect_netrpc(&self, id: BrokerId) -> Result<Client, BrokerError> {
        Ok(self.connect_object(id).await?.into())
    }

    /// [`connect_netrpc`](Self::connect_netrpc) to one object for certain.
    pub(crate) async fn connect_object(&self, id: BrokerId) -> Result<Connected, BrokerError> {
        let stream = self.dial(id).await?;
        let max_value = self.budget().max_value();
        Ok(Connected::new(stream, self.fate(), max_value))
    }
}

impl Drop for MuxBroker {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Broker for MuxBroker {
    fn next_id(&self) -> BrokerId {
        let before = self.shared.next.fetch_add(1, Ordering::Relaxed);
        BrokerId(before.wrapping_add(1))
    }

    async fn accept(&self, id: BrokerId) -> Result<Listener, BrokerError> {
        let shared = &self.shared;
        if shared.is_over() {
            return Err(shared.error(id, BrokerErrorKind::Closed));
        }
        let (sender, receiver) = mpsc::channel(LISTENER_BACKLOG);
        {
            let mut ids = shared.ids();
            if let Some(IdState::Open(_)) = ids.get(&id) {
                return Err(shared.error(id, BrokerErrorKind::AlreadyAccepted));
            }
            let listening = ids
                .values()
                .filter(|state| matches!(state, IdState::Open(_)));
            if listening.count() >= MAX_LISTENERS {
                return Err(shared.error(id, BrokerErrorKind::TooManyListeners(MAX_LISTENERS)));
            }
            let early = ids.insert(id, IdState::Open(sender.clone()));
            if let Some(IdState::Early { claim, .. }) = early {
                // The queue is new and has room.
                let _ = sender.try_send(claim.acknowledge().boxed());
            }
        }
        let owner = Arc::downgrade(shared);
        let forget = Registration::new(move || {
            if let Some(shared) = owner.upgrade() {
                shared.ids().remove(&id);
            }
        });
        let source = Source::Pending(receiver);
        let closed = shared.closed.clone();
        Ok(Listener::new(id, shared.side, closed, Security::None, source).registered(forget))
    }

    async fn dial(&self, id: BrokerId) -> Result<Stream, BrokerError> {
        let shared = &self.shared;
        let dialling = tokio::time::timeout(shared.wait * 2, shared.dial(id));
        let dialled = tokio::select! {
            () = shared.closed.cancelled() => Err(BrokerErrorKind::Closed),
            dialled = dialling => match dialled {
                Ok(dialled) => dialled,
                Err(_) => Err(BrokerErrorKind::NeverAccepted(shared.wait * 2)),
            },
        };
        dialled.map_err(|kind| shared.error(id, kind))
    }

    fn fate(&self) -> Fate {
        self.shared.fate.clone()
    }

    fn budget(&self) -> Budget {
        self.shared.budget.clone()
    }

    fn close(&self) {
        self.shared.closed.cancel();
        self.shared.ids().clear();
    }
}

impl Shared {
    fn ids(&self) -> std::sync::MutexGuard<'_, HashMap<BrokerId, IdState>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, id: BrokerId, kind: BrokerErrorKind) -> BrokerError {
        BrokerError::new(self.side, id, kind)
    }

    fn is_over(&self) -> bool {
        self.closed.is_cancelled() || self.session.is_closed()
    }

    /// Opens a stream and waits for the echo of its id. The accepting side of
    /// go-plugin gives up after 5 s and closes the stream.
    async fn dial(&self, id: BrokerId) -> Result<Stream, BrokerErrorKind> {
        let mut stream = self
            .session
            .open()
            .await
            .map_err(BrokerErrorKind::Session)?;
        let mut echo = [0; 4];
        let exchanged = async {
            stream.write_all(&id.0.to_le_bytes()).await?;
            stream.read_exact(&mut echo).await
        };
        match exchanged.await {
            Ok(_) => {}
            Err(_) if self.is_over() => return Err(BrokerErrorKind::Closed),
            Err(_) => return Err(BrokerErrorKind::Unacknowledged),
        }
        match u32::from_le_bytes(echo) {
            got if got == id.0 => Ok(Box::new(stream)),
            got => Err(BrokerErrorKind::WrongAck { got }),
        }
    }

    /// Takes the peer's streams as long as the broker is open, each with a task
    /// that ends when the stream has found its listener or given up.
    async fn take_streams(self: Arc<Self>) {
        let mut unclaimed = JoinSet::new();
        loop {
            tokio::select! {
                () = self.closed.cancelled() => return,
                Some(_) = unclaimed.join_next() => {}
                stream = self.session.accept(), if unclaimed.len() < MAX_UNCLAIMED => {
                    let Ok(stream) = stream else {
                        self.closed.cancel();
                        return;
                    };
                    unclaimed.spawn(self.clone().route(stream));
                }
            }
        }
    }

    async fn route(self: Arc<Self>, mut stream: yamux::Stream) {
        let mut id = [0; 4];
        let read = tokio::time::timeout(self.wait, stream.read_exact(&mut id)).await;
        let Ok(Ok(_)) = read else {
            tracing::debug!("a brokered stream came without an id");
            return;
        };
        let id = BrokerId(u32::from_le_bytes(id));
        let number = stream.id();
        let claim = Claim {
            id,
            stream,
            wait: self.wait,
        };
        let (parked, taken) = oneshot::channel();
        {
            let mut ids = self.ids();
            match ids.get(&id) {
                Some(IdState::Open(listener)) => {
                    if listener.try_send(claim.acknowledge().boxed()).is_err() {
                        tracing::warn!(id = id.0, "a broker id is dialled faster than accepted");
                    }
                    return;
                }
                Some(IdState::Early { .. }) => {
                    tracing::debug!(id = id.0, "a broker id was dialled twice and not accepted");
                    return;
                }
                None => ids.insert(
                    id,
                    IdState::Early {
                        claim,
                        _parked: parked,
                    },
                ),
            };
        }
        if tokio::time::timeout(self.wait, taken).await.is_ok() {
            return;
        }
        let mut ids = self.ids();
        if let Some(IdState::Early { claim: early, .. }) = ids.get(&id)
            && early.stream.id() == number
        {
            tracing::debug!(id = id.0, "a broker id was dialled and never accepted");
            ids.remove(&id);
        }
    }
}
