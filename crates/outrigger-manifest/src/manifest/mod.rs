//! What a plugin declares about itself and asks for.

mod sections;

use outrigger_wire::Transport;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

pub(crate) use sections::*;
pub use sections::{About, Handshake};

use crate::check::{Check, Fields, Home, Side};
use crate::choices::{Access, HostService, SandboxMode};
use crate::entries::environment::reserved;
use crate::entries::{At, FilesystemEntry, Networks, Processes, print};
use crate::keys::{Group, Key, Presence, Section, Shape, home};
use crate::message::quoted;
use crate::name::{Entrypoint, PluginName};
use crate::path::PathBase;
use crate::permissions::Permissions;
use crate::problem::{ProblemCode, Problems};
pub(crate) use crate::requests::{CAPABILITIES, ENVIRONMENT};
use crate::requests::{Capabilities, Positions, Requests};
use crate::resources::Resources;
use crate::services::{ServiceName, Services};
use crate::shapes::{Bool, Word};
use crate::tree::Node;
use crate::yaml;

/// The version of the manifest's schema that this crate reads.
pub const SCHEMA_VERSION: u64 = 1;

/// Name under which problems of a manifest are shown unless another is given.
pub(crate) const FILE: &str = "manifest.yaml";

pub(crate) static SCHEMA: Key<SchemaVersion> =
    Key::optional("schema", "version of this file's shape").default("`1`");
pub(crate) static PLUGIN_KEY: Key<Plugin> = Key::required("plugin", PLUGIN.about);
pub(crate) static ABOUT_KEY: Key<About> = Key::new("about", Presence::MayBeEmpty, ABOUT.about);
pub(crate) static HANDSHAKE_KEY: Key<Handshake> = Key::required("handshake", HANDSHAKE.about);
pub(crate) static SECURITY_KEY: Key<Security> =
    Key::new("security", Presence::MayBeEmpty, SECURITY.about);
pub(crate) static CAPABILITIES_KEY: Key<Capabilities> =
    Key::new("capabilities", Presence::MayBeEmpty, CAPABILITIES.about);
pub(crate) static RESOURCES_KEY: Key<Resources> = Key::new(
    "resources",
    Presence::MayBeEmpty,
    "how much it wants to use at most",
);
pub(crate) static SANDBOX: Key<Word<SandboxMode>> = Key::optional(
    "sandbox",
    "not confined; as far as this machine can, saying what is missing; start only fully confined",
)
.default("`require`");
pub(crate) static JIT: Key<Bool> =
    Key::optional("jit", "whether the plugin makes machine code while it runs").default("`false`");
pub(crate) static SERVICES: Key<Services> = Key::optional(
    "services",
    "the services it wants: the host's, and the application's own by their names",
)
.default("those of the capabilities asked for, `clock` and `log`");
pub(crate) static MANIFEST: Section = Section {
    about: "",
    keys: &[
        &SCHEMA,
        &PLUGIN_KEY,
        &ABOUT_KEY,
        &HANDSHAKE_KEY,
        &SECURITY_KEY,
        &CAPABILITIES_KEY,
        &RESOURCES_KEY,
        &SANDBOX,
        &JIT,
        &SERVICES,
    ],
};

/// Where the keys of a manifest belong.
const HOMES: &[Home] = &[
    home::<Manifest>(""),
    home::<Plugin>("plugin"),
    home::<About>("about"),
    home::<Handshake>("handshake"),
    home::<Security>("security"),
    home::<Capabilities>("capabilities"),
    home::<Networks>("capabilities.network"),
    home::<Processes>("capabilities.process"),
    home::<Resources>("resources"),
];

/// A plugin's manifest. One that exists is valid.
///
/// ```
/// use outrigger_manifest::{Manifest, Transport};
///
/// let manifest = Manifest::parse("
/// plugin: {name: cat, type: animal, format: rpc, entrypoint: cat, version: 1.0.0}
/// handshake: {protocol_version: 1, magic_cookie_key: CAT_PLUGIN, magic_cookie_value: meow}
/// capabilities:
///   filesystem:
///     - {path: /etc/hostname, permissions: [read]}
/// ").unwrap();
/// assert_eq!(manifest.name().as_str(), "cat");
/// assert_eq!(manifest.transport(), Transport::NetRpc);
///
/// let problems = Manifest::parse("plugin: {name: cat, format: grcp}").unwrap_err();
/// assert!(problems.iter().any(|problem| problem.near_miss() == Some("grpc")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    plugin: Plugin,
    about: About,
    handshake: Handshake,
    security: Security,
    requests: Requests,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// Every problem of the text at once, sorted by position.
    pub fn parse(text: &str) -> Result<Manifest, Problems> {
        let mut check = Check::of(Side::Request, HOMES);
        let manifest =
            yaml::parse(text, &mut check).and_then(|node| check.read_all(&node, Manifest::read));
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

    pub(crate) fn read(check: &mut Check, node: &Node) -> Option<Manifest> {
        <Manifest as Shape>::read(check, node, "")
    }

    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.plugin.name
    }

    /// What kind of plugin it is, in the application's own words.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.plugin.kind.as_deref()
    }

    /// Which RPC it speaks.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.plugin.transport
    }

    /// Its program.
    #[must_use]
    pub fn entrypoint(&self) -> &Entrypoint {
        &self.plugin.entrypoint
    }

    /// The language it is written in.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.plugin.language.as_deref()
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Option<&semver::Version> {
        self.plugin.version.as_ref()
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
        self.security.auto_mtls
    }

    /// How much it wants to use at most.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.requests.resources
    }

    /// How strictly it wants to be confined.
    #[must_use]
    pub fn sandbox(&self) -> SandboxMode {
        self.requests.sandbox
    }

    /// Whether it makes machine code while it runs.
    #[must_use]
    pub fn jit(&self) -> bool {
        self.requests.jit
    }

    /// The host services it wants. When the manifest does not say: those of the capabilities it
    /// asks for, and the two that carry no authority, `clock` and `log`.
    #[must_use]
    pub fn services(&self) -> Vec<HostService> {
        self.requests.services()
    }

    /// The services of the application's own that it wants.
    #[must_use]
    pub fn application_services(&self) -> &[ServiceName] {
        self.requests.application_services()
    }

    /// Everything that it asks for.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The manifest as YAML that parses to the same manifest.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Serializing to a string has no way to fail with the types of this crate.
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

