//! Manifests and policies that are made in code instead of being read from a file.
//!
//! A builder makes the tree that the YAML reader would have made, and hands it to the same checks:
//! what a file cannot say cannot be built, and what is wrong is reported with the same codes.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use outrigger_wire::Transport;

use crate::check::{Check, Side};
use crate::choices::{Access, Direction, HostService, ProcessControl, Protocol, SandboxMode};
use crate::entries::{FILESYSTEM, NETWORK, PROCESS, environment, filesystem, network, process};
use crate::manifest::{self, Manifest};
use crate::permissions::Permissions;
use crate::policy::{self, Policy};
use crate::problem::{Position, Problems};
use crate::resources::Resources;
use crate::shapes::Words as _;
use crate::tree::{Key, Kind, Node};

fn node(kind: Kind) -> Node {
    Node {
        at: Position::IN_CODE,
        kind,
    }
}

fn text(text: impl Into<String>) -> Node {
    node(Kind::Text(text.into()))
}

fn file_path(path: &Path) -> Node {
    node(match path.to_str() {
        Some(text) => Kind::Text(text.to_owned()),
        None => Kind::NotUtf8(path.to_string_lossy().into_owned()),
    })
}

/// A number or truth value.
fn plain(value: impl Display) -> Node {
    node(Kind::Plain(value.to_string()))
}

fn list(items: impl IntoIterator<Item = Node>) -> Node {
    node(Kind::List(items.into_iter().collect()))
}

/// A map that is being made, each key in it once.
#[derive(Clone, Debug, Default)]
struct Map {
    values: Vec<(String, Node)>,
    sections: Vec<(String, Map)>,
}

impl Map {
    /// The map under this path of keys.
    fn section(&mut self, keys: &[&str]) -> &mut Map {
        keys.iter()
            .fold(self, |map, key| slot(&mut map.sections, key, Map::default))
    }

    /// Gives a key its value, in place of the one it has.
    fn set(&mut self, key: &str, value: Node) {
        *slot(&mut self.values, key, || node(Kind::Broken)) = value;
    }

    /// Adds to the list of a key.
    fn push(&mut self, key: &str, item: Node) {
        if let Kind::List(items) = &mut slot(&mut self.values, key, || list([])).kind {
            items.push(item);
        }
    }

    /// Names the services of the host, in place of those named before.
    fn services(&mut self, named: impl IntoIterator<Item = HostService>) {
        let key = manifest::SERVICES.name;
        let mut named: Vec<Node> = named.into_iter().map(|name| text(name.as_str())).collect();
        let of_host = |item: &Node| match &item.kind {
            Kind::Text(text) => HostService::names().contains(&text.as_str()),
            _ => false,
        };
        if let Kind::List(before) = &mut slot(&mut self.values, key, || list([])).kind {
            named.extend(before.drain(..).filter(|item| !of_host(item)));
        }
        self.set(key, list(named));
    }

    fn application_service(&mut self, name: impl Into<String>) {
        self.push(manifest::SERVICES.name, text(name));
    }

    fn limits(&mut self, resources: &Resources) {
        for (key, limit) in resources.texts() {
            self.section(&[manifest::RESOURCES_KEY.name])
                .set(key, plain(limit));
        }
    }

    fn into_node(self) -> Node {
        let sections = self.sections.into_iter();
        let sections = sections.map(|(key, section)| (key, section.into_node()));
        let entries = self.values.into_iter().chain(sections);
        let key = |text| Key {
            at: Position::IN_CODE,
            text,
        };
        node(Kind::Map(
            entries.map(|(name, value)| (key(name), value)).collect(),
        ))
    }
}

/// The value of a key, which is made if there is none.
fn slot<'m, T>(values: &'m mut Vec<(String, T)>, key: &str, make: impl Fn() -> T) -> &'m mut T {
    let index = match values.iter().position(|(known, _)| known == key) {
        Some(index) => index,
        None => {
            values.push((key.to_owned(), make()));
            values.len() - 1
        }
    };
    &mut values[index].1
}

