//! Go's `interface {}`.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::decode::{Checker, Fit, Gob, Reader};
use crate::describe::Describe;
use crate::encode::{Encode, Encoder, MAX_ENCODE_DEPTH, Writer, type_of};
use crate::error::{DecodeError, EncodeError, EncodeErrorKind, excerpt};
use crate::limits::{Limits, MAX_INTERFACE_NAME};
use crate::stream::{Decoder, Encoded};
use crate::time::Time;
use crate::types::{Builtin, Ref};
use crate::value::{Complex, GoString, List, Value};

/// A type with a name under which Go programs know it in interfaces.
///
/// Go knows the names of its basic types and slices of them by itself; others
/// must be registered there with `gob.Register` or `gob.RegisterName`.
/// `#[gob(name = "main.Inner")]` implements this for a derived type.
pub trait Named: Gob {
    /// The registered name: `int`, `main.Inner`, `*pkg.Inner`.
    const NAME: &'static str;
}

/// A value of any type, with the name of its type, or nil.
///
/// What was received is looked into when it is asked for. Go programs refuse
/// names that they did not register.
///
/// ```
/// use outrigger_gob::Interface;
///
/// let value = Interface::from("hi");
/// assert_eq!(value.name(), Some("string"));
/// assert_eq!(value.get::<String>()?.as_deref(), Some("hi"));
/// assert!(value.get::<bool>().is_err());
/// assert_eq!(Interface::nil().get::<bool>()?, None);
/// # Ok::<(), outrigger_gob::DecodeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Interface(Option<Box<NamedContent>>);

#[derive(Clone)]
struct NamedContent {
    name: Cow<'static, str>,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Value(Value),
    Received(Encoded),
}

impl Interface {
    /// No value.
    pub fn nil() -> Interface {
        Interface(None)
    }

    /// A value of a type with a registered name.
    ///
    /// # Errors
    ///
    /// When the value cannot be sent.
    pub fn of<T: Named>(value: &T) -> Result<Interface, EncodeError> {
        let received = encoded(value)?;
        Ok(Interface::new(T::NAME, Content::Received(received)))
    }

    /// A dynamic value under a registered name. So are those of Go's types sent
    /// that have no Rust type of their own here: `complex64`, `uintptr`, and
    /// slices of these and of `complex128`.
    ///
    /// ```
    /// use outrigger_gob::{Complex, Interface, Value};
    ///
    /// let value = Complex { real: 1.0, imaginary: -0.5 };
    /// let value = Interface::named("complex64", Value::Complex(value));
    /// let address = Interface::named("uintptr", Value::Uint(4096));
    /// # drop((value, address));
    /// ```
    pub fn named(name: impl Into<Cow<'static, str>>, value: Value) -> Interface {
        Interface::new(name, Content::Value(value))
    }

    fn new(name: impl Into<Cow<'static, str>>, content: Content) -> Interface {
        Interface(Some(Box::new(NamedContent {
            name: name.into(),
            content,
        })))
    }

    /// Whether there is no value.
    pub fn is_nil(&self) -> bool {
        self.0.is_none()
    }

    /// The name of the type of the value; `None` for nil.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|held| &*held.name)
    }

    /// The value as a Rust type; `None` for nil. The name is not looked at:
    /// what is on the wire decides.
    ///
    /// # Errors
    ///
    /// As [`Encoded::decode`].
    pub fn get<T: Gob>(&self) -> Result<Option<T>, DecodeError> {
        let Some(held) = &self.0 else {
            return Ok(None);
        };
        let result = match &held.content {
            Content::Received(received) => received.decode(),
            Content::Value(value) => match encoded(value) {
                Ok(encoded) => encoded.decode(),
                Err(error) => Err(DecodeError::malformed(error.to_string())),
            },
        };
        result
            .map(Some)
            .map_err(|error| error.in_content(&held.name))
    }

    /// The value as it is; `None` for nil.
    ///
    /// # Errors
    ///
    /// As [`Encoded::to_value`].
    pub fn value(&self) -> Result<Option<Value>, DecodeError> {
        let Some(held) = &self.0 else {
            return Ok(None);
        };
        match &held.content {
            Content::Received(received) => received
                .to_value()
                .map(Some)
                .map_err(|error| error.in_content(&held.name)),
            Content::Value(value) => Ok(Some(value.clone())),
        }
    }

    /// The bytes, if it was received or came from [`Interface::of`].
    pub fn encoded(&self) -> Option<&Encoded> {
        match &self.0.as_ref()?.content {
            Content::Received(received) => Some(received),
            Content::Value(_) => None,
        }
    }
}

