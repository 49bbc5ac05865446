//! Records of a plugin for the host's log: the same events, with the same
//! fields, as what it writes to its stderr.

use std::borrow::Cow;
use std::fmt::Write;

use outrigger_wire::proto::host::{LogLevel, LogRecord};

/// The most records of one call.
pub(crate) const MOST_RECORDS: usize = 1024;
/// The most fields of a record; further ones are left out, and said to be.
const MOST_FIELDS: usize = 64;
/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 64 << 10;
/// The longest key, value or module, in bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// The longest fields of a record together, in bytes.
const LONGEST_FIELDS: usize = 64 << 10;

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The level of that number; info for one that names none.
    fn of(number: i32) -> Self {
        match LogLevel::try_from(number) {
            Ok(LogLevel::Trace) => Self::Trace,
            Ok(LogLevel::Debug) => Self::Debug,
            Ok(LogLevel::Info | LogLevel::Unspecified) | Err(_) => Self::Info,
            Ok(LogLevel::Warn) => Self::Warn,
            Ok(LogLevel::Error) => Self::Error,
        }
    }

    /// Whether the host keeps records of this level.
    fn is_kept(self) -> bool {
        macro_rules! kept {
            ($level:ident) => {
                tracing::enabled!(target: "outrigger::plugin", tracing::Level::$level)
            };
        }
        match self {
            Self::Trace => kept!(TRACE),
            Self::Debug => kept!(DEBUG),
            Self::Info => kept!(INFO),
            Self::Warn => kept!(WARN),
            Self::Error => kept!(ERROR),
        }
    }
}

/// The least severe level that the host keeps; nothing when it keeps none.
pub(crate) fn least() -> LogLevel {
    let levels = [
        (Level::Trace, LogLevel::Trace),
        (Level::Debug, LogLevel::Debug),
        (Level::Info, LogLevel::Info),
        (Level::Warn, LogLevel::Warn),
        (Level::Error, LogLevel::Error),
    ];
    let kept = levels.into_iter().find(|(level, _)| level.is_kept());
    kept.map_or(LogLevel::Unspecified, |(_, level)| level)
}

/// Writes a record under the name of `plugin`; whether the host keeps it.
pub(crate) fn write(plugin: &str, record: &LogRecord) -> bool {
    let level = Level::of(record.level);
    if !level.is_kept() {
        return false;
    }
    let message = shown(&record.message, LONGEST_MESSAGE);
    let module = (!record.module.is_empty()).then(|| shown(&record.module, LONGEST_TEXT));
    let time = record.time.as_ref().and_then(|time| {
        let time = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
        Some(time.to_string())
    });
    let fields = fields_text(record);
    // As the host writes what comes from a plugin's stderr.
    macro_rules! record {
        ($level:ident) => {
            tracing::event!(
                target: "outrigger::plugin",
                tracing::Level::$level,
                plugin,
                time,
                module = module.as_deref(),
                fields,
                "{message}"
            )
        };
    }
    match level {
        Level::Trace => record!(TRACE),
        Level::Debug => record!(DEBUG),
        Level::Info => record!(INFO),
        Level::Warn => record!(WARN),
        Level::Error => record!(ERROR),
    }
    true
}

/// `key=value` pairs in the order of their keys.
fn fields_text(record: &LogRecord) -> Option<String> {
    if record.fields.is_empty() {
        return None;
    }
    let mut fields: Vec<_> = record.fields.iter().collect();
    fields.sort_unstable();
    let mut text = String::new();
    for (number, (key, value)) in fields.iter().enumerate() {
        if number == MOST_FIELDS || text.len() > LONGEST_FIELDS {
            let _ = write!(text, " … {} more", fields.len() - number);
            break;
        }
        let space = if number == 0 { "" } else { " " };
        let (key, value) = (shown(key, LONGEST_TEXT), shown(value, LONGEST_TEXT));
        // Writing to a string cannot fail.
        let _ = write!(text, "{space}{key}={value}");
    }
    Some(text)
}

/// A text of a plugin: cut, with the cut marked, and with nothing in it that
/// moves the cursor or ends the line of a log.
fn shown(text: &str, longest: usize) -> Cow<'_, str> {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, cut) = (&text[..end], end < text.len());
    if !cut && !kept.chars().any(char::is_control) {
        return Cow::Borrowed(kept);
    }
    let mut escaped = String::with_capacity(kept.len() + 8);
    for c in kept.chars() {
        if c == '\t' || !c.is_control() {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
    }
    if cut {
        let _ = write!(escaped, "… ({} bytes)", text.len());
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_escaped_and_fields_are_counted() {
        assert_eq!(shown("a\x1b[2Jb\r\n\tü", 100), "a\\u{1b}[2Jb\\r\\n\tü");
        assert_eq!(shown("üü", 3), "ü… (4 bytes)");
        let fields = (0..70).map(|n| (format!("k{n:02}"), "v\n".to_owned()));
        let record = LogRecord {
            fields: fields.collect(),
            ..LogRecord::default()
        };
        let text = fields_text(&record).expect("fields");
        assert!(text.starts_with("k00=v\\n k01="), "{text}");
        assert!(text.ends_with("k63=v\\n … 6 more"), "{text}");
    }

    #[test]
    fn an_unknown_level_is_info() {
        assert_eq!(Level::of(0), Level::Info);
        assert_eq!(Level::of(99), Level::Info);
        assert_eq!(Level::of(5), Level::Error);
    }
}
