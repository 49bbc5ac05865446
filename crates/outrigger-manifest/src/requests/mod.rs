//! What a plugin asks for: the part of a manifest that a policy judges and an operator approves.

mod line;

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

pub use line::RequestError;
pub(crate) use line::{Ask, Thing};

use crate::check::{Check, Fields};
use crate::choices::{Direction, HostService, ProcessControl, SandboxMode};
use crate::entries::environment::Requested;
use crate::entries::{At, FILESYSTEM, Lists, NETWORK, NetworkEntry, Networks, PROCESS, Processes};
use crate::entries::{FilesystemEntry, print};
use crate::keys::{Group, Key, Presence, Section};
use crate::path::PathBase;
use crate::permissions::Permissions;
use crate::problem::Position;
use crate::resources::Resources;
use crate::services::{ServiceName, Services};

pub(crate) static ENVIRONMENT: Key<Requested> = Key::new(
    "environment",
    Presence::MayBeEmpty,
    "variables of the environment",
);
pub(crate) static CAPABILITIES: Section = Section {
    about: "what it asks for; what is absent is denied",
    keys: &[&FILESYSTEM, &NETWORK, &PROCESS, &ENVIRONMENT],
};

/// The most requests that [`Requests::never_on_first_use`] lets pass together.
const MOST_ON_FIRST_USE: usize = 1000;

/// Everything that a plugin asks for: capabilities, limits, how strictly it must be confined, and
/// services of the host and of the application.
///
/// They are compared as a set, in the words of a manifest: a line says one thing.
///
/// ```
/// use outrigger_manifest::{Manifest, Requests};
///
/// let manifest = Manifest::parse("
/// plugin: {name: cat, format: grpc, entrypoint: cat}
/// handshake: {protocol_version: 1, magic_cookie_key: CAT_PLUGIN, magic_cookie_value: meow}
/// capabilities:
///   filesystem: [{path: /data, permissions: [read, list], recursive: true}]
///   network: {egress: [{protocol: tcp, hosts: [api.example.com], ports: [443]}]}
/// ").unwrap();
/// let lines = manifest.requests().lines();
/// assert_eq!(lines, [
///     "filesystem /data: read, list, recursive",
///     "network egress tcp api.example.com:443",
///     "services: clock, filesystem, log, network",
/// ]);
/// assert_eq!(Requests::from_lines(&lines).unwrap().lines(), lines);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    pub(crate) capabilities: Capabilities,
    pub(crate) resources: Resources,
    pub(crate) sandbox: SandboxMode,
    pub(crate) jit: bool,
    /// Those that are named; `None` for those of the capabilities asked for.
    pub(crate) named_services: Option<Services>,
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

impl Positions {
    const IN_CODE: Positions = {
        let at = At(Position::IN_CODE);
        Positions {
            resources: at,
            sandbox: at,
            jit: at,
            services: at,
        }
    };
}

/// What a manifest asks for. What is not here is not asked for, and so never granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) lists: Lists,
    pub(crate) environment: Requested,
}

impl Capabilities {
    /// Whether a capability is asked for that this service gives, or none is needed for it.
    pub(crate) fn imply(&self, service: HostService) -> bool {
        self.lists
            .go_with(service, !self.environment.read.is_empty())
    }
}

impl Group for Capabilities {
    fn section() -> &'static Section {
        &CAPABILITIES
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Capabilities> {
        Some(Capabilities {
            lists: Lists::read(check, fields),
            environment: ENVIRONMENT.read(check, fields).unwrap_or_default(),
        })
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.lists.print::<S>(&mut map)?;
        print(&mut map, ENVIRONMENT.name, &self.environment)?;
        map.end()
    }
}

/// A request that nobody but a person may let through, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Grave {
    /// The request, in the words of a manifest.
    pub request: String,
    /// Why it takes a person.
    pub why: &'static str,
}

impl Requests {
    /// Asks for nothing at all.
    #[must_use]
    pub fn none() -> Requests {
        Requests {
            capabilities: Capabilities::default(),
            resources: Resources::default(),
            sandbox: SandboxMode::Require,
            jit: false,
            named_services: Some(Services::default()),
            positions: Positions::IN_CODE,
        }
    }

