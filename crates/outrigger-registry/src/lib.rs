//! Which plugins are installed in a folder, and what is wrong with those that cannot be used.
//!
//! ```no_run
//! use outrigger_registry::{EntryState, Registry};
//!
//! for entry in &Registry::scan("plugins")? {
//!     match entry.state() {
//!         EntryState::Available { program, .. } => println!("{}: {program:?}", entry.name()),
//!         EntryState::Unusable { error, .. } => println!("{}: {error}", entry.name()),
//!     }
//! }
//! # Ok::<(), outrigger_registry::RegistryError>(())
//! ```
//!
//! Each folder in it holds one plugin: its `manifest.yaml`, its program, and perhaps what the
//! program must hash to. Whatever else stands there, looking at it waits for nobody and costs the
//! plugins beside it nothing. This crate deliberately starts no process, decides over no request,
//! and speaks to no plugin: what it hands on is a [`Manifest`](outrigger_manifest::Manifest).

#![forbid(unsafe_code)]

mod bundle;
mod checksum;
mod digest_cache;
mod entry;
mod error;
mod file;
mod file_kind;
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod registry;
mod shown;
mod signature;
mod source;
mod watch;

pub use bundle::Bundle;
pub use checksum::{ChecksumError, checksum_of};
pub use digest_cache::DigestCache;
pub use entry::{Entry, EntryState};
pub use error::{RegistryError, RegistryErrorKind};
pub use file_kind::FileKind;
pub use lock::{
    Installed, Lock, LockError, LockErrorKind, LockFile, LockVerdict, Locked, Objection,
    PlatformDigest, Why,
};
pub use registry::{Registry, Scan};
pub use semver;
pub use signature::{SignatureError, Trust};
pub use source::SourceFile;
pub use watch::{EntryChanged, Observed, Pace, Snapshot, Watch};
