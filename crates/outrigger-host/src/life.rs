//! What is known of a plugin's life: whether it runs, who ends it, how it ended.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::{ExitReport, ExitStatus, KillReason};
use crate::logs::Tail;

/// Shared by a plugin's handles and whoever watches its process.
pub(crate) struct Life {
    /// The name that the host gave the plugin.
    pub(crate) name: String,
    pub(crate) tail: Tail,
    /// The process has ended; what it left behind may still be there.
    pub(crate) ended: CancellationToken,
    /// Why this host killed it; the first reason stays.
    pub(crate) killed: OnceLock<KillReason>,
    exited: watch::Sender<Option<ExitReport>>,
    /// How many stop the plugin.
    stopping: watch::Sender<usize>,
}

impl Life {
    pub(crate) fn new(name: String, tail: Tail) -> Self {
        Self {
            name,
            tail,
            ended: CancellationToken::new(),
            killed: OnceLock::new(),
            exited: watch::Sender::new(None),
            stopping: watch::Sender::new(0),
        }
    }

    /// How the plugin ended, once nothing is left of it.
    pub(crate) fn exited(&self) -> Option<ExitReport> {
        self.exited.borrow().clone()
    }

    /// Tells everybody that nothing is left of the plugin.
    pub(crate) fn is_gone(&self, report: ExitReport) {
        self.ended.cancel();
        self.exited.send_replace(Some(report));
    }

    /// Waits until nothing is left of the plugin.
    pub(crate) async fn gone(&self) -> ExitReport {
        let mut exited = self.exited.subscribe();
        let report = exited.wait_for(Option::is_some).await;
        let report = report.ok().and_then(|report| report.clone());
        report.unwrap_or_else(|| self.unknown())
    }

    /// The report on a plugin of whose end nothing is known.
    pub(crate) fn unknown(&self) -> ExitReport {
        ExitReport {
            status: ExitStatus::Unknown,
            forced: false,
            kill_reason: None,
            connection_lost: None,
            ran: Duration::ZERO,
            stderr: self.tail.lines(),
        }
    }

    /// Notes that somebody stops the plugin and has deadlines of their own, until
    /// the returned value is dropped.
    pub(crate) fn stopping(&self) -> Stopping<'_> {
        self.stopping.send_modify(|stopping| *stopping += 1);
        Stopping(&self.stopping)
    }

    /// Waits until nobody stops the plugin.
    pub(crate) async fn left_alone(&self) {
        let mut stopping = self.stopping.subscribe();
        let _ = stopping.wait_for(|stopping| *stopping == 0).await;
    }
}

/// Somebody stops the plugin.
pub(crate) struct Stopping<'a>(&'a watch::Sender<usize>);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|stopping| *stopping -= 1);
    }
}
