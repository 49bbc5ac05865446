//! How plugins are watched over, and the rules of starting them again.

use std::collections::VecDeque;
use std::time::Duration;

use outrigger_host::Deadlines;
use tokio::time::Instant;

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
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
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
        }
    }
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

/// The starts anew of one plugin, as far as they still matter.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// How many failures in a row, with no time of health in between.
    row: u32,
    /// When it was started anew, the latest last.
    recent: VecDeque<Instant>,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it for this many times in a row anew, after a wait.
    Again { attempt: u32, after: Duration },
    /// It failed too often.
    GiveUp,
}

impl Restarts {
    /// Judges a failure of a plugin that had run for `ran`. `chance` is from 0 to 1.
    pub(super) fn after_failure(
        &mut self,
        rules: &Supervision,
        now: Instant,
        ran: Duration,
        chance: f64,
    ) -> Verdict {
        if ran >= rules.healthy_after {
            self.row = 0;
        }
        while let Some(first) = self.recent.front()
            && now.duration_since(*first) >= rules.restart_window
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= rules.restarts {
            return Verdict::GiveUp;
        }
        self.recent.push_back(now);
        let doubled = 2_u32.saturating_pow(self.row);
        let whole = rules.restart_delay.saturating_mul(doubled);
        let half = whole.min(rules.restart_delay_max) / 2;
        self.row = self.row.saturating_add(1);
        Verdict::Again {
            attempt: self.row,
            after: half + half.mul_f64(chance.clamp(0.0, 1.0)),
        }
    }

    /// Forgets them: somebody wants it started whatever was before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// The waits after failures at once, one after the other.
    fn waits(rules: &Supervision, count: usize, chance: f64) -> Vec<Option<Duration>> {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..count {
            match restarts.after_failure(rules, now, Duration::ZERO, chance) {
                Verdict::Again { after, .. } => {
                    now += after;
                    waits.push(Some(after));
                }
                Verdict::GiveUp => waits.push(None),
            }
        }
        waits
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_half_of_it_is_left_to_chance() {
        let rules = Supervision {
            restarts: 100,
            ..Supervision::default()
        };
        let longest = waits(&rules, 10, 1.0);
        let shortest = waits(&rules, 10, 0.0);
        let whole = [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000];
        assert_eq!(longest, whole.map(|whole| Some(ms(whole))));
        assert_eq!(shortest, whole.map(|whole| Some(ms(whole / 2))));
    }

    #[test]
    fn the_sixth_failure_within_a_minute_is_one_too_many() {
        let waits = waits(&Supervision::default(), 7, 0.5);
        assert!(waits[..5].iter().all(Option::is_some), "{waits:?}");
        assert_eq!(waits[5..], [None, None]);
    }

    #[test]
    fn failures_that_are_far_apart_never_are_too_many_and_health_shortens_the_wait() {
        let rules = Supervision::default();
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        for attempt in 1..=20 {
            now += ms(12_100);
            let verdict = restarts.after_failure(&rules, now, ms(12_000), 1.0);
            assert!(
                matches!(verdict, Verdict::Again { attempt: counted, .. } if counted == attempt),
                "{verdict:?}"
            );
        }
        let healthy = restarts.after_failure(&rules, now + ms(61_000), ms(60_000), 1.0);
        let first = Verdict::Again {
            attempt: 1,
            after: ms(200),
        };
        assert_eq!(healthy, first);
    }

    #[test]
    fn a_plugin_that_somebody_restarts_begins_anew() {
        let rules = Supervision::default();
        let mut restarts = Restarts::default();
        let now = Instant::now();
        while restarts.after_failure(&rules, now, ms(0), 1.0) != Verdict::GiveUp {}
        restarts.forget();
        let verdict = restarts.after_failure(&rules, now, ms(0), 1.0);
        assert!(
            matches!(verdict, Verdict::Again { attempt: 1, .. }),
            "{verdict:?}"
        );
    }
}
