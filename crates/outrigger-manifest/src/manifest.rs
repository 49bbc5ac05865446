//! What a plugin declares about itself and asks for.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::check::{Check, Fields};
use crate::entries::{
    At, Entries, ExecEntry, FilesystemEntry, NetworkEntry, Side, invalid_variable, read_variables,
};
use crate::name::{Entrypoint, PluginName, is_variable};
use crate::path::PathBase;
use crate::permissions::Permissions;
use crate::problem::{Position, ProblemCode, Problems};
use crate::resources::Resources;
use crate::text::quoted;
use crate::words::{Access, Direction, Format, HostService, ProcessControl, SandboxMode};
use crate::yaml::{self, Node};

/// The version of the manifest's schema that this crate reads.
pub const SCHEMA_VERSION: u64 = 1;

/// Name under which problems of a manifest are shown unless another is given.
pub(crate) const FILE: &str = "manifest.yaml";

/// Variables by which host and plugin find each other; a manifest must not set them.
pub(crate) const RESERVED_VARIABLES: &[&str] = &[
    "PLUGIN_MIN_PORT",
    "PLUGIN_MAX_PORT",
    "PLUGIN_PROTOCOL_VERSIONS",
    "PLUGIN_CLIENT_CERT",
    "PLUGIN_MULTIPLEX_GRPC",
    "PLUGIN_UNIX_SOCKET_DIR",
    "PLUGIN_UNIX_SOCKET_GROUP",
    "OUTRIGGER_HOST_SERVICES",
];

/// A plugin's manifest. One that exists is valid.
///
/// ```
/// use outrigger_manifest::{Format, Manifest};
///
/// let manifest = Manifest::parse("
/// plugin: {name: cat, type: animal, format: rpc, entrypoint: cat, version: 1.0.0}
/// handshake: {protocol_version: 1, magic_cookie_key: CAT_PLUGIN, magic_cookie_value: meow}
/// capabilities:
///   filesystem:
///     - {path: /etc/hostname, permissions: [read]}
/// ").unwrap();
/// assert_eq!(manifest.name().as_str(), "cat");
/// assert_eq!(manifest.format(), Format::Rpc);
///
/// let problems = Manifest::parse("plugin: {name: cat, format: grcp}").unwrap_err();
/// assert!(problems.iter().any(|problem| problem.near_miss() == Some("grpc")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    name: PluginName,
    kind: Option<String>,
    format: Format,
    entrypoint: Entrypoint,
    language: Option<String>,
    version: Option<semver::Version>,
    about: About,
    handshake: Handshake,
    auto_mtls: Option<bool>,
    pub(crate) capabilities: Capabilities,
    pub(crate) resources: Resources,
    sandbox: SandboxMode,
    jit: bool,
    services: Option<Vec<HostService>>,
    pub(crate) positions: Positions,
}

/// Where the parts that a policy judges stand in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    pub(crate) resources: At,
    pub(crate) sandbox: At,
    pub(crate) jit: At,
    pub(crate) services: At,
}

impl PartialEq for Positions {
    fn eq(&self, _: &Positions) -> bool {
        true
    }
}

impl Eq for Positions {}

/// What people read about a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintainer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl About {
    /// What the plugin is for.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Who looks after it.
    #[must_use]
    pub fn maintainer(&self) -> Option<&str> {
        self.maintainer.as_deref()
    }

    /// Where to read more.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

/// What host and plugin must agree on before they talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handshake {
    protocol_version: u32,
    magic_cookie_key: String,
    magic_cookie_value: String,
}

impl Handshake {
    /// Version of the plugin's interfaces.
    #[must_use]
    pub fn protocol_version(&self) -> u32 {
        self.protocol_version
    }

    /// Environment variable that carries the magic cookie.
    #[must_use]
    pub fn magic_cookie_key(&self) -> &str {
        &self.magic_cookie_key
    }

    /// The magic cookie.
    #[must_use]
    pub fn magic_cookie_value(&self) -> &str {
        &self.magic_cookie_value
    }
}

/// What a manifest asks for. What is not here is not asked for, and so never granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub(crate) entries: Entries,
    pub(crate) read: Vec<(String, At)>,
    pub(crate) set: Vec<(String, String, At)>,
}

impl Capabilities {
    /// Parts of the file tree.
    #[must_use]
    pub fn filesystem(&self) -> &[FilesystemEntry] {
        &self.entries.filesystem
    }

