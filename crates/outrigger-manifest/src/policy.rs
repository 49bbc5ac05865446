//! What a host lets its plugins have at most.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::check::{Check, Fields, Home, Side};
use crate::choices::SandboxMode;
use crate::entries::environment::Ruled;
use crate::entries::{At, FILESYSTEM, FilesystemEntry, Lists, NETWORK, PROCESS, print};
use crate::keys::{Group, Key, Presence, Section as Keys, Shape, home};
use crate::manifest::{SCHEMA, SCHEMA_VERSION};
use crate::message::quoted;
use crate::name::{ByName, PluginName};
use crate::problem::{ProblemCode, Problems};
use crate::resources::Resources;
use crate::services::Services;
use crate::shapes::{Bool, Word};
use crate::tree::{Kind, Node, is_null};
use crate::yaml;

pub(crate) static DEFAULT: Key<Referenced> = Key::optional("default", "rules for every plugin");
pub(crate) static PLUGINS: Key<ByName<Referenced>> = Key::new(
    "plugins",
    Presence::MayBeEmpty,
    "rules for single plugins, beside the defaults",
);
pub(crate) static POLICY: Keys = Keys {
    about: "",
    keys: &[&SCHEMA, &DEFAULT, &PLUGINS],
};

pub(crate) static SANDBOX: Key<Word<SandboxMode>> =
    Key::optional("sandbox", "the least strict mode that is granted").default("`require`");
pub(crate) static JIT: Key<Bool> =
    Key::optional("jit", "whether machine code may be made").default("`false`");
pub(crate) static RESOURCES: Key<Resources> =
    Key::optional("resources", "the most that is granted").default("no limit of the policy's");
pub(crate) static ALLOW: Key<AllowRules> = Key::optional(
    "allow",
    "what may be granted; `requested` is whatever the manifest asks",
)
.default("no rules");
pub(crate) static DENY: Key<DenyRules> =
    Key::optional("deny", "what is never granted, whatever allows it").default("no rules");
pub(crate) static SECTION: Keys = Keys {
    about: "rules for plugins",
    keys: &[&SANDBOX, &JIT, &RESOURCES, &ALLOW, &DENY],
};

pub(crate) static ENVIRONMENT: Key<Ruled> = Key::optional(
    "environment",
    "names of variables, with a `*` at the end for all that begin so",
);
pub(crate) static SERVICES: Key<Services> = Key::optional(
    "services",
    "services of the host, and of the application by their names",
)
.default("those of the capabilities that have any rule, `clock` and `log`")
.denied_default("none");
pub(crate) static RULES: Keys = Keys {
    about: "",
    keys: &[&FILESYSTEM, &NETWORK, &PROCESS, &ENVIRONMENT, &SERVICES],
};

/// Where the keys of a policy belong.
const HOMES: &[Home] = &[
    home::<Policy>(""),
    home::<Section>("default"),
    home::<PolicyEntries>("allow|deny"),
    home::<Resources>("resources"),
];

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
/// assert_eq!(decision.granted()[0].text, "{path: /srv/data/in, permissions: [read]}");
/// assert_eq!(decision.refused()[0].text, "{path: /srv/data/in, permissions: [write]}");
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
    pub(crate) deny: PolicyEntries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    /// Whatever a manifest asks.
    Requested,
    Rules(Box<PolicyEntries>),
}