    /// Each request on a line, in the words of a manifest, sorted. The same requests give the same
    /// lines however the manifest spells them; [`from_lines`](Self::from_lines) reads them back.
    /// All characters are safe to print.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let requests = self.canonical();
        let lines: BTreeSet<String> = requests.asks().iter().map(Ask::text).collect();
        lines.into_iter().collect()
    }

    /// Reads what [`lines`](Self::lines) writes, in any order.
    ///
    /// # Errors
    ///
    /// The first line that is no request.
    pub fn from_lines<S: AsRef<str>>(
        lines: impl IntoIterator<Item = S>,
    ) -> Result<Requests, RequestError> {
        let mut requests = Requests::none();
        for line in lines {
            line::read(&mut requests, line.as_ref())?;
        }
        Ok(requests.canonical())
    }

    /// The services asked for. Where none are named: those of the capabilities asked for, and the
    /// two that carry no authority, `clock` and `log`.
    pub(crate) fn services(&self) -> Vec<HostService> {
        if let Some(services) = &self.named_services {
            return services.host.clone();
        }
        HostService::ALL
            .iter()
            .copied()
            .filter(|service| self.capabilities.imply(*service))
            .collect()
    }

    /// The services of the application's own that are asked for.
    pub(crate) fn application_services(&self) -> &[ServiceName] {
        let named = self.named_services.as_ref();
        named.map_or(&[], |services| &services.application)
    }

    /// What must not be allowed only because nobody has seen the plugin before: to run without
    /// confinement, to have commands run, to change a whole tree of files; and more requests than
    /// anyone reads.
    #[must_use]
    pub fn never_on_first_use(&self) -> Vec<Grave> {
        let requests = self.canonical();
        let asks = requests.asks();
        let mut grave: Vec<Grave> = asks
            .iter()
            .filter_map(|ask| {
                let why = match &ask.thing {
                    Thing::Sandbox(SandboxMode::Off) => "nothing would hold it to its grants",
                    Thing::Exec(_) => "a command is not held to what the plugin is granted",
                    Thing::Files(entry) if changes_a_whole_tree(entry) => {
                        "it could change a whole tree of files, programs and settings among them"
                    }
                    Thing::Files(_)
                    | Thing::Network(..)
                    | Thing::Control(_)
                    | Thing::Read(_)
                    | Thing::Set(..)
                    | Thing::Services(_)
                    | Thing::Limit(..)
                    | Thing::Sandbox(SandboxMode::BestEffort | SandboxMode::Require)
                    | Thing::Jit => return None,
                };
                let request = ask.text();
                Some(Grave { request, why })
            })
            .collect();
        if asks.len() > MOST_ON_FIRST_USE {
            grave.push(Grave {
                request: format!("{} requests", asks.len()),
                why: "nobody would see what is among so many",
            });
        }
        grave
    }

    /// The same requests, each said once and in one order, the services named.
    pub(crate) fn canonical(&self) -> Requests {
        let Lists {
            filesystem,
            network,
            process,
        } = &self.capabilities.lists;
        let by_path = |entry: &FilesystemEntry| {
            let (path, access) = (entry.path.clone(), entry.access());
            (path, entry.recursive, entry.permissions, access)
        };
        let mut filesystem = filesystem.clone();
        filesystem.sort_by_cached_key(by_path);
        filesystem.dedup();
        let mut exec = process.exec.clone();
        exec.sort_by(|a, b| (&a.command, &a.args).cmp(&(&b.command, &b.args)));
        exec.dedup();
        let controls = ProcessControl::ALL.iter();
        let controls = controls.filter_map(|control| Some((*control, process.controls(*control)?)));
        let mut environment = self.capabilities.environment.clone();
        environment.read.sort_by(|a, b| a.0.cmp(&b.0));
        environment.read.dedup();
        environment
            .set
            .sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        environment.set.dedup();
        let services = Services {
            host: self.services(),
            application: self.application_services().to_vec(),
        };
        Requests {
            capabilities: Capabilities {
                lists: Lists {
                    filesystem,
                    network: Networks {
                        egress: one_by_host(Direction::Egress, &network.egress),
                        ingress: one_by_host(Direction::Ingress, &network.ingress),
                    },
                    process: Processes::new(exec, controls.collect()),
                },
                environment,
            },
            named_services: Some(services.sorted()),
            positions: Positions::IN_CODE,
            ..self.clone()
        }
    }
}

/// Whether everything below the root, below one of its directories or in a home may be changed.
fn changes_a_whole_tree(entry: &FilesystemEntry) -> bool {
    let changes = Permissions::WRITE | Permissions::CREATE | Permissions::DELETE;
    let parts = entry.path.rest().split('/').filter(|part| !part.is_empty());
    let most = match entry.path.base() {
        PathBase::Root => 1,
        PathBase::Home => 0,
        PathBase::PluginDir | PathBase::DataDir => return false,
    };
    entry.recursive && !(entry.permissions & changes).is_empty() && parts.count() <= most
}

/// An entry for each protocol and host, with all its ports.
fn one_by_host(direction: Direction, entries: &[NetworkEntry]) -> Vec<NetworkEntry> {
    let mut all = BTreeMap::new();
    for entry in entries {
        for host in entry.patterns() {
            let ports = all
                .entry((entry.protocol, host.clone()))
                .or_insert_with(Vec::new);
            ports.extend(entry.ports.ranges());
        }
    }
    let entry = |((protocol, host), ports)| NetworkEntry {
        at: At(Position::IN_CODE),
        direction,
        protocol,
        hosts: Some(vec![host]),
        ports: crate::ports::Ports::from_ranges(ports),
    };
    all.into_iter().map(entry).collect()
}
