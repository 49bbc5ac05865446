//! Gob for the types of the standard library.

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use bytes::Bytes;

use crate::decode::{Checker, Fit, Gob, Reader};
use crate::describe::Describe;
use crate::encode::{Encode, Writer};
use crate::error::{DecodeError, EncodeError, EncodeErrorKind, out_of_range};
use crate::types::{Builtin, Ref, Width};
use crate::value::{Complex, fits_f32};

macro_rules! number {
    ($($rust:ty, $builtin:expr, $hint:literal, $write:expr, $read:expr;)*) => {$(
        impl Encode for $rust {
            fn identity() -> TypeId {
                TypeId::of::<$rust>()
            }

            fn describe(_: &mut Describe) -> Ref {
                Ref::Builtin($builtin)
            }

            #[inline]
            fn is_zero(&self) -> bool {
                *self == <$rust>::default()
            }

            #[inline]
            fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
                let write: fn(&mut Writer<'_>, $rust) = $write;
                write(to, *self);
                Ok(())
            }

            fn size_hint(&self) -> usize {
                $hint
            }
        }

        impl Gob for $rust {
            fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
                types.builtin($builtin, received)
            }

            #[inline]
            fn decode(from: &mut Reader<'_>, _: Ref) -> Result<$rust, DecodeError> {
                let read: fn(&mut Reader<'_>, Builtin) -> Result<$rust, DecodeError> = $read;
                read(from, $builtin)
            }

            fn zero() -> $rust {
                <$rust>::default()
            }
        }
    )*};
}

number! {
    bool, Builtin::Bool, 1, |to, v| to.uint(u64::from(v)), |from, _| Ok(from.uint()? != 0);
    i8, Builtin::Int(Width::W8), 2, |to, v| to.int(v.into()), |from, b| from.narrow_int(b);
    i16, Builtin::Int(Width::W16), 2, |to, v| to.int(v.into()), |from, b| from.narrow_int(b);
    i32, Builtin::Int(Width::W32), 3, |to, v| to.int(v.into()), |from, b| from.narrow_int(b);
    i64, Builtin::Int(Width::W64), 4, |to, v| to.int(v), |from, _| from.int();
    isize, Builtin::Int(Width::Machine), 4, |to, v| to.int(v as i64), |from, b| from.narrow_int(b);
    u16, Builtin::Uint(Width::W16), 2, |to, v| to.uint(v.into()), |from, b| from.narrow_uint(b);
    u32, Builtin::Uint(Width::W32), 3, |to, v| to.uint(v.into()), |from, b| from.narrow_uint(b);
    u64, Builtin::Uint(Width::W64), 4, |to, v| to.uint(v), |from, _| from.uint();
    usize, Builtin::Uint(Width::Machine), 4, |to, v| to.uint(v as u64), |from, b| from.narrow_uint(b);
    f32, Builtin::Float32, 4, |to, v| to.float(v.into()), narrow_float;
    f64, Builtin::Float64, 6, |to, v| to.float(v), |from, _| from.float();
}

fn narrow_float(from: &mut Reader<'_>, builtin: Builtin) -> Result<f32, DecodeError> {
    let offset = from.offset();
    let value = from.float()?;
    if fits_f32(value) {
        Ok(value as f32)
    } else {
        Err(out_of_range(builtin, format!("{value:?}")).at(offset))
    }
}

/// Slices of bytes are a type of their own.
impl Encode for u8 {
    fn identity() -> TypeId {
        TypeId::of::<u8>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::Uint(Width::W8))
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.uint(u64::from(*self));
        Ok(())
    }

    fn size_hint(&self) -> usize {
        2
    }

    fn slice_identity() -> TypeId {
        TypeId::of::<Bytes>()
    }

    fn describe_slice(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::Bytes)
    }

    fn encode_slice(items: &[u8], to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.bytes(items);
        Ok(())
    }

    fn slice_hint(items: &[u8]) -> usize {
        items.len() + 4
    }
}

impl Gob for u8 {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::Uint(Width::W8), received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<u8, DecodeError> {
        from.narrow_uint(Builtin::Uint(Width::W8))
    }

    fn zero() -> u8 {
        0
    }

    fn check_slice(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::Bytes, received)
    }

    fn decode_slice(from: &mut Reader<'_>, _: Ref) -> Result<Vec<u8>, DecodeError> {
        from.vec("a byte slice")
    }
}