    /// Connections to open.
    #[must_use]
    pub fn egress(&self) -> &[NetworkEntry] {
        &self.entries.egress
    }

    /// Connections to accept.
    #[must_use]
    pub fn ingress(&self) -> &[NetworkEntry] {
        &self.entries.ingress
    }

    /// Commands to run.
    #[must_use]
    pub fn exec(&self) -> &[ExecEntry] {
        &self.entries.exec
    }

    /// Whether control of this kind over the plugin's own children is asked for.
    #[must_use]
    pub fn controls_children(&self, control: ProcessControl) -> bool {
        self.entries.controls(control).is_some()
    }

    /// Names of the host's environment variables to read.
    pub fn environment_names(&self) -> impl Iterator<Item = &str> {
        self.read.iter().map(|(name, _)| name.as_str())
    }

    /// Variables that the plugin wants in its own environment.
    pub fn environment_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set
            .iter()
            .map(|(name, value, _)| (name.as_str(), value.as_str()))
    }

    /// Whether a capability is asked for that this service gives, or none is needed for it.
    fn imply(&self, service: HostService) -> bool {
        match service {
            HostService::Filesystem => !self.entries.filesystem.is_empty(),
            HostService::Environment => !self.read.is_empty(),
            HostService::Process => {
                !self.entries.exec.is_empty() || !self.entries.control.is_empty()
            }
            HostService::Network => {
                !self.entries.egress.is_empty() || !self.entries.ingress.is_empty()
            }
            HostService::Clock | HostService::Log => true,
        }
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Capabilities::default()
    }
}

impl Manifest {
    pub(crate) const KEYS: [&'static str; 10] = [
        "schema",
        "plugin",
        "about",
        "handshake",
        "security",
        "capabilities",
        "resources",
        "sandbox",
        "jit",
        "services",
    ];
    pub(crate) const PLUGIN_KEYS: [&'static str; 6] = [
        "name",
        "type",
        "format",
        "entrypoint",
        "language",
        "version",
    ];
    pub(crate) const ABOUT_KEYS: [&'static str; 3] = ["description", "maintainer", "url"];
    pub(crate) const HANDSHAKE_KEYS: [&'static str; 3] =
        ["protocol_version", "magic_cookie_key", "magic_cookie_value"];

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// Every problem of the text at once, sorted by position.
    pub fn parse(text: &str) -> Result<Manifest, Problems> {
        let mut check = Check::knowing(home_of);
        let manifest =
            yaml::parse(text, &mut check).and_then(|node| check.read_all(&node, read, read_part));
        check.finish(FILE, text, manifest)
    }

    /// Reads a manifest from the bytes of its file.
    ///
    /// # Errors
    ///
    /// As for [`Manifest::parse`]; also that the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Manifest, Problems> {
        Manifest::parse(crate::check::utf8(FILE, bytes)?)
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// What kind of plugin it is, in the application's own words.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Which RPC it speaks.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its program.
    #[must_use]
    pub fn entrypoint(&self) -> &Entrypoint {
        &self.entrypoint
    }

    /// The language it is written in.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Option<&semver::Version> {
        self.version.as_ref()
    }

    /// What people read about it.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What host and plugin must agree on.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Whether it wants one-time certificates; `None` leaves that to the host.
    #[must_use]
    pub fn auto_mtls(&self) -> Option<bool> {
        self.auto_mtls
    }

    /// What it asks for.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How much it wants to use at most.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// How strictly it wants to be confined.
    #[must_use]
    pub fn sandbox(&self) -> SandboxMode {
        self.sandbox
    }

    /// Whether it makes machine code while it runs.
    #[must_use]
    pub fn jit(&self) -> bool {
        self.jit
    }

    /// The host services it wants. When the manifest does not say: those of the capabilities it
    /// asks for, and the two that carry no authority, `clock` and `log`.
    #[must_use]
    pub fn services(&self) -> Vec<HostService> {
        if let Some(services) = &self.services {
            return services.clone();
        }
        HostService::ALL
            .iter()
            .copied()
            .filter(|service| self.capabilities.imply(*service))
            .collect()
    }

    /// Whether the manifest itself says which services it wants.
    pub(crate) fn names_services(&self) -> bool {
        self.services.is_some()
    }

    /// The manifest as YAML that parses to the same manifest.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Serializing to a string has no way to fail with the types of this crate.
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

/// Where a key belongs that stands elsewhere.
fn home_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "filesystem" | "network" | "process" | "environment" => "capabilities",
        "egress" | "ingress" => "capabilities.network",
        "exec" | "kill" | "list" | "signal" => "capabilities.process",
        "name" | "type" | "format" | "entrypoint" | "language" | "version" => "plugin",
        "protocol_version" | "magic_cookie_key" | "magic_cookie_value" => "handshake",
        "auto_mtls" => "security",
        "description" | "maintainer" | "url" => "about",
        "memory" | "cpu" | "pids" | "open_files" | "message_size" | "streams" => "resources",
        "sandbox" | "jit" | "services" | "resources" | "plugin" | "about" | "handshake"
        | "security" | "capabilities" => "",
        _ => return None,
    })
}

