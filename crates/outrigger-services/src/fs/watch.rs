//! Changes beneath a path, as the kernel reports them. Nothing is read before
//! the plugin takes it: what piles up is the kernel's queue, which is bounded.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_wire::proto::host::{ChangeKind, WatchResponse};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;

use super::call::{FileCall, WATCHES};
use super::kernel::Purpose;
use super::place::Place;
use super::requested_path::RequestedPath;
use super::resolve::Follow;
use super::rights::Required;
use crate::fault::Fault;
use crate::leases::Slot;

/// Changes after which a look ends, and twice of which it keeps: more are an
/// overflow.
const KEPT: usize = 4096;
/// The same for the bytes of their paths.
const KEPT_BYTES: usize = 1 << 20;

/// A path that is watched.
pub(crate) struct Watching {
    call: FileCall,
    notifier: AsyncFd<OwnedFd>,
    state: Arc<Mutex<State>>,
    ready: VecDeque<WatchResponse>,
    gone: bool,
    _places: (Slot, OwnedSemaphorePermit),
}

struct State {
    notifier: OwnedFd,
    top: Place,
    recursive: bool,
    most: usize,
    /// What was found there, whatever lies there now.
    held: OwnedFd,
    /// What is watched, by the kernel's number, as steps beneath the area.
    watched: HashMap<i32, PathBuf>,
    changes: Changes,
    /// The top is no longer where it was.
    gone: bool,
}

/// What a look has found, in bounded room.
#[derive(Default)]
struct Changes {
    list: VecDeque<WatchResponse>,
    bytes: usize,
    overflown: bool,
}

impl Changes {
    fn is_full(&self) -> bool {
        self.list.len() >= KEPT || self.bytes >= KEPT_BYTES
    }

    /// Keeps one, or progress that there is no room for it; `top` is what is watched.
    fn push(&mut self, top: &Path, path: &Path, kind: ChangeKind) {
        if self.overflown {
            return;
        }
        let mut path = path.to_string_lossy().into_owned();
        let mut kind = kind;
        if self.list.len() + 1 >= 2 * KEPT || self.bytes + path.len() >= 2 * KEPT_BYTES {
            self.overflown = true;
            path = top.to_string_lossy().into_owned();
            kind = ChangeKind::Overflow;
        }
        self.bytes += path.len();
        let kind = kind.into();
        self.list.push_back(WatchResponse { path, kind });
    }
}

impl Watching {
    pub(crate) async fn start(
        call: FileCall,
        wanted: RequestedPath,
        recursive: bool,
    ) -> Result<Self, Fault> {
        let slot = call.session.slot()?;
        let permit = call.files.watches.clone();
        let permit = permit.try_acquire_owned().map_err(|_| {
            Fault::exhausted("too-many-watches", format!("at most {WATCHES} at a time"))
        })?;
        let starting = call.clone();
        let state = call
            .session
            .blocking(move || State::start(&starting, &wanted, recursive))
            .await?;
        let notifier = state.notifier.try_clone()?;
        Ok(Self {
            call,
            // The descriptor is owned, and never changes: what `register` asks for.
            #[allow(deprecated, reason = "the alternative is an unsafe function")]
            notifier: AsyncFd::new(notifier)?,
            state: Arc::new(Mutex::new(state)),
            ready: VecDeque::from([WatchResponse {
                path: String::new(),
                kind: ChangeKind::Ready.into(),
            }]),
            gone: false,
            _places: (slot, permit),
        })
    }

    /// The next change.
    pub(crate) async fn change(&mut self) -> Result<WatchResponse, Fault> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            if self.gone {
                return Err(Fault::System(Errno::NOENT));
            }
            let mut readable = self.notifier.readable().await?;
            let (state, call) = (self.state.clone(), self.call.clone());
            let look = self.call.session.blocking(move || {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let drained = state.read(&call)?;
                Ok((std::mem::take(&mut state.changes).list, state.gone, drained))
            });
            let (changes, gone, drained) = look.await?;
            if drained {
                readable.clear_ready();
            } else {
                readable.retain_ready();
            }
            (self.ready, self.gone) = (changes, gone);
        }
    }
}

impl State {
    fn start(call: &FileCall, wanted: &RequestedPath, recursive: bool) -> Result<Self, Fault> {
        let (top, held) = call.reach(wanted, Follow::Yes, Required::Listed, |place| {
            Ok((place.clone(), place.inode()?))
        })?;
        let mut state = Self {
            notifier: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            recursive: recursive && top.area.is_dir(),
            most: call.session.limits().watched_dirs,
            top,
            held,
            watched: HashMap::new(),
            changes: Changes::default(),
            gone: false,
        };
        state.add_all(call)?;
        Ok(state)
    }

    /// Watches all of it. Where it is taken from its place meanwhile, the first
    /// look finds out.
    fn add_all(&mut self, call: &FileCall) -> Result<(), Fault> {
        let top = self.top.path.clone();
        self.add_one(call, &top)?;
        if self.recursive {
            self.add_below(call, top, Found::Old)?;
        }
        Ok(())
    }

