//! The field of a request that carries a broker id.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde_json::Value as Json;

/// Words in the names of fields that carry broker ids.
const TELLING: [&str; 11] = [
    "server", "service", "broker", "host", "callback", "helper", "handler", "listener", "provider",
    "conn", "dial",
];

/// A broker id and where it goes: through fields that hold messages to the last, a `uint32`.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) path: Vec<FieldDescriptor>,
    pub(crate) id: u32,
}

impl Fill {
    /// Sets it in a request, unless the JSON that it was made of says something.
    pub(crate) fn apply(&self, json: &Json, request: &mut DynamicMessage) {
        if !said(json, &self.path) {
            set(request, &self.path, self.id);
        }
    }
}

fn said(json: &Json, path: &[FieldDescriptor]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    let mut names = [first.name(), first.json_name()].into_iter();
    names
        .find_map(|name| json.get(name))
        .is_some_and(|within| said(within, rest))
}

fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], id: u32) {
    match path {
        [] => {}
        [last] => message.set_field(last, Value::U32(id)),
        [first, rest @ ..] => {
            if let Value::Message(inner) = message.get_field_mut(first) {
                set(inner, rest, id);
            }
        }
    }
}

/// The field that `names` lead to, if there is one that can hold a broker id.
pub(crate) fn named(message: &MessageDescriptor, names: &[String]) -> Option<Vec<FieldDescriptor>> {
    let (first, rest) = names.split_first()?;
    let field = message
        .get_field_by_name(first)
        .or_else(|| message.get_field_by_json_name(first))?;
    match (field.kind(), rest) {
        _ if field.is_list() || field.is_map() => None,
        (Kind::Uint32, []) => Some(vec![field]),
        (Kind::Message(inner), [_, ..]) => {
            let mut path = named(&inner, rest)?;
            path.insert(0, field);
            Some(path)
        }
        _ => None,
    }
}

/// The fields of `message` that could hold a broker id.
pub(crate) fn candidates(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    message
        .fields()
        .filter(|field| field.kind() == Kind::Uint32 && !field.is_list())
        .collect()
}

/// Whether the name of a field says that it carries a broker id.
pub(crate) fn telling(field: &FieldDescriptor) -> bool {
    let name = field.name().to_lowercase();
    TELLING.iter().any(|word| name.contains(word))
}
