//! Hosts of the network: the one way to write each, and what an address stands for.
//!
//! Text forms of addresses are a trap: resolvers accept `0x7f000001`, `127.1`, `0177.0.0.1` and
//! full-width digits as loopback. So whatever ends in a number is an address, and only its one
//! canonical text is accepted; and every address a name resolves to is judged as well.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::message::quoted;

/// Why a text is no host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is nothing.
    #[error("a host must not be empty")]
    Empty,
    /// It has characters that are in no host.
    #[error("{} contains {}, which is in no host name", quoted(.text), quoted(&.found.to_string()))]
    Character {
        /// What was given.
        text: String,
        /// The first such character.
        found: char,
    },
    /// It is an address in a form other than the canonical one.
    #[error("{} is an address in an unusual form", quoted(.text))]
    AddressForm {
        /// What was given.
        text: String,
        /// The address in its canonical form, where that is certain.
        canonical: Option<IpAddr>,
    },
    /// It breaks the rules for host names.
    #[error("{} is not a host name", quoted(.0))]
    Name(String),
}

impl HostError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            HostError::AddressForm { .. } => "host-not-canonical",
            HostError::Empty | HostError::Character { .. } | HostError::Name(_) => "invalid-host",
        }
    }
}

/// A host name in its canonical form: ASCII, lower case, no trailing dot, never an address.
///
/// ```
/// use outrigger_manifest::HostName;
///
/// let name: HostName = "BÜCHER.example.".parse().unwrap();
/// assert_eq!(name.as_str(), "xn--bcher-kva.example");
/// assert!("0x7f.1".parse::<HostName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostError;

    /// Canonicalises: lower case, IDNA to ASCII, one trailing dot stripped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse()? {
            Host::Name(name) => Ok(name),
            Host::Address(_) => Err(HostError::Name(text.to_owned())),
        }
    }
}

/// A single host: what a connection is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// By name.
    Name(HostName),
    /// By address; an IPv4 address inside an IPv6 one is unwrapped.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Host::Address(address.to_canonical()));
        }
        let owned = || text.to_owned();
        if text.contains(':')
            && let Some(inner) = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'))
            && let Ok(address) = inner.parse::<Ipv6Addr>()
        {
            let canonical = Some(IpAddr::V6(address).to_canonical());
            return Err(HostError::AddressForm {
                text: owned(),
                canonical,
            });
        }
        let forbidden =
            |c: char| c.is_control() || c.is_whitespace() || "@%/\\:[]?#*<>^|".contains(c);
        if let Some(found) = text.chars().find(|c| forbidden(*c)) {
            return Err(HostError::Character {
                text: owned(),
                found,
            });
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        let ascii = Uts46::new()
            .to_ascii(
                bare.as_bytes(),
                AsciiDenyList::URL,
                Hyphens::CheckFirstLast,
                DnsLength::Verify,
            )
            .map_err(|_| HostError::Name(owned()))?;
        if ends_in_number(&ascii) {
            let canonical = loose_ipv4(&ascii).map(IpAddr::V4);
            return Err(HostError::AddressForm {
                text: owned(),
                canonical,
            });
        }
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !ascii.chars().all(letters) {
            return Err(HostError::Name(owned()));
        }
        Ok(Host::Name(HostName(ascii.into_owned())))
    }
}

/// Whether the last label is a number, so that a resolver may take the whole for an address.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// What resolvers take an unusual IPv4 text for; used only to show what was probably meant.
fn loose_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text
        .split('.')
        .map(|part| {
            let lower = part.to_ascii_lowercase();
            match lower.strip_prefix("0x") {
                Some("") => Some(0),
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None if lower.len() > 1 && lower.starts_with('0') => {
                    u64::from_str_radix(&lower, 8).ok()
                }
                None => lower.parse().ok(),
            }
        })
        .collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 1_u64 << (8 * (4 - first.len()));
    if *last >= room {
        return None;
    }
    let mut value = *last;
    for (index, part) in first.iter().enumerate() {
        value |= part << (8 * (3 - index));
    }
    u32::try_from(value).ok().map(Ipv4Addr::from)
}

/// One or many hosts, as a request or a rule names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// One host by name.
    Name(HostName),
    /// `*.name`: every host with exactly one label more than this name.
    Wildcard(HostName),
    /// One address.
    Address(IpAddr),
    /// Every address of a network.
    Network(IpNet),
}

