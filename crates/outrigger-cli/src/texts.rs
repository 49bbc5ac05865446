//! Bytes that are text: written as text in data, shown as text beside a reply.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_gob::{Kind as GobKind, Value as GobValue};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::Value as Json;

use crate::failure::printable;
use crate::json;

/// Bytes, written as the text that they are: `{"@text": "hello"}`.
const TEXT: &str = "@text";
/// Bytes, written as the file that holds them: `{"@file": "PATH"}`.
const FILE: &str = "@file";

/// The largest file that becomes a part of a request, in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// The most texts that are shown beside one reply.
const MOST_SHOWN: usize = 16;
/// How much of one is shown, in characters.
const LONGEST_SHOWN: usize = 1000;
/// How many values of one reply are looked at.
const MOST_SEARCHED: usize = 10_000;

/// The bytes that a marked form stands for; nothing when `json` is none.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn marked(json: &Json) -> Result<Option<Vec<u8>>, String> {
    let Json::Object(members) = json else {
        return Ok(None);
    };
    let mut members = members.iter();
    match (members.next(), members.next()) {
        (Some((mark, Json::String(text))), None) if mark == TEXT => {
            Ok(Some(text.clone().into_bytes()))
        }
        (Some((mark, Json::String(path))), None) if mark == FILE => content(path).map(Some),
        _ => Ok(None),
    }
}

fn content(path: &str) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("`{}` could not be read: {error}", printable(path)))?;
    match bytes.len() as u64 > LARGEST_FILE {
        true => Err(format!("`{}` is larger than 1 GiB", printable(path))),
        false => Ok(bytes),
    }
}

/// Makes proto's own JSON, in which bytes are base64, of JSON with marked forms.
/// They are taken where the message has bytes, where an object has no other meaning.
///
/// # Errors
/// As [`marked`].
pub(crate) fn unmark(json: &mut Json, message: &MessageDescriptor) -> Result<(), String> {
    let name = message.full_name();
    if name == "google.protobuf.BytesValue" {
        return unmark_bytes(json);
    }
    // The others of this package have a JSON of their own, which knows no bytes.
    let (Json::Object(members), false) = (json, name.starts_with("google.protobuf.")) else {
        return Ok(());
    };
    for (key, value) in members {
        let field = message
            .get_field_by_json_name(key)
            .or_else(|| message.get_field_by_name(key));
        if let Some(field) = field {
            unmark_field(value, &field)?;
        }
    }
    Ok(())
}

fn unmark_field(json: &mut Json, field: &FieldDescriptor) -> Result<(), String> {
    match (field.kind(), json) {
        (Kind::Message(entry), Json::Object(members)) if field.is_map() => {
            let kind = entry.map_entry_value_field().kind();
            let mut values = members.values_mut();
            values.try_for_each(|value| unmark_single(value, &kind))
        }
        (kind, Json::Array(items)) if field.is_list() => items
            .iter_mut()
            .try_for_each(|item| unmark_single(item, &kind)),
        (kind, json) => unmark_single(json, &kind),
    }
}

fn unmark_single(json: &mut Json, kind: &Kind) -> Result<(), String> {
    match kind {
        Kind::Bytes => unmark_bytes(json),
        Kind::Message(message) => unmark(json, message),
        _ => Ok(()),
    }
}

fn unmark_bytes(json: &mut Json) -> Result<(), String> {
    if let Some(bytes) = marked(json)? {
        *json = Json::String(STANDARD.encode(bytes));
    }
    Ok(())
}

/// A place in a reply whose bytes are text, and that text; both safe to print.
pub(crate) type ReadableBytes = (String, String);

/// Where the bytes of a message are text.
pub(crate) fn of_message(message: &DynamicMessage) -> Vec<ReadableBytes> {
    let mut search = Search::default();
    search.message(message, "");
    search.found
}

/// Where the bytes of a net/rpc reply are text.
pub(crate) fn of_gob(value: &GobValue) -> Vec<ReadableBytes> {
    let mut search = Search::default();
    search.gob(value, "");
    search.found
}

#[derive(Default)]
struct Search {
    found: Vec<ReadableBytes>,
    looked: usize,
}

