//! Who is at the other end, and what a host offers them.

use crate::ServiceSet;

/// Which plugin is at the other end of a connection.
///
/// It comes from the process that the host launched and the connection that
/// was opened for it, never from anything the plugin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginIdentity {
    name: String,
    instance: String,
    pid: Option<u32>,
}

impl PluginIdentity {
    /// An identity for the process `pid` of plugin `name`; `instance` tells
    /// this run from every other one.
    pub fn new(name: impl Into<String>, instance: impl Into<String>, pid: Option<u32>) -> Self {
        Self {
            name: name.into(),
            instance: instance.into(),
            pid,
        }
    }

    /// The name that the host gave the plugin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Identifies this run of the plugin.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The process, where the runner knows it.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }
}

/// What a host does for its plugins; one value serves many of them.
pub trait HostServices: Send + Sync {
    /// The services for one plugin. What the plugin holds through them (open
    /// files, temporary directories) is released when the set and its clones
    /// are dropped.
    fn bind(&self, identity: &PluginIdentity) -> ServiceSet;
}
