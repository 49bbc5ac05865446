//! What a host wants of a plugin: interfaces under names, per version.

use std::any::TypeId;
use std::collections::BTreeMap;

use outrigger_transport::Interface;

/// Declares an [`Interface`] whose client is one that tonic generated.
///
/// After the arrow stands the client's type without its parameter, and after a
/// comma, if all plugins serve the interface under one name, that name.
///
/// # Examples
/// ```no_run
/// # use outrigger_host::{Channel, RunningPlugin};
/// # mod proto {
/// #     pub struct KvClient<T>(T);
/// #     impl<T> KvClient<T> {
/// #         pub fn new(inner: T) -> Self { Self(inner) }
/// #         pub fn max_decoding_message_size(self, _: usize) -> Self { self }
/// #     }
/// # }
/// outrigger_host::grpc_interface! {
///     /// A key/value store.
///     pub Kv => proto::KvClient, "kv"
/// }
///
/// # async fn example(plugin: RunningPlugin) -> Result<(), Box<dyn std::error::Error>> {
/// let kv: proto::KvClient<Channel> = plugin.client::<Kv>().await?;
/// # drop(kv); Ok(()) }
/// ```
#[macro_export]
macro_rules! grpc_interface {
    ($(#[$attribute:meta])* $visibility:vis $name:ident => $($client:ident)::+ $(, $called:literal)?) => {
        $(#[$attribute])*
        $visibility struct $name;

        impl $crate::Interface for $name {
            type Client = $($client)::+<$crate::Channel>;

            $(const NAME: ::core::option::Option<&'static str> = ::core::option::Option::Some($called);)?

            fn grpc(
                connection: $crate::Channel,
                _broker: ::std::sync::Arc<dyn $crate::Broker>,
            ) -> ::core::result::Result<Self::Client, $crate::UnsupportedTransport> {
                let client = $($client)::+::new(connection);
                ::core::result::Result::Ok(client.max_decoding_message_size($crate::MAX_MESSAGE))
            }
        }
    };
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
