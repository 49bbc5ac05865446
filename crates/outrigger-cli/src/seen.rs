//! What passes by while a plugin is started, and may explain why it did not start.

use std::time::Duration;

use crate::foreign::Look;
use crate::memory::Memory;
use crate::stderr::LastWords;

/// What passed by while a plugin was started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) pid: Option<u32>,
    /// The first line of stdout, as far as it came, without its end.
    pub(crate) line: Vec<u8>,
    /// From the start of the process to the end of that line.
    pub(crate) handshake_after: Option<Duration>,
    /// The process's memory at that moment.
    pub(crate) memory: Option<Memory>,
    /// The end of its stderr, up to now.
    pub(crate) stderr: LastWords,
    /// What it was doing when its time for the handshake was nearly over.
    pub(crate) look: Option<Look>,
}
