//! Socket addresses as they stand on the wire, and what they mean here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::numbers::parse_go_int;
use crate::{Coded, Excerpt};

/// The longest address text that is accepted from a peer, in bytes. Real ones
/// stay far below: a socket path has 107 bytes, a host name 253.
pub const MAX_ADDRESS: usize = 4096;

/// The room a Unix socket address has for a path on Linux, in bytes, including
/// the NUL after a path or in front of an abstract name.
const UNIX_ADDRESS_LIMIT: usize = 108;

const MAX_HOST_NAME: usize = 253;

/// The kind of socket an address belongs to.
///
/// ```
/// use outrigger_wire::Network;
///
/// assert_eq!("unix".parse(), Ok(Network::Unix));
/// assert_eq!(Network::Tcp.as_str(), "tcp");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Network {
    /// A Unix stream socket.
    Unix,
    /// TCP over IPv4 or IPv6.
    Tcp,
}

impl Network {
    /// The word that stands for this network on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Network::Unix => "unix",
            Network::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(word: &str) -> Result<Network, UnknownNetwork> {
        match word {
            "unix" => Ok(Network::Unix),
            "tcp" => Ok(Network::Tcp),
            _ => Err(UnknownNetwork {
                observed: Excerpt::from(word),
            }),
        }
    }
}

/// A word that names no network (`unknown-network`).
///
/// *Cause:* something other than `unix` or `tcp` was given.
/// *Resolution:* correct the word; go-plugin knows no other networks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{observed} is not a network (`unix` or `tcp`)")]
pub struct UnknownNetwork {
    /// The word as it was found.
    pub observed: Excerpt,
}

impl Coded for UnknownNetwork {
    fn code(&self) -> &'static str {
        "unknown-network"
    }
}

/// Where a peer listens, exactly as it said it.
///
/// The text is kept as it stands on the wire, so that it can be translated,
/// shown and sent on unchanged; [`Address::resolve`] says what it means.
///
/// ```
/// use outrigger_wire::{Address, Endpoint};
///
/// let address = Address::parse("tcp", ":1234")?;
/// assert_eq!(address.to_string(), "tcp::1234");
/// assert_eq!(
///     address.resolve()?,
///     Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 1234 }
/// );
/// # Ok::<(), outrigger_wire::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// The kind of socket.
    pub network: Network,
    /// The address in the network's own notation.
    pub text: String,
}

/// An address made concrete enough to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// A socket file. The path may be relative, and may be empty.
    UnixPath(PathBuf),
    /// A name in Linux's abstract namespace, without the leading NUL.
    UnixAbstract(Vec<u8>),
    /// A TCP port. `host` is an IP address without brackets, or a host name
    /// that is still to be looked up.
    Tcp {
        /// `127.0.0.1` where the address left the host out.
        host: String,
        /// The port number; 0 only if the peer wrote 0.
        port: u16,
    },
}

impl Address {
    /// The address of a Unix socket at `path`, or `None` if the path is not
    /// UTF-8 or could not be told apart from the fields around it.
    pub fn unix(path: &Path) -> Option<Address> {
        let text = path.to_str()?;
        let fits_in_a_line = !text.contains(['|', '\n', '\r', '\0']);
        fits_in_a_line.then(|| Address {
            network: Network::Unix,
            text: text.to_owned(),
        })
    }

    /// The address of a TCP listener.
    pub fn tcp(address: std::net::SocketAddr) -> Address {
        Address {
            network: Network::Tcp,
            text: address.to_string(),
        }
    }