/// Why a text in a file is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    Host(HostError),
    /// Right, but written in another form than the one that is compared.
    NotCanonical(String),
    Wildcard,
    Network,
}

impl HostPattern {
    /// Reads what a file says; only the canonical form is accepted.
    pub(crate) fn parse(text: &str) -> Result<HostPattern, PatternError> {
        let pattern = Self::parse_loosely(text)?;
        let canonical = pattern.to_string();
        if canonical == text {
            Ok(pattern)
        } else {
            Err(PatternError::NotCanonical(canonical))
        }
    }

    fn parse_loosely(text: &str) -> Result<HostPattern, PatternError> {
        if text.contains('*') {
            let suffix = text.strip_prefix("*.").ok_or(PatternError::Wildcard)?;
            let suffix: HostName = match suffix.parse() {
                Ok(suffix) => suffix,
                Err(_) if suffix.contains('*') => return Err(PatternError::Wildcard),
                Err(error) => return Err(PatternError::Host(error)),
            };
            // One label is a whole top-level domain.
            if !suffix.0.contains('.') {
                return Err(PatternError::Wildcard);
            }
            return Ok(HostPattern::Wildcard(suffix));
        }
        // A name with a path behind it, as of a URL, is not meant as a network.
        let numeric = |address: &str| {
            let letters = |c: char| c.is_ascii_hexdigit() || ".:".contains(c);
            address.contains(':') && address.chars().all(letters)
                || address.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        let is_network = text
            .split_once('/')
            .is_some_and(|(address, _)| !address.is_empty() && numeric(address));
        if is_network {
            let network: IpNet = text.parse().map_err(|_| PatternError::Network)?;
            let network = network.trunc();
            if let IpNet::V6(v6) = network
                && v6.prefix_len() >= 96
                && let Some(v4) = v6.network().to_ipv4_mapped()
            {
                let prefix = v6.prefix_len() - 96;
                return ipnet::Ipv4Net::new(v4, prefix)
                    .map_err(|_| PatternError::Network)
                    .and_then(|v4| Self::bounded(IpNet::V4(v4)));
            }
            return Self::bounded(network);
        }
        match text.parse::<Host>() {
            Ok(Host::Name(name)) => Ok(HostPattern::Name(name)),
            Ok(Host::Address(address)) => Ok(HostPattern::Address(address)),
            Err(error) => Err(PatternError::Host(error)),
        }
    }

    /// A network of all addresses is a `*` by another name.
    fn bounded(network: IpNet) -> Result<HostPattern, PatternError> {
        if network.prefix_len() == 0 {
            Err(PatternError::Wildcard)
        } else {
            Ok(HostPattern::Network(network))
        }
    }

    /// Whether the host is among those meant. A name never matches an address.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (HostPattern::Name(mine), Host::Name(name)) => mine == name,
            (HostPattern::Wildcard(suffix), Host::Name(name)) => one_label_more(name, suffix),
            (HostPattern::Address(mine), Host::Address(address)) => *mine == address.to_canonical(),
            (HostPattern::Network(network), Host::Address(address)) => {
                network.contains(&address.to_canonical())
            }
            (HostPattern::Name(_) | HostPattern::Wildcard(_), Host::Address(_))
            | (HostPattern::Address(_) | HostPattern::Network(_), Host::Name(_)) => false,
        }
    }

    /// Whether a denial of these hosts holds for the address: also for one that carries a denied
    /// IPv4 address inside.
    pub(crate) fn denies(&self, address: IpAddr) -> bool {
        let means = |address| self.matches(&Host::Address(address));
        let inside = match address.to_canonical() {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) => carried(v6),
        };
        means(address) || inside.into_iter().any(|v4| means(IpAddr::V4(v4)))
    }

    /// Whether any host that this grants is one that the other, a denial, means. There `*.name`
    /// stands for everything below the name: what denies is read widely, what grants narrowly.
    pub(crate) fn touched_by(&self, denial: &HostPattern) -> bool {
        use HostPattern::{Name, Wildcard};
        match (self, denial) {
            (Name(name), Wildcard(suffix)) => below(name, suffix),
            (Wildcard(mine), Wildcard(suffix)) => mine == suffix || below(mine, suffix),
            (HostPattern::Address(mine), denial) => denial.denies(*mine),
            (mine, denial) => mine.intersection(denial).is_some(),
        }
    }

    /// The hosts that both mean.
    pub(crate) fn intersection(&self, other: &HostPattern) -> Option<HostPattern> {
        use HostPattern::{Address, Name, Network, Wildcard};
        match (self, other) {
            (Name(a), Name(b)) => (a == b).then(|| Name(a.clone())),
            (Name(name), Wildcard(suffix)) | (Wildcard(suffix), Name(name)) => {
                one_label_more(name, suffix).then(|| Name(name.clone()))
            }
            (Wildcard(a), Wildcard(b)) => (a == b).then(|| Wildcard(a.clone())),
            (Address(a), Address(b)) => (a == b).then_some(Address(*a)),
            (Address(address), Network(network)) | (Network(network), Address(address)) => {
                network.contains(address).then_some(Address(*address))
            }
            (Network(a), Network(b)) => {
                if a.contains(b) {
                    Some(Network(*b))
                } else {
                    b.contains(a).then_some(Network(*a))
                }
            }
            (Name(_) | Wildcard(_), Address(_) | Network(_))
            | (Address(_) | Network(_), Name(_) | Wildcard(_)) => None,
        }
    }
}

