//! What one plugin may make its host hold, how much it may move, and for how
//! long.

use std::time::Duration;

use outrigger_manifest::Grants;

/// Room in a message for everything that is not file contents, in bytes.
const OVERHEAD: usize = 1024;

/// What one plugin may make its host hold, how much it may move, and for how
/// long. Each connection of a plugin has a whole set of its own.
///
/// # Examples
/// ```
/// use outrigger_services::Limits;
///
/// let limits = Limits { leases: 16, written_bytes: 1 << 30, ..Limits::default() };
/// assert_eq!(limits.message, 4 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Leases at the same time (default 64): open files and directories,
    /// connections, processes, listeners.
    pub leases: usize,
    /// A lease that is not used for so long is given up (default one hour; zero
    /// for never). A process is in use for as long as it runs.
    pub lease_idle: Duration,
    /// Largest message in either direction, in bytes (default 4 MiB, what peers
    /// accept unless told otherwise).
    pub message: usize,
    /// Largest part of a file in one message of a stream, in bytes (default
    /// 1 MiB); a plugin may ask for less.
    pub chunk: usize,
    /// Part of a file in one message of a stream when the plugin names no size,
    /// in bytes (default 64 KiB).
    pub default_chunk: usize,
    /// Largest file that one `ReadFile` returns, in bytes (default 4 MiB less
    /// 1 KiB); never more than fits into a message.
    pub whole_file: usize,
    /// Most entries of a directory that one `ReadDir` of `hostserve.v1` returns
    /// (default 65 536). That contract has no pages: a larger directory is an
    /// error.
    pub list_entries: usize,
    /// Directories that one `Watch` covers (default 1024).
    pub watched_dirs: usize,
    /// Operations that may wait for storage at the same time (default 8), so
    /// that one plugin cannot take the threads that others need.
    pub blocking: usize,
    /// Calls in hand at the same time (default 64), from the first byte of a
    /// request to the last byte of its reply; further ones wait up to
    /// `call_timeout` for a place. One plugin makes its host hold about
    /// `calls` × `message` bytes at most.
    pub calls: usize,
    /// How long one operation, or one step of a stream, may take (default 30 s).
    pub call_timeout: Duration,
    /// Operations per second (default 100 000; 0 for no limit), with up to one
    /// second's worth at once. What exceeds it is refused.
    pub operations_per_second: u32,
    /// Bytes of contents moved per second (default 0: no limit), with up to one
    /// second's worth at once. Streams slow down to it; single calls are refused
    /// until what they owe is paid.
    pub bytes_per_second: u64,
    /// Bytes written in total (default 0: no limit), whether by writing, by
    /// growing a file, or by copying.
    pub written_bytes: u64,
    /// Bytes kept in the plugin's temporary directory (default 1 GiB; 0 for no
    /// limit), in blocks of 4 KiB. What is removed makes room again.
    pub temp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let message = 4 << 20;
        Self {
            leases: 64,
            lease_idle: Duration::from_secs(3600),
            message,
            chunk: 1 << 20,
            default_chunk: 64 << 10,
            whole_file: message - OVERHEAD,
            list_entries: 65_536,
            watched_dirs: 1024,
            blocking: 8,
            calls: 64,
            call_timeout: Duration::from_secs(30),
            operations_per_second: 100_000,
            bytes_per_second: 0,
            written_bytes: 0,
            temp_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// These limits, none of them wider than what was granted of resources.
    pub(crate) fn within(mut self, grants: &Grants) -> Self {
        let resources = grants.resources();
        if let Some(message) = resources.message_size {
            let message = usize::try_from(message.bytes()).unwrap_or(usize::MAX);
            self.message = self.message.min(message);
        }
        if let Some(streams) = resources.streams {
            self.calls = self.calls.min(streams as usize);
        }
        if let Some(files) = resources.open_files {
            self.leases = self.leases.min(files as usize);
        }
        self.whole_file = self.whole_file.min(self.payload());
        self
    }

    /// The most bytes of contents that fit into one message.
    pub(crate) fn payload(&self) -> usize {
        self.message.saturating_sub(OVERHEAD)
    }

    /// The size of a stream's parts when `asked` for, in bytes.
    pub(crate) fn chunk_size(&self, asked: u32) -> usize {
        let asked = if asked == 0 {
            self.default_chunk
        } else {
            asked as usize
        };
        asked.min(self.chunk).min(self.payload()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_what_was_asked_for_within_the_limits() {
        let limits = Limits::default();
        assert_eq!(limits.chunk_size(0), 64 << 10);
        assert_eq!(limits.chunk_size(10), 10);
        assert_eq!(limits.chunk_size(u32::MAX), 1 << 20);
        let tiny = Limits {
            message: 10,
            ..Limits::default()
        };
        assert_eq!(tiny.chunk_size(0), 1);
    }
}
