//! What both ends of an HTTP/2 connection agree on: its limits, and how a call
//! says when it must be over.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Flow-control window of one stream, in bytes: what a peer can make us hold
/// for a stream that nobody reads.
pub(crate) const STREAM_WINDOW: u32 = 512 << 10;
/// Streams of one connection that may all stay unread without holding up the others.
pub(crate) const UNREAD_STREAMS: u32 = 1024;
/// What unread small frames may cost us beyond their content, in bytes of one
/// connection; a peer that sends more is sent away. A stream of tiny messages
/// reaches its window first.
pub(crate) const SMALL_FRAMES: usize = 256 << 20;
/// Largest HTTP/2 frame that we accept, in bytes.
pub(crate) const MAX_FRAME: u32 = 256 << 10;
/// How much of one stream waits in memory to be sent, in bytes.
pub(crate) const SEND_BUFFER: usize = 1 << 20;

/// The flow-control window of a connection with `streams` streams, in bytes: so
/// large that streams nobody reads never starve the ones that somebody does.
pub(crate) fn connection_window(streams: u32) -> u32 {
    const LARGEST: u32 = (1 << 31) - 1;
    STREAM_WINDOW.saturating_mul(streams).min(LARGEST)
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes `grpc-timeout`, in the smallest unit whose number has at most eight
/// digits; what is smaller is cut off.
pub(crate) fn set_timeout(headers: &mut HeaderMap, left: Duration) {
    const MOST: u128 = 99_999_999;
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
    ];
    let fitting = units.iter().find(|(amount, _)| *amount <= MOST);
    let (amount, unit) = fitting.copied().unwrap_or((MOST, 'S'));
    // Digits and a letter are a header.
    if let Ok(value) = HeaderValue::try_from(format!("{amount}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_deadline_is_written_as_it_is_read_and_never_as_more() {
        let nanos = [
            0,
            1,
            99_999_999,
            100_000_000,
            1_500_000_001,
            86_400_000_000_007,
        ];
        for left in nanos.map(Duration::from_nanos) {
            let mut headers = HeaderMap::new();
            set_timeout(&mut headers, left);
            let read = timeout_of(&headers).expect("a timeout");
            assert!(
                read <= left && left - read < Duration::from_secs(1),
                "{left:?}: {read:?}"
            );
        }
    }

    #[test]
    fn a_grpc_timeout_is_read_with_its_unit_and_anything_else_is_ignored() {
        let read = |text: &str| {
            let value = text.parse().expect("a header");
            timeout_of(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)]))
        };
        assert_eq!(read("15S"), Some(Duration::from_secs(15)));
        assert_eq!(
            read("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "999999999S", "1x", "-1S", "1.5S", "\u{e9}"] {
            let value = HeaderValue::from_bytes(bad.as_bytes()).expect("a header");
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, value)]);
            assert_eq!(timeout_of(&headers), None, "{bad}");
        }
    }
}
