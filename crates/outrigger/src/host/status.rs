//! What is known of a supervised plugin from outside.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use outrigger_host::{ExitReport, Reattach};
use outrigger_manifest::Transport;

use crate::error::{Error, Failure};

/// What a [`Host`](crate::Host) knows of one plugin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginStatus {
    /// The name in its manifest, or that of its folder where it has no sound one.
    pub name: String,
    /// The version in its manifest.
    pub version: Option<String>,
    /// The `type` in its manifest, in the application's own words.
    pub kind: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
    /// Which RPC it speaks.
    pub transport: Option<Transport>,
    /// Whether it runs, and if not, why.
    pub state: PluginState,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// Counts its starts: the one that runs, or ran last, is the number of this.
    pub generation: u64,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it was started again because it had failed.
    pub restarts: u64,
    /// What its program had to hash to when it was started, where that is known.
    pub digest: Option<String>,
    /// How another host joins it, while it runs.
    pub reattach: Option<Reattach>,
    /// How it ended the last time.
    pub last_exit: Option<ExitReport>,
}

/// Whether a plugin runs, and if not, why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PluginState {
    /// Nobody has needed it yet.
    Installed,
    /// Its process is started, shakes hands, and says that it serves.
    Starting,
    /// It serves.
    Running,
    /// It runs, and left this many pings in a row unanswered.
    Degraded {
        /// How many.
        missed: u32,
    },
    /// It failed, and is started again in a while.
    Backoff {
        /// How many times in a row it will have been started anew then.
        attempt: u32,
        /// When.
        until: SystemTime,
        /// How it failed.
        why: Failure,
    },
    /// It was asked to end.
    Stopping,
    /// It does not run, as is right.
    Stopped {
        /// Why.
        why: StopReason,
    },
    /// It does not run, and is not started again unless somebody says so.
    Failed {
        /// How it failed the last time.
        why: Failure,
    },
    /// It is not started before a person approves what it is now: the error says what that is. It
    /// is looked at again whenever it is needed.
    NeedsApproval(Error),
    /// Its folder holds no sound plugin.
    Broken(Error),
}

impl PluginState {
    /// The state's name: a lower-case word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded { .. } => "degraded",
            Self::Backoff { .. } => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Failed { .. } => "failed",
            Self::NeedsApproval(_) => "needs-approval",
            Self::Broken(_) => "broken",
        }
    }

    /// Whether calls reach it.
    pub fn is_serving(&self) -> bool {
        matches!(self, Self::Running | Self::Degraded { .. })
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Degraded { missed } => write!(f, ": {missed} pings in a row unanswered"),
            Self::Backoff { attempt, why, .. } => write!(f, " before start {attempt} anew: {why}"),
            Self::Stopped { why } => write!(f, ": {why}"),
            Self::Failed { why } => write!(f, ": {why}"),
            Self::NeedsApproval(error) | Self::Broken(error) => write!(f, ": {error}"),
            Self::Installed | Self::Starting | Self::Running | Self::Stopping => Ok(()),
        }
    }
}

/// Why a plugin does not run, where that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody asked for it. A call does not start it again.
    Asked,
    /// Nobody called it for [so long](crate::Supervision::idle_stop). The next call
    /// starts it again.
    Idle,
    /// It ended by itself with status 0, or however it ended if it is never
    /// restarted. The next call starts it again.
    Ended,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "it was asked to",
            Self::Idle => "nobody called it for a while",
            Self::Ended => "it ended by itself",
        })
    }
}