impl Search {
    /// Whether one more value may be looked at.
    fn go_on(&mut self) -> bool {
        self.looked += 1;
        self.looked <= MOST_SEARCHED && self.found.len() < MOST_SHOWN
    }

    fn bytes(&mut self, bytes: &[u8], path: &str) {
        let Some(text) = readable(bytes) else {
            return;
        };
        let count = text.chars().count();
        let mut shown = match text.char_indices().nth(LONGEST_SHOWN) {
            Some((end, _)) => json::line(&text[..end]),
            None => json::line(text),
        }
        .unwrap_or_default();
        if count > LONGEST_SHOWN {
            shown.push_str(&format!("… (+{} characters)", count - LONGEST_SHOWN));
        }
        let path = match path {
            "" => "the reply".to_owned(),
            path => printable(path),
        };
        self.found.push((path, shown));
    }

    fn message(&mut self, message: &DynamicMessage, path: &str) {
        for (field, value) in message.fields() {
            self.value(value, &within(path, field.json_name()));
        }
    }

    fn value(&mut self, value: &Value, path: &str) {
        if !self.go_on() {
            return;
        }
        match value {
            Value::Bytes(bytes) => self.bytes(bytes, path),
            Value::Message(message) => self.message(message, path),
            Value::List(items) => {
                for (at, item) in items.iter().enumerate().take(MOST_SEARCHED) {
                    self.value(item, &format!("{path}[{at}]"));
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries.iter().take(MOST_SEARCHED) {
                    self.value(value, &format!("{path}[{}]", key_text(key)));
                }
            }
            _ => {}
        }
    }

    fn gob(&mut self, value: &GobValue, path: &str) {
        if !self.go_on() {
            return;
        }
        match value {
            GobValue::Bytes(bytes) => self.bytes(bytes, path),
            GobValue::Array(list) | GobValue::Slice(list) => {
                for (at, item) in list.items.iter().enumerate().take(MOST_SEARCHED) {
                    self.gob(item, &format!("{path}[{at}]"));
                }
            }
            GobValue::Map(map) => {
                for (key, value) in map.entries.iter().take(MOST_SEARCHED) {
                    let key = json::line(&crate::fromgob::GobJson(key)).unwrap_or_default();
                    self.gob(value, &format!("{path}[{key}]"));
                }
            }
            GobValue::Struct(own) => {
                let GobKind::Struct { fields } = own.ty.kind() else {
                    return;
                };
                for ((name, _), value) in fields.iter().zip(&own.fields) {
                    if let Some(value) = value {
                        self.gob(value, &within(path, name));
                    }
                }
            }
            GobValue::Interface(held) => {
                if let Ok(Some(value)) = held.value() {
                    self.gob(&value, path);
                }
            }
            _ => {}
        }
    }
}

fn within(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => json::line(key).unwrap_or_default(),
    }
}

