//! From JSON to gob: by a stated type, or by what the JSON implies.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use outrigger_gob::{
    Builtin, Complex, GoString, Interface, Kind, List, Map, OpaqueValue, Struct, Time, Type, Value,
    Width,
};
use serde_json::{Map as Object, Value as Json};

use crate::descriptors::shortened;
use crate::failure::{near, printable};
use crate::fromgob::{BASE64, OPAQUE, TYPE, VALUE};
use crate::gotype::{GoType, GoTypes};
use crate::texts;

/// Elements of arrays that may be made although the JSON does not hold them.
const MOST_ZEROS: usize = 1 << 20;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// JSON that is no value of its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Misfit {
    /// Where in the JSON: `$`, `$.Inner.Tags[2]`.
    pub(crate) path: String,
    /// What is wrong there.
    pub(crate) problem: String,
    pub(crate) help: Option<String>,
}

/// The argument of a call.
///
/// # Errors
/// The JSON does not fit the type.
pub(crate) fn argument(
    json: Option<&Json>,
    ty: Option<&GoType>,
    types: &GoTypes,
) -> Result<Value, Misfit> {
    let mut reader = Reader {
        types,
        path: vec!["$".to_owned()],
        zeros: MOST_ZEROS,
    };
    let json = json.unwrap_or(&Json::Null);
    match ty {
        Some(ty) => reader.stated(json, ty),
        None => reader.implied(json),
    }
}

struct Reader<'a> {
    types: &'a GoTypes,
    path: Vec<String>,
    /// How many more zeros may be made.
    zeros: usize,
}

