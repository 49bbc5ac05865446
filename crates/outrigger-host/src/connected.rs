//! The last step of a launch and of an attachment: a plugin that answers.

use std::sync::Arc;
use std::time::Duration;

use outrigger_transport::{AddressTranslator, OwnedTask};
use outrigger_wire::HandshakeLine;

use crate::connection::Link;
use crate::deadlines::Deadlines;
use crate::owned_process::OwnedProcess;
use crate::reattach::Reattach;
use crate::set::PluginSet;

/// Everything that a [`RunningPlugin`](crate::RunningPlugin) is made of.
pub(crate) struct Connected {
    pub(crate) name: String,
    pub(crate) set: PluginSet,
    pub(crate) line: HandshakeLine,
    pub(crate) link: Arc<Link>,
    /// What serves the connection.
    pub(crate) tasks: Vec<OwnedTask>,
    pub(crate) translator: Arc<dyn AddressTranslator>,
    pub(crate) held: OwnedProcess,
    pub(crate) deadlines: Deadlines,
    pub(crate) timings: Timings,
    /// How it was found, if this host did not start it.
    pub(crate) visiting: Option<Reattach>,
}

/// How long each step of a launch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Certificates, directory, digest and process start.
    pub spawn: Duration,
    /// From the process start to its handshake line.
    pub handshake: Duration,
    /// Connecting, TLS and HTTP/2.
    pub connect: Duration,
}

impl Timings {
    /// All steps together.
    pub fn total(&self) -> Duration {
        self.spawn + self.handshake + self.connect
    }
}