/// Bytes that people can read: text without control characters but line ends and tabs.
fn readable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    (!text.is_empty() && text.chars().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use prost_reflect::prost::Message as _;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions};
    use serde_json::json;

    use super::*;

    fn field(
        name: &str,
        number: i32,
        ty: Type,
        of: Option<&str>,
        label: Label,
    ) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(ty.into()),
            type_name: of.map(str::to_owned),
            ..Default::default()
        }
    }

    /// `M { bytes raw; repeated bytes many; map<string, bytes> named; M inner; Struct free; string text; BytesValue boxed }`
    fn message() -> MessageDescriptor {
        let entry = DescriptorProto {
            name: Some("NamedEntry".into()),
            field: vec![
                field("key", 1, Type::String, None, Label::Optional),
                field("value", 2, Type::Bytes, None, Label::Optional),
            ],
            options: Some(MessageOptions {
                map_entry: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        };
        let own = DescriptorProto {
            name: Some("M".into()),
            nested_type: vec![entry],
            field: vec![
                field("raw", 1, Type::Bytes, None, Label::Optional),
                field("many", 2, Type::Bytes, None, Label::Repeated),
                field(
                    "named",
                    3,
                    Type::Message,
                    Some(".t.M.NamedEntry"),
                    Label::Repeated,
                ),
                field("inner", 4, Type::Message, Some(".t.M"), Label::Optional),
                field(
                    "free",
                    5,
                    Type::Message,
                    Some(".google.protobuf.Struct"),
                    Label::Optional,
                ),
                field("text", 6, Type::String, None, Label::Optional),
                field(
                    "boxed",
                    7,
                    Type::Message,
                    Some(".google.protobuf.BytesValue"),
                    Label::Optional,
                ),
            ],
            ..Default::default()
        };
        let mut pool = DescriptorPool::global();
        pool.add_file_descriptor_proto(FileDescriptorProto {
            name: Some("t.proto".into()),
            package: Some("t".into()),
            syntax: Some("proto3".into()),
            dependency: vec![
                "google/protobuf/struct.proto".into(),
                "google/protobuf/wrappers.proto".into(),
            ],
            message_type: vec![own],
            ..Default::default()
        })
        .expect("sound descriptors");
        pool.get_message_by_name("t.M").expect("it is there")
    }

    #[test]
    fn marked_bytes_are_taken_wherever_a_message_has_bytes_and_nowhere_else() {
        let mut value = json!({
            "raw": {"@text": "hi"}, "many": [{"@text": "a"}, "Yg=="], "named": {"@text": {"@text": "c"}},
            "inner": {"raw": {"@text": "ü"}}, "free": {"raw": {"@text": "d"}}, "text": "@text",
            "boxed": {"@text": "e"}
        });
        unmark(&mut value, &message()).expect("no file");
        assert_eq!(
            value,
            json!({
                "raw": "aGk=", "many": ["YQ==", "Yg=="], "named": {"@text": "Yw=="},
                "inner": {"raw": "w7w="}, "free": {"raw": {"@text": "d"}}, "text": "@text",
                "boxed": "ZQ=="
            })
        );
        for other in [
            json!({"raw": {"@text": 1}}),
            json!({"raw": {"@text": "a", "@file": "b"}}),
            json!({"raw": {}}),
            json!([{"@text": "a"}]),
        ] {
            let mut same = other.clone();
            unmark(&mut same, &message()).expect("no file");
            assert_eq!(same, other);
        }
    }

    #[test]
    fn a_marked_file_gives_its_content_or_the_reason() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [0xff, 0]).expect("written");
        let mut value = json!({"raw": {"@file": file.path().display().to_string()}});
        unmark(&mut value, &message()).expect("readable");
        assert_eq!(value, json!({"raw": "/wA="}));
        let mut value = json!({"raw": {"@file": "/nonexistent/\u{1b}"}});
        let reason = unmark(&mut value, &message()).expect_err("no file");
        assert!(
            reason.starts_with("`/nonexistent/\\u{1b}` could not be read"),
            "{reason}"
        );
    }

    #[test]
    fn bytes_that_are_text_are_found_with_their_places() {
        let json = json!({
            "raw": {"@text": "a\u{202e}\n"}, "many": ["/w==", {"@text": "b"}, "AA==", ""],
            "named": {"k": {"@text": "c"}}, "inner": {"raw": {"@text": "d"}}
        });
        let mut own = json;
        unmark(&mut own, &message()).expect("no file");
        let read = DynamicMessage::deserialize(message(), own).expect("it fits");
        let read = DynamicMessage::decode(message(), &read.encode_to_vec()[..]).expect("decoded");
        let mut shown = of_message(&read);
        shown.sort();
        let shown: Vec<_> = shown
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("inner.raw", "\"d\""),
                ("many[1]", "\"b\""),
                ("named[\"k\"]", "\"c\""),
                ("raw", "\"a\\u202e\\n\"")
            ]
        );
    }

    #[test]
    fn what_is_shown_of_long_and_many_texts_is_bounded() {
        let many: Vec<Json> = (0..100).map(|_| json!("YQ==")).collect();
        let long = STANDARD.encode("x".repeat(5000));
        let read = |json: Json| DynamicMessage::deserialize(message(), json).expect("it fits");
        assert_eq!(of_message(&read(json!({"many": many}))).len(), MOST_SHOWN);
        let shown = of_message(&read(json!({"raw": long})));
        assert!(shown[0].1.ends_with("\"… (+4000 characters)"), "{shown:?}");
    }
}
