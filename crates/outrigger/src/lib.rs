//! Plugins that an application finds, judges, starts and calls.
//!
//! A folder holds a folder for each plugin, with its program and a
//! `manifest.yaml`. The manifest says how the program is started and what it asks
//! of its host; the application's policy says what it may have. What was granted
//! is served to the plugin while it runs.
//!
//! ```no_run
//! use outrigger::{Policy, Settings, grpc_interface};
//! # mod proto {
//! #     pub struct GreeterClient<T>(T);
//! #     impl<T> GreeterClient<T> {
//! #         pub fn new(inner: T) -> Self { Self(inner) }
//! #         pub fn max_decoding_message_size(self, _: usize) -> Self { self }
//! #     }
//! # }
//!
//! grpc_interface! {
//!     /// Greets people. tonic generated its client.
//!     Greeter => proto::GreeterClient, "greeter"
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::parse("
//! default:
//!   allow:
//!     filesystem: [{path: \"${plugin_dir}\", permissions: [read, list], recursive: true}]
//! ")?;
//! let plugins = Settings::new().policy(policy).open("plugins")?;
//! for entry in &plugins {
//!     match entry.plugin() {
//!         Ok(plugin) => println!("{}: {:?}", entry.name(), plugin.decision().refused()),
//!         Err(error) => println!("{}: {error}", entry.name()),
//!     }
//! }
//!
//! let plugin = plugins.get("greeter")?.start().await?;
//! let greeter = plugin.client::<Greeter>().await?;
//! // … call it …
//! # drop(greeter);
//! println!("the plugin {}", plugin.stop().await.status);
//! # Ok(()) }
//! ```
//!
//! A [`Host`] starts them when they are needed, watches over them, and starts them
//! again when they fail. One program that needs no manifest is started by
//! [`Launch`] alone.
//!
//! What is installed is read when the folder is opened, and not again.

#![forbid(unsafe_code)]

mod approval;
mod configuration;
mod error;
mod host;
mod metrics;
mod plugin;
mod plugin_config;
mod plugins;
mod settings;
mod supervision;
mod types;

/// What the code of [`#[interface]`](macro@interface) is made of.
pub mod interface {
    pub use outrigger_host::interface::*;
}

pub use approval::Approval;
pub use configuration::Configure;
pub use error::{Error, ErrorKind, Failure};
pub use host::{
    Cause, Change, ChangeKind, EVENTS_KEPT, Event, EventKind, Events, Host, Missed, PluginState,
    PluginStatus, ReloadStep, Reloaded, ShutdownReport, StopReason,
};
pub use metrics::{Exposition, ExpositionError, ExpositionPlace, Metrics, MetricsFormat, Traffic};
pub use plugin::Plugin;
pub use plugin_config::PluginConfigError;
pub use plugins::{Entry, Plugins};
pub use settings::Settings;
pub use supervision::{Reload, Restart, Supervision};

pub use outrigger_host::{
    Attach, Broker, BrokerError, BrokerId, CallObserver, Channel, Deadlines, DispenseError,
    EndedCall, ExitReport, ExitStatus, ExpectedDigest, Health, HostServices, Interface, Launch,
    LaunchError, LaunchErrorKind, MagicCookie, PluginExited, PluginIdentity, PluginSet, Reattach,
    RunningPlugin, ServiceSet, Serving, Tls, TraceContext, Transport, UnsupportedTransport, gob,
    grpc_interface, netrpc, nothing_left,
};
pub use outrigger_macros::{interface, message};
pub use outrigger_manifest::{
    Access, Configuration, Connections, Decision, Exec, Files, Granted, Grants, Grave, HostService,
    LockMode, Manifest, ManifestBuilder, Permissions, Places, PluginName, Policy, PolicyBuilder,
    PolicyRules, PolicySection, Problem, Problems, ProcessControl, Protocol, Refusal,
    RequestChange, RequestChangeKind, RequestChanges, Requests, Resources, SandboxMode,
    ServiceName, ServiceNameError, Setting, SettingChanged, Source, SupervisionSettings,
};
pub use outrigger_registry::{
    Bundle, ChecksumError, DigestCache, EntryChanged, EntryState, FileKind, Lock, LockError,
    LockErrorKind, LockFile, LockVerdict, Locked, Objection, Observed, Pace, Registry,
    RegistryError, RegistryErrorKind, SignatureError, Snapshot, SourceFile, Trust, Watch, Why,
    semver,
};
pub use outrigger_services::{
    ApplicationServices, AuditLog, AuditReceiver, AuditRecord, GrantedServices, HardLinks, Limits,
    NetworkLimits, NetworkSettings, Verdict,
};
pub use outrigger_transport::{RouteError, SafeMethods, SafeToRepeat};
pub use outrigger_wire::{AllowedTransports, Coded};

/// The page for authors of hosts.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct Embedding;

/// The page about the lock file.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/approval.md")]
struct ApprovalPage;

/// The page about services of an application's own.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/application-services.md")]
struct ApplicationServicesPage;
