//! What the file operations of one connection work with.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::area::Area;
use super::areas::GrantedAreas;
use super::listing::Cursors;
use super::temp::TempArea;
use crate::fault::Fault;
use crate::progress::Progress;
use crate::running::Running;
use crate::session::Session;

/// Watches of one connection: the kernel has few to give.
pub(crate) const WATCHES: usize = 8;

/// How files are served, for all connections under the same grants.
#[derive(Clone, Debug)]
pub(crate) struct FileSettings {
    /// Where temporary directories are made.
    pub(crate) temp_root: PathBuf,
    pub(crate) hard_links: HardLinks,
    pub(crate) ownership: Ownership,
}

/// Whether a file with several names may be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HardLinks {
    /// No: another of its names may lie outside every grant.
    #[default]
    ReadOnly,
    /// Yes, like any other file.
    Writable,
}

/// Whether files may be given to someone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Only to the host's own user and group.
    Host,
    /// To whomever the kernel allows.
    Anyone,
}

/// The files of one connection: what it was granted, and its temporary directory.
pub(crate) struct SessionFiles {
    session: Arc<Session>,
    areas: Arc<GrantedAreas>,
    pub(crate) settings: FileSettings,
    temp: OnceLock<TempArea>,
    making_temp: Mutex<()>,
    pub(crate) cursors: Cursors,
    pub(crate) watches: Arc<Semaphore>,
}

/// One operation on files. Work on a thread that outlives the call still has it.
#[derive(Clone)]
pub(crate) struct FileCall {
    pub(crate) session: Arc<Session>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) files: Arc<SessionFiles>,
    /// Whether the thread of this call may wait for storage.
    pub(crate) may_wait: bool,
}

impl SessionFiles {
    pub(crate) fn new(
        session: Arc<Session>,
        areas: Arc<GrantedAreas>,
        settings: FileSettings,
    ) -> Self {
        Self {
            session,
            areas,
            settings,
            temp: OnceLock::new(),
            making_temp: Mutex::default(),
            cursors: Cursors::default(),
            watches: Arc::new(Semaphore::new(WATCHES)),
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn areas(&self) -> &GrantedAreas {
        &self.areas
    }

    /// The file work of an operation.
    pub(crate) fn call(self: &Arc<Self>, running: &Running) -> FileCall {
        self.call_with(running.progress().clone())
    }

    /// [`call`](Self::call) for an operation of which only its progress is at hand.
    pub(crate) fn call_with(self: &Arc<Self>, progress: Arc<Progress>) -> FileCall {
        FileCall {
            session: self.session.clone(),
            progress,
            files: self.clone(),
            may_wait: true,
        }
    }

    /// The temporary directory of this connection, which is made if needed. May
    /// wait for storage.
    pub(crate) fn temp(&self) -> Result<&TempArea, Fault> {
        let making = self.making_temp.lock();
        let _making = making.unwrap_or_else(PoisonError::into_inner);
        if self.temp.get().is_none() {
            // The lock makes this the only writer.
            let made = TempArea::create(&self.settings.temp_root, self.session.identity())?;
            let _ = self.temp.set(made);
        }
        self.temp.get().ok_or(Fault::Broken)
    }

    /// The temporary directory if it exists already.
    pub(crate) fn temp_if_made(&self) -> Option<&TempArea> {
        self.temp.get()
    }

    /// The path of the temporary directory, which is made if needed. May wait for
    /// storage.
    pub(crate) fn temp_dir(&self) -> Result<PathBuf, Fault> {
        Ok(self.temp()?.area().canonical.clone())
    }

    /// Whether `area` is the temporary directory.
    pub(crate) fn is_temp(&self, area: &Arc<Area>) -> bool {
        let temp = self.temp_if_made();
        temp.is_some_and(|temp| Arc::ptr_eq(temp.area(), area))
    }
}

impl FileCall {
    /// The same operation, for a thread that must not wait for storage: what would
    /// have to fails with [`Fault::WouldWait`].
    pub(crate) fn at_once(&self) -> Self {
        Self {
            may_wait: false,
            ..self.clone()
        }
    }

    /// Fails where the thread of this call must not wait.
    pub(crate) fn wait(&self) -> Result<(), Fault> {
        match self.may_wait {
            true => Ok(()),
            false => Err(Fault::WouldWait),
        }
    }

    /// When the operation must be over.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.session.limits().call_timeout
    }
}