/// A value as it would be received.
fn encoded<T: Encode + ?Sized>(value: &T) -> Result<Encoded, EncodeError> {
    let mut bytes = BytesMut::new();
    let mut encoder = Encoder::new();
    encoder.encode(value, &mut bytes)?;
    // The bytes are ours.
    let limits = Limits {
        message: usize::MAX,
        memory: usize::MAX,
        types: usize::MAX,
        definitions: usize::MAX,
        depth: 2 * MAX_ENCODE_DEPTH,
    };
    let received = Decoder::new(limits).next(&mut bytes)?;
    let mut received = received.ok_or_else(|| DecodeError::malformed("an incomplete value"))?;
    // Sent twice on one stream, they are one type.
    received.identify(&encoder);
    Ok(received)
}

impl PartialEq for Interface {
    fn eq(&self, other: &Interface) -> bool {
        self.name() == other.name() && self.value() == other.value()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.value()) {
            (None, _) => f.write_str("nil"),
            (Some(held), Ok(Some(value))) => write!(f, "{}({value:?})", held.name),
            (Some(held), _) => write!(f, "{}(?)", held.name),
        }
    }
}

impl Encode for Interface {
    fn identity() -> TypeId {
        TypeId::of::<Interface>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::Interface)
    }

    fn is_zero(&self) -> bool {
        self.is_nil()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        let Some(held) = &self.0 else {
            to.uint(0);
            return Ok(());
        };
        let hint = held.content.size_hint();
        let result = match &held.content {
            Content::Value(Value::Interface(_)) => {
                Err(EncodeError::new(EncodeErrorKind::Mismatch {
                    expected: "a concrete type".into(),
                    found: "interface {}".into(),
                }))
            }
            Content::Value(value) => {
                to.interface(&held.name, &value.ty(), hint, |to| value.encode(to))
            }
            Content::Received(received) => {
                to.interface(&held.name, &received.ty(), hint, |to| received.encode(to))
            }
        };
        result.map_err(|error| error.in_content(&held.name))
    }

    fn size_hint(&self) -> usize {
        match &self.0 {
            None => 1,
            Some(held) => held.name.len() + 8 + held.content.size_hint(),
        }
    }
}

impl Content {
    fn size_hint(&self) -> usize {
        match self {
            Content::Value(value) => value.size_hint(),
            Content::Received(received) => received.size_hint(),
        }
    }
}

impl Gob for Interface {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::Interface, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<Interface, DecodeError> {
        let name = from.slice_of("a type name")?;
        if name.is_empty() {
            return Ok(Interface(None));
        }
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.len() <= MAX_INTERFACE_NAME)
            .ok_or_else(|| DecodeError::malformed(format!("the type name {}", excerpt(name))))?;
        let name = match known_name(name) {
            Some(known) => Cow::Borrowed(known),
            None => Cow::Owned(name.to_owned()),
        };
        from.charge(size_of::<NamedContent>() + name.len())?;
        let id = from.int()?;
        let bytes = from.bytes("an interface value")?;
        let received = Encoded::within(from, id, bytes)?;
        Ok(Interface::new(name, Content::Received(received)))
    }

    fn zero() -> Interface {
        Interface(None)
    }
}