impl Default for Allow {
    fn default() -> Self {
        Allow::Rules(Box::default())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyEntries {
    pub(crate) lists: Lists,
    pub(crate) environment: Ruled,
    pub(crate) services: Option<Services>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// Every problem of the text at once, sorted by position.
    pub fn parse(text: &str) -> Result<Policy, Problems> {
        let mut check = Check::of(Side::Allow, HOMES);
        let policy =
            yaml::parse(text, &mut check).and_then(|node| check.read_all(&node, Policy::read));
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

    pub(crate) fn read(check: &mut Check, node: &Node) -> Option<Policy> {
        <Policy as Shape>::read(check, node, "")
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

impl Group for Policy {
    fn section() -> &'static Keys {
        &POLICY
    }

    fn from_fields(check: &mut Check, root: &Fields<'_>) -> Option<Policy> {
        SCHEMA.read(check, root);
        Some(Policy {
            default: DEFAULT.read(check, root).unwrap_or_default(),
            plugins: PLUGINS.read(check, root).unwrap_or_default(),
        })
    }
}

impl Group for Section {
    fn section() -> &'static Keys {
        &SECTION
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Section> {
        let section = Section {
            sandbox: SANDBOX.read(check, fields),
            jit: JIT.read(check, fields),
            resources: RESOURCES.read(check, fields).unwrap_or_default(),
            allow: ALLOW.read(check, fields).unwrap_or_default(),
            deny: DENY.read(check, fields).unwrap_or_default(),
        };
        section_conflicts(check, fields, &section.allow, &section.deny);
        Some(section)
    }
}

impl Group for PolicyEntries {
    fn section() -> &'static Keys {
        &RULES
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<PolicyEntries> {
        Some(PolicyEntries {
            lists: Lists::read(check, fields),
            environment: ENVIRONMENT.read(check, fields).unwrap_or_default(),
            services: SERVICES.read(check, fields),
        })
    }
}

/// A section, which the schema defines once for all places where one may stand.
pub(crate) struct Referenced;

impl Shape for Referenced {
    type Value = Section;

    fn kind(side: Side) -> String {
        <Section as Shape>::kind(side)
    }

    fn schema(_: Side) -> Value {
        json!({"$ref": "#/$defs/section"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Section> {
        <Section as Shape>::read(check, node, location)
    }
}

/// Rules that allow, or the word that allows everything.
pub(crate) struct AllowRules;

impl Shape for AllowRules {
    type Value = Allow;

    fn kind(_: Side) -> String {
        "`requested`, or rules".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"oneOf": [
            {"const": "requested", "description": "Whatever a manifest asks."},
            <PolicyEntries as Shape>::schema(Side::Allow),
        ]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Allow> {
        match &node.kind {
            Kind::Plain(_) | Kind::Text(_) if !is_null(&node.kind) => {
                check.word(node, location, "a way to allow", &[("requested", ())])?;
                Some(Allow::Requested)
            }
            _ => {
                let rules = <PolicyEntries as Shape>::read(check, node, location);
                rules.map(Box::new).map(Allow::Rules)
            }
        }
    }
}

/// Rules that deny.
pub(crate) struct DenyRules;

impl Shape for DenyRules {
    type Value = PolicyEntries;

    fn kind(_: Side) -> String {
        "rules".to_owned()
    }

    fn schema(_: Side) -> Value {
        <PolicyEntries as Shape>::schema(Side::Deny)
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<PolicyEntries> {
        let side = std::mem::replace(&mut check.side, Side::Deny);
        let rules = <PolicyEntries as Shape>::read(check, node, location);
        check.side = side;
        rules
    }
}

/// What one section allows and denies word for word.
fn section_conflicts(check: &mut Check, fields: &Fields<'_>, allow: &Allow, deny: &PolicyEntries) {
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
    for (index, entry) in deny.lists.filesystem.iter().enumerate() {
        let same = |other: &&FilesystemEntry| {
            other.path == entry.path
                && other.recursive == entry.recursive
                && entry.access.is_none()
                && entry.permissions.contains(other.permissions)
        };
        if allow.lists.filesystem.iter().any(|other| same(&other)) {
            let location = format!("{}[{index}]", fields.location("deny.filesystem"));
            conflict(entry.at, plain_location(&location), &entry.path.to_string());
        }
    }
    for (list, allowed, denied) in [
        ("read", &allow.environment.read, &deny.environment.read),
        ("set", &allow.environment.set, &deny.environment.set),
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
        map.serialize_entry(SCHEMA.name, &SCHEMA_VERSION)?;
        print(&mut map, DEFAULT.name, &self.default)?;
        print(&mut map, PLUGINS.name, &self.plugins)?;
        map.end()
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(sandbox) = self.sandbox {
            map.serialize_entry(SANDBOX.name, &sandbox)?;
        }
        if let Some(jit) = self.jit {
            map.serialize_entry(JIT.name, &jit)?;
        }
        print(&mut map, RESOURCES.name, &self.resources)?;
        match &self.allow {
            Allow::Requested => map.serialize_entry(ALLOW.name, "requested")?,
            Allow::Rules(rules) => print(&mut map, ALLOW.name, &**rules)?,
        }
        print(&mut map, DENY.name, &self.deny)?;
        map.end()
    }
}

impl Serialize for PolicyEntries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.lists.print::<S>(&mut map)?;
        print(&mut map, ENVIRONMENT.name, &self.environment)?;
        if let Some(services) = &self.services {
            map.serialize_entry(SERVICES.name, services)?;
        }
        map.end()
    }
}
