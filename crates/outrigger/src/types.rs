//! Types of plugins: which interface a manifest's `type` stands for.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_host::Interface;

/// The interfaces that an application has registered, by the types of manifests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types(Arc<BTreeMap<String, TypeId>>);

impl Types {
    pub(crate) fn register<I: Interface>(&mut self, kind: String) {
        Arc::make_mut(&mut self.0).insert(kind, TypeId::of::<I>());
    }

    /// Whether a manifest's `type` stands for this interface.
    pub(crate) fn is<I: Interface>(&self, kind: Option<&str>) -> bool {
        let known = kind.and_then(|kind| self.0.get(kind));
        known == Some(&TypeId::of::<I>())
    }
}
