//! From gob to JSON, in the order in which the fields were declared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_gob::{Builtin, Interface, Kind, Map, OpaqueValue, Struct, Time, Type, Value};
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};

/// The largest integer that every reader of JSON takes exactly.
const EXACT: u64 = (1 << 53) - 1;

/// Says the type of a value that an interface holds.
pub(crate) const TYPE: &str = "@type";
/// The value whose type [`TYPE`] says.
pub(crate) const VALUE: &str = "value";
/// Bytes of a string that is not UTF-8.
pub(crate) const BASE64: &str = "@base64";
/// Bytes of a type that encodes itself.
pub(crate) const OPAQUE: &str = "@opaque";

/// A value as JSON.
pub(crate) struct GobJson<'a>(pub(crate) &'a Value);

impl Serialize for GobJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Int(value) if value.unsigned_abs() <= EXACT => to.serialize_i64(*value),
            Value::Int(value) => to.collect_str(value),
            Value::Uint(value) if *value <= EXACT => to.serialize_u64(*value),
            Value::Uint(value) => to.collect_str(value),
            Value::Float(value) => float(*value, to),
            Value::Complex(value) => {
                let mut parts = to.serialize_map(Some(2))?;
                parts.serialize_entry("re", &GobJson(&Value::Float(value.real)))?;
                parts.serialize_entry("im", &GobJson(&Value::Float(value.imaginary)))?;
                parts.end()
            }
            Value::Bytes(bytes) => to.serialize_str(&STANDARD.encode(bytes)),
            Value::String(text) => match text.to_str() {
                Some(text) => to.serialize_str(text),
                None => marked(BASE64, text.as_bytes(), to),
            },
            Value::Array(list) | Value::Slice(list) => {
                to.collect_seq(list.items.iter().map(GobJson))
            }
            Value::Map(entries) => map(entries, to),
            Value::Struct(fields) => structure(fields, to),
            Value::Interface(held) => interface(held, to),
            Value::Opaque(opaque) => opaque_value(opaque, to),
        }
    }
}

fn float<S: Serializer>(value: f64, to: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        to.serialize_str("NaN")
    } else if value.is_infinite() {
        to.serialize_str(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        to.serialize_f64(value)
    }
}

fn marked<S: Serializer>(mark: &str, bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let mut object = to.serialize_map(Some(1))?;
    object.serialize_entry(mark, &STANDARD.encode(bytes))?;
    object.end()
}

/// An object where keys are names or integers, else a list of entries.
fn map<S: Serializer>(map: &Map, to: S) -> Result<S::Ok, S::Error> {
    let named: Option<Vec<(String, &Value)>> = map
        .entries
        .iter()
        .map(|(key, value)| {
            let key = match key {
                Value::Bool(key) => key.to_string(),
                Value::Int(key) => key.to_string(),
                Value::Uint(key) => key.to_string(),
                Value::String(key) => key.to_str()?.to_owned(),
                _ => return None,
            };
            Some((key, value))
        })
        .collect();
    let Some(mut named) = named else {
        return to.collect_seq(map.entries.iter().map(Entry));
    };
    // A Go program sends them in another order each time.
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    to.collect_map(named.iter().map(|(key, value)| (key, GobJson(value))))
}

struct Entry<'a>(&'a (Value, Value));

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (key, value) = self.0;
        let mut entry = to.serialize_map(Some(2))?;
        entry.serialize_entry("key", &GobJson(key))?;
        entry.serialize_entry("value", &GobJson(value))?;
        entry.end()
    }
}

fn structure<S: Serializer>(own: &Struct, to: S) -> Result<S::Ok, S::Error> {
    let Kind::Struct { fields } = own.ty.kind() else {
        return Err(S::Error::custom("a struct whose type is none"));
    };
    let mut object = to.serialize_map(Some(fields.len()))?;
    for ((name, ty), value) in fields.iter().zip(&own.fields) {
        match value {
            Some(value) => object.serialize_entry(&**name, &GobJson(value))?,
            None => object.serialize_entry(&**name, &Zero(ty))?,
        }
    }
    object.end()
}

/// A field that was left out: zero, or nil where only nil is left out.
struct Zero<'a>(&'a Type);

