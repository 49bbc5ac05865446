//! The temporary directory of one plugin: made when first needed, gone with
//! the plugin.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use outrigger_transport::tree::{self, Obstacles};
use outrigger_transport::{Belonging, PluginIdentity, Tie};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::area::Area;
use super::io::on_disk;
use super::kernel::Purpose;
use super::open_file::OpenFile;
use super::paths::clean;
use crate::fault::Fault;
use crate::leases::Leased;

/// How often a free name is looked for.
const ATTEMPTS: usize = 32;
/// How long removing may take.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long whoever lets go of the directory waits for its end: a small one is
/// gone then, also when the host ends at once. It may be a runtime's thread.
const COURTESY: Duration = Duration::from_millis(50);
/// What storage gives at least to whatever is written, in bytes.
const BLOCK: u64 = 4096;
/// How deep a directory is measured; one that is deeper is as large as what was
/// ever written to it.
const DEEPEST: usize = 64;

/// A directory with mode 0700 that only one plugin's services use.
#[derive(Debug)]
pub(crate) struct TempArea {
    area: Arc<Area>,
    parent: Option<Arc<OwnedFd>>,
    name: OsString,
    tie: Option<Box<dyn Tie>>,
    used: Mutex<Used>,
    /// Open files: they take room also when they are removed. Not held while the
    /// directory is measured: those who open files may be a runtime's thread.
    open: Mutex<Vec<Weak<Leased<OpenFile>>>>,
}

/// How much room the directory takes.
#[derive(Debug, Default)]
struct Used {
    /// What there was when it was last measured, and all that was written since.
    bytes: u64,
    /// What is being written.
    writing: u64,
}

/// Room for a write, until it is done.
pub(crate) struct Room<'a> {
    temp: &'a TempArea,
    count: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.temp.used().writing -= self.count;
    }
}

impl TempArea {
    /// Makes the directory beneath `root`.
    ///
    /// It goes with the host's process, should that end before it is removed.
    pub(crate) fn create(root: &Path, identity: &PluginIdentity) -> Result<Self, Fault> {
        let given = clean(&std::path::absolute(root)?);
        let canonical = std::fs::canonicalize(root)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, &canonical, flags, Mode::empty())?;
        let name = free_name("outrigger-", "", |name| {
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)
        })?;
        let dir = rustix::fs::openat(&parent, &name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        let (given, canonical) = (given.join(&name), canonical.join(&name));
        let tie = identity.tie(Belonging::Directory(&canonical));
        let area = Area::hold(
            dir,
            given,
            canonical,
            "the plugin's temporary directory".into(),
        )?;
        let (area, parent) = (Arc::new(area), Some(Arc::new(parent)));
        Ok(Self {
            area,
            parent,
            name: name.into(),
            tie,
            used: Mutex::default(),
            open: Mutex::default(),
        })
    }

    pub(crate) fn area(&self) -> &Arc<Area> {
        &self.area
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Weak<Leased<OpenFile>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Progress a file that is open for longer than a call.
    pub(crate) fn note_open(&self, file: &Arc<Leased<OpenFile>>) {
        let mut open = self.open();
        open.retain(|open| open.strong_count() > 0);
        open.push(Arc::downgrade(file));
    }

    /// Room to write `count` bytes when at most `most` may be kept, in the place
    /// of `freed` bytes that storage gets back first. Measures the directory when
    /// what was written since the last time would not fit.
    pub(crate) fn room(
        &self,
        count: u64,
        freed: u64,
        most: u64,
        until: Instant,
    ) -> Result<Room<'_>, Fault> {
        let count = count.div_ceil(BLOCK).saturating_mul(BLOCK);
        let grown = count.saturating_sub(freed);
        // Others wait for what this one finds rather than measure as well.
        let mut used = self.used();
        let fits = |used: &Used| {
            let sum = used.bytes.checked_add(grown);
            sum.filter(|sum| grown == 0 || *sum <= most)
        };
        if fits(&used).is_none()
            && let Some(measured) = self.measure(until)
        {
            used.bytes = measured.saturating_add(used.writing);
        }
        let Some(sum) = fits(&used) else {
            return Err(Fault::exhausted(
                "temp-quota-exhausted",
                format!("at most {most} bytes are kept in the temporary directory (`temp_bytes`)"),
            ));
        };
        used.bytes = sum;
        used.writing += count;
        Ok(Room { temp: self, count })
    }

    /// What the directory takes, with open files that were removed from it;
    /// nothing when that cannot be found out.
    fn measure(&self, until: Instant) -> Option<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let here = Path::new("");
        let dir = (self.area).open(here, flags, Mode::empty(), Purpose::Look);
        let dir = dir.ok()?;
        let mut total = measure(dir.as_fd(), 0, until)?;
        let open = self.open().clone();
        for file in open.iter().filter_map(Weak::upgrade) {
            let stat = file.stat().ok()?;
            if stat.st_nlink == 0 {
                total = total.checked_add(on_disk(stat.st_blocks))?;
            }
        }
        Some(total)
    }
}

