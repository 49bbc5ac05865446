//! The main connection to a plugin, whichever protocol it speaks.

use crate::channel::Channel;
#[cfg(feature = "netrpc")]
use crate::netrpc::HostSession;

/// The main connection to a plugin, in the protocol that it speaks.
///
/// # Examples
/// ```
/// use outrigger_transport::{Channel, Connection};
///
/// async fn lost(connection: &Connection) {
///     match connection {
///         // Any client that tonic generated takes the channel.
///         Connection::Grpc(channel) => channel.closed().await,
///         Connection::NetRpc(session) => drop(session.closed().await),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub enum Connection {
    /// Calls of the plugin's gRPC services.
    Grpc(Channel),
    /// The control connection of a net/rpc plugin, which dispenses objects under
    /// any name, also such that the host's own set does not know.
    #[cfg(feature = "netrpc")]
    NetRpc(HostSession),
}

impl From<Channel> for Connection {
    fn from(channel: Channel) -> Self {
        Self::Grpc(channel)
    }
}

#[cfg(feature = "netrpc")]
impl From<HostSession> for Connection {
    fn from(session: HostSession) -> Self {
        Self::NetRpc(session)
    }
}
