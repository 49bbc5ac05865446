//! The entries of capability lists. A manifest's requests and a policy's rules share them.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::args::{ArgPattern, list_text, word_text};
use crate::check::{Check, Fields, Scalar, join, listed, scalar};
use crate::host::{HostPattern, PatternError};
use crate::name::{VariablePattern, is_variable};
use crate::path::{PathBase, PathError, PathTemplate};
use crate::permissions::Permissions;
use crate::ports::Ports;
use crate::problem::{Position, ProblemCode};
use crate::text::quoted;
use crate::words::{Access, Children, Direction, ProcessControl, Protocol};
use crate::yaml::{Kind, Node};

/// Who speaks in an entry; what is left out means the narrowest to the one who asks or allows,
/// and the widest to the one who denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A manifest, asking.
    Request,
    /// A policy, allowing.
    Allow,
    /// A policy, denying.
    Deny,
}

/// Where an entry stands. Two entries that say the same are equal wherever they stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) Position);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
}

impl Eq for At {}

/// A request for, or a rule about, part of the file tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemEntry {
    pub(crate) at: At,
    pub(crate) path: PathTemplate,
    pub(crate) permissions: Permissions,
    pub(crate) recursive: bool,
    /// Where it asks or allows: direct only when recursive, as the kernel cannot confine to one
    /// level. In a denial: `None` denies every access.
    pub(crate) access: Option<Access>,
}

impl FilesystemEntry {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &PathTemplate {
        &self.path
    }

    /// What may be done there.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Whether everything below is meant, or only the path and its direct entries.
    #[must_use]
    pub fn recursive(&self) -> bool {
        self.recursive
    }

    /// How it is reached.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.unwrap_or(Access::Mediated)
    }

    /// Where the entry stands in its file.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at.0
    }

    pub(crate) fn text(&self) -> String {
        filesystem_text(
            &self.path.to_string(),
            self.permissions,
            self.recursive,
            self.access(),
        )
    }
}

pub(crate) fn filesystem_text(
    path: &str,
    permissions: Permissions,
    recursive: bool,
    access: Access,
) -> String {
    let path = word_text(path);
    let recursive = if recursive { ", recursive: true" } else { "" };
    let access = match access {
        Access::Mediated => "",
        Access::Direct => ", access: direct",
    };
    format!("{{path: {path}, permissions: [{permissions}]{recursive}{access}}}")
}

impl Serialize for FilesystemEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("permissions", &self.permissions)?;
        map.serialize_entry("recursive", &self.recursive)?;
        if let Some(access) = self.access {
            map.serialize_entry("access", &access)?;
        }
        map.end()
    }
}

/// A request for, or a rule about, connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEntry {
    pub(crate) at: At,
    pub(crate) direction: Direction,
    /// `None`, only in a denial: every protocol.
    pub(crate) protocol: Option<Protocol>,
    /// `None`, only in a denial: every host.
    pub(crate) hosts: Option<Vec<HostPattern>>,
    pub(crate) ports: Ports,
}

impl NetworkEntry {
    /// Which way it looks.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The protocol; `None` in a denial of all.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// Hosts connected to, or origins let in; `None` in a denial of all.
    #[must_use]
    pub fn hosts(&self) -> Option<&[HostPattern]> {
        self.hosts.as_deref()
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where the entry stands in its file.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at.0
    }

    /// The hosts, "all" spelled as an empty list of patterns.
    pub(crate) fn patterns(&self) -> &[HostPattern] {
        self.hosts.as_deref().unwrap_or_default()
    }

    pub(crate) fn speaks(&self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|mine| mine == protocol)
    }
}

pub(crate) fn network_text(
    direction: Direction,
    protocol: Protocol,
    hosts: &str,
    ports: &Ports,
) -> String {
    let key = direction.hosts_key();
    format!("{{protocol: {protocol}, {key}: [{hosts}], ports: [{ports}]}}")
}