fn measure(dir: BorrowedFd<'_>, depth: usize, until: Instant) -> Option<u64> {
    if depth > DEEPEST || Instant::now() >= until {
        return None;
    }
    let mut total = 0_u64;
    for entry in Dir::read_from(dir).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(_) => return None,
        };
        total = total.checked_add(on_disk(stat.st_blocks))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
            && let Some(child) = tree::open(dir, name).ok()?
        {
            total = total.checked_add(measure(child.as_fd(), depth + 1, until)?)?;
        }
    }
    Some(total)
}

impl Drop for TempArea {
    fn drop(&mut self) {
        let Some(parent) = self.parent.take() else {
            return;
        };
        let name = std::mem::take(&mut self.name);
        let tie = Mutex::new(self.tie.take());
        let remove = move || {
            let until = Instant::now() + REMOVAL;
            let removed = tree::remove(parent.as_fd(), &name, Obstacles::Clear, until, &|| true);
            let tie = tie.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (removed, tie) {
                (Ok(()), Some(tie)) => tie.untie(),
                (Ok(()), None) => {}
                (Err(errno), _) => {
                    let name = name.to_string_lossy();
                    tracing::warn!(%name, error = %errno, "a plugin's temporary directory remains");
                }
            }
        };
        on_its_own_thread(remove);
    }
}

/// Does `work` on a thread of its own, and waits a moment for its end. Whoever
/// asks may be a runtime's thread: it must not be held up by what a plugin has
/// piled up.
fn on_its_own_thread(work: impl Fn() + Send + Sync + 'static) {
    let (work, (sender, done)) = (Arc::new(work), mpsc::channel::<()>());
    let again = work.clone();
    let run = move || {
        work();
        drop(sender);
    };
    let thread = std::thread::Builder::new().name("outrigger-temp".into());
    match thread.spawn(run) {
        Ok(_) => drop(done.recv_timeout(COURTESY)),
        Err(_) => again(),
    }
}

/// Makes something with a random name, trying again when the name is taken.
pub(crate) fn free_name<T>(
    before: &str,
    after: &str,
    mut make: impl FnMut(&str) -> Result<T, Errno>,
) -> Result<String, Fault> {
    for _ in 0..ATTEMPTS {
        let name = format!("{before}{}{after}", Uuid::new_v4().simple());
        match make(&name) {
            Ok(_) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::System(errno)),
        }
    }
    Err(Fault::System(Errno::EXIST))
}

