//! What was decided for which plugin: one record per operation, kept in a file
//! of JSON lines, handed to the application, and told to `tracing`.

mod file;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::text::Quoted;
use file::FileSink;
pub use record::{AuditRecord, Verdict};

/// The smallest size bound of a file, in bytes: a few records fit.
const SMALLEST: u64 = 16 << 10;

/// Where the decisions of host services are kept.
///
/// Clones share it. It never holds up a call for long: a sink that does not
/// keep up makes a call wait for at most 20 ms, then records are dropped,
/// counted, and the count is reported in the file itself.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use outrigger_services::AuditLog;
///
/// let dir = tempfile::tempdir()?;
/// let (watched, mut records) = AuditLog::channel(100);
/// let audit = AuditLog::open(dir.path().join("audit.jsonl"), 1 << 20)?.and(watched);
/// // … bind plugins with `GrantedServices::audit(audit.clone())` …
/// assert!(records.try_recv().is_none());
/// assert!(audit.flush(Duration::from_secs(1)));
/// assert_eq!(audit.dropped(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct AuditLog {
    sinks: Arc<Vec<Sink>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Sink {
    File(Arc<FileSink>),
    Channel(mpsc::Sender<Arc<AuditRecord>>),
    Call(Arc<dyn Fn(&AuditRecord) + Send + Sync>),
    /// Another log, with a count of its own.
    Log(AuditLog),
}

/// An audit file could not be opened.
///
/// *Cause*: the folder does not exist, or the host may not write there.
/// *Resolution*: name a file in a folder that the host may write to, and that
/// no plugin was granted.
#[derive(Debug, thiserror::Error)]
#[error("could not open {} for audit records", Quoted(&.path.to_string_lossy()))]
pub struct AuditError {
    /// What was asked for.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl AuditError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        "audit-file-unusable"
    }
}

impl AuditLog {
    /// Records kept nowhere; `tracing` is told all the same.
    pub fn none() -> Self {
        Self::default()
    }

    /// Appends records to the file at `path`, one JSON object per line.
    ///
    /// Once it would be larger than `max_bytes` (at least 16 KiB), it is renamed
    /// to `path.1`, what was there before to `path.2`, and so on; five old files
    /// are kept. Writing happens on a thread of its own and is not synced to
    /// storage: records outlive this process, not the machine.
    ///
    /// # Errors
    /// [`AuditError`] when the file cannot be opened.
    pub fn open(path: impl AsRef<Path>, max_bytes: u64) -> Result<Self, AuditError> {
        Self::open_keeping(path, max_bytes, 5)
    }

    /// [`open`](Self::open) with `keep` old files.
    ///
    /// # Errors
    /// [`AuditError`] when the file cannot be opened.
    pub fn open_keeping(
        path: impl AsRef<Path>,
        max_bytes: u64,
        keep: usize,
    ) -> Result<Self, AuditError> {
        let path = path.as_ref();
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = FileSink::start(path, max_bytes.max(SMALLEST), keep, dropped.clone());
        let sink = sink.map_err(|source| AuditError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            sinks: Arc::new(vec![Sink::File(Arc::new(sink))]),
            dropped,
        })
    }

    /// Hands records to the receiver, which holds at most `capacity` of them;
    /// further ones are dropped and counted until it takes some. A receiver that
    /// is gone drops nothing that counts.
    pub fn channel(capacity: usize) -> (Self, AuditReceiver) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let log = Self {
            sinks: Arc::new(vec![Sink::Channel(sender)]),
            dropped: Arc::default(),
        };
        (log, AuditReceiver(receiver))
    }

    /// Calls `each` with every record, on the thread of the call: it must be
    /// quick.
    pub fn callback(each: impl Fn(&AuditRecord) + Send + Sync + 'static) -> Self {
        Self {
            sinks: Arc::new(vec![Sink::Call(Arc::new(each))]),
            dropped: Arc::default(),
        }
    }

    /// Both logs: records go to each.
    #[must_use]
    pub fn and(self, other: AuditLog) -> Self {
        Self {
            sinks: Arc::new(vec![Sink::Log(self), Sink::Log(other)]),
            dropped: Arc::default(),
        }
    }

    /// How many records were lost because a sink did not keep up or failed.
    pub fn dropped(&self) -> u64 {
        let of_sinks = self.sinks.iter().map(|sink| match sink {
            Sink::Log(log) => log.dropped(),
            Sink::File(_) | Sink::Channel(_) | Sink::Call(_) => 0,
        });
        self.dropped.load(Ordering::Relaxed) + of_sinks.sum::<u64>()
    }

    /// Waits until everything recorded so far is in the file, up to `within`;
    /// whether it is. Blocks the thread.
    pub fn flush(&self, within: Duration) -> bool {
        self.sinks.iter().all(|sink| match sink {
            Sink::File(file) => file.flush(within),
            Sink::Log(log) => log.flush(within),
            Sink::Channel(_) | Sink::Call(_) => true,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sinks.iter().all(|sink| match sink {
            Sink::Log(log) => log.is_empty(),
            Sink::File(_) | Sink::Channel(_) | Sink::Call(_) => false,
        })
    }

    pub(crate) fn record(&self, record: &Arc<AuditRecord>) {
        for sink in self.sinks.iter() {
            match sink {
                Sink::File(file) => file.push(record.clone()),
                Sink::Channel(sender) => {
                    if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(record.clone())
                    {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Sink::Call(each) => each(record),
                Sink::Log(log) => log.record(record),
            }
        }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog")
            .field("sinks", &self.sinks.len())
            .field("dropped", &self.dropped())
            .finish()
    }
}

/// The other end of [`AuditLog::channel`].
#[derive(Debug)]
pub struct AuditReceiver(mpsc::Receiver<Arc<AuditRecord>>);

impl AuditReceiver {
    /// The next record; nothing when every log that fed it is gone.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub async fn recv(&mut self) -> Option<Arc<AuditRecord>> {
        self.0.recv().await
    }

    /// A record that is there already.
    pub fn try_recv(&mut self) -> Option<Arc<AuditRecord>> {
        self.0.try_recv().ok()
    }

    /// The next record, waited for on this thread, which must not be one of the
    /// async runtime.
    pub fn blocking_recv(&mut self) -> Option<Arc<AuditRecord>> {
        self.0.blocking_recv()
    }
}
