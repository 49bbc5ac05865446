//! What a plugin logs, kept to explain its failures.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_wire::logs::{Level, LineSplitter, LogRecord, LogSource, Piece, StderrClassifier};

/// How many lines are kept.
const KEPT: usize = 5;
/// The longest line that is understood, in bytes.
const LONGEST: usize = 16 << 10;

/// The last lines that a plugin logged. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Words(Arc<Mutex<VecDeque<String>>>);

impl Words {
    /// What a launch copies the plugin's stderr to.
    pub(crate) fn listener(&self) -> Listener {
        Listener {
            splitter: LineSplitter::new(LONGEST),
            classifier: StderrClassifier::new(),
            words: self.clone(),
        }
    }

    /// The last lines since this was asked before, each safe to print.
    pub(crate) fn take(&self) -> VecDeque<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Turns bytes of stderr into words.
pub(crate) struct Listener {
    splitter: LineSplitter,
    classifier: StderrClassifier,
    words: Words,
}

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (classifier, words) = (&mut self.classifier, &self.words);
        self.splitter.push(bytes, &mut |piece: Piece<'_>| {
            if let Some(line) = line(&classifier.classify(&piece)) {
                words.keep(line);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A record as people read it; what only developers of the plugin care for is
/// left out.
fn line(record: &LogRecord) -> Option<String> {
    let wanted = match record.source {
        LogSource::Text => !record.message.trim().is_empty(),
        _ => record.level > Level::Debug,
    };
    wanted.then(|| record.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_as_people_read_them() {
        let words = Words::default();
        let mut listener = words.listener();
        for n in 0..9 {
            writeln!(listener, "line {n}").expect("kept");
        }
        let debug = r#"{"@level":"debug","@message":"plugin address","@timestamp":"2026-01-01T00:00:00.000000Z"}"#;
        let error = r#"{"@level":"error","@message":"no\u001b","@timestamp":"2026-01-01T00:00:00.000000Z","n":3}"#;
        writeln!(listener, "{debug}\n{error}").expect("kept");
        let lines = words.take();
        assert_eq!(
            lines,
            [
                "line 5",
                "line 6",
                "line 7",
                "line 8",
                r"[ERROR] no\u{1b} n=3"
            ]
        );
        assert!(words.take().is_empty());
    }
}
