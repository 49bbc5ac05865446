//! Go's gob encoding: typed and dynamic values, bounded, without I/O.
//!
//! ```
//! use bytes::BytesMut;
//! use outrigger_gob::{Decoder, Encoder, Gob, Limits, Value};
//!
//! #[derive(Gob, Debug, PartialEq)]
//! struct Request {
//!     service_method: String,
//!     seq: u64,
//! }
//!
//! let request = Request {
//!     service_method: "Dispenser.Dispense".into(),
//!     seq: 1,
//! };
//! let mut wire = BytesMut::new();
//! Encoder::new().encode(&request, &mut wire)?;
//!
//! let received = Decoder::new(Limits::default()).next(&mut wire)?.expect("a value");
//! assert_eq!(received.type_name(), "Request");
//! assert_eq!(received.decode::<Request>()?, request);
//! let Value::Struct(fields) = received.to_value()? else {
//!     unreachable!("it is a struct");
//! };
//! assert_eq!(fields.get("Seq"), Some(&Value::Uint(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each direction of a stream has an [`Encoder`] at one end and a [`Decoder`]
//! at the other; both remember which types were defined on it. What a peer
//! can make a decoder hold is bounded by [`Limits`].
//!
//! | Go | Rust |
//! | --- | --- |
//! | `bool`, `int8` … `int64`, `uint8` … `uint64` | the same |
//! | `int`, `uint` | `isize`, `usize` |
//! | `float32`, `float64`, `complex128` | `f32`, `f64`, [`Complex`] |
//! | `string` | `String`, [`GoString`] if it may not be UTF-8 |
//! | `[]byte` | `Vec<u8>`, `Bytes` |
//! | `[]T`, `[N]T`, `map[K]V` | `Vec<T>`, `[T; N]`, `HashMap` and `BTreeMap` |
//! | `*T` | `Option<T>`, `Option<Box<T>>` |
//! | `struct {}` | `()` |
//! | structs | `#[derive(Gob)]` |
//! | `interface {}` | [`Interface`] |
//! | `time.Time` | [`Time`] |
//! | types that encode themselves | [`Opaque`] |
//! | anything | [`Value`] |
//!
//! This crate knows nothing of RPC, and no Go types but those above.
//!
//! # Deriving
//!
//! Fields are named as Go names them: `service_method` is `ServiceMethod`.
//! `#[gob(rename = "ID")]` names one differently, `#[gob(skip)]` leaves one
//! out and reads it as its default. On the struct, `#[gob(type_name =
//! "Resp")]` is its name in definitions, which is informational, and
//! `#[gob(name = "main.Resp")]` the name under which Go registered it for
//! interfaces ([`Named`]). A struct with one unnamed field is that field.
//! `#[gob(opaque)]` makes a type one that encodes itself by [`Opaque`].

#![forbid(unsafe_code)]

mod decode;
mod define;
mod describe;
mod encode;
mod error;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod go;
mod hash;
mod impls;
mod interface;
mod limits;
mod number;
mod opaque;
mod scan;
mod stream;
mod syntax;
mod time;
mod types;
mod value;

pub use decode::Gob;
pub use encode::{Encode, Encoder};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use interface::{Interface, Named};
pub use limits::Limits;
pub use opaque::Opaque;
pub use outrigger_gob_derive::Gob;
pub use outrigger_wire::Coded;
pub use stream::{Decoder, Encoded};
pub use syntax::{Expanded, TypeError};
pub use time::Time;
pub use types::{Builtin, Kind, OpaqueKind, Type, Width};
pub use value::{Complex, GoString, List, Map, OpaqueValue, Struct, Value};

/// What `#[derive(Gob)]` writes against; not for use by hand.
#[doc(hidden)]
pub mod derive {
    pub use crate::decode::{CheckFn, Checker, Fit, Reader};
    pub use crate::describe::{Describe, DescribeFn};
    pub use crate::encode::{Fields, Writer};
    pub use crate::opaque::{check, decode, describe, encode};
    pub use crate::types::Ref;
}
