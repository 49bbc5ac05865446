//! A generation that was replaced: its calls end, it stays in reserve while its
//! successor is on trial, and then it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_host::RunningPlugin;
use outrigger_transport::{Draining, OwnedTask};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::board::Board;
use super::event::ReloadStep;
use super::generation::Generation;
use crate::supervision::Supervision;

pub(super) struct Retiring {
    generation: Generation,
    claim: Arc<Claim>,
    /// The generation is not kept in reserve any longer.
    release: Arc<Notify>,
    task: OwnedTask,
}

/// Who decides what becomes of the generation: the first who asks.
#[derive(Default)]
struct Claim(AtomicBool);

impl Claim {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Retiring {
    pub(super) fn begin(
        generation: Generation,
        draining: Option<Draining>,
        rules: &Supervision,
        board: Arc<Board>,
    ) -> Self {
        let (claim, release) = (Arc::new(Claim::default()), Arc::new(Notify::new()));
        let task = OwnedTask::spawn(retire(
            Retired {
                number: generation.number,
                plugin: generation.plugin.clone(),
                draining,
                claim: claim.clone(),
                release: release.clone(),
                board,
            },
            rules.clone(),
        ));
        Self {
            generation,
            claim,
            release,
            task,
        }
    }

    /// Ends its time in reserve: another reload waits for its place.
    pub(super) fn release(&self) {
        self.release.notify_one();
    }

    /// Waits until nothing is left of it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn over(&mut self) {
        self.task.finished().await;
    }

    /// Takes it back, if it runs and is not stopped already.
    pub(super) fn take_back(self) -> Result<Generation, Self> {
        match self.generation.plugin.exited().is_none() && self.claim.take() {
            true => Ok(self.generation),
            false => Err(self),
        }
    }
}

struct Retired {
    number: u64,
    plugin: Arc<RunningPlugin>,
    draining: Option<Draining>,
    claim: Arc<Claim>,
    release: Arc<Notify>,
    board: Arc<Board>,
}

async fn retire(mut old: Retired, rules: Supervision) {
    let trial = Instant::now() + rules.rollback_within;
    if let Some(draining) = old.draining.take() {
        let generation = old.number;
        tokio::select! {
            () = draining.drained() => old.board.step(ReloadStep::Drained { generation }),
            // Its calls fail with the reason.
            _ = old.plugin.wait() => {}
            () = tokio::time::sleep(rules.drain) => {
                let calls = draining.in_flight();
                draining.end();
                old.board.step(ReloadStep::Cut { generation, calls });
            }
        }
    }
    tokio::select! {
        () = tokio::time::sleep_until(trial) => {}
        () = old.release.notified() => {}
        _ = old.plugin.wait() => {}
    }
    if old.claim.take() {
        old.plugin.stop().await;
        let generation = old.number;
        old.board.step(ReloadStep::Stopped { generation });
    }
}