impl Reader<'_> {
    fn misfit(&self, problem: impl Into<String>) -> Misfit {
        Misfit {
            path: self.path.concat(),
            problem: problem.into(),
            help: None,
        }
    }

    fn expected(&self, what: &str, found: &Json) -> Misfit {
        self.misfit(format!("expected {what}, found {}", shown(found)))
    }

    /// Does something one step further into the JSON.
    fn within<T>(
        &mut self,
        step: String,
        read: impl FnOnce(&mut Self) -> Result<T, Misfit>,
    ) -> Result<T, Misfit> {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    fn stated(&mut self, json: &Json, ty: &GoType) -> Result<Value, Misfit> {
        let described = self.types.describe(ty, depth(json) + 1);
        let described = described.ok_or_else(|| {
            self.misfit("its type contains itself other than through a field of a struct")
        })?;
        self.read(json, &described)
    }

    /// Top-level values are of basic types, not interfaces that hold them.
    fn implied(&mut self, json: &Json) -> Result<Value, Misfit> {
        if let Json::Array(items) = json {
            return self.implied_list(items);
        }
        if let Json::Object(object) = json
            && let Some(name) = object.get(TYPE)
        {
            let (_, value) = self.named(name, object)?;
            return Ok(value);
        }
        let held = self.interface(json)?;
        Ok(match held.value() {
            Ok(Some(value)) => value,
            _ => Value::Interface(held),
        })
    }

    /// Lists of one kind of scalar are slices of that, others of interfaces.
    fn implied_list(&mut self, items: &[Json]) -> Result<Value, Misfit> {
        let all = |is: fn(&Json) -> bool| !items.is_empty() && items.iter().all(is);
        let elem = if all(Json::is_boolean) {
            Builtin::Bool
        } else if all(Json::is_string) {
            Builtin::String
        } else if all(Json::is_i64) {
            Builtin::Int(Width::Machine)
        } else if all(Json::is_u64) {
            Builtin::Uint(Width::W64)
        } else if all(Json::is_number) {
            Builtin::Float64
        } else {
            Builtin::Interface
        };
        let items = Json::Array(items.to_vec());
        self.read(&items, &Type::slice(&Type::builtin(elem)))
    }

    /// What an interface holds, with the name of its type.
    fn interface(&mut self, json: &Json) -> Result<Interface, Misfit> {
        let any = || Type::builtin(Builtin::Interface);
        let (name, value) = match json {
            Json::Null => return Ok(Interface::nil()),
            Json::Bool(value) => return Ok(Interface::from(*value)),
            Json::String(text) => return Ok(Interface::from(text.clone())),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => ("int", Value::Int(value)),
                (None, Some(value), _) => ("uint64", Value::Uint(value)),
                (None, None, value) => ("float64", Value::Float(value.unwrap_or(f64::NAN))),
            },
            Json::Array(_) => ("[]interface {}", self.read(json, &Type::slice(&any()))?),
            Json::Object(object) => match object.get(TYPE) {
                Some(name) => {
                    let (name, value) = self.named(name, object)?;
                    return Ok(Interface::named(name, value));
                }
                None => {
                    let ty = Type::map(&Type::builtin(Builtin::String), &any());
                    ("map[string]interface {}", self.read(json, &ty)?)
                }
            },
        };
        Ok(Interface::named(name, value))
    }

    /// `{"@type": NAME, "value": …}`.
    fn named(
        &mut self,
        name: &Json,
        object: &Object<String, Json>,
    ) -> Result<(String, Value), Misfit> {
        if let Some(other) = object.keys().find(|key| *key != TYPE && *key != VALUE) {
            let problem = format!(
                "expected `{TYPE}` and `{VALUE}` only, found `{}` as well",
                printable(other)
            );
            let mut misfit = self.misfit(problem);
            misfit.help = Some(format!(
                "the map itself is `{{\"{TYPE}\": \"map[string]interface {{}}\", \"{VALUE}\": …}}`"
            ));
            return Err(misfit);
        }
        let found = self.within(format!(".{TYPE}"), |reader| match name {
            Json::String(name) => reader
                .types
                .in_interface(name)
                .map_err(|problem| reader.misfit(problem)),
            other => Err(reader.expected("the name of a type", other)),
        })?;
        let (name, ty) = found;
        let value = object.get(VALUE).unwrap_or(&Json::Null);
        let value = self.within(format!(".{VALUE}"), |reader| reader.stated(value, &ty))?;
        Ok((name, value))
    }

    fn read(&mut self, json: &Json, ty: &Type) -> Result<Value, Misfit> {
        if json.is_null() {
            return self.zero(ty);
        }
        match ty.kind() {
            Kind::Builtin(builtin) => self.builtin(json, builtin),
            Kind::Array { len, elem } => {
                let items = self.items(json, &elem, ty)?;
                if items.len() as u64 != len {
                    let problem = format!("expected {len} elements ({ty}), found {}", items.len());
                    return Err(self.misfit(problem));
                }
                Ok(Value::Array(List {
                    ty: ty.clone(),
                    items,
                }))
            }
            Kind::Slice { elem } => Ok(Value::Slice(List {
                items: self.items(json, &elem, ty)?,
                ty: ty.clone(),
            })),
            Kind::Map { key, elem } => self.map(json, ty, &key, &elem),
            Kind::Struct { .. } => self.structure(json, ty),
            Kind::Opaque(_) => self.opaque(json, ty),
        }
    }

    fn items(&mut self, json: &Json, elem: &Type, ty: &Type) -> Result<Vec<Value>, Misfit> {
        let Json::Array(items) = json else {
            return Err(self.expected(&format!("a list ({ty})"), json));
        };
        let items = items.iter().enumerate();
        items
            .map(|(at, item)| self.within(format!("[{at}]"), |reader| reader.read(item, elem)))
            .collect()
    }

    fn map(&mut self, json: &Json, ty: &Type, key: &Type, elem: &Type) -> Result<Value, Misfit> {
        let mut entries = Vec::new();
        match json {
            Json::Object(object) => {
                for (name, value) in object {
                    let entry = self.within(step(name), |reader| {
                        Ok((reader.key(name, key)?, reader.read(value, elem)?))
                    })?;
                    entries.push(entry);
                }
            }
            Json::Array(pairs) => {
                for (at, pair) in pairs.iter().enumerate() {
                    let entry = self.within(format!("[{at}]"), |reader| {
                        let Some((name, value)) = key_and_value(pair) else {
                            return Err(reader.expected(
                                &format!("an entry `{{\"key\": …, \"value\": …}}` of {ty}"),
                                pair,
                            ));
                        };
                        let name = reader.within(".key".into(), |reader| reader.read(name, key))?;
                        let value =
                            reader.within(".value".into(), |reader| reader.read(value, elem))?;
                        Ok((name, value))
                    })?;
                    entries.push(entry);
                }
            }
            _ => return Err(self.expected(&format!("an object ({ty})"), json)),
        }
        Ok(Value::Map(Map {
            ty: ty.clone(),
            entries,
        }))
    }

    /// The key of an entry from the name of a member.
    fn key(&mut self, name: &str, ty: &Type) -> Result<Value, Misfit> {
        let text = Json::String(name.to_owned());
        match ty.kind() {
            Kind::Builtin(Builtin::String | Builtin::Interface) => self.read(&text, ty),
            Kind::Builtin(Builtin::Bool) => match name {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(self.misfit(format!("expected the key `true` or `false` ({ty})"))),
            },
            // Integers and floats are taken from text anyway.
            Kind::Builtin(builtin) if !matches!(builtin, Builtin::Bytes) => {
                self.read(&text, ty).map_err(|misfit| Misfit {
                    problem: format!("as a key, {}", misfit.problem),
                    ..misfit
                })
            }
            _ => {
                let mut misfit =
                    self.misfit(format!("a member's name cannot be a key of type {ty}"));
                misfit.help = Some("write the map as `[{\"key\": …, \"value\": …}]`".to_owned());
                Err(misfit)
            }
        }
    }

    fn structure(&mut self, json: &Json, ty: &Type) -> Result<Value, Misfit> {
        let (Json::Object(object), Kind::Struct { fields }, Some(mut own)) =
            (json, ty.kind(), Struct::new(ty))
        else {
            return Err(self.expected(&format!("an object ({ty})"), json));
        };
        for (name, value) in object {
            let Some((_, field)) = fields.iter().find(|(field, _)| **field == **name) else {
                let mut misfit =
                    self.misfit(format!("there is no field `{}` in {ty}", printable(name)));
                let names = fields.iter().map(|(field, _)| &**field);
                misfit.help = Some(match near(name, names).first() {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        let fields: Vec<String> = fields
                            .iter()
                            .map(|(name, ty)| format!("{name} {ty}"))
                            .collect();
                        format!("its fields are {}", shortened(&fields, 24))
                    }
                });
                return Err(misfit);
            };
            if !value.is_null() {
                let value = self.within(step(name), |reader| reader.read(value, field))?;
                own.set(name, value);
            }
        }
        Ok(Value::Struct(own))
    }

    fn opaque(&mut self, json: &Json, ty: &Type) -> Result<Value, Misfit> {
        let encoded = json.get(OPAQUE).and_then(Json::as_str);
        if let Some(bytes) = encoded.and_then(base64) {
            return Ok(Value::Opaque(OpaqueValue {
                ty: ty.clone(),
                bytes: bytes.into(),
            }));
        }
        if !ty.is_time() {
            let what = format!("`{{\"{OPAQUE}\": BASE64}}` ({ty})");
            return Err(self.expected(&what, json));
        }
        let time = json.as_str().and_then(time);
        match time.map(Value::try_from) {
            Some(Ok(value)) => Ok(value),
            _ => Err(self.expected("a time such as \"2026-01-31T12:00:00Z\" (time.Time)", json)),
        }
    }

    fn builtin(&mut self, json: &Json, builtin: Builtin) -> Result<Value, Misfit> {
        let go = builtin.go_name();
        let expected = |what: &str| self.expected(&format!("{what} ({go})"), json);
        Ok(match builtin {
            Builtin::Interface => Value::Interface(self.interface(json)?),
            Builtin::Bool => Value::Bool(json.as_bool().ok_or_else(|| expected("true or false"))?),
            Builtin::Int(width) => {
                let value = integer(json).ok_or_else(|| expected("an integer"))?;
                let spare = 64 - width.bits();
                i64::try_from(value)
                    .ok()
                    .filter(|value| (value << spare) >> spare == *value)
                    .map(Value::Int)
                    .ok_or_else(|| expected("an integer in range"))?
            }
            Builtin::Uint(_) | Builtin::Uintptr => {
                let bits = match builtin {
                    Builtin::Uint(width) => width.bits(),
                    _ => 64,
                };
                let value = integer(json).ok_or_else(|| expected("an integer"))?;
                u64::try_from(value)
                    .ok()
                    .filter(|value| (value << (64 - bits)) >> (64 - bits) == *value)
                    .map(Value::Uint)
                    .ok_or_else(|| expected("an integer in range"))?
            }
            Builtin::Float32 | Builtin::Float64 => {
                let value = float(json).ok_or_else(|| expected("a number"))?;
                if builtin == Builtin::Float32
                    && value.is_finite()
                    && value.abs() > f64::from(f32::MAX)
                {
                    return Err(expected("a number in range"));
                }
                Value::Float(value)
            }
            Builtin::Complex64 | Builtin::Complex128 => {
                let part = |name: &str| json.get(name).and_then(float);
                match (part("re"), part("im")) {
                    (Some(real), Some(imaginary)) => Value::Complex(Complex { real, imaginary }),
                    _ => return Err(expected("`{\"re\": NUMBER, \"im\": NUMBER}`")),
                }
            }
            Builtin::Bytes => {
                let marked = texts::marked(json).map_err(|reason| self.misfit(reason))?;
                let bytes = marked.or_else(|| json.as_str().and_then(base64));
                let what = "base64, or `{\"@text\": TEXT}`";
                Value::Bytes(bytes.ok_or_else(|| expected(what))?.into())
            }
            Builtin::String => match json {
                Json::String(text) => Value::from(text.as_str()),
                other => match other.get(BASE64).and_then(Json::as_str).and_then(base64) {
                    Some(bytes) => Value::String(GoString::new(bytes)),
                    None => return Err(expected("a text")),
                },
            },
        })
    }

    fn zero(&mut self, ty: &Type) -> Result<Value, Misfit> {
        let builtin = match ty.kind() {
            Kind::Builtin(builtin) => builtin,
            Kind::Array { len, elem } => {
                let count = usize::try_from(len).unwrap_or(usize::MAX);
                if count > self.zeros {
                    return Err(
                        self.misfit(format!("{ty} has more elements than are made up here"))
                    );
                }
                self.zeros -= count;
                let items = (0..count)
                    .map(|_| self.zero(&elem))
                    .collect::<Result<_, _>>()?;
                return Ok(Value::Array(List {
                    ty: ty.clone(),
                    items,
                }));
            }
            Kind::Slice { .. } => {
                return Ok(Value::Slice(List {
                    ty: ty.clone(),
                    items: Vec::new(),
                }));
            }
            Kind::Map { .. } => {
                return Ok(Value::Map(Map {
                    ty: ty.clone(),
                    entries: Vec::new(),
                }));
            }
            Kind::Struct { .. } => {
                let zero = Struct::new(ty).map(Value::Struct);
                return zero.ok_or_else(|| self.misfit(format!("{ty} is no struct")));
            }
            Kind::Opaque(_) => {
                let zero = ty.is_time().then(|| Value::try_from(Time::ZERO).ok());
                return zero.flatten().ok_or_else(|| {
                    self.misfit(format!(
                        "expected `{{\"{OPAQUE}\": BASE64}}` ({ty}), found null"
                    ))
                });
            }
        };
        Ok(match builtin {
            Builtin::Bool => Value::Bool(false),
            Builtin::Int(_) => Value::Int(0),
            Builtin::Uint(_) | Builtin::Uintptr => Value::Uint(0),
            Builtin::Float32 | Builtin::Float64 => Value::Float(0.0),
            Builtin::Complex64 | Builtin::Complex128 => Value::Complex(Complex::default()),
            Builtin::Bytes => Value::Bytes(bytes::Bytes::new()),
            Builtin::String => Value::String(GoString::default()),
            Builtin::Interface => Value::Interface(Interface::nil()),
        })
    }
}

