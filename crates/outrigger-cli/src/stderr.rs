//! What a plugin prints, kept for an explanation or shown line by line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_transport::plugin_log::PLUGIN_LOG;
use outrigger_wire::logs::{Piece, StderrClassifier};
use outrigger_wire::text::printable;

/// How much of the end of a plugin's stderr is kept, in bytes.
const KEPT: usize = 32 << 10;
/// How many lines of it are shown.
const SHOWN_LINES: usize = 8;
/// How much of one line is shown, in characters.
const SHOWN_LINE: usize = 400;

/// How much of a line is kept while it is not complete, in bytes.
const KEPT_LINE: usize = 2 << 10;
/// How much of a panic is kept from its message on, in bytes: a program with many
/// threads prints any length.
const KEPT_PANIC: usize = 16 << 10;

/// The end of a plugin's stderr. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords(Arc<Mutex<StderrEnd>>);

#[derive(Debug, Default)]
struct StderrEnd {
    tail: Vec<u8>,
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The last panic, from its message on.
    panic: Vec<u8>,
}

impl StderrEnd {
    fn take(&mut self, bytes: &[u8]) {
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
        // Moving the rest only now and then keeps a flood of short lines cheap.
        if self.tail.len() > 2 * KEPT {
            let surplus = self.tail.len() - KEPT;
            self.tail.drain(..surplus);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = KEPT_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if begins_panic(&self.line) {
            self.panic.clear();
        } else if self.panic.is_empty() {
            self.line.clear();
            return;
        }
        let room = KEPT_PANIC.saturating_sub(self.panic.len());
        let length = self.line.len().min(room);
        self.panic.extend(self.line.drain(..length));
        self.line.clear();
    }
}

impl Write for LastWords {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LastWords {
    /// Its last lines, each on one line and safe to print. Of a panic, what it
    /// says and where it began.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.panic.is_empty() {
            let lines = lines_of(&kept.tail);
            let surplus = lines.len().saturating_sub(SHOWN_LINES);
            return lines.into_iter().skip(surplus).collect();
        }
        panic_of(lines_of(&kept.panic))
    }

    /// Whether it tells of a crash.
    pub(crate) fn crashed(&self) -> bool {
        const TRACEBACK: &[u8] = b"Traceback (most recent call last)";
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut windows = kept.tail.windows(TRACEBACK.len());
        !kept.panic.is_empty() || windows.any(|window| window == TRACEBACK)
    }
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let mut classifier = StderrClassifier::new();
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|bytes| {
            let piece = Piece {
                bytes,
                complete: true,
                long: false,
            };
            shorten(classifier.classify(&piece).to_string())
        })
        .collect()
}

fn begins_panic(line: &[u8]) -> bool {
    ["panic: ", "fatal error: "]
        .iter()
        .any(|words| line.starts_with(words.as_bytes()))
        || line.starts_with(b"thread '") && String::from_utf8_lossy(line).contains("panicked at")
}

/// What a panic says, and of Go's the first place that is the plugin's own.
fn panic_of(lines: Vec<String>) -> Vec<String> {
    let goroutine = |line: &String| line.starts_with("goroutine ") && line.ends_with("]:");
    let Some(trace) = lines.iter().position(goroutine) else {
        return lines.into_iter().take(SHOWN_LINES).collect();
    };
    let place = own_place(&lines[trace + 1..]);
    let said = lines.into_iter().take(trace.min(SHOWN_LINES - 1));
    said.chain(place).collect()
}

/// The first frame of a Go trace that is not of Go itself or of its RPC.
fn own_place(trace: &[String]) -> Option<String> {
    const OTHERS: [&str; 7] = [
        "panic(",
        "runtime.",
        "runtime/",
        "reflect.",
        "net/rpc.",
        "google.golang.org/",
        "testing.",
    ];
    let mut frames = trace.windows(2).filter(|pair| pair[1].starts_with("\\t"));
    let [function, place] = frames.find(|pair| {
        let of = |other: &&str| pair[0].starts_with(*other);
        !OTHERS.iter().any(of)
    })?
    else {
        return None;
    };
    let function = function
        .rsplit_once('(')
        .map_or(&**function, |(name, _)| name);
    let place = place.trim_start_matches("\\t");
    let place = place.rsplit_once(" +0x").map_or(place, |(place, _)| place);
    Some(format!("in {function} at {place}"))
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
                tracing::info!(target: PLUGIN_LOG, stream = self.stream, "{line}");
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
        assert_eq!(lines(record), ["[ERROR] tls init error=\"no token\" n=3"]);
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
    fn of_a_go_panic_its_words_and_the_first_own_place_are_shown_however_long_the_trace() {
        let mut text = b"{\"@message\":\"x\"}\npanic: a \x1b[2J [recovered]\n\tpanic: b\n\ngoroutine 7 [running]:\n\
            panic({0x1, 0x2})\n\t/go/runtime/panic.go:1 +0x1\n\
            runtime.goexit({})\n\t/go/runtime/asm.s:1 +0x1\n\
            main.(*lister).List(0x0, {0x1})\n\t/src/a b/lister.go:50 +0x2a\n"
            .to_vec();
        for n in 0..20_000 {
            text.extend(format!("main.f{n}(...)\n\t/src/f.go:{n} +0x1\n").as_bytes());
        }
        let expected = [
            "panic: a \\u{1b}[2J [recovered]",
            "\\tpanic: b",
            "in main.(*lister).List at /src/a b/lister.go:50",
        ];
        assert_eq!(lines(&text), expected);
        // However it is cut into writes.
        let mut words = LastWords::default();
        for byte in &text[..2000] {
            words.write_all(&[*byte]).expect("kept");
        }
        assert_eq!(words.lines(), expected);
        assert!(words.crashed());
        words.write_all(b"\npanic: the last\n").expect("kept");
        assert_eq!(words.lines(), ["panic: the last"]);
    }

    #[test]
    fn a_traceback_is_a_crash_and_a_complaint_is_none() {
        let mut words = LastWords::default();
        words.write_all(b"no licence\n").expect("kept");
        assert!(!words.crashed());
        words
            .write_all(b"Traceback (most recent call last):\n  File \"a\"\nE: x\n")
            .expect("kept");
        assert!(words.crashed());
        assert_eq!(words.lines().last().expect("a line"), "E: x");
    }

    #[test]
    fn a_flood_is_cut_to_its_last_lines() {
        let mut words = LastWords::default();
        for n in 0..100_000 {
            writeln!(words, "line {n}").expect("kept");
        }
        assert_eq!(words.lines().last().expect("a line"), "line 99999");
        assert_eq!(words.lines().len(), SHOWN_LINES);
        assert!(words.0.lock().expect("no panic").tail.len() <= 2 * KEPT);
        assert!(lines(&[b'x'; 5000])[0].ends_with("… (+4600 characters)"));
    }
}
