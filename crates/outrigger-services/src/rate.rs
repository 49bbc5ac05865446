//! Token buckets: how fast a plugin may go. The time comes in as an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many tokens per second, at most one second's worth at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// 0 for no limit.
    per_second: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Below zero when more was taken than there was.
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        Self {
            per_second,
            state: Mutex::new(State {
                tokens: per_second as f64,
                filled: now,
            }),
        }
    }

    /// Takes `count` tokens, or says how long it will be until there are any.
    /// The last ones may be taken on credit, which the next taker waits for.
    pub(crate) fn take(&self, count: u64, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let rate = self.per_second as f64;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.filled).as_secs_f64();
        state.tokens = (state.tokens + passed * rate).min(rate);
        state.filled = state.filled.max(now);
        // A single token must be there; more than a second's worth never is.
        if state.tokens < 1.0 {
            let missing = (1.0 - state.tokens) / rate;
            return Err(Duration::from_secs_f64(missing.clamp(0.001, 3600.0)));
        }
        state.tokens -= count as f64;
        Ok(())
    }

    /// Takes `count` tokens whether they are there or not.
    pub(crate) fn charge(&self, count: u64) {
        if self.per_second != 0 {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.tokens -= count as f64;
        }
    }
}

/// Chooses so many of many alike per second to be recorded, and counts the others.
#[derive(Debug)]
pub(crate) struct Sampler {
    kept: Bucket,
    left_out: AtomicU64,
}

impl Sampler {
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        Self {
            kept: Bucket::new(per_second, now),
            left_out: AtomicU64::new(0),
        }
    }

    /// Decides on one more. If it is to be recorded: how many were left out since
    /// the last one that was.
    pub(crate) fn sample(&self, now: Instant) -> Option<u64> {
        match self.kept.take(1, now) {
            Ok(()) => Some(self.rest()),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// How many were left out since the last one that was recorded.
    pub(crate) fn rest(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_with_time_and_never_pile_up() {
        let start = Instant::now();
        let bucket = Bucket::new(10, start);
        for _ in 0..10 {
            assert_eq!(bucket.take(1, start), Ok(()));
        }
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        assert_eq!(bucket.take(1, later), Ok(()));
        assert!(bucket.take(1, later).is_err());
        let much_later = start + Duration::from_secs(1000);
        for _ in 0..10 {
            assert_eq!(bucket.take(1, much_later), Ok(()));
        }
        assert!(bucket.take(1, much_later).is_err());
    }

    #[test]
    fn what_is_taken_on_credit_is_waited_for_afterwards() {
        let start = Instant::now();
        let bucket = Bucket::new(1000, start);
        assert_eq!(bucket.take(3000, start), Ok(()));
        let wait = bucket.take(1, start).expect_err("in debt");
        assert!(wait > Duration::from_secs(2) && wait < Duration::from_millis(2100));
        bucket.charge(1000);
        assert!(bucket.take(1, start).expect_err("deeper in debt") > Duration::from_secs(3));
    }

    #[test]
    fn no_limit_is_no_limit_and_time_does_not_run_backwards() {
        let start = Instant::now();
        let free = Bucket::new(0, start);
        assert_eq!(free.take(u64::MAX, start), Ok(()));
        let bucket = Bucket::new(1, start + Duration::from_secs(5));
        assert_eq!(bucket.take(1, start), Ok(()));
        assert!(bucket.take(1, start).is_err());
    }

    #[test]
    fn each_one_that_is_not_kept_is_counted_once() {
        let start = Instant::now();
        let sampler = Sampler::new(2, start);
        let kept: Vec<_> = (0..5).map(|_| sampler.sample(start)).collect();
        assert_eq!(kept, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(1);
        assert_eq!(sampler.sample(later), Some(3));
        assert_eq!((sampler.sample(later), sampler.rest()), (Some(0), 0));
        assert_eq!((sampler.sample(later), sampler.rest()), (None, 1));
    }
}
