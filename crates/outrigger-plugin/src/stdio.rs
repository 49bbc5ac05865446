//! What a plugin prints, on its way to the host.
//!
//! Descriptors 1 and 2 become pipes, so that everything the plugin prints
//! reaches the host over the stdio service. The original stderr is kept for
//! logs and panics, which must reach the host even when no connection does.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use outrigger_transport::Stream;
use outrigger_transport::netrpc::MirroredStreams;
use outrigger_wire::proto::plugin::StdioData;
use outrigger_wire::proto::plugin::stdio_data::Channel;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The largest piece that is sent, in bytes, as in go-plugin.
const CHUNK: usize = 1024;
/// What waits for a host that does not read, in bytes; older output is dropped.
const BUFFER: usize = 1 << 20;

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
    chunks: VecDeque<StdioData>,
    bytes: usize,
    dropped: u64,
}

impl Output {
    /// The next piece of output.
    pub(crate) async fn next(&self) -> StdioData {
        self.wait_for(Self::take).await
    }

    /// The next piece that was printed to `channel`.
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
        self.take_where(|_| true)
    }

    /// What waits now and was printed to `channel`.
    pub(crate) fn take_of(&self, channel: Channel) -> Option<StdioData> {
        self.take_where(|chunk| chunk.channel() == channel)
    }

    fn take_where(&self, wanted: impl Fn(&StdioData) -> bool) -> Option<StdioData> {
        let mut waiting = self
            .shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let position = waiting.chunks.iter().position(wanted)?;
        let chunk = waiting.chunks.remove(position)?;
        waiting.bytes -= chunk.data.len();
        let dropped = std::mem::take(&mut waiting.dropped);
        // A log that is printed comes back here.
        drop(waiting);
        if dropped > 0 {
            tracing::warn!(
                bytes = dropped,
                "printed output was dropped; the host did not read it"
            );
        }
        Some(chunk)
    }

    fn push(&self, channel: Channel, data: &[u8]) {
        let mut waiting = self
            .shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while waiting.bytes + data.len() > BUFFER {
            let Some(oldest) = waiting.chunks.pop_front() else {
                break;
            };
            waiting.bytes -= oldest.data.len();
            waiting.dropped += oldest.data.len() as u64;
        }
        waiting.bytes += data.len();
        let data = Bytes::copy_from_slice(data);
        waiting.chunks.push_back(StdioData {
            channel: channel.into(),
            data,
        });
        drop(waiting);
        self.shared.changed.notify_waiters();
    }
}

/// Copies what the plugin prints to its host until `stopping` fires, and then
/// what is left.
pub(crate) async fn copy_to(output: Output, host: MirroredStreams, stopping: CancellationToken) {
    tokio::join!(
        copy_channel(&output, Channel::Stdout, host.stdout, &stopping),
        copy_channel(&output, Channel::Stderr, host.stderr, &stopping),
    );
}

async fn copy_channel(
    output: &Output,
    channel: Channel,
    mut host: Stream,
    stopping: &CancellationToken,
) {
    loop {
        let chunk = tokio::select! {
            chunk = output.next_of(channel) => chunk,
            () = stopping.cancelled() => break,
        };
        if host.write_all(&chunk.data).await.is_err() {
            return;
        }
    }
    while let Some(chunk) = output.take_of(channel) {
        if host.write_all(&chunk.data).await.is_err() {
            return;
        }
    }
    let _ = host.flush().await;
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
        let waiting = output.shared.waiting.lock().expect("lock").bytes;
        assert!(waiting <= BUFFER, "{waiting}");
        let mut last = output.next().await;
        while let Some(chunk) = output.take() {
            last = chunk;
        }
        assert_eq!(last.data[0], 2999_u32.to_le_bytes()[0]);
    }
}
