//! Where the task of one plugin says how the plugin is.

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_host::{ExitReport, RunningPlugin};
use tokio::sync::watch;

use super::event::{Cause, EventKind, Journal};
use super::status::{PluginState, PluginStatus};
use crate::plugin::Plugin;

/// The status of one plugin, which its task alone changes.
pub(super) struct Board {
    status: watch::Sender<PluginStatus>,
    journal: Arc<Journal>,
}

impl Board {
    pub(super) fn new(plugin: &Plugin, journal: Arc<Journal>) -> Self {
        let manifest = plugin.manifest();
        let status = PluginStatus {
            name: plugin.name().to_owned(),
            version: manifest.version().map(ToString::to_string),
            folder: plugin.places().plugin_dir().to_owned(),
            transport: Some(manifest.transport()),
            state: PluginState::Installed,
            since: SystemTime::now(),
            generation: 0,
            pid: None,
            restarts: 0,
            digest: None,
            reattach: None,
            last_exit: None,
        };
        Self {
            status: watch::Sender::new(status),
            journal,
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<PluginStatus> {
        self.status.subscribe()
    }

    pub(super) fn state(&self) -> PluginState {
        self.status.borrow().state.clone()
    }

    pub(super) fn last_exit(&self) -> Option<ExitReport> {
        self.status.borrow().last_exit.clone()
    }

    /// The plugin is in another state now.
    pub(super) fn set(&self, state: PluginState, cause: Cause) {
        let mut generation = 0;
        self.status.send_modify(|status| {
            generation = status.generation;
            status.since = SystemTime::now();
            status.state = state.clone();
        });
        let plugin = self.status.borrow().name.clone();
        let shown = format_args!("{}", state.as_str());
        match &state {
            PluginState::Backoff { .. } | PluginState::Failed { .. } => {
                tracing::warn!(plugin, state = shown, generation, "{cause}");
            }
            _ => tracing::info!(plugin, state = shown, generation, "{cause}"),
        }
        self.journal.tell(
            &plugin,
            EventKind::State {
                state,
                generation,
                cause,
            },
        );
    }

    /// The plugin is started once more.
    pub(super) fn starts(&self) -> u64 {
        self.status.send_modify(|status| status.generation += 1);
        self.status.borrow().generation
    }

    /// It failed and will be started anew.
    pub(super) fn restarts(&self) {
        self.status.send_modify(|status| status.restarts += 1);
    }

    pub(super) fn runs(&self, plugin: &RunningPlugin, digest: Option<String>) {
        self.status.send_modify(|status| {
            status.pid = plugin.pid();
            status.transport = Some(plugin.transport());
            status.digest = digest;
            status.reattach = Some(plugin.reattach());
        });
    }

    pub(super) fn is_gone(&self, report: &ExitReport) {
        self.status.send_modify(|status| {
            status.pid = None;
            status.reattach = None;
            status.last_exit = Some(report.clone());
        });
    }
}
