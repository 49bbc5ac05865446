//! Changes of what is installed, while they happen.

mod events;
mod places;
mod snapshot;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use self::events::{Events, Heard};
use self::places::{Place, places_of};
pub use self::snapshot::{EntryChanged, Observed, Snapshot};
use crate::digest_cache::DigestCache;
use crate::error::{RegistryError, RegistryErrorKind};
use crate::registry::{Registry, Scan};

/// How long a folder in which something happens all the time is waited for before it is looked
/// at all the same.
const LONGEST_SETTLE: Duration = Duration::from_secs(5);
/// How often the folders are scanned again at once because new ones came into view.
const ROUNDS: usize = 8;

/// Watches a folder of plugins, and reports what changes. Dropping it ends that.
///
/// What happens in the folders is only a reason to look: when it has been quiet for a moment, the
/// folder is scanned, and what is reported is how that differs from what was reported before. So
/// the ways of editors and package managers make no difference, a file that is touched without
/// being changed is no change, and after quiet what was reported is what a fresh scan finds. A
/// plugin whose files are still being written is reported when they are done; those beside it do
/// not wait. While the folder itself cannot be listed, nothing is reported.
///
/// On file systems of other machines, and where the kernel has no more watches to give, the
/// folders are looked at from time to time instead.
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
/// use outrigger_registry::{DigestCache, Pace, Scan, Watch};
///
/// let digests = Arc::new(DigestCache::of_user());
/// let (watch, registry) = Watch::start(Scan::new(), "plugins", digests, Pace::default(), |changes| {
///     for change in changes {
///         println!("{change}");
///     }
/// })?;
/// println!("{} folders at first", registry.entries().len());
/// # drop(watch);
/// # Ok::<(), outrigger_registry::RegistryError>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// How soon changes are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How long it must have been quiet: 200 ms.
    pub settle: Duration,
    /// How often folders are looked at where nothing tells of changes: every 2 s.
    pub poll: Duration,
    /// Whether they are looked at that often everywhere.
    pub always_poll: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(200),
            poll: Duration::from_secs(2),
            always_poll: false,
        }
    }
}

impl Watch {
    /// Watches `folder` from now on: `report` is given what differs from the registry that this
    /// returns, and then what differs from what it was given. It is called on a thread of its
    /// own, and no change is looked at before it returns.
    ///
    /// This reads each program whose digest is not known yet, and so takes a while the first time.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Folder`]; [`RegistryErrorKind::Watch`] if the system has no
    /// descriptor or thread for it.
    pub fn start(
        scan: Scan,
        folder: impl AsRef<Path>,
        digests: Arc<DigestCache>,
        pace: Pace,
        report: impl FnMut(Vec<EntryChanged>) + Send + 'static,
    ) -> Result<(Self, Registry), RegistryError> {
        let folder = folder.as_ref().to_owned();
        let failed = |source| RegistryErrorKind::Watch {
            path: folder.clone(),
            source,
        };
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|errno| failed(errno.into()))?);
        let mut watcher = Watcher {
            events: Events::new(stop.clone()),
            places: places_of(&folder, None),
            scan,
            folder: folder.clone(),
            digests,
            pace,
            reported: Snapshot::default(),
            unsettled: HashMap::new(),
            report: Box::new(report),
        };
        let registry = watcher.begin()?;
        let thread = std::thread::Builder::new()
            .name("outrigger-watch".into())
            .spawn(move || watcher.run())
            .map_err(failed)?;
        let thread = Some(thread);
        Ok((Self { stop, thread }, registry))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It fails only if it was written to before.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // If the report panicked, that was said when it did.
            let _ = thread.join();
        }
    }
}

struct Watcher {
    events: Events,
    /// Where changes matter, as far as is known.
    places: Vec<Place>,
    scan: Scan,
    folder: PathBuf,
    digests: Arc<DigestCache>,
    pace: Pace,
    /// What the application was told.
    reported: Snapshot,
    /// What an entry was at the last look, if it was not yet reported.
    unsettled: HashMap<PathBuf, Option<Observed>>,
    report: Box<dyn FnMut(Vec<EntryChanged>) + Send>,
}

impl Watcher {
    /// Scans until what was found is what is there while everything is watched.
    fn begin(&mut self) -> Result<Registry, RegistryError> {
        let mut registry = self.scan_watched()?;
        self.reported = Snapshot::of(&registry, &self.digests);
        for _ in 0..ROUNDS {
            registry = self.scan_watched()?;
            let again = Snapshot::of(&registry, &self.digests);
            if again == self.reported {
                break;
            }
            self.reported = again;
        }
        Ok(registry)
    }

    /// A scan during which every place that it looked at was watched.
    fn scan_watched(&mut self) -> Result<Registry, RegistryError> {
        // What was replaced since the last time is another folder of that name.
        self.events.watch(&self.places);
        let mut registry = self.scan.folder(&self.folder)?;
        for _ in 0..ROUNDS {
            self.places = places_of(&self.folder, Some(&registry));
            if !self.events.watch(&self.places) {
                break;
            }
            registry = self.scan.folder(&self.folder)?;
        }
        Ok(registry)
    }

    fn run(mut self) {
        // Whether an entry was not reported because it seemed to change still.
        let mut again = false;
        loop {
            let polled = self.pace.always_poll || self.events.are_missed();
            let wait = match (again, polled) {
                (true, _) => Some(self.pace.settle),
                (false, true) => Some(self.pace.poll),
                (false, false) => None,
            };
            match self.events.wait(wait) {
                Heard::Stop => return,
                Heard::Nothing | Heard::Change => {}
            }
            let Some(quiet) = self.settle() else {
                return;
            };
            again = self.look(quiet && !polled);
        }
    }

    /// Waits until nothing happens any more: whether that came about. Nothing if it is to stop.
    fn settle(&mut self) -> Option<bool> {
        let begun = Instant::now();
        loop {
            match self.events.wait(Some(self.pace.settle)) {
                Heard::Stop => return None,
                Heard::Nothing => return Some(true),
                Heard::Change if begun.elapsed() >= LONGEST_SETTLE => return Some(false),
                Heard::Change => {}
            }
        }
    }

    /// Looks at the folder, and reports what changed: whether something is still changing. If it
    /// was not `quiet`, that is what was not the same at the last look.
    fn look(&mut self, quiet: bool) -> bool {
        let registry = match self.scan_watched() {
            Ok(registry) => registry,
            Err(error) => {
                tracing::warn!(%error, "the plugins' folder is watched, and cannot be listed");
                return false;
            }
        };
        let found = Snapshot::of(&registry, &self.digests);
        let last = std::mem::take(&mut self.unsettled);
        let mut settled = Vec::new();
        for change in self.reported.changes_to(&found) {
            let folder = change.folder().to_owned();
            let is_same = || last.get(&folder) == Some(&change.after().cloned());
            let entry = registry
                .entries()
                .iter()
                .find(|entry| entry.folder() == folder);
            let is_written = entry.is_some_and(|entry| self.events.is_written(entry));
            if !is_written && (quiet || is_same()) {
                settled.push(change);
            } else {
                self.unsettled.insert(folder, change.after().cloned());
            }
        }
        if !settled.is_empty() {
            self.reported.apply(&settled);
            (self.report)(settled);
        }
        !self.unsettled.is_empty()
    }
}
