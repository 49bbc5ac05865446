//! What the metrics of a host learn of its plugins' lives.

use std::collections::BTreeMap;
use std::time::SystemTime;

use outrigger_wire::Coded;

use super::event::{Cause, Event, EventKind, Events, ReloadStep};
use super::status::{PluginState, PluginStatus};
use crate::metrics::{Life, Metrics, PluginMetrics};

/// Shows the states of the host's plugins in its metrics, and counts their starts, as
/// long as there is the host.
///
/// `list` gives the plugins; nothing once there is no host.
pub(super) fn count(
    metrics: &Metrics,
    events: Events,
    list: impl Fn() -> Option<Vec<PluginStatus>> + Send + 'static,
) {
    metrics.look_at(Box::new(move || Some(lives(list()?))));
    // It ends with the events, which end with the host.
    tokio::spawn(follow(events, metrics.clone()));
}

fn lives(plugins: Vec<PluginStatus>) -> Vec<Life> {
    let plugins = plugins.into_iter();
    let sound = plugins.filter(|status| !matches!(status.state, PluginState::Broken(_)));
    let lives = sound.map(|status| Life {
        state: status.state.as_str(),
        generation: status.generation,
        pid: status.pid,
        plugin: status.name,
    });
    lives.collect()
}

async fn follow(mut events: Events, metrics: Metrics) {
    let mut starting: BTreeMap<String, SystemTime> = BTreeMap::new();
    while let Some(event) = events.next().await {
        let Ok(Event {
            at, plugin, kind, ..
        }) = event
        else {
            // Some were missed: of what began then nobody knows how long it took.
            starting.clear();
            continue;
        };
        let counted = metrics.plugin(&plugin);
        let (state, generation, cause) = match kind {
            EventKind::State {
                state,
                generation,
                cause,
            } => (state, generation, cause),
            EventKind::Reload(ReloadStep::Began { .. }) => {
                counted.starts();
                starting.insert(plugin, at);
                continue;
            }
            EventKind::Reload(ReloadStep::Ready { .. }) => {
                serves(&counted, starting.remove(&plugin), at);
                continue;
            }
            EventKind::Reload(ReloadStep::Swapped { .. }) => {
                counted.restarts("reload");
                continue;
            }
            EventKind::Reload(_) => continue,
        };
        let began = starting.remove(&plugin);
        match state {
            PluginState::Starting => {
                counted.starts();
                if generation > 1 && matches!(cause, Cause::Asked) {
                    counted.restarts("asked");
                }
                starting.insert(plugin, at);
            }
            PluginState::Running => serves(&counted, began, at),
            PluginState::Backoff { why, .. } => counted.restarts(why.code()),
            _ => {}
        }
    }
}

/// It has served since `at`, if it is known when it `began`.
fn serves(counted: &PluginMetrics, began: Option<SystemTime>, at: SystemTime) {
    if let Some(took) = began.and_then(|began| at.duration_since(began).ok()) {
        counted.serves(took);
    }
}
