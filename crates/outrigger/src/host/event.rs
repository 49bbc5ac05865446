//! What happens to the plugins of a host, with its causes.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::status::PluginState;
use crate::error::{Error, Failure};

/// How many events a reader may be behind before it misses some.
pub const EVENTS_KEPT: usize = 1024;

/// Something that happened to a plugin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Counts the events of the host, from 1.
    pub seq: u64,
    /// When.
    pub at: SystemTime,
    /// The plugin.
    pub plugin: String,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The plugin is in another state.
    State {
        /// The state that it is in now.
        state: PluginState,
        /// Which start of it this is about.
        generation: u64,
        /// Why.
        cause: Cause,
    },
    /// A reload has come one step further.
    Reload(ReloadStep),
}

/// How far a reload has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReloadStep {
    /// The new generation is started.
    Began {
        /// Its number.
        generation: u64,
    },
    /// The new generation serves, and gets no calls yet.
    Ready {
        /// Its number.
        generation: u64,
        /// Its process.
        pid: Option<u32>,
    },
    /// New calls go to the new generation.
    Swapped {
        /// Its number.
        generation: u64,
        /// That of the one before.
        from: u64,
        /// How many calls that one still has.
        in_flight: usize,
    },
    /// The last call of the generation before has ended.
    Drained {
        /// Its number.
        generation: u64,
    },
    /// The generation before had calls for longer than it may
    /// ([`Supervision::drain`](crate::Supervision::drain)), which were ended.
    Cut {
        /// Its number.
        generation: u64,
        /// How many.
        calls: usize,
    },
    /// The generation before was stopped.
    Stopped {
        /// Its number.
        generation: u64,
    },
    /// The new generation is not fit to serve; the one before does.
    Kept {
        /// Why.
        why: Error,
    },
    /// The new generation failed while it was on trial; the one before serves again.
    RolledBack {
        /// The number of the one before.
        generation: u64,
        /// How the new one failed.
        why: Failure,
    },
}

impl fmt::Display for ReloadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { generation } => write!(f, "generation {generation} is started"),
            Self::Ready { generation, .. } => write!(f, "generation {generation} is ready"),
            Self::Swapped {
                generation,
                from,
                in_flight,
            } => write!(
                f,
                "calls go to generation {generation}; generation {from} has {in_flight} left"
            ),
            Self::Drained { generation } => {
                write!(f, "generation {generation} has ended its last call")
            }
            Self::Cut { generation, calls } => write!(
                f,
                "{calls} calls of generation {generation} were ended when their time was over (`drain`)"
            ),
            Self::Stopped { generation } => write!(f, "generation {generation} was stopped"),
            Self::Kept { why } => write!(f, "not done, what ran before goes on: {why}"),
            Self::RolledBack { generation, why } => {
                write!(f, "taken back to generation {generation}: {why}")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EventKind::State { state, cause, .. } => {
                write!(f, "{}: {} because {cause}", self.plugin, state.as_str())
            }
            EventKind::Reload(step) => write!(f, "{}: reload: {step}", self.plugin),
        }
    }
}

/// Why a plugin is in another state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The application or an operator asked for it.
    Asked,
    /// Somebody wanted to call it.
    Called,
    /// A plugin that requires it is started.
    RequiredBy(String),
    /// It answered, and says that it serves.
    Answered,
    /// It left so many pings in a row unanswered.
    Unanswered(u32),
    /// It failed.
    Failed(Failure),
    /// It failed more often than it may.
    FailedTooOften(Failure),
    /// The wait after its failure is over.
    Waited,
    /// What its folder holds now takes the place of what ran.
    Reloaded,
    /// What took its place failed.
    RolledBack(Failure),
    /// It ended by itself, and is not started again for that.
    Ended,
    /// Nobody called it for a while.
    Idle,
    /// It was stopped, and nothing is left of it.
    Gone,
    /// Its folder is gone.
    Removed,
    /// The host is shut down.
    Shutdown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("that was asked for"),
            Self::Called => f.write_str("it is called"),
            Self::RequiredBy(plugin) => write!(f, "`{plugin}` requires it"),
            Self::Answered => f.write_str("it answers"),
            Self::Unanswered(missed) => write!(f, "it left {missed} pings in a row unanswered"),
            Self::Failed(why) => why.fmt(f),
            Self::FailedTooOften(why) => write!(f, "it failed too often: {why}"),
            Self::Waited => f.write_str("the wait after its failure is over"),
            Self::Reloaded => f.write_str("it is reloaded"),
            Self::RolledBack(why) => write!(f, "what took its place failed: {why}"),
            Self::Ended => f.write_str("it ended by itself"),
            Self::Idle => f.write_str("nobody called it for a while"),
            Self::Gone => f.write_str("nothing is left of it"),
            Self::Removed => f.write_str("its folder is gone"),
            Self::Shutdown => f.write_str("the host is shut down"),
        }
    }
}

/// Reads the events of a host, from when it was made.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let host = outrigger::Settings::new().host(folder.path()).await?;
/// let mut events = host.events();
/// drop(host);
/// assert!(events.next().await.is_none());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// Events that a reader was too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} events were missed: the reader was more than {EVENTS_KEPT} behind")]
pub struct Missed {
    /// How many.
    pub count: u64,
}

impl Events {
    /// The next event; `None` once the host is gone.
    ///
    /// # Errors
    /// [`Missed`], once, where events are lost to this reader. The following ones
    /// are there.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, Missed>> {
        use broadcast::error::RecvError;
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(count)) => Some(Err(Missed { count })),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where the plugins of a host say what happens.
#[derive(Debug)]
pub(super) struct Journal {
    /// How many there were. Events leave in the order of their numbers.
    count: Mutex<u64>,
    sender: broadcast::Sender<Event>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            count: Mutex::new(0),
            sender: broadcast::Sender::new(EVENTS_KEPT),
        }
    }

    pub(super) fn tell(&self, plugin: &str, kind: EventKind) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        // Nobody may be reading.
        let _ = self.sender.send(Event {
            seq: *count,
            at: SystemTime::now(),
            plugin: plugin.to_owned(),
            kind,
        });
    }

    pub(super) fn events(&self) -> Events {
        Events(self.sender.subscribe())
    }
}
