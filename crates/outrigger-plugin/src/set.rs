//! What a plugin serves: services under names, per version.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use outrigger_transport::ServiceSet;

use crate::context::PluginContext;

type Factory = Arc<dyn Fn(&PluginContext) -> ServiceSet + Send + Sync>;

/// The interfaces of one app protocol version. In gRPC a name stays inside the
/// plugin: the host finds services by their full names.
#[derive(Clone, Default)]
pub struct PluginSet {
    factories: BTreeMap<String, Factory>,
}

impl PluginSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an interface: `services` is called once, before serving begins.
    #[must_use]
    pub fn grpc(
        mut self,
        name: impl Into<String>,
        services: impl Fn(&PluginContext) -> ServiceSet + Send + Sync + 'static,
    ) -> Self {
        self.factories.insert(name.into(), Arc::new(services));
        self
    }

    pub(crate) fn services(&self, context: &PluginContext) -> ServiceSet {
        let mut all = ServiceSet::new();
        for factory in self.factories.values() {
            all.merge(factory(context));
        }
        all
    }
}

impl fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}
