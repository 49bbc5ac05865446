//! Types that encode themselves.

use std::any::TypeId;

use crate::decode::{Checker, Fit, Reader};
use crate::describe::Describe;
use crate::encode::Writer;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use crate::types::{OpaqueKind, Ref};

/// A type whose counterpart in Go is a `gob.GobEncoder` or an
/// `encoding.BinaryMarshaler`: gob carries its bytes and does not look at
/// them.
///
/// ```
/// use outrigger_gob::{Gob, Opaque, OpaqueKind};
///
/// #[derive(Gob, Debug, PartialEq)]
/// #[gob(opaque)]
/// struct Digest([u8; 4]);
///
/// impl Opaque for Digest {
///     const TYPE_NAME: &'static str = "Digest";
///     const KIND: OpaqueKind = OpaqueKind::BinaryMarshaler;
///
///     fn to_bytes(&self) -> Result<Vec<u8>, String> {
///         Ok(self.0.to_vec())
///     }
///
///     fn from_bytes(bytes: &[u8]) -> Result<Digest, String> {
///         let digest = bytes.try_into().map_err(|_| "it must have 4 bytes")?;
///         Ok(Digest(digest))
///     }
///
///     fn zero() -> Digest {
///         Digest([0; 4])
///     }
/// }
/// ```
pub trait Opaque: Sized + 'static {
    /// What Go calls the type, with or without its package.
    const TYPE_NAME: &'static str;

    /// Which of Go's interfaces it implements. If both, Go takes
    /// [`OpaqueKind::GobEncoder`].
    const KIND: OpaqueKind;

    /// The bytes that say everything about this value.
    ///
    /// # Errors
    ///
    /// Why there are none.
    fn to_bytes(&self) -> Result<Vec<u8>, String>;

    /// The value that such bytes say.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String>;

    /// What a field is that was left out: Go's zero value.
    fn zero() -> Self;

    /// Whether a field with this value is left out.
    fn is_zero(&self) -> bool {
        false
    }
}

#[doc(hidden)]
pub fn describe<T: Opaque>(types: &mut Describe) -> Ref {
    types.opaque(TypeId::of::<T>(), T::TYPE_NAME, T::KIND)
}

#[doc(hidden)]
pub fn encode<T: Opaque>(value: &T, to: &mut Writer<'_>) -> Result<(), EncodeError> {
    let bytes = value.to_bytes().map_err(|reason| {
        let name = T::TYPE_NAME;
        EncodeError::new(EncodeErrorKind::Refused { name, reason })
    })?;
    to.bytes(&bytes);
    Ok(())
}

#[doc(hidden)]
pub fn check<T: Opaque>(types: &mut Checker<'_>, received: Ref) -> Result<Fit, DecodeError> {
    types.opaque(T::TYPE_NAME, T::KIND, received)
}

#[doc(hidden)]
pub fn decode<T: Opaque>(from: &mut Reader<'_>) -> Result<T, DecodeError> {
    let offset = from.offset();
    let bytes = from.slice_of("an encoded value")?;
    from.charge(bytes.len())?;
    T::from_bytes(bytes).map_err(|reason| {
        let name = T::TYPE_NAME;
        DecodeError::new(DecodeErrorKind::Refused { name, reason }).at(offset)
    })
}
