//! When a connection ends, whatever its two ends do: kept by a task of its own,
//! because a plugin that takes nothing keeps everything else waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_transport::OwnedTask;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::account::Account;
use super::failure;
use super::settings::NetworkLimits;
use crate::fault::Fault;

/// What stands for a moment that can never come.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The moment `wait` after `from`, whatever a host has set.
pub(crate) fn after(from: Instant, wait: Duration) -> Instant {
    from.checked_add(wait).unwrap_or_else(|| from + NEVER)
}

/// When something last moved.
pub(crate) struct Activity {
    started: Instant,
    last_millis: AtomicU64,
    idle: Duration,
    total: Duration,
}

impl Activity {
    pub(crate) fn new(limits: &NetworkLimits) -> Self {
        Self {
            started: Instant::now(),
            last_millis: AtomicU64::new(0),
            idle: limits.idle_timeout,
            total: limits.total_timeout,
        }
    }

    /// Of what may lie idle for as long as the plugin wants it.
    pub(crate) fn endless() -> Self {
        Self {
            started: Instant::now(),
            last_millis: AtomicU64::new(0),
            idle: Duration::MAX,
            total: Duration::MAX,
        }
    }

    pub(crate) fn note(&self) {
        let millis = self.started.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// When the connection ends unless something moves, and why.
    fn deadline(&self) -> (Instant, Fault) {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        let idle = after(after(self.started, last), self.idle);
        let total = after(self.started, self.total);
        match idle < total {
            true => (idle, failure::late("idle_timeout", self.idle)),
            false => (total, failure::late("total_timeout", self.total)),
        }
    }

    /// Waits until nothing has moved for too long, or it has lasted too long.
    pub(crate) async fn over(&self) -> Fault {
        loop {
            let (deadline, late) = self.deadline();
            if deadline <= Instant::now() {
                return late;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// Ends a connection in time; ends with this value.
pub(crate) struct Watch {
    late: mpsc::Receiver<Status>,
    _task: OwnedTask,
}

impl Watch {
    /// When time is up, the end is recorded and `cut` stops what still moves.
    pub(crate) fn new(
        activity: Arc<Activity>,
        account: Arc<Account>,
        cut: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (tell, late) = mpsc::channel(1);
        let task = async move {
            let fault = activity.over().await;
            // Told before anybody can notice the cut.
            let _ = tell.try_send(account.fail(fault));
            cut();
        };
        Self {
            late,
            _task: OwnedTask::spawn(task),
        }
    }

    /// What the plugin is told, if time is up.
    pub(crate) fn told(&mut self) -> Option<Status> {
        self.late.try_recv().ok()
    }

    /// Waits until time is up and [`told`](Self::told) was not asked before.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn late(&mut self) -> Status {
        match self.late.recv().await {
            Some(status) => status,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_never_comes_is_none() {
        let limits = NetworkLimits {
            idle_timeout: Duration::MAX,
            total_timeout: Duration::from_secs(7),
            ..NetworkLimits::default()
        };
        let activity = Activity::new(&limits);
        let started = Instant::now();
        activity.note();
        activity.over().await;
        assert_eq!(started.elapsed(), Duration::from_secs(7));
        let limits = NetworkLimits {
            total_timeout: Duration::MAX,
            ..limits
        };
        assert!(Activity::new(&limits).deadline().0 > started + NEVER / 2);
    }
}
