//! Values whose type is only known when they arrive.

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::decode::{Checker, Fit, Gob, Reader, excerpt_type};
use crate::describe::Describe;
use crate::encode::{Encode, Encoder, Writer};
use crate::error::{DecodeError, EncodeError, EncodeErrorKind, array_length, excerpt, unchecked};
use crate::interface::Interface;
use crate::stream::Encoded;
use crate::time::Time;
use crate::types::{Builtin, DefKind, OpaqueKind, Reach, Ref, Type, Width};

/// Any value, with what is needed to send exactly the same again.
///
/// Numbers of all widths are one kind, as they are on the wire. What has a
/// definition on the wire carries its [`Type`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `bool`.
    Bool(bool),
    /// Any signed integer.
    Int(i64),
    /// Any unsigned integer.
    Uint(u64),
    /// `float32` and `float64`.
    Float(f64),
    /// `complex64` and `complex128`.
    Complex(Complex),
    /// `[]byte`.
    Bytes(Bytes),
    /// `string`.
    String(GoString),
    /// `[n]T`.
    Array(List),
    /// `[]T`.
    Slice(List),
    /// `map[K]V`.
    Map(Map),
    /// A struct.
    Struct(Struct),
    /// `interface {}`.
    Interface(Interface),
    /// A type that encodes itself.
    Opaque(OpaqueValue),
}

/// A Go string: bytes that are mostly, and need not be, UTF-8.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoString(Bytes);

impl GoString {
    /// A string of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> GoString {
        GoString(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its text, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Its text, with U+FFFD for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The bytes without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<&str> for GoString {
    fn from(text: &str) -> GoString {
        GoString(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for GoString {
    fn from(text: String) -> GoString {
        GoString(text.into())
    }
}

impl PartialEq<str> for GoString {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl PartialEq<&str> for GoString {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Debug for GoString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&excerpt(&self.0))
    }
}

impl fmt::Display for GoString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string_lossy())
    }
}

/// `complex128`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Complex {
    /// The real part.
    pub real: f64,
    /// The imaginary part.
    pub imaginary: f64,
}

/// The elements of an array or slice.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// The type of the whole.
    pub ty: Type,
    /// The elements.
    pub items: Vec<Value>,
}

/// The entries of a map, in the order in which they were received.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The type of the whole.
    pub ty: Type,
    /// Keys and values.
    pub entries: Vec<(Value, Value)>,
}

/// The fields of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    /// The type of the whole.
    pub ty: Type,
    /// One for each field of the type. `None` for a field that is not there,
    /// because it is zero or nil.
    pub fields: Vec<Option<Value>>,
}

impl Struct {
    /// A struct of this type without any field that is not zero; `None` if it
    /// is no struct type.
    pub fn new(ty: &Type) -> Option<Struct> {
        match ty.def().map(|def| &def.kind) {
            Some(DefKind::Struct { fields }) => Some(Struct {
                ty: ty.clone(),
                fields: vec![None; fields.len()],
            }),
            _ => None,
        }
    }

    /// The value of a field, if there is one and it is not zero.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(self.place(name)?)?.as_ref()
    }

    /// Sets a field; says whether there is one of this name.
    pub fn set(&mut self, name: &str, value: Value) -> bool {
        let place = self.place(name).and_then(|at| self.fields.get_mut(at));
        match place {
            Some(place) => {
                *place = Some(value);
                true
            }
            None => false,
        }
    }

    /// The names of the fields with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Value>)> {
        let names = match self.ty.def().map(|def| &def.kind) {
            Some(DefKind::Struct { fields }) => fields.as_slice(),
            _ => &[],
        };
        names
            .iter()
            .map(|field| &*field.name)
            .zip(self.fields.iter().map(Option::as_ref))
    }

    fn place(&self, name: &str) -> Option<usize> {
        match self.ty.def().map(|def| &def.kind) {
            Some(DefKind::Struct { fields }) => fields.iter().position(|f| *f.name == *name),
            _ => None,
        }
    }
}