impl Group for Manifest {
    fn section() -> &'static Section {
        &MANIFEST
    }

    fn from_fields(check: &mut Check, root: &Fields<'_>) -> Option<Manifest> {
        SCHEMA.read(check, root);
        let plugin = PLUGIN_KEY.read(check, root);
        let about = ABOUT_KEY.read(check, root).unwrap_or_default();
        let handshake = HANDSHAKE_KEY.read(check, root);
        let security = SECURITY_KEY.read(check, root).unwrap_or_default();
        let capabilities = CAPABILITIES_KEY.read(check, root).unwrap_or_default();
        let resources = RESOURCES_KEY.read(check, root).unwrap_or_default();
        let sandbox = SANDBOX.read(check, root);
        let jit = JIT.read(check, root);
        let before = check.count();
        let services = SERVICES.read(check, root);
        let services_understood = check.count() == before;
        let positions = Positions {
            resources: At(root.position(RESOURCES_KEY.name)),
            sandbox: At(root.position(SANDBOX.name)),
            jit: At(root.position(JIT.name)),
            services: At(root.position(SERVICES.name)),
        };
        if let Some(handshake) = &handshake {
            check_cookie(check, &capabilities, handshake);
        }
        if let Some(plugin) = &plugin {
            check_program(check, &capabilities, &plugin.entrypoint);
        }
        // One that could not be read may be the one that is missing.
        if let Some(services) = services.as_ref().filter(|_| services_understood) {
            check_services(check, &capabilities, &services.host, positions.services);
        }
        Some(Manifest {
            plugin: plugin?,
            about,
            handshake: handshake?,
            security,
            requests: Requests {
                capabilities,
                resources,
                sandbox: sandbox.unwrap_or(SandboxMode::Require),
                jit: jit.unwrap_or(false),
                named_services: services,
                positions,
            },
        })
    }
}

/// The version of the schema that a file is written for.
pub(crate) struct SchemaVersion;

impl Shape for SchemaVersion {
    type Value = ();

    fn kind(_: Side) -> String {
        format!("`{SCHEMA_VERSION}`")
    }

    fn schema(_: Side) -> Value {
        json!({"const": SCHEMA_VERSION})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<()> {
        let version = check.integer(node, location, 1..=u64::from(u32::MAX))?;
        if version != SCHEMA_VERSION {
            let message =
                format!("this is written for schema {version}; {SCHEMA_VERSION} is read here");
            check
                .report(node.at, ProblemCode::UnsupportedSchema, location, message)
                .help("update the host, or write it for the schema that is read");
        }
        Some(())
    }
}

fn check_cookie(check: &mut Check, asked: &Capabilities, handshake: &Handshake) {
    let cookie = handshake.magic_cookie_key();
    if let Some((name, _, at)) = asked
        .environment
        .set
        .iter()
        .find(|(name, ..)| name == cookie)
    {
        let location = format!("capabilities.environment.set.{name}");
        reserved(check, at.0, &location, name);
    }
}

fn check_program(check: &mut Check, asked: &Capabilities, entrypoint: &Entrypoint) {
    for (index, entry) in asked.lists.filesystem.iter().enumerate() {
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
            HostService::Filesystem => !asked.lists.filesystem.iter().all(direct),
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
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(SCHEMA.name, &SCHEMA_VERSION)?;
        map.serialize_entry(PLUGIN_KEY.name, &self.plugin)?;
        print(&mut map, ABOUT_KEY.name, &self.about)?;
        map.serialize_entry(HANDSHAKE_KEY.name, &self.handshake)?;
        print(&mut map, SECURITY_KEY.name, &self.security)?;
        let requests = &self.requests;
        print(&mut map, CAPABILITIES_KEY.name, &requests.capabilities)?;
        print(&mut map, RESOURCES_KEY.name, &requests.resources)?;
        map.serialize_entry(SANDBOX.name, &requests.sandbox)?;
        map.serialize_entry(JIT.name, &requests.jit)?;
        if let Some(services) = &requests.named_services {
            map.serialize_entry(SERVICES.name, services)?;
        }
        map.end()
    }
}
