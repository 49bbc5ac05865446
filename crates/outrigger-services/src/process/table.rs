//! The processes of one plugin connection. What is not in this table does not
//! exist for the plugin; what is in it ends with the connection.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::net::unix::pipe;
use uuid::Uuid;

use super::child::Child;
use super::family::Mark;
use super::output::Outputs;
use super::program::{Program, ProgramError};
use super::spawn::{self, Order};

/// A process that the plugin started.
#[derive(Debug)]
pub(crate) struct Entry {
    /// How the plugin names it: random, and worth nothing on other connections.
    pub(crate) id: String,
    pub(crate) child: Arc<Child>,
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) started: SystemTime,
    /// Nothing once it was closed.
    pub(crate) input: tokio::sync::Mutex<Option<pipe::Sender>>,
    /// One call at a time takes what it prints.
    pub(crate) outputs: tokio::sync::Mutex<Outputs>,
}

/// What one plugin connection may start, and what it started.
#[derive(Debug)]
pub(crate) struct Processes {
    /// By the commands that were granted: each found once, when the grants
    /// were bound to the connection.
    programs: BTreeMap<String, Result<Arc<Program>, ProgramError>>,
    mark: Mark,
    most: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// In the order of their start.
    entries: Vec<Arc<Entry>>,
    /// Places of processes that are about to start.
    reserved: usize,
    used: bool,
}

impl Processes {
    /// A table of at most `most` processes, for the given commands.
    pub(crate) fn new<'a>(commands: impl IntoIterator<Item = &'a str>, most: usize) -> Self {
        let programs = commands
            .into_iter()
            .map(|command| (command.to_owned(), Program::open(command).map(Arc::new)))
            .collect();
        Self {
            programs,
            mark: Mark::new(),
            most,
            table: Mutex::default(),
        }
    }

    /// The commands that cannot run, and why.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (&str, &ProgramError)> {
        self.programs
            .iter()
            .filter_map(|(command, program)| Some((command.as_str(), program.as_ref().err()?)))
    }

    /// The program of a granted command; nothing for other commands.
    pub(crate) fn program(&self, command: &str) -> Option<Result<Arc<Program>, ProgramError>> {
        self.programs.get(command).cloned()
    }

    /// The variable by which descendants of this plugin's commands are known.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        self.mark.variable()
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Room for one more process, if need be that of one which ended longest ago.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        if table.entries.len() + table.reserved >= self.most {
            let ended = |entry: &Arc<Entry>| entry.child.end().is_some();
            let oldest = table.entries.iter().position(ended)?;
            table.entries.remove(oldest);
        }
        table.reserved += 1;
        table.used = true;
        Some(Place(self.clone()))
    }

    /// The process of that name.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        let table = self.table();
        table.entries.iter().find(|entry| entry.id == id).cloned()
    }

    /// All of them, in the order of their start.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        self.table().entries.clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let table = std::mem::take(&mut *self.table());
        for entry in &table.entries {
            entry.child.kill();
        }
        if !table.used {
            return;
        }
        // Whoever drops may be a connection's thread; it must not look through
        // all processes of the machine.
        let mark = self.mark.clone();
        let thread = std::thread::Builder::new().name("outrigger-commands".into());
        if let Err(error) = thread.spawn(move || mark.end_all()) {
            tracing::warn!(%error, "descendants of a plugin's commands may be left");
        }
    }
}

/// Room for one process.
#[derive(Debug)]
pub(crate) struct Place(Arc<Processes>);

impl Place {
    /// Starts a command here. Blocks for about a millisecond; needs a runtime.
    pub(crate) fn start(self, command: String, order: &Order) -> io::Result<Held> {
        let started = spawn::spawn(order)?;
        let entry = Arc::new(Entry {
            // The fixed bits of the one are covered by random bits of the other.
            id: format!(
                "{:032x}",
                Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64)
            ),
            child: started.child,
            command,
            arguments: order.arguments.clone(),
            started: SystemTime::now(),
            input: tokio::sync::Mutex::new(Some(started.input)),
            outputs: tokio::sync::Mutex::new(started.outputs),
        });
        self.0.table().entries.push(entry.clone());
        Ok(Held {
            processes: self.0.clone(),
            entry: Some(entry),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.table().reserved -= 1;
    }
}

/// A process that lasts no longer than this value, unless it is kept.
#[derive(Debug)]
pub(crate) struct Held {
    processes: Arc<Processes>,
    entry: Option<Arc<Entry>>,
}

impl Held {
    /// Leaves the process to the table.
    pub(crate) fn keep(mut self) -> Option<Arc<Entry>> {
        self.entry.take()
    }

    pub(crate) fn entry(&self) -> Option<&Arc<Entry>> {
        self.entry.as_ref()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.child.kill();
            let mut table = self.processes.table();
            table.entries.retain(|other| !Arc::ptr_eq(other, &entry));
        }
    }
}