/// A value of a type that encodes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OpaqueValue {
    /// The type.
    pub ty: Type,
    /// What it encoded itself as.
    pub bytes: Bytes,
}

impl OpaqueValue {
    /// The time, if this is a `time.Time`.
    pub fn to_time(&self) -> Option<Time> {
        self.ty
            .is_time()
            .then(|| Time::from_binary(&self.bytes).ok())?
    }
}

impl Value {
    /// The type of this value; for numbers the widest.
    pub fn ty(&self) -> Type {
        match self {
            Value::Bool(_) => Type::builtin(Builtin::Bool),
            Value::Int(_) => Type::builtin(Builtin::Int(Width::Machine)),
            Value::Uint(_) => Type::builtin(Builtin::Uint(Width::Machine)),
            Value::Float(_) => Type::builtin(Builtin::Float64),
            Value::Complex(_) => Type::builtin(Builtin::Complex128),
            Value::Bytes(_) => Type::builtin(Builtin::Bytes),
            Value::String(_) => Type::builtin(Builtin::String),
            Value::Interface(_) => Type::builtin(Builtin::Interface),
            Value::Array(list) | Value::Slice(list) => list.ty.clone(),
            Value::Map(map) => map.ty.clone(),
            Value::Struct(fields) => fields.ty.clone(),
            Value::Opaque(opaque) => opaque.ty.clone(),
        }
    }

