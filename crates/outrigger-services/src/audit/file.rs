//! The audit file and the thread that writes it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::record::{AuditRecord, timestamp};
use super::share::{Losses, Shares};

/// How many records of one instance wait for the writer at most.
const WAITING: usize = 4096;
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
    /// Nothing left to write.
    emptied: Condvar,
    losses: Arc<Losses>,
}

#[derive(Default)]
struct State {
    records: VecDeque<Arc<AuditRecord>>,
    shares: Shares,
    /// The writer has taken records that are not in the file yet.
    writing: bool,
    /// Someone waits for what was recorded so far.
    hurry: bool,
    closed: bool,
    finished: bool,
}

impl FileSink {
    pub(super) fn start(
        path: &Path,
        max_bytes: u64,
        keep: usize,
        losses: Arc<Losses>,
    ) -> io::Result<Self> {
        let mut writer = Writer::open(path, max_bytes, keep)?;
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            losses,
        });
        let ours = queue.clone();
        let run = move || {
            while let Some(records) = queue.take() {
                writer.write(&records, &queue.losses);
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
        if !state.shares.take(&record.instance, WAITING) {
            self.losses.add(&record.plugin);
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
        state.shares.clear();
        Some(std::mem::take(&mut state.records))
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
    /// Which losses the file tells of.
    reported: BTreeMap<Arc<str>, u64>,
    /// The operator was told that writing fails.
    failing: bool,
    /// The file is full and could not be put aside.
    full: Full,
    buffer: Vec<u8>,
    /// Whose records are in the buffer.
    pending: Vec<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    No,
    /// Putting it aside is tried again with the next records.
    Before,
    Now,
}

impl Writer {
    fn open(path: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        let mut writer = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            max_bytes,
            keep,
            reported: BTreeMap::new(),
            failing: false,
            full: Full::No,
            buffer: Vec::new(),
            pending: Vec::new(),
        };
        writer.reopen()?;
        Ok(writer)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = append(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
            // It was put aside, and only a new one could not be begun.
            if self.size < self.max_bytes {
                self.full = Full::No;
            }
        }
        Ok(())
    }

    fn write(&mut self, records: &VecDeque<Arc<AuditRecord>>, losses: &Losses) {
        if self.full == Full::Now {
            self.full = Full::Before;
        }
        if let Err(error) = self.reopen() {
            self.complain(&error);
        }
        for record in records {
            let mut line = record.to_json();
            line.push('\n');
            match self.line(&line, losses) {
                true => self.pending.push(record.plugin.clone()),
                false => losses.add(&record.plugin),
            }
        }
        self.put(losses);
        self.report(losses);
    }

    /// Tells of what was lost since the last time.
    fn report(&mut self, losses: &Losses) {
        let lost = losses.all();
        if lost == self.reported {
            return;
        }
        let told = |plugin: &Arc<str>| self.reported.get(plugin).copied().unwrap_or(0);
        let new = lost
            .iter()
            .map(|(plugin, lost)| (plugin, lost - told(plugin)));
        let new: BTreeMap<_, _> = new.filter(|(_, new)| *new > 0).collect();
        let line = serde_json::json!({
            "time": timestamp(SystemTime::now()),
            "event": "records-dropped",
            "dropped": new.values().sum::<u64>(),
            "plugins": new,
            "total": lost.values().sum::<u64>(),
        });
        if self.line(&format!("{line}\n"), losses) && self.put(losses) {
            self.reported = lost;
        }
    }

    /// Adds a line to the buffer, in a new file if it does not fit into this one;
    /// whether there is room for it.
    fn line(&mut self, line: &str, losses: &Losses) -> bool {
        if self.file.is_none() {
            return false;
        }
        let size = self.size + self.buffer.len() as u64;
        if size > 0 && size + line.len() as u64 > self.max_bytes {
            self.put(losses);
            if self.full == Full::Now {
                return false;
            }
            if let Err(error) = self.rotate() {
                self.complain(&error);
                self.full = Full::Now;
                return false;
            }
            self.full = Full::No;
        }
        self.buffer.extend_from_slice(line.as_bytes());
        true
    }

    /// Writes the buffer.
    fn put(&mut self, losses: &Losses) -> bool {
        let records = std::mem::take(&mut self.pending);
        let Some(file) = &mut self.file else {
            records.iter().for_each(|plugin| losses.add(plugin));
            return false;
        };
        if self.buffer.is_empty() {
            return true;
        }
        let outcome = file.write_all(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        match outcome {
            Ok(()) => {
                self.failing = self.full != Full::No;
                true
            }
            Err(error) => {
                records.iter().for_each(|plugin| losses.add(plugin));
                // What was not written must not count as if the file were full.
                if let Ok(known) = file.metadata() {
                    self.size = known.len();
                }
                self.complain(&error);
                // A part of a line may be there: the next one begins anew.
                self.buffer.push(b'\n');
                false
            }
        }
    }

    /// Puts the file aside, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let old = |number: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        // What is not there is out of the way.
        let done = |outcome: io::Result<()>| match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.keep == 0 {
            done(std::fs::remove_file(&self.path))?;
        } else {
            for number in (1..self.keep).rev() {
                done(std::fs::rename(old(number), old(number + 1)))?;
            }
            done(std::fs::rename(&self.path, old(1)))?;
        }
        self.file = None;
        self.buffer.clear();
        self.reopen()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_begun_late_is_not_full_and_its_errors_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        let mut writer = Writer::open(&path, 16 << 10, 1).expect("a file");
        let losses = Losses::default();
        // Put aside, with no descriptor left to begin a new one.
        writer.file = None;
        writer.full = Full::Now;
        writer.failing = true;
        losses.add(&"p".into());
        writer.write(&VecDeque::new(), &losses);
        assert!(writer.full == Full::No);
        // The next error is a new one.
        assert!(!writer.failing);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains("records-dropped"), "{text}");
    }
}