impl Serialize for NetworkEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(protocol) = self.protocol {
            map.serialize_entry("protocol", &protocol)?;
        }
        if let Some(hosts) = &self.hosts {
            map.serialize_entry(self.direction.hosts_key(), hosts)?;
        }
        map.serialize_entry("ports", &self.ports)?;
        map.end()
    }
}

/// A request for, or a rule about, running a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEntry {
    pub(crate) at: At,
    pub(crate) command: PathTemplate,
    pub(crate) args: ArgPattern,
}

impl ExecEntry {
    /// The program.
    #[must_use]
    pub fn command(&self) -> &PathTemplate {
        &self.command
    }

    /// The arguments it may be run with.
    #[must_use]
    pub fn args(&self) -> &ArgPattern {
        &self.args
    }

    /// Where the entry stands in its file.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at.0
    }

    pub(crate) fn text(&self) -> String {
        exec_text(&self.command.to_string(), &self.args.to_string())
    }
}

pub(crate) fn exec_text(command: &str, args: &str) -> String {
    format!("{{command: {}, args: {args}}}", word_text(command))
}

pub(crate) fn args_text<S: AsRef<str>>(arguments: &[S]) -> String {
    list_text(arguments.iter().map(AsRef::as_ref))
}

impl Serialize for ExecEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("command", &self.command)?;
        map.serialize_entry("args", &self.args)?;
        map.end()
    }
}

/// The lists that a manifest's `capabilities` and a policy's `allow` and `deny` have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) filesystem: Vec<FilesystemEntry>,
    pub(crate) egress: Vec<NetworkEntry>,
    pub(crate) ingress: Vec<NetworkEntry>,
    pub(crate) exec: Vec<ExecEntry>,
    /// Which kinds of control over the plugin's own children, and where each is said.
    pub(crate) control: Vec<(ProcessControl, At)>,
}

impl Entries {
    pub(crate) fn network(&self, direction: Direction) -> &[NetworkEntry] {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub(crate) fn controls(&self, control: ProcessControl) -> Option<At> {
        self.control
            .iter()
            .find(|(mine, _)| *mine == control)
            .map(|(_, at)| *at)
    }

    pub(crate) fn read(check: &mut Check, fields: &Fields<'_>, side: Side) -> Entries {
        let mut entries = Entries::default();
        // A denial that was left without a value would silently deny nothing.
        let section = |key: &str| match side {
            Side::Request => fields.section(key),
            Side::Allow | Side::Deny => fields.get(key),
        };
        if let Some((location, node)) = section("filesystem") {
            entries.filesystem = read_filesystem(check, node, &location, side);
        }
        if let Some((location, node)) = section("network")
            && let Some(parts) = parts(check, node, &location, &["egress", "ingress"])
        {
            for part in parts {
                entries.read_network_part(check, &part, side);
            }
        }
        if let Some((location, node)) = section("process")
            && let Some(parts) = parts(check, node, &location, &["exec", "kill", "list", "signal"])
        {
            for part in parts {
                entries.read_process_part(check, &part, side);
            }
            entries.control.sort_by_key(|(control, _)| *control);
        }
        entries
    }

    fn read_network_part(&mut self, check: &mut Check, part: &Part<'_>, side: Side) {
        let direction = if part.key == "egress" {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let read = read_network(check, part.node, &part.location, direction, side);
        let entries = match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        };
        if !part.repeated {
            *entries = read;
        }
    }

    fn read_process_part(&mut self, check: &mut Check, part: &Part<'_>, side: Side) {
        let Some((_, control)) = ProcessControl::WORDS
            .iter()
            .find(|(word, _)| *word == part.key)
        else {
            let read = read_exec(check, part.node, &part.location, side);
            if !part.repeated {
                self.exec = read;
            }
            return;
        };
        let scope = check.words(
            part.node,
            &part.location,
            "a scope of processes",
            Children::WORDS,
            false,
        );
        if let (Some([Children, ..]), false) = (scope.as_deref(), part.repeated) {
            self.control.push((*control, At(part.node.at)));
        }
    }
}

/// Reads the keys of `network` and `process` that stand elsewhere.
pub(crate) fn read_part(check: &mut Check, fields: &Fields<'_>, side: Side) {
    let mut entries = Entries::default();
    for key in ["egress", "ingress", "exec", "kill", "list", "signal"] {
        let Some((location, node)) = fields.get(key) else {
            continue;
        };
        let part = Part {
            key,
            location,
            node,
            repeated: false,
        };
        match key {
            "egress" | "ingress" => entries.read_network_part(check, &part, side),
            _ => entries.read_process_part(check, &part, side),
        }
    }
}

/// One key of a section.
struct Part<'n> {
    key: &'static str,
    location: String,
    node: &'n Node,
    /// An earlier one has the same key: this is only checked.
    repeated: bool,
}

