//! What one line of a plugin's stderr says.

use super::hclog::{Record, Rejected};
use super::{Level, Piece};

/// What one [`Piece`] of a plugin's stderr says.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// Text without structure, with the level it is taken to have. Bytes that
    /// are not UTF-8 have been replaced.
    Text {
        /// Read off the text, or assumed.
        level: Level,
        /// The whole piece; a prefix that gave the level is kept.
        text: String,
    },
    /// A record of the plugin's own logger.
    Json(Record),
}

impl Entry {
    /// The level of the text or record.
    pub fn level(&self) -> Level {
        match self {
            Entry::Text { level, .. } => *level,
            Entry::Json(record) => record.level,
        }
    }
}

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
///     classifier.classify(&piece).level()
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

    /// Judges the next piece.
    pub fn classify(&mut self, piece: &Piece<'_>) -> Entry {
        let text = String::from_utf8_lossy(piece.bytes);
        if piece.long {
            return verbatim(text.into_owned());
        }
        match Record::parse(&text) {
            Ok(record) => Entry::Json(record),
            Err(Rejected::NoLevel) => verbatim(text.into_owned()),
            Err(Rejected::NotARecord) => Entry::Text {
                level: self.level_of(&text),
                text: text.into_owned(),
            },
        }
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

fn verbatim(text: String) -> Entry {
    Entry::Text {
        level: Level::Debug,
        text,
    }
}

#[cfg(test)]
mod tests;
