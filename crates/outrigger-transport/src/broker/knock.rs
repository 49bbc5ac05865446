//! The multiplexed mode: brokered connections are streams of one session.
//!
//! A stream carries no id. The dialling side knocks with the id over the
//! control stream, the accepting side arms that id and acknowledges, and the
//! next stream that the dialling side opens belongs to it. So dials of one side
//! follow one after another.

use std::sync::Arc;

use outrigger_wire::{BrokerId, BrokerMessage};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::inbox::{Arrival, MAX_PENDING};
use super::listener::{Listener, Registration, Source};
use super::mux::{KNOCK_HELD, LISTENER_BACKLOG, MAX_LISTENERS, Mux};
use super::shared::Shared;
use super::{BrokerError, BrokerErrorKind};
use crate::stream::Stream;
use crate::yamux::YamuxError;

pub(super) async fn accept(
    shared: &Arc<Shared>,
    mux: &Mux,
    id: BrokerId,
) -> Result<Listener, BrokerError> {
    if shared.closed.is_cancelled() {
        return Err(shared.error(id, BrokerErrorKind::Closed));
    }
    let (listener, ready) = {
        let mut ids = mux.ids();
        if ids.listeners.contains_key(&id) {
            return Err(shared.error(id, BrokerErrorKind::AlreadyAccepted));
        }
        if ids.listeners.len() >= MAX_LISTENERS {
            return Err(shared.error(id, BrokerErrorKind::TooManyListeners(MAX_LISTENERS)));
        }
        let (sender, receiver) = mpsc::channel(LISTENER_BACKLOG);
        ids.listeners.insert(id, sender);
        let owner = Arc::downgrade(shared);
        let listener =
            shared
                .listener(id, Source::Streams(receiver))
                .registered(Registration::new(move || {
                    if let Some(mux) = owner.upgrade().as_deref().and_then(|s| s.mux.as_ref()) {
                        mux.forget(id);
                    }
                }));
        let knocked = ids
            .knocks
            .remove(&id)
            .is_some_and(|at| at.elapsed() < KNOCK_HELD);
        if knocked {
            ids.arm(id);
        }
        (listener, knocked)
    };
    if ready {
        shared
            .send(BrokerMessage::KnockAck { id, error: None })
            .await
            .map_err(|kind| shared.error(id, kind))?;
    }
    Ok(listener)
}

/// The peer wants to open a stream for `id`.
pub(super) async fn knocked(shared: &Arc<Shared>, mux: &Mux, id: BrokerId) {
    let listening = {
        let mut ids = mux.ids();
        let listening = ids.listeners.contains_key(&id);
        if listening && ids.armed() < MAX_PENDING {
            ids.arm(id);
        } else if listening {
            tracing::warn!(
                id = id.0,
                limit = MAX_PENDING,
                "too many knocks without a stream; dropped"
            );
            return;
        } else if let Some(at) = ids.knocks.get_mut(&id) {
            // Its one answer waits for this knock now.
            *at = Instant::now();
            return;
        } else if ids.knocks.len() < MAX_PENDING {
            ids.knocks.insert(id, Instant::now());
        } else {
            tracing::warn!(id = id.0, limit = MAX_PENDING, "too many knocks; dropped");
            return;
        }
        listening
    };
    if listening {
        acknowledge(shared, id, None).await;
    } else {
        let shared = shared.clone();
        // Ends by itself after `KNOCK_HELD`, or with the broker.
        tokio::spawn(async move {
            tokio::select! {
                () = shared.closed.cancelled() => {}
                () = answer_stale(&shared, id) => {}
            }
        });
    }
}

async fn answer_stale(shared: &Shared, id: BrokerId) {
    let Some(mux) = &shared.mux else { return };
    loop {
        // A listener took the knock when it is gone.
        let Some(at) = mux.ids().knocks.get(&id).copied() else {
            return;
        };
        if at.elapsed() >= KNOCK_HELD {
            break;
        }
        tokio::time::sleep_until(at + KNOCK_HELD).await;
    }
    mux.ids().knocks.remove(&id);
    acknowledge(shared, id, Some(format!("no listener for id {}", id.0))).await;
}

async fn acknowledge(shared: &Shared, id: BrokerId, error: Option<String>) {
    if let Err(kind) = shared.send(BrokerMessage::KnockAck { id, error }).await {
        tracing::debug!(id = id.0, %kind, "could not answer a knock");
    }
}

