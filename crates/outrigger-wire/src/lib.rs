//! Every byte go-plugin puts on a wire, as pure data.
//!
//! ```
//! use std::collections::BTreeSet;
//! use outrigger_wire::{AllowedTransports, AppProtocolVersion, HandshakeLine, HandshakeRules, Transport};
//!
//! let offered = BTreeSet::from([AppProtocolVersion(1)]);
//! let rules = HandshakeRules {
//!     offered: &offered,
//!     allowed: AllowedTransports::ALL,
//!     mux_requested: false,
//! };
//! let line = HandshakeLine::parse(b"1|1|unix|/tmp/plugin42|grpc|\n", &rules)?;
//! assert_eq!(line.transport, Transport::Grpc);
//! assert_eq!(line.address.to_string(), "unix:/tmp/plugin42");
//! # Ok::<(), outrigger_wire::HandshakeError>(())
//! ```
//!
//! This crate knows the handshake line, the environment a host gives its
//! plugin, version negotiation, addresses, log lines, the messages of the
//! broker, what peers write into `:authority`, the framing of the descriptor
//! socket, how a plugin is told of an error, and the digest that a program must
//! have. It opens no file and no socket,
//! reads no variable and no clock, and starts no thread: text comes in and values
//! go out, so that every rule can be tested and fuzzed on its own. What a
//! certificate means is left to the crate that speaks TLS.

#![forbid(unsafe_code)]

mod address;
#[cfg(feature = "messages")]
mod authority;
#[cfg(feature = "messages")]
mod broker;
mod coded;
#[cfg(feature = "messages")]
pub mod descriptors;
#[cfg(feature = "digest")]
mod digest;
mod environment;
mod errno;
#[cfg(all(feature = "messages", feature = "logs"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod level;
#[cfg(feature = "logs")]
pub mod logs;
mod negotiation;
mod numbers;
#[cfg(feature = "messages")]
pub mod proto;
#[cfg(feature = "messages")]
mod status;
pub mod text;

pub use address::{Address, AddressError, Endpoint, MAX_ADDRESS, Network, UnknownNetwork};
#[cfg(feature = "messages")]
pub use authority::AuthorityFilter;
#[cfg(feature = "messages")]
pub use broker::{BrokerId, BrokerMessage, MAX_KNOCK_ERROR, RawConnInfo};
pub use coded::Coded;
#[cfg(feature = "digest")]
pub use digest::{DigestAlgorithm, DigestError, ExpectedDigest};
pub use environment::{
    CookieError, DEFAULT_PORT_RANGE, ENV_CLIENT_CERT, ENV_HOST_SERVICES, ENV_MAX_PORT,
    ENV_MIN_PORT, ENV_MULTIPLEX_GRPC, ENV_PLUGIN_CONFIG, ENV_PROTOCOL_VERSIONS, ENV_SERVICES,
    ENV_UNIX_SOCKET_DIR, ENV_UNIX_SOCKET_GROUP, HostEnvironment, MagicCookie, PluginEnvironment,
    PortRange, PortRangeError, SCRUBBED, offered_services, services_value,
};
pub use errno::SystemError;
pub use handshake::{
    CORE_PROTOCOL_VERSION, CertificateProblem, HandshakeError, HandshakeLine, HandshakeRules,
    MAX_HANDSHAKE_LINE, MIN_CERTIFICATE_FIELD, MuxUnsupported,
};
pub use level::{Level, UnknownLevel};
pub use negotiation::{
    AllowedTransports, AppProtocolVersion, Transport, UnknownTransport, negotiate,
};
pub use numbers::{parse_go_bool, parse_go_int};
#[cfg(feature = "messages")]
pub use status::{ErrorInfo, HOST_DOMAIN, RichStatus};
pub use text::{EXCERPT_LIMIT, Excerpt};