/// How many lists and objects lie within each other.
fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The step to a member, quoted where it is no plain name.
fn step(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    match plain {
        true => format!(".{name}"),
        false => format!("[{}]", outrigger_wire::Excerpt::new(name.as_bytes())),
    }
}

/// What was found, in few words.
fn shown(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => format!("the number {number}"),
        Json::String(text) => format!("the text {}", outrigger_wire::Excerpt::new(text.as_bytes())),
        Json::Array(items) => format!("a list of {}", items.len()),
        Json::Object(members) => {
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            format!(
                "an object with {}",
                match names.as_slice() {
                    [] => "no members".to_owned(),
                    names => outrigger_wire::Excerpt::new(names.join(", ").as_bytes()).to_string(),
                }
            )
        }
    }
}

fn key_and_value(pair: &Json) -> Option<(&Json, &Json)> {
    let object = pair.as_object().filter(|object| object.len() == 2)?;
    Some((object.get("key")?, object.get("value")?))
}

/// An integer, which may be written as text, as JSON does for large ones.
fn integer(json: &Json) -> Option<i128> {
    match json {
        Json::Number(number) => {
            let whole = |value: f64| {
                (value.fract() == 0.0 && value.abs() <= 2f64.powi(53)).then_some(value as i128)
            };
            number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .or_else(|| number.as_f64().and_then(whole))
        }
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|value: &f64| value.is_finite()),
        },
        _ => None,
    }
}

