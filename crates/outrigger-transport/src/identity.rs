//! Who is at the other end, and what a host offers them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ServiceSet;

/// What must not outlive the host's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging<'a> {
    /// A directory that was made for one plugin, with all that is in it.
    Directory(&'a Path),
    /// Every process that has this variable with this value, which no others have.
    Processes {
        /// The name of the variable.
        variable: &'a str,
        /// Its value.
        value: &'a str,
    },
}

/// Sees to what host services have for a plugin when the host's process ends
/// without doing so itself, for example because it is killed.
pub trait Lifeline: Send + Sync + fmt::Debug {
    /// Ties `what` to the life of this process, from now on.
    fn tie(&self, what: Belonging<'_>) -> Box<dyn Tie>;
}

/// One thing that is tied to the life of the host's process. Dropping this leaves
/// it tied.
pub trait Tie: Send + Sync + fmt::Debug {
    /// Nothing is left of it.
    fn untie(self: Box<Self>);
}

/// Which plugin is at the other end of a connection.
///
/// It comes from the process that the host launched and the connection that
/// was opened for it, never from anything the plugin says.
#[derive(Clone, Debug)]
pub struct PluginIdentity {
    name: String,
    instance: String,
    pid: Option<u32>,
    socket_dir: Option<PathBuf>,
    lifeline: Option<Arc<dyn Lifeline>>,
}

impl PartialEq for PluginIdentity {
    /// Who it is, whatever sees to what it leaves.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.instance == other.instance
            && self.pid == other.pid
            && self.socket_dir == other.socket_dir
    }
}

impl Eq for PluginIdentity {}

impl PluginIdentity {
    /// An identity for the process `pid` of plugin `name`; `instance` tells
    /// this run from every other one.
    pub fn new(name: impl Into<String>, instance: impl Into<String>, pid: Option<u32>) -> Self {
        Self {
            name: name.into(),
            instance: instance.into(),
            pid,
            socket_dir: None,
            lifeline: None,
        }
    }

    /// What host services have for this plugin goes with the host's process,
    /// however that ends.
    #[must_use]
    pub fn with_lifeline(mut self, lifeline: Arc<dyn Lifeline>) -> Self {
        self.lifeline = Some(lifeline);
        self
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

    /// Ties `what` to the life of the host's process; nothing where nobody sees
    /// to that.
    pub fn tie(&self, what: Belonging<'_>) -> Option<Box<dyn Tie>> {
        self.lifeline.as_ref().map(|lifeline| lifeline.tie(what))
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

    /// The names of what the plugin is offered besides, each on a socket of its own,
    /// from its start to its end. None, unless an implementation says so.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is offered under one of the [`names`](Self::names), for one plugin; as
    /// [`bind`](Self::bind).
    fn bind_named(&self, name: &str, identity: &PluginIdentity) -> ServiceSet {
        let _ = (name, identity);
        ServiceSet::new()
    }
}