    /// Its text, if it is a string in UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => text.to_str(),
            _ => None,
        }
    }

    fn zero(&self) -> bool {
        match self {
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Float(value) => *value == 0.0,
            Value::Complex(value) => value.is_zero(),
            Value::Bytes(value) => value.is_empty(),
            Value::String(value) => value.0.is_empty(),
            Value::Slice(list) => list.items.is_empty(),
            Value::Interface(value) => value.is_nil(),
            Value::Array(_) | Value::Map(_) | Value::Struct(_) | Value::Opaque(_) => false,
        }
    }

    /// Writes it as a value of the type `at`, of which `within` is made.
    fn write(&self, to: &mut Writer<'_>, within: &Type, at: Ref) -> Result<(), EncodeError> {
        let def = match at {
            Ref::Builtin(builtin) => return self.write_builtin(to, builtin),
            Ref::Defined(_) => within.table.as_ref().and_then(|table| table.def(at)),
        };
        let def = def.ok_or_else(|| EncodeError::new(EncodeErrorKind::Incomplete))?;
        match (&def.kind, self) {
            (DefKind::Array { elem, len }, Value::Array(list))
                if list.items.len() as u64 == *len =>
            {
                write_items(&list.items, to, within, *elem)
            }
            (DefKind::Slice { elem }, Value::Slice(list)) => {
                write_items(&list.items, to, within, *elem)
            }
            (DefKind::Map { key, elem }, Value::Map(map)) => {
                to.uint(map.entries.len() as u64);
                to.deeper(|to| {
                    for (k, v) in &map.entries {
                        k.write(to, within, *key).map_err(EncodeError::at_key)?;
                        v.write(to, within, *elem)
                            .map_err(EncodeError::at_element)?;
                    }
                    Ok(())
                })
            }
            (DefKind::Struct { fields }, Value::Struct(own))
                if own.fields.len() == fields.len()
                    && own
                        .iter()
                        .map(|(name, _)| name)
                        .eq(fields.iter().map(|f| &*f.name)) =>
            {
                let mut last = -1;
                to.deeper(|to| {
                    for (index, (field, value)) in fields.iter().zip(&own.fields).enumerate() {
                        let Some(value) = value.as_ref().filter(|value| !value.zero()) else {
                            continue;
                        };
                        let index = index as i64;
                        to.uint((index - last).cast_unsigned());
                        last = index;
                        value.write(to, within, field.ty).map_err(|error| {
                            error.within(def.name.own().to_owned(), field.name.to_string())
                        })?;
                    }
                    Ok(())
                })?;
                to.uint(0);
                Ok(())
            }
            (DefKind::Opaque(kind), Value::Opaque(own)) if matches!(own.ty.def().map(|def| &def.kind), Some(DefKind::Opaque(k)) if k == kind) =>
            {
                to.bytes(&own.bytes);
                Ok(())
            }
            _ => Err(self.is_no(&within.part(at))),
        }
    }

    fn write_builtin(&self, to: &mut Writer<'_>, builtin: Builtin) -> Result<(), EncodeError> {
        match (builtin, self) {
            (Builtin::Bool, Value::Bool(value)) => to.uint(u64::from(*value)),
            (Builtin::Int(width), Value::Int(value)) => {
                let spare = 64 - width.bits();
                if (value << spare) >> spare != *value {
                    return Err(does_not_fit(builtin, value));
                }
                to.int(*value);
            }
            (Builtin::Uint(width), Value::Uint(value)) => {
                let spare = 64 - width.bits();
                if (value << spare) >> spare != *value {
                    return Err(does_not_fit(builtin, value));
                }
                to.uint(*value);
            }
            (Builtin::Uintptr, Value::Uint(value)) => to.uint(*value),
            (Builtin::Float32, Value::Float(value)) => {
                if !fits_f32(*value) {
                    return Err(does_not_fit(builtin, format!("{value:?}")));
                }
                to.float(*value);
            }
            (Builtin::Float64, Value::Float(value)) => to.float(*value),
            (Builtin::Complex64 | Builtin::Complex128, Value::Complex(value)) => {
                to.float(value.real);
                to.float(value.imaginary);
            }
            (Builtin::Bytes, Value::Bytes(value)) => to.bytes(value),
            (Builtin::String, Value::String(value)) => to.bytes(&value.0),
            (Builtin::Interface, Value::Interface(value)) => return value.encode(to),
            _ => return Err(self.is_no(&Type::builtin(builtin))),
        }
        Ok(())
    }

    fn is_no(&self, expected: &Type) -> EncodeError {
        let found = match self {
            Value::Array(list) => format!("{} with {} elements", list.ty, list.items.len()),
            value => excerpt_type(&value.ty()),
        };
        EncodeError::new(EncodeErrorKind::Mismatch {
            expected: excerpt_type(expected),
            found,
        })
    }
}

/// Whether a `float32` can have this value, if less exactly.
pub(crate) fn fits_f32(value: f64) -> bool {
    !value.is_finite() || value.abs() <= f64::from(f32::MAX)
}

fn does_not_fit(builtin: Builtin, value: impl ToString) -> EncodeError {
    EncodeError::new(EncodeErrorKind::Range {
        expected: builtin.go_name(),
        found: value.to_string(),
    })
}

fn write_items(
    items: &[Value],
    to: &mut Writer<'_>,
    within: &Type,
    elem: Ref,
) -> Result<(), EncodeError> {
    to.uint(items.len() as u64);
    to.deeper(|to| {
        for (index, item) in items.iter().enumerate() {
            item.write(to, within, elem)
                .map_err(|error| error.at_index(index))?;
        }
        Ok(())
    })
}

impl Complex {
    pub(crate) fn is_zero(self) -> bool {
        self.real == 0.0 && self.imaginary == 0.0
    }
}

impl Encode for Value {
    fn identity() -> TypeId {
        TypeId::of::<Value>()
    }

    fn describe(types: &mut Describe) -> Ref {
        types.unsupported("a dynamic value")
    }

    fn is_zero(&self) -> bool {
        self.zero()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        let ty = self.ty();
        self.write(to, &ty, ty.at)
    }

