//! How plugins are watched over.

use std::time::Duration;

use outrigger_host::Deadlines;
use outrigger_transport::SafeMethods;

/// How a [`Host`](crate::Host) watches over a plugin: which waits it bounds, when
/// it asks whether the plugin is well, and when it starts it again.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use outrigger::{Restart, Supervision};
///
/// let patient = Supervision {
///     restart: Restart::Always,
///     ping_timeout: Duration::from_secs(20),
///     ..Supervision::default()
/// };
/// assert_eq!(patient.ping_misses, 3);
/// ```
#[derive(Clone, Debug)]
pub struct Supervision {
    /// Whether [`Host::start_all`](crate::Host::start_all) leaves it out, so that it
    /// is started when it is first called: it does not.
    pub lazy: bool,
    /// How long a plugin that nobody calls runs on: for ever. The next call starts
    /// it again.
    pub idle_stop: Option<Duration>,
    /// The waits of the plugin's start and stop. `start` (60 s) also bounds how
    /// long a plugin that says that it is not serving yet may go on saying so.
    pub deadlines: Deadlines,
    /// How often a running plugin is asked whether it is well: every 10 s, or
    /// never. One that is paused or under a debugger is not asked.
    pub ping_every: Option<Duration>,
    /// How long it may take to answer: 5 s.
    pub ping_timeout: Duration,
    /// How many times in a row it may leave that unanswered before it is killed,
    /// and what [`restart`](Self::restart) says happens: 3.
    pub ping_misses: u32,
    /// Whether a plugin that ended is started again.
    pub restart: Restart,
    /// The wait before the first start anew: 200 ms. It doubles each time, and
    /// its second half is left to chance, so that plugins which ended together
    /// do not all start together.
    pub restart_delay: Duration,
    /// What that wait grows to at most: 30 s.
    pub restart_delay_max: Duration,
    /// How long a plugin runs until the wait is short again: 60 s.
    pub healthy_after: Duration,
    /// How many times it is started anew within
    /// [`restart_window`](Self::restart_window): 5. Then it has failed, and stays
    /// so until it is restarted.
    pub restarts: usize,
    /// See [`restarts`](Self::restarts): 60 s.
    pub restart_window: Duration,
    /// How a reload puts a new process in the place of the one that runs.
    pub reload: Reload,
    /// How long calls may take to end in a process that is stopped or was
    /// replaced: 30 s. What is left then fails with the code `plugin-replaced`.
    pub drain: Duration,
    /// How long a process that was replaced is kept, to serve again if its
    /// successor fails in that time: 30 s. Another reload ends it sooner.
    pub rollback_within: Duration,
    /// Which methods may be called a second time, in the next process, when the
    /// first was replaced or died before it had answered: none.
    pub safe_methods: SafeMethods,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            lazy: false,
            idle_stop: None,
            deadlines: Deadlines::default(),
            ping_every: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(5),
            ping_misses: 3,
            restart: Restart::OnFailure,
            restart_delay: Duration::from_millis(200),
            restart_delay_max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            restarts: 5,
            restart_window: Duration::from_secs(60),
            reload: Reload::Overlap,
            drain: Duration::from_secs(30),
            rollback_within: Duration::from_secs(30),
            safe_methods: SafeMethods::default(),
        }
    }
}

/// How a reload puts a new process in the place of the one that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reload {
    /// The new one is started beside the old one, which goes on if the new one is
    /// not fit to serve. There are never more than two.
    #[default]
    Overlap,
    /// The old one is stopped first, for plugins that hold something only one
    /// process can have. Calls wait meanwhile. If the new one is not fit to serve,
    /// what ran before is started again.
    Replace,
}

/// Whether a plugin that ended without being asked to is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Unless it ended by itself with status 0.
    #[default]
    OnFailure,
    /// However it ended.
    Always,
    /// Not at all.
    Never,
}
