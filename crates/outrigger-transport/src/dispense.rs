//! How a host makes the typed client of an interface.

use std::sync::Arc;

use crate::broker::Broker;
use crate::channel::Channel;
#[cfg(feature = "netrpc")]
use crate::netrpc::Client;

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
    #[cfg(feature = "netrpc")]
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
