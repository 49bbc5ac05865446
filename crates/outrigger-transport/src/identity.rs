//! Who is at the other end, and what a host offers them.

use std::path::{Path, PathBuf};

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
    socket_dir: Option<PathBuf>,
}

impl PluginIdentity {
    /// An identity for the process `pid` of plugin `name`; `instance` tells
    /// this run from every other one.
    pub fn new(name: impl Into<String>, instance: impl Into<String>, pid: Option<u32>) -> Self {
        Self {
            name: name.into(),
            instance: instance.into(),
            pid,
            socket_dir: None,
        }
    }

    /// Where host services may make sockets for this plugin alone: a directory
    /// that it reaches by the same path, removed when it is gone.
    #[must_use]
    pub fn with_socket_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket_dir = Some(path.into());
        self
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

    /// Where sockets for this plugin alone may be made; nothing where it would
    /// not reach them.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.socket_dir.as_deref()
    }
}

/// What a host does for its plugins; one value serves many of them.
pub trait HostServices: Send + Sync {
    /// The services for one plugin. What the plugin holds through them (open
    /// files, temporary directories) is released when the set and its clones
    /// are dropped.
    fn bind(&self, identity: &PluginIdentity) -> ServiceSet;
}
