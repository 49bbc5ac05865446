//! Log records as one JSON object per line.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::repair::repair;
use super::{LogRecord, LogSource};

const LEVEL: &str = "@level";
const MESSAGE: &str = "@message";
const MODULE: &str = "@module";
const CALLER: &str = "@caller";
const TIMESTAMP: &str = "@timestamp";

/// Why a line is not taken as a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// It is not an object, or not one a logger would have written.
    NotARecord,
    /// It is an object (or `null`) that names no level.
    NoLevel,
}

impl LogRecord {
    /// Reads a line that hclog wrote.
    pub(super) fn parse(line: &str) -> Result<LogRecord, Rejected> {
        let read = match serde_json::from_str(line) {
            // One odd value would cost the level and the message.
            Err(_) if may_be_object(line) => serde_json::from_str(&repair(line)),
            read => read,
        };
        let mut keys = match read {
            Ok(Value::Object(keys)) => keys,
            Ok(Value::Null) => return Err(Rejected::NoLevel),
            Ok(_) | Err(_) => return Err(Rejected::NotARecord),
        };
        // A Go host crashes if one of these is not a string.
        let message = take_string(&mut keys, MESSAGE)?.unwrap_or_default();
        let level = take_string(&mut keys, LEVEL)?;
        let time = take_string(&mut keys, TIMESTAMP)?
            .map(|text| parse_time(&text).ok_or(Rejected::NotARecord))
            .transpose()?;
        let level = level
            .and_then(|word| word.parse().ok())
            .ok_or(Rejected::NoLevel)?;
        // These two mean nothing to a Go host, so they may be anything; what
        // is not a string stays among the fields.
        let module = take_string(&mut keys, MODULE).unwrap_or_default();
        let caller = take_string(&mut keys, CALLER).unwrap_or_default();
        let mut fields: Vec<_> = keys.into_iter().collect();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(LogRecord {
            time,
            module,
            caller,
            fields,
            ..LogRecord::new(LogSource::Hclog, level, message)
        })
    }
}

fn may_be_object(line: &str) -> bool {
    let text = line.trim_start_matches('\u{feff}').trim_start();
    text.starts_with('{')
}

/// Takes a key out if its value is a string; any other value is left in place
/// and refused.
fn take_string(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Rejected> {
    match keys.get_mut(key) {
        None => Ok(None),
        Some(Value::String(text)) => {
            let text = std::mem::take(text);
            keys.remove(key);
            Ok(Some(text))
        }
        Some(_) => Err(Rejected::NotARecord),
    }
}

/// Reads `YYYY-MM-DDThh:mm:ss.ffffff` followed by `Z` or `±hh:mm`, and nothing
/// else: a Go host reads no other form.
fn parse_time(text: &str) -> Option<Timestamp> {
    const LOCAL: &[u8] = b"0000-00-00T00:00:00.000000";
    let (local, zone) = text.as_bytes().split_at_checked(LOCAL.len())?;
    let zone_form: &[u8] = match zone.first()? {
        b'Z' => b"Z",
        b'+' => b"+00:00",
        b'-' => b"-00:00",
        _ => return None,
    };
    // A leap second is no second to Go.
    let is_leap_second = &local[17..19] == b"60";
    if !has_form(local, LOCAL) || !has_form(zone, zone_form) || is_leap_second {
        return None;
    }
    text.parse().ok()
}

/// Whether `text` has a digit wherever `form` has `0`, and is equal elsewhere.
fn has_form(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len()
        && text
            .iter()
            .zip(form)
            .all(|(byte, expected)| match expected {
                b'0' => byte.is_ascii_digit(),
                _ => byte == expected,
            })
}

/// Writes a record as one line of JSON, without a newline at its end and
/// without one inside.
///
/// The time is given in UTC with six digits, cut rather than rounded, and left
/// out of years that do not have four digits. A field whose name is one of the record's own (`@level` and so on) gets a `_` in
/// front, since a second `@level` could change the first, or crash the host.
///
/// ```
/// use outrigger_wire::logs::{Level, LogRecord, LogSource, write_hclog};
///
/// let record = LogRecord {
///     time: Some("2026-11-21T10:30:00.25Z".parse()?),
///     module: Some("greeter.store".to_owned()),
///     fields: vec![("path".to_owned(), "/tmp/a".into()), ("size".to_owned(), 12.into())],
///     ..LogRecord::new(LogSource::Hclog, Level::Info, "opened\n")
/// };
/// assert_eq!(
///     write_hclog(&record),
///     r#"{"@level":"info","@message":"opened\n","@module":"greeter.store","@timestamp":"2026-11-21T10:30:00.250000Z","path":"/tmp/a","size":12}"#
/// );
/// # Ok::<(), jiff::Error>(())
/// ```
pub fn write_hclog(record: &LogRecord) -> String {
    let mut line = Object::new();
    if let Some(caller) = &record.caller {
        line.string(CALLER, caller);
    }
    line.string(LEVEL, record.level.as_str());
    line.string(MESSAGE, &record.message);
    if let Some(module) = &record.module {
        line.string(MODULE, module);
    }
    if let Some(time) = record.time.and_then(format_time) {
        line.string(TIMESTAMP, &time);
    }
    for (name, value) in &record.fields {
        match name.as_str() {
            LEVEL | MESSAGE | MODULE | CALLER | TIMESTAMP => line.value(&format!("_{name}"), value),
            _ => line.value(name, value),
        }
    }
    line.end()
}

fn format_time(time: Timestamp) -> Option<String> {
    let text = format!("{time:.6}");
    parse_time(&text).is_some().then_some(text)
}

/// A JSON object in the making. Its keys stay in the order they are added in,
/// which a map would not keep.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".to_owned())
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quote(value);
    }

    fn value(&mut self, key: &str, value: &Value) {
        self.key(key);
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{value}");
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.quote(key);
        self.0.push(':');
    }

    fn quote(&mut self, text: &str) {
        let _ = write!(self.0, "{}", Value::from(text));
    }
}

#[cfg(test)]
mod tests;