    /// Takes an address in from a peer. Only the network and the length are
    /// checked here, because a runner may still translate the text.
    ///
    /// # Errors
    /// [`AddressError::UnknownNetwork`] and [`AddressError::TooLong`].
    pub fn parse(network: &str, text: &str) -> Result<Address, AddressError> {
        let Ok(network) = network.parse() else {
            return Err(AddressError::UnknownNetwork {
                network: Excerpt::from(network),
                address: Excerpt::from(text),
            });
        };
        if text.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong {
                address: Excerpt::from(text),
                length: text.len(),
            });
        }
        Ok(Address {
            network,
            text: text.to_owned(),
        })
    }

    /// Works out what to connect to, from the text alone: no name is looked up.
    ///
    /// As in Go, a missing or unspecified host means this machine, a port may
    /// be one of the well-known names, and on Linux a Unix address that begins
    /// with `@` is an abstract name. An empty Unix address is let through;
    /// connecting to it fails.
    ///
    /// # Errors
    /// Every kind of [`AddressError`] except
    /// [`UnknownNetwork`](AddressError::UnknownNetwork).
    pub fn resolve(&self) -> Result<Endpoint, AddressError> {
        match self.network {
            Network::Unix => resolve_unix(&self.text),
            Network::Tcp => resolve_tcp(&self.text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.network, self.text)
    }
}

/// Why an address cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// `address-unknown-network`. *Cause:* the peer named a network other than
    /// `unix` and `tcp`. *Resolution:* correct the plugin; there are no others.
    #[error("{network} is not a network (`unix` or `tcp`), given with the address {address}")]
    UnknownNetwork {
        /// The network as it was found.
        network: Excerpt,
        /// The address that came with it.
        address: Excerpt,
    },
    /// `address-too-long`. *Cause:* the text is longer than any address.
    /// *Resolution:* correct the plugin.
    #[error("address {address} has {length} bytes, more than {MAX_ADDRESS}")]
    TooLong {
        /// The beginning of the address.
        address: Excerpt,
        /// Its length in bytes.
        length: usize,
    },
    /// `address-not-utf8`. *Cause:* the address is not UTF-8 text.
    /// *Resolution:* let the plugin listen below a directory with a UTF-8 name.
    #[error("address {address} is not UTF-8")]
    NotUtf8 {
        /// The address as it was found.
        address: Excerpt,
    },
    /// `address-contains-nul`. *Cause:* a path or host name contains a NUL
    /// byte. *Resolution:* correct the plugin.
    #[error("address {address} contains a NUL byte")]
    ContainsNul {
        /// The address as it was found.
        address: Excerpt,
    },
    /// `address-path-too-long`. *Cause:* a Unix socket path does not fit into
    /// a socket address. *Resolution:* use a directory with a shorter name;
    /// `TMPDIR` decides where plugins create their sockets by default.
    #[error(
        "socket path {address} has {length} bytes, more than the {} a socket address holds",
        UNIX_ADDRESS_LIMIT - 1
    )]
    PathTooLong {
        /// The address as it was found.
        address: Excerpt,
        /// Its length in bytes.
        length: usize,
    },
    /// `address-port-missing`. *Cause:* a TCP address has no port.
    /// *Resolution:* write it as `host:port` or `:port`.
    #[error("tcp address {address} has no port")]
    PortMissing {
        /// The address as it was found.
        address: Excerpt,
    },
    /// `address-port-invalid`. *Cause:* the port is a number outside 0–65535.
    /// *Resolution:* correct the plugin.
    #[error("port {port} of the tcp address {address} is not within 0–65535")]
    PortInvalid {
        /// The port as it was found.
        port: Excerpt,
        /// The address as it was found.
        address: Excerpt,
    },
    /// `address-port-unknown`. *Cause:* the port is a word that is not in the
    /// small table of well-known services. *Resolution:* use the number.
    #[error("port {port} of the tcp address {address} is no well-known service name")]
    PortUnknown {
        /// The port as it was found.
        port: Excerpt,
        /// The address as it was found.
        address: Excerpt,
    },
    /// `address-host-invalid`. *Cause:* the host part has stray colons or
    /// brackets, or is too long. *Resolution:* put an IPv6 address in brackets.
    #[error("tcp address {address} is not of the form `host:port`")]
    HostInvalid {
        /// The address as it was found.
        address: Excerpt,
    },
}

