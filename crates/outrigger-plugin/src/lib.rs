//! Write a plugin: serve interfaces to a host, and use the host's services.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use outrigger_plugin::{MagicCookie, PluginSet, Serve, ServiceSet};
//!
//! fn main() -> ExitCode {
//!     let set = PluginSet::new().grpc("greeter", |_context| {
//!         // Add the servers that tonic generated: `.with(GreeterServer::new(Greeter))`.
//!         ServiceSet::new()
//!     });
//!     outrigger_plugin::serve(Serve::new(MagicCookie::new("GREETER", "hello")).offer(1, set))
//! }
//! ```
//!
//! The same over net/rpc, go-plugin's first protocol, where methods take and
//! return values that Go's gob knows:
//! ```
//! use outrigger_plugin::PluginSet;
//! use outrigger_plugin::netrpc::Methods;
//!
//! let set = PluginSet::new().netrpc("greeter", |_context| {
//!     Methods::new().method("Greet", |name: String| async move {
//!         Ok::<_, String>(format!("Hello, {name}!"))
//!     })
//! });
//! # drop(set);
//! ```
//!
//! Compressed messages of a host are taken by every service. A reply with
//! [`SendGzip`] among its extensions is sent compressed to a host that takes it.
//!
//! What the plugin prints goes to its host; what it logs with `tracing` or the
//! `log` crate goes to the host's log; a panic is logged with its backtrace. This crate
//! deliberately does not know how a plugin is found, started or confined.

mod context;
pub mod host;
mod hostserve;
mod logs;
pub mod proto;
mod serve;
mod services;
mod set;
mod stdio;
mod test_mode;

pub use context::PluginContext;
pub use host::{Host, HostError};
pub use hostserve::{HostServeError, HostServices, Labels};
pub use logs::HclogLayer;
pub use serve::{Serve, ServeError, serve, serve_by_argument};
pub use set::PluginSet;
pub use test_mode::{TestPlugin, serve_for_test};

pub use outrigger_gob as gob;
pub use outrigger_macros::{plugin_interface as interface, plugin_message as message};
pub use outrigger_transport::interface;
pub use outrigger_transport::netrpc;
pub use outrigger_transport::{
    Broker, BrokerError, BrokerId, Channel, Listener, MAX_MESSAGE, Security, SendGzip, ServeLimits,
    ServiceSet, Serving, Stream, Tls,
};
pub use outrigger_wire::{Address, AppProtocolVersion, MagicCookie, Network, Transport};
