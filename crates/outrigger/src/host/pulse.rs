//! Whether a plugin is well: before it is called, and while it runs.

use std::sync::Arc;
use std::time::Duration;

use outrigger_host::{Health, RunningPlugin};
use outrigger_transport::OwnedTask;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::supervision::Supervision;

/// How often a plugin that is not serving yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until the plugin does not say any more that it is not serving: until
/// `deadline`, which is `limit` after its start.
pub(super) async fn serves(
    plugin: &RunningPlugin,
    deadline: Instant,
    limit: Duration,
) -> Result<(), Error> {
    let not_serving = |source| {
        let plugin = plugin.identity().name().to_owned();
        Error::from(ErrorKind::NotServing {
            plugin,
            limit,
            source,
        })
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match plugin.health(left).await {
            Ok(Health::NotServing) => {}
            Ok(Health::Serving | Health::Unknown) => return Ok(()),
            Err(error) => return Err(not_serving(Some(error))),
        }
        if Instant::now() + ASK_AGAIN >= deadline {
            return Err(not_serving(None));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What asking a running plugin showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// It answers again.
    Answered,
    /// It left so many pings in a row unanswered.
    Missed(u32),
}

/// Asks a running plugin whether it is well, for as long as this lives.
pub(super) struct Pulse {
    beats: mpsc::Receiver<Beat>,
    _asking: Option<OwnedTask>,
}

impl Pulse {
    pub(super) fn take(plugin: &Arc<RunningPlugin>, rules: &Supervision) -> Self {
        let (sender, beats) = mpsc::channel(1);
        let (plugin, limit) = (plugin.clone(), rules.ping_timeout);
        let asking = rules
            .ping_every
            .map(|every| OwnedTask::spawn(ask(plugin, every, limit, sender)));
        Self {
            beats,
            _asking: asking,
        }
    }

    /// The next change.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Beat {
        match self.beats.recv().await {
            Some(beat) => beat,
            // It is not asked.
            None => std::future::pending().await,
        }
    }
}

async fn ask(
    plugin: Arc<RunningPlugin>,
    every: Duration,
    limit: Duration,
    beats: mpsc::Sender<Beat>,
) {
    let mut missed = 0;
    loop {
        tokio::time::sleep(every).await;
        if plugin.is_paused() {
            continue;
        }
        let beat = match plugin.health(limit).await {
            Ok(_) if missed == 0 => continue,
            Ok(_) => {
                missed = 0;
                Beat::Answered
            }
            // Who holds it, such as a debugger, will let it go on.
            Err(_) if plugin.is_paused() => continue,
            Err(_) => {
                missed += 1;
                Beat::Missed(missed)
            }
        };
        if beats.send(beat).await.is_err() {
            return;
        }
    }
}
