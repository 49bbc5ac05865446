//! What was decided for which plugin: one record per operation, kept in a file
//! of JSON lines, handed to the application, and told to `tracing`.

mod file;
mod record;
mod share;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_wire::Excerpt;
use tokio::sync::mpsc;

use file::FileSink;
pub use record::{AuditRecord, Verdict};
use share::{Losses, Shares};

/// The smallest size bound of a file, in bytes: a few records fit.
const SMALLEST: u64 = 16 << 10;

/// Where the decisions of host services are kept.
///
/// Clones share it. It never holds up a call: each instance of a plugin has
/// places for records that wait (4096 for a file); what a sink that does not keep
/// up leaves no place for is dropped and counted, and the file itself tells how
/// many of which plugin. One plugin's records never take the place of another's.
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
    losses: Arc<Losses>,
}

#[derive(Clone)]
enum Sink {
    File(Arc<FileSink>),
    Channel(Sender),
    Call(Arc<dyn Fn(&AuditRecord) + Send + Sync>),
    /// Another log, with a count of its own.
    Log(AuditLog),
}

#[derive(Clone)]
struct Sender {
    records: mpsc::UnboundedSender<Arc<AuditRecord>>,
    shares: Arc<Mutex<Shares>>,
    capacity: usize,
}

/// An audit file could not be opened.
///
/// *Cause*: the folder does not exist, or the host may not write there.
/// *Resolution*: name a file in a folder that the host may write to, and that
/// no plugin was granted.
#[derive(Debug, thiserror::Error)]
#[error("could not open {} for audit records", Excerpt::from(.path.as_path()))]
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
    /// are kept. If it cannot be renamed, records are dropped and counted until it
    /// can. Writing happens on a thread of its own and is not synced to
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
        let losses = Arc::new(Losses::default());
        let sink = FileSink::start(path, max_bytes.max(SMALLEST), keep, losses.clone());
        let sink = sink.map_err(|source| AuditError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            sinks: Arc::new(vec![Sink::File(Arc::new(sink))]),
            losses,
        })
    }

    /// Hands records to the receiver, which holds at most `capacity` of each
    /// instance of a plugin; further ones are dropped and counted until it takes
    /// some. A receiver that is gone drops nothing that counts.
    pub fn channel(capacity: usize) -> (Self, AuditReceiver) {
        let (sender, records) = mpsc::unbounded_channel();
        let shares = Arc::<Mutex<Shares>>::default();
        let sender = Sender {
            records: sender,
            shares: shares.clone(),
            capacity: capacity.max(1),
        };
        let log = Self {
            sinks: Arc::new(vec![Sink::Channel(sender)]),
            losses: Arc::default(),
        };
        (log, AuditReceiver { records, shares })
    }

    /// Calls `each` with every record, on the thread of the call: it must be
    /// quick.
    pub fn callback(each: impl Fn(&AuditRecord) + Send + Sync + 'static) -> Self {
        Self {
            sinks: Arc::new(vec![Sink::Call(Arc::new(each))]),
            losses: Arc::default(),
        }
    }

    /// Both logs: records go to each.
    #[must_use]
    pub fn and(self, other: AuditLog) -> Self {
        Self {
            sinks: Arc::new(vec![Sink::Log(self), Sink::Log(other)]),
            losses: Arc::default(),
        }
    }

    /// How many records were lost because a sink did not keep up or failed.
    pub fn dropped(&self) -> u64 {
        self.logs().map(|log| log.losses.total()).sum()
    }

    /// How many records of each plugin were lost, by its name.
    pub fn dropped_by_plugin(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (plugin, lost) in self.logs().flat_map(|log| log.losses.all()) {
            *all.entry(plugin.to_string()).or_default() += lost;
        }
        all
    }

    /// This log and those within it.
    fn logs(&self) -> Box<dyn Iterator<Item = &AuditLog> + '_> {
        let within = self.sinks.iter().filter_map(|sink| match sink {
            Sink::Log(log) => Some(log.logs()),
            Sink::File(_) | Sink::Channel(_) | Sink::Call(_) => None,
        });
        Box::new(std::iter::once(self).chain(within.flatten()))
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

    /// Keeps a record that no host service made. Like all records it may be dropped, and is
    /// counted then.
    pub fn add(&self, record: AuditRecord) {
        self.record(&Arc::new(record));
    }

    pub(crate) fn record(&self, record: &Arc<AuditRecord>) {
        for sink in self.sinks.iter() {
            match sink {
                Sink::File(file) => file.push(record.clone()),
                Sink::Channel(sender) => {
                    if !sender.send(record) {
                        self.losses.add(&record.plugin);
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

impl Sender {
    /// Whether the record was taken, or the receiver is gone and wants none.
    fn send(&self, record: &Arc<AuditRecord>) -> bool {
        if self.records.is_closed() {
            return true;
        }
        if !lock(&self.shares).take(&record.instance, self.capacity) {
            return false;
        }
        // A receiver that has just gone wants nothing.
        let _ = self.records.send(record.clone());
        true
    }
}

fn lock(shares: &Mutex<Shares>) -> std::sync::MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other end of [`AuditLog::channel`].
#[derive(Debug)]
pub struct AuditReceiver {
    records: mpsc::UnboundedReceiver<Arc<AuditRecord>>,
    shares: Arc<Mutex<Shares>>,
}

impl AuditReceiver {
    /// The next record; nothing when every log that fed it is gone.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub async fn recv(&mut self) -> Option<Arc<AuditRecord>> {
        let record = self.records.recv().await;
        self.taken(record)
    }

    /// A record that is there already.
    pub fn try_recv(&mut self) -> Option<Arc<AuditRecord>> {
        let record = self.records.try_recv().ok();
        self.taken(record)
    }

    /// The next record, waited for on this thread, which must not be one of the
    /// async runtime.
    pub fn blocking_recv(&mut self) -> Option<Arc<AuditRecord>> {
        let record = self.records.blocking_recv();
        self.taken(record)
    }

    fn taken(&self, record: Option<Arc<AuditRecord>>) -> Option<Arc<AuditRecord>> {
        let record = record?;
        lock(&self.shares).give_back(&record.instance);
        Some(record)
    }
}