/// Part of the file tree: an entry of `filesystem` in a manifest or in the rules of a policy.
///
/// What is not said is read as in a file: a request and a rule that allows mean the path with its
/// direct entries, reached through the host; a rule that denies means everything below as well,
/// however it is reached.
///
/// ```
/// use outrigger_manifest::{Files, Permissions};
///
/// let logs = Files::new("/var/log", Permissions::READ | Permissions::LIST).recursive(true);
/// ```
#[derive(Clone, Debug)]
pub struct Files(Map);

impl Files {
    /// The files at a path, which is absolute or begins with `${plugin_dir}`, `${data_dir}` or
    /// `${HOME}`.
    #[must_use]
    pub fn new(path: impl AsRef<Path>, permissions: Permissions) -> Files {
        let mut entry = Map::default();
        entry.set(filesystem::PATH.name, file_path(path.as_ref()));
        let words = permissions.words().map(text);
        entry.set(filesystem::PERMISSIONS.name, list(words));
        Files(entry)
    }

    /// Whether everything below is meant, or only the path and its direct entries.
    #[must_use]
    pub fn recursive(mut self, recursive: bool) -> Files {
        self.0.set(filesystem::RECURSIVE.name, plain(recursive));
        self
    }

    /// How the files are reached.
    #[must_use]
    pub fn access(mut self, access: Access) -> Files {
        self.0.set(filesystem::ACCESS.name, text(access.as_str()));
        self
    }
}

/// Connections: an entry of `egress` or `ingress` in a manifest or in the rules of a policy.
///
/// A request and a rule that allows need a protocol, hosts and ports; in a rule that denies, what
/// is not said means all of them.
///
/// ```
/// use outrigger_manifest::{Connections, Protocol};
///
/// let api = Connections::new().protocol(Protocol::Tcp).host("api.example.com").port(443);
/// let mail = Connections::new().port(25); // to deny, whatever the host
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Connections {
    protocol: Option<Protocol>,
    hosts: Vec<Node>,
    ports: Vec<Node>,
}

impl Connections {
    /// Connections of which nothing is said yet.
    pub fn new() -> Connections {
        Connections::default()
    }

    /// The protocol.
    pub fn protocol(mut self, protocol: Protocol) -> Connections {
        self.protocol = Some(protocol);
        self
    }

    /// One more host, `*.` wildcard, address or network: of egress the one connected to, of
    /// ingress an origin that is let in.
    pub fn host(mut self, host: impl Into<String>) -> Connections {
        self.hosts.push(text(host));
        self
    }

    /// One more port.
    pub fn port(mut self, port: u16) -> Connections {
        self.ports.push(plain(port));
        self
    }

    /// One more range of ports.
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Connections {
        let (low, high) = ports.into_inner();
        self.ports.push(text(format!("{low}-{high}")));
        self
    }

    fn entry(self, direction: Direction) -> Node {
        let mut entry = Map::default();
        if let Some(protocol) = self.protocol {
            entry.set(network::PROTOCOL.name, text(protocol.as_str()));
        }
        for (key, items) in [
            (network::hosts_key(direction), self.hosts),
            (network::PORTS.name, self.ports),
        ] {
            if !items.is_empty() {
                entry.set(key, list(items));
            }
        }
        entry.into_node()
    }
}

/// A command and its arguments: an entry of `process.exec` in a manifest or in the rules of a
/// policy.
///
/// ```
/// use outrigger_manifest::Exec;
///
/// let pull = Exec::new("/usr/bin/git").args(["pull"]);
/// ```
#[derive(Clone, Debug)]
pub struct Exec(Map);

impl Exec {
    /// A program, by a path as in [`Files::new`]. A request and a rule that allows then mean it
    /// without arguments; a rule that denies means it with any.
    #[must_use]
    pub fn new(command: impl AsRef<Path>) -> Exec {
        let mut entry = Map::default();
        entry.set(process::COMMAND.name, file_path(command.as_ref()));
        Exec(entry)
    }

    /// The arguments it may be run with, as in [`ArgPattern`](crate::ArgPattern).
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Exec {
        let args = args.into_iter().map(|arg| text(arg));
        self.0.set(process::ARGS.name, list(args));
        self
    }
}

