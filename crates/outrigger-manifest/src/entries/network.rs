//! Entries about connections.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{At, Entry, EntryList};
use crate::check::{Check, Fields, Side};
use crate::choices::{Direction, Protocol};
use crate::host::{HostError, HostPattern, PatternError};
use crate::keys::{Group, Key, Presence, Section, Shape};
use crate::message::quoted;
use crate::ports::Ports;
use crate::problem::{Position, ProblemCode};
use crate::shapes::{Word, filled_list};
use crate::tree::{Kind, Node, Scalar, scalar};

pub(crate) static EGRESS: Key<EntryList<Egress>> = Key::optional(
    "egress",
    "connections to open: host names, `*.` wildcards, addresses and networks",
);
pub(crate) static INGRESS: Key<EntryList<Ingress>> = Key::optional(
    "ingress",
    "connections to accept: host names, addresses and networks they may come from",
);
static SECTION: Section = Section {
    about: "",
    keys: &[&EGRESS, &INGRESS],
};

pub(crate) static PROTOCOL: Key<Word<Protocol>> = Key::new(
    "protocol",
    Presence::RequiredUnlessDenied,
    "the protocol below the plugin's own",
)
.denied_default("all");
pub(crate) static HOSTS: Key<Hosts> = Key::new(
    "hosts",
    Presence::RequiredUnlessDenied,
    "those connected to, at least one",
)
.denied_default("all");
pub(crate) static ORIGINS: Key<Origins> = Key::new(
    "allowed_origins",
    Presence::RequiredUnlessDenied,
    "who may connect, at least one; no wildcards",
)
.denied_default("all");
pub(crate) static PORTS: Key<Ports> = Key::new(
    "ports",
    Presence::RequiredUnlessDenied,
    "those connected to, or listened on, at least one: `443`, `8000-8010`",
)
.denied_default("all");

pub(crate) static EGRESS_ENTRY: Section = Section {
    about: "connections that the plugin opens",
    keys: &[&PROTOCOL, &HOSTS, &PORTS],
};
pub(crate) static INGRESS_ENTRY: Section = Section {
    about: "connections that reach the plugin",
    keys: &[&PROTOCOL, &PORTS, &ORIGINS],
};

/// What is asked or ruled about connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    pub(crate) egress: Vec<NetworkEntry>,
    pub(crate) ingress: Vec<NetworkEntry>,
}

impl Group for Networks {
    fn section() -> &'static Section {
        &SECTION
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Networks> {
        let egress = EGRESS.read(check, fields).unwrap_or_default();
        let ingress = INGRESS.read(check, fields).unwrap_or_default();
        Some(Networks {
            egress: egress.into_iter().map(|Egress(entry)| entry).collect(),
            ingress: ingress.into_iter().map(|Ingress(entry)| entry).collect(),
        })
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        super::print(&mut map, EGRESS.name, &self.egress)?;
        super::print(&mut map, INGRESS.name, &self.ingress)?;
        map.end()
    }
}

/// A request for, or a rule about, connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkEntry {
    pub(crate) at: At,
    pub(crate) direction: Direction,
    /// `None`, only in a denial: every protocol.
    pub(crate) protocol: Option<Protocol>,
    /// Hosts connected to, or origins let in. `None`, only in a denial: every host.
    pub(crate) hosts: Option<Vec<HostPattern>>,
    pub(crate) ports: Ports,
}

impl NetworkEntry {
    fn read(check: &mut Check, fields: &Fields<'_>, direction: Direction) -> Option<NetworkEntry> {
        if check.side == Side::Deny && fields.is_empty() {
            let location = fields.place();
            check
                .report(
                    fields.at(),
                    ProblemCode::EmptyValue,
                    location,
                    "an entry without keys would deny everything",
                )
                .help(format!(
                    "to deny everything, write `{{ports: [\"1-65535\"]}}` in {location}"
                ));
            return None;
        }
        let protocol = PROTOCOL.given(check, fields);
        let hosts = match direction {
            Direction::Egress => HOSTS.given(check, fields),
            Direction::Ingress => ORIGINS.given(check, fields),
        };
        let ports = PORTS.read_or(check, fields, Ports::all());
        Some(NetworkEntry {
            at: At(fields.at()),
            direction,
            protocol: protocol?,
            hosts: hosts?,
            ports: ports?,
        })
    }

    /// The hosts; none where all are meant.
    pub(crate) fn patterns(&self) -> &[HostPattern] {
        self.hosts.as_deref().unwrap_or_default()
    }

    pub(crate) fn speaks(&self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|mine| mine == protocol)
    }
}

/// The key under which the other ends of connections are named.
pub(crate) fn hosts_key(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => HOSTS.name,
        Direction::Ingress => ORIGINS.name,
    }
}

pub(crate) fn network_text(
    direction: Direction,
    protocol: Protocol,
    hosts: &str,
    ports: &Ports,
) -> String {
    let key = hosts_key(direction);
    format!("{{protocol: {protocol}, {key}: [{hosts}], ports: [{ports}]}}")
}

impl Serialize for NetworkEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(protocol) = self.protocol {
            map.serialize_entry(PROTOCOL.name, &protocol)?;
        }
        if let Some(hosts) = &self.hosts {
            map.serialize_entry(hosts_key(self.direction), hosts)?;
        }
        map.serialize_entry(PORTS.name, &self.ports)?;
        map.end()
    }
}

