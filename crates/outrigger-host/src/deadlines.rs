//! The waits that a host bounds.

use std::time::Duration;

/// Every wait of a plugin's life that the host bounds.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use outrigger_host::Deadlines;
///
/// // A plugin that reads a large index before it serves.
/// let patient = Deadlines { start: Duration::from_secs(300), ..Deadlines::default() };
/// assert_eq!(patient.connect, Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the start of the process to its handshake line, and for a net/rpc
    /// plugin from asking it for an object to its answer: 60 s.
    pub start: Duration,
    /// From the handshake line to a connection: 5 s.
    pub connect: Duration,
    /// From dialling a broker id to its announcement: 5 s. Over net/rpc the
    /// accepting side counts, from when it sees the stream; dialling there ends
    /// after twice this even if that side never says so.
    pub broker: Duration,
    /// From asking the plugin to stop to its answer, or the end of its
    /// connection: 10 s. go-plugin's hosts wait for ever.
    pub stop_reply: Duration,
    /// From then on to killing it: 2 s.
    pub stop_grace: Duration,
    /// From the loss of the connection to killing a plugin that was not asked to
    /// end and runs on: 10 s. A plugin that ends by itself closes its connection
    /// first. go-plugin's hosts let such a plugin run.
    pub lost_grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            broker: Duration::from_secs(5),
            stop_reply: Duration::from_secs(10),
            stop_grace: Duration::from_secs(2),
            lost_grace: Duration::from_secs(10),
        }
    }
}
