//! What a host lets its plugins have at most.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::check::{Check, Fields, is_null};
use crate::entries::{At, Entries, Side, read_variable_patterns};
use crate::manifest::{SCHEMA_VERSION, read_schema, report_name};
use crate::name::{PluginName, VariablePattern};
use crate::problem::{ProblemCode, Problems};
use crate::resources::Resources;
use crate::text::quoted;
use crate::words::{HostService, SandboxMode};
use crate::yaml::{self, Kind, Node};

/// Name under which problems of a policy are shown unless another is given.
pub(crate) const FILE: &str = "policy.yaml";

/// A host's rule for what manifests ask: what is allowed, what is denied, and ceilings, for all
/// plugins and for single ones. Nothing is allowed that no rule allows, and a denial wins over
/// everything that allows.
///
/// ```
/// use outrigger_manifest::{Manifest, Places, Policy};
/// # let manifest = Manifest::parse("
/// # plugin: {name: cat, format: rpc, entrypoint: cat}
/// # handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}
/// # capabilities: {filesystem: [{path: /srv/data/in, permissions: [read, write]}]}
/// # ").unwrap();
/// let policy = Policy::parse("
/// default:
///   allow:
///     filesystem: [{path: /srv/data, permissions: [read, list], recursive: true}]
/// ").unwrap();
/// let places = Places::new("/opt/plugins/cat", "/var/lib/app/cat").unwrap();
/// let decision = policy.decide(&manifest, &places);
/// assert_eq!(decision.granted()[0].text(), "{path: /srv/data/in, permissions: [read]}");
/// assert_eq!(decision.refused()[0].text(), "{path: /srv/data/in, permissions: [write]}");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) default: Section,
    pub(crate) plugins: BTreeMap<PluginName, Section>,
}

/// The rules for all plugins, or for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) sandbox: Option<SandboxMode>,
    pub(crate) jit: Option<bool>,
    pub(crate) resources: Resources,
    pub(crate) allow: Allow,
    pub(crate) deny: Rules,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    /// Whatever a manifest asks.
    Requested,
    Rules(Rules),
}

impl Default for Allow {
    fn default() -> Self {
        Allow::Rules(Rules::default())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) entries: Entries,
    pub(crate) read: Vec<(VariablePattern, At)>,
    pub(crate) set: Vec<(VariablePattern, At)>,
    pub(crate) services: Option<Vec<HostService>>,
}

impl Policy {
    pub(crate) const KEYS: [&'static str; 3] = ["schema", "default", "plugins"];
    pub(crate) const SECTION_KEYS: [&'static str; 5] =
        ["sandbox", "jit", "resources", "allow", "deny"];
    pub(crate) const RULE_KEYS: [&'static str; 5] = [
        "filesystem",
        "network",
        "process",
        "environment",
        "services",
    ];

    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// Every problem of the text at once, sorted by position.
    pub fn parse(text: &str) -> Result<Policy, Problems> {
        let mut check = Check::knowing(home_of);
        let policy =
            yaml::parse(text, &mut check).and_then(|node| check.read_all(&node, read, read_part));
        check.finish(FILE, text, policy)
    }

    /// Reads a policy from the bytes of its file.
    ///
    /// # Errors
    ///
    /// As for [`Policy::parse`]; also that the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Policy, Problems> {
        Policy::parse(crate::check::utf8(FILE, bytes)?)
    }

    /// The policy that grants nothing and wants full confinement.
    #[must_use]
    pub fn allow_nothing() -> Policy {
        Policy::default()
    }

    /// The policy that grants whatever a manifest asks, and confines as little as it asks. For
    /// the development of plugins one trusts.
    #[must_use]
    pub fn allow_requested() -> Policy {
        let default = Section {
            sandbox: Some(SandboxMode::Off),
            jit: Some(true),
            allow: Allow::Requested,
            ..Section::default()
        };
        Policy {
            default,
            plugins: BTreeMap::new(),
        }
    }

    /// The policy as YAML that parses to the same policy.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Serializing to a string has no way to fail with the types of this crate.
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

/// Where a key belongs that stands elsewhere.
fn home_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "sandbox" | "jit" | "resources" | "allow" | "deny" => SECTION,
        "filesystem" | "network" | "process" | "environment" | "services" => RULES,
        "memory" | "cpu" | "pids" | "open_files" | "message_size" | "streams" => "resources",
        "default" | "plugins" => "",
        _ => return None,
    })
}

