//! What the kernel tells of changes.
//!
//! It is asked directly, not through the crate `notify`, which also asks to be told of every file
//! that is opened: each scan of ours would wake it, and a large one would fill the kernel's queue.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::places::{Place, What, files_of, follow};
use crate::entry::Entry;

/// Bytes of events that are read at once.
const BUFFER: usize = 16 << 10;
/// How long a file that was written to counts as not done, if nobody closes it.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// Whether something happened that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    Change,
    /// Not within that time.
    Nothing,
    /// The watch is to end.
    Stop,
}

pub(super) struct Events {
    stop: Arc<OwnedFd>,
    /// Nothing where the kernel gives none.
    queue: Option<OwnedFd>,
    /// What matters in each folder, by the number that the kernel gave it.
    folders: HashMap<i32, Names>,
    /// Those numbers.
    numbers: HashMap<PathBuf, i32>,
    /// Files that were written to and not closed since, by their folder's number.
    written: HashMap<(i32, OsString), Instant>,
    /// Whether some folder cannot be watched.
    missed: bool,
}

#[derive(Default)]
struct Names {
    /// Whatever comes and goes matters.
    all: bool,
    /// These coming and going matters.
    names: HashSet<OsString>,
    /// The content of these matters.
    files: HashSet<OsString>,
}

impl Events {
    pub(super) fn new(stop: Arc<OwnedFd>) -> Self {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        if let Err(errno) = &queue {
            tracing::warn!(%errno, "the system has no watch to give: plugins are looked at from time to time");
        }
        Self {
            stop,
            missed: queue.is_err(),
            queue: queue.ok(),
            folders: HashMap::new(),
            numbers: HashMap::new(),
            written: HashMap::new(),
        }
    }

    /// Whether changes may happen that nothing tells of.
    pub(super) fn are_missed(&self) -> bool {
        self.missed
    }

    /// Watches these places, and no others: whether one of them was not watched before. A folder
    /// that was replaced is another one.
    pub(super) fn watch(&mut self, places: &[Place]) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let mut wanted: BTreeMap<&Path, Names> = BTreeMap::new();
        for place in places {
            wanted.entry(&place.folder).or_default().add(&place.what);
        }
        let mut folders: HashMap<i32, Names> = HashMap::new();
        let mut numbers: HashMap<PathBuf, i32> = HashMap::new();
        let (mut is_new, mut missed) = (false, false);
        for (folder, names) in wanted {
            match inotify::add_watch(queue, folder, names.flags()) {
                Ok(number) => {
                    is_new |= !self.folders.contains_key(&number);
                    missed |= is_remote(folder);
                    numbers.insert(folder.to_owned(), number);
                    // Two paths may lead to one folder.
                    folders.entry(number).or_default().merge(names);
                }
                // It comes and goes, which its own folder tells.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => {
                    if !self.missed {
                        tracing::warn!(
                            folder = %folder.display(), %errno,
                            "a folder cannot be watched: plugins are looked at from time to time"
                        );
                    }
                    missed = true;
                }
            }
        }
        for number in self.folders.keys() {
            if !folders.contains_key(number) {
                // It may be gone, and its number with it.
                let _ = inotify::remove_watch(queue, *number);
            }
        }
        self.written
            .retain(|(number, _), _| folders.contains_key(number));
        (self.folders, self.numbers, self.missed) = (folders, numbers, missed);
        is_new
    }

    /// Whether a file of this entry was written to and not closed.
    pub(super) fn is_written(&self, entry: &Entry) -> bool {
        let mut places = Vec::new();
        for file in files_of(entry) {
            follow(&file, What::File, &mut places);
        }
        places.iter().any(|place| {
            let (Some(number), What::File(name)) = (self.numbers.get(&place.folder), &place.what)
            else {
                return false;
            };
            let at = self.written.get(&(*number, name.clone()));
            at.is_some_and(|at| at.elapsed() < LONGEST_WRITE)
        })
    }

    /// Waits until something happens that matters.
    pub(super) fn wait(&mut self, within: Option<Duration>) -> Heard {
        let deadline = within.map(|within| Instant::now() + within);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let (stopped, ready) = self.poll(left);
            if stopped {
                return Heard::Stop;
            }
            if ready && self.read() {
                return Heard::Change;
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Heard::Nothing;
            }
        }
    }

    /// Whether to stop, and whether there are events.
    fn poll(&self, within: Option<Duration>) -> (bool, bool) {
        // One nanosecond more than the deadline, so that it is not missed by one and asked again.
        let within = within.and_then(|within| Timespec::try_from(within).ok());
        let mut descriptors = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        descriptors.extend(
            self.queue
                .iter()
                .map(|queue| PollFd::new(queue, PollFlags::IN)),
        );
        match poll(&mut descriptors, within.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {
                let is_ready = |at: usize| {
                    let found = descriptors.get(at);
                    found.is_some_and(|found| !found.revents().is_empty())
                };
                (is_ready(0), is_ready(1))
            }
            Err(errno) => {
                tracing::error!(%errno, "plugins are watched no longer");
                (true, false)
            }
        }
    }

    /// Reads all events: whether one matters.
    fn read(&mut self) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(queue, &mut buffer);
        let mut matters = false;
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                // What was closed in the meantime is not known.
                self.written.clear();
                matters = true;
                continue;
            }
            let Some(names) = self.folders.get(&event.wd()) else {
                continue;
            };
            let Some(name) = event.file_name() else {
                // The folder itself.
                matters |= names.all || what.contains(ReadFlags::IGNORED);
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            matters |= names.matter(name, what);
            if names.files.contains(name) {
                let key = (event.wd(), name.to_owned());
                if what.contains(ReadFlags::MODIFY) {
                    self.written.insert(key, Instant::now());
                } else if !what.contains(ReadFlags::ATTRIB) {
                    self.written.remove(&key);
                }
            }
        }
        matters
    }
}

impl Names {
    fn add(&mut self, what: &What) {
        match what {
            What::Names => self.all = true,
            What::Name(name) => {
                self.names.insert(name.clone());
            }
            What::File(name) => {
                self.files.insert(name.clone());
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
        self.files.extend(other.files);
    }

    /// What the kernel is to tell of such a folder, beside what it was asked for already.
    fn flags(&self) -> WatchFlags {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::MASK_ADD
            | WatchFlags::ONLYDIR;
        if self.all || !self.files.is_empty() {
            flags |= WatchFlags::ATTRIB;
        }
        if !self.files.is_empty() {
            flags |= WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        }
        flags
    }

    fn matter(&self, name: &OsStr, what: ReadFlags) -> bool {
        if self.files.contains(name) {
            return true;
        }
        let content = ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE;
        if what.intersects(content) {
            return false;
        }
        let hidden = name.as_bytes().starts_with(b".");
        // Where names come and go, some are folders whose permissions matter.
        self.names.contains(name) || (self.all && !hidden)
    }
}

/// Whether another machine, or a program, may change files there without the kernel knowing.
fn is_remote(folder: &Path) -> bool {
    const REMOTE: [u32; 12] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xfe53_4d42, // SMB 2
        0xff53_4d42, // CIFS
        0x6573_5546, // FUSE
        0x0102_1997, // 9P
        0x00c3_6400, // Ceph
        0x5346_414f, // AFS
        0x6b41_4653, // AFS of the kernel
        0x7375_7245, // Coda
        0x0bd0_0bd3, // Lustre
        0x786f_4256, // VirtualBox
    ];
    // The kernel's numbers have 32 bits, and their type differs between machines.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    rustix::fs::statfs(folder).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)))
}
