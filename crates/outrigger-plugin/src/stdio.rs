//! What a plugin prints, on its way to the host.
//!
//! Descriptors 1 and 2 become pipes, so that everything the plugin prints
//! reaches the host over the stdio service. The original stderr is kept for
//! logs and panics, which must reach the host even when no connection does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use outrigger_wire::proto::plugin::StdioData;
use outrigger_wire::proto::plugin::stdio_data::Channel;
use tokio::sync::Notify;

/// The largest piece that is sent, in bytes, as in go-plugin.
const CHUNK: usize = 1024;
/// What waits of each channel for a host that does not read, in bytes; older
/// output is dropped.
const BUFFER: usize = 1 << 20;
/// The most pieces that wait of each channel, however short they are.
const PIECES: usize = 16 << 10;

static ORIGINAL_STDERR: OnceLock<File> = OnceLock::new();

/// Writes to the plugin's real stderr, where logs and panics go. Errors are
/// ignored: there is nobody left to tell.
pub(crate) fn write_stderr(text: &[u8]) {
    let _ = match ORIGINAL_STDERR.get() {
        Some(mut file) => file.write_all(text),
        None => io::stderr().write_all(text),
    };
}

/// Printed output that waits for the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    stdout: Queue,
    stderr: Queue,
    /// How many pieces there were.
    count: u64,
}

/// What was printed to one channel: pieces with their places among all.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(u64, Bytes)>,
    /// How long the pieces are together.
    bytes: usize,
    dropped: u64,
}

impl Waiting {
    fn of(&mut self, channel: Channel) -> &mut Queue {
        match channel {
            Channel::Stderr => &mut self.stderr,
            Channel::Stdout | Channel::Invalid => &mut self.stdout,
        }
    }

    /// The channel that was printed to first.
    fn first(&self) -> Channel {
        let first = |queue: &Queue| queue.pieces.front().map_or(u64::MAX, |(place, _)| *place);
        match first(&self.stderr) < first(&self.stdout) {
            true => Channel::Stderr,
            false => Channel::Stdout,
        }
    }
}

impl Output {
    /// The next piece of output.
    pub(crate) async fn next(&self) -> StdioData {
        self.wait_for(Self::take).await
    }

    /// The next piece that was printed to `channel`.
    #[cfg(feature = "netrpc")]
    pub(crate) async fn next_of(&self, channel: Channel) -> StdioData {
        self.wait_for(|output| output.take_of(channel)).await
    }

    async fn wait_for(&self, take: impl Fn(&Self) -> Option<StdioData>) -> StdioData {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // What is printed after this is noticed.
            changed.as_mut().enable();
            if let Some(chunk) = take(self) {
                return chunk;
            }
            changed.await;
        }
    }

    /// What waits now.
    pub(crate) fn take(&self) -> Option<StdioData> {
        let waiting = self.waiting();
        let channel = waiting.first();
        Self::take_from(waiting, channel)
    }

    /// What waits now and was printed to `channel`.
    #[cfg(any(test, feature = "netrpc"))]
    pub(crate) fn take_of(&self, channel: Channel) -> Option<StdioData> {
        Self::take_from(self.waiting(), channel)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.shared.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    fn take_from(mut waiting: MutexGuard<'_, Waiting>, channel: Channel) -> Option<StdioData> {
        let queue = waiting.of(channel);
        let (_, data) = queue.pieces.pop_front()?;
        queue.bytes -= data.len();
        let dropped = std::mem::take(&mut queue.dropped);
        // A log that is printed comes back here.
        drop(waiting);
        if dropped > 0 {
            tracing::warn!(
                bytes = dropped,
                "printed output was dropped; the host did not read it"
            );
        }
        let channel = channel.into();
        Some(StdioData { channel, data })
    }

    fn push(&self, channel: Channel, data: &[u8]) {
        let mut waiting = self.waiting();
        let place = waiting.count;
        waiting.count += 1;
        let queue = waiting.of(channel);
        while queue.bytes + data.len() > BUFFER || queue.pieces.len() == PIECES {
            let Some((_, oldest)) = queue.pieces.pop_front() else {
                break;
            };
            queue.bytes -= oldest.len();
            queue.dropped += oldest.len() as u64;
        }
        queue.bytes += data.len();
        queue
            .pieces
            .push_back((place, Bytes::copy_from_slice(data)));
        drop(waiting);
        self.shared.changed.notify_waiters();
    }
}

