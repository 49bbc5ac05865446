//! What a host does for a plugin under its grants: files, processes, the
//! network, environment, clock and log.
//!
//! ```
//! use outrigger_manifest::{Manifest, Places, Policy};
//! use outrigger_services::{AuditLog, GrantedServices, Limits};
//! use outrigger_transport::{HostServices, PluginIdentity};
//!
//! let manifest = Manifest::parse("
//! plugin: {name: lister, format: grpc, entrypoint: lister}
//! handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}
//! capabilities:
//!   filesystem: [{path: /usr/share/doc, permissions: [read, list], recursive: true}]
//!   environment: {read: [LANG]}
//! ")?;
//! let places = Places::new("/opt/plugins/lister", "/var/lib/app/lister")?;
//! let decision = Policy::allow_requested().decide(&manifest, &places);
//!
//! let (audit, mut records) = AuditLog::channel(1000);
//! let services = GrantedServices::new(decision.grants())
//!     .limits(Limits { leases: 16, ..Limits::default() })
//!     .audit(audit);
//! // Each connection gets services of its own.
//! let bound = services.bind(&PluginIdentity::new("lister", "1", None));
//! assert!(bound.names().any(|name| name == "outrigger.host.v1.Filesystem"));
//! assert!(bound.names().any(|name| name == "hostserve.v1.HostService"));
//! assert!(records.try_recv().is_none(), "nothing was asked for yet");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is confined
//! - `outrigger_manifest::Grants` is the only source of verdicts. What is not
//!   granted is refused call by call, and every call leaves one record.
//! - What is granted of the file tree is opened once, when the services are
//!   made. A path is judged as it is spelled and then used in just that spelling
//!   beneath the grant's handle, where no step may be a link; links are
//!   spelled out and judged again. So `..`, links, and links swapped in at the
//!   last moment lead nowhere that was not judged. What is opened must be a
//!   regular file or a directory; anything else is refused without waiting for it.
//!   Where the kernel shows itself (procfs, sysfs and their like), what belongs to
//!   processes is never served, and nothing is changed, whatever is granted.
//! - Identity is the connection. Metadata that a plugin sends is recorded, no more.
//! - Each operation writes one `tracing` event (target `outrigger_services::audit`)
//!   and one record to the [`AuditLog`]: at debug level when it worked, info when
//!   it failed or was not judged, warn when it was refused. The plugin learns that it was refused,
//!   the record says why, by which rule, and which grant would have been needed.
//! - What one plugin can make the host hold, move and wait for is in [`Limits`].
//!
//! # `hostserve.v1`
//! The same operations under the same grants, with errors inside the replies.
//! - `root_dir` is no authority of its own: it is an absolute name, or relative
//!   to the first granted directory. `path` is taken from there and may not lead
//!   above it; an absolute one stands for itself.
//! - `TempDir` is the plugin's own directory, not the system's; `MkdirTemp` and
//!   `FileCreateTemp` work in it whatever `root_dir` says. It is writable whatever
//!   is granted, and gone with the connection.
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

mod application;
mod arguments;
mod audit;
mod call_limit;
mod clock;
mod descriptors;
mod environment;
mod fault;
mod fs;
mod hostserve;
mod leases;
mod limits;
mod log;
mod network;
mod operation;
mod operations;
mod process;
mod progress;
mod proto;
mod rate;
mod record;
mod running;
mod services;
mod session;
mod session_info;
mod streaming;
#[cfg(test)]
mod testing;

pub use application::ApplicationServices;
pub use audit::{AuditError, AuditLog, AuditReceiver, AuditRecord, Verdict};
pub use fs::areas::{LimitedGrant, UnusableGrant};
pub use fs::call::HardLinks;
pub use limits::Limits;
pub use network::dial::{Dialer, SystemDialer};
pub use network::resolve::{Resolver, SystemResolver};
pub use network::settings::{NetworkLimits, NetworkSettings};
pub use network::tls::{NoCertificates, TrustedRoots};
pub use operations::{OperationName, operations};
pub use services::{GrantedServices, HOST_SERVICES_DESCRIPTORS};