/// The parts of a section written as a map or as a list of single-key maps.
fn parts<'n>(
    check: &mut Check,
    node: &'n Node,
    location: &str,
    known: &[&'static str],
) -> Option<Vec<Part<'n>>> {
    let mut found: Vec<Part<'n>> = Vec::new();
    let Kind::List(_) = &node.kind else {
        let fields = check.map(node, location, known)?;
        for key in known {
            if let Some((location, value)) = fields.get(key) {
                found.push(Part {
                    key,
                    location,
                    node: value,
                    repeated: false,
                });
            }
        }
        return Some(found);
    };
    for (item_location, item) in check.list(node, location)? {
        if let Kind::Map(entries) = &item.kind
            && entries.len() != 1
        {
            check
                .report(
                    item.at,
                    ProblemCode::OneKeyPerEntry,
                    &item_location,
                    format!("an entry of this list has one key, not {}", entries.len()),
                )
                .help(format!(
                    "write {} as a map instead of a list",
                    quoted(location)
                ));
        }
        let Some(fields) = check.map(item, &item_location, known) else {
            continue;
        };
        for key in known {
            let Some((_, node)) = fields.get(key) else {
                continue;
            };
            let location = join(location, key);
            let repeated = found.iter().any(|part| part.key == *key);
            if let (true, Some(at)) = (repeated, fields.key_position(key)) {
                check
                    .report(
                        at,
                        ProblemCode::DuplicateKey,
                        &location,
                        format!("the key {} is written twice", quoted(key)),
                    )
                    .help("put all its entries under one key");
            }
            found.push(Part {
                key,
                location,
                node,
                repeated,
            });
        }
    }
    Some(found)
}

