//! Waits for a plugin's process to end, and tells everybody how.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Link;
use crate::exit::{ExitReport, ExitStatus, KillReason, PluginExited};
use crate::life::Life;
use crate::owned_process::OwnedProcess;
use crate::runner::AttachedRunner;

/// How long the last stderr lines of a process that ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Watches one plugin. Its task is owned by the plugin's handle.
pub(crate) struct Watch {
    /// Goes first when the watch is dropped.
    unwatched: Unwatched,
    held: OwnedProcess,
    link: Arc<Link>,
    lost_grace: Duration,
}

impl Watch {
    pub(crate) fn new(
        life: Arc<Life>,
        held: OwnedProcess,
        link: Arc<Link>,
        lost_grace: Duration,
        is_visit: bool,
    ) -> Self {
        Self {
            unwatched: Unwatched {
                life,
                process: held.process().clone(),
                began: held.began,
                is_visit,
            },
            held,
            link,
            lost_grace,
        }
    }

    pub(crate) async fn run(mut self) {
        let life = self.unwatched.life.clone();
        let process = self.unwatched.process.clone();
        let (status, connection_lost) = tokio::select! {
            biased;
            status = process.wait() => (status, None),
            // Without a process, the connection is all there is to watch.
            _ = self.link.closed(), if process.id().is_empty() => (ExitStatus::Unknown, None),
            why = self.useless(), if !self.unwatched.is_visit => self.end_useless(why).await,
        };
        // From now on nobody kills it any more.
        life.ended.cancel();
        let (kill_reason, ran) = (life.killed.get().copied(), self.held.began.elapsed());
        self.held.output.ended(LAST_WORDS).await;
        let forced = kill_reason.is_some();
        let report = ExitReport {
            status,
            forced,
            kill_reason,
            connection_lost,
            ran,
            stderr: life.tail.lines(),
        };
        let plugin = life.name.clone();
        if status.is_success() || forced || status == ExitStatus::Unknown {
            tracing::info!(plugin, "{status}");
        } else {
            tracing::error!(plugin, "{status}");
        }
        self.link.fate().set(Arc::new(PluginExited {
            plugin,
            report: report.clone(),
        }));
        self.link.broker().close();
        self.held.gone().await;
        life.is_gone(report);
    }

    /// Waits until the connection has been lost for so long that the plugin is not
    /// about to end by itself, and nobody stops it; returns why it was lost. A
    /// connection is never made again, so the plugin is of no more use.
    async fn useless(&self) -> String {
        let why = self.link.closed().await;
        tokio::time::sleep(self.lost_grace).await;
        self.unwatched.life.left_alone().await;
        why
    }

    async fn end_useless(&self, why: String) -> (ExitStatus, Option<String>) {
        let (life, process) = (&self.unwatched.life, &self.unwatched.process);
        let reason = KillReason::ConnectionLost(self.lost_grace);
        let lost = life.killed.set(reason).is_ok().then_some(why);
        if let Some(why) = &lost {
            tracing::error!(plugin = life.name, why, "killed: {reason}");
        }
        if let Err(error) = process.kill() {
            tracing::warn!(plugin = life.name, %error, "could not kill a plugin");
        }
        (process.wait().await, lost)
    }
}

/// A process that is watched no more, because its handle was dropped or its
/// runtime ended: it must not outlive them, and nobody learns how it ends.
struct Unwatched {
    life: Arc<Life>,
    process: Arc<dyn AttachedRunner>,
    began: Instant,
    is_visit: bool,
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if self.life.exited().is_some() {
            return;
        }
        let forced = !self.is_visit && !self.life.ended.is_cancelled();
        if forced {
            let _ = self.process.kill();
        }
        self.life.is_gone(ExitReport {
            forced,
            kill_reason: forced.then_some(KillReason::Unasked),
            ran: self.began.elapsed(),
            ..self.life.unknown()
        });
    }
}
