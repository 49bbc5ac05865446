//! The audit file and the thread that writes it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::record::{AuditRecord, timestamp};

/// How many records wait for the writer at most.
const WAITING: usize = 4096;
/// How long a call waits for room among them, once.
const PATIENCE: Duration = Duration::from_millis(20);
/// So many records are written at once without waiting for more.
const MANY: usize = 512;
/// How long the writer waits for more, so that single calls do not wake it.
const LINGER: Duration = Duration::from_millis(5);
/// How long the end of the log waits for its last records.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct FileSink {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    /// Something to write, or the end.
    filled: Condvar,
    /// Room for more, or nothing left to write.
    emptied: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    records: VecDeque<Arc<AuditRecord>>,
    /// The writer has taken records that are not in the file yet.
    writing: bool,
    /// Someone waits for what was recorded so far.
    hurry: bool,
    closed: bool,
    finished: bool,
    /// A call has waited in vain: the next ones do not wait before the writer
    /// has moved again.
    stuck: bool,
}

impl FileSink {
    pub(super) fn start(
        path: &Path,
        max_bytes: u64,
        keep: usize,
        dropped: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let mut writer = Writer::open(path, max_bytes, keep)?;
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped,
        });
        let ours = queue.clone();
        let run = move || {
            while let Some(records) = queue.take() {
                writer.write(&records, &queue.dropped);
                queue.written();
            }
            queue.finish();
        };
        // It ends with the queue, which `Drop` closes and waits for.
        std::thread::Builder::new()
            .name("outrigger-audit".into())
            .spawn(run)?;
        Ok(Self { queue: ours })
    }

    pub(super) fn push(&self, record: Arc<AuditRecord>) {
        self.queue.push(record);
    }

    pub(super) fn flush(&self, within: Duration) -> bool {
        let idle = |state: &mut State| !state.records.is_empty() || state.writing;
        let mut state = self.queue.state();
        state.hurry = true;
        self.queue.filled.notify_all();
        let waited = self.queue.emptied.wait_timeout_while(state, within, idle);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        self.queue.filled.notify_all();
        let unfinished = |state: &mut State| !state.finished;
        // A writer that is stuck in the system is left alone.
        let _ = self
            .queue
            .emptied
            .wait_timeout_while(state, FAREWELL, unfinished);
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: Arc<AuditRecord>) {
        let mut state = self.state();
        if state.records.len() >= WAITING && !state.stuck {
            let full = |state: &mut State| state.records.len() >= WAITING;
            let waited = self.emptied.wait_timeout_while(state, PATIENCE, full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.stuck = state.records.len() >= WAITING;
        }
        if state.records.len() >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.records.push_back(record);
        // The writer sleeps when there was nothing, and lingers until there is much.
        if state.records.len() == 1 || state.records.len() == MANY {
            self.filled.notify_one();
        }
    }

    fn take(&self) -> Option<VecDeque<Arc<AuditRecord>>> {
        let idle = |state: &mut State| state.records.is_empty() && !state.closed;
        let state = self.filled.wait_while(self.state(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.records.len() < MANY && !state.hurry && !state.closed;
        let lingered = self.filled.wait_timeout_while(state, LINGER, few);
        let mut state = lingered.unwrap_or_else(PoisonError::into_inner).0;
        state.hurry = false;
        if state.records.is_empty() {
            return None;
        }
        state.writing = true;
        state.stuck = false;
        let records = std::mem::take(&mut state.records);
        self.emptied.notify_all();
        Some(records)
    }

    fn written(&self) {
        self.state().writing = false;
        self.emptied.notify_all();
    }

    fn finish(&self) {
        self.state().finished = true;
        self.emptied.notify_all();
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_bytes: u64,
    keep: usize,
    /// How many losses the file tells of.
    reported: u64,
    failing: bool,
    buffer: Vec<u8>,
    /// How many records are in the buffer.
    pending: u64,
}

impl Writer {
    fn open(path: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            max_bytes,
            keep,
            reported: 0,
            failing: false,
            buffer: Vec::new(),
            pending: 0,
        })
    }

    fn write(&mut self, records: &VecDeque<Arc<AuditRecord>>, dropped: &AtomicU64) {
        for record in records {
            let mut line = record.to_json();
            line.push('\n');
            self.line(&line, dropped);
            self.pending += 1;
        }
        self.put(dropped);
        let lost = dropped.load(Ordering::Relaxed);
        if lost > self.reported {
            let (new, time) = (lost - self.reported, timestamp(SystemTime::now()));
            let line = format!(
                "{{\"time\":\"{time}\",\"event\":\"records-dropped\",\"dropped\":{new},\"total\":{lost}}}\n"
            );
            self.line(&line, dropped);
            if self.put(dropped) {
                self.reported = lost;
            }
        }
    }

    /// Adds a line to the buffer, in a new file if it does not fit into this one.
    fn line(&mut self, line: &str, dropped: &AtomicU64) {
        let size = self.size + self.buffer.len() as u64;
        if size > 0 && size + line.len() as u64 > self.max_bytes {
            self.put(dropped);
            if let Err(error) = self.rotate() {
                self.complain(&error);
            }
        }
        self.buffer.extend_from_slice(line.as_bytes());
    }

    /// Writes the buffer.
    fn put(&mut self, dropped: &AtomicU64) -> bool {
        if self.buffer.is_empty() {
            return true;
        }
        let outcome = match &mut self.file {
            Some(file) => file.write_all(&self.buffer),
            None => append(&self.path).and_then(|mut file| {
                self.size = file.metadata()?.len();
                file.write_all(&self.buffer)?;
                self.file = Some(file);
                Ok(())
            }),
        };
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        let records = std::mem::take(&mut self.pending);
        match outcome {
            Ok(()) => {
                self.failing = false;
                true
            }
            Err(error) => {
                dropped.fetch_add(records, Ordering::Relaxed);
                self.complain(&error);
                // A part of a line may be there: the next one begins anew.
                self.buffer.push(b'\n');
                false
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let old = |number: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                match std::fs::rename(old(number), old(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::rename(&self.path, old(1))?;
        }
        self.file = Some(append(&self.path)?);
        self.size = 0;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.failing {
            tracing::error!(
                target: "outrigger_services::audit",
                path = %self.path.display(), %error, "audit records could not be written"
            );
        }
        self.failing = true;
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
