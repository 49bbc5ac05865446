//! Go's `time.Time`.

use std::any::TypeId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decode::{Checker, Fit, Gob, Reader};
use crate::describe::Describe;
use crate::encode::{Encode, Writer, type_of};
use crate::error::{DecodeError, EncodeError};
use crate::opaque::{self, Opaque};
use crate::types::{OpaqueKind, Ref, Type};

/// An instant and the time zone it is shown in, as Go's `time.Time`.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use outrigger_gob::Time;
///
/// let time = Time::from(UNIX_EPOCH);
/// assert_eq!((time.unix_seconds(), time.nanoseconds()), (0, 0));
/// assert_eq!(time.offset_seconds(), None, "UTC");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Time {
    /// Since the first day of year 1, UTC.
    seconds: i64,
    nanoseconds: u32,
    /// East of Greenwich; `None` is UTC.
    offset: Option<i32>,
}

/// From the first day of year 1 to that of 1970.
const UNIX_SECONDS: i64 = 62_135_596_800;

const NANOSECONDS: u32 = 1_000_000_000;

impl Time {
    /// What Go has in a `time.Time` nobody set: the first day of year 1.
    pub const ZERO: Time = Time {
        seconds: 0,
        nanoseconds: 0,
        offset: None,
    };

    /// An instant by its Unix time. `offset_minutes` is that of the time zone,
    /// east of Greenwich; `None` for UTC.
    ///
    /// Returns `None` when there are 10⁹ nanoseconds or more, the time is
    /// beyond what Go can say, or the offset is the one of −1 minute that Go
    /// has no way to send.
    pub fn from_unix(seconds: i64, nanoseconds: u32, offset_minutes: Option<i16>) -> Option<Time> {
        let offset = offset_minutes.map(|minutes| i32::from(minutes) * 60);
        Time::from_unix_with_seconds(seconds, nanoseconds, offset)
    }

    /// As [`Time::from_unix`], with an offset in seconds.
    pub fn from_unix_with_seconds(
        seconds: i64,
        nanoseconds: u32,
        offset_seconds: Option<i32>,
    ) -> Option<Time> {
        let can_be_sent = offset_seconds.is_none_or(|offset| {
            let minutes = offset / 60;
            minutes != -1 && i16::try_from(minutes).is_ok()
        });
        (nanoseconds < NANOSECONDS && can_be_sent).then_some(())?;
        Some(Time {
            seconds: seconds.checked_add(UNIX_SECONDS)?,
            nanoseconds,
            offset: offset_seconds,
        })
    }

    /// Whole seconds since 1970, UTC, rounded down.
    pub fn unix_seconds(&self) -> i64 {
        self.seconds.wrapping_sub(UNIX_SECONDS)
    }

    /// The nanoseconds after that.
    pub fn nanoseconds(&self) -> u32 {
        self.nanoseconds
    }

    /// The offset of its time zone, in seconds east of Greenwich; `None` for
    /// UTC.
    pub fn offset_seconds(&self) -> Option<i32> {
        self.offset
    }

    /// The instant, if this system can say it.
    pub fn to_system_time(&self) -> Option<SystemTime> {
        let seconds = self.seconds.checked_sub(UNIX_SECONDS)?;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let instant = if seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)?
        } else {
            UNIX_EPOCH.checked_add(whole)?
        };
        instant.checked_add(Duration::from_nanos(self.nanoseconds.into()))
    }

    /// From the bytes of Go's `MarshalBinary`, in either of its two versions.
    pub(crate) fn from_binary(bytes: &[u8]) -> Result<Time, String> {
        let length = match bytes.first() {
            Some(1) => 15,
            Some(2) => 16,
            Some(version) => return Err(format!("version {version} is unknown")),
            None => return Err("there are none".into()),
        };
        let (Some((seconds, rest)), true) = (
            bytes.get(1..).and_then(|rest| rest.split_first_chunk()),
            bytes.len() == length,
        ) else {
            return Err(format!("{} instead of {length} bytes", bytes.len()));
        };
        let [n0, n1, n2, n3, m0, m1, rest @ ..] = rest else {
            return Err("too few bytes".into());
        };
        let nanoseconds = u32::from_be_bytes([*n0, *n1, *n2, *n3]);
        if nanoseconds >= NANOSECONDS {
            return Err(format!("{nanoseconds} nanoseconds"));
        }
        let minutes = i32::from(i16::from_be_bytes([*m0, *m1]));
        let beyond = rest
            .first()
            .map_or(0, |&byte| i32::from(byte.cast_signed()));
        let offset = minutes * 60 + beyond;
        Ok(Time {
            seconds: i64::from_be_bytes(*seconds),
            nanoseconds,
            offset: (minutes != -1 || beyond != 0).then_some(offset),
        })
    }
}

impl Opaque for Time {
    const TYPE_NAME: &'static str = "time.Time";
    const KIND: OpaqueKind = OpaqueKind::GobEncoder;

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let (minutes, beyond) = match self.offset {
            None => (-1, 0),
            Some(offset) => (offset / 60, offset % 60),
        };
        if self.offset.is_some() && minutes == -1 {
            return Err("an offset of -1 minute stands for UTC".into());
        }
        let minutes =
            i16::try_from(minutes).map_err(|_| format!("an offset of {minutes} minutes"))?;
        let mut bytes = Vec::with_capacity(16);
        bytes.push(if beyond == 0 { 1 } else { 2 });
        bytes.extend(self.seconds.to_be_bytes());
        bytes.extend(self.nanoseconds.to_be_bytes());
        bytes.extend(minutes.to_be_bytes());
        if beyond != 0 {
            bytes.push((beyond as i8).cast_unsigned());
        }
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Time, String> {
        Time::from_binary(bytes)
    }

    fn zero() -> Time {
        Time::ZERO
    }

    fn is_zero(&self) -> bool {
        *self == Time::ZERO
    }
}

/// In UTC. What is beyond Go's range becomes the end of it.
impl From<SystemTime> for Time {
    fn from(instant: SystemTime) -> Time {
        let (seconds, nanoseconds) = match instant.duration_since(UNIX_EPOCH) {
            Ok(after) => (
                i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                after.subsec_nanos(),
            ),
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => (-whole, 0),
                    nanoseconds => (-whole - 1, NANOSECONDS - nanoseconds),
                }
            }
        };
        Time {
            seconds: seconds.saturating_add(UNIX_SECONDS),
            nanoseconds,
            offset: None,
        }
    }
}

impl Encode for Time {
    fn identity() -> TypeId {
        TypeId::of::<Time>()
    }

    fn describe(types: &mut Describe) -> Ref {
        opaque::describe::<Time>(types)
    }

    fn is_zero(&self) -> bool {
        Opaque::is_zero(self)
    }

    fn is_zero_behind_pointer(&self) -> bool {
        false
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        opaque::encode(self, to)
    }

    fn size_hint(&self) -> usize {
        17
    }
}

impl Gob for Time {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        opaque::check::<Time>(types, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<Time, DecodeError> {
        opaque::decode(from)
    }

    fn zero() -> Time {
        Time::ZERO
    }
}

impl Type {
    /// `time.Time`.
    pub fn time() -> Type {
        type_of::<Time>().unwrap_or_else(|_| {
            // Describing it cannot fail; this is what it would be.
            Type::opaque("time.Time", OpaqueKind::GobEncoder)
        })
    }
}