/// Reads keys that stand in the wrong place as what they are under their home.
fn read_part(check: &mut Check, home: &'static str, fields: &Fields<'_>) {
    match home {
        "" => drop(read_root(check, fields)),
        "plugin" => drop(read_plugin(check, fields)),
        "about" => drop(read_about(check, fields)),
        "handshake" => drop(read_handshake(check, fields)),
        "security" => drop(read_security(check, fields)),
        "capabilities" => drop(read_capabilities(check, fields)),
        "capabilities.network" | "capabilities.process" => {
            crate::entries::read_part(check, fields, Side::Request);
        }
        "resources" => drop(Resources::read_fields(check, fields)),
        _ => {}
    }
}

pub(crate) fn read(check: &mut Check, node: &Node) -> Option<Manifest> {
    let root = check.map(node, "", &Manifest::KEYS)?;
    read_root(check, &root)
}

fn read_security(check: &mut Check, fields: &Fields<'_>) -> Option<bool> {
    let (location, node) = fields.get("auto_mtls")?;
    check.boolean(node, &location)
}

fn read_root(check: &mut Check, root: &Fields<'_>) -> Option<Manifest> {
    read_schema(check, root);
    let plugin = root.require(check, "plugin").and_then(|(location, node)| {
        let fields = check.map(node, &location, &Manifest::PLUGIN_KEYS)?;
        read_plugin(check, &fields)
    });
    let about = match root.section("about") {
        Some((location, node)) => check
            .map(node, &location, &Manifest::ABOUT_KEYS)
            .map(|fields| read_about(check, &fields)),
        None => Some(About::default()),
    };
    let handshake = root
        .require(check, "handshake")
        .and_then(|(location, node)| {
            let fields = check.map(node, &location, &Manifest::HANDSHAKE_KEYS)?;
            read_handshake(check, &fields)
        });
    let auto_mtls = root.section("security").and_then(|(location, node)| {
        let fields = check.map(node, &location, &["auto_mtls"])?;
        read_security(check, &fields)
    });
    let capabilities = root.section("capabilities").map(|(location, node)| {
        let known = ["filesystem", "network", "process", "environment"];
        match check.map(node, &location, &known) {
            Some(fields) => read_capabilities(check, &fields),
            None => Capabilities::default(),
        }
    });
    let resources = root
        .section("resources")
        .map(|(location, node)| Resources::read(check, node, &location));
    let sandbox = root
        .get("sandbox")
        .map(|(location, node)| check.word(node, &location, "a sandbox mode", SandboxMode::WORDS));
    let jit = root
        .get("jit")
        .map(|(location, node)| check.boolean(node, &location));
    let before = check.count();
    let services = root.get("services").map(|(location, node)| {
        check.words(node, &location, "a host service", HostService::WORDS, true)
    });
    let services_understood = check.count() == before;
    let positions = Positions {
        resources: At(root.position("resources")),
        sandbox: At(root.position("sandbox")),
        jit: At(root.position("jit")),
        services: At(root.position("services")),
    };
    let capabilities = capabilities.unwrap_or_default();
    let services = services.flatten();
    if let Some(handshake) = &handshake {
        check_cookie(check, &capabilities, handshake);
    }
    if let Some((_, _, _, entrypoint, ..)) = &plugin {
        check_program(check, &capabilities, entrypoint);
    }
    // One that could not be read may be the one that is missing.
    if let Some(services) = &services
        && services_understood
    {
        check_services(check, &capabilities, services, positions.services);
    }
    let (name, kind, format, entrypoint, language, version) = plugin?;
    Some(Manifest {
        name,
        kind,
        format,
        entrypoint,
        language,
        version,
        about: about?,
        handshake: handshake?,
        auto_mtls,
        capabilities,
        resources: resources.unwrap_or_default(),
        sandbox: sandbox.flatten().unwrap_or(SandboxMode::Require),
        jit: jit.flatten().unwrap_or(false),
        services,
        positions,
    })
}