/// Dials in a task of its own: once the peer has armed the id, a stream must
/// follow, or the next stream would be taken for this one.
pub(super) async fn dial(shared: &Arc<Shared>, id: BrokerId) -> Result<Stream, BrokerError> {
    let (sender, dialled) = oneshot::channel();
    let dialling = shared.clone();
    // Ends by itself after the broker's wait, or with the broker.
    tokio::spawn(async move {
        let dialled = tokio::select! {
            () = dialling.closed.cancelled() => Err(BrokerErrorKind::Closed),
            missing = dialling.known_missing() => Err(missing),
            dialled = knock_and_open(&dialling, id) => dialled,
        };
        // A stream that nobody waits for any more is closed.
        let _ = sender.send(dialled);
    });
    let dialled = dialled.await.unwrap_or(Err(BrokerErrorKind::Closed));
    dialled.map_err(|kind| shared.error(id, kind))
}

async fn knock_and_open(shared: &Shared, id: BrokerId) -> Result<Stream, BrokerErrorKind> {
    let Some(mux) = &shared.mux else {
        return Err(BrokerErrorKind::Closed);
    };
    let _one_at_a_time = mux.dialling.lock().await;
    shared.inbox.clear(id);
    shared.send(BrokerMessage::Knock { id }).await?;
    match shared.inbox.take(id, shared.options.wait).await? {
        Arrival::Ack(None) => {}
        Arrival::Ack(Some(reason)) => return Err(BrokerErrorKind::Refused(reason)),
        Arrival::Address(_) => {
            let text = "it announced a socket, but this connection is multiplexed".to_owned();
            return Err(BrokerErrorKind::Refused(text));
        }
    }
    mux.settle().await?;
    let stream = mux.session.open().await;
    Ok(Box::new(stream.map_err(BrokerErrorKind::Session)?))
}

/// The host's side: every stream belongs to the armed id; one that nobody
/// knocked for is closed and not left for the next listener.
pub(super) async fn accept_armed(shared: Arc<Shared>) {
    let Some(mux) = &shared.mux else { return };
    loop {
        let accepted = tokio::select! {
            () = shared.closed.cancelled() => return,
            accepted = mux.session.accept() => accepted,
        };
        match (accepted, mux.take_armed()) {
            (Ok(stream), Some(id)) => mux.deliver(id, Box::new(stream)),
            (Ok(_), None) => tracing::warn!("the plugin opened a stream without a knock; closed"),
            (Err(_), _) => return shared.close(),
        }
    }
}

/// The plugin's side: every stream belongs to the armed id, or else to the
/// plugin's own services.
pub(super) async fn next_unclaimed(shared: &Shared) -> Result<Stream, YamuxError> {
    let Some(mux) = &shared.mux else {
        return std::future::pending().await;
    };
    loop {
        let stream = mux.session.accept().await?;
        match mux.take_armed() {
            Some(id) => mux.deliver(id, Box::new(stream)),
            None => return Ok(Box::new(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerOptions, Side};
    use crate::yamux::{Config, Role, Session};

    /// A host's broker, and what it tells its plugin.
    fn broker() -> (
        Arc<Shared>,
        mpsc::Receiver<outrigger_wire::proto::plugin::ConnInfo>,
    ) {
        let (socket, _) = tokio::io::duplex(1024);
        let session = Session::new(socket, Role::Client, Config::default());
        let shared = Arc::new(Shared::new(BrokerOptions::new(Side::Host), Some(session)));
        let (sender, receiver) = mpsc::channel(10_000);
        shared.attach(sender).expect("open");
        (shared, receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn many_knocks_for_one_id_wait_for_one_answer() {
        let (shared, mut told) = broker();
        let mux = shared.mux.as_ref().expect("multiplexed");
        let before = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        for _ in 0..5_000 {
            knocked(&shared, mux, BrokerId(7)).await;
        }
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert!(tasks <= before + 1, "{before} tasks became {tasks}");
        let answer = told.recv().await.expect("an answer");
        assert_eq!(answer.service_id, 7);
        assert!(answer.knock.is_some_and(|knock| !knock.error.is_empty()));
        shared.close();
        assert!(told.try_recv().is_err(), "one answer is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn knocks_without_streams_stay_bounded() {
        let (shared, told) = broker();
        let mux = shared.mux.as_ref().expect("multiplexed");
        let _listener = accept(&shared, mux, BrokerId(7)).await.expect("accepted");
        for _ in 0..5_000 {
            knocked(&shared, mux, BrokerId(7)).await;
        }
        assert_eq!(mux.ids().armed(), MAX_PENDING);
        assert_eq!(told.len(), MAX_PENDING);
    }
}
