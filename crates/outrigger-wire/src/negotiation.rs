//! Versions and transports, and how both sides settle on one of each.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Coded, Excerpt};

/// The version of the interfaces a plugin serves, chosen by the application.
///
/// ```
/// use outrigger_wire::AppProtocolVersion;
///
/// assert_eq!(AppProtocolVersion::from(3).to_string(), "3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AppProtocolVersion(pub u32);

impl From<u32> for AppProtocolVersion {
    fn from(version: u32) -> AppProtocolVersion {
        AppProtocolVersion(version)
    }
}

impl fmt::Display for AppProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which RPC runs on a connection.
///
/// ```
/// use outrigger_wire::Transport;
///
/// assert_eq!("grpc".parse(), Ok(Transport::Grpc));
/// assert_eq!(Transport::NetRpc.to_string(), "netrpc");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Go's `net/rpc` with gob, over yamux.
    NetRpc,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Transport {
    /// The word that stands for this transport in a handshake line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::NetRpc => "netrpc",
            Transport::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(word: &str) -> Result<Transport, UnknownTransport> {
        match word {
            "netrpc" => Ok(Transport::NetRpc),
            "grpc" => Ok(Transport::Grpc),
            _ => Err(UnknownTransport {
                observed: Excerpt::from(word),
            }),
        }
    }
}

/// A word that names no transport (`unknown-transport`).
///
/// *Cause:* the peer, or a file, says something other than `netrpc` or `grpc`.
/// *Resolution:* correct the word; there are no other transports.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{observed} is not a transport (`netrpc` or `grpc`)")]
pub struct UnknownTransport {
    /// The word as it was found.
    pub observed: Excerpt,
}

impl Coded for UnknownTransport {
    fn code(&self) -> &'static str {
        "unknown-transport"
    }
}

/// The transports a host accepts. There is no default on purpose: go-plugin's
/// own is [`AllowedTransports::NETRPC`], which is rarely what a new host wants.
///
/// ```
/// use outrigger_wire::{AllowedTransports, Transport};
///
/// assert!(AllowedTransports::GRPC.contains(Transport::Grpc));
/// assert!(!AllowedTransports::GRPC.contains(Transport::NetRpc));
/// assert_eq!(AllowedTransports::ALL.to_string(), "`netrpc` and `grpc`");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllowedTransports {
    netrpc: bool,
    grpc: bool,
}

impl AllowedTransports {
    /// Only gRPC.
    pub const GRPC: AllowedTransports = AllowedTransports {
        netrpc: false,
        grpc: true,
    };

    /// Only net/rpc, as go-plugin has it unless told otherwise.
    pub const NETRPC: AllowedTransports = AllowedTransports {
        netrpc: true,
        grpc: false,
    };

    /// Both.
    pub const ALL: AllowedTransports = AllowedTransports {
        netrpc: true,
        grpc: true,
    };

    /// Whether `transport` is accepted.
    pub const fn contains(self, transport: Transport) -> bool {
        match transport {
            Transport::NetRpc => self.netrpc,
            Transport::Grpc => self.grpc,
        }
    }

    /// The accepted transports, net/rpc first.
    pub fn iter(self) -> impl Iterator<Item = Transport> {
        [Transport::NetRpc, Transport::Grpc]
            .into_iter()
            .filter(move |transport| self.contains(*transport))
    }
}

impl From<Transport> for AllowedTransports {
    fn from(transport: Transport) -> AllowedTransports {
        match transport {
            Transport::NetRpc => AllowedTransports::NETRPC,
            Transport::Grpc => AllowedTransports::GRPC,
        }
    }
}

impl fmt::Display for AllowedTransports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, transport) in self.iter().enumerate() {
            let joint = if at == 0 { "" } else { " and " };
            write!(f, "{joint}`{transport}`")?;
        }
        Ok(())
    }
}

