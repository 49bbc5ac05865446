//! Times as messages have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// The time of a message; nothing where it has none, or one that no clock shows.
pub(crate) fn from_wire(stamp: Option<Timestamp>) -> Option<SystemTime> {
    let stamp = stamp?;
    let nanos = Duration::from_nanos(u64::try_from(stamp.nanos).unwrap_or(0));
    let whole = match u64::try_from(stamp.seconds) {
        Ok(after) => UNIX_EPOCH.checked_add(Duration::from_secs(after)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(stamp.seconds.unsigned_abs())),
    };
    whole?.checked_add(nanos)
}

/// Whole milliseconds, as many as a message can have.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