const SECTION: &str = "default";
const RULES: &str = "allow|deny";

/// Reads keys that stand in the wrong place as what they are under their home.
fn read_part(check: &mut Check, home: &'static str, fields: &Fields<'_>) {
    match home {
        SECTION => drop(read_section_fields(check, fields)),
        RULES => drop(read_rules_fields(check, fields, Side::Allow)),
        "resources" => drop(Resources::read_fields(check, fields)),
        "" => drop(read_root(check, fields)),
        _ => {}
    }
}

pub(crate) fn read(check: &mut Check, node: &Node) -> Option<Policy> {
    let root = check.map(node, "", &Policy::KEYS)?;
    Some(read_root(check, &root))
}

fn read_root(check: &mut Check, root: &Fields<'_>) -> Policy {
    read_schema(check, root);
    let default = match root.get("default") {
        Some((location, node)) => read_section(check, node, &location),
        None => Section::default(),
    };
    let mut plugins = BTreeMap::new();
    if let Some((location, node)) = root.section("plugins") {
        for (key, node) in check.entries(node, &location).unwrap_or_default() {
            let location = crate::check::join(&location, &key.text);
            let name = key.text.parse::<PluginName>();
            if let Err(error) = &name {
                report_name(check, key.at, &location, error);
            }
            let section = read_section(check, node, &location);
            plugins.extend(name.map(|name| (name, section)));
        }
    }
    Policy { default, plugins }
}

fn read_section(check: &mut Check, node: &Node, location: &str) -> Section {
    match check.map(node, location, &Policy::SECTION_KEYS) {
        Some(fields) => read_section_fields(check, &fields),
        None => Section::default(),
    }
}

fn read_section_fields(check: &mut Check, fields: &Fields<'_>) -> Section {
    let sandbox = fields.get("sandbox").and_then(|(location, node)| {
        check.word(node, &location, "a sandbox mode", SandboxMode::WORDS)
    });
    let jit = fields
        .get("jit")
        .and_then(|(location, node)| check.boolean(node, &location));
    let resources = fields
        .get("resources")
        .map(|(location, node)| Resources::read(check, node, &location))
        .unwrap_or_default();
    let allow = match fields.get("allow") {
        None => Allow::default(),
        Some((location, node)) => match &node.kind {
            Kind::Plain(_) | Kind::Text(_) if !is_null(&node.kind) => check
                .word(node, &location, "a way to allow", &[("requested", ())])
                .map_or_else(Allow::default, |()| Allow::Requested),
            _ => Allow::Rules(read_rules(check, node, &location, Side::Allow)),
        },
    };
    let deny = fields
        .get("deny")
        .map(|(location, node)| read_rules(check, node, &location, Side::Deny))
        .unwrap_or_default();
    section_conflicts(check, fields, &allow, &deny);
    Section {
        sandbox,
        jit,
        resources,
        allow,
        deny,
    }
}

fn read_rules(check: &mut Check, node: &Node, location: &str, side: Side) -> Rules {
    match check.map(node, location, &Policy::RULE_KEYS) {
        Some(fields) => read_rules_fields(check, &fields, side),
        None => Rules::default(),
    }
}

