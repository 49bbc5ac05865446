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
use std::sync::Arc;

use futures_util::{Stream, StreamExt};

pub use self::answer::GrpcMethods;
pub use self::call::{AnyCaller, GrpcCaller, NetRpcCaller};
pub use self::describe::{
    FieldDescription, InterfaceDescription, Kind, Label, Message, MessageDescription,
    MethodDescription, Scalar,
};
pub use self::error::MethodError;
pub use tonic::Code;

use crate::broker::Broker;
use crate::channel::Channel;
use crate::netrpc::Client;

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

/// One interface that plugins serve: how its typed client is made, over each
/// protocol that it is served over. `#[interface]` implements it for the client of a
/// trait, and `outrigger_host::grpc_interface!` for a client that tonic generated.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use outrigger_transport::netrpc::Client;
/// use outrigger_transport::{Broker, Channel, Interface, UnsupportedTransport};
///
/// struct Kv;
/// enum KvClient {
///     Grpc(Channel), // for example tonic's `KvClient<Channel>`
///     NetRpc(Client),
/// }
/// impl Interface for Kv {
///     type Client = KvClient;
///     fn grpc(
///         connection: Channel,
///         _broker: Arc<dyn Broker>,
///     ) -> Result<KvClient, UnsupportedTransport> {
///         Ok(KvClient::Grpc(connection))
///     }
///     fn netrpc(
///         object: Client,
///         _broker: Arc<dyn Broker>,
///     ) -> Result<KvClient, UnsupportedTransport> {
///         Ok(KvClient::NetRpc(object))
///     }
/// }
/// ```
pub trait Interface: 'static {
    /// The typed client.
    type Client;

    /// The name under which plugins serve it. An interface without one is looked
    /// for under the plugin's own name, as where each of many plugins is another
    /// animal.
    const NAME: Option<&'static str> = None;

    /// Makes the client from a connection to a gRPC plugin, and from the broker
    /// for interfaces whose calls carry broker ids.
    ///
    /// # Errors
    /// Unless it is overridden: the interface is not served over gRPC.
    fn grpc(
        connection: Channel,
        broker: Arc<dyn Broker>,
    ) -> Result<Self::Client, UnsupportedTransport> {
        let _ = (connection, broker);
        Err(UnsupportedTransport)
    }

    /// Makes the client from the object that a net/rpc plugin has dispensed, and
    /// from the broker.
    ///
    /// # Errors
    /// Unless it is overridden: the interface is not served over net/rpc.
    fn netrpc(
        object: Client,
        broker: Arc<dyn Broker>,
    ) -> Result<Self::Client, UnsupportedTransport> {
        let _ = (object, broker);
        Err(UnsupportedTransport)
    }
}

/// An interface has no client for the protocol that the plugin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interface has no client for this protocol")]
pub struct UnsupportedTransport;

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
