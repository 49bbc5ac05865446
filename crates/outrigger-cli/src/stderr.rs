//! What a plugin prints, kept for an explanation or shown line by line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_wire::logs::{Entry, Piece, Record, StderrClassifier};

use crate::failure::printable;

/// How much of the end of a plugin's stderr is kept, in bytes.
const KEPT: usize = 32 << 10;
/// How many lines of it are shown.
const SHOWN_LINES: usize = 8;
/// How much of one line is shown, in characters.
const SHOWN_LINE: usize = 400;

/// The end of a plugin's stderr. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords(Arc<Mutex<Vec<u8>>>);

impl Write for LastWords {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
        // Moving the rest only now and then keeps a flood of short lines cheap.
        if kept.len() > 2 * KEPT {
            let surplus = kept.len() - KEPT;
            kept.drain(..surplus);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LastWords {
    /// Its last lines, each on one line and safe to print.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut classifier = StderrClassifier::new();
        let lines: Vec<String> = kept
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|bytes| {
                let piece = Piece {
                    bytes,
                    complete: true,
                    long: false,
                };
                shorten(printable(&text_of(classifier.classify(&piece))))
            })
            .collect();
        let tail = lines.len().saturating_sub(SHOWN_LINES);
        // What a panic says stands above its long trace.
        let said = lines.iter().rposition(|line| speaks_of_panic(line));
        let from = said.map_or(tail, |said| said.min(tail));
        lines.into_iter().skip(from).take(SHOWN_LINES).collect()
    }
}

fn speaks_of_panic(line: &str) -> bool {
    ["panic: ", "fatal error: "]
        .iter()
        .any(|words| line.starts_with(words))
        || line.starts_with("thread '") && line.contains("panicked at")
}

/// A log entry as people read it.
fn text_of(entry: Entry) -> String {
    match entry {
        Entry::Text { text, .. } => text,
        Entry::Json(record) => record_text(&record),
    }
}

fn record_text(record: &Record) -> String {
    let mut text = format!(
        "[{}] {}",
        record.level.as_str().to_uppercase(),
        record.message
    );
    for (key, value) in &record.fields {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!(" {key}={value}"));
    }
    text
}

fn shorten(line: String) -> String {
    let count = line.chars().count();
    if count <= SHOWN_LINE {
        return line;
    }
    let shown: String = line.chars().take(SHOWN_LINE).collect();
    format!("{shown}… (+{} characters)", count - SHOWN_LINE)
}

/// Logs every line that a plugin prints while it serves.
#[derive(Debug)]
pub(crate) struct LoggedLines {
    stream: &'static str,
    line: Vec<u8>,
}

impl LoggedLines {
    pub(crate) fn new(stream: &'static str) -> Self {
        Self {
            stream,
            line: Vec::new(),
        }
    }
}

impl Write for LoggedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = KEPT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || self.line.len() >= KEPT {
                let text = String::from_utf8_lossy(&self.line);
                let line = printable(text.trim_end_matches('\n'));
                tracing::info!(target: "outrigger::plugin", stream = self.stream, "{line}");
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut words = LastWords::default();
        words.write_all(bytes).expect("kept");
        words.lines()
    }

    #[test]
    fn log_records_are_shown_as_text_and_other_lines_escaped() {
        let record = br#"{"@level":"error","@message":"tls init","@timestamp":"2026-01-01T00:00:00.000000Z","error":"no token","n":3}"#;
        assert_eq!(lines(record), ["[ERROR] tls init error=no token n=3"]);
        assert_eq!(lines(b"a\x1b[2J\n\nb"), ["a\\u{1b}[2J", "b"]);
    }

    #[test]
    fn a_panic_is_shown_from_its_message_on() {
        let mut text = b"starting\npanic: boom\n".to_vec();
        for n in 0..50 {
            text.extend(format!("\tframe {n}\n").as_bytes());
        }
        let shown = lines(&text);
        assert_eq!(
            (shown.len(), shown[0].as_str()),
            (SHOWN_LINES, "panic: boom")
        );
    }

    #[test]
    fn a_flood_is_cut_to_its_last_lines() {
        let mut words = LastWords::default();
        for n in 0..100_000 {
            writeln!(words, "line {n}").expect("kept");
        }
        assert_eq!(words.lines().last().expect("a line"), "line 99999");
        assert_eq!(words.lines().len(), SHOWN_LINES);
        assert!(words.0.lock().expect("no panic").len() <= 2 * KEPT);
        assert!(lines(&[b'x'; 5000])[0].ends_with("… (+4600 characters)"));
    }
}
