//! What a host does for its plugins: files, environment, ids and directories.
//!
//! ```
//! use outrigger_services::{HostServe, Limits};
//! use outrigger_transport::{HostServices, PluginIdentity};
//!
//! let services = HostServe::open(".")?
//!     .read_only(true)
//!     .allow_env(["LANG"])
//!     .limits(Limits { handles: 16, ..Limits::default() });
//! // One value serves many plugins; each connection gets services of its own.
//! let greeter = services.bind(&PluginIdentity::new("greeter", "1", None));
//! let lister = services.bind(&PluginIdentity::new("lister", "2", None));
//! # drop((greeter, lister));
//! # Ok::<(), outrigger_services::RootError>(())
//! ```
//!
//! # How it is confined
//! - A directory is taken once, by its handle. Every path is resolved beneath
//!   that handle by the kernel (`openat2`, or step by step where it is missing),
//!   so `..`, absolute links and links swapped in at the last moment lead
//!   nowhere. What is opened must be a regular file or a directory; anything
//!   else is refused without waiting for it.
//! - `root_dir` is relative to that directory, or absolute and beneath it by its
//!   text, or beneath the plugin's temporary directory; it is no authority of
//!   its own. `path` is taken from there and may not lead above it; an absolute
//!   one stands for itself, by the same rule.
//! - Identity is the connection. Metadata that a plugin sends is logged, no more.
//! - Each call writes one `tracing` event (target `outrigger_services::hostserve`):
//!   at debug level when it worked, info when it failed, warn when it was
//!   refused. The plugin learns that it was refused, the event says why.
//! - What one plugin can make the host hold is in [`Limits`].
//!
//! # Where a plugin may be surprised
//! - `TempDir` is the plugin's own directory, not the system's; `MkdirTemp` and
//!   `FileCreateTemp` work in it whatever `root_dir` says. It is writable even
//!   when the granted directory is read-only, and gone with the connection.
//! - A symbolic link's text may only lead down from the link's own directory;
//!   an absolute one into that directory is stored as a relative one.
//! - Set-user-id, set-group-id and sticky bits cannot be set, and files cannot be
//!   given to other owners unless [`HostServe::allow_ownership_changes`] says so.
//! - `ReadFile` returns what fits into a message; larger files are streamed.
//! - `FileReader` and `FileWriter` use and move the handle's position; the calls
//!   with an offset do not. A file opened for appending takes no offset.
//!
//! # How it is fast
//! Reads of at most 64 KiB, and opening for reading, happen on the connection's
//! own thread as long as the file system is a local one and the kernel promises
//! not to wait (`RESOLVE_CACHED`, `RWF_NOWAIT`). Everything else goes to threads
//! that may wait, of which one plugin has at most [`Limits::blocking`].
//!
//! This crate deliberately does not know how plugins are started, or how a
//! manifest becomes a grant.

#![forbid(unsafe_code)]

mod argument;
mod audit;
mod clock;
mod environment;
mod fault;
mod gate;
mod granted;
mod grants;
mod leases;
mod limits;
mod log;
mod process;
mod places;
mod proto;
mod rate;
mod session;
mod session_service;
mod text;

pub use audit::{AuditError, AuditLog, AuditReceiver, AuditRecord, Verdict};
pub use granted::{GrantedServices, HOST_SERVICES_DESCRIPTORS};
pub use limits::Limits;
