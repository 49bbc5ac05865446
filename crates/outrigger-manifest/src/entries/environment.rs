//! What is asked or ruled about variables of the environment.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::At;
use crate::check::{Check, Fields, Side, join};
use crate::keys::{Group, Key, Presence, Section, Shape};
use crate::message::quoted;
use crate::name::{RESERVED_VARIABLES, VariablePattern, is_variable};
use crate::problem::{Position, ProblemCode};
use crate::shapes::{VARIABLE, Variable, invalid_variable, list};
use crate::tree::Node;

pub(crate) static READ: Key<Names> = Key::new(
    "read",
    Presence::MayBeEmpty,
    "variables of the host that the plugin may read, by exact name",
);
pub(crate) static SET: Key<Values> = Key::new(
    "set",
    Presence::MayBeEmpty,
    "variables wanted in the plugin's own environment; the commands it runs may have them too",
);
pub(crate) static REQUESTED: Section = Section {
    about: "variables of the environment",
    keys: &[&READ, &SET],
};

pub(crate) static READ_PATTERNS: Key<Patterns> = Key::optional(
    READ.name,
    "variables of the host that may be read: a name, `PREFIX*` or `*`",
);
pub(crate) static SET_PATTERNS: Key<Patterns> = Key::optional(
    SET.name,
    "variables that may be set for the plugin: a name, `PREFIX*` or `*`",
);
pub(crate) static RULED: Section = Section {
    about: "names of variables, with a `*` at the end for all that begin so",
    keys: &[&READ_PATTERNS, &SET_PATTERNS],
};

/// What a manifest asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) read: Vec<(String, At)>,
    pub(crate) set: Vec<(String, String, At)>,
}

impl Group for Requested {
    fn section() -> &'static Section {
        &REQUESTED
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Requested> {
        let read = READ.read(check, fields).unwrap_or_default();
        let set = SET.read(check, fields).unwrap_or_default();
        for (name, _, at) in &set {
            if read.iter().any(|(read, _)| read == name) {
                let location = join(&fields.location(SET.name), name);
                let name = quoted(name);
                check
                    .report(
                        at.0,
                        ProblemCode::Contradiction,
                        &location,
                        format!("{name} is also among the names to read from the host"),
                    )
                    .help("either read the host's value or set one");
            }
        }
        Some(Requested { read, set })
    }
}

impl Serialize for Requested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Set<'r>(&'r Requested);
        impl Serialize for Set<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.set.iter().map(|(name, value, _)| (name, value)))
            }
        }
        let names: Vec<&str> = self.read.iter().map(|(name, _)| name.as_str()).collect();
        let mut map = serializer.serialize_map(None)?;
        super::print(&mut map, READ.name, &names)?;
        if !self.set.is_empty() {
            map.serialize_entry(SET.name, &Set(self))?;
        }
        map.end()
    }
}

/// What a policy allows or denies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruled {
    pub(crate) read: Vec<(VariablePattern, At)>,
    pub(crate) set: Vec<(VariablePattern, At)>,
}

impl Group for Ruled {
    fn section() -> &'static Section {
        &RULED
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Ruled> {
        Some(Ruled {
            read: READ_PATTERNS.read(check, fields).unwrap_or_default(),
            set: SET_PATTERNS.read(check, fields).unwrap_or_default(),
        })
    }
}

impl Serialize for Ruled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, list) in [(&READ_PATTERNS, &self.read), (&SET_PATTERNS, &self.set)] {
            let patterns: Vec<&VariablePattern> = list.iter().map(|(name, _)| name).collect();
            super::print(&mut map, key.name, &patterns)?;
        }
        map.end()
    }
}

/// Names of environment variables, each once.
pub(crate) struct Names;

impl Shape for Names {
    type Value = Vec<(String, At)>;

    fn kind(_: Side) -> String {
        "list of names".to_owned()
    }

    fn schema(side: Side) -> Value {
        list(Variable::schema(side))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<(String, At)>> {
        let name = |text: &str| is_variable(text).then(|| text.to_owned());
        read_list(check, node, location, name)
    }
}

/// Names and patterns of environment variables, each once.
pub(crate) struct Patterns;

impl Shape for Patterns {
    type Value = Vec<(VariablePattern, At)>;

    fn kind(_: Side) -> String {
        "list of names".to_owned()
    }

    fn schema(_: Side) -> Value {
        list(json!({"type": "string", "pattern": "^([A-Za-z_][A-Za-z0-9_]*)?\\*?$"}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<(VariablePattern, At)>> {
        read_list(check, node, location, VariablePattern::parse)
    }
}

fn read_list<T: PartialEq>(
    check: &mut Check,
    node: &Node,
    location: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<(T, At)>> {
    let mut names: Vec<(T, At)> = Vec::new();
    for (location, item) in check.list(node, location)? {
        let Some(text) = check.text(item, &location) else {
            continue;
        };
        match parse(text) {
            None => invalid_variable(check, item.at, &location, text),
            Some(name) if names.iter().any(|(other, _)| *other == name) => {
                check.repeated(item.at, &location, text);
            }
            Some(name) => names.push((name, At(item.at))),
        }
    }
    Some(names)
}

/// Names of variables with their values.
pub(crate) struct Values;

impl Shape for Values {
    type Value = Vec<(String, String, At)>;

    fn kind(_: Side) -> String {
        "map of names to texts".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({
            "type": "object",
            "propertyNames": {"pattern": VARIABLE},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        })
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Vec<(String, String, At)>> {
        let mut values = Vec::new();
        for (key, node) in check.entries(node, location)? {
            let location = join(location, &key.text);
            if !is_variable(&key.text) {
                invalid_variable(check, key.at, &location, &key.text);
                continue;
            }
            check_reserved(check, key.at, &location, &key.text);
            if let Some(value) = check.literal(node, &location) {
                values.push((key.text.clone(), value.to_owned(), At(key.at)));
            }
        }
        Some(values)
    }
}

/// Reports a variable by which host and plugin find each other.
pub(crate) fn check_reserved(check: &mut Check, at: Position, location: &str, name: &str) {
    if RESERVED_VARIABLES.contains(&name) {
        reserved(check, at, location, name);
    }
}

pub(crate) fn reserved(check: &mut Check, at: Position, location: &str, name: &str) {
    let name = quoted(name);
    let message = format!("{name} is set by the host for its own talk with the plugin");
    check
        .report(at, ProblemCode::ReservedVariable, location, message)
        .help("choose another name");
}