/// The methods that the requests of a manifest and the rules of a policy have in common.
macro_rules! capabilities {
    ($builder:ty, $($section:expr)?) => {
        impl $builder {
            /// One more part of the file tree.
            pub fn files(mut self, files: Files) -> Self {
                self.root.section(&[$($section)?]).push(FILESYSTEM.name, files.0.into_node());
                self
            }

            /// More connections that a plugin opens.
            pub fn egress(self, connections: Connections) -> Self {
                self.connections(Direction::Egress, connections)
            }

            /// More connections that reach a plugin.
            pub fn ingress(self, connections: Connections) -> Self {
                self.connections(Direction::Ingress, connections)
            }

            fn connections(mut self, direction: Direction, connections: Connections) -> Self {
                let networks = self.root.section(&[$($section,)? NETWORK.name]);
                networks.push(direction.as_str(), connections.entry(direction));
                self
            }

            /// One more command that the host runs for a plugin.
            pub fn exec(mut self, exec: Exec) -> Self {
                self.root.section(&[$($section,)? PROCESS.name]).push(process::EXEC.name, exec.0.into_node());
                self
            }

            /// Control of this kind over the processes that the plugin started.
            pub fn control(mut self, control: ProcessControl) -> Self {
                let processes = self.root.section(&[$($section,)? PROCESS.name]);
                processes.set(control.as_str(), list([text("children")]));
                self
            }
        }
    };
}

/// Makes a [`Manifest`] in code; see [`Manifest::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ManifestBuilder {
    root: Map,
}

capabilities!(ManifestBuilder, manifest::CAPABILITIES_KEY.name);

impl Manifest {
    /// A manifest that is made in code, without a file.
    ///
    /// [`ManifestBuilder::handshake`] must follow, as in a file. Each method says what a key of the file
    /// says; one called again replaces what it said before, or adds to a list.
    ///
    /// ```
    /// use outrigger_manifest::{Files, Manifest, Permissions, Places, Policy, Transport};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // This folder, readable.
    /// let folder = std::env::temp_dir();
    /// let readable = Files::new(&folder, Permissions::READ | Permissions::LIST).recursive(true);
    /// let manifest = Manifest::builder("cat", Transport::Grpc, "bin/cat")
    ///     .handshake(1, "CAT_PLUGIN", "meow")
    ///     .files(readable)
    ///     .build()?;
    ///
    /// let places = Places::new("/opt/plugins/cat", "/var/lib/app/cat")?;
    /// let grants = Policy::allow_requested().decide(&manifest, &places).grants();
    /// assert!(grants.filesystem_verdict(&folder.join("a.csv"), Permissions::READ).is_ok());
    /// # Ok(()) }
    /// ```
    pub fn builder(
        name: impl Into<String>,
        transport: Transport,
        entrypoint: impl Into<String>,
    ) -> ManifestBuilder {
        let mut root = Map::default();
        let plugin = root.section(&[manifest::PLUGIN_KEY.name]);
        plugin.set(manifest::NAME.name, text(name));
        plugin.set(manifest::FORMAT.name, text(transport.word()));
        plugin.set(manifest::ENTRYPOINT.name, text(entrypoint));
        ManifestBuilder { root }
    }
}

impl ManifestBuilder {
    /// What host and plugin must agree on before they talk: the version of the plugin's
    /// interfaces, and the environment variable that carries the magic cookie with its value.
    pub fn handshake(
        mut self,
        protocol_version: u32,
        magic_cookie_key: impl Into<String>,
        magic_cookie_value: impl Into<String>,
    ) -> Self {
        let handshake = self.root.section(&[manifest::HANDSHAKE_KEY.name]);
        handshake.set(manifest::PROTOCOL_VERSION.name, plain(protocol_version));
        handshake.set(manifest::COOKIE_KEY.name, text(magic_cookie_key));
        handshake.set(manifest::COOKIE_VALUE.name, text(magic_cookie_value));
        self
    }

    /// What kind of plugin it is, in the application's own words.
    pub fn kind(self, kind: impl Into<String>) -> Self {
        self.line(manifest::PLUGIN_KEY.name, manifest::TYPE.name, kind)
    }