/// Base64 of either alphabet, padded or not, as in proto's JSON.
fn base64(text: &str) -> Option<Vec<u8>> {
    LENIENT
        .decode(text.replace('-', "+").replace('_', "/"))
        .ok()
}

/// A time of RFC 3339, with its offset.
fn time(text: &str) -> Option<Time> {
    let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?;
    Time::from_unix(seconds, nanos, offset(text)?)
}

/// The minutes at the end of a time; `None` within for `Z`.
fn offset(text: &str) -> Option<Option<i16>> {
    if text.ends_with(['Z', 'z']) {
        return Some(None);
    }
    let tail = text.get(text.len().checked_sub(6)?..)?;
    let (hours, minutes) = tail.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i16>().ok()? * 60 + minutes.parse::<i16>().ok()?;
    match tail.as_bytes().first()? {
        b'+' => Some(Some(minutes)),
        b'-' => Some(Some(-minutes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn types() -> GoTypes {
        let shape = "struct{Name string; Sides int8; Tags []string; Inner *main.Shape; \
                     At time.Time; Extra map[string]any; Raw []byte; Pair [2]float32}";
        GoTypes::new(&[
            ("main.Shape".into(), shape.into()),
            ("big.Int".into(), "gob.GobEncoder".into()),
        ])
        .expect("good types")
    }

    fn read(json: &Json, ty: Option<&str>) -> Result<Value, Misfit> {
        let types = types();
        let ty = ty.map(|ty| types.parse(ty).expect("a type"));
        let value = argument(Some(json), ty.as_ref(), &types)?;
        // What is read can be sent.
        let mut wire = bytes::BytesMut::new();
        let encoded = outrigger_gob::Encoder::new().encode(&value, &mut wire);
        encoded.unwrap_or_else(|error| panic!("{json}: {error}"));
        Ok(value)
    }

    #[test]
    fn without_a_type_the_data_implies_it() {
        for (json, ty) in [
            (json!(null), "interface {}"),
            (json!(true), "bool"),
            (json!(5), "int"),
            (json!(u64::MAX), "uint"),
            (json!(5.0), "float64"),
            (json!("x"), "string"),
            (json!([]), "[]interface {}"),
            (json!([true, false]), "[]bool"),
            (json!(["a"]), "[]string"),
            (json!([1, -2]), "[]int"),
            (json!([1, 2.5]), "[]float64"),
            (json!([1, u64::MAX]), "[]uint64"),
            (json!([1, "a"]), "[]interface {}"),
            (json!([null]), "[]interface {}"),
            (json!({}), "map[string]interface {}"),
            (json!({"@type": "[]byte", "value": "aGk="}), "[]uint8"),
        ] {
            let value = read(&json, None).expect("a value");
            assert_eq!(value.ty().to_string(), ty, "{json}");
        }
    }

    #[test]
    fn interfaces_hold_what_the_data_implies_or_states() {
        for (json, name) in [
            (json!(true), "bool"),
            (json!(5), "int"),
            (json!(u64::MAX), "uint64"),
            (json!(0.5), "float64"),
            (json!("x"), "string"),
            (json!(["x"]), "[]interface {}"),
            (json!({"a": 1}), "map[string]interface {}"),
            (json!({"@type": "uint8", "value": 7}), "uint8"),
            (json!({"@type": "[]string", "value": ["a"]}), "[]string"),
            (
                json!({"@type": "time.Time", "value": "2026-01-31T12:00:00+01:30"}),
                "time.Time",
            ),
            (json!({"@type": "main.Shape"}), "main.Shape"),
            (
                json!({"@type": "big.Int", "value": {"@opaque": "AgE="}}),
                "big.Int",
            ),
        ] {
            match read(&json, Some("any")).expect("a value") {
                Value::Interface(held) => assert_eq!(held.name(), Some(name), "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }

    #[test]
    fn structs_take_fields_by_name_however_deep() {
        let json = json!({
            "Name": "a", "Sides": "-128", "Tags": ["t"], "At": "0001-01-01T00:00:00Z", "Raw": "_-8",
            "Extra": {"n": 1}, "Pair": [1, "NaN"], "Inner": {"Inner": {"Name": "c"}, "Tags": null},
        });
        let Value::Struct(shape) = read(&json, Some("main.Shape")).expect("a value") else {
            panic!("no struct");
        };
        assert_eq!(shape.get("Sides"), Some(&Value::Int(-128)));
        assert_eq!(shape.get("Raw"), Some(&Value::from(vec![0xff, 0xef])));
        let Some(Value::Struct(inner)) = shape.get("Inner") else {
            panic!("no inner struct");
        };
        let Some(Value::Struct(innermost)) = inner.get("Inner") else {
            panic!("no innermost struct");
        };
        assert_eq!(innermost.get("Name"), Some(&Value::from("c")));
    }

    #[test]
    fn numbers_and_keys_are_read_in_the_width_of_their_type() {
        for (json, ty, value) in [
            (json!("9223372036854775807"), "int64", Value::Int(i64::MAX)),
            (json!(1e3), "uint16", Value::Uint(1000)),
            (
                json!("-Infinity"),
                "float64",
                Value::Float(f64::NEG_INFINITY),
            ),
            (
                json!({"re": 1, "im": -0.5}),
                "complex64",
                Value::Complex(Complex {
                    real: 1.0,
                    imaginary: -0.5,
                }),
            ),
        ] {
            assert_eq!(read(&json, Some(ty)), Ok(value), "{json}");
        }
        let Ok(Value::Map(map)) = read(&json!({"-3": "a"}), Some("map[int8]string")) else {
            panic!("no map");
        };
        assert_eq!(map.entries, [(Value::Int(-3), Value::from("a"))]);
        let pairs = json!([{"key": {"Name": "a"}, "value": true}]);
        read(&pairs, Some("map[struct{Name string}]bool")).expect("a map");
    }

    #[test]
    fn zeros_stand_for_null() {
        for ty in [
            "bool",
            "uint8",
            "float32",
            "complex128",
            "string",
            "[]byte",
            "[3][2]int",
            "[]int",
            "map[int]int",
            "main.Shape",
            "time.Time",
            "any",
            "struct{}",
        ] {
            read(&Json::Null, Some(ty)).expect(ty);
        }
        let misfit = read(&Json::Null, Some("[2000000][2000000]int")).expect_err("too many");
        assert!(misfit.problem.contains("more elements"));
    }

    #[test]
    fn what_does_not_fit_is_pointed_at_with_the_type_expected() {
        for (json, ty, path, problem) in [
            (
                json!(1),
                "string",
                "$",
                "expected a text (string), found the number 1",
            ),
            (
                json!({"Sides": 128}),
                "main.Shape",
                "$.Sides",
                "an integer in range (int8)",
            ),
            (
                json!({"Inner": {"Tags": ["a", 2]}}),
                "main.Shape",
                "$.Inner.Tags[1]",
                "a text (string)",
            ),
            (
                json!({"Sdies": 1}),
                "main.Shape",
                "$",
                "there is no field `Sdies` in main.Shape",
            ),
            (
                json!({"Pair": [1]}),
                "main.Shape",
                "$.Pair",
                "expected 2 elements ([2]float32), found 1",
            ),
            (
                json!({"At": "yesterday"}),
                "main.Shape",
                "$.At",
                "(time.Time), found the text \"yesterday\"",
            ),
            (
                json!({"At": "2026-01-01T00:00:00-00:01"}),
                "main.Shape",
                "$.At",
                "(time.Time)",
            ),
            (
                json!({"Raw": "?"}),
                "main.Shape",
                "$.Raw",
                "expected base64, or `{\"@text\": TEXT}` ([]uint8)",
            ),
            (
                json!({"a b": "x"}),
                "map[string]int",
                "$[\"a b\"]",
                "an integer (int)",
            ),
            (
                json!({"x": 1}),
                "map[int]int",
                "$.x",
                "as a key, expected an integer (int)",
            ),
            (json!([1]), "map[int]int", "$[0]", "an entry"),
            (
                json!({"v": {"@type": "nothing", "value": 1}}),
                "map[string]any",
                "$.v.@type",
                "unknown type",
            ),
            (json!({"@type": "int", "extra": 1}), "any", "$", "`extra`"),
            (
                json!({"@type": "int8", "value": 300}),
                "any",
                "$.value",
                "int8",
            ),
            (json!([[]]), "[]map[string]string", "$[0]", ""),
            (json!(1e300), "float32", "$", "in range (float32)"),
            (
                json!(1.5),
                "int",
                "$",
                "an integer (int), found the number 1.5",
            ),
            (json!(-1), "uint", "$", "in range (uint)"),
        ] {
            match read(&json, Some(ty)) {
                Err(misfit) => {
                    assert_eq!(misfit.path, path, "{json}");
                    assert!(
                        misfit.problem.contains(problem),
                        "{json}: {}",
                        misfit.problem
                    );
                }
                // An empty list is also an empty map.
                Ok(_) => assert!(problem.is_empty(), "{json}"),
            }
        }
    }
}
