//! What holds for all values and all bytes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use outrigger_gob::{
    Complex, Decoder, Encoder, GoString, Interface, Limits, List, Map, OpaqueKind, OpaqueValue,
    Struct, Type, Value, fuzzing,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Types of every kind.
fn any_type() -> impl Strategy<Value = Type> {
    let named = prop_oneof![
        Just("bool"),
        Just("int"),
        Just("int8"),
        Just("uint64"),
        Just("float64"),
        Just("complex128"),
        Just("string"),
        Just("[]byte"),
        Just("any"),
        Just("any"),
        Just("time.Time"),
    ]
    .prop_map(|text| text.parse().expect("a type"));
    named.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|elem| Type::slice(&elem)),
            (0_u64..3, inner.clone()).prop_map(|(len, elem)| Type::array(len, &elem)),
            (inner.clone(), inner.clone()).prop_map(|(key, elem)| Type::map(&key, &elem)),
            (prop_oneof![Just(""), Just("main.Point")], vec(inner, 0..4)).prop_map(
                |(name, types)| {
                    const NAMES: [&str; 4] = ["A", "Name", "Ü", "ID"];
                    Type::structure(name, NAMES.into_iter().zip(&types))
                }
            ),
            Just(Type::opaque("main.Coded", OpaqueKind::BinaryMarshaler)),
        ]
    })
}

/// A source of choices for [`value`].
type Choices<'a> = std::iter::Cycle<std::slice::Iter<'a, u64>>;

/// A value of a type.
fn value(ty: &Type, choices: &mut Choices<'_>, depth: usize) -> Value {
    use outrigger_gob::{Builtin, Kind};
    let mut next = || *choices.next().expect("it cycles");
    let builtin = match ty.kind() {
        Kind::Builtin(builtin) => builtin,
        Kind::Array { len, elem } => {
            let items = (0..len).map(|_| value(&elem, choices, depth + 1)).collect();
            return Value::Array(List {
                ty: ty.clone(),
                items,
            });
        }
        Kind::Slice { elem } => {
            let count = next() % 4;
            let items = (0..count)
                .map(|_| value(&elem, choices, depth + 1))
                .collect();
            return Value::Slice(List {
                ty: ty.clone(),
                items,
            });
        }
        Kind::Map { key, elem } => {
            let count = next() % 3;
            let mut one = || {
                (
                    value(&key, choices, depth + 1),
                    value(&elem, choices, depth + 1),
                )
            };
            let entries = (0..count).map(|_| one()).collect();
            return Value::Map(Map {
                ty: ty.clone(),
                entries,
            });
        }
        Kind::Struct { fields } => {
            let mut made = Struct::new(ty).expect("a struct");
            for (name, field) in fields {
                if !choices.next().expect("it cycles").is_multiple_of(3) {
                    made.set(&name, value(&field, choices, depth + 1));
                }
            }
            return Value::Struct(made);
        }
        Kind::Opaque(_) => {
            let bytes = Bytes::from(vec![7; (next() % 20) as usize]);
            return Value::Opaque(OpaqueValue {
                ty: ty.clone(),
                bytes,
            });
        }
    };
    match builtin {
        Builtin::Bool => Value::Bool(next() % 2 == 0),
        Builtin::Int(width) => {
            let spare = 64 - width.bits();
            Value::Int((next() as i64) << spare >> spare)
        }
        Builtin::Uint(width) => Value::Uint(next() >> (64 - width.bits())),
        Builtin::Uintptr => Value::Uint(next()),
        Builtin::Float32 | Builtin::Float64 => Value::Float(next() as f64 / 8.0),
        Builtin::Complex64 | Builtin::Complex128 => Value::Complex(Complex {
            real: next() as f64,
            imaginary: 0.0,
        }),
        Builtin::Bytes => Value::Bytes(vec![9; (next() % 2000) as usize].into()),
        Builtin::String => Value::String(GoString::new(vec![0xfe; (next() % 40) as usize])),
        Builtin::Interface => {
            const HELD: [&str; 5] = [
                "string",
                "[]any",
                "map[string]any",
                "struct { A any; B [1]any }",
                "time.Time",
            ];
            let choice = next();
            if choice % 4 == 0 || depth > 4 {
                return Value::Interface(Interface::nil());
            }
            let ty: Type = HELD[(choice / 4 % 5) as usize].parse().expect("a type");
            let content = value(&ty, choices, depth + 1);
            Value::Interface(Interface::named(format!("main.T{}", choice % 7), content))
        }
    }
}

