//! The lists that a manifest's requests and a policy's rules have in common, and their entries.

pub(crate) mod environment;
pub(crate) mod filesystem;
pub(crate) mod network;
pub(crate) mod process;

use std::marker::PhantomData;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};

pub(crate) use filesystem::{FilesystemEntry, filesystem_text};
pub(crate) use network::{NetworkEntry, Networks, network_text};
pub(crate) use process::{ExecEntry, Processes, exec_text};

use crate::check::{Check, Fields, Side};
use crate::choices::{Direction, HostService, ProcessControl};
use crate::keys::{Group, Key, Presence, Shape};
use crate::problem::{Position, ProblemCode};
use crate::shapes::list_of_maps;
use crate::tree::{Kind, Node};

pub(crate) static FILESYSTEM: Key<EntryList<FilesystemEntry>> = Key::new(
    "filesystem",
    Presence::MayBeEmptyInRequests,
    "parts of the file tree",
);
pub(crate) static NETWORK: Key<EitherSpelling<Networks>> =
    Key::new("network", Presence::MayBeEmptyInRequests, "connections");
pub(crate) static PROCESS: Key<EitherSpelling<Processes>> = Key::new(
    "process",
    Presence::MayBeEmptyInRequests,
    "commands to run, and control over what was started",
);

/// Where an entry stands. Two entries that say the same are equal wherever they stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) Position);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
}

impl Eq for At {}

/// The lists; reading and setting variables is not among them, as a policy names patterns where a
/// manifest names variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) filesystem: Vec<FilesystemEntry>,
    pub(crate) network: Networks,
    pub(crate) process: Processes,
}

impl Lists {
    pub(crate) fn read(check: &mut Check, fields: &Fields<'_>) -> Lists {
        Lists {
            filesystem: FILESYSTEM.read(check, fields).unwrap_or_default(),
            network: NETWORK.read(check, fields).unwrap_or_default(),
            process: PROCESS.read(check, fields).unwrap_or_default(),
        }
    }

    pub(crate) fn network(&self, direction: Direction) -> &[NetworkEntry] {
        match direction {
            Direction::Egress => &self.network.egress,
            Direction::Ingress => &self.network.ingress,
        }
    }

    pub(crate) fn controls(&self, control: ProcessControl) -> Option<At> {
        self.process.controls(control)
    }

    /// Whether these lists name anything that a service gives, or the service carries no
    /// authority. Reading variables stands in no list of these.
    pub(crate) fn go_with(&self, service: HostService, read_variables: bool) -> bool {
        match service {
            HostService::Filesystem => !self.filesystem.is_empty(),
            HostService::Environment => read_variables,
            HostService::Process => self.process != Processes::default(),
            HostService::Network => self.network != Networks::default(),
            HostService::Clock | HostService::Log => true,
        }
    }

    /// Prints the lists that are not empty, as entries of a map.
    pub(crate) fn print<S: Serializer>(&self, map: &mut S::SerializeMap) -> Result<(), S::Error> {
        print(map, FILESYSTEM.name, &self.filesystem)?;
        print(map, NETWORK.name, &self.network)?;
        print(map, PROCESS.name, &self.process)
    }
}

/// Prints a value that says something, as the entry of a map.
pub(crate) fn print<M: SerializeMap, T: Serialize + Default + PartialEq>(
    map: &mut M,
    key: &'static str,
    value: &T,
) -> Result<(), M::Error> {
    if *value == T::default() {
        return Ok(());
    }
    map.serialize_entry(key, value)
}

/// An entry of a list of maps.
pub(crate) trait Entry: Group + PartialEq {
    fn at(&self) -> Position;

    /// Code, message and help where this entry cannot stand beside an earlier one, `first`.
    fn clash(
        &self,
        earlier: &Self,
        first: &str,
    ) -> Option<(ProblemCode, String, Option<&'static str>)> {
        let message = || format!("this says the same as {first}");
        (self == earlier).then(|| (ProblemCode::DuplicateEntry, message(), None))
    }
}

/// A list of maps, or the one map alone.
pub(crate) struct EntryList<E>(PhantomData<E>);

impl<E: Entry> Shape for EntryList<E> {
    type Value = Vec<E>;

    fn kind(_: Side) -> String {
        "list of maps".to_owned()
    }

    fn schema(side: Side) -> Value {
        list_of_maps(<E as Shape>::schema(side))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<E>> {
        let mut entries: Vec<(String, E)> = Vec::new();
        for (location, item) in check.maps(node, location)? {
            let Some(entry) = <E as Shape>::read(check, item, &location) else {
                continue;
            };
            let mut clashes = entries.iter();
            if let Some((code, message, help)) =
                clashes.find_map(|(first, earlier)| entry.clash(earlier, first))
            {
                let problem = check.report(entry.at(), code, &location, message);
                if let Some(help) = help {
                    problem.help(help);
                }
            }
            entries.push((location, entry));
        }
        Some(entries.into_iter().map(|(_, entry)| entry).collect())
    }
}

/// A map, or a list of maps with one of its keys each.
pub(crate) struct EitherSpelling<G>(PhantomData<G>);

impl<G: Group> Shape for EitherSpelling<G> {
    type Value = G;

    fn kind(_: Side) -> String {
        "map, or list of maps with one key each".to_owned()
    }

    fn schema(side: Side) -> Value {
        let whole = <G as Shape>::schema(side);
        let mut single = whole.clone();
        single["minProperties"] = json!(1);
        single["maxProperties"] = json!(1);
        json!({"oneOf": [whole, {"type": "array", "items": single}]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<G> {
        if !matches!(node.kind, Kind::List(_)) {
            return <G as Shape>::read(check, node, location);
        }
        let (fields, repeated) = check.single_keys(node, location, &G::section().names())?;
        let value = G::from_fields(check, &fields);
        for fields in repeated {
            // Only checked: which of both is meant is unknown.
            G::from_fields(check, &fields);
        }
        value
    }
}
