//! Records of a plugin for the host's log: the same events, with the same
//! fields, as what it writes to its stderr.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use outrigger_manifest::HostService;
use outrigger_wire::logs::Level;
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status, Streaming};

use crate::argument::Argument;
use crate::fault::Fault;
use crate::proto::host::log_server;
use crate::rate::Bucket;
use crate::session::{Operation, Running, Session};

const WRITE: Operation = operation("write");
const WRITE_STREAM: Operation = operation("write_stream");
const LEVEL: Operation = operation("level");

/// The most records of one message.
const MOST_RECORDS: usize = 1024;
/// Records per second that are taken from one connection.
const RECORDS_PER_SECOND: u64 = 10_000;
/// The most fields of a record; further ones are left out, and said to be.
const MOST_FIELDS: usize = 64;
/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 64 << 10;
/// The longest key, value or module, in bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// The longest fields of a record together, in bytes.
const LONGEST_FIELDS: usize = 64 << 10;

const fn operation(name: &'static str) -> Operation {
    Operation::of_service(HostService::Log, name)
}

/// `outrigger.host.v1.Log` for one plugin connection.
pub(crate) struct LogService {
    session: Arc<Session>,
    pace: Bucket,
}

impl LogService {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            pace: Bucket::new(RECORDS_PER_SECOND, Instant::now()),
        }
    }

    /// Writes records whose number was judged already.
    fn write_all(&self, records: &[LogRecord], counts: &mut WriteLogResponse) {
        let plugin = self.session.identity().name();
        for record in records {
            match write(plugin, record) {
                true => counts.written = counts.written.saturating_add(1),
                false => counts.filtered = counts.filtered.saturating_add(1),
            }
        }
    }
}

fn check(records: &[LogRecord]) -> Result<(), Fault> {
    match records.len() {
        ..=MOST_RECORDS => Ok(()),
        _ => Err(Fault::abuse(format!(
            "at most {MOST_RECORDS} records in a message"
        ))),
    }
}

#[tonic::async_trait]
impl log_server::Log for LogService {
    async fn write(
        &self,
        request: Request<WriteLogRequest>,
    ) -> Result<Response<WriteLogResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let work = async |_: &Running| {
            check(&message.records)?;
            let late = |after| Fault::Exhausted {
                code: "rate-limited",
                text: format!("more than {RECORDS_PER_SECOND} log records per second"),
                after: Some(after),
            };
            let count = message.records.len() as u64;
            self.pace.take(count, Instant::now()).map_err(late)?;
            let mut counts = WriteLogResponse::default();
            self.write_all(&message.records, &mut counts);
            Ok(counts)
        };
        let shown = |shown: &mut Argument| {
            shown.shown("records", message.records.len());
        };
        self.session.call(WRITE, &metadata, shown, work).await
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<WriteLogRequest>>,
    ) -> Result<Response<WriteLogResponse>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let begun = self.session.begin(WRITE_STREAM, &metadata, |_| {});
        let running = begun.map_err(|fault| fault.status(&WRITE_STREAM.full_name()))?;
        let mut counts = WriteLogResponse::default();
        let outcome = loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    if let Err(fault) = check(&message.records) {
                        break Err(fault);
                    }
                    let count = message.records.len() as u64;
                    // A stream slows down to the pace.
                    while let Err(wait) = self.pace.take(count, Instant::now()) {
                        tokio::time::sleep(wait).await;
                    }
                    self.write_all(&message.records, &mut counts);
                }
                Ok(None) => break Ok(counts),
                Err(_) => break Err(Fault::Cancelled),
            }
        };
        running.finish(outcome).map(Response::new)
    }

    async fn level(
        &self,
        request: Request<LevelRequest>,
    ) -> Result<Response<LevelResponse>, Status> {
        let work = async |_: &_| {
            let level = least().into();
            Ok(LevelResponse { level })
        };
        self.session
            .call(LEVEL, request.metadata(), |_| {}, work)
            .await
    }
}

/// The level of that number; info for one that names none.
fn level_of(number: i32) -> Level {
    let level = LogLevel::try_from(number).ok();
    level.and_then(Level::from_message).unwrap_or(Level::Info)
}