    /// The language it is written in.
    pub fn language(self, language: impl Into<String>) -> Self {
        self.line(manifest::PLUGIN_KEY.name, manifest::LANGUAGE.name, language)
    }

    /// Its version, a semantic version such as `1.0.0`.
    pub fn version(self, version: impl Into<String>) -> Self {
        self.line(manifest::PLUGIN_KEY.name, manifest::VERSION.name, version)
    }

    /// What the plugin is for.
    pub fn description(self, description: impl Into<String>) -> Self {
        self.line(
            manifest::ABOUT_KEY.name,
            manifest::DESCRIPTION.name,
            description,
        )
    }

    /// Who looks after it.
    pub fn maintainer(self, maintainer: impl Into<String>) -> Self {
        self.line(
            manifest::ABOUT_KEY.name,
            manifest::MAINTAINER.name,
            maintainer,
        )
    }

    /// Where to read more.
    pub fn url(self, url: impl Into<String>) -> Self {
        self.line(manifest::ABOUT_KEY.name, manifest::URL.name, url)
    }

    fn line(mut self, section: &str, key: &str, line: impl Into<String>) -> Self {
        self.root.section(&[section]).set(key, text(line));
        self
    }

    /// Whether it wants one-time certificates; left out, the host decides.
    pub fn auto_mtls(mut self, auto_mtls: bool) -> Self {
        let security = self.root.section(&[manifest::SECURITY_KEY.name]);
        security.set(manifest::AUTO_MTLS.name, plain(auto_mtls));
        self
    }

    /// One more variable of the host's environment to read, by its exact name.
    pub fn read_variable(mut self, name: impl Into<String>) -> Self {
        let variables = self
            .root
            .section(&[manifest::CAPABILITIES_KEY.name, manifest::ENVIRONMENT.name]);
        variables.push(environment::READ.name, text(name));
        self
    }

    /// One more variable that the plugin wants in its own environment.
    pub fn set_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        let set = self.root.section(&[
            manifest::CAPABILITIES_KEY.name,
            manifest::ENVIRONMENT.name,
            environment::SET.name,
        ]);
        set.set(name, text(value));
        self
    }

    /// How much it wants to use at most.
    pub fn resources(mut self, resources: &Resources) -> Self {
        self.root.limits(resources);
        self
    }

    /// How strictly it must be confined; [`SandboxMode::Require`] unless this says otherwise.
    pub fn sandbox(mut self, sandbox: SandboxMode) -> Self {
        self.root
            .set(manifest::SANDBOX.name, text(sandbox.as_str()));
        self
    }

    /// Whether it makes machine code while it runs.
    pub fn jit(mut self, jit: bool) -> Self {
        self.root.set(manifest::JIT.name, plain(jit));
        self
    }

    /// The services it wants of the host; left out, those of the capabilities it asks for,
    /// [`HostService::Clock`] and [`HostService::Log`].
    pub fn services(mut self, wanted: impl IntoIterator<Item = HostService>) -> Self {
        self.root.services(wanted);
        self
    }

    /// One more service that it wants of the application's own. As in a file, the list then says
    /// which of the host's it wants, too: name those with [`services`](Self::services).
    pub fn application_service(mut self, name: impl Into<String>) -> Self {
        self.root.application_service(name);
        self
    }

    /// The manifest.
    ///
    /// # Errors
    ///
    /// Every problem at once, as [`Manifest::parse`] would report it; [`Problem::location`]
    /// says which call it is about, and there is no position.
    ///
    /// [`Problem::location`]: crate::Problem::location
    pub fn build(self) -> Result<Manifest, Problems> {
        let mut check = Check::default();
        let manifest = Manifest::read(&mut check, &self.root.into_node());
        check.finish_built("manifest", manifest, Manifest::to_yaml)
    }
}

/// Makes a [`Policy`] in code; see [`Policy::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PolicyBuilder {
    root: Map,
}

