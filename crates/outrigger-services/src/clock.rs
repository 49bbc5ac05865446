//! Time and randomness of the host.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::Stream;
use uuid::Uuid;

/// The most random bytes of one call.
pub(crate) const MOST_RANDOM: u32 = 64 << 10;
/// The longest time between two ticks: a day.
const LONGEST_PERIOD: u64 = 24 * 60 * 60 * 1000;

/// What [`monotonic`] counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a plugin asked for that the clock does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("at most 65536 random bytes at a time")]
    TooMuchRandom,
    #[error("the period is between 1 ms and a day")]
    Period,
    #[error("only UUID versions 4 and 7")]
    UuidVersion,
}

/// Nanoseconds since a moment of this process's own.
pub(crate) fn monotonic() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes from the kernel's generator.
pub(crate) fn random(length: u32) -> Result<Result<Vec<u8>, rustix::io::Errno>, BadRequest> {
    if length > MOST_RANDOM {
        return Err(BadRequest::TooMuchRandom);
    }
    let mut bytes = vec![0; length as usize];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *rest, flags)) {
            Ok(more) => filled += more,
            Err(errno) => return Ok(Err(errno)),
        }
    }
    Ok(Ok(bytes))
}

/// A new UUID; version 0 stands for 7.
pub(crate) fn uuid(version: u32) -> Result<String, BadRequest> {
    match version {
        0 | 7 => Ok(Uuid::now_v7().to_string()),
        4 => Ok(Uuid::new_v4().to_string()),
        _ => Err(BadRequest::UuidVersion),
    }
}

/// One item per period, for as long as somebody takes them: how many periods
/// passed while nobody did.
pub(crate) fn ticks(period_ms: u64) -> Result<impl Stream<Item = u64> + Send, BadRequest> {
    if !(1..=LONGEST_PERIOD).contains(&period_ms) {
        return Err(BadRequest::Period);
    }
    let period = Duration::from_millis(period_ms);
    let first = tokio::time::Instant::now() + period;
    Ok(futures_util::stream::unfold(first, move |due| async move {
        tokio::time::sleep_until(due).await;
        let late = tokio::time::Instant::now().saturating_duration_since(due);
        let missed = late.as_millis() / u128::from(period_ms);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        Some((u64::from(missed), due + period * missed + period))
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[test]
    fn random_bytes_and_uuids_differ_and_have_bounds() {
        let bytes = |length| random(length).expect("allowed").expect("random");
        assert_eq!(bytes(0), Vec::<u8>::new());
        assert_eq!(bytes(MOST_RANDOM).len(), 65536);
        assert_ne!(bytes(32), bytes(32));
        // The last bytes are filled too.
        assert!(bytes(MOST_RANDOM)[65000..].iter().any(|byte| *byte != 0));
        assert_eq!(random(MOST_RANDOM + 1), Err(BadRequest::TooMuchRandom));
        for (asked, version) in [(0, 7), (7, 7), (4, 4)] {
            let text = uuid(asked).expect("a version");
            let made: Uuid = text.parse().expect("a UUID");
            assert_eq!(made.get_version_num(), version);
        }
        assert_eq!(uuid(1), Err(BadRequest::UuidVersion));
        assert!(monotonic() <= monotonic());
    }

    #[tokio::test(start_paused = true)]
    async fn periods_that_nobody_waited_for_are_counted_and_the_beat_is_kept() {
        let start = tokio::time::Instant::now();
        let mut ticks = Box::pin(ticks(10).expect("a period"));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(ticks.next().await, Some(2));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(start.elapsed(), Duration::from_millis(60));
        for period in [0, LONGEST_PERIOD + 1] {
            assert!(matches!(super::ticks(period), Err(BadRequest::Period)));
        }
    }
}
