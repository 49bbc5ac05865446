//! What one line of a plugin's stderr says.

use super::hclog::Rejected;
use super::{Level, LogRecord, LogSource, Piece};

/// Judges the pieces of one plugin's stderr, in order.
///
/// Once a line looks like the beginning of a crash report, plain lines count
/// as errors, because the rest of the report is what an operator needs.
///
/// ```
/// use outrigger_wire::logs::{Level, Piece, StderrClassifier};
///
/// let mut classifier = StderrClassifier::new();
/// let mut level = |text: &str| {
///     let piece = Piece { bytes: text.as_bytes(), complete: true, long: false };
///     classifier.classify(&piece).level
/// };
/// assert_eq!(level("listening"), Level::Debug);
/// assert_eq!(level("panic: out of cheese"), Level::Error);
/// assert_eq!(level("goroutine 1 [running]:"), Level::Error);
/// assert_eq!(level("[INFO] unrelated"), Level::Info);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StderrClassifier {
    crashed: bool,
}

impl StderrClassifier {
    /// A classifier for the beginning of a stream.
    pub fn new() -> StderrClassifier {
        StderrClassifier::default()
    }

    /// What the next piece says.
    pub fn classify(&mut self, piece: &Piece<'_>) -> LogRecord {
        let text = String::from_utf8_lossy(piece.bytes);
        let level = match LogRecord::parse(&text) {
            _ if piece.long => Level::Debug,
            Ok(record) => return record,
            Err(Rejected::NoLevel) => Level::Debug,
            Err(Rejected::NotARecord) => self.level_of(&text),
        };
        LogRecord::new(LogSource::Text, level, text)
    }

    fn level_of(&mut self, text: &str) -> Level {
        const PREFIXES: [(&str, Level); 5] = [
            ("[TRACE]", Level::Trace),
            ("[DEBUG]", Level::Debug),
            ("[INFO]", Level::Info),
            ("[WARN]", Level::Warn),
            ("[ERROR]", Level::Error),
        ];
        let prefixed = PREFIXES.iter().find(|(prefix, _)| text.starts_with(prefix));
        if let Some((_, level)) = prefixed {
            return *level;
        }
        self.crashed |= text.starts_with("panic: ") || text.starts_with("fatal error: ");
        if self.crashed {
            Level::Error
        } else {
            Level::Debug
        }
    }
}

#[cfg(test)]
mod tests;