/// The value without the fields that are left out because they are zero.
fn normal(value: Value) -> Value {
    let is_zero = |value: &Value| match value {
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Float(value) => *value == 0.0,
        Value::Complex(value) => *value == Complex::default(),
        Value::Bytes(value) => value.is_empty(),
        Value::String(value) => value.as_bytes().is_empty(),
        Value::Slice(list) => list.items.is_empty(),
        Value::Interface(value) => value.is_nil(),
        _ => false,
    };
    let all = |items: Vec<Value>| items.into_iter().map(normal).collect();
    match value {
        Value::Array(List { ty, items }) => Value::Array(List {
            ty,
            items: all(items),
        }),
        Value::Slice(List { ty, items }) => Value::Slice(List {
            ty,
            items: all(items),
        }),
        Value::Map(Map { ty, entries }) => Value::Map(Map {
            ty,
            entries: entries
                .into_iter()
                .map(|(key, value)| (normal(key), normal(value)))
                .collect(),
        }),
        Value::Struct(Struct { ty, fields }) => Value::Struct(Struct {
            ty,
            fields: fields
                .into_iter()
                .map(|field| field.filter(|value| !is_zero(value)).map(normal))
                .collect(),
        }),
        Value::Interface(interface) => match (interface.name(), interface.value()) {
            (Some(name), Ok(Some(value))) => {
                Value::Interface(Interface::named(name.to_owned(), normal(value)))
            }
            _ => Value::Interface(interface),
        },
        value => value,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn values_survive(types in vec(any_type(), 1..4), choices in vec(any::<u64>(), 1..64)) {
        let mut choices = choices.iter().cycle();
        let mut encoder = Encoder::new();
        let mut stream = BytesMut::new();
        let mut sent = Vec::new();
        for ty in types.iter().chain(&types) {
            let value = value(ty, &mut choices, 0);
            encoder.encode_value(&value, &mut stream).expect("encodable");
            sent.push(value);
        }
        let mut decoder = Decoder::new(Limits::default());
        for value in sent {
            let received = decoder.next(&mut stream).expect("a stream").expect("a value");
            prop_assert_eq!(received.to_value().expect("a value"), normal(value));
        }
        prop_assert!(stream.is_empty());
    }

    #[test]
    fn types_print_as_what_they_are(ty in any_type()) {
        let printed = ty.expanded().to_string();
        if !printed.contains("main.") {
            let read: Type = printed.parse().expect("a type");
            prop_assert_eq!(read.to_string(), printed);
            prop_assert_eq!(read, ty);
        }
    }

    #[test]
    fn maps_and_lists_survive(map: BTreeMap<String, Vec<i64>>, floats: Vec<f64>) {
        let mut stream = BytesMut::new();
        let mut encoder = Encoder::new();
        encoder.encode_pair(&map, &floats, &mut stream).expect("encodable");
        let mut decoder = Decoder::default();
        let mut next = || decoder.next(&mut stream).expect("a stream").expect("a value");
        prop_assert_eq!(next().decode(), Ok(map));
        let read: Vec<f64> = next().decode().expect("floats");
        prop_assert_eq!(
            read.iter().map(|f| f.to_bits()).collect::<Vec<_>>(),
            floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn arbitrary_bytes_keep_every_promise(bytes in vec(any::<u8>(), 0..200)) {
        fuzzing::gob_stream(&bytes);
    }

    /// Streams that are nearly right reach further than arbitrary bytes.
    #[test]
    fn damaged_streams_keep_every_promise(
        types in vec(any_type(), 1..3),
        choices in vec(any::<u64>(), 1..32),
        damage in vec((any::<Index>(), any::<u8>(), 0_u8..4), 1..5),
    ) {
        let mut choices = choices.iter().cycle();
        let mut encoder = Encoder::new();
        let mut stream = BytesMut::new();
        for ty in &types {
            let value = value(ty, &mut choices, 0);
            encoder.encode_value(&value, &mut stream).expect("encodable");
        }
        let mut stream = stream.to_vec();
        fuzzing::gob_stream(&stream);
        for (place, byte, what) in damage {
            if stream.is_empty() {
                break;
            }
            let place = place.index(stream.len());
            match what {
                0 => stream[place] = byte,
                1 => stream[place] = stream[place].wrapping_add(byte % 3).wrapping_sub(1),
                2 => stream.insert(place, byte),
                _ => {
                    stream.remove(place);
                }
            }
        }
        fuzzing::gob_stream(&stream);
    }
}