pub(crate) fn read_schema(check: &mut Check, root: &Fields<'_>) {
    let Some((location, node)) = root.get("schema") else {
        return;
    };
    if let Some(version) = check.integer(node, &location, 1..=u64::from(u32::MAX))
        && version != SCHEMA_VERSION
    {
        check
            .report(
                node.at,
                ProblemCode::UnsupportedSchema,
                &location,
                format!("this is written for schema {version}; {SCHEMA_VERSION} is read here"),
            )
            .help("update the host, or write it for the schema that is read");
    }
}

type PluginSection = (
    PluginName,
    Option<String>,
    Format,
    Entrypoint,
    Option<String>,
    Option<semver::Version>,
);

fn read_plugin(check: &mut Check, fields: &Fields<'_>) -> Option<PluginSection> {
    let name = fields.require(check, "name").and_then(|(location, node)| {
        let text = check.text(node, &location)?;
        text.parse::<PluginName>()
            .map_err(|error| report_name(check, node.at, &location, &error))
            .ok()
    });
    let format = fields
        .require(check, "format")
        .and_then(|(location, node)| check.word(node, &location, "a format", Format::WORDS));
    let entrypoint = fields
        .require(check, "entrypoint")
        .and_then(|(location, node)| {
            let text = check.text(node, &location)?;
            match Entrypoint::parse(text) {
                Ok(entrypoint) => Some(entrypoint),
                Err(why) => {
                    check
                        .report(
                            node.at,
                            ProblemCode::InvalidEntrypoint,
                            &location,
                            format!("{} {why}", quoted(text)),
                        )
                        .near(near_entrypoint(text));
                    None
                }
            }
        });
    let kind = read_label(check, fields, "type");
    let language = read_label(check, fields, "language");
    let version = fields.get("version").and_then(|(location, node)| {
        let text = check.literal(node, &location)?;
        match semver::Version::parse(text) {
            Ok(version) => Some(version),
            Err(error) => {
                check
                    .report(
                        node.at,
                        ProblemCode::InvalidVersion,
                        &location,
                        format!("{} is not a semantic version: {error}", quoted(text)),
                    )
                    .near(near_version(text));
                None
            }
        }
    });
    Some((name?, kind, format?, entrypoint?, language, version))
}

pub(crate) fn report_name(
    check: &mut Check,
    at: Position,
    location: &str,
    error: &crate::name::PluginNameError,
) {
    check
        .report(at, ProblemCode::InvalidName, location, error.to_string())
        .near(error.near_miss())
        .help("names have 1 to 64 of a-z, 0-9, `-`, `_` and `.`, begin with a letter and end with a letter or digit");
}

fn read_label(check: &mut Check, fields: &Fields<'_>, key: &str) -> Option<String> {
    let (location, node) = fields.get(key)?;
    let text = check.text(node, &location)?;
    if text.is_empty() {
        check.report(
            node.at,
            ProblemCode::EmptyValue,
            &location,
            "the text is empty",
        );
    }
    Some(text.to_owned())
}

/// `${plugin_dir}/bin/cat` → `bin/cat`.
fn near_entrypoint(text: &str) -> Option<String> {
    let bare = text.trim().replace('\\', "/");
    let bare = bare.strip_prefix("${plugin_dir}/").unwrap_or(&bare);
    (bare != text)
        .then(|| Entrypoint::parse(bare).ok())?
        .map(|entrypoint| entrypoint.as_str().to_owned())
}

/// `v1.2` → `1.2.0`.
fn near_version(text: &str) -> Option<String> {
    let bare = text.trim().trim_start_matches(['v', 'V']);
    let padded = match bare.split('.').count() {
        1 => format!("{bare}.0.0"),
        2 => format!("{bare}.0"),
        _ => bare.to_owned(),
    };
    semver::Version::parse(&padded)
        .ok()
        .map(|version| version.to_string())
}

fn read_about(check: &mut Check, fields: &Fields<'_>) -> About {
    let mut text = |key: &str| {
        // A person's line left blank is as good as none.
        let (location, node) = fields.section(key)?;
        check.prose(node, &location).map(str::to_owned)
    };
    About {
        description: text("description"),
        maintainer: text("maintainer"),
        url: text("url"),
    }
}

