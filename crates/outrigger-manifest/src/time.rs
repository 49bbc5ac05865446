//! Spans of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::message::quoted;
use crate::problem::ProblemCode;
use crate::tree::{Kind, Node, is_null};

/// The units, longest first, in milliseconds.
const UNITS: &[(&str, u64)] = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A span of time in whole milliseconds, at most a year.
///
/// It is written as numbers with a unit each, the longest first: `500ms`, `1.5s`, `1h30m`. Only
/// the last of them may have decimals.
///
/// ```
/// use std::time::Duration;
/// use outrigger_manifest::TimeSpan;
///
/// let span: TimeSpan = "1h30m".parse().unwrap();
/// assert_eq!(span.as_duration(), Duration::from_secs(90 * 60));
/// assert_eq!("10".parse::<TimeSpan>().unwrap_err().near_miss(), Some("10s"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(u64);

impl TimeSpan {
    /// The longest: 365 days.
    pub const MAX: TimeSpan = TimeSpan(365 * 24 * 3_600_000);

    /// So many milliseconds; `None` for more than [`TimeSpan::MAX`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Option<TimeSpan> {
        if millis > Self::MAX.0 {
            None
        } else {
            Some(TimeSpan(millis))
        }
    }

    /// The span as the standard library has it.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Duration {
        span.as_duration()
    }
}

/// Why a text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is not a time of at most a year", quoted(.0))]
pub struct TimeSpanError(String, Option<String>);

impl TimeSpanError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        ProblemCode::InvalidTime.as_str()
    }

    /// The span that was probably meant.
    #[must_use]
    pub fn near_miss(&self) -> Option<&str> {
        self.1.as_deref()
    }
}

outrigger_wire::coded!(TimeSpanError);

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |near| TimeSpanError(text.to_owned(), near);
        let mut millis = 0_u64;
        let mut units = UNITS;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, after) = tail.split_at(letters);
            let Some(index) = units.iter().position(|(name, _)| *name == unit) else {
                return Err(error(meant(text)));
            };
            let amount = amount(number, units[index].1, after.is_empty());
            millis = amount
                .and_then(|amount| millis.checked_add(amount))
                .ok_or_else(|| error(None))?;
            (units, rest) = (&units[index + 1..], after);
        }
        if text.is_empty() {
            return Err(error(None));
        }
        TimeSpan::from_millis(millis).ok_or_else(|| error(None))
    }
}

/// So many units of so many milliseconds, if that is a whole number of milliseconds.
fn amount(number: &str, unit: u64, may_have_decimals: bool) -> Option<u64> {
    let (whole, part) = match number.split_once('.') {
        Some((_, part)) if part.is_empty() || part.len() > 6 || !may_have_decimals => return None,
        Some((whole, part)) => (whole, part),
        None => (number, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(part.len()).ok()?);
    let part = part.parse::<u64>().ok()?.checked_mul(unit)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    part.is_multiple_of(scale)
        .then(|| whole.checked_add(part / scale))?
}

/// A number without a unit, or with one of another spelling.
fn meant(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "sec" | "secs" | "second" | "seconds" => "s",
        "msec" | "millis" | "milliseconds" => "ms",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" | "hr" | "hrs" => "h",
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.0,
    };
    let meant = format!("{number}{unit}");
    (!number.is_empty() && meant != text).then_some(meant)
}

/// With as many units as it takes: `1h30m`, `1s500ms`, `0s`.
impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, unit) in UNITS {
            if rest >= *unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A span from `LOW` to `HIGH` milliseconds.
pub(crate) struct Time<const LOW: u64, const HIGH: u64>;

impl<const LOW: u64, const HIGH: u64> Shape for Time<LOW, HIGH> {
    type Value = TimeSpan;

    fn kind(_: Side) -> String {
        format!("time from {} to {}", TimeSpan(LOW), TimeSpan(HIGH))
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(h|m|s|ms))+$"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<TimeSpan> {
        let (Kind::Plain(text) | Kind::Text(text)) = &node.kind else {
            check.wrong_type(node, location, "a time");
            return None;
        };
        if is_null(&node.kind) {
            check.wrong_type(node, location, "a time");
            return None;
        }
        match text.parse::<TimeSpan>() {
            Ok(span) if (LOW..=HIGH).contains(&span.0) => Some(span),
            Ok(_) => {
                let (low, high) = (TimeSpan(LOW), TimeSpan(HIGH));
                let message = format!("{} is not a time from {low} to {high}", quoted(text));
                check.report(node.at, ProblemCode::OutOfRange, location, message);
                None
            }
            Err(error) => {
                check
                    .report(
                        node.at,
                        ProblemCode::InvalidTime,
                        location,
                        error.to_string(),
                    )
                    .near(error.near_miss())
                    .help("a time is a number and a unit, such as `500ms`, `10s`, `2m` or `1h30m`");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_printed() {
        for (text, millis, printed) in [
            ("500ms", 500, "500ms"),
            ("1.5s", 1500, "1s500ms"),
            ("2m", 120_000, "2m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1h0.5s", 3_600_500, "1h500ms"),
            ("90m", 5_400_000, "1h30m"),
            ("0s", 0, "0s"),
            ("8760h", TimeSpan::MAX.0, "8760h"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (millis, printed));
            assert_eq!(printed.parse(), Ok(span));
        }
        for wrong in [
            "",
            "s",
            "-1s",
            "1d",
            "1.5h30m",
            "30m1h",
            "1m1m",
            "1..5s",
            "1.s",
            "0.0001s",
            "8761h",
            "99999999999999999999s",
            "1 s",
            "1S",
        ] {
            assert!(wrong.parse::<TimeSpan>().is_err(), "{wrong}");
        }
        for (text, near) in [("10", Some("10s")), ("5 min", Some("5m")), ("1d", None)] {
            assert_eq!(text.parse::<TimeSpan>().unwrap_err().near_miss(), near);
        }
    }
}
