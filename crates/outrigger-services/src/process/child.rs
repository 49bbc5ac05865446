//! One process that the host started for a plugin: held, ended with all of its
//! group, and reaped.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_transport::process::{self, ProcessHandle};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long dropping a process waits for its end after killing it, where
/// nobody else is left to.
const REAP: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
    /// The system did not tell: something else in the host reaped it.
    Unknown,
}

impl From<std::process::ExitStatus> for End {
    fn from(status: std::process::ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// A process and its group. When the process has ended, its group is ended too,
/// and the process is reaped.
#[derive(Debug)]
pub(crate) struct Child {
    handle: ProcessHandle,
    /// Nothing once the process is reaped. Until then its number, which is also
    /// its group's, belongs to nobody else.
    unreaped: Mutex<Option<std::process::Child>>,
    end: watch::Sender<Option<(End, Instant)>>,
}

impl Child {
    /// Takes hold of a process that was just started and leads its own group.
    ///
    /// What it inherited is gone when this fails.
    pub(crate) fn hold(mut child: std::process::Child) -> io::Result<Self> {
        Ok(Self {
            handle: ProcessHandle::of_child(&mut child)?,
            unreaped: Mutex::new(Some(child)),
            end: watch::Sender::new(None),
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.handle.pid()
    }

    /// Sees to it that the process is reaped when it ends, whenever that is.
    pub(crate) fn watch(self: &Arc<Self>) {
        let child = self.clone();
        // It ends with the process, which is killed when its plugin goes. When
        // the runtime goes first, dropping the process does the rest.
        tokio::spawn(async move {
            child.handle.ended().await;
            child.reap();
        });
    }

    /// How it ended, if it did.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.borrow().map(|(end, _)| end)
    }

    /// When that was known.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.end.borrow().map(|(_, at)| at)
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.map_or(End::Unknown, |(end, _)| end),
            Err(_) => End::Unknown,
        }
    }

    /// Signals exactly this process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        if self.end().is_some() {
            return Err(Errno::SRCH);
        }
        self.handle.signal(signal)
    }

    /// Kills the process and its group, unless it is gone.
    pub(crate) fn kill(&self) {
        let unreaped = self.lock();
        if unreaped.is_some() {
            self.kill_group();
        }
    }

    /// Call this with the lock held: the group's number is its own only until
    /// the process is reaped.
    fn kill_group(&self) {
        // The process itself, which may have joined another group; one that
        // waits to be reaped counts as there.
        match self.handle.signal(Signal::KILL) {
            // A host that ignores SIGCHLD has it reaped without us: the number
            // may be somebody else's by now.
            Err(Errno::SRCH) => {}
            Ok(()) | Err(_) => {
                // An empty group is fine.
                let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
            }
        }
    }

    fn reap(&self) {
        let end = {
            let mut unreaped = self.lock();
            let Some(child) = unreaped.as_mut() else {
                return;
            };
            self.kill_group();
            let end = process::reap(child).map_or(End::Unknown, End::from);
            *unreaped = None;
            end
        };
        self.end.send_replace(Some((end, Instant::now())));
    }

    fn lock(&self) -> MutexGuard<'_, Option<std::process::Child>> {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.lock().is_none() {
            return;
        }
        self.kill();
        if self.handle.ended_within(REAP) {
            self.reap();
        } else {
            let pid = self.pid().as_raw_nonzero();
            tracing::warn!(pid, "a killed command did not end");
        }
    }
}
