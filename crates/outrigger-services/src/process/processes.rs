//! What one plugin connection may start, and what it started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::SystemTime;

use outrigger_transport::{Belonging, PluginIdentity, Tie};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::child::{Child, End};
use super::family::Mark;
use super::output::Outputs;
use super::spawn::{self, Order};
use crate::fault::Fault;
use crate::fs::temp::TempArea;
use crate::leases::{Lease, Life};

/// A process that the plugin started; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Arc<Child>,
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) started: SystemTime,
    /// Larger than that of every process started before.
    pub(crate) number: u64,
    /// Nothing once it was closed.
    pub(crate) input: Arc<Mutex<Option<pipe::Sender>>>,
    /// One call at a time takes what it prints.
    pub(crate) outputs: Arc<Mutex<Outputs>>,
    /// Whether the plugin was told how it ended.
    told: AtomicBool,
    _room: Room,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill();
    }
}

impl Lease for Process {
    fn life(&self) -> Option<Life> {
        Some(match self.child.ended_at() {
            None => Life::Runs,
            Some(at) => Life::Ended {
                told: self.told.load(Ordering::Relaxed),
                at,
            },
        })
    }
}

impl Process {
    /// Waits for its end, which the plugin is then told.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ended(&self) -> End {
        let end = self.child.ended().await;
        self.told.store(true, Ordering::Relaxed);
        end
    }

    /// The host's ends of stdin, stdout and stderr, for the plugin to use by
    /// itself. What was read already is not in them.
    pub(crate) async fn take_pipes(&self) -> io::Result<[OwnedFd; 3]> {
        let input = self.input.lock().await.take();
        let input = input.ok_or(io::ErrorKind::BrokenPipe)?.into_blocking_fd()?;
        let outputs = std::mem::replace(&mut *self.outputs.lock().await, Outputs::none());
        let [output, error_output] = outputs.into_fds()?;
        Ok([input, output, error_output])
    }
}

/// Room for one process.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// The commands of one plugin connection. Nothing that was started with them
/// outlives this value for long.
#[derive(Debug)]
pub(crate) struct Processes {
    mark: Mark,
    most: usize,
    rooms: Arc<Semaphore>,
    started: AtomicU64,
    used: AtomicBool,
    home: OnceLock<TempArea>,
    making_home: std::sync::Mutex<()>,
    tie: std::sync::Mutex<Option<Box<dyn Tie>>>,
}

impl Processes {
    /// At most `most` processes.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            mark: Mark::new(),
            most,
            rooms: Arc::new(Semaphore::new(most)),
            started: AtomicU64::new(0),
            used: AtomicBool::new(false),
            home: OnceLock::new(),
            making_home: std::sync::Mutex::new(()),
            tie: std::sync::Mutex::default(),
        }
    }

    /// The variable by which descendants of this plugin's commands are known.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        self.mark.variable()
    }

    /// The directory beneath `root` that commands have for themselves: the
    /// plugin has no say in what they find there. Made if needed; blocks. From
    /// then on all of them go with the host's process.
    pub(crate) fn home(&self, root: &Path, identity: &PluginIdentity) -> Result<&str, Fault> {
        let _making = self
            .making_home
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.home.get().is_none() {
            // The lock makes this the only writer.
            let _ = self.home.set(TempArea::create(root, identity)?);
            let (variable, value) = self.mark.variable();
            let tie = identity.tie(Belonging::Processes { variable, value });
            *self.tie.lock().unwrap_or_else(PoisonError::into_inner) = tie;
        }
        let home = self.home.get().ok_or(Fault::Broken)?;
        let utf8 = home.area().canonical.to_str();
        utf8.ok_or_else(|| Fault::failed("the directory for temporary files is not UTF-8"))
    }

    /// How many processes there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Room for one more process.
    pub(crate) fn room(&self) -> Option<Room> {
        let permit = self.rooms.clone().try_acquire_owned().ok()?;
        Some(Room { _permit: permit })
    }

    /// Starts a command. Blocks for about a millisecond; needs a runtime.
    pub(crate) fn start(&self, room: Room, order: Order) -> io::Result<Process> {
        self.used.store(true, Ordering::Relaxed);
        let started = spawn::spawn(&order)?;
        Ok(Process {
            child: started.child,
            command: order.name,
            arguments: order.arguments,
            started: SystemTime::now(),
            number: self.started.fetch_add(1, Ordering::Relaxed),
            input: Arc::new(Mutex::new(Some(started.input))),
            outputs: Arc::new(Mutex::new(started.outputs)),
            told: AtomicBool::new(false),
            _room: room,
        })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let tie = self
            .tie
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let untie = move || {
            if let Some(tie) = tie {
                tie.untie();
            }
        };
        if !*self.used.get_mut() {
            untie();
            return;
        }
        // Whoever drops may be a connection's thread; it must not look through
        // all processes of the machine.
        let (mark, home) = (self.mark.clone(), self.home.take());
        let thread = std::thread::Builder::new().name("outrigger-commands".into());
        let end = move || {
            mark.end_all();
            untie();
            // Nobody is left who writes there.
            drop(home);
        };
        if let Err(error) = thread.spawn(end) {
            tracing::warn!(%error, "descendants of a plugin's commands may be left");
        }
    }
}