    fn size_hint(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len() + 4,
            Value::String(text) => text.0.len() + 4,
            Value::Opaque(opaque) => opaque.bytes.len() + 4,
            Value::Interface(value) => value.size_hint(),
            Value::Map(map) => map
                .entries
                .iter()
                .map(|(key, value)| key.size_hint() + value.size_hint())
                .sum(),
            Value::Array(list) | Value::Slice(list) => {
                list.items.iter().map(Encode::size_hint).sum()
            }
            Value::Struct(fields) => fields.fields.iter().flatten().map(Encode::size_hint).sum(),
            _ => 1,
        }
    }

    fn dynamic(&self) -> Option<Type> {
        Some(self.ty())
    }
}

impl Gob for Value {
    fn check(_: &mut Checker<'_>, _: Ref) -> Result<Fit, DecodeError> {
        Ok(Fit::Fits)
    }

    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Value, DecodeError> {
        let builtin = match received {
            Ref::Builtin(builtin) => builtin,
            Ref::Defined(_) => return defined(from, received),
        };
        Ok(match builtin {
            Builtin::Bool => Value::Bool(from.uint()? != 0),
            Builtin::Int(_) => Value::Int(from.int()?),
            Builtin::Uint(_) | Builtin::Uintptr => Value::Uint(from.uint()?),
            Builtin::Float32 | Builtin::Float64 => Value::Float(from.float()?),
            Builtin::Complex64 | Builtin::Complex128 => Value::Complex(Complex {
                real: from.float()?,
                imaginary: from.float()?,
            }),
            Builtin::Bytes => Value::Bytes(from.bytes("a byte slice")?),
            Builtin::String => Value::String(GoString(from.bytes("a string")?)),
            Builtin::Interface => Value::Interface(Interface::decode(from, received)?),
        })
    }

    fn zero() -> Value {
        Value::Interface(Interface::nil())
    }
}

fn defined(from: &mut Reader<'_>, received: Ref) -> Result<Value, DecodeError> {
    let table = from.table();
    let ty = Type::new(table, received);
    let def = table.def(received).ok_or_else(unchecked)?;
    match &def.kind {
        DefKind::Array { elem, len } => {
            let items = items(from, *elem)?;
            if items.len() as u64 != *len {
                let error = array_length(items.len() as u64, *len);
                return Err(error.at(from.offset()));
            }
            Ok(Value::Array(List { ty, items }))
        }
        DefKind::Slice { elem } => {
            let items = items(from, *elem)?;
            Ok(Value::Slice(List { ty, items }))
        }
        DefKind::Map { key, elem } => {
            let (count, room) = from.count(2 * size_of::<Value>(), 2)?;
            let entries = from.deeper(|from| {
                let mut entries = Vec::with_capacity(room);
                for _ in 0..count {
                    let k = Value::decode(from, *key).map_err(DecodeError::at_key)?;
                    let v = Value::decode(from, *elem).map_err(DecodeError::at_element)?;
                    entries.push((k, v));
                }
                Ok(entries)
            })?;
            Ok(Value::Map(Map { ty, entries }))
        }
        DefKind::Struct { fields } => {
            from.charge(fields.len().saturating_mul(size_of::<Value>()))?;
            let mut values: Vec<Option<Value>> = Vec::new();
            values.resize(fields.len(), None);
            from.deeper(|from| {
                let mut next = 0;
                while let Some(at) = from.next_field(next, fields.len())? {
                    next = at + 1;
                    let field = fields.get(at).ok_or_else(unchecked)?;
                    let value = Value::decode(from, field.ty).map_err(|error| {
                        error.within(def.name.own().to_owned(), field.name.to_string())
                    })?;
                    if let Some(place) = values.get_mut(at) {
                        *place = Some(value);
                    }
                }
                Ok(())
            })?;
            Ok(Value::Struct(Struct { ty, fields: values }))
        }
        DefKind::Opaque(_) => {
            let bytes = from.bytes("an encoded value")?;
            Ok(Value::Opaque(OpaqueValue { ty, bytes }))
        }
    }
}

