//! A plugin's stderr, as `tracing` events of the host.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_wire::logs::{Entry, Level, LineSplitter, Piece, Record, StderrClassifier};
use outrigger_wire::{EXCERPT_LIMIT, Excerpt};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How many of the last lines are kept to explain an end.
const TAIL_LINES: usize = 20;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// How much of such a line is kept, in bytes: more than an excerpt shows.
const TAIL_LINE: usize = EXCERPT_LIMIT + 8;

/// The last lines of a plugin's stderr. They are escaped and cut when somebody
/// asks for them, because most are never asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<Kept>>>);

#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    length: usize,
}

impl Tail {
    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if lines.len() == TAIL_LINES {
            lines.pop_front()
        } else {
            None
        };
        let mut kept = oldest.unwrap_or_default();
        kept.head.clear();
        kept.head
            .extend_from_slice(&line[..line.len().min(TAIL_LINE)]);
        kept.length = line.len();
        lines.push_back(kept);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(|kept| Excerpt::beginning(&kept.head, kept.length).to_string())
            .collect()
    }
}

/// Reads `stderr` to its end: raw bytes to `copy`, parsed lines to `tracing`
/// under `plugin`, the last lines to `tail`.
pub(crate) async fn pump(
    mut stderr: impl AsyncRead + Unpin,
    plugin: String,
    buffer: usize,
    mut copy: Option<Box<dyn Write + Send>>,
    tail: Tail,
) {
    let mut splitter = LineSplitter::new(buffer);
    let mut classifier = StderrClassifier::new();
    let mut chunk = vec![0; CHUNK];
    let mut sink = |piece: Piece<'_>| {
        if let Some(copy) = &mut copy {
            let end: &[u8] = if piece.complete { b"\n" } else { b"" };
            if let Err(error) = copy
                .write_all(piece.bytes)
                .and_then(|()| copy.write_all(end))
            {
                tracing::warn!(plugin, %error, "could not copy a line of the plugin's stderr");
            }
        }
        if !piece.bytes.is_empty() {
            tail.push(piece.bytes);
        }
        if tracing::enabled!(target: "outrigger::plugin", tracing::Level::ERROR) {
            emit(&plugin, classifier.classify(&piece));
        }
    };
    loop {
        match stderr.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => splitter.push(&chunk[..read], &mut sink),
            Err(error) => {
                tracing::warn!(%error, "could not read a plugin's stderr");
                break;
            }
        }
    }
    splitter.finish(&mut sink);
}

fn emit(plugin: &str, entry: Entry) {
    match entry {
        Entry::Text { level, text } => {
            let message = escape(&text);
            macro_rules! text {
                ($level:ident) => {
                    tracing::event!(
                        target: "outrigger::plugin",
                        tracing::Level::$level,
                        plugin,
                        "{message}"
                    )
                };
            }
            match level {
                Level::Trace => text!(TRACE),
                Level::Debug => text!(DEBUG),
                Level::Info => text!(INFO),
                Level::Warn => text!(WARN),
                Level::Error => text!(ERROR),
            }
        }
        Entry::Json(record) => emit_record(plugin, &record),
    }
}

fn emit_record(plugin: &str, record: &Record) {
    let message = escape(&record.message);
    let (module, caller) = (
        record.module.as_deref().map(escape),
        record.caller.as_deref().map(escape),
    );
    let (module, caller) = (module.as_deref(), caller.as_deref());
    let time = (record.time != Record::NO_TIME).then(|| record.time.to_string());
    let fields = (!record.fields.is_empty()).then(|| fields_text(record));
    macro_rules! record {
        ($level:ident) => {
            tracing::event!(
                target: "outrigger::plugin",
                tracing::Level::$level,
                plugin,
                time,
                module,
                caller,
                fields,
                "{message}"
            )
        };
    }
    match record.level {
        Level::Trace => record!(TRACE),
        Level::Debug => record!(DEBUG),
        Level::Info => record!(INFO),
        Level::Warn => record!(WARN),
        Level::Error => record!(ERROR),
    }
}

/// `key=value` pairs as hclog prints them, none of which can pass for two.
fn fields_text(record: &Record) -> String {
    let pairs: Vec<String> = record
        .fields
        .iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => format!("{}={}", word(key), word(text)),
            other => format!("{}={}", word(key), escape(&other.to_string())),
        })
        .collect();
    pairs.join(" ")
}

/// A key or a value: quoted, unless it is a plain word.
fn word(text: &str) -> Cow<'_, str> {
    let parts = |c: char| c.is_whitespace() || matches!(c, '=' | '"' | '\'' | '\\');
    if text.is_empty() || text.contains(parts) {
        return Cow::Owned(format!("\"{}\"", text.escape_debug()));
    }
    escape(text)
}

/// What a plugin says must not move the cursor, end the line of a log, or turn
/// its direction.
fn escape(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| matches!(c, '\t' | '"' | '\'' | '\\');
    let printable = |c: char| harmless(c) || matches!(c, ' '..='~');
    if text.chars().all(printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_debug());
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn raw_bytes_are_copied_and_the_last_lines_kept() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("lock").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (copy, tail) = (Shared::default(), Tail::default());
        let text: String = (0..30).map(|n| format!("line {n}\n")).collect();
        let stderr = std::io::Cursor::new(format!("{text}\x1b[2J end").into_bytes());
        pump(
            stderr,
            "p".into(),
            65536,
            Some(Box::new(copy.clone())),
            tail.clone(),
        )
        .await;
        let expected = format!("{text}\x1b[2J end\n");
        assert_eq!(
            String::from_utf8_lossy(&copy.0.lock().expect("lock")),
            expected
        );
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert!(!lines.last().expect("a line").contains('\x1b'), "{lines:?}");
    }

    #[test]
    fn control_characters_are_escaped_and_text_is_kept() {
        assert_eq!(escape("a\x1b[31mb\r\n\tü"), "a\\u{1b}[31mb\\r\\n\tü");
        assert_eq!(
            escape("it's \u{202e}txt\u{2028}"),
            "it's \\u{202e}txt\\u{2028}"
        );
        assert_eq!(word("plain"), "plain");
        assert_eq!(word("a admin=true"), "\"a admin=true\"");
        assert_eq!(word(""), "\"\"");
    }
}
