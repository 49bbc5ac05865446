//! Turns in moving things: while one operation moves something on a device, no
//! other does.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::progress::Progress;

/// How often an operation that waits for its turn looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

/// While it is held, no plugin of this process moves anything on the device.
pub(crate) struct Moving(&'static Turn);

/// Whose turn it is to move something.
struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

impl Drop for Moving {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

/// Waits for the turn to move something on the device. One device's storage does
/// not hold up the others, but for few that share; nor does it keep the threads
/// of those who wait for it longer than their calls last.
pub(crate) fn moving(device: u64, progress: &Progress, until: Instant) -> Result<Moving, Fault> {
    static TURNS: [Turn; 64] = [const {
        Turn {
            taken: Mutex::new(false),
            free: Condvar::new(),
        }
    }; 64];
    let turn = &TURNS[usize::try_from(device % 64).unwrap_or(0)];
    let mut taken = turn.taken.lock().unwrap_or_else(PoisonError::into_inner);
    while *taken {
        progress.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Deadline);
        }
        let waited = turn.free.wait_timeout(taken, left.min(GLANCE));
        taken = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    *taken = true;
    Ok(Moving(turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_to_move_something_waits_no_longer_than_a_call() {
        let progress = Progress::default();
        let far = Instant::now() + Duration::from_secs(60);
        // As good as free: few devices have a share in it.
        let held = moving(63, &progress, far).expect("free");
        let late = moving(63, &progress, Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Fault::Deadline)));
        drop(moving(62, &progress, far).expect("another device"));
        drop(held);
        drop(moving(63, &progress, far).expect("free again"));
    }
}