    fn at(&self, path: &Path) -> Place {
        Place {
            area: self.top.area.clone(),
            path: path.to_owned(),
            dir_only: false,
            purpose: Purpose::Look,
        }
    }

    /// Watches what is at `path` beneath the area, which is no link. Whoever
    /// watches a directory learns what is in it.
    fn add_one(&mut self, call: &FileCall, path: &Path) -> Result<(), Fault> {
        if self.watched.len() >= self.most {
            let text = format!("more than {} directories (`watched_dirs`)", self.most);
            return Err(Fault::exhausted("too-many-watches", text));
        }
        let place = self.at(path);
        let inode = if path == self.top.path {
            self.held.try_clone()?
        } else {
            place.inode()?
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&inode)?.st_mode) == FileType::Directory {
            call.lists(&place)?;
        }
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
        Ok(())
    }

    /// Watches the directories beneath `path`, and reports what is in them when
    /// they are new.
    fn add_below(&mut self, call: &FileCall, path: PathBuf, found: Found) -> Result<(), Fault> {
        let mut todo = vec![path];
        while let Some(path) = todo.pop() {
            call.progress.check()?;
            let dir = match self.at(&path).directory() {
                Ok(dir) => dir,
                // It has changed again; that is reported too.
                Err(Fault::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => continue,
                Err(fault) => return Err(fault),
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
                    match self.add_one(call, &below) {
                        Ok(()) => todo.push(below),
                        // A part of the tree may not be granted for listing, or not
                        // be served at all.
                        Err(Fault::Denied(_) | Fault::Refused(_)) => {}
                        Err(Fault::System(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) => {}
                        Err(fault) => return Err(fault),
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what the kernel has to say; whether that was all.
    fn read(&mut self, call: &FileCall) -> Result<bool, Fault> {
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let notifier = self.notifier.try_clone()?;
        let mut events = inotify::Reader::new(&notifier, &mut buffer);
        // What was read from the kernel is nowhere else.
        while !self.gone && (!self.changes.is_full() || !events.is_buffer_empty()) {
            let from_kernel = events.is_buffer_empty();
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            // Nothing is said when something above it is moved. All that is in the
            // buffer happened before this.
            if from_kernel && !self.top.still_is(&self.held)? {
                self.is_gone();
                break;
            }
            let name = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            self.event(call, event.wd(), event.events(), name)?;
        }
        Ok(false)
    }

    fn event(
        &mut self,
        call: &FileCall,
        number: i32,
        what: ReadFlags,
        name: Option<String>,
    ) -> Result<(), Fault> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflow();
            return self.start_again(call);
        }
        if what.contains(ReadFlags::IGNORED) {
            self.watched.remove(&number);
            return Ok(());
        }
        let Some(dir) = self.watched.get(&number).cloned() else {
            // It was moved out of sight: nothing of it is ours to tell.
            return Ok(());
        };
        if dir != self.top.path && name.is_none() {
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
                self.add_new(call, path)?;
            }
        } else if what.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
            self.report(&path, ChangeKind::Modified);
        }
        Ok(())
    }

    fn add_new(&mut self, call: &FileCall, path: PathBuf) -> Result<(), Fault> {
        let added = self
            .add_one(call, &path)
            .and_then(|()| self.add_below(call, path, Found::New));
        match added {
            // It is gone again, or may not be listed.
            Err(Fault::Denied(_) | Fault::Refused(_)) => Ok(()),
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
    fn start_again(&mut self, call: &FileCall) -> Result<(), Fault> {
        let top = self.top.path.clone();
        self.forget(&top);
        match self.add_all(call) {
            Err(Fault::System(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                self.is_gone();
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn is_gone(&mut self) {
        self.gone = true;
        let top = self.top.path.clone();
        self.report(&top, ChangeKind::Removed);
    }

    fn overflow(&mut self) {
        let top = self.top.path.clone();
        self.report(&top, ChangeKind::Overflow);
    }

    fn report(&mut self, path: &Path, kind: ChangeKind) {
        let path = self.at(path).spelled();
        self.changes.push(&self.top.spelled(), &path, kind);
    }
}

/// Whether what is in a directory was there before it was watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Old,
    New,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_take_bounded_room_whatever_their_number_and_names() {
        let top = Path::new("/granted");
        for length in [1, 4000] {
            let mut changes = Changes::default();
            let path = top.join("x".repeat(length));
            for _ in 0..3 * KEPT {
                changes.push(top, &path, ChangeKind::Created);
            }
            assert!(changes.is_full());
            assert!(changes.list.len() <= 2 * KEPT && changes.bytes <= 2 * KEPT_BYTES);
            let kinds: Vec<_> = changes.list.iter().map(WatchResponse::kind).collect();
            let (last, before) = kinds.split_last().expect("changes");
            assert_eq!(*last, ChangeKind::Overflow);
            assert!(before.iter().all(|kind| *kind == ChangeKind::Created));
        }
    }
}