fn below(name: &HostName, suffix: &HostName) -> bool {
    name.0
        .strip_suffix(suffix.as_str())
        .is_some_and(|front| front.ends_with('.'))
}

fn one_label_more(name: &HostName, suffix: &HostName) -> bool {
    name.0
        .split_once('.')
        .is_some_and(|(label, rest)| !label.is_empty() && rest == suffix.0)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Name(name) => name.fmt(f),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Address(address) => address.fmt(f),
            HostPattern::Network(network) => network.fmt(f),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// A host of the internet at large.
    Global,
    /// This machine.
    Loopback,
    /// `0.0.0.0`, `::` and the rest of `0.0.0.0/8`.
    Unspecified,
    /// A private network, shared carrier space or a unique local address.
    Private,
    /// Only on this link.
    LinkLocal,
    /// Where a cloud hands out its machines' credentials.
    Metadata,
    /// Many receivers, or all.
    Multicast,
    /// Set aside: documentation, benchmarks, protocol use, not yet assigned.
    Reserved,
}

impl AddressClass {
    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AddressClass::Global => "global",
            AddressClass::Loopback => "loopback",
            AddressClass::Unspecified => "unspecified",
            AddressClass::Private => "private",
            AddressClass::LinkLocal => "link-local",
            AddressClass::Metadata => "metadata",
            AddressClass::Multicast => "multicast",
            AddressClass::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an address stands for. An IPv4 address carried inside an IPv6 one (mapped, compatible,
/// NAT64, 6to4, Teredo, ISATAP) is judged as the IPv4 address it leads to.
///
/// ```
/// use outrigger_manifest::{AddressClass, classify};
///
/// assert_eq!(classify("93.184.215.14".parse().unwrap()), AddressClass::Global);
/// assert_eq!(classify("::ffff:169.254.169.254".parse().unwrap()), AddressClass::Metadata);
/// assert_eq!(classify("64:ff9b::a00:1".parse().unwrap()), AddressClass::Private);
/// ```
#[must_use]
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// The IPv4 addresses that an IPv6 address may lead to: those inside a mapped, translated,
/// compatible, NAT64, 6to4, Teredo or ISATAP one.
fn carried(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let mut all = carried_by_prefix(address);
    all.extend(carried_by_isatap(address));
    all
}

/// The IPv4 address to whose tunnel an ISATAP address leads, whatever network it is in: its lower
/// half is `5efe` and that address, with two bits before that say of what kind it is.
fn carried_by_isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const KIND: u16 = 0x0300;
    match address.segments() {
        [_, _, _, _, kind, 0x5efe, high, low] if kind & !KIND == 0 => {
            Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => None,
    }
}

fn carried_by_prefix(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => vec![v4(high, low)],
        // The local prefix of NAT64 is cut where its network likes: behind 48, 56, 64 or 96 bits,
        // and bits 64 to 71 are left out.
        [0x64, 0xff9b, 1, ..] => {
            let bits = u128::from(address);
            let without_gap = (bits >> 64 << 64) | ((bits & ((1 << 56) - 1)) << 8);
            let behind = |prefix: u32| {
                let low = without_gap << prefix >> 96;
                u32::try_from(low).map(Ipv4Addr::from)
            };
            let mut all: Vec<Ipv4Addr> = [48, 56, 64].into_iter().flat_map(behind).collect();
            all.push(v4(s[6], s[7]));
            all
        }
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            vec![v4(server_high, server_low), v4(!high, !low)]
        }
        _ => Vec::new(),
    }
}