impl Encode for Complex {
    fn identity() -> TypeId {
        TypeId::of::<Complex>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::Complex128)
    }

    fn is_zero(&self) -> bool {
        Complex::is_zero(*self)
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.float(self.real);
        to.float(self.imaginary);
        Ok(())
    }
}

impl Gob for Complex {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::Complex128, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<Complex, DecodeError> {
        Ok(Complex {
            real: from.float()?,
            imaginary: from.float()?,
        })
    }

    fn zero() -> Complex {
        Complex::default()
    }
}

impl Encode for str {
    fn identity() -> TypeId {
        TypeId::of::<String>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::String)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.bytes(self.as_bytes());
        Ok(())
    }

    fn size_hint(&self) -> usize {
        self.len() + 1
    }
}

impl Encode for String {
    fn identity() -> TypeId {
        TypeId::of::<String>()
    }

    fn describe(types: &mut Describe) -> Ref {
        str::describe(types)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.as_str().encode(to)
    }

    fn size_hint(&self) -> usize {
        self.as_str().size_hint()
    }
}

impl Gob for String {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::String, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<String, DecodeError> {
        from.string()
    }

    fn zero() -> String {
        String::new()
    }
}

impl Encode for Bytes {
    fn identity() -> TypeId {
        TypeId::of::<Bytes>()
    }

    fn describe(_: &mut Describe) -> Ref {
        Ref::Builtin(Builtin::Bytes)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.bytes(self);
        Ok(())
    }

    fn size_hint(&self) -> usize {
        self.len() + 4
    }
}

impl Gob for Bytes {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.builtin(Builtin::Bytes, received)
    }

    fn decode(from: &mut Reader<'_>, _: Ref) -> Result<Bytes, DecodeError> {
        from.bytes("a byte slice")
    }

    fn zero() -> Bytes {
        Bytes::new()
    }
}

/// Go's `struct{}`.
impl Encode for () {
    fn identity() -> TypeId {
        TypeId::of::<()>()
    }

    fn describe(types: &mut Describe) -> Ref {
        types.structure(TypeId::of::<()>(), "", &[])
    }

    fn is_zero(&self) -> bool {
        false
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.uint(0);
        Ok(())
    }
}

/// Any struct can be received as one without fields.
impl Gob for () {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.structure(TypeId::of::<()>(), "", &[], received)
    }

    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<(), DecodeError> {
        from.skip(received)
    }

    fn zero() {}
}

impl<T: Encode + 'static> Encode for [T] {
    fn identity() -> TypeId {
        T::slice_identity()
    }

    fn describe(types: &mut Describe) -> Ref {
        T::describe_slice(types)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        T::encode_slice(self, to)
    }

    fn size_hint(&self) -> usize {
        T::slice_hint(self)
    }
}

impl<T: Encode + 'static> Encode for Vec<T> {
    fn identity() -> TypeId {
        T::slice_identity()
    }

    fn describe(types: &mut Describe) -> Ref {
        T::describe_slice(types)
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        T::encode_slice(self, to)
    }

    fn size_hint(&self) -> usize {
        T::slice_hint(self)
    }
}

impl<T: Gob> Gob for Vec<T> {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        T::check_slice(types, received)
    }

    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Vec<T>, DecodeError> {
        T::decode_slice(from, received)
    }

    fn zero() -> Vec<T> {
        Vec::new()
    }
}

impl<T: Encode + 'static, const N: usize> Encode for [T; N] {
    fn identity() -> TypeId {
        TypeId::of::<[T; N]>()
    }

    fn describe(types: &mut Describe) -> Ref {
        types.array::<T, N>()
    }

    fn is_zero(&self) -> bool {
        false
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.uint(N as u64);
        to.elements(self)
    }

    fn size_hint(&self) -> usize {
        1 + self.iter().map(Encode::size_hint).sum::<usize>()
    }
}

impl<T: Gob, const N: usize> Gob for [T; N] {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        types.array::<T, N>(received)
    }

    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<[T; N], DecodeError> {
        from.array(received)
    }

    fn zero() -> [T; N] {
        std::array::from_fn(|_| T::zero())
    }
}

/// The memory that an entry of a map takes, about.
fn entry_size<K, V>() -> usize {
    2 * (size_of::<K>() + size_of::<V>()) + 8
}

