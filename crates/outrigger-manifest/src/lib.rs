//! What a plugin declares and asks for, what a host's policy allows, what is granted, and how an
//! operator configures it all.
//!
//! ```
//! use std::path::Path;
//! use outrigger_manifest::{Manifest, Permissions, Places, Policy};
//!
//! let manifest = Manifest::parse("
//! plugin: {name: cat, format: grpc, entrypoint: cat}
//! handshake: {protocol_version: 1, magic_cookie_key: CAT_PLUGIN, magic_cookie_value: meow}
//! capabilities:
//!   filesystem:
//!     - {path: /srv/data, permissions: [read, list], recursive: true}
//! ").unwrap();
//! let places = Places::new("/opt/plugins/cat", "/var/lib/app/cat").unwrap();
//!
//! let decision = Policy::allow_requested().decide(&manifest, &places);
//! let grants = decision.grants();
//! assert!(grants.filesystem_verdict(Path::new("/srv/data/a.csv"), Permissions::READ).is_ok());
//!
//! let denial = grants
//!     .filesystem_verdict(Path::new("/etc/passwd"), Permissions::READ)
//!     .unwrap_err();
//! assert_eq!(denial.public(), "filesystem read of `/etc/passwd` is not granted");
//! ```
//!
//! Texts come in and values go out. This crate deliberately knows no file system, no resolver and
//! no process: whoever carries an operation out resolves paths and names, and asks here. A
//! [`Manifest`] or [`Policy`] that exists is valid; [`Grants`] come from [`Policy::decide`] alone.

mod arguments;
mod builder;
mod changes;
mod check;
mod choices;
mod configuration;
mod decide;
mod denial;
mod document;
mod entries;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod host;
mod keys;
mod lines;
mod manifest;
mod message;
mod name;
mod path;
mod permissions;
mod policy;
mod ports;
mod problem;
#[doc(hidden)]
pub mod reference;
mod requests;
mod resources;
mod rule;
mod schema;
mod services;
mod shapes;
mod size;
mod syntax;
mod time;
mod tree;
mod yaml;

pub use arguments::ArgPattern;
pub use builder::{
    Connections, Exec, Files, ManifestBuilder, PolicyBuilder, PolicyRules, PolicySection,
};
pub use changes::{RequestChange, RequestChangeKind, RequestChanges};
pub use choices::{
    Access, Capability, Direction, HostService, LockMode, ProcessControl, Protocol, ReloadHow,
    RestartWhen, SandboxMode, StartWhen,
};
pub use configuration::{
    AppVersion, Application, AuditSettings, Configuration, ControlSettings, Directories,
    FileWatcher, Layers, LockSettings, LogQueue, Logging, MetricsSettings, PolicySettings, Setting,
    SettingChanged, Source, SupervisionSettings, WorkerPool,
};
pub use decide::{Decision, Granted, Refusal};
pub use denial::{Denial, DenialKind};
pub use document::Document;
pub use grants::{
    EnvironmentGrants, ExecGrant, FilesystemGrant, Grants, NetworkGrant, NetworkGrants,
    ProcessGrants, RealPaths,
};
pub use host::{AddressClass, Host, HostError, HostName, HostPattern, classify};
pub use manifest::{About, Handshake, Manifest, SCHEMA_VERSION};
pub use name::{Entrypoint, PluginName, PluginNameError};
pub use outrigger_wire::Transport;
pub use path::{PathBase, PathTemplate, PlaceError, Places};
pub use permissions::Permissions;
pub use policy::Policy;
pub use ports::Ports;
pub use problem::{MAX_PROBLEMS, Position, Problem, ProblemCode, Problems};
pub use requests::{Grave, RequestError, Requests};
pub use resources::Resources;
pub use rule::Rule;
pub use services::{ServiceName, ServiceNameError};
pub use size::{ByteSize, Cpu, SizeError};
pub use time::{TimeSpan, TimeSpanError};
