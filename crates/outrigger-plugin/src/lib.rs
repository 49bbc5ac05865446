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
//! # An interface that is written once
//!
//! Both are made from one trait by [`#[interface]`](macro@interface), the host's side as
//! well, so the trait stands in a crate that the host depends on too:
//! ```
//! use outrigger_plugin::PluginSet;
//! use outrigger_plugin::interface;
//! use outrigger_plugin::interface::MethodError;
//!
//! /// Greets people.
//! #[interface(package = "greeter.v1", netrpc)]
//! pub trait Greeter {
//!     /// A greeting of whoever is named.
//!     async fn greet(&self, name: String) -> Result<String, MethodError>;
//! }
//!
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     async fn greet(&self, name: String) -> Result<String, MethodError> {
//!         Ok(format!("Hello, {name}!"))
//!     }
//! }
//!
//! let grpc = PluginSet::new().grpc("greeter", |_| GreeterServer::new(Polite).grpc());
//! let netrpc = PluginSet::new().netrpc("greeter", |_| GreeterServer::new(Polite).netrpc());
//! # drop((grpc, netrpc));
//!
//! // What authors in other languages generate their side from:
//! let proto = GreeterClient::description().proto();
//! assert!(proto.contains("rpc Greet(GreetRequest) returns (GreetResponse);"));
//! ```
//!
//! # The host's services
//!
//! A plugin reaches them through its [`PluginContext`]. Which of these ways is
//! right depends on the host:
//!
//! | the host | take | get |
//! |---|---|---|
//! | serves `outrigger.host.v1` to its plugins, as hosts on Outrigger do | [`ctx.host()`](PluginContext::host) | a [`Host`] |
//! | serves the same to single calls, and sends a broker id in each | [`ctx.host_on(id)`](PluginContext::host_on) | a [`Host`] |
//! | offers services of the application's own | [`ctx.service("cache")`](PluginContext::service) | a [`Channel`] for the service's client |
//! | was written for `hostserve.v1`, the services of a well-known example of go-plugin, and sends a broker id | [`ctx.host_serve(id)`](PluginContext::host_serve) | a [`HostServe`] |
//!
//! For a new interface take the first: files, commands, connections, variables,
//! clock and log work [as in the standard library](host), under what was granted.
//!
//! # Printing and logging
//!
//! What the plugin prints goes to its host. What it logs with `tracing` or the
//! `log` crate goes to the host's log, and so does a panic with its backtrace.
//! Compressed messages of a host are taken by every service. A reply with
//! [`SendGzip`] among its extensions is sent compressed to a host that takes it.
//!
//! # Cargo features
//!
//! All are on unless default features are turned off. `docs/features.md` says what
//! each costs to compile.
//!
//! - `tls`: certificates of your own and the one-time certificates of AutoMTLS.
//!   Without it a plugin ends with `tls-not-built-in` when its host asks for TLS.
//! - `netrpc`: serving over net/rpc.
//! - `interface`: interfaces that are written as Rust traits; brings `netrpc`.
//! - `reflection`: the host may ask which services there are, as `outrigger inspect`
//!   and grpcurl do.
//! - `gzip`: compressed messages.
//! - `logs`: what is logged goes to the host's log. Without it, set a subscriber of
//!   your own if you log; panics and what is printed reach the host in any case.
//!
//! This crate deliberately does not know how a plugin is found, started or confined.

mod context;
mod go_plugin;
pub mod host;
mod hostserve;
mod labels;
#[cfg(feature = "logs")]
mod logs;
mod panics;
pub mod proto;
mod serve;
mod set;
mod stdio;
mod test_mode;

pub use context::PluginContext;
pub use host::{Host, HostError};
pub use hostserve::{HostServe, HostServeError, HostServeFile};
pub use labels::Labels;
#[cfg(feature = "logs")]
pub use logs::HclogLayer;
pub use serve::{Serve, ServeError, serve, serve_by_argument};
pub use set::PluginSet;
pub use test_mode::{TestPlugin, serve_for_test};

#[cfg(feature = "netrpc")]
pub use outrigger_gob as gob;
#[cfg(feature = "interface")]
pub use outrigger_macros::{plugin_interface as interface, plugin_message as message};
#[cfg(feature = "gzip")]
pub use outrigger_transport::SendGzip;
#[cfg(feature = "interface")]
pub use outrigger_transport::interface;
#[cfg(feature = "netrpc")]
pub use outrigger_transport::netrpc;
pub use outrigger_transport::{
    Broker, BrokerError, BrokerId, Channel, Listener, MAX_MESSAGE, Security, ServeLimits,
    ServiceSet, Serving, Stream, Tls, TraceContext,
};
pub use outrigger_wire::{Address, AppProtocolVersion, MagicCookie, Network, Transport};