impl Serialize for Zero<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.kind() {
            Kind::Builtin(Builtin::Bool) => to.serialize_bool(false),
            Kind::Builtin(Builtin::Int(_) | Builtin::Uint(_) | Builtin::Uintptr) => {
                to.serialize_i64(0)
            }
            Kind::Builtin(Builtin::Float32 | Builtin::Float64) => to.serialize_f64(0.0),
            Kind::Builtin(Builtin::Complex64 | Builtin::Complex128) => {
                GobJson(&Value::Complex(Default::default())).serialize(to)
            }
            Kind::Builtin(Builtin::Bytes | Builtin::String) => to.serialize_str(""),
            Kind::Slice { .. } => to.collect_seq(std::iter::empty::<()>()),
            Kind::Opaque(_) if self.0.is_time() => match rfc3339(&Time::ZERO) {
                Some(text) => to.serialize_str(&text),
                None => to.serialize_none(),
            },
            // Arrays, maps and structs are sent even when they are zero.
            Kind::Builtin(Builtin::Interface)
            | Kind::Array { .. }
            | Kind::Map { .. }
            | Kind::Struct { .. }
            | Kind::Opaque(_) => to.serialize_none(),
        }
    }
}

/// The value it holds; with its type where the JSON would not imply that.
fn interface<S: Serializer>(held: &Interface, to: S) -> Result<S::Ok, S::Error> {
    let value = held.value().map_err(S::Error::custom)?;
    let (Some(name), Some(value)) = (held.name(), value) else {
        return to.serialize_none();
    };
    if implied(name, &value) {
        return GobJson(&value).serialize(to);
    }
    let mut object = to.serialize_map(Some(2))?;
    object.serialize_entry(TYPE, name)?;
    object.serialize_entry(VALUE, &GobJson(&value))?;
    object.end()
}

/// Whether the value's JSON leads back to the type called `name`.
fn implied(name: &str, value: &Value) -> bool {
    let any = |ty: &Type| matches!(ty.kind(), Kind::Builtin(Builtin::Interface));
    match (name, value) {
        ("bool", Value::Bool(_)) => true,
        ("int", Value::Int(value)) => value.unsigned_abs() <= EXACT,
        ("float64", Value::Float(value)) => value.is_finite(),
        ("string", Value::String(text)) => text.to_str().is_some(),
        ("[]interface {}", Value::Slice(list)) => {
            matches!(list.ty.kind(), Kind::Slice { elem } if any(&elem))
        }
        ("map[string]interface {}", Value::Map(map)) => {
            let plain = |key: &Value| key.as_str().is_some_and(|key| key != TYPE);
            matches!(map.ty.kind(), Kind::Map { elem, .. } if any(&elem))
                && map.entries.iter().all(|(key, _)| plain(key))
        }
        _ => false,
    }
}

fn opaque_value<S: Serializer>(opaque: &OpaqueValue, to: S) -> Result<S::Ok, S::Error> {
    match opaque.to_time().as_ref().and_then(rfc3339) {
        Some(text) => to.serialize_str(&text),
        None => marked(OPAQUE, &opaque.bytes, to),
    }
}

