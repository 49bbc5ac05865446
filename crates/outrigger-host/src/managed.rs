//! Plugins that are stopped together at the end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::plugin::{Inner, RunningPlugin};

static MANAGED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

pub(crate) fn register(plugin: &RunningPlugin) {
    let mut managed = MANAGED.lock().unwrap_or_else(PoisonError::into_inner);
    managed.retain(|plugin| plugin.strong_count() > 0);
    managed.push(Arc::downgrade(plugin.inner()));
}

/// Stops every plugin that was launched as managed, all at the same time.
///
/// # Cancel safety
/// When the future is dropped, some plugins may still run; call it again.
pub async fn stop_managed() {
    let plugins: Vec<_> = {
        let mut managed = MANAGED.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *managed)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    };
    futures_util::future::join_all(plugins.iter().map(|plugin| plugin.stop(None))).await;
}
