//! Connections that carry calls between a host and its plugins, for both roles.
//!
//! A [`Channel`] is what clients call over: the calling end of one HTTP/2 connection,
//! or of those that a [`Router`] chooses among. A [`ServiceSet`] is the answering end,
//! and a [`Broker`] opens further connections beside the
//! first one, in both directions, as go-plugin's broker does. The same
//! [`Broker`] trait covers the plain broker (a socket per connection) and the
//! multiplexed one (streams of one socket).
//!
//! # Cargo features
//!
//! All are on unless default features are turned off; without one, what it names
//! is neither compiled nor offered to peers.
//!
//! - `tls`: [`Tls`] and [`AutoMtls`]. Without it no value of [`Tls`] exists, and
//!   where a peer asks for TLS the answer is [`TlsError::NotBuiltIn`].
//! - `netrpc`: net/rpc beside gRPC, in the module `netrpc`.
//! - `interface`: interfaces that are written as Rust traits; needs `netrpc`.
//! - `reflection`: [`ServiceSet`]'s `with_reflection`.
//! - `gzip`: messages that are compressed. Without it a compressed one is answered
//!   with `UNIMPLEMENTED`.
//! - `host`: what hosts need of the system besides. `process` has processes that
//!   inherit nothing by accident and are signalled without mistake; `family` ends
//!   what a process started; `tree` removes directories; `plugin_log` passes on what
//!   plugins log.
//!
//! This crate deliberately does not know what makes a process a plugin, what a
//! plugin may do, or what an application's services mean.

mod authority;
mod body;
mod broker;
mod channel;
mod connect_error;
mod connection;
mod dispense;
#[cfg(feature = "host")]
pub mod family;
mod fate;
mod first_frame;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(not(feature = "gzip"))]
#[path = "gzip/absent.rs"]
mod gzip;
mod headers;
pub mod health;
mod http2;
mod identity;
#[cfg(feature = "interface")]
pub mod interface;
#[cfg(feature = "netrpc")]
pub mod netrpc;
mod observe;
#[cfg(feature = "host")]
pub mod plugin_log;
#[cfg(feature = "host")]
pub mod process;
pub mod proto;
#[cfg(feature = "reflection")]
mod reflection;
mod router;
mod server;
mod sockets;
mod stream;
mod task;
mod through;
mod tls;
mod trace;
#[cfg(feature = "host")]
pub mod tree;
pub mod yamux;

pub use body::IncomingBody;
pub use broker::{
    AddressTranslator, Broker, BrokerError, BrokerErrorKind, BrokerOptions, GrpcBroker, Listener,
    SameAddress, Serving, Side,
};
pub use channel::{Channel, ChannelOptions, MAX_MESSAGE, ResponseBody, ResponseFuture};
pub use connect_error::ConnectError;
pub use connection::Connection;
pub use dispense::{Interface, UnsupportedTransport};
pub use fate::Fate;
#[cfg(feature = "gzip")]
pub use gzip::SendGzip;
pub use identity::{Belonging, HostServices, Lifeline, PluginIdentity, Tie};
pub use observe::{CallObserver, EndedCall, code_name};
pub use outrigger_wire::BrokerId;
pub use router::{Draining, RouteError, Router, SafeMethods, SafeToRepeat};
pub use server::{GO_PLUGIN_DESCRIPTORS, MAX_VALUE, ServeLimits, ServiceSet, serve_connection};
pub use sockets::{Bound, BoundListener, SocketError, Sockets, socket_place, temp_dir};
pub use stream::{Io, Stream, connect};
pub use task::OwnedTask;
pub use tls::{AutoMtls, Security, Tls, TlsError};
pub use trace::TraceContext;
