//! Changes beneath a path, as the kernel reports them. Nothing is read before
//! the plugin takes it: what piles up is the kernel's queue, which is bounded.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_manifest::Permissions;
use outrigger_wire::proto::host::{ChangeKind, WatchResponse};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::area::Place;
use super::{Cx, Follow, Needs, Wanted};
use crate::fault::Fault;
use crate::leases::Slot;
use crate::session::Running;

const LIST: Needs = Needs::All(Permissions::LIST);
/// Watches of one connection: the kernel has few to give.
const WATCHES: usize = 8;
/// Changes that are kept because one look found so many; more are an overflow.
const KEPT: usize = 4096;

/// The places for watches of one connection.
#[derive(Debug)]
pub(crate) struct Watches(Arc<Semaphore>);

impl Default for Watches {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WATCHES)))
    }
}

/// A path that is watched.
pub(crate) struct Watching {
    notifier: AsyncFd<OwnedFd>,
    state: Arc<Mutex<State>>,
    ready: VecDeque<WatchResponse>,
    _places: (Slot, OwnedSemaphorePermit),
}

struct State {
    notifier: OwnedFd,
    top: Place,
    recursive: bool,
    most: usize,
    /// What is watched, by the kernel's number, as steps beneath the area.
    watched: HashMap<i32, PathBuf>,
    top_number: i32,
    changes: VecDeque<WatchResponse>,
    /// The top is no longer where it was.
    gone: bool,
}

impl Watching {
    pub(crate) async fn start(
        running: &Running,
        wanted: Wanted,
        recursive: bool,
    ) -> Result<Self, Fault> {
        let cx = running.cx();
        let slot = running.session().slot()?;
        let permit = running.session().own().watches.0.clone();
        let permit = permit.try_acquire_owned().map_err(|_| {
            Fault::exhausted("too-many-watches", format!("at most {WATCHES} at a time"))
        })?;
        let state = running
            .session()
            .blocking(move |_| State::start(&cx, &wanted, recursive))
            .await?;
        let notifier = state.notifier.try_clone()?;
        Ok(Self {
            // The descriptor is owned, and never changes: what `register` asks for.
            #[allow(deprecated, reason = "the alternative is an unsafe function")]
            notifier: AsyncFd::new(notifier)?,
            state: Arc::new(Mutex::new(state)),
            ready: VecDeque::from([WatchResponse {
                path: String::new(),
                kind: ChangeKind::Ready.into(),
            }]),
            _places: (slot, permit),
        })
    }

    /// The next change.
    pub(crate) async fn next(&mut self, running: &Running) -> Result<WatchResponse, Fault> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let mut readable = self.notifier.readable().await?;
            let (state, cx) = (self.state.clone(), running.cx());
            let look = running.session().blocking(move |_| {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let drained = state.read(&cx)?;
                Ok((std::mem::take(&mut state.changes), state.gone, drained))
            });
            let (changes, gone, drained) = look.await?;
            if drained {
                readable.clear_ready();
            } else {
                readable.retain_ready();
            }
            self.ready = changes;
            if self.ready.is_empty() && gone {
                return Err(Fault::System(Errno::NOENT));
            }
        }
    }
}

impl State {
    fn start(cx: &Cx, wanted: &Wanted, recursive: bool) -> Result<Self, Fault> {
        let top = cx.reach(wanted, Follow::Yes, LIST, |place| {
            place.inode()?;
            Ok(place.clone())
        })?;
        let mut state = Self {
            notifier: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            recursive: recursive && top.area.is_dir(),
            most: cx.session.limits().watched_dirs,
            top,
            watched: HashMap::new(),
            top_number: -1,
            changes: VecDeque::new(),
            gone: false,
        };
        let path = state.top.path.clone();
        state.top_number = state.add_one(&path)?;
        if state.recursive {
            state.add_below(cx, path, Found::Old)?;
        }
        Ok(state)
    }

    fn at(&self, path: &Path) -> Place {
        Place {
            area: self.top.area.clone(),
            path: path.to_owned(),
            dir_only: false,
        }
    }

    /// Watches what is at `path` beneath the area, which is no link.
    fn add_one(&mut self, path: &Path) -> Result<i32, Fault> {
        if self.watched.len() >= self.most {
            let text = format!("more than {} directories (`watched_dirs`)", self.most);
            return Err(Fault::exhausted("too-many-watches", text));
        }
        let inode = self.at(path).inode()?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK;
        // The inode that was found, whatever happens to its path.
        let name = format!("/proc/self/fd/{}", inode.as_raw_fd());
        let number = inotify::add_watch(&self.notifier, name, flags)?;
        self.watched.insert(number, path.to_owned());
        Ok(number)
    }

