//! Where the task of one plugin says how the plugin is.

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_host::ExitReport;
use tokio::sync::watch;

use super::event::{Cause, EventKind, Journal, ReloadStep};
use super::generation::Generation;
use super::status::{PluginState, PluginStatus};
use crate::plugin::Plugin;
use crate::settings::AtReloadStep;

/// The status of one plugin, which its task alone changes.
pub(super) struct Board {
    status: watch::Sender<PluginStatus>,
    journal: Arc<Journal>,
    at_step: Option<Arc<AtReloadStep>>,
}

impl Board {
    pub(super) fn new(plugin: &Plugin, journal: Arc<Journal>) -> Self {
        let at_step = plugin.settings().step_hook();
        let manifest = plugin.manifest();
        let status = PluginStatus {
            name: plugin.name().to_owned(),
            version: manifest.version().map(ToString::to_string),
            kind: manifest.kind().map(str::to_owned),
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
            at_step,
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
            PluginState::Backoff { .. }
            | PluginState::Failed { .. }
            | PluginState::NeedsApproval(_) => {
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

    /// The plugin is started: for the time of this number.
    pub(super) fn starts(&self, generation: u64) {
        self.status
            .send_modify(|status| status.generation = generation);
    }

    /// This is what its folder holds now.
    pub(super) fn holds(&self, plugin: &Plugin) {
        self.status.send_modify(|status| {
            let manifest = plugin.manifest();
            status.version = manifest.version().map(ToString::to_string);
            status.folder = plugin.places().plugin_dir().to_owned();
        });
    }

    /// A reload has come so far.
    pub(super) fn step(&self, step: ReloadStep) {
        let plugin = self.status.borrow().name.clone();
        if let Some(at_step) = &self.at_step {
            at_step(&plugin, &step);
        }
        tracing::info!(plugin, "reload: {step}");
        self.journal.tell(&plugin, EventKind::Reload(step));
    }

    /// It failed and will be started anew.
    pub(super) fn restarts(&self) {
        self.status.send_modify(|status| status.restarts += 1);
    }

    pub(super) fn runs(&self, generation: &Generation) {
        let plugin = &generation.plugin;
        self.status.send_modify(|status| {
            status.generation = generation.number;
            status.pid = plugin.pid();
            status.transport = Some(plugin.transport());
            status.digest = generation.digest.clone();
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
