//! What an open connection moves, paced and recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::fault::Fault;
use crate::running::Running;
use crate::session::Session;

/// The account of one open connection: it paces what moves, and leaves one
/// record when the connection ends.
pub(crate) struct Account {
    session: Arc<Session>,
    open: Mutex<Option<Open>>,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// What goes when the connection ends, though its account may be kept.
struct Open {
    running: Running,
    /// The connection's place among the plugin's leases.
    _place: Box<dyn Send + Sync>,
}

impl Account {
    pub(crate) fn new(running: Running, place: impl Send + Sync + 'static) -> Self {
        Self {
            session: running.session().clone(),
            open: Mutex::new(Some(Open {
                running,
                _place: Box::new(place),
            })),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts a datagram for which there was no room.
    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a datagram that may not pass.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Progress more about what let the connection, or its peers, in.
    pub(crate) fn allowed_by(&self, rule: &str) {
        self.with(|running| running.allowed_by(rule));
    }

    /// Waits until `count` bytes may be moved that are no contents.
    pub(crate) async fn pace(&self, count: usize) {
        self.session.pace(count as u64).await;
    }

    /// Waits until what the peer sent may move on.
    pub(crate) async fn received(&self, count: usize) {
        self.session.pace(count as u64).await;
        self.with(|running| running.read(count as u64));
    }

    /// Waits until what the plugin sent may move on.
    pub(crate) async fn sent(&self, count: usize) {
        self.session.pace(count as u64).await;
        self.with(|running| running.wrote(count as u64));
    }

    fn with(&self, note: impl FnOnce(&Running)) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            note(&open.running);
        }
    }

    /// Records the end of the connection.
    pub(crate) fn end(&self) {
        if let Some(open) = self.take() {
            open.running.end(None);
        }
    }

    /// Records why it ended early, and says it to the plugin.
    pub(crate) fn fail(&self, fault: Fault) -> Status {
        match self.take() {
            Some(open) => open.running.fail(&fault),
            None => Status::internal("the connection has ended already"),
        }
    }

    fn take(&self) -> Option<Open> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = open.take()?;
        open.running.show(|shown| {
            let count = |counted: &AtomicU64| counted.load(Ordering::Relaxed);
            shown.number("dropped", count(&self.dropped));
            shown.number("refused", count(&self.refused));
        });
        Some(open)
    }
}

impl Drop for Account {
    /// What was not ended was given up, and is recorded as such.
    fn drop(&mut self) {
        drop(self.take());
    }
}
