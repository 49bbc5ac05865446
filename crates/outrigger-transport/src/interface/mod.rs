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

use std::pin::Pin;

use futures_util::{Stream, StreamExt};

pub use self::answer::GrpcMethods;
pub use self::call::{AnyCaller, GrpcCaller, NetRpcCaller};
pub use self::describe::{
    FieldDescription, InterfaceDescription, Kind, Label, Message, MessageDescription,
    MethodDescription, Scalar,
};
pub use self::error::MethodError;
pub use crate::dispense::{Interface, UnsupportedTransport};
pub use tonic::Code;

/// Messages that arrive one after the other, until the other side ends the stream
/// or fails. Dropping it ends the call.
///
/// # Examples
/// ```
/// use futures_util::StreamExt;
/// use outrigger_transport::interface::{MethodError, Streaming};
///
/// // What a method answers with:
/// let numbers: Streaming<u32> = Box::pin(futures_util::stream::iter([Ok(1), Ok(2)]));
/// # futures_util::FutureExt::now_or_never(async {
/// // What the caller does with it:
/// let all: Vec<Result<u32, MethodError>> = numbers.collect().await;
/// assert_eq!(all.len(), 2);
/// # }).expect("it waits for nothing");
/// ```
pub type Streaming<T, E = MethodError> = Pin<Box<dyn Stream<Item = Result<T, E>> + Send>>;

/// A stream of what `value` makes of each message, with errors of the author's own type.
#[doc(hidden)]
pub fn map_stream<T: 'static, U, E: 'static, F: From<E>>(
    stream: Streaming<T, E>,
    mut value: impl FnMut(T) -> U + Send + 'static,
) -> Streaming<U, F> {
    Box::pin(stream.map(move |message| Ok(value(message?))))
}

/// What else the code of `#[interface]` and `#[message]` names.
#[doc(hidden)]
pub mod libraries {
    pub use crate::{Broker, Channel, ServiceSet, netrpc};
    pub use outrigger_gob as gob;
    pub use prost;
}
