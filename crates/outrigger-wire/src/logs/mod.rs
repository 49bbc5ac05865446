//! What a plugin writes to stderr, and what its host makes of it.
//!
//! A host feeds the bytes it reads into a [`LineSplitter`], copies each
//! [`Piece`] raw to where the operator wants it, and asks a
//! [`StderrClassifier`] what the piece says. A plugin writes its log records
//! with [`write_hclog`].
//!
//! ```
//! use outrigger_wire::logs::{Entry, Level, LineSplitter, StderrClassifier};
//!
//! let mut splitter = LineSplitter::default();
//! let mut classifier = StderrClassifier::new();
//! let mut entries = Vec::new();
//! splitter.push(
//!     b"{\"@level\":\"info\",\"@message\":\"ready\"}\n[WARN] low on disk\n",
//!     &mut |piece| entries.push(classifier.classify(&piece)),
//! );
//! let Entry::Json(record) = &entries[0] else { panic!() };
//! assert_eq!((record.level, record.message.as_str()), (Level::Info, "ready"));
//! assert_eq!(
//!     entries[1],
//!     Entry::Text { level: Level::Warn, text: "[WARN] low on disk".to_owned() }
//! );
//! ```
//!
//! Nothing here is escaped: what a plugin prints may contain control
//! characters, and whoever shows it on a terminal must take them out.

mod classify;
mod hclog;
mod level;
mod repair;
mod split;

pub use classify::{Entry, StderrClassifier};
pub use hclog::{Record, write_hclog};
pub use level::{Level, UnknownLevel};
pub use split::{DEFAULT_LINE_BUFFER, LineSplitter, MIN_LINE_BUFFER, Piece};
