//! A plugin's process, and what this host has of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_transport::OwnedTask;

use crate::aside::Aside;
use crate::logs::Tail;
use crate::runner::AttachedRunner;
use crate::workspace::Places;

/// A process with its output and its places. Dropping it lets the process go,
/// which ends it unless it is only visited, and then removes its places.
pub(crate) struct OwnedProcess {
    owned: Aside<Owned>,
    pub(crate) output: Output,
    pub(crate) began: Instant,
}

struct Owned {
    process: Arc<dyn AttachedRunner>,
    /// Dropped after the process.
    places: Places,
}

/// The tasks that read what a process prints.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) stdout: Option<OwnedTask>,
    pub(crate) stderr: Option<OwnedTask>,
    /// The last lines of stderr.
    pub(crate) tail: Tail,
}

impl Output {
    /// Waits until both streams have ended and all of them was read, for at most
    /// `limit`: a grandchild may hold them open for ever.
    pub(crate) async fn ended(&mut self, limit: Duration) {
        let ended = async {
            for task in [&mut self.stderr, &mut self.stdout].into_iter().flatten() {
                task.finished().await;
            }
        };
        let _ = tokio::time::timeout(limit, ended).await;
    }
}

impl OwnedProcess {
    pub(crate) fn new(
        process: Arc<dyn AttachedRunner>,
        places: Aside<Places>,
        output: Output,
        began: Instant,
    ) -> Self {
        let owned = places.map(|places| Owned { process, places });
        Self {
            owned,
            output,
            began,
        }
    }

    pub(crate) fn process(&self) -> &Arc<dyn AttachedRunner> {
        &self.owned.process
    }

    pub(crate) fn places(&self) -> &Places {
        &self.owned.places
    }

    /// Waits until everything is gone: what the process started, when it has ended
    /// itself, and then its places.
    pub(crate) async fn gone(self) {
        self.owned.process.cleared().await;
        self.owned.dropped().await;
    }
}