/// The parts around the random one: it replaces the last `*`, or is appended.
pub(crate) fn split_pattern(pattern: &str) -> Result<(&str, &str), Fault> {
    if pattern.contains('/') {
        return Err(Fault::failed_as(
            "invalid-argument",
            tonic::Code::InvalidArgument,
            "pattern contains path separator",
        ));
    }
    if pattern.contains('\0') {
        return Err(Fault::System(Errno::INVAL));
    }
    // A name has at most 255 bytes, 32 of them the random part.
    if pattern.len() > 200 {
        return Err(Fault::System(Errno::NAMETOOLONG));
    }
    Ok(pattern.rsplit_once('*').unwrap_or((pattern, "")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn nobody() -> PluginIdentity {
        PluginIdentity::new("nobody", "nobody-1", None)
    }

    #[test]
    fn a_pattern_is_read_as_go_reads_it() {
        assert_eq!(split_pattern("a*b*c").ok(), Some(("a*b", "c")));
        assert_eq!(split_pattern("plain-").ok(), Some(("plain-", "")));
        assert_eq!(split_pattern("").ok(), Some(("", "")));
        assert!(split_pattern("a/b").is_err());
        assert!(split_pattern(&"x".repeat(201)).is_err());
    }

    #[test]
    fn the_directory_is_private_and_goes_with_its_owner() {
        let root = tempfile::tempdir().expect("a directory");
        let temp = TempArea::create(root.path(), &nobody()).expect("a temporary directory");
        let path = temp.area().canonical.clone();
        assert_eq!(
            std::fs::metadata(&path).expect("it exists").mode() & 0o777,
            0o700
        );
        std::fs::write(path.join("file"), b"x").expect("a file");
        drop(temp);
        until_gone(&path);
    }

    fn until_gone(path: &Path) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while path.exists() {
            assert!(Instant::now() < deadline, "{} remains", path.display());
            std::thread::yield_now();
        }
    }

    #[test]
    fn removing_is_waited_for_only_a_moment() {
        let (go_on, wait) = mpsc::channel::<()>();
        let (sender, done) = mpsc::channel();
        let ends = Mutex::new((wait, sender));
        on_its_own_thread(move || {
            let (wait, sender) = &*ends.lock().expect("one thread only");
            wait.recv().expect("told to go on");
            sender.send(()).expect("waited for");
        });
        // It comes this far while the work cannot go on.
        assert!(done.try_recv().is_err());
        go_on.send(()).expect("it waits");
        done.recv().expect("done after all");
    }

    #[test]
    fn a_file_is_opened_while_the_directory_is_measured() {
        let (call, temp) = (
            crate::testing::file_call(&[], false),
            "the temporary directory",
        );
        let made = call.files.temp().expect(temp).area().canonical.clone();
        std::fs::write(made.join("file"), b"x").expect("a file");
        let (sender, opened) = mpsc::channel();
        let opener = call.clone();
        let _measuring = call.files.temp().expect(temp).used();
        std::thread::spawn(move || {
            let wanted = crate::fs::requested_path::RequestedPath::absolute(made.join("file"));
            let lent = opener.lend(&wanted, crate::fs::place::Opening::READ);
            let _ = sender.send(lent.map(drop).map_err(|fault| fault.code()));
        });
        let waited = opened.recv_timeout(Duration::from_secs(30));
        assert_eq!(waited, Ok(Ok(())));
    }

    #[test]
    fn room_is_what_is_not_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let temp = TempArea::create(root.path(), &nobody()).expect("a temporary directory");
        let path = temp.area().canonical.clone();
        let until = Instant::now() + Duration::from_secs(30);
        let most = 1 << 20;
        let room = |count| {
            temp.room(count, 0, most, until)
                .map(drop)
                .map_err(|fault| fault.code())
        };
        assert_eq!(room(most), Ok(()));
        // Nothing of it was written.
        assert_eq!(room(most), Ok(()));
        std::fs::create_dir(path.join("dir")).expect("a directory");
        std::fs::write(path.join("dir/file"), vec![1; 600 << 10]).expect("a file");
        assert_eq!(room(500 << 10), Err("temp-quota-exhausted"));
        assert_eq!(room(u64::MAX), Err("temp-quota-exhausted"));
        let writing = temp.room(200 << 10, 0, most, until).expect("room");
        assert_eq!(
            room(300 << 10),
            Err("temp-quota-exhausted"),
            "it is being written"
        );
        drop(writing);
        assert_eq!(room(300 << 10), Ok(()));
        let in_its_place = |count, freed| temp.room(count, freed, most, until).is_ok();
        assert!(in_its_place(900 << 10, 600 << 10));
        assert!(!in_its_place(most + (700 << 10), 600 << 10));
        assert!(
            temp.room(0, 0, 0, until).is_ok(),
            "it takes no more than before"
        );
        std::fs::remove_dir_all(path.join("dir")).expect("removed");
        assert_eq!(room(most), Ok(()));
    }
}