/// Descriptors 1 and 2 while they are pipes; dropping it puts them back.
#[derive(Debug)]
pub(crate) struct Capture {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Capture {
    /// Makes pipes of descriptors 1 and 2. Each is read by a thread of its own,
    /// so that printing from a current-thread runtime never waits for itself.
    pub(crate) fn start(output: &Output) -> io::Result<Self> {
        io::stdout().flush()?;
        let keep = |fd: rustix::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let capture = Self {
            stdout: keep(rustix::stdio::stdout())?,
            stderr: keep(rustix::stdio::stderr())?,
        };
        let logs = File::from(keep(rustix::stdio::stderr())?);
        // A second capture of this process keeps the stderr of the first one.
        let _ = ORIGINAL_STDERR.set(logs);
        for (channel, name) in [
            (Channel::Stdout, "plugin-stdout"),
            (Channel::Stderr, "plugin-stderr"),
        ] {
            let (reader, writer) = io::pipe()?;
            match channel {
                Channel::Stderr => rustix::stdio::dup2_stderr(&writer)?,
                Channel::Stdout | Channel::Invalid => rustix::stdio::dup2_stdout(&writer)?,
            }
            let output = output.clone();
            // Ends with the last writer: when the descriptor is put back, or with the process.
            std::thread::Builder::new()
                .name(name.into())
                .stack_size(64 << 10)
                .spawn(move || copy(reader, channel, &output))?;
        }
        Ok(capture)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = io::stdout().flush();
        // Printing goes on to the pipes if the system refuses; nothing else can be done.
        let _ = rustix::stdio::dup2_stdout(&self.stdout);
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
    }
}

fn copy(mut reader: io::PipeReader, channel: Channel, output: &Output) {
    let mut chunk = [0; CHUNK];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => output.push(channel, &chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_that_nobody_reads_is_bounded_and_keeps_the_newest() {
        let output = Output::default();
        for n in 0..3000_u32 {
            output.push(Channel::Stdout, &[n.to_le_bytes()[0]; CHUNK]);
        }
        let waiting = output.waiting().stdout.bytes;
        assert!(waiting <= BUFFER, "{waiting}");
        let mut last = output.next().await;
        while let Some(chunk) = output.take() {
            last = chunk;
        }
        assert_eq!(last.data[0], 2999_u32.to_le_bytes()[0]);

        // As much as fits is kept whole.
        for _ in 0..BUFFER / CHUNK {
            output.push(Channel::Stdout, &[b'x'; CHUNK]);
        }
        let waiting = output.waiting();
        assert_eq!((waiting.stdout.bytes, waiting.stdout.dropped), (BUFFER, 0));
    }

    #[test]
    fn channels_keep_their_own_output_and_the_order_of_both() {
        let output = Output::default();
        output.push(Channel::Stderr, b"first");
        for _ in 0..(2 << 20) {
            output.push(Channel::Stdout, b"x");
        }
        output.push(Channel::Stderr, b"last");
        let pieces = output.waiting().stdout.pieces.len();
        assert!(pieces <= PIECES, "{pieces} of one byte");
        let first = output.take().expect("waiting");
        assert_eq!(
            (first.channel(), &first.data[..]),
            (Channel::Stderr, &b"first"[..])
        );
        let last = output.take_of(Channel::Stderr).expect("waiting");
        assert_eq!(&last.data[..], b"last");
        let left = std::iter::from_fn(|| output.take());
        assert!(
            left.into_iter()
                .all(|piece| piece.channel() == Channel::Stdout)
        );
    }
}