impl Coded for AddressError {
    fn code(&self) -> &'static str {
        match self {
            AddressError::UnknownNetwork { .. } => "address-unknown-network",
            AddressError::TooLong { .. } => "address-too-long",
            AddressError::NotUtf8 { .. } => "address-not-utf8",
            AddressError::ContainsNul { .. } => "address-contains-nul",
            AddressError::PathTooLong { .. } => "address-path-too-long",
            AddressError::PortMissing { .. } => "address-port-missing",
            AddressError::PortInvalid { .. } => "address-port-invalid",
            AddressError::PortUnknown { .. } => "address-port-unknown",
            AddressError::HostInvalid { .. } => "address-host-invalid",
        }
    }
}

fn resolve_unix(text: &str) -> Result<Endpoint, AddressError> {
    let address = || Excerpt::from(text);
    let abstract_name = text
        .strip_prefix('@')
        .filter(|_| cfg!(any(target_os = "linux", target_os = "android")));
    // Both forms spend one byte on a NUL: at the end of a path, or in place of
    // the `@` of an abstract name.
    let needed = match abstract_name {
        Some(_) => text.len(),
        None => text.len() + 1,
    };
    if needed > UNIX_ADDRESS_LIMIT {
        return Err(AddressError::PathTooLong {
            address: address(),
            length: text.len(),
        });
    }
    match abstract_name {
        Some(name) => Ok(Endpoint::UnixAbstract(name.as_bytes().to_vec())),
        None if text.contains('\0') => Err(AddressError::ContainsNul { address: address() }),
        None => Ok(Endpoint::UnixPath(PathBuf::from(text))),
    }
}

fn resolve_tcp(text: &str) -> Result<Endpoint, AddressError> {
    let address = || Excerpt::from(text);
    if text.contains('\0') {
        return Err(AddressError::ContainsNul { address: address() });
    }
    let (host, port) = split_host_port(text)?;
    if host.len() > MAX_HOST_NAME {
        return Err(AddressError::HostInvalid { address: address() });
    }
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        other => other,
    };
    let port = match parse_go_int(port) {
        Some(number) => u16::try_from(number).map_err(|_| AddressError::PortInvalid {
            port: Excerpt::from(port),
            address: address(),
        }),
        None if is_decimal(port) => Err(AddressError::PortInvalid {
            port: Excerpt::from(port),
            address: address(),
        }),
        None => well_known_port(port).ok_or_else(|| AddressError::PortUnknown {
            port: Excerpt::from(port),
            address: address(),
        }),
    }?;
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port,
    })
}

