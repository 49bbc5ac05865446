//! Launch a plugin, reach it, call it, stop it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use outrigger_host::{
//!     Broker, Channel, Interface, Launch, MagicCookie, PluginSet, UnsupportedTransport,
//! };
//!
//! /// Says how the typed client of this interface is made.
//! struct Greeter;
//! impl Interface for Greeter {
//!     type Client = Channel; // usually a client that tonic generated
//!     fn grpc(
//!         connection: Channel,
//!         _broker: Arc<dyn Broker>,
//!     ) -> Result<Channel, UnsupportedTransport> {
//!         Ok(connection)
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let plugin = Launch::new("plugins/greeter/greeter", MagicCookie::new("GREETER", "hello"))
//!     .offer(1, PluginSet::new().with::<Greeter>("greeter"))
//!     .start()
//!     .await?;
//! let greeter = plugin.dispense::<Greeter>("greeter").await?;
//! // … call it …
//! # drop(greeter);
//! plugin.stop().await;
//! # Ok(()) }
//! ```
//!
//! A call whose request has [`SendGzip`] among its extensions is sent compressed;
//! compressed replies are always taken; those of one connection may have 64 MiB
//! while they arrive. What a plugin sends as metadata, error text
//! or details arrives up to 16 MiB.
//!
//! # What a host process should know
//!
//! - To start a plugin marks every descriptor of the process above 2 to be closed
//!   in programs that it starts, so that a plugin inherits none that a C library
//!   or the host's own parent left open. A host that hands a descriptor to a child
//!   of its own clears the mark between fork and exec, not before.
//! - SIGCHLD must not be ignored, as it may be by inheritance: the system then
//!   forgets how plugins ended, and a start may fail. A warning in the log says
//!   so. A handler for the signal, such as
//!   `tokio::signal::unix::signal(SignalKind::child())`, is enough.
//! - Where the kernel is older than Linux 5.3 or a container's filter refuses
//!   `pidfd_open`, plugins are looked at 100 times a second instead.
//!
//! Dropping a [`RunningPlugin`] kills the process; a host that is itself killed
//! takes its plugins with it, and what it had made for them: [`nothing_left`]
//! waits for that at the end of a program. This crate deliberately does not know which
//! plugins are installed, what they may do, or when to start them again.

mod aside;
mod attach;
mod connected;
mod connection;
mod deadlines;
mod diagnose;
mod error;
mod exit;
mod launch;
mod life;
mod lifeline;
mod logs;
mod managed;
mod output;
mod owned_process;
mod plugin;
mod process;
mod program;
mod reattach;
mod runner;
mod set;
mod settings;
mod watch;
mod workspace;

pub use attach::Attach;
pub use connected::Timings;
pub use connection::{Health, PingError};
pub use deadlines::Deadlines;
pub use diagnose::{Diagnosis, diagnose};
pub use error::{LaunchError, LaunchErrorKind};
pub use exit::{ExitReport, ExitStatus, KillReason, PluginExited};
pub use launch::Launch;
pub use lifeline::nothing_left;
pub use managed::stop_managed;
pub use plugin::{DispenseError, RunningPlugin};
pub use process::ProcessRunner;
pub use program::ProgramNotFound;
pub use reattach::Reattach;
pub use runner::{AttachedRunner, Command, Runner, RunnerError, Started};
pub use set::PluginSet;

#[cfg(feature = "netrpc")]
pub use outrigger_gob as gob;
#[cfg(feature = "interface")]
pub use outrigger_macros::{host_interface as interface, host_message as message};
#[cfg(feature = "gzip")]
pub use outrigger_transport::SendGzip;
#[cfg(feature = "interface")]
pub use outrigger_transport::interface;
#[cfg(feature = "netrpc")]
pub use outrigger_transport::netrpc;
pub use outrigger_transport::{
    AddressTranslator, Broker, BrokerError, BrokerId, CallObserver, Channel, Connection, Draining,
    EndedCall, HostServices, Interface, MAX_MESSAGE, PluginIdentity, RouteError, Router,
    SafeMethods, SafeToRepeat, SameAddress, Security, ServiceSet, Serving, Stream, Tls,
    TraceContext, UnsupportedTransport,
};
pub use outrigger_wire::{
    Address, AllowedTransports, AppProtocolVersion, DigestAlgorithm, DigestError, ExpectedDigest,
    HandshakeError, HandshakeLine, MagicCookie, Network, PortRange, Transport,
};
