//! What a plugin serves: services under names, per version.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use outrigger_transport::ServiceSet;
#[cfg(feature = "netrpc")]
use outrigger_transport::netrpc::Methods;
use outrigger_wire::Transport;

use crate::context::PluginContext;

type Factory<S> = Arc<dyn Fn(&PluginContext) -> S + Send + Sync>;

/// The interfaces of one app protocol version.
///
/// In gRPC a name stays inside the plugin: the host finds services by their full
/// names. In net/rpc the host asks for a name, and each time gets a new object.
#[derive(Clone, Default)]
pub struct PluginSet {
    grpc: BTreeMap<String, Factory<ServiceSet>>,
    #[cfg(feature = "netrpc")]
    netrpc: BTreeMap<String, Factory<Methods>>,
}

impl PluginSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an interface over gRPC: `services` is called once, before serving begins.
    #[must_use]
    pub fn grpc(
        mut self,
        name: impl Into<String>,
        services: impl Fn(&PluginContext) -> ServiceSet + Send + Sync + 'static,
    ) -> Self {
        self.grpc.insert(name.into(), Arc::new(services));
        self
    }

    /// Adds an interface over net/rpc: `object` is called each time that a host
    /// dispenses `name`.
    #[cfg(feature = "netrpc")]
    #[must_use]
    pub fn netrpc(
        mut self,
        name: impl Into<String>,
        object: impl Fn(&PluginContext) -> Methods + Send + Sync + 'static,
    ) -> Self {
        self.netrpc.insert(name.into(), Arc::new(object));
        self
    }

    /// What this version is served over: net/rpc if that is all there is.
    pub(crate) fn transport(&self) -> Transport {
        #[cfg(feature = "netrpc")]
        if self.grpc.is_empty() && !self.netrpc.is_empty() {
            return Transport::NetRpc;
        }
        Transport::Grpc
    }

    pub(crate) fn services(&self, context: &PluginContext) -> ServiceSet {
        let mut all = ServiceSet::new();
        for factory in self.grpc.values() {
            all.merge(factory(context));
        }
        all
    }

    /// A new object for a host, or go-plugin's words for there being none.
    #[cfg(feature = "netrpc")]
    pub(crate) fn object(&self, name: &str, context: &PluginContext) -> Result<Methods, String> {
        match self.netrpc.get(name) {
            Some(object) => Ok(object(context)),
            None => Err(format!("unknown plugin type: {name}")),
        }
    }
}

impl fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_struct("PluginSet");
        set.field("grpc", &self.grpc.keys());
        #[cfg(feature = "netrpc")]
        set.field("netrpc", &self.netrpc.keys());
        set.finish()
    }
}
