//! Connections that carry calls between a host and its plugins, for both roles.
//!
//! A [`Channel`] is the calling end of one HTTP/2 connection, a [`ServiceSet`]
//! the answering end, and a [`Broker`] opens further connections beside the
//! first one, in both directions, as go-plugin's broker does. The same
//! [`Broker`] trait covers the plain broker (a socket per connection) and the
//! multiplexed one (streams of one socket).
//!
//! [`process`] holds what hosts need of the system besides: processes that
//! inherit nothing by accident and are signalled without mistake; [`family`] ends
//! what a process started.
//!
//! This crate deliberately does not know what makes a process a plugin, what a
//! plugin may do, or what an application's services mean.

mod authority;
mod body;
mod broker;
mod channel;
pub mod family;
mod fate;
mod first_frame;
mod gzip;
mod headers;
pub mod health;
mod identity;
pub mod interface;
pub mod netrpc;
pub mod plugin_log;
pub mod process;
pub mod proto;
mod reflection;
mod server;
mod sockets;
mod stream;
mod task;
mod through;
mod tls;
pub mod tree;
pub mod yamux;

pub use body::IncomingBody;
pub use broker::{
    AddressTranslator, Broker, BrokerError, BrokerErrorKind, BrokerOptions, GrpcBroker, Listener,
    SameAddress, Serving, Side,
};
pub use channel::{Channel, ChannelOptions, ConnectError, MAX_MESSAGE, ResponseBody};
pub use fate::Fate;
pub use gzip::SendGzip;
pub use identity::{Belonging, HostServices, Lifeline, PluginIdentity, Tie};
pub use interface::{Interface, UnsupportedTransport};
pub use outrigger_wire::BrokerId;
pub use server::{GO_PLUGIN_DESCRIPTORS, ServeLimits, ServiceSet, serve_connection};
pub use sockets::{Bound, BoundListener, SocketError, Sockets, socket_place, temp_dir};
pub use stream::{Io, Stream, connect};
pub use task::OwnedTask;
pub use tls::{AutoMtls, Security, Tls, TlsError};
