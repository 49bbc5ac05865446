//! The streams of a multiplexed broker, and which of them belongs to which id.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_wire::BrokerId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::BrokerErrorKind;
use crate::stream::Stream;
use crate::yamux::Session;

/// Ids that one side accepts at the same time.
pub(super) const MAX_LISTENERS: usize = 1024;
/// Streams that wait for their listener to take them.
pub(super) const LISTENER_BACKLOG: usize = 16;
/// How long an armed id waits for its stream, and a knock for its listener.
const ARMED: Duration = Duration::from_secs(5);
/// A knock without a listener is answered before its dialler gives up.
pub(super) const KNOCK_HELD: Duration = Duration::from_millis(4500);

#[derive(Debug)]
pub(super) struct Mux {
    pub(super) session: Session,
    pub(super) dialling: tokio::sync::Mutex<()>,
    ids: Mutex<Ids>,
    /// Streams that the peer waits for and nobody here wants.
    owed: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) listeners: HashMap<BrokerId, mpsc::Sender<Stream>>,
    /// Knocks whose listener does not exist yet.
    pub(super) knocks: HashMap<BrokerId, Instant>,
    /// Who gets the next streams, and since when.
    armed: VecDeque<(BrokerId, Instant)>,
}

impl Ids {
    /// The next stream that no other armed id waits for belongs to `id`.
    pub(super) fn arm(&mut self, id: BrokerId) {
        self.armed.push_back((id, Instant::now()));
    }

    pub(super) fn armed(&self) -> usize {
        self.armed.len()
    }
}

impl Mux {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            dialling: tokio::sync::Mutex::new(()),
            ids: Mutex::default(),
            owed: AtomicUsize::new(0),
        }
    }

    pub(super) fn ids(&self) -> std::sync::MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens and closes the streams that the peer still waits for.
    pub(super) async fn settle(&self) -> Result<(), BrokerErrorKind> {
        for _ in 0..self.owed.swap(0, Ordering::Relaxed) {
            drop(
                self.session
                    .open()
                    .await
                    .map_err(BrokerErrorKind::Session)?,
            );
        }
        Ok(())
    }

    /// The id that the next stream belongs to.
    pub(super) fn take_armed(&self) -> Option<BrokerId> {
        let mut ids = self.ids();
        while let Some((id, at)) = ids.armed.pop_front() {
            if at.elapsed() <= ARMED {
                return Some(id);
            }
        }
        None
    }

    pub(super) fn deliver(&self, id: BrokerId, stream: Stream) {
        let listener = self.ids().listeners.get(&id).cloned();
        let delivered = listener.is_some_and(|listener| listener.try_send(stream).is_ok());
        if !delivered {
            tracing::warn!(
                id = id.0,
                "a brokered stream came and nobody takes it; closed"
            );
        }
    }

    pub(super) fn forget(&self, id: BrokerId) {
        self.ids().listeners.remove(&id);
    }

    /// The peer armed an id after its dialler gave up: the stream that it waits for
    /// is opened and closed before any other.
    pub(super) async fn acknowledged_too_late(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
        // Otherwise who dials now settles it.
        if let Ok(_one_at_a_time) = self.dialling.try_lock()
            && let Err(error) = self.settle().await
        {
            tracing::debug!(%error, "the session is over");
        }
    }
}
