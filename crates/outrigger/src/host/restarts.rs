//! The rules of starting a plugin again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::supervision::Supervision;

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
