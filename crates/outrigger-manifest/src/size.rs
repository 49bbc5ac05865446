//! Amounts: bytes and processor time.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::message::{quoted, without_leading_zeros};
use crate::problem::ProblemCode;
use crate::tree::{Kind, Node, is_null};

const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes, at least one.
///
/// ```
/// use outrigger_manifest::ByteSize;
///
/// assert_eq!("64MiB".parse::<ByteSize>().unwrap().bytes(), 64 * 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size; `None` for zero.
    #[must_use]
    pub const fn new(bytes: u64) -> Option<ByteSize> {
        if bytes == 0 {
            None
        } else {
            Some(ByteSize(bytes))
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is not a size", quoted(.0))]
pub struct SizeError(String, Option<String>);

impl SizeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-size"
    }

    /// The size that was probably meant.
    #[must_use]
    pub fn near_miss(&self) -> Option<&str> {
        self.1.as_deref()
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let error = |near| SizeError(text.to_owned(), near);
        let amount: u64 = number.parse().map_err(|_| error(None))?;
        if let Some(decimal) = without_leading_zeros(number) {
            return Err(error(Some(format!("{decimal}{unit}"))));
        }
        let unit = unit.trim_start_matches(' ');
        if unit.is_empty() {
            return ByteSize::new(amount).ok_or_else(|| error(None));
        }
        match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => amount
                .checked_mul(*factor)
                .and_then(ByteSize::new)
                .ok_or_else(|| error(None)),
            None => {
                let meant = match unit.to_ascii_lowercase().as_str() {
                    "k" | "ki" | "kib" => Some("KiB"),
                    "m" | "mi" | "mib" => Some("MiB"),
                    "g" | "gi" | "gib" => Some("GiB"),
                    "t" | "ti" | "tib" => Some("TiB"),
                    "kb" => Some("kB"),
                    "mb" => Some("MB"),
                    "gb" => Some("GB"),
                    "tb" => Some("TB"),
                    "b" | "byte" | "bytes" => Some("B"),
                    _ => None,
                };
                Err(error(meant.map(|meant| format!("{amount}{meant}"))))
            }
        }
    }
}

/// With the largest unit that divides it: `64MiB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS
            .iter()
            .filter(|(name, _)| name.ends_with("iB"))
            .find(|(_, factor)| self.0.is_multiple_of(*factor));
        match binary {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Shape for ByteSize {
    type Value = ByteSize;

    fn kind(_: Side) -> String {
        "size".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^[0-9]+ *([KMGT]iB|kB|MB|GB|TB|B)?$"},
        ]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<ByteSize> {
        let (Kind::Plain(text) | Kind::Text(text)) = &node.kind else {
            check.wrong_type(node, location, "a size");
            return None;
        };
        let size = text.parse::<ByteSize>();
        match &size {
            Ok(_) => {}
            Err(_) if is_null(&node.kind) => {
                check.wrong_type(node, location, "a size");
            }
            Err(error) => {
                check
                    .report(
                        node.at,
                        ProblemCode::InvalidSize,
                        location,
                        error.to_string(),
                    )
                    .near(error.near_miss())
                    .help("a size is a whole number and a unit, such as `64MiB`");
            }
        }
        size.ok()
    }
}

/// An amount of processor time in thousandths of one core, at least one thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(u32);

impl Cpu {
    /// The largest amount: 1024 cores.
    pub const MAX: Cpu = Cpu(1_024_000);

    /// Thousandths of a core; `None` for zero or more than [`Cpu::MAX`].
    #[must_use]
    pub const fn from_millis(millis: u32) -> Option<Cpu> {
        if millis == 0 || millis > Self::MAX.0 {
            None
        } else {
            Some(Cpu(millis))
        }
    }

    /// Thousandths of a core.
    #[must_use]
    pub const fn millis(self) -> u32 {
        self.0
    }

    pub(crate) fn parse(text: &str) -> Option<Cpu> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let octal = without_leading_zeros(whole).is_some();
        if octal || !digits(whole) || !digits(part) || part.len() > 3 {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let part: u32 = format!("{part:0<3}").parse().ok()?;
        Cpu::from_millis(whole.checked_mul(1000)?.checked_add(part)?)
    }
}

impl Shape for Cpu {
    type Value = Cpu;

    fn kind(_: Side) -> String {
        "number from 0.001 to 1024, at most three decimals".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": ["number", "string"]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Cpu> {
        let text = match &node.kind {
            Kind::Plain(text) if !is_null(&node.kind) => text,
            Kind::Text(text) => text,
            _ => {
                check.wrong_type(node, location, "a number of cores");
                return None;
            }
        };
        let cpu = Cpu::parse(text);
        if cpu.is_none() {
            let text = quoted(text);
            let message = format!("{text} is not a number of cores from 0.001 to 1024");
            check
                .report(node.at, ProblemCode::OutOfRange, location, message)
                .help("write cores, such as `2` or `0.5`");
        }
        cpu
    }
}

/// In cores: `2`, `0.5`.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        if part == 0 {
            write!(f, "{whole}")
        } else {
            write!(f, "{whole}.{}", format!("{part:03}").trim_end_matches('0'))
        }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1000.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("1", 1, "1B"),
            ("64MiB", 64 << 20, "64MiB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("2048KiB", 2 << 20, "2MiB"),
            ("5MB", 5_000_000, "5000000B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed));
        }
        for wrong in [
            "",
            "0",
            "MiB",
            "-1MiB",
            "1.5GiB",
            "64M",
            "64mib",
            "99999999TiB",
            "1 2",
        ] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
        assert_eq!(
            "64m".parse::<ByteSize>().unwrap_err().near_miss(),
            Some("64MiB")
        );
    }

    #[test]
    fn cores_are_read_and_printed() {
        for (text, millis, printed) in [
            ("2", 2000, "2"),
            ("0.5", 500, "0.5"),
            ("1.025", 1025, "1.025"),
        ] {
            let cpu = Cpu::parse(text).unwrap();
            assert_eq!((cpu.millis(), cpu.to_string().as_str()), (millis, printed));
        }
        for wrong in ["0", "0.0001", "-1", "1e3", "", ".5", "2000"] {
            assert_eq!(Cpu::parse(wrong), None, "{wrong}");
        }
    }
}