fn read_handshake(check: &mut Check, fields: &Fields<'_>) -> Option<Handshake> {
    let version = fields
        .require(check, "protocol_version")
        .and_then(|(location, node)| check.integer(node, &location, 0..=u64::from(u32::MAX)));
    let key = fields
        .require(check, "magic_cookie_key")
        .and_then(|(location, node)| {
            let text = check.text(node, &location)?;
            if !is_variable(text) {
                invalid_variable(check, node.at, &location, text);
                return None;
            }
            if RESERVED_VARIABLES.contains(&text) {
                reserved(check, node.at, &location, text);
            }
            Some(text.to_owned())
        });
    let value = fields
        .require(check, "magic_cookie_value")
        .and_then(|(location, node)| {
            let text = check.literal(node, &location)?;
            if text.is_empty() {
                check.report(
                    node.at,
                    ProblemCode::EmptyValue,
                    &location,
                    "the magic cookie is empty",
                );
                return None;
            }
            Some(text.to_owned())
        });
    Some(Handshake {
        protocol_version: u32::try_from(version?).ok()?,
        magic_cookie_key: key?,
        magic_cookie_value: value?,
    })
}

fn reserved(check: &mut Check, at: Position, location: &str, name: &str) {
    check
        .report(
            at,
            ProblemCode::ReservedVariable,
            location,
            format!(
                "{} is set by the host for its own talk with the plugin",
                quoted(name)
            ),
        )
        .help("choose another name");
}

fn read_capabilities(check: &mut Check, fields: &Fields<'_>) -> Capabilities {
    let mut capabilities = Capabilities {
        entries: Entries::read(check, fields, Side::Request),
        ..Capabilities::default()
    };
    let Some((location, node)) = fields.section("environment") else {
        return capabilities;
    };
    let Some(fields) = check.map(node, &location, &["read", "set"]) else {
        return capabilities;
    };
    if let Some((location, node)) = fields.section("read") {
        capabilities.read = read_variables(check, node, &location);
    }
    if let Some((location, node)) = fields.section("set") {
        capabilities.set = read_values(check, node, &location);
    }
    for (name, _, at) in &capabilities.set {
        if capabilities.read.iter().any(|(read, _)| read == name) {
            check
                .report(
                    at.0,
                    ProblemCode::Contradiction,
                    &crate::check::join(&fields.location("set"), name),
                    format!(
                        "{} is also among the names to read from the host",
                        quoted(name)
                    ),
                )
                .help("either read the host's value or set one");
        }
    }
    capabilities
}

fn read_values(check: &mut Check, node: &Node, location: &str) -> Vec<(String, String, At)> {
    let mut values = Vec::new();
    for (key, node) in check.entries(node, location).unwrap_or_default() {
        let location = crate::check::join(location, &key.text);
        if !is_variable(&key.text) {
            invalid_variable(check, key.at, &location, &key.text);
            continue;
        }
        if RESERVED_VARIABLES.contains(&key.text.as_str()) {
            reserved(check, key.at, &location, &key.text);
        }
        if let Some(value) = check.literal(node, &location) {
            values.push((key.text.clone(), value.to_owned(), At(key.at)));
        }
    }
    values
}

fn check_cookie(check: &mut Check, asked: &Capabilities, handshake: &Handshake) {
    let cookie = handshake.magic_cookie_key.as_str();
    if let Some((name, _, at)) = asked.set.iter().find(|(name, ..)| name == cookie) {
        let location = format!("capabilities.environment.set.{name}");
        reserved(check, at.0, &location, name);
    }
}

fn check_program(check: &mut Check, asked: &Capabilities, entrypoint: &Entrypoint) {
    for (index, entry) in asked.entries.filesystem.iter().enumerate() {
        let is_program =
            entry.path.base() == PathBase::PluginDir && entry.path.rest() == entrypoint.as_str();
        let of_directories = Permissions::LIST | Permissions::CREATE;
        if is_program && (entry.recursive || !(entry.permissions & of_directories).is_empty()) {
            let path = quoted(&entry.path.to_string());
            check
                .report(
                    entry.at.0,
                    ProblemCode::NotADirectory,
                    &format!("capabilities.filesystem[{index}]"),
                    format!("{path} is the plugin's program, not a directory"),
                )
                .help("leave out `recursive`, `list` and `create`");
        }
    }
}