fn read_filesystem(
    check: &mut Check,
    node: &Node,
    location: &str,
    side: Side,
) -> Vec<FilesystemEntry> {
    let mut entries: Vec<(String, FilesystemEntry)> = Vec::new();
    for (location, item) in check.maps(node, location).unwrap_or_default() {
        let known = ["path", "permissions", "recursive", "access"];
        let Some(fields) = check.map(item, &location, &known) else {
            continue;
        };
        if let Some(entry) = read_filesystem_entry(check, &fields, side) {
            let clash = entries.iter().find(|(_, other)| {
                other.path == entry.path
                    && (other.recursive == entry.recursive || other.access != entry.access)
            });
            if let Some((first, other)) = clash {
                let code = if other.access == entry.access {
                    ProblemCode::DuplicateEntry
                } else {
                    ProblemCode::Contradiction
                };
                let message = format!(
                    "{} is named in {first} already",
                    quoted(&entry.path.to_string())
                );
                check
                    .report(fields.at(), code, &location, message)
                    .help("say everything about one path in one entry");
            }
            entries.push((location, entry));
        }
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn read_filesystem_entry(
    check: &mut Check,
    fields: &Fields<'_>,
    side: Side,
) -> Option<FilesystemEntry> {
    let path = fields
        .require(check, "path")
        .and_then(|(location, node)| read_path(check, node, &location));
    let words = |check: &mut Check, (location, node): (String, &Node)| {
        check
            .words(node, &location, "a permission", Permissions::WORDS, false)
            .map(|words| words.into_iter().collect::<Permissions>())
    };
    let permissions = match side {
        Side::Request | Side::Allow => fields
            .require(check, "permissions")
            .and_then(|field| words(check, field)),
        Side::Deny => match fields.get("permissions") {
            Some(field) => words(check, field),
            None => Some(Permissions::ALL),
        },
    };
    let recursive = match fields.get("recursive") {
        Some((location, node)) => check.boolean(node, &location),
        None => Some(side == Side::Deny),
    };
    let access = match (fields.get("access"), side) {
        (Some((location, node)), Side::Request | Side::Allow) => check
            .word(node, &location, "a way of access", Access::WORDS)
            .map(Some),
        (Some((location, node)), Side::Deny) => {
            let direct = &[("direct", Access::Direct)];
            check
                .word(node, &location, "an access one can deny by itself", direct)
                .map(Some)
        }
        (None, Side::Request | Side::Allow) => Some(Some(Access::Mediated)),
        (None, Side::Deny) => Some(None),
    };
    if side != Side::Deny && access == Some(Some(Access::Direct)) && recursive == Some(false) {
        check
            .report(
                fields.position("access"),
                ProblemCode::DirectNotRecursive,
                &fields.location("access"),
                "direct access is only possible with `recursive: true`",
            )
            .help(
                "the kernel cannot confine a plugin to one level: make it recursive, or mediated",
            );
    }
    Some(FilesystemEntry {
        at: At(fields.at()),
        path: path?,
        permissions: permissions?,
        recursive: recursive?,
        access: access?,
    })
}

fn read_path(check: &mut Check, node: &Node, location: &str) -> Option<PathTemplate> {
    let text = check.text(node, location)?;
    let error = match PathTemplate::parse(text) {
        Ok(path) => return Some(path),
        Err(error) => error,
    };
    let shown = quoted(text);
    match error {
        PathError::Relative => {
            let near = if text == "~" || text.starts_with("~/") {
                Some(text.replacen('~', "${HOME}", 1))
            } else if text == "$HOME" || text.starts_with("$HOME/") {
                Some(text.replacen("$HOME", "${HOME}", 1))
            } else {
                None
            };
            check
                .report(
                    node.at,
                    ProblemCode::PathNotAbsolute,
                    location,
                    format!("{shown} is not an absolute path"),
                )
                .near(near)
                .help("begin with `/`, `${plugin_dir}`, `${data_dir}` or `${HOME}`");
        }
        PathError::Climbs(meant) => {
            check
                .report(
                    node.at,
                    ProblemCode::PathClimbs,
                    location,
                    format!("{shown} contains `..`"),
                )
                .near(Some(meant));
        }
        PathError::Placeholder(name) => {
            let known: Vec<&str> = PathBase::PLACEHOLDERS
                .iter()
                .map(|(known, _)| *known)
                .collect();
            let near = crate::text::nearest(&name, &known).filter(|near| *near != name);
            check
                .report(
                    node.at,
                    ProblemCode::PathPlaceholder,
                    location,
                    format!("{} has no meaning at this place of a path", quoted(&name)),
                )
                .near(near)
                .help(format!(
                    "a path may begin with {}",
                    listed(PathBase::PLACEHOLDERS)
                ));
        }
    }
    None
}

fn read_network(
    check: &mut Check,
    node: &Node,
    location: &str,
    direction: Direction,
    side: Side,
) -> Vec<NetworkEntry> {
    let hosts_key = direction.hosts_key();
    let mut entries: Vec<(String, NetworkEntry)> = Vec::new();
    for (location, item) in check.maps(node, location).unwrap_or_default() {
        let Some(fields) = check.map(item, &location, &["protocol", hosts_key, "ports"]) else {
            continue;
        };
        if side == Side::Deny && fields.is_empty() {
            check
                .report(
                    fields.at(),
                    ProblemCode::EmptyValue,
                    &location,
                    "an entry without keys would deny everything",
                )
                .help(format!(
                    "to deny everything, write `{{ports: [\"1-65535\"]}}` in {location}"
                ));
            continue;
        }
        let field = |check: &mut Check, key: &str| match side {
            Side::Request | Side::Allow => fields.require(check, key),
            Side::Deny => fields.get(key),
        };
        let protocol = field(check, "protocol")
            .map(|(location, node)| check.word(node, &location, "a protocol", Protocol::WORDS));
        let hosts = field(check, hosts_key)
            .map(|(location, node)| read_hosts(check, node, &location, direction));
        let ports =
            field(check, "ports").map(|(location, node)| read_ports(check, node, &location));
        // `None` is an absent key, `Some(None)` one whose problem is reported.
        let absent = side == Side::Deny;
        let (Some(protocol), Some(hosts), Some(ports)) = (
            optional(protocol, absent),
            optional(hosts, absent),
            optional(ports, absent),
        ) else {
            continue;
        };
        let entry = NetworkEntry {
            at: At(fields.at()),
            direction,
            protocol,
            hosts,
            ports: ports.unwrap_or_else(Ports::all),
        };
        if let Some((first, _)) = entries.iter().find(|(_, other)| *other == entry) {
            check.report(
                fields.at(),
                ProblemCode::DuplicateEntry,
                &location,
                format!("this says the same as {first}"),
            );
        }
        entries.push((location, entry));
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// `None` where a value could not be read, or is absent and must not be.
fn optional<T>(value: Option<Option<T>>, may_be_absent: bool) -> Option<Option<T>> {
    match value {
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
        None => may_be_absent.then_some(None),
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
    let shown = quoted(text);
    match HostPattern::parse(text) {
        Ok(HostPattern::Wildcard(_)) if direction == Direction::Ingress => {
            check
                .report(
                    node.at,
                    ProblemCode::WildcardNotAllowed,
                    location,
                    format!("{shown} is a wildcard, and the origin of a connection is an address"),
                )
                .help("name hosts, addresses or networks");
            None
        }
        Ok(host) => Some(host),
        Err(PatternError::NotCanonical(canonical)) => {
            check
                .report(
                    node.at,
                    ProblemCode::HostNotCanonical,
                    location,
                    format!("{shown} is not written the way hosts are compared"),
                )
                .near(Some(canonical));
            None
        }
        Err(PatternError::Wildcard) => {
            check
                .report(
                    node.at,
                    ProblemCode::WildcardNotAllowed,
                    location,
                    format!("{shown} stands for too many hosts"),
                )
                .help("a wildcard is `*.` before a name of at least two labels, such as `*.example.com`");
            None
        }
        Err(PatternError::Network) => {
            check
                .report(
                    node.at,
                    ProblemCode::InvalidHost,
                    location,
                    format!("{shown} is not a network"),
                )
                .help("a network is an address and a prefix length, such as `10.0.0.0/8`");
            None
        }
        Err(PatternError::Host(error)) => {
            let (code, near) = match &error {
                crate::host::HostError::AddressForm { canonical, .. } => (
                    ProblemCode::HostNotCanonical,
                    canonical.map(|address| address.to_string()),
                ),
                _ => (ProblemCode::InvalidHost, host_in_url(text)),
            };
            check
                .report(node.at, code, location, error.to_string())
                .near(near);
            None
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

fn read_ports(check: &mut Check, node: &Node, location: &str) -> Option<Ports> {
    let mut ports = Ports::default();
    let mut good = true;
    for (location, item) in check.filled_list(node, location)? {
        let range = match &item.kind {
            Kind::Plain(text) | Kind::Text(text) => match Ports::parse_range(text) {
                Some(range) => range,
                None if crate::check::is_null(&item.kind) => {
                    check.wrong_type(item, &location, "a port");
                    good = false;
                    continue;
                }
                None => {
                    check
                        .report(
                            item.at,
                            ProblemCode::InvalidPort,
                            &location,
                            format!("{} is not a port", quoted(text)),
                        )
                        .near(near_port(text))
                        .help("ports are 1 to 65535, and ranges such as `8000-8010`");
                    good = false;
                    continue;
                }
            },
            _ => {
                check.wrong_type(item, &location, "a port");
                good = false;
                continue;
            }
        };
        let added = Ports::from_ranges(vec![range]);
        if !ports.intersection(&added).is_empty() {
            check.repeated(item.at, &location, &added.to_string());
        }
        ports = ports.union(&added);
    }
    good.then_some(ports)
}

/// `080` → `80`, `8000 to 8010` → `8000-8010`.
fn near_port(text: &str) -> Option<String> {
    let parts: Vec<&str> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_start_matches('0'))
        .collect();
    let between: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    let known = match parts.len() {
        1 => between.is_empty(),
        2 => matches!(between.trim(), "-" | ":" | ".." | "to" | "–" | "—"),
        _ => false,
    };
    let near = parts.join("-");
    (known && near != text)
        .then(|| Ports::parse_range(&near))?
        .map(|_| near)
}

fn read_exec(check: &mut Check, node: &Node, location: &str, side: Side) -> Vec<ExecEntry> {
    let mut entries: Vec<(String, ExecEntry)> = Vec::new();
    for (location, item) in check.maps(node, location).unwrap_or_default() {
        let Some(fields) = check.map(item, &location, &["command", "args"]) else {
            continue;
        };
        let command = fields
            .require(check, "command")
            .and_then(|(location, node)| read_path(check, node, &location));
        let args = match fields.get("args") {
            Some((location, node)) => read_args(check, node, &location),
            None if side == Side::Deny => Some(ArgPattern::anything()),
            None => Some(ArgPattern::default()),
        };
        if let (Some(command), Some(args)) = (command, args) {
            let entry = ExecEntry {
                at: At(fields.at()),
                command,
                args,
            };
            if let Some((first, _)) = entries.iter().find(|(_, other)| *other == entry) {
                check.report(
                    fields.at(),
                    ProblemCode::DuplicateEntry,
                    &location,
                    format!("this says the same as {first}"),
                );
            }
            entries.push((location, entry));
        }
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn read_args(check: &mut Check, node: &Node, location: &str) -> Option<ArgPattern> {
    let mut args: Vec<&str> = Vec::new();
    let mut good = true;
    for (location, item) in check.list(node, location)? {
        match check.literal(item, &location) {
            Some(text) => args.push(text),
            None => good = false,
        }
    }
    good.then(|| ArgPattern::new(&args))
}

/// Names of environment variables, each once.
pub(crate) fn read_variables(check: &mut Check, node: &Node, location: &str) -> Vec<(String, At)> {
    let mut names: Vec<(String, At)> = Vec::new();
    for (location, item) in check.list(node, location).unwrap_or_default() {
        let Some(text) = check.text(item, &location) else {
            continue;
        };
        if !is_variable(text) {
            invalid_variable(check, item.at, &location, text);
        } else if names.iter().any(|(name, _)| name == text) {
            check.repeated(item.at, &location, text);
        } else {
            names.push((text.to_owned(), At(item.at)));
        }
    }
    names
}

/// Names and patterns of environment variables in a policy.
pub(crate) fn read_variable_patterns(
    check: &mut Check,
    node: &Node,
    location: &str,
) -> Vec<(VariablePattern, At)> {
    let mut patterns: Vec<(VariablePattern, At)> = Vec::new();
    for (location, item) in check.list(node, location).unwrap_or_default() {
        let Some(text) = check.text(item, &location) else {
            continue;
        };
        match VariablePattern::parse(text) {
            None => invalid_variable(check, item.at, &location, text),
            Some(pattern) if patterns.iter().any(|(other, _)| *other == pattern) => {
                check.repeated(item.at, &location, text);
            }
            Some(pattern) => patterns.push((pattern, At(item.at))),
        }
    }
    patterns
}

pub(crate) fn invalid_variable(check: &mut Check, at: Position, location: &str, text: &str) {
    let bare = text.trim_start_matches('$').trim_matches(['{', '}']);
    let near = (bare != text && is_variable(bare)).then(|| bare.to_owned());
    check
        .report(
            at,
            ProblemCode::InvalidVariable,
            location,
            format!(
                "{} is not the name of an environment variable",
                quoted(text)
            ),
        )
        .near(near)
        .help("names have letters, digits and `_`, and no digit first");
}