/// The time as RFC 3339 writes it, in its own time zone where that can be said.
fn rfc3339(time: &Time) -> Option<String> {
    let nanos = i32::try_from(time.nanoseconds()).ok()?;
    let instant = jiff::Timestamp::new(time.unix_seconds(), nanos).ok()?;
    let offset = time
        .offset_seconds()
        .filter(|offset| offset % 60 == 0)
        .and_then(|offset| jiff::tz::Offset::from_seconds(offset).ok());
    let text = match offset {
        Some(offset) => instant.display_with_offset(offset).to_string(),
        None => instant.to_string(),
    };
    text.starts_with(|c: char| c.is_ascii_digit())
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use outrigger_gob::{Complex, Decoder, Encoder, GoString, Limits};
    use serde_json::json;

    use super::*;
    use crate::gotype::GoTypes;

    /// As it is printed after it crossed the wire.
    fn crossed(value: &Value) -> String {
        let mut wire = BytesMut::new();
        Encoder::new().encode(value, &mut wire).expect("encoded");
        let received = Decoder::new(Limits::default())
            .next(&mut wire)
            .expect("gob")
            .expect("a value");
        let value = received.to_value().expect("a value");
        crate::json::line(&GobJson(&value)).expect("JSON")
    }

    fn read(json: &serde_json::Value, ty: Option<&str>) -> Value {
        let shape = "struct{Name string; Sides int8; Tags []string; Inner *main.Shape; \
                     At time.Time; Extra map[string]any; Ok bool; Raw []byte; X float32; Any any}";
        let types = GoTypes::new(&[("main.Shape".into(), shape.into())]).expect("good types");
        let ty = ty.map(|ty| types.parse(ty).expect("a type"));
        crate::togob::argument(Some(json), ty.as_ref(), &types).expect("a value")
    }

    #[test]
    fn scalars_are_written_so_that_every_reader_takes_them() {
        for (value, text) in [
            (Value::Int(9_007_199_254_740_991), "9007199254740991"),
            (Value::Int(9_007_199_254_740_992), "\"9007199254740992\""),
            (Value::Int(i64::MIN), "\"-9223372036854775808\""),
            (Value::Uint(u64::MAX), "\"18446744073709551615\""),
            (Value::Float(f64::NAN), "\"NaN\""),
            (Value::Float(f64::NEG_INFINITY), "\"-Infinity\""),
            (Value::Float(3.0), "3.0"),
            (
                Value::Complex(Complex {
                    real: 1.0,
                    imaginary: -2.5,
                }),
                "{\"re\":1.0,\"im\":-2.5}",
            ),
            (Value::from(b"hello".to_vec()), "\"aGVsbG8=\""),
            (
                Value::String(GoString::new(&b"\xff"[..])),
                "{\"@base64\":\"/w==\"}",
            ),
            (Value::Interface(Interface::nil()), "null"),
        ] {
            assert_eq!(crossed(&value), text);
        }
    }

    #[test]
    fn fields_that_were_left_out_are_zero_and_stand_in_their_order() {
        let empty = crossed(&read(&json!({"Inner": {}}), Some("main.Shape")));
        let zero = "\"Name\":\"\",\"Sides\":0,\"Tags\":[],";
        let rest = "\"At\":\"0001-01-01T00:00:00Z\",\"Extra\":null,\"Ok\":false,\"Raw\":\"\",\"X\":0.0,\"Any\":null";
        assert_eq!(
            empty,
            format!("{{{zero}\"Inner\":{{{zero}\"Inner\":null,{rest}}},{rest}}}")
        );
    }

    #[test]
    fn interfaces_say_their_type_only_where_json_does_not() {
        for json in [
            json!(null),
            json!(true),
            json!(-7),
            json!(1.5),
            json!(2.0),
            json!("x"),
            json!([1, "a", [null]]),
            json!({"a": {"b": 1}}),
            json!({"@type": "uint8", "value": 7}),
            json!({"@type": "int", "value": "9007199254740993"}),
            json!({"@type": "float64", "value": "NaN"}),
            json!({"@type": "[]string", "value": ["a"]}),
            json!({"@type": "time.Time", "value": "2026-01-31T12:00:00.5+01:30"}),
            json!({"@type": "time.Time", "value": "2026-01-31T12:00:00Z"}),
            json!({"@type": "map[string]interface {}", "value": {"@type": "x"}}),
            json!({"@type": "string", "value": {"@base64": "/w=="}}),
        ] {
            assert_eq!(crossed(&read(&json, Some("any"))), json.to_string());
        }
    }

    #[test]
    fn maps_are_objects_where_their_keys_can_be_names() {
        for (json, ty) in [
            (json!({"-1": "a", "2": "b"}), "map[int]string"),
            (json!({"true": 1}), "map[bool]int"),
            (
                json!([{"key": {"A": 1}, "value": "x"}]),
                "map[struct{A int}]string",
            ),
            (json!([{"key": 0.5, "value": 1}]), "map[float64]int"),
        ] {
            let text = crossed(&read(&json, Some(ty)));
            let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(back, json);
        }
    }

    #[test]
    fn what_encodes_itself_is_shown_as_it_is() {
        let types = GoTypes::new(&[("big.Int".into(), "gob.GobEncoder".into())]).expect("types");
        let ty = types.parse("big.Int").expect("a type");
        let json = json!({"@opaque": "AgE="});
        let value = crate::togob::argument(Some(&json), Some(&ty), &types).expect("a value");
        assert_eq!(crossed(&value), json.to_string());
    }

    #[test]
    fn a_small_reply_that_becomes_a_large_text_is_given_up() {
        let fields: Vec<(String, Type)> = (0..40_000)
            .map(|n| (format!("F{n}"), Type::builtin(Builtin::Bool)))
            .collect();
        let ty = Type::structure("main.Wide", fields.iter().map(|(name, ty)| (&**name, ty)));
        let one = Value::Struct(Struct::new(&ty).expect("a struct"));
        let items = vec![Value::from(Interface::named("main.Wide", one)); 3];
        let ty = Type::slice(&Type::builtin(Builtin::Interface));
        let value = Value::Slice(outrigger_gob::List { ty, items });
        let error = crate::json::line_within(&GobJson(&value), 1 << 20).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "it takes more than 1048576 bytes as JSON"
        );
    }
}
