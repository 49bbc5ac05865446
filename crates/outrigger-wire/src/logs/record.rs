//! What a plugin logged, whichever way it came.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::Value;

use super::Level;
use crate::text::{message, printable, word};

/// The longest text of a record's fields, in bytes; what comes after it is
/// counted.
const LONGEST_FIELDS: usize = 64 << 10;

/// What a plugin logged: a line of its stderr, or a record that it gave to the
/// host's log service. Nothing in it is escaped or judged; `Display` shows it to
/// people, on one line and safe to print.
///
/// ```
/// use outrigger_wire::logs::{Level, LogRecord, LogSource};
///
/// let record = LogRecord {
///     fields: vec![("path".to_owned(), "/tmp/a b".into())],
///     ..LogRecord::new(LogSource::Service, Level::Warn, "slow\n")
/// };
/// assert_eq!(record.to_string(), r#"[WARN] slow\n path="/tmp/a b""#);
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct LogRecord {
    /// The way it came.
    pub source: LogSource,
    /// How much it matters. Of a line that says no level, what it is taken for.
    pub level: Level,
    /// What it says; empty if the plugin left it out. Of a line without
    /// structure, the whole line, in which bytes that are not UTF-8 have been
    /// replaced.
    pub message: String,
    /// When it was written, if the plugin said that.
    pub time: Option<Timestamp>,
    /// The name of the logger that wrote it.
    pub module: Option<String>,
    /// The place in the source that wrote it, as `file:line`.
    pub caller: Option<String>,
    /// Everything else, in the order of the keys, each key once. Integers keep
    /// all their digits as long as they fit 64 bits; other numbers are the
    /// nearest double, and those beyond any (`1e999`, `NaN`, `Infinity`) their
    /// text. A value nested more than 64 deep is its text.
    pub fields: Vec<(String, Value)>,
    /// How many further fields the plugin gave that were not taken.
    pub fields_omitted: usize,
}

/// The way that a [`LogRecord`] came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LogSource {
    /// A line of stderr without structure.
    Text,
    /// A line of stderr that Go's hclog, or a logger like it, wrote.
    Hclog,
    /// The host's log service.
    Service,
}

impl LogRecord {
    /// A record that says nothing but this.
    pub fn new(source: LogSource, level: Level, message: impl Into<String>) -> LogRecord {
        LogRecord {
            source,
            level,
            message: message.into(),
            time: None,
            module: None,
            caller: None,
            fields: Vec::new(),
            fields_omitted: 0,
        }
    }

    /// The fields as `key=value` pairs, as hclog prints them: safe to print, and
    /// none of them can pass for two. `None` where there are none.
    pub fn fields_text(&self) -> Option<String> {
        let mut text = String::new();
        let mut omitted = self.fields_omitted;
        for (at, (key, value)) in self.fields.iter().enumerate() {
            if text.len() > LONGEST_FIELDS {
                omitted += self.fields.len() - at;
                break;
            }
            let space = if at == 0 { "" } else { " " };
            // Writing to a `String` cannot fail.
            let _ = match value {
                Value::String(value) => write!(text, "{space}{}={}", word(key), word(value)),
                other => {
                    let json = other.to_string();
                    write!(text, "{space}{}={}", word(key), message(&json))
                }
            };
        }
        if omitted > 0 {
            let _ = write!(text, " … {omitted} more");
        }
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Display for LogRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = printable(&self.message);
        if self.source == LogSource::Text {
            return f.write_str(&message);
        }
        write!(f, "[{}] {message}", self.level.as_str().to_uppercase())?;
        match self.fields_text() {
            Some(fields) => write!(f, " {fields}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fields(fields: Vec<(String, Value)>) -> LogRecord {
        LogRecord {
            fields,
            ..LogRecord::new(LogSource::Hclog, Level::Info, "m")
        }
    }

    #[test]
    fn fields_are_pairs_of_which_none_passes_for_two() {
        let record = with_fields(vec![
            ("k x=1".to_owned(), "".into()),
            ("text".to_owned(), "a admin=true".into()),
            ("list".to_owned(), serde_json::json!(["a\u{202e}", 1])),
            ("word".to_owned(), "ü".into()),
        ]);
        insta::assert_snapshot!(
            record,
            @r#"[INFO] m "k x=1"="" text="a admin=true" list=["a\u{202e}",1] word=ü"#
        );
        assert_eq!(with_fields(Vec::new()).fields_text(), None);
    }

    #[test]
    fn fields_that_are_left_out_are_counted() {
        let field = |n: u32| (format!("k{n:02}"), Value::from("\u{1b}".repeat(4 << 10)));
        let record = LogRecord {
            fields_omitted: 2,
            ..with_fields((0..70).map(field).collect())
        };
        let text = record.fields_text().expect("fields");
        assert!(text.ends_with(" … 69 more"), "{}", text.len());
        assert!(text.len() < 2 * LONGEST_FIELDS);
    }

    #[test]
    fn a_line_without_structure_is_shown_as_it_is() {
        let line = LogRecord::new(LogSource::Text, Level::Error, "[ERROR] a\u{1b}[2J");
        assert_eq!(line.to_string(), r"[ERROR] a\u{1b}[2J");
    }
}
