//! What a host wants of a plugin: interfaces under names, per version.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_transport::{Broker, Channel};

/// One interface that plugins serve: how its typed client is made.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use outrigger_host::{Broker, Channel, Interface};
///
/// struct Kv;
/// impl Interface for Kv {
///     type Client = Channel; // for example `KvClient<Channel>`
///     fn grpc(connection: Channel, _broker: Arc<dyn Broker>) -> Self::Client {
///         connection
///     }
/// }
/// ```
pub trait Interface: 'static {
    /// The typed client.
    type Client;

    /// Makes the client from a connection to the plugin, and from the broker
    /// for interfaces whose calls carry broker ids.
    fn grpc(connection: Channel, broker: Arc<dyn Broker>) -> Self::Client;
}

/// The interfaces of one app protocol version, by the name to dispense.
#[derive(Clone, Debug, Default)]
pub struct PluginSet {
    interfaces: BTreeMap<String, (TypeId, &'static str)>,
}

impl PluginSet {
    /// An empty set: the plugin can be reached but nothing dispensed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds interface `I` under `name`.
    #[must_use]
    pub fn with<I: Interface>(mut self, name: impl Into<String>) -> Self {
        let interface = (TypeId::of::<I>(), std::any::type_name::<I>());
        self.interfaces.insert(name.into(), interface);
        self
    }

    /// The names that can be dispensed, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.interfaces.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Option<(TypeId, &'static str)> {
        self.interfaces.get(name).copied()
    }
}