/// Metadata services of AWS, Azure, Google, Oracle and Alibaba; AWS containers' credentials.
const METADATA_V4: &[[u8; 4]] = &[
    [169, 254, 169, 254],
    [169, 254, 170, 2],
    [169, 254, 170, 23],
    [168, 63, 129, 16],
    [192, 0, 0, 192],
    [100, 100, 100, 200],
];

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    let octets = address.octets();
    if METADATA_V4.contains(&octets) {
        return AddressClass::Metadata;
    }
    match octets {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [192, 168, ..] => AddressClass::Private,
        [172, 16..=31, ..] | [100, 64..=127, ..] => AddressClass::Private,
        [169, 254, ..] => AddressClass::LinkLocal,
        [224..=239, ..] | [255, 255, 255, 255] => AddressClass::Multicast,
        [192, 0, 0, _] | [192, 0, 2, _] | [192, 88, 99, _] => AddressClass::Reserved,
        [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Reserved,
        [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Global,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    match (classify_prefix(address), carried_by_isatap(address)) {
        (AddressClass::Global, Some(inside)) => classify_v4(inside),
        (class, _) => class,
    }
}

fn classify_prefix(address: Ipv6Addr) -> AddressClass {
    let s = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // Mapped, translated and compatible IPv4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low] => classify_v4(embedded(high, low)),
        // NAT64, the well-known prefix and the local one.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => classify_v4(embedded(high, low)),
        [0x64, 0xff9b, 1, ..] => AddressClass::Private,
        // 6to4.
        [0x2002, high, low, ..] => classify_v4(embedded(high, low)),
        // Teredo: the server, and the client with its bits turned.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            match classify_v4(embedded(server_high, server_low)) {
                AddressClass::Global => classify_v4(embedded(!high, !low)),
                other => other,
            }
        }
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] => AddressClass::Metadata,
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => AddressClass::Metadata,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => AddressClass::Reserved,
        // Protocol assignments, of which none is an ordinary host.
        [0x2001, 0..=0x01ff, ..] => AddressClass::Reserved,
        // Only this eighth is handed out to hosts.
        [0x2000..=0x3fff, ..] => AddressClass::Global,
        _ => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unusual_form_of_an_address_is_refused() {
        for text in [
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "0",
            "127.0.0.1.",
            "１２７.0.0.1",
            "127。0。0。1",
            "1.2.3.256",
            "0x",
            "1.2.3.4.5",
            "example.0x1",
            "①.1",
            "127.0.0.01",
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert_eq!(error.code(), "host-not-canonical", "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a@b",
            "a%00b",
            "a\0b",
            "a b",
            "a/b",
            "a:80",
            "user:pw@host",
            "[::1]",
            "-",
            "a\n",
            "*",
            "*.example.com",
            "xn--a",
            "a\u{202e}b",
            "fe80::1%eth0",
            "exa\u{ad}mple..com",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
        assert!(
            format!("{}.example", "a".repeat(64))
                .parse::<Host>()
                .is_err()
        );
        assert!("a.".repeat(200).parse::<Host>().is_err());
    }

    #[test]
    fn names_are_made_canonical() {
        for (text, canonical) in [
            ("API.Example.COM", "api.example.com"),
            ("api.example.com.", "api.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("ａｐｉ.example", "api.example"),
            ("_sip.example", "_sip.example"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
        ] {
            assert_eq!(
                text.parse::<Host>().unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn files_must_write_the_canonical_form() {
        for (text, canonical) in [
            ("Example.com", "example.com"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("*.Example.com", "*.example.com"),
            ("2001:db8:0::/32", "2001:db8::/32"),
        ] {
            let wanted = Err(PatternError::NotCanonical(canonical.to_owned()));
            assert_eq!(HostPattern::parse(text), wanted, "{text}");
        }
        for text in [
            "*",
            "*.com",
            "a.*.com",
            "*.*.example.com",
            "0.0.0.0/0",
            "::/0",
            "*example.com",
        ] {
            assert_eq!(
                HostPattern::parse(text),
                Err(PatternError::Wildcard),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wildcard = HostPattern::parse("*.example.com").unwrap();
        let matches = |name: &str| wildcard.matches(&name.parse().unwrap());
        assert!(matches("api.example.com"));
        assert!(!matches("example.com"));
        assert!(!matches("a.b.example.com"));
        assert!(!matches("badexample.com"));
    }

    #[test]
    fn a_denied_wildcard_stands_for_everything_below() {
        let denial = HostPattern::parse("*.example.com").unwrap();
        let touched = |text: &str| HostPattern::parse(text).unwrap().touched_by(&denial);
        for text in [
            "a.example.com",
            "a.b.example.com",
            "*.example.com",
            "*.b.example.com",
        ] {
            assert!(touched(text), "{text}");
        }
        for text in [
            "example.com",
            "badexample.com",
            "*.badexample.com",
            "*.example.org",
            "1.2.3.4",
        ] {
            assert!(!touched(text), "{text}");
        }
        let name = HostPattern::parse("a.example.com").unwrap();
        assert!(denial.touched_by(&name));
        let inner = HostPattern::parse("10.1.0.0/16").unwrap();
        let outer = HostPattern::parse("10.0.0.0/8").unwrap();
        assert!(inner.touched_by(&outer) && outer.touched_by(&inner));
    }

    #[test]
    fn a_denied_ipv4_address_is_denied_inside_of_others() {
        let denial = HostPattern::parse("169.254.0.0/16").unwrap();
        for (address, denied) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("::ffff:0:169.254.169.254", true),
            ("::169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("64:ff9b:1::a9fe:a9fe", true),
            ("64:ff9b:1:a9fe:a9:fe00::", true),
            ("64:ff9b:1:0:a9:fea9:fe00:0", true),
            ("64:ff9b:1:a9:fe:a9fe::", true),
            ("2002:a9fe:a9fe::1", true),
            ("2001:0:808:808::5601:5601", true),
            ("2001:0:a9fe:a9fe::f7f7:f7f7", true),
            ("2001:470::5efe:a9fe:a9fe", true),
            ("2001:470:1:2:200:5efe:a9fe:a9fe", true),
            ("2002:808:808::5efe:a9fe:a9fe", true),
            ("fe80::5efe:a9fe:a9fe", true),
            ("2001:470:1:2:400:5efe:a9fe:a9fe", false),
            ("2001:470::5efe:808:808", false),
            ("64:ff9b::808:808", false),
            ("64:ff9b:1::808:808", false),
            ("2002:808:808::a9fe:a9fe", false),
            ("2606:4700::a9fe:a9fe", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(denial.denies(address.parse().unwrap()), denied, "{address}");
            let literal = HostPattern::parse_loosely(address).unwrap();
            assert_eq!(literal.touched_by(&denial), denied, "{address}");
        }
        let all = HostPattern::parse("64:ff9b::/96").unwrap();
        assert!(all.denies("64:ff9b::808:808".parse().unwrap()));
    }

    #[test]
    fn addresses_are_classified() {
        use AddressClass::*;
        for (address, class) in [
            ("8.8.8.8", Global),
            ("127.0.0.1", Loopback),
            ("0.1.2.3", Unspecified),
            ("10.1.2.3", Private),
            ("172.31.0.1", Private),
            ("172.32.0.1", Global),
            ("100.64.0.1", Private),
            ("169.254.1.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("224.0.0.1", Multicast),
            ("255.255.255.255", Multicast),
            ("240.0.0.1", Reserved),
            ("192.0.2.1", Reserved),
            ("198.18.0.1", Reserved),
            ("::1", Loopback),
            ("::", Unspecified),
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::808:808", Global),
            ("2002:7f00:1::1", Loopback),
            ("2002:a00:1::", Private),
            ("2001:0:808:808::f5ff:fffe", Private),
            ("2001:470::5efe:7f00:1", Loopback),
            ("2001:470:1:2:0:5efe:a00:1", Private),
            ("2001:470:1:2:200:5efe:a9fe:a9fe", Metadata),
            ("2001:470:1:2:300:5efe:e000:1", Multicast),
            ("2002:808:808::5efe:7f00:1", Loopback),
            ("2001:470::200:5efe:808:808", Global),
            ("2001:470::400:5efe:7f00:1", Global),
            ("fe80::5efe:808:808", LinkLocal),
            ("::ffff:0:127.0.0.1", Loopback),
            ("fe80::1", LinkLocal),
            ("fc00::1", Private),
            ("fd00:ec2::254", Metadata),
            ("ff02::1", Multicast),
            ("2001:db8::1", Reserved),
            ("2606:4700::1111", Global),
            ("4000::1", Reserved),
            ("fec0::1", Private),
            ("64:ff9b:1::a00:1", Private),
        ] {
            assert_eq!(classify(address.parse().unwrap()), class, "{address}");
        }
    }
}