/// The name without an allocation, if it is a common one.
fn known_name(name: &str) -> Option<&'static str> {
    const COMMON: [&str; 7] = [
        "string", "bool", "int", "int64", "uint64", "float64", "[]uint8",
    ];
    COMMON.into_iter().find(|&known| known == name)
}

macro_rules! scalars {
    ($($rust:ty, $name:literal, |$value:ident| $convert:expr;)*) => {$(
        impl Named for $rust {
            const NAME: &'static str = $name;
        }

        impl From<$rust> for Interface {
            fn from($value: $rust) -> Interface {
                Interface::named($name, $convert)
            }
        }
    )*};
}

scalars! {
    bool, "bool", |value| Value::Bool(value);
    i8, "int8", |value| Value::Int(value.into());
    i16, "int16", |value| Value::Int(value.into());
    i32, "int32", |value| Value::Int(value.into());
    i64, "int64", |value| Value::Int(value);
    isize, "int", |value| Value::Int(value as i64);
    u8, "uint8", |value| Value::Uint(value.into());
    u16, "uint16", |value| Value::Uint(value.into());
    u32, "uint32", |value| Value::Uint(value.into());
    u64, "uint64", |value| Value::Uint(value);
    usize, "uint", |value| Value::Uint(value as u64);
    f32, "float32", |value| Value::Float(value.into());
    f64, "float64", |value| Value::Float(value);
    Complex, "complex128", |value| Value::Complex(value);
    String, "string", |value| Value::String(value.into());
    GoString, "string", |value| Value::String(value);
    Bytes, "[]uint8", |value| Value::Bytes(value);
    Vec<u8>, "[]uint8", |value| Value::Bytes(value.into());
}

impl From<&str> for Interface {
    fn from(value: &str) -> Interface {
        Interface::named("string", Value::String(value.into()))
    }
}

impl From<&[u8]> for Interface {
    fn from(value: &[u8]) -> Interface {
        Interface::from(Bytes::copy_from_slice(value))
    }
}

impl Named for Time {
    const NAME: &'static str = "time.Time";
}

macro_rules! slices {
    ($($elem:ty, $name:literal, |$value:ident| $convert:expr;)*) => {$(
        impl Named for Vec<$elem> {
            const NAME: &'static str = $name;
        }

        impl From<Vec<$elem>> for Interface {
            fn from(items: Vec<$elem>) -> Interface {
                let items = items.into_iter().map(|$value| $convert).collect();
                let ty = type_of::<Vec<$elem>>().unwrap_or_else(|_| {
                    // Every element here has a static type.
                    crate::Type::slice(&crate::Type::builtin(Builtin::Interface))
                });
                Interface::named($name, Value::Slice(List { ty, items }))
            }
        }
    )*};
}

slices! {
    bool, "[]bool", |value| Value::Bool(value);
    i8, "[]int8", |value| Value::Int(value.into());
    i16, "[]int16", |value| Value::Int(value.into());
    i32, "[]int32", |value| Value::Int(value.into());
    i64, "[]int64", |value| Value::Int(value);
    isize, "[]int", |value| Value::Int(value as i64);
    u16, "[]uint16", |value| Value::Uint(value.into());
    u32, "[]uint32", |value| Value::Uint(value.into());
    u64, "[]uint64", |value| Value::Uint(value);
    usize, "[]uint", |value| Value::Uint(value as u64);
    f32, "[]float32", |value| Value::Float(value.into());
    f64, "[]float64", |value| Value::Float(value);
    String, "[]string", |value| Value::String(value.into());
    Interface, "[]interface {}", |value| Value::Interface(value);
}

impl Named for BTreeMap<String, Interface> {
    const NAME: &'static str = "map[string]interface {}";
}

impl Named for HashMap<String, Interface> {
    const NAME: &'static str = "map[string]interface {}";
}
