//! What files hashed to when they were last read.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use outrigger_wire::ExpectedDigest;

use crate::file::{contents, open_regular};

/// How long a file must have been left alone before its digest is kept: a change within the tick
/// of a clock after it was read would leave no trace. The coarsest file systems count in two
/// seconds.
const SETTLED: Duration = Duration::from_secs(2);
/// How many digests are kept.
const MOST: usize = 10_000;
/// The most bytes that are read of a cache file; what is written of [`MOST`] digests is less.
const LARGEST: u64 = 4 << 20;
const FIRST_LINE: &str = "outrigger digests 1";

/// What files hashed to when they were last read, so that nothing is read twice.
///
/// A digest is kept for a file as the kernel knows it: its device, its number there, its size, and
/// when its content and its attributes last changed. No program can set the last of these, so that
/// a file with another content has another. A file that changed within the last two seconds is
/// not kept. All the same, what is started is hashed anew, by whoever starts it: this is for
/// lists, and for seeing what changed.
///
/// # Examples
/// ```
/// use outrigger_registry::DigestCache;
///
/// let folder = tempfile::tempdir()?;
/// let program = folder.path().join("program");
/// std::fs::write(&program, "")?;
/// let cache = DigestCache::in_file(folder.path().join("cache/digests"));
/// assert!(cache.digest(&program)?.to_string().starts_with("sha256:e3b0c442"));
/// cache.save()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DigestCache {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    digests: HashMap<Stamp, Remembered>,
    /// Whether there is one that the file has not.
    changed: bool,
}

#[derive(Clone, Debug)]
struct Remembered {
    digest: ExpectedDigest,
    /// Whether somebody asked for it since the file was read.
    used: bool,
}

/// A file with one content, as the kernel tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Stamp {
    device: u64,
    number: u64,
    size: u64,
    /// Seconds and nanoseconds, as the following.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            number: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Whether a change from now on gives another stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanoseconds)) = (seconds.try_into(), nanoseconds.try_into()) else {
            return false;
        };
        Duration::new(seconds, nanoseconds).saturating_add(SETTLED) <= now
    }

    /// The line of a cache file, without the digest.
    fn fields(&self) -> String {
        let ((m, m_ns), (c, c_ns)) = (self.modified, self.changed);
        format!(
            "{} {} {} {m} {m_ns} {c} {c_ns}",
            self.device, self.number, self.size
        )
    }
}

impl DigestCache {
    /// A cache that is not kept.
    pub fn in_memory() -> Self {
        Self {
            file: None,
            known: Mutex::default(),
        }
    }

    /// The cache in this file. A file that is missing, damaged or somebody else's counts as an
    /// empty one.
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let digests = read(&path).unwrap_or_default();
        Self {
            file: Some(path),
            known: Mutex::new(Known {
                digests,
                changed: false,
            }),
        }
    }

    /// The cache of this user: `outrigger/digests` in `$XDG_CACHE_HOME` or `~/.cache`. Where
    /// neither is known, it is not kept.
    pub fn of_user() -> Self {
        let absolute = |name| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let caches =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        caches.map_or_else(Self::in_memory, |caches| {
            Self::in_file(caches.join("outrigger/digests"))
        })
    }

    /// The SHA-256 digest of the regular file at `path`, which is read if it is not known.
    ///
    /// # Errors
    /// Why it could not be read; also that something else stands there.
    pub fn digest(&self, path: &Path) -> io::Result<ExpectedDigest> {
        self.digest_at(path, SystemTime::now)
    }

    fn digest_at(
        &self,
        path: &Path,
        now: impl FnOnce() -> SystemTime,
    ) -> io::Result<ExpectedDigest> {
        if let Some(known) = self.known(Stamp::of(&path.metadata()?)) {
            return Ok(known);
        }
        let file = open_regular(path)?;
        let before = Stamp::of(&file.metadata()?);
        // By the clock before the first byte is read, so that nothing that is changed meanwhile
        // seems older than it is.
        let settled = before.is_settled(now());
        let digest = ExpectedDigest::of(&file).map_err(io::Error::other)?;
        if settled && Stamp::of(&file.metadata()?) == before {
            let mut known = self.lock();
            known.changed = true;
            let digest = digest.clone();
            known
                .digests
                .insert(before, Remembered { digest, used: true });
            known.shrink();
        }
        Ok(digest)
    }

    fn known(&self, stamp: Stamp) -> Option<ExpectedDigest> {
        let mut known = self.lock();
        let remembered = known.digests.get_mut(&stamp)?;
        remembered.used = true;
        Some(remembered.digest.clone())
    }

    /// Writes what was learnt into the file, if there is one: what others learnt meanwhile stays.
    /// The file is replaced as a whole, so that nobody ever reads half of it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let mut known = self.lock();
        if !known.changed {
            return Ok(());
        }
        for (stamp, remembered) in read(path).unwrap_or_default() {
            known.digests.entry(stamp).or_insert(remembered);
        }
        known.shrink();
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text_of(&known.digests).as_bytes())?;
        file.persist(path)?;
        known.changed = false;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Forgets digests that nobody asked for, and then any, while there are too many.
    fn shrink(&mut self) {
        let mut over = self.digests.len().saturating_sub(MOST);
        if over == 0 {
            return;
        }
        for used in [false, true] {
            self.digests.retain(|_, remembered| {
                let forget = over > 0 && remembered.used == used;
                over -= usize::from(forget);
                !forget
            });
        }
    }
}

/// A line for each digest, and one that tells whether all of it is there.
fn text_of(digests: &HashMap<Stamp, Remembered>) -> String {
    let mut lines: Vec<String> = digests
        .iter()
        .map(|(stamp, remembered)| format!("{} {}\n", stamp.fields(), remembered.digest))
        .collect();
    lines.sort();
    let mut text = format!("{FIRST_LINE}\n{}", lines.concat());
    // Nothing fails in reading from memory.
    if let Ok(whole) = ExpectedDigest::of(text.as_bytes()) {
        text.push_str(&format!("{whole}\n"));
    }
    text
}

/// What a cache file says; nothing if it is not all there, or not this user's own.
fn read(path: &Path) -> Option<HashMap<Stamp, Remembered>> {
    let file = open_regular(path).ok()?;
    is_own(&file).then_some(())?;
    let bytes = contents(file, LARGEST).ok()?;
    parse(&bytes)
}

/// Whether nobody else can have written it.
fn is_own(file: &File) -> bool {
    file.metadata().is_ok_and(|found| {
        found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
    })
}

fn parse(bytes: &[u8]) -> Option<HashMap<Stamp, Remembered>> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (lines, whole) = text.rsplit_once('\n')?;
    let lines = &text[..=lines.len()];
    let whole: ExpectedDigest = whole.parse().ok()?;
    whole.check(lines.as_bytes()).ok()?;
    let mut lines = lines.lines();
    (lines.next()? == FIRST_LINE).then_some(())?;
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(Stamp, Remembered)> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse::<i128>().ok();
    let stamp = Stamp {
        device: number()?.try_into().ok()?,
        number: number()?.try_into().ok()?,
        size: number()?.try_into().ok()?,
        modified: (number()?.try_into().ok()?, number()?.try_into().ok()?),
        changed: (number()?.try_into().ok()?, number()?.try_into().ok()?),
    };
    let digest = words.next()?.parse().ok()?;
    let used = false;
    words
        .next()
        .is_none()
        .then_some((stamp, Remembered { digest, used }))
}

#[cfg(test)]
mod tests;