/// Splits `host:port`, `:port` and `[v6]:port`; the port is not empty.
fn split_host_port(text: &str) -> Result<(&str, &str), AddressError> {
    let invalid = || AddressError::HostInvalid {
        address: Excerpt::from(text),
    };
    let missing = || AddressError::PortMissing {
        address: Excerpt::from(text),
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(invalid)?;
        match after.strip_prefix(':') {
            Some(port) => (host, port),
            None if after.is_empty() => return Err(missing()),
            None => return Err(invalid()),
        }
    } else {
        let (host, port) = text.rsplit_once(':').ok_or_else(missing)?;
        if host.contains(':') {
            return Err(invalid());
        }
        (host, port)
    };
    if host.contains(['[', ']']) || port.contains(['[', ']', ':']) {
        return Err(invalid());
    }
    if port.is_empty() {
        return Err(missing());
    }
    Ok((host, port))
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Service names every resolver knows; what else a machine has in its own
/// services file does not travel well.
fn well_known_port(name: &str) -> Option<u16> {
    let port = match name.to_ascii_lowercase().as_str() {
        "ftp" => 21,
        "ssh" => 22,
        "telnet" => 23,
        "smtp" => 25,
        "domain" => 53,
        "gopher" => 70,
        "http" => 80,
        "pop3" => 110,
        "imap2" => 143,
        "imap3" => 220,
        "https" => 443,
        "submissions" => 465,
        "ftps" => 990,
        "imaps" => 993,
        "pop3s" => 995,
        _ => return None,
    };
    Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(text: &str) -> Result<Endpoint, AddressError> {
        Address::parse("tcp", text)?.resolve()
    }

    fn unix(text: &str) -> Result<Endpoint, AddressError> {
        Address::parse("unix", text)?.resolve()
    }

    #[test]
    fn h11_t27_tcp_addresses_resolve_as_in_go() {
        for (text, host, port) in [
            (":1234", "127.0.0.1", 1234),
            ("localhost:1234", "localhost", 1234),
            ("127.0.0.1:1234", "127.0.0.1", 1234),
            ("0.0.0.0:1", "127.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
            ("[::]:2", "::1", 2),
            ("[fe80::1%eth0]:2", "fe80::1%eth0", 2),
            ("localhost:http", "localhost", 80),
            (":HTTPS", "127.0.0.1", 443),
            (":+080", "127.0.0.1", 80),
            (":0", "127.0.0.1", 0),
        ] {
            let host = host.to_owned();
            assert_eq!(tcp(text), Ok(Endpoint::Tcp { host, port }), "{text}");
        }
    }

    #[test]
    fn a_malformed_tcp_address_says_which_part_is_wrong() {
        for (text, code) in [
            ("", "address-port-missing"),
            ("localhost", "address-port-missing"),
            ("localhost:", "address-port-missing"),
            ("[::1]", "address-port-missing"),
            ("::1", "address-host-invalid"),
            ("[::1", "address-host-invalid"),
            ("[::1]1:2", "address-host-invalid"),
            ("a]:1", "address-host-invalid"),
            ("[a[]:1", "address-host-invalid"),
            ("[::1]:2:3", "address-host-invalid"),
            (":65536", "address-port-invalid"),
            (":-1", "address-port-invalid"),
            (":99999999999999999999", "address-port-invalid"),
            (":nonsense", "address-port-unknown"),
            ("host:port", "address-port-unknown"),
            (": 80", "address-port-unknown"),
            ("a\0b:1", "address-contains-nul"),
        ] {
            assert_eq!(tcp(text).unwrap_err().code(), code, "{text}");
        }
        let long = format!("{}:1", "h".repeat(254));
        assert_eq!(tcp(&long).unwrap_err().code(), "address-host-invalid");
    }

    #[test]
    fn h11_unix_addresses_are_paths_or_abstract_names() {
        for path in ["/tmp/plugin1", "relative/plugin1", "", "a@b"] {
            assert_eq!(unix(path), Ok(Endpoint::UnixPath(path.into())), "{path}");
        }
        let shortened = |text: &str| match unix(text) {
            Ok(Endpoint::UnixAbstract(name)) => Some(name),
            Ok(Endpoint::UnixPath(_)) if cfg!(not(target_os = "linux")) => {
                Some(text.as_bytes()[1..].to_vec())
            }
            _ => None,
        };
        assert_eq!(shortened("@name"), Some(b"name".to_vec()));
        assert_eq!(shortened("@"), Some(Vec::new()));
    }

    #[test]
    fn a_unix_address_keeps_within_a_socket_address() {
        let path = |length: usize| format!("/{}", "p".repeat(length - 1));
        assert!(unix(&path(107)).is_ok());
        assert_eq!(
            unix(&path(108)).unwrap_err().code(),
            "address-path-too-long"
        );
        let abstract_name = |length: usize| format!("@{}", "n".repeat(length));
        assert!(unix(&abstract_name(106)).is_ok());
        assert_eq!(
            unix(&abstract_name(108)).unwrap_err().code(),
            "address-path-too-long"
        );
        assert_eq!(unix("/a\0b").unwrap_err().code(), "address-contains-nul");
    }

    #[test]
    fn a_listeners_own_address_reads_back_as_itself() {
        let address = Address::tcp("[::1]:10000".parse().unwrap());
        assert_eq!(address.to_string(), "tcp:[::1]:10000");
        assert_eq!(
            Address::parse("tcp", &address.text).unwrap().resolve(),
            address.resolve()
        );
        let address = Address::unix(Path::new("/tmp/plugin1")).unwrap();
        assert_eq!(address.to_string(), "unix:/tmp/plugin1");
        assert_eq!(Address::unix(Path::new("/tmp/a|b")), None);
        assert_eq!(Address::unix(Path::new("/tmp/a\nb")), None);
    }

    #[test]
    fn every_address_error_prints_one_phrase() {
        let shown = |result: Result<Endpoint, AddressError>| result.unwrap_err().to_string();
        insta::assert_snapshot!(
            shown(Address::parse("udp", "127.0.0.1:1").and_then(|a| a.resolve())),
            @r#""udp" is not a network (`unix` or `tcp`), given with the address "127.0.0.1:1""#
        );
        let text = shown(unix(&"x".repeat(5000)));
        insta::assert_snapshot!(
            text.replace(&"x".repeat(120), "<120 x>"),
            @r#"address "<120 x>"… (+4880 bytes) has 5000 bytes, more than 4096"#
        );
        insta::assert_snapshot!(
            AddressError::NotUtf8 { address: Excerpt::new(b"/tmp/\xff") },
            @r#"address "/tmp/\xff" is not UTF-8"#
        );
        insta::assert_snapshot!(shown(unix("/tmp/a\0b")), @r#"address "/tmp/a\0b" contains a NUL byte"#);
        insta::assert_snapshot!(
            shown(unix(&format!("/{}", "d".repeat(107)))).replace(&"d".repeat(107), "<107 d>"),
            @r#"socket path "/<107 d>" has 108 bytes, more than the 107 a socket address holds"#
        );
        insta::assert_snapshot!(shown(tcp("localhost")), @r#"tcp address "localhost" has no port"#);
        insta::assert_snapshot!(
            shown(tcp(":70000")),
            @r#"port "70000" of the tcp address ":70000" is not within 0–65535"#
        );
        insta::assert_snapshot!(
            shown(tcp(":web")),
            @r#"port "web" of the tcp address ":web" is no well-known service name"#
        );
        insta::assert_snapshot!(
            shown(tcp("::1")),
            @r#"tcp address "::1" is not of the form `host:port`"#
        );
        insta::assert_snapshot!(
            "Unix".parse::<Network>().unwrap_err(),
            @r#""Unix" is not a network (`unix` or `tcp`)"#
        );
        assert_eq!(
            "Unix".parse::<Network>().unwrap_err().code(),
            "unknown-network"
        );
    }

    proptest! {
        #[test]
        fn resolving_never_panics_and_stays_bounded(network in "unix|tcp", text in "\\PC{0,200}") {
            if let Ok(endpoint) = Address::parse(&network, &text).and_then(|a| a.resolve()) {
                let length = match endpoint {
                    Endpoint::UnixPath(path) => path.as_os_str().len(),
                    Endpoint::UnixAbstract(name) => name.len(),
                    Endpoint::Tcp { host, .. } => host.len(),
                };
                prop_assert!(length <= MAX_HOST_NAME);
            }
        }

        #[test]
        fn socket_addresses_survive_the_wire(address: std::net::SocketAddr) {
            let Ok(Endpoint::Tcp { host, port }) = Address::tcp(address).resolve() else {
                return Err(TestCaseError::fail("did not resolve"));
            };
            prop_assert_eq!(port, address.port());
            if let (std::net::SocketAddr::V4(v4), Ok(ip)) = (address, host.parse::<std::net::Ipv4Addr>())
                && !v4.ip().is_unspecified()
            {
                prop_assert_eq!(ip, *v4.ip());
            }
        }
    }
}