fn items(from: &mut Reader<'_>, elem: Ref) -> Result<Vec<Value>, DecodeError> {
    let (count, room) = from.count(size_of::<Value>(), 1)?;
    from.deeper(|from| {
        let mut items = Vec::with_capacity(room);
        for index in 0..count {
            items.push(Value::decode(from, elem).map_err(|error| error.at_index(index))?);
        }
        Ok(items)
    })
}

impl Encode for GoString {
    fn identity() -> TypeId {
        TypeId::of::<String>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::String)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.bytes(&self.0);
        Ok(())
    }

    fn size_hint(&self) -> usize {
        self.0.len() + 4
    }
}

impl Gob for GoString {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::String, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<GoString, DecodeError> {
        from.bytes("a string").map(GoString)
    }

    fn zero() -> GoString {
        GoString::default()
    }
}

macro_rules! from {
    ($($rust:ty => |$value:ident| $convert:expr;)*) => {$(
        impl From<$rust> for Value {
            fn from($value: $rust) -> Value {
                $convert
            }
        }
    )*};
}

from! {
    bool => |value| Value::Bool(value);
    i64 => |value| Value::Int(value);
    u64 => |value| Value::Uint(value);
    f64 => |value| Value::Float(value);
    Complex => |value| Value::Complex(value);
    &str => |value| Value::String(value.into());
    String => |value| Value::String(value.into());
    GoString => |value| Value::String(value);
    Bytes => |value| Value::Bytes(value);
    Vec<u8> => |value| Value::Bytes(value.into());
    Interface => |value| Value::Interface(value);
    List => |value| match value.ty.def().map(|def| &def.kind) {
        Some(DefKind::Array { .. }) => Value::Array(value),
        _ => Value::Slice(value),
    };
    Map => |value| Value::Map(value);
    Struct => |value| Value::Struct(value);
    OpaqueValue => |value| Value::Opaque(value);
}

impl TryFrom<Time> for Value {
    type Error = EncodeError;

    fn try_from(time: Time) -> Result<Value, EncodeError> {
        Ok(Value::Opaque(OpaqueValue {
            ty: Type::time(),
            bytes: crate::Opaque::to_bytes(&time)
                .map_err(|reason| {
                    let name = "time.Time";
                    EncodeError::new(EncodeErrorKind::Refused { name, reason })
                })?
                .into(),
        }))
    }
}

impl OpaqueKind {
    /// Its name in Go.
    pub fn go_name(self) -> &'static str {
        match self {
            OpaqueKind::GobEncoder => "gob.GobEncoder",
            OpaqueKind::BinaryMarshaler => "encoding.BinaryMarshaler",
            OpaqueKind::TextMarshaler => "encoding.TextMarshaler",
        }
    }
}

impl Encoder {
    /// As [`Encoder::encode`], for a dynamic value.
    ///
    /// # Errors
    ///
    /// When the value is not of its own type.
    pub fn encode_value(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode(value, out)
    }
}

impl Encoded {
    /// Reads the value without knowing its type.
    ///
    /// # Errors
    ///
    /// As [`Encoded::decode`].
    pub fn to_value(&self) -> Result<Value, DecodeError> {
        self.decode()
    }
}

/// What was received can be sent on, on any stream; types get new ids.
impl Encode for Encoded {
    fn identity() -> TypeId {
        TypeId::of::<Encoded>()
    }

    fn describe(types: &mut Describe) -> Ref {
        types.unsupported("a received value")
    }

    fn is_zero(&self) -> bool {
        false
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        if self.reach() == Reach::Plain {
            to.raw(self.bytes());
            return Ok(());
        }
        // Interfaces hold type ids of the stream they came from.
        self.to_value()?.encode(to)
    }

    fn size_hint(&self) -> usize {
        self.len()
    }

    fn dynamic(&self) -> Option<Type> {
        Some(self.ty())
    }
}