/// An entry of `egress`, while it is read.
#[derive(PartialEq)]
pub(crate) struct Egress(NetworkEntry);

impl Group for Egress {
    fn section() -> &'static Section {
        &EGRESS_ENTRY
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Egress> {
        NetworkEntry::read(check, fields, Direction::Egress).map(Egress)
    }
}

impl Entry for Egress {
    fn at(&self) -> Position {
        self.0.at.0
    }
}

/// An entry of `ingress`, while it is read.
#[derive(PartialEq)]
pub(crate) struct Ingress(NetworkEntry);

impl Group for Ingress {
    fn section() -> &'static Section {
        &INGRESS_ENTRY
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Ingress> {
        NetworkEntry::read(check, fields, Direction::Ingress).map(Ingress)
    }
}

impl Entry for Ingress {
    fn at(&self) -> Position {
        self.0.at.0
    }
}

/// Hosts to connect to.
pub(crate) struct Hosts;

impl Shape for Hosts {
    type Value = Vec<HostPattern>;

    fn kind(_: Side) -> String {
        "list of hosts".to_owned()
    }

    fn schema(_: Side) -> Value {
        filled_list(json!({"type": "string", "minLength": 1}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<HostPattern>> {
        read_hosts(check, node, location, Direction::Egress)
    }
}

/// Hosts that connections come from.
pub(crate) struct Origins;

impl Shape for Origins {
    type Value = Vec<HostPattern>;

    fn kind(side: Side) -> String {
        Hosts::kind(side)
    }

    fn schema(side: Side) -> Value {
        Hosts::schema(side)
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<HostPattern>> {
        read_hosts(check, node, location, Direction::Ingress)
    }
}

fn read_hosts(
    check: &mut Check,
    node: &Node,
    location: &str,
    direction: Direction,
) -> Option<Vec<HostPattern>> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    let mut good = true;
    for (location, item) in check.filled_list(node, location)? {
        match read_host(check, item, &location, direction) {
            Some(host) if hosts.contains(&host) => {
                check.repeated(item.at, &location, &host.to_string());
            }
            Some(host) => hosts.push(host),
            None => good = false,
        }
    }
    good.then_some(hosts)
}

fn read_host(
    check: &mut Check,
    node: &Node,
    location: &str,
    direction: Direction,
) -> Option<HostPattern> {
    if matches!(&node.kind, Kind::Plain(text) if scalar(text) == Scalar::Bool) {
        check.wrong_type(node, location, "a host");
        return None;
    }
    // An address may look like a number, and is told more by its own rules.
    let text = check.literal(node, location)?;
    let wrong = match HostPattern::parse(text) {
        Ok(HostPattern::Wildcard(_)) if direction == Direction::Ingress => Wrong {
            help: Some("name hosts, addresses or networks"),
            ..Wrong::new(
                ProblemCode::WildcardNotAllowed,
                text,
                "is a wildcard, and the origin of a connection is an address",
            )
        },
        Ok(host) => return Some(host),
        Err(error) => Wrong::of(text, error),
    };
    let problem = check.report(node.at, wrong.code, location, wrong.message);
    let problem = problem.near(wrong.near);
    if let Some(help) = wrong.help {
        problem.help(help);
    }
    None
}

/// What is wrong with a host.
struct Wrong {
    code: ProblemCode,
    message: String,
    near: Option<String>,
    help: Option<&'static str>,
}

impl Wrong {
    fn new(code: ProblemCode, text: &str, why: &str) -> Wrong {
        Wrong {
            code,
            message: format!("{} {why}", quoted(text)),
            near: None,
            help: None,
        }
    }

    fn of(text: &str, error: PatternError) -> Wrong {
        match error {
            PatternError::NotCanonical(canonical) => Wrong {
                near: Some(canonical),
                ..Wrong::new(
                    ProblemCode::HostNotCanonical,
                    text,
                    "is not written the way hosts are compared",
                )
            },
            PatternError::Wildcard => Wrong {
                help: Some(
                    "a wildcard is `*.` before a name of at least two labels, such as `*.example.com`",
                ),
                ..Wrong::new(
                    ProblemCode::WildcardNotAllowed,
                    text,
                    "stands for too many hosts",
                )
            },
            PatternError::Network => Wrong {
                help: Some("a network is an address and a prefix length, such as `10.0.0.0/8`"),
                ..Wrong::new(ProblemCode::InvalidHost, text, "is not a network")
            },
            PatternError::Host(error) => {
                let (code, near) = match &error {
                    HostError::AddressForm { canonical, .. } => (
                        ProblemCode::HostNotCanonical,
                        canonical.map(|address| address.to_string()),
                    ),
                    HostError::Empty | HostError::Character { .. } | HostError::Name(_) => {
                        (ProblemCode::InvalidHost, host_in_url(text))
                    }
                };
                Wrong {
                    code,
                    message: error.to_string(),
                    near,
                    help: None,
                }
            }
        }
    }
}

/// The host of something written as a URL or with a port.
fn host_in_url(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    (host != text)
        .then(|| HostPattern::parse(host).ok())?
        .map(|host| host.to_string())
}