impl Policy {
    /// A policy that is made in code, without a file. Until something is said it grants nothing.
    ///
    /// ```
    /// use outrigger_manifest::{Connections, Files, Permissions, Policy, PolicyRules, PolicySection};
    ///
    /// # fn main() -> Result<(), outrigger_manifest::Problems> {
    /// let data = Files::new("/srv/data", Permissions::READ | Permissions::LIST).recursive(true);
    /// let secrets = Files::new("/srv/data/secrets", Permissions::ALL);
    /// let policy = Policy::builder()
    ///     .every_plugin(
    ///         PolicySection::new()
    ///             .allow(PolicyRules::new().files(data))
    ///             .deny(PolicyRules::new().files(secrets).egress(Connections::new().port(25))),
    ///     )
    ///     .plugin("my-own-experiment", PolicySection::new().allow_requested())
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            root: Map::default(),
        }
    }
}

impl PolicyBuilder {
    /// What holds for every plugin.
    pub fn every_plugin(mut self, section: PolicySection) -> Self {
        self.root
            .set(policy::DEFAULT.name, section.root.into_node());
        self
    }

    /// What holds for one plugin, beside the defaults.
    pub fn plugin(mut self, name: &str, section: PolicySection) -> Self {
        self.root
            .section(&[policy::PLUGINS.name])
            .set(name, section.root.into_node());
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// As for [`ManifestBuilder::build`].
    pub fn build(self) -> Result<Policy, Problems> {
        let mut check = Check::of(Side::Allow, &[]);
        let policy = Policy::read(&mut check, &self.root.into_node());
        check.finish_built("policy", policy, Policy::to_yaml)
    }
}

/// What a policy says of every plugin, or of one. See [`Policy::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PolicySection {
    root: Map,
}

impl PolicySection {
    /// A section that says nothing yet.
    pub fn new() -> PolicySection {
        PolicySection::default()
    }

    /// The least strict mode that is granted.
    pub fn sandbox(mut self, sandbox: SandboxMode) -> Self {
        self.root
            .set(manifest::SANDBOX.name, text(sandbox.as_str()));
        self
    }

    /// Whether machine code may be made.
    pub fn jit(mut self, jit: bool) -> Self {
        self.root.set(manifest::JIT.name, plain(jit));
        self
    }

    /// The most that is granted.
    pub fn resources(mut self, resources: &Resources) -> Self {
        self.root.limits(resources);
        self
    }

    /// What may be granted.
    pub fn allow(mut self, rules: PolicyRules) -> Self {
        self.root.set(policy::ALLOW.name, rules.root.into_node());
        self
    }

    /// Lets a plugin have whatever its manifest asks for.
    pub fn allow_requested(mut self) -> Self {
        self.root.set(policy::ALLOW.name, text("requested"));
        self
    }

    /// What is never granted, whatever allows it.
    pub fn deny(mut self, rules: PolicyRules) -> Self {
        self.root.set(policy::DENY.name, rules.root.into_node());
        self
    }
}

/// What a section of a policy allows or denies. See [`Policy::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PolicyRules {
    root: Map,
}

capabilities!(PolicyRules,);

impl PolicyRules {
    /// No rule yet.
    pub fn new() -> PolicyRules {
        PolicyRules::default()
    }

    /// Variables of the host's environment that may be read, or not: a name, `PREFIX*` or `*`.
    pub fn read_variables(mut self, pattern: impl Into<String>) -> Self {
        let variables = self.root.section(&[manifest::ENVIRONMENT.name]);
        variables.push(environment::READ.name, text(pattern));
        self
    }

    /// Variables that may be set for a plugin, or not: a name, `PREFIX*` or `*`.
    pub fn set_variables(mut self, pattern: impl Into<String>) -> Self {
        let variables = self.root.section(&[manifest::ENVIRONMENT.name]);
        variables.push(environment::SET.name, text(pattern));
        self
    }

    /// Services of the host. Left out where a section allows, those of the capabilities that have
    /// any rule, [`HostService::Clock`] and [`HostService::Log`].
    pub fn services(mut self, named: impl IntoIterator<Item = HostService>) -> Self {
        self.root.services(named);
        self
    }

    /// One more service of the application's own.
    pub fn application_service(mut self, name: impl Into<String>) -> Self {
        self.root.application_service(name);
        self
    }
}
