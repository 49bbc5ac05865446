//! One process of a plugin.

use std::sync::Arc;

use outrigger_host::RunningPlugin;
use tokio::time::Instant;

/// One process of the plugin, from its start to its end.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) plugin: Arc<RunningPlugin>,
    pub(super) digest: Option<String>,
    pub(super) since: Instant,
}

/// A plugin that serves, and what its program had to hash to.
pub(super) struct Launched {
    pub(super) plugin: Arc<RunningPlugin>,
    pub(super) digest: Option<String>,
}

impl Generation {
    pub(super) fn new(number: u64, launched: Launched) -> Self {
        Self {
            number,
            plugin: launched.plugin,
            digest: launched.digest,
            since: Instant::now(),
        }
    }
}
