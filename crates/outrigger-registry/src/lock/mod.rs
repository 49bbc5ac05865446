//! What was approved: the lock file, and what it makes of a plugin that is installed.

mod entry;
mod error;
mod file;
mod judge;
mod text;

pub use entry::{Locked, PlatformDigest};
pub use error::{LockError, LockErrorKind};
pub use file::LockFile;
pub use judge::{Installed, LockVerdict, Objection, Why};
pub use text::Lock;