/// The plugin's side of version negotiation: the highest version both sides
/// know, with the transport the plugin has for it.
///
/// When nothing is common, or the host sent no list, the answer is the
/// plugin's lowest version: a plugin never reports a mismatch itself, it
/// prints that version and lets the host refuse it. `None` means that the
/// plugin serves no version at all. The order of `host` does not matter.
///
/// ```
/// use std::collections::BTreeMap;
/// use outrigger_wire::{AppProtocolVersion, Transport, negotiate};
///
/// let own = BTreeMap::from([
///     (AppProtocolVersion(2), Transport::NetRpc),
///     (AppProtocolVersion(3), Transport::Grpc),
/// ]);
/// let host = [AppProtocolVersion(3), AppProtocolVersion(2)];
/// assert_eq!(negotiate(&own, &host), Some((AppProtocolVersion(3), Transport::Grpc)));
/// assert_eq!(negotiate(&own, &[]), Some((AppProtocolVersion(2), Transport::NetRpc)));
/// ```
pub fn negotiate(
    own: &BTreeMap<AppProtocolVersion, Transport>,
    host: &[AppProtocolVersion],
) -> Option<(AppProtocolVersion, Transport)> {
    own.iter()
        .rev()
        .find(|(version, _)| host.contains(version))
        .or_else(|| own.first_key_value())
        .map(|(version, transport)| (*version, *transport))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Grpc, NetRpc};

    fn own(entries: &[(u32, Transport)]) -> BTreeMap<AppProtocolVersion, Transport> {
        entries
            .iter()
            .map(|(version, transport)| (AppProtocolVersion(*version), *transport))
            .collect()
    }

    fn outcome(entries: &[(u32, Transport)], host: &[u32]) -> Option<(u32, Transport)> {
        let host: Vec<_> = host.iter().copied().map(AppProtocolVersion).collect();
        negotiate(&own(entries), &host).map(|(version, transport)| (version.0, transport))
    }

    #[test]
    fn negotiation_follows_the_scenarios_of_the_protocol() {
        let both = [(1, NetRpc), (2, Grpc)];
        for (own, host, expected) in [
            (&[(2, Grpc)][..], &[1][..], Some((2, Grpc))),
            (&both, &[1], Some((1, NetRpc))),
            (&both, &[2], Some((2, Grpc))),
            (&[(2, NetRpc)], &[2], Some((2, NetRpc))),
            (&[(2, NetRpc), (3, Grpc)], &[2, 3], Some((3, Grpc))),
            (&[(2, NetRpc), (3, Grpc)], &[3], Some((3, Grpc))),
            (&[(2, NetRpc), (3, Grpc)], &[2], Some((2, NetRpc))),
            (&[(1, Grpc)], &[], Some((1, Grpc))),
            (&[], &[1], None),
        ] {
            assert_eq!(outcome(own, host), expected, "own {own:?}, host {host:?}");
        }
    }

    #[test]
    fn p3_the_order_and_repetition_of_the_hosts_list_do_not_matter() {
        let own = [(2, NetRpc), (3, Grpc), (5, Grpc)];
        for host in [&[3, 2, 4][..], &[2, 3, 4], &[4, 3, 3, 2, 2]] {
            assert_eq!(outcome(&own, host), Some((3, Grpc)), "{host:?}");
        }
    }

    #[test]
    fn p3_without_a_common_version_the_lowest_own_one_is_announced() {
        let own = [(4, NetRpc), (7, Grpc)];
        for host in [&[][..], &[5, 6], &[1]] {
            assert_eq!(outcome(&own, host), Some((4, NetRpc)), "{host:?}");
        }
    }

    #[test]
    fn an_unknown_transport_names_the_word() {
        let error = "gRPC\n".parse::<Transport>().unwrap_err();
        assert_eq!(error.code(), "unknown-transport");
        insta::assert_snapshot!(error, @r#""gRPC\n" is not a transport (`netrpc` or `grpc`)"#);
    }

    #[test]
    fn allowed_transports_are_listed_in_a_fixed_order() {
        assert_eq!(
            AllowedTransports::ALL.iter().collect::<Vec<_>>(),
            [NetRpc, Grpc]
        );
        assert_eq!(AllowedTransports::from(Grpc), AllowedTransports::GRPC);
        assert_eq!(AllowedTransports::NETRPC.to_string(), "`netrpc`");
    }
}
