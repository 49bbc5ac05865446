use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

/// Long after whatever is written now.
fn later() -> SystemTime {
    SystemTime::now() + SETTLED * 10
}

struct Program {
    folder: TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("program"), "one").expect("written");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    fn cache_file(&self) -> PathBuf {
        self.folder.path().join("cache/digests")
    }

    fn cache(&self) -> DigestCache {
        DigestCache::in_file(self.cache_file())
    }

    /// Puts another content in the place of what the cache keeps of this one, so that it shows
    /// where a digest comes from.
    fn forge(&self, cache: &DigestCache) {
        let stamp = Stamp::of(&self.path().metadata().expect("it is there"));
        let mut known = cache.lock();
        let remembered = known.digests.get_mut(&stamp).expect("it is kept");
        remembered.digest = of("forged");
    }
}

fn of(content: &str) -> ExpectedDigest {
    ExpectedDigest::of(content.as_bytes()).expect("read")
}

#[test]
fn a_file_is_read_once_until_it_changes() {
    let program = Program::new();
    let cache = program.cache();
    let ask = || cache.digest_at(&program.path(), later).expect("a digest");
    assert_eq!(ask(), of("one"));
    program.forge(&cache);
    assert_eq!(ask(), of("forged"));
    fs::write(program.path(), "two").expect("written");
    assert_eq!(ask(), of("two"));
    // Another file of that name and of that time.
    program.forge(&cache);
    let modified = program.path().metadata().expect("it is there").modified();
    let other = program.folder.path().join("other");
    fs::write(&other, "six").expect("written");
    let file = File::options().write(true).open(&other).expect("opened");
    file.set_modified(modified.expect("a time")).expect("set");
    fs::rename(other, program.path()).expect("renamed");
    assert_eq!(ask(), of("six"));
}

#[test]
fn what_changes_in_the_same_moment_is_never_taken_for_what_was_there() {
    let program = Program::new();
    let cache = program.cache();
    let modified = program.path().metadata().expect("it is there").modified();
    let modified = modified.expect("a time");
    for number in 100..400 {
        // As many bytes each time, and the time of the first.
        let content = number.to_string();
        fs::write(program.path(), &content).expect("written");
        let file = File::options().write(true).open(program.path());
        file.expect("opened").set_modified(modified).expect("set");
        assert_eq!(
            cache.digest(&program.path()).expect("a digest"),
            of(&content)
        );
    }
    assert!(cache.lock().digests.is_empty());
}

#[test]
fn what_was_learnt_is_there_the_next_time_with_what_others_learnt() {
    let program = Program::new();
    let other = program.folder.path().join("other");
    fs::write(&other, "other").expect("written");
    let (mine, theirs) = (program.cache(), program.cache());
    mine.digest_at(&program.path(), later).expect("a digest");
    theirs.digest_at(&other, later).expect("a digest");
    mine.save().expect("saved");
    theirs.save().expect("saved");
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(
        names(&program.folder.path().join("cache")),
        1,
        "no other file is left"
    );
    let again = program.cache();
    assert_eq!(again.lock().digests.len(), 2);
    program.forge(&again);
    assert_eq!(
        again.digest(&program.path()).expect("a digest"),
        of("forged")
    );
    assert_eq!(again.digest(&other).expect("a digest"), of("other"));
}

#[test]
fn a_damaged_or_strange_file_counts_as_an_empty_one_and_is_written_anew() {
    let program = Program::new();
    let learn = || {
        let cache = program.cache();
        let digest = cache.digest_at(&program.path(), later).expect("a digest");
        assert_eq!(digest, of("one"));
        cache.save().expect("saved");
    };
    learn();
    let good = fs::read(program.cache_file()).expect("read");
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        assert!(parse(&damaged).is_none(), "byte {at}");
        assert!(parse(&good[..at]).is_none(), "cut at {at}");
    }
    let newer = String::from_utf8_lossy(&good).replace("digests 1", "digests 2");
    for damaged in [&b""[..], b"\xff", newer.as_bytes(), &[b'a'; 5 << 20]] {
        fs::write(program.cache_file(), damaged).expect("written");
        assert!(program.cache().lock().digests.is_empty());
        learn();
        assert_eq!(fs::read(program.cache_file()).expect("read"), good);
    }
    let anyone = fs::Permissions::from_mode(0o666);
    fs::set_permissions(program.cache_file(), anyone).expect("its mode");
    assert!(
        program.cache().lock().digests.is_empty(),
        "others may have written it"
    );
}

#[test]
fn of_too_many_digests_those_in_use_stay() {
    let program = Program::new();
    let cache = program.cache();
    let stamp = Stamp::of(&program.path().metadata().expect("it is there"));
    for number in 0..MOST as u64 {
        let remembered = Remembered {
            digest: of("other"),
            used: false,
        };
        let stamp = Stamp {
            number,
            device: 0,
            ..stamp
        };
        cache.lock().digests.insert(stamp, remembered);
    }
    cache.digest_at(&program.path(), later).expect("a digest");
    assert_eq!(cache.lock().digests.len(), MOST);
    assert!(cache.known(stamp).is_some());
    cache.save().expect("saved");
    assert!(program.cache_file().metadata().expect("written").len() < LARGEST);
    assert_eq!(program.cache().lock().digests.len(), MOST);
}

#[test]
fn what_cannot_be_read_or_kept_is_said() {
    let program = Program::new();
    let cache = DigestCache::in_file(program.path().join("below-a-file"));
    assert!(
        cache
            .digest(&program.folder.path().join("missing"))
            .is_err()
    );
    assert!(cache.digest(program.folder.path()).is_err());
    cache.digest_at(&program.path(), later).expect("a digest");
    assert!(cache.save().is_err());
    DigestCache::in_memory().save().expect("nothing to do");
}