fn read_rules_fields(check: &mut Check, fields: &Fields<'_>, side: Side) -> Rules {
    let mut rules = Rules {
        entries: Entries::read(check, fields, side),
        ..Rules::default()
    };
    if let Some((location, node)) = fields.get("environment")
        && let Some(fields) = check.map(node, &location, &["read", "set"])
    {
        if let Some((location, node)) = fields.get("read") {
            rules.read = read_variable_patterns(check, node, &location);
        }
        if let Some((location, node)) = fields.get("set") {
            rules.set = read_variable_patterns(check, node, &location);
        }
    }
    rules.services = fields.get("services").and_then(|(location, node)| {
        check.words(
            node,
            &location,
            "a host service",
            HostService::WORDS,
            side == Side::Allow,
        )
    });
    rules
}

/// What one section allows and denies word for word.
fn section_conflicts(check: &mut Check, fields: &Fields<'_>, allow: &Allow, deny: &Rules) {
    let Allow::Rules(allow) = allow else { return };
    let mut conflict = |at: At, location: String, what: &str| {
        check
            .report(
                at.0,
                ProblemCode::Contradiction,
                &location,
                format!("{} is both allowed and denied here", quoted(what)),
            )
            .help("a denial always wins: keep one of them");
    };
    for (index, entry) in deny.entries.filesystem.iter().enumerate() {
        let same = |other: &&crate::FilesystemEntry| {
            other.path == entry.path
                && other.recursive == entry.recursive
                && entry.access.is_none()
                && entry.permissions.contains(other.permissions)
        };
        if allow.entries.filesystem.iter().any(|other| same(&other)) {
            let location = format!("{}[{index}]", fields.location("deny.filesystem"));
            conflict(entry.at, plain_location(&location), &entry.path.to_string());
        }
    }
    for (list, allowed, denied) in [
        ("read", &allow.read, &deny.read),
        ("set", &allow.set, &deny.set),
    ] {
        for (index, (pattern, at)) in denied.iter().enumerate() {
            if allowed.iter().any(|(other, _)| other == pattern) {
                let location = format!(
                    "{}[{index}]",
                    fields.location(&format!("deny.environment.{list}"))
                );
                conflict(*at, plain_location(&location), &pattern.to_string());
            }
        }
    }
}

/// A key path whose parts are known to be plain words.
fn plain_location(location: &str) -> String {
    location.replace('"', "")
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA_VERSION)?;
        if self.default != Section::default() {
            map.serialize_entry("default", &self.default)?;
        }
        if !self.plugins.is_empty() {
            map.serialize_entry("plugins", &self.plugins)?;
        }
        map.end()
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(sandbox) = self.sandbox {
            map.serialize_entry("sandbox", &sandbox)?;
        }
        if let Some(jit) = self.jit {
            map.serialize_entry("jit", &jit)?;
        }
        if self.resources != Resources::default() {
            map.serialize_entry("resources", &self.resources)?;
        }
        match &self.allow {
            Allow::Requested => map.serialize_entry("allow", "requested")?,
            Allow::Rules(rules) if *rules == Rules::default() => {}
            Allow::Rules(rules) => map.serialize_entry("allow", rules)?,
        }
        if self.deny != Rules::default() {
            map.serialize_entry("deny", &self.deny)?;
        }
        map.end()
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Environment<'r> {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            read: Vec<&'r VariablePattern>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            set: Vec<&'r VariablePattern>,
        }
        let mut map = serializer.serialize_map(None)?;
        self.entries.serialize_into::<S>(&mut map)?;
        if !self.read.is_empty() || !self.set.is_empty() {
            let names = |list: &'_ [(VariablePattern, At)]| {
                list.iter()
                    .map(|(name, _)| name.clone())
                    .collect::<Vec<_>>()
            };
            let (read, set) = (names(&self.read), names(&self.set));
            map.serialize_entry(
                "environment",
                &Environment {
                    read: read.iter().collect(),
                    set: set.iter().collect(),
                },
            )?;
        }
        if let Some(services) = &self.services {
            map.serialize_entry("services", services)?;
        }
        map.end()
    }
}
