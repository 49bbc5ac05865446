//! What a host wants of a plugin: interfaces under names, per version.

use std::any::TypeId;
use std::collections::BTreeMap;

use outrigger_transport::Interface;

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
