//! How the network service reaches the world, and what one plugin may make of it.

use std::sync::Arc;
use std::time::Duration;

use super::dial::{Dialer, SystemDialer};
use super::resolve::{Resolver, SystemResolver};
use super::tls::TrustedRoots;

/// How the network service reaches the world, for all plugins of a host.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use outrigger_services::{NetworkLimits, NetworkSettings, TrustedRoots};
///
/// let limits = NetworkLimits { idle_timeout: Duration::from_secs(30), ..NetworkLimits::default() };
/// // For `GrantedServices::network`.
/// let settings = NetworkSettings::new().roots(TrustedRoots::system()).limits(limits);
/// # drop(settings);
/// ```
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) roots: TrustedRoots,
    pub(super) limits: NetworkLimits,
}

impl NetworkSettings {
    /// The system's resolver and sockets, the machine's trusted certificates and
    /// the usual limits.
    pub fn new() -> Self {
        Self {
            resolver: Arc::new(SystemResolver::default()),
            dialer: Arc::new(SystemDialer),
            roots: TrustedRoots::default(),
            limits: NetworkLimits::default(),
        }
    }

    /// Names are resolved by `resolver`.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Connections, and sockets for datagrams, are made by `dialer`.
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Arc::new(dialer);
        self
    }

    /// Servers of HTTPS requests are known by `roots`.
    #[must_use]
    pub fn roots(mut self, roots: TrustedRoots) -> Self {
        self.roots = roots;
        self
    }

    /// The bounds of each plugin.
    #[must_use]
    pub fn limits(mut self, limits: NetworkLimits) -> Self {
        self.limits = limits;
        self
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// What one plugin may make its host do on the network, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkLimits {
    /// How long resolving a name may take (default 5 s).
    pub resolve_timeout: Duration,
    /// How long resolving and connecting may take together (default 10 s); a
    /// plugin may ask for less.
    pub connect_timeout: Duration,
    /// Names of one plugin being resolved at the same time (default 4).
    pub lookups: usize,
    /// Addresses of one name that are looked at (default 64).
    pub answers: usize,
    /// How long a connection may carry nothing (default 5 min), also because the
    /// plugin takes nothing.
    pub idle_timeout: Duration,
    /// How long a connection may last (default 1 h).
    pub total_timeout: Duration,
    /// Part of a byte stream in one message, in bytes (default 64 KiB).
    pub chunk: usize,
    /// Redirects that one request may ask to follow (default 10).
    pub redirects: u32,
    /// Header fields of an HTTP request or reply (default 100).
    pub headers: usize,
    /// Bytes of all header fields of an HTTP request or reply together (default
    /// 64 KiB; at least 8 KiB for a reply).
    pub header_bytes: usize,
    /// Connections of one listener that the plugin has not taken (default 16), and
    /// those that wait for the names of allowed origins to be looked up (as many);
    /// further ones are closed at once.
    pub backlog: usize,
    /// How long a connection waits for the plugin to take it (default 10 s).
    pub unclaimed_timeout: Duration,
    /// How often the names among a listener's allowed origins are looked up
    /// again (default 1 min).
    pub origin_refresh: Duration,
    /// Bytes of datagrams of one UDP socket that wait for the plugin (default
    /// 256 KiB, each with 256 bytes more); further ones are dropped and counted.
    pub datagram_bytes: usize,
    /// Who sent to a UDP port may be answered until as many others did (default
    /// 1024).
    pub senders: usize,
}

impl Default for NetworkLimits {
    fn default() -> Self {
        Self {
            resolve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            lookups: 4,
            answers: 64,
            idle_timeout: Duration::from_secs(5 * 60),
            total_timeout: Duration::from_secs(60 * 60),
            chunk: 64 << 10,
            redirects: 10,
            headers: 100,
            header_bytes: 64 << 10,
            backlog: 16,
            unclaimed_timeout: Duration::from_secs(10),
            origin_refresh: Duration::from_secs(60),
            datagram_bytes: 256 << 10,
            senders: 1024,
        }
    }
}