/// Whether the host keeps records of this level.
fn is_kept(level: Level) -> bool {
    macro_rules! kept {
        ($level:ident) => {
            tracing::enabled!(target: "outrigger::plugin", tracing::Level::$level)
        };
    }
    match level {
        Level::Trace => kept!(TRACE),
        Level::Debug => kept!(DEBUG),
        Level::Info => kept!(INFO),
        Level::Warn => kept!(WARN),
        Level::Error => kept!(ERROR),
    }
}

/// The least severe level that the host keeps; nothing when it keeps none.
fn least() -> LogLevel {
    let kept = Level::ALL.into_iter().find(|level| is_kept(*level));
    kept.map_or(LogLevel::Unspecified, LogLevel::from)
}

/// Writes a record under the name of `plugin`; whether the host keeps it.
fn write(plugin: &str, record: &LogRecord) -> bool {
    let level = level_of(record.level);
    if !is_kept(level) {
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

/// `key=value` pairs in the order of their keys, none of which can pass for two.
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
        // Writing to a string cannot fail.
        let _ = write!(text, "{space}{}={}", word(key), word(value));
    }
    Some(text)
}

/// A key or a value: quoted, unless it is a plain word.
fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '=' | '"' | '\'' | '\\');
    if text.len() <= LONGEST_TEXT && !text.is_empty() && text.chars().all(plain) {
        return shown(text, LONGEST_TEXT);
    }
    let (kept, cut) = cut(text, LONGEST_TEXT);
    Cow::Owned(format!("\"{}{cut}\"", kept.escape_debug()))
}

/// A text of a plugin: cut, with the cut marked, and with nothing in it that
/// moves the cursor, ends the line of a log, or turns its direction.
fn shown(text: &str, longest: usize) -> Cow<'_, str> {
    let (kept, cut) = cut(text, longest);
    let printable = |byte| matches!(byte, b'\t' | b' '..=b'~');
    if cut.is_empty() && kept.bytes().all(printable) {
        return Cow::Borrowed(kept);
    }
    let mut escaped = String::with_capacity(kept.len() + 8);
    for part in kept.split_inclusive(['\t', '"', '\'', '\\']) {
        // Harmless in a message, and escaped below.
        let end = part.char_indices().next_back();
        let end = end.filter(|(_, c)| matches!(c, '\t' | '"' | '\'' | '\\'));
        let (before, after) = part.split_at(end.map_or(part.len(), |(at, _)| at));
        escaped.extend(before.escape_debug());
        escaped.push_str(after);
    }
    escaped.push_str(&cut);
    Cow::Owned(escaped)
}

/// What is kept of a text, and a mark if that is not all.
fn cut(text: &str, longest: usize) -> (&str, String) {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = match end < text.len() {
        true => format!("… ({} bytes)", text.len()),
        false => String::new(),
    };
    (&text[..end], mark)
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
        assert!(text.starts_with("k00=\"v\\n\" k01="), "{text}");
        assert!(text.ends_with("k63=\"v\\n\" … 6 more"), "{text}");
    }

    #[test]
    fn no_value_passes_for_a_second_pair_and_no_text_for_a_second_line() {
        let fields = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let fields = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let fields = fields.collect();
            let record = LogRecord {
                fields,
                ..LogRecord::default()
            };
            fields_text(&record).expect("fields")
        };
        assert_eq!(fields(&[("k", "a admin=true")]), r#"k="a admin=true""#);
        assert_eq!(fields(&[("k", "\" admin=true")]), r#"k="\" admin=true""#);
        assert_eq!(fields(&[("k x=1", "")]), r#""k x=1"="""#);
        assert_eq!(
            fields(&[("k", "a\u{2028}b"), ("l", "ü")]),
            r#"k="a\u{2028}b" l=ü"#
        );
        let turned = "a\u{202e}b\u{2029}c\u{85}d \"e\" f\\g\u{301}";
        assert_eq!(
            shown(turned, 100),
            "a\\u{202e}b\\u{2029}c\\u{85}d \"e\" f\\g\u{301}"
        );
    }

    #[test]
    fn an_unknown_level_is_info() {
        assert_eq!(level_of(0), Level::Info);
        assert_eq!(level_of(99), Level::Info);
        assert_eq!(level_of(5), Level::Error);
    }
}