fn check_services(check: &mut Check, asked: &Capabilities, services: &[HostService], at: At) {
    let direct = |entry: &FilesystemEntry| entry.access() == Access::Direct;
    for service in HostService::ALL {
        let needed = match service {
            HostService::Filesystem => !asked.entries.filesystem.iter().all(direct),
            HostService::Environment | HostService::Process | HostService::Network => {
                asked.imply(*service)
            }
            HostService::Clock | HostService::Log => false,
        };
        if needed && !services.contains(service) {
            check
                .report(
                    at.0,
                    ProblemCode::Contradiction,
                    "services",
                    format!(
                        "the capability `{service}` is asked for, but not the service that gives it"
                    ),
                )
                .help(format!(
                    "add `{service}` to the services, or drop the capability"
                ));
        }
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Plugin<'m> {
            name: &'m PluginName,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            kind: Option<&'m str>,
            format: Format,
            entrypoint: &'m Entrypoint,
            #[serde(skip_serializing_if = "Option::is_none")]
            language: Option<&'m str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<String>,
        }
        #[derive(Serialize)]
        struct Security {
            auto_mtls: bool,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA_VERSION)?;
        map.serialize_entry(
            "plugin",
            &Plugin {
                name: &self.name,
                kind: self.kind(),
                format: self.format,
                entrypoint: &self.entrypoint,
                language: self.language(),
                version: self.version.as_ref().map(ToString::to_string),
            },
        )?;
        if self.about != About::default() {
            map.serialize_entry("about", &self.about)?;
        }
        map.serialize_entry("handshake", &self.handshake)?;
        if let Some(auto_mtls) = self.auto_mtls {
            map.serialize_entry("security", &Security { auto_mtls })?;
        }
        if !self.capabilities.is_empty() {
            map.serialize_entry("capabilities", &self.capabilities)?;
        }
        if self.resources != Resources::default() {
            map.serialize_entry("resources", &self.resources)?;
        }
        map.serialize_entry("sandbox", &self.sandbox)?;
        map.serialize_entry("jit", &self.jit)?;
        if let Some(services) = &self.services {
            map.serialize_entry("services", services)?;
        }
        map.end()
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Set<'c>(&'c [(String, String, At)]);
        impl Serialize for Set<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value, _)| (name, value)))
            }
        }
        #[derive(Serialize)]
        struct Environment<'c> {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            read: Vec<&'c str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            set: Option<Set<'c>>,
        }
        let mut map = serializer.serialize_map(None)?;
        self.entries.serialize_into::<S>(&mut map)?;
        if !self.read.is_empty() || !self.set.is_empty() {
            let environment = Environment {
                read: self.environment_names().collect(),
                set: (!self.set.is_empty()).then_some(Set(&self.set)),
            };
            map.serialize_entry("environment", &environment)?;
        }
        map.end()
    }
}

impl Entries {
    /// The sections that are not empty, as a manifest and a policy spell them.
    pub(crate) fn serialize_into<S: Serializer>(
        &self,
        map: &mut S::SerializeMap,
    ) -> Result<(), S::Error> {
        #[derive(Serialize)]
        struct Network<'e> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            egress: &'e [NetworkEntry],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            ingress: &'e [NetworkEntry],
        }
        #[derive(Serialize)]
        struct Process<'e> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            exec: &'e [ExecEntry],
            #[serde(skip_serializing_if = "Option::is_none")]
            kill: Option<[&'static str; 1]>,
            #[serde(skip_serializing_if = "Option::is_none")]
            list: Option<[&'static str; 1]>,
            #[serde(skip_serializing_if = "Option::is_none")]
            signal: Option<[&'static str; 1]>,
        }
        if !self.filesystem.is_empty() {
            map.serialize_entry("filesystem", &self.filesystem)?;
        }
        let network = Network {
            egress: self.network(Direction::Egress),
            ingress: self.network(Direction::Ingress),
        };
        if !network.egress.is_empty() || !network.ingress.is_empty() {
            map.serialize_entry("network", &network)?;
        }
        let control = |control| self.controls(control).map(|_| ["children"]);
        if !self.exec.is_empty() || !self.control.is_empty() {
            map.serialize_entry(
                "process",
                &Process {
                    exec: &self.exec,
                    kill: control(ProcessControl::Kill),
                    list: control(ProcessControl::List),
                    signal: control(ProcessControl::Signal),
                },
            )?;
        }
        Ok(())
    }
}
