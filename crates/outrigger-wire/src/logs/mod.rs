//! What a plugin writes to stderr, and what its host makes of it.
//!
//! A host feeds the bytes it reads into a [`LineSplitter`], copies each
//! [`Piece`] raw to where the operator wants it, and asks a
//! [`StderrClassifier`] what the piece says. A plugin writes its log records
//! with [`write_hclog`].
//!
//! ```
//! use outrigger_wire::logs::{Level, LineSplitter, LogRecord, LogSource, StderrClassifier};
//!
//! let mut splitter = LineSplitter::default();
//! let mut classifier = StderrClassifier::new();
//! let mut records = Vec::new();
//! splitter.push(
//!     b"{\"@level\":\"info\",\"@message\":\"ready\"}\n[WARN] low on disk\n",
//!     &mut |piece| records.push(classifier.classify(&piece)),
//! );
//! assert_eq!(records[0], LogRecord::new(LogSource::Hclog, Level::Info, "ready"));
//! assert_eq!(records[1], LogRecord::new(LogSource::Text, Level::Warn, "[WARN] low on disk"));
//! ```
//!
//! Nothing in a [`LogRecord`] is escaped: what a plugin prints may contain control
//! characters. Its `Display`, and [`text`](crate::text), take them out for whoever
//! shows it.

mod classify;
mod hclog;
mod record;
mod repair;
mod split;

pub use crate::level::{Level, UnknownLevel};
pub use classify::StderrClassifier;
pub use hclog::write_hclog;
pub use record::{LogRecord, LogSource};
pub use split::{DEFAULT_LINE_BUFFER, LineSplitter, MIN_LINE_BUFFER, Piece};
