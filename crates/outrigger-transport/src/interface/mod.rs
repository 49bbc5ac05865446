//! Interfaces between a host and its plugins, and what the code that
//! `#[interface]` writes is made of.
//!
//! The attribute turns a Rust trait into both ends of an interface. At the
//! calling end [`GrpcCaller`] and [`NetRpcCaller`] send one call; at the
//! answering end [`GrpcMethods`] and [`Methods`](crate::netrpc::Methods) hold what
//! answers them. [`InterfaceDescription`] is the interface as data, from which come
//! the `.proto` file for other languages and the descriptors for reflection.

mod answer;
mod call;
mod describe;
mod error;
mod streaming;
mod text;

pub use self::answer::GrpcMethods;
pub use self::call::{AnyCaller, GrpcCaller, NetRpcCaller};
pub use self::describe::{
    FieldDescription, InterfaceDescription, Kind, Label, Message, MessageDescription,
    MethodDescription, Scalar,
};
pub use self::error::MethodError;
pub use self::streaming::Streaming;
#[doc(hidden)]
pub use self::streaming::map_stream;
pub use self::text::proto_text;
pub use crate::dispense::{Interface, UnsupportedTransport};
pub use tonic::Code;

/// What else the code of `#[interface]` and `#[message]` names.
#[doc(hidden)]
pub mod libraries {
    pub use crate::{Broker, Channel, ServiceSet, netrpc};
    pub use outrigger_gob as gob;
    pub use prost;
}