    /// Watches the directories beneath `path`, and reports what is in them when
    /// they are new.
    fn add_below(&mut self, cx: &Cx, path: PathBuf, found: Found) -> Result<(), Fault> {
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            cx.notes.check()?;
            let place = self.at(&path);
            // A part of the tree may not be granted for listing.
            if !cx.rights(&place).contains(Permissions::LIST) {
                continue;
            }
            let dir = match place.directory() {
                Ok(dir) => dir,
                // It has changed again; that is reported too.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for entry in Dir::new(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let below = path.join(name.to_string_lossy().as_ref());
                if found == Found::New {
                    self.report(&below, ChangeKind::Created);
                }
                if entry.file_type() == FileType::Directory && name.to_str().is_ok() {
                    match self.add_one(&below) {
                        Ok(_) => todo.push(below),
                        Err(Fault::System(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) => {}
                        Err(fault) => return Err(fault),
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what the kernel has to say; whether that was all.
    fn read(&mut self, cx: &Cx) -> Result<bool, Fault> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let notifier = self.notifier.try_clone()?;
        let mut events = inotify::Reader::new(&notifier, &mut buffer);
        // What was read from the kernel is nowhere else.
        while self.changes.len() < KEPT || !events.is_buffer_empty() {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let name = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            self.event(cx, event.wd(), event.events(), name)?;
        }
        Ok(false)
    }

    fn event(
        &mut self,
        cx: &Cx,
        number: i32,
        what: ReadFlags,
        name: Option<String>,
    ) -> Result<(), Fault> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflow();
            return self.start_again(cx);
        }
        if what.contains(ReadFlags::IGNORED) {
            self.watched.remove(&number);
            return Ok(());
        }
        let Some(dir) = self.watched.get(&number).cloned() else {
            // It was moved out of sight: nothing of it is ours to tell.
            return Ok(());
        };
        if number == self.top_number {
            if what.contains(ReadFlags::DELETE_SELF) || what.contains(ReadFlags::MOVE_SELF) {
                self.report(&dir, ChangeKind::Removed);
                self.gone = true;
                return Ok(());
            }
        } else if name.is_none() {
            // Its own directory tells the same with its name.
            return Ok(());
        }
        let path = name.map_or(dir.clone(), |name| dir.join(name));
        let is_dir = what.contains(ReadFlags::ISDIR);
        if what.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
            if is_dir {
                self.forget(&path);
            }
            self.report(&path, ChangeKind::Removed);
        } else if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.report(&path, ChangeKind::Created);
            if is_dir && self.recursive {
                self.add_new(cx, path)?;
            }
        } else if what.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
            self.report(&path, ChangeKind::Modified);
        }
        Ok(())
    }

    fn add_new(&mut self, cx: &Cx, path: PathBuf) -> Result<(), Fault> {
        let added = self
            .add_one(&path)
            .and_then(|_| self.add_below(cx, path, Found::New));
        match added {
            // It is gone again.
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(()),
            // It is not watched: what happens there is not told.
            Err(Fault::Exhausted { .. } | Fault::System(Errno::NOSPC)) => {
                self.overflow();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Stops watching `path` and what is beneath it.
    fn forget(&mut self, path: &Path) {
        let notifier = &self.notifier;
        self.watched.retain(|number, watched| {
            let keep = !watched.starts_with(path);
            if !keep {
                // It may be gone already.
                let _ = inotify::remove_watch(notifier, *number);
            }
            keep
        });
    }

    /// After events were lost it is not known what is where.
    fn start_again(&mut self, cx: &Cx) -> Result<(), Fault> {
        let top = self.top.path.clone();
        self.forget(&top);
        self.top_number = match self.add_one(&top) {
            Ok(number) => number,
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                self.gone = true;
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        if self.recursive {
            self.add_below(cx, top, Found::Old)?;
        }
        Ok(())
    }

    fn overflow(&mut self) {
        let path = self.top.spelled().to_string_lossy().into_owned();
        self.changes.push_back(WatchResponse {
            path,
            kind: ChangeKind::Overflow.into(),
        });
    }

    fn report(&mut self, path: &Path, kind: ChangeKind) {
        if self.changes.len() >= 2 * KEPT {
            return;
        }
        if self.changes.len() + 1 == 2 * KEPT {
            return self.overflow();
        }
        let path = self.at(path).spelled().to_string_lossy().into_owned();
        let kind = kind.into();
        self.changes.push_back(WatchResponse { path, kind });
    }
}

/// Whether what is in a directory was there before it was watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Old,
    New,
}