macro_rules! map {
    ($map:ident<K, V $(, $hasher:ident)?>, $($key:path),+) => {
        /// Go's map; an empty one is not nil. `Option` around it can be.
        impl<K, V $(, $hasher)?> Encode for $map<K, V $(, $hasher)?>
        where
            K: Encode + 'static,
            V: Encode + 'static,
        {
            fn identity() -> TypeId {
                TypeId::of::<HashMap<K, V>>()
            }

            fn describe(types: &mut Describe) -> Ref {
                types.map::<K, V>()
            }

            fn is_zero(&self) -> bool {
                false
            }

            fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
                to.entries(self.iter())
            }

            fn size_hint(&self) -> usize {
                let sizes = self.iter().map(|(key, value)| key.size_hint() + value.size_hint());
                1 + sizes.sum::<usize>()
            }
        }

        impl<K, V $(, $hasher)?> Gob for $map<K, V $(, $hasher)?>
        where
            K: Gob $(+ $key)+,
            V: Gob,
            $($hasher: BuildHasher + Default + 'static,)?
        {
            fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
                types.map::<K, V>(received)
            }

            fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Self, DecodeError> {
                let mut map = Self::default();
                let size = entry_size::<K, V>();
                from.entries(received, size, |key, value| {
                    map.insert(key, value);
                })?;
                Ok(map)
            }

            fn zero() -> Self {
                Self::default()
            }
        }
    };
}

map!(HashMap<K, V, S>, Eq, Hash);
map!(BTreeMap<K, V>, Ord);

/// Transparent types: what is in them is what is sent.
macro_rules! transparent {
    ($pointer:ident) => {
        impl<T: Encode + ?Sized> Encode for $pointer<T> {
            fn identity() -> TypeId {
                T::identity()
            }

            fn describe(types: &mut Describe) -> Ref {
                T::describe(types)
            }

            fn is_zero(&self) -> bool {
                T::is_zero(self)
            }

            fn is_zero_behind_pointer(&self) -> bool {
                T::is_zero_behind_pointer(self)
            }

            fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
                T::encode(self, to)
            }

            fn size_hint(&self) -> usize {
                T::size_hint(self)
            }

            fn dynamic(&self) -> Option<crate::Type> {
                T::dynamic(self)
            }
        }

        impl<T: Gob> Gob for $pointer<T> {
            fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
                T::check(types, received)
            }

            fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Self, DecodeError> {
                from.charge(size_of::<T>())?;
                T::decode(from, received).map($pointer::new)
            }

            fn zero() -> Self {
                $pointer::new(T::zero())
            }
        }
    };
}

transparent!(Box);
transparent!(Arc);

impl<T: Encode + ?Sized> Encode for &T {
    fn identity() -> TypeId {
        T::identity()
    }

    fn describe(types: &mut Describe) -> Ref {
        T::describe(types)
    }

    fn is_zero(&self) -> bool {
        T::is_zero(self)
    }

    fn is_zero_behind_pointer(&self) -> bool {
        T::is_zero_behind_pointer(self)
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        T::encode(self, to)
    }

    fn size_hint(&self) -> usize {
        T::size_hint(self)
    }

    fn dynamic(&self) -> Option<crate::Type> {
        T::dynamic(self)
    }
}

/// A pointer: `None` is nil, which only a field can be. As in Go, a field
/// that points to a zero number or an empty string is left out too, and one
/// that points to a type that encodes itself is not.
impl<T: Encode> Encode for Option<T> {
    fn identity() -> TypeId {
        T::identity()
    }

    fn describe(types: &mut Describe) -> Ref {
        T::describe(types)
    }

    fn is_zero(&self) -> bool {
        self.as_ref().is_none_or(T::is_zero_behind_pointer)
    }

    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Some(value) => value.encode(to),
            None => Err(EncodeError::new(EncodeErrorKind::Nil)),
        }
    }

    fn size_hint(&self) -> usize {
        self.as_ref().map_or(0, T::size_hint)
    }

    fn dynamic(&self) -> Option<crate::Type> {
        self.as_ref().and_then(T::dynamic)
    }
}

impl<T: Gob> Gob for Option<T> {
    fn check(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
        T::check(types, received)
    }

    fn decode(from: &mut Reader<'_>, received: Ref) -> Result<Option<T>, DecodeError> {
        T::decode(from, received).map(Some)
    }

    fn zero() -> Option<T> {
        None
    }
}
