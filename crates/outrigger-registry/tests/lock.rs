//! The lock file: how it is written and read, what it makes of a plugin, and what happens when
//! several change it at once.
#![allow(clippy::disallowed_methods)] // Git is no plugin.

use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use outrigger_manifest::{LockMode, Manifest};
use outrigger_registry::{Installed, Lock, LockError, LockFile, LockVerdict};
use outrigger_wire::{Coded as _, ExpectedDigest};
use proptest::prelude::*;

fn manifest(name: &str, version: Option<&str>, asked: &str) -> Manifest {
    let version = version
        .map(|version| format!(", version: {version}"))
        .unwrap_or_default();
    let text = format!(
        "plugin: {{name: {name}, format: grpc, entrypoint: {name}{version}}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n{asked}"
    );
    Manifest::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn digest(program: &str) -> ExpectedDigest {
    ExpectedDigest::of(program.as_bytes()).unwrap()
}

const NET: &str =
    "capabilities: {network: {egress: [{protocol: tcp, hosts: [api.example.com], ports: [443]}]}}";
const DATA: &str = "capabilities: {filesystem: [{path: /data, permissions: [read, list]}]}";
const MORE: &str = "capabilities: {filesystem: [{path: /data, permissions: [read, list, write]}]}";
const EXEC: &str = "capabilities: {process: {exec: [{command: /usr/bin/git, args: [pull]}]}}";

/// This platform's name, which snapshots must not depend on.
fn on_any_platform(text: &str) -> String {
    let here = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    text.replace(&here, "linux-x86_64")
}

#[test]
fn a_lock_file_has_one_value_on_each_line() {
    let mut lock = Lock::default();
    lock.approve(Installed::new(
        &manifest("dog", Some("1.10.0"), EXEC),
        &digest("dog"),
    ));
    lock.approve(Installed::new(
        &manifest("dog", Some("1.9.0"), DATA),
        &digest("old dog"),
    ));
    lock.admit(Installed::new(&manifest("cat", None, NET), &digest("cat")));
    lock.admit(Installed::new(
        &manifest("bare", Some("0.1.0"), "services: []"),
        &digest("bare"),
    ));
    assert_snapshot!(on_any_platform(&lock.to_text()), @r#"
    # Which plugins may run here, and what each may ask for. Keep it under version control.
    # `outrigger lock` and `outrigger approve` change it.
    version = 1

    [[plugin]]
    name = "bare"
    version = "0.1.0"
    digests = [
      "sha256:9b828d53402d6e332ef05a2fe03063b359192571ba99fcd3b85074f46a72fd7e linux-x86_64",
    ]
    approved = []
    requested_digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    [[plugin]]
    name = "cat"
    digests = [
      "sha256:77af778b51abd4a3c51c5ddd97204a9c3ae614ebccb75a606c3b6865aed6744e linux-x86_64",
    ]
    approved = [
      "network egress tcp api.example.com:443",
      "services: clock, log, network",
    ]
    requested_digest = "sha256:9f9830022a5306eaa4d89640668c9fb702b141e1f55f76193b0c7bc0d415f01a"

    [[plugin]]
    name = "dog"
    version = "1.9.0"
    digests = [
      "sha256:0b0a48360809f05f01bb5cf959cb407681a168dc85a54754e8e601d12a219fea linux-x86_64",
    ]
    approved = [
      "filesystem /data: read, list",
      "services: clock, filesystem, log",
    ]
    requested_digest = "sha256:8233aa5e0d6a3461a7df7182ecaeaaf6adbac16c97169c5eea403ed3168b6f35"

    [[plugin]]
    name = "dog"
    version = "1.10.0"
    digests = [
      "sha256:cd6357efdd966de8c0cb2f876cc89ec74ce35f0968e11743987084bd42fb8944 linux-x86_64",
    ]
    approved = [
      "process exec /usr/bin/git [pull]",
      "services: clock, log, process",
    ]
    requested_digest = "sha256:e379265e0a9cc2642a056e90c6dc9fd98d80570197d5aa5bc103061d3b1e24ee"
    "#);
    assert_eq!(
        Lock::parse(&lock.to_text()).unwrap().to_text(),
        lock.to_text()
    );
}

#[test]
fn comments_and_keys_that_only_newer_programs_know_are_kept() {
    let text = r#"# Ours.
version = 1
revision = 7 # of theirs

# Approved by hand.
[[plugin]]
name = "dog"
source = "https://example.com/dog"
digests = [
  # the one that was tested
  "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 other-machine",
]
approved = [
  "services: clock, log",
]
requested_digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[plugin.attested]
by = "someone"
"#;
    let mut lock = Lock::parse(text).unwrap();
    assert_eq!(lock.to_text(), text);
    lock.approve(Installed::new(&manifest("cat", None, ""), &digest("cat")));
    lock.approve(Installed::new(&manifest("dog", None, DATA), &digest("dog")));
    assert_snapshot!(on_any_platform(&lock.to_text()), @r#"
    # Ours.
    version = 1
    revision = 7 # of theirs

    [[plugin]]
    name = "cat"
    digests = [
      "sha256:77af778b51abd4a3c51c5ddd97204a9c3ae614ebccb75a606c3b6865aed6744e linux-x86_64",
    ]
    approved = [
      "services: clock, log",
    ]
    requested_digest = "sha256:041fe2854f6b78f6df39893b348576b1a9a4f362223833a87322e34cb915d998"

    # Approved by hand.
    [[plugin]]
    name = "dog"
    source = "https://example.com/dog"
    digests = [
      "sha256:cd6357efdd966de8c0cb2f876cc89ec74ce35f0968e11743987084bd42fb8944 linux-x86_64",
      "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 other-machine",
    ]
    approved = [
      "filesystem /data: read, list",
      "services: clock, filesystem, log",
    ]
    requested_digest = "sha256:8233aa5e0d6a3461a7df7182ecaeaaf6adbac16c97169c5eea403ed3168b6f35"

    [plugin.attested]
    by = "someone"
    "#);
}

#[test]
fn a_digest_takes_the_place_of_the_one_for_the_same_platform_only() {
    let mut lock = Lock::default();
    let cat = manifest("cat", None, "");
    for program in ["one", "two"] {
        lock.approve(Installed::new(&cat, &digest(program)));
    }
    let entry = lock.plugins().next().unwrap();
    assert_eq!(entry.digests().count(), 1);
    assert!(entry.knows(&digest("two")) && !entry.knows(&digest("one")));
    let elsewhere = lock.to_text().replace(std::env::consts::ARCH, "elsewhere");
    let mut lock = Lock::parse(&elsewhere).unwrap();
    assert!(!lock.plugins().next().unwrap().knows(&digest("two")));
    lock.approve(Installed::new(&cat, &digest("two")));
    assert_eq!(lock.plugins().next().unwrap().digests().count(), 2);
}

#[test]
fn one_version_at_most_is_pinned() {
    let mut lock = Lock::default();
    let versions = ["1.9.0", "1.10.0"].map(|version| manifest("cat", Some(version), ""));
    for manifest in &versions {
        lock.approve(Installed::new(manifest, &digest("cat")));
    }
    let name = versions[0].name();
    assert_eq!(lock.newest(name).unwrap().version(), versions[1].version());
    assert!(lock.pinned(name).is_none());
    for manifest in &versions {
        assert!(lock.pin(name, manifest.version()));
        let lock = Lock::parse(&lock.to_text()).unwrap();
        assert_eq!(lock.pinned(name).unwrap().version(), manifest.version());
    }
    let absent = "2.0.0".parse().unwrap();
    assert!(!lock.pin(name, Some(&absent)));
    assert_eq!(lock.pinned(name).unwrap().version(), versions[1].version());
    assert!(lock.pin(name, None));
    assert!(lock.pinned(name).is_none() && !lock.to_text().contains("pinned"));
}

/// What each mode makes of a plugin beside a lock file that has `approved`.
fn verdicts(approved: &[(&Manifest, &str)], now: &Manifest, program: &str) -> Vec<&'static str> {
    let mut lock = Lock::default();
    for (manifest, program) in approved {
        lock.approve(Installed::new(manifest, &digest(program)));
    }
    let digest = digest(program);
    LockMode::ALL
        .iter()
        .map(|mode| lock.judge(Installed::new(now, &digest), *mode).as_str())
        .collect()
}

#[test]
fn each_mode_lets_through_what_it_says() {
    let (needs, differs) = ("needs-approval", "lock-differs");
    let cat = |version, asked| manifest("cat", version, asked);
    let (one, two) = (Some("1.0.0"), Some("2.0.0"));
    let data = cat(one, DATA);
    let approved = [(&data, "cat")];
    // Never seen: trust-first, locked, strict.
    assert_eq!(verdicts(&[], &data, "cat"), ["first-use", differs, needs]);
    assert_eq!(
        verdicts(&[], &cat(one, EXEC), "cat"),
        [needs, differs, needs]
    );
    assert_eq!(
        verdicts(&[], &cat(one, "sandbox: off"), "cat"),
        [needs, differs, needs]
    );
    // Just what is locked.
    assert_eq!(verdicts(&approved, &data, "cat"), ["known"; 3]);
    // Another program, another version, less than before.
    assert_eq!(
        verdicts(&approved, &data, "cat2"),
        ["covered", differs, needs]
    );
    assert_eq!(
        verdicts(&approved, &cat(two, DATA), "cat"),
        ["covered", differs, needs]
    );
    assert_eq!(
        verdicts(&approved, &cat(one, "services: [clock]"), "cat"),
        ["covered", differs, needs]
    );
    // More than before, whatever else changed.
    for now in [cat(one, MORE), cat(two, MORE), cat(None, MORE)] {
        for program in ["cat", "cat2"] {
            assert_eq!(verdicts(&approved, &now, program), [needs; 3]);
        }
    }
    // What counts is the highest version: the older one was allowed more.
    let newer = cat(two, "");
    let both = [(&data, "cat"), (&newer, "cat2")];
    assert_eq!(
        verdicts(&both, &cat(Some("3.0.0"), DATA), "cat3"),
        [needs; 3]
    );
    assert_eq!(verdicts(&both, &data, "cat"), ["known"; 3]);
    // Another plugin's approval is no help.
    assert_eq!(
        verdicts(&approved, &manifest("dog", one, EXEC), "cat"),
        [needs, differs, needs]
    );
}

#[test]
fn what_was_approved_stays_approved_when_a_plugin_asks_for_less_for_a_while() {
    let mut lock = Lock::default();
    let (data, less) = (
        manifest("cat", None, DATA),
        manifest("cat", None, "services: [clock]"),
    );
    lock.approve(Installed::new(&data, &digest("one")));
    let judge = |lock: &Lock, m: &Manifest, program: &str| {
        lock.judge(Installed::new(m, &digest(program)), LockMode::TrustFirst)
    };
    assert_eq!(judge(&lock, &less, "two"), LockVerdict::Covered);
    lock.admit(Installed::new(&less, &digest("two")));
    assert_eq!(judge(&lock, &less, "two"), LockVerdict::Known);
    assert_eq!(judge(&lock, &data, "three"), LockVerdict::Covered);
    // An operator who takes a line away is heard, whatever the digests say.
    let narrowed = lock
        .to_text()
        .replace("  \"filesystem /data: read, list\",\n", "");
    let lock = Lock::parse(&narrowed).unwrap();
    assert_eq!(judge(&lock, &data, "three").as_str(), "needs-approval");
}

#[test]
fn an_objection_says_what_it_is_about() {
    let mut lock = Lock::default();
    lock.approve(Installed::new(&manifest("cat", None, DATA), &digest("cat")));
    let now = manifest("cat", Some("1.0.0"), MORE);
    let verdict = lock.judge(Installed::new(&now, &digest("new")), LockMode::TrustFirst);
    let objection = verdict.objection().unwrap();
    assert_eq!(objection.digest, digest("new"));
    assert_eq!(objection.why.as_str(), "asks-for-more");
    assert_snapshot!(format!("{} {}\n{}", objection.plugin, objection.why.phrase(), objection.changes), @r#"
    cat asks for more than was approved
    ~ filesystem /data: read, list → read, write, list
      it could change or remove what is there
    "#);
    let first = manifest("dog", None, EXEC);
    let verdict = lock.judge(Installed::new(&first, &digest("dog")), LockMode::TrustFirst);
    let objection = verdict.objection().unwrap();
    assert_eq!(
        objection.grave[0].request,
        "process exec /usr/bin/git [pull]"
    );
    assert!(objection.changes.iter().count() > 1);
}

#[test]
fn what_is_wrong_with_a_lock_file_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = LockFile::in_folder(folder.path());
    let digest = digest("");
    let entry = |more: &str| format!("version = 1\n[[plugin]]\n{more}\n");
    let good =
        format!("name = \"cat\"\ndigests = []\napproved = []\nrequested_digest = \"{digest}\"");
    let mut shown = String::new();
    for text in [
        "version = 2\n[[plugin]]\nfrom = \"the future\"".to_owned(),
        "version = 0".to_owned(),
        "version = \"1\"".to_owned(),
        "".to_owned(),
        "version = 1\nplugin = 3".to_owned(),
        "version = 1\n[[plugin]\n".to_owned(),
        "version = 1\n<<<<<<< HEAD\n".to_owned(),
        entry(""),
        entry("name = \"../etc\""),
        entry(&good.replace("[]\napproved", "[\"sha256:00\"]\napproved")),
        entry(&good.replace("approved = []", "approved = [\"filesystem\\u001b[2J\"]")),
        entry(&good.replace(
            "approved = []",
            "approved = [\"resources pids: 1\", \"resources pids: 2\"]",
        )),
        entry(&good.replace("approved = []", "approved = \"all\"")),
        entry(&good.replace("sha256:", "sha1:")),
        entry(&format!("{good}\nversion = \"one\"")),
        entry(&format!("{good}\npinned = \"yes\"")),
        entry(&format!("{good}\n[[plugin]]\n{good}")),
    ] {
        std::fs::write(file.path(), &text).unwrap();
        let error = file.read().unwrap_err();
        shown += &format!("[{}] {error}\n", error.code());
        // What cannot be read is not overwritten.
        assert!(file.update(|_| ()).is_err());
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
    }
    std::fs::remove_file(file.path()).unwrap();
    std::fs::create_dir(file.path()).unwrap();
    let error = file.read().unwrap_err();
    shown += &format!(
        "[{}] {error}: {}\n",
        error.code(),
        std::error::Error::source(&error).unwrap()
    );
    let error = LockFile::new("/nonexistent/outrigger.lock")
        .update(|_| ())
        .unwrap_err();
    shown += &format!("[{}] {error}", error.code());
    assert_snapshot!(shown.replace(&folder.path().display().to_string(), "plugins"), @r#"
    [lock-newer] the lock file `plugins/outrigger.lock` was written by a newer outrigger: its version is 2
    [lock-invalid] plugins/outrigger.lock:1:11: a lock file says `version = 1`
    [lock-invalid] plugins/outrigger.lock:1:11: a lock file says `version = 1`
    [lock-invalid] plugins/outrigger.lock:1:1: a lock file says `version = 1`
    [lock-invalid] plugins/outrigger.lock:2:10: plugins are written as `[[plugin]]`
    [lock-invalid] plugins/outrigger.lock:2:10: unclosed array table, expected `]`
    [lock-conflict] plugins/outrigger.lock:2: a merge left two versions of the lock file
    [lock-invalid] plugins/outrigger.lock:2:1: a plugin needs a text as its `name`
    [lock-invalid] plugins/outrigger.lock:3:8: `../etc` is no plugin's name
    [lock-invalid] plugins/outrigger.lock:4:12: `sha256:00` is no digest with its platform, such as `sha256:… linux-x86_64`
    [lock-invalid] plugins/outrigger.lock:5:13: `filesystem\u{1b}[2J` is no request in the words of a manifest
    [lock-invalid] plugins/outrigger.lock:5:12: `resources pids: 2` is no request in the words of a manifest, as another line says otherwise
    [lock-invalid] plugins/outrigger.lock:5:12: a plugin needs a list of texts as its `approved`
    [lock-invalid] plugins/outrigger.lock:6:20: `sha1:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` is no digest
    [lock-invalid] plugins/outrigger.lock:7:11: `one` is no version
    [lock-invalid] plugins/outrigger.lock:7:10: `pinned` is true or false
    [lock-invalid] plugins/outrigger.lock:7:1: this version of `cat` is locked twice
    [lock-unreadable] the lock file `plugins/outrigger.lock` could not be read: it is no regular file
    [lock-unwritable] the lock file `/nonexistent/outrigger.lock` could not be written
    "#);
}

fn approve(file: &LockFile, name: &str) -> Result<(), LockError> {
    let manifest = manifest(name, None, DATA);
    file.update(|lock| lock.approve(Installed::new(&manifest, &digest(name))))
}

#[test]
fn of_changes_at_once_none_is_lost_and_every_reader_sees_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = LockFile::in_folder(folder.path());
    const EACH: usize = 10;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for number in 0..EACH {
                    approve(file, &format!("p{thread}-{number}")).unwrap();
                }
            });
        }
        for _ in 0..200 {
            let lock = file.read().unwrap();
            assert!(
                lock.plugins()
                    .all(|plugin| !plugin.approved().lines().is_empty())
            );
        }
    });
    assert_eq!(file.read().unwrap().plugins().count(), 4 * EACH);
    let left: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, [LockFile::NAME]);
}

#[test]
fn a_change_survives_what_others_left_behind() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("real.lock");
    std::fs::write(&target, "version = 1\n").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
    let file = LockFile::in_folder(folder.path());
    std::os::unix::fs::symlink(&target, file.path()).unwrap();
    // As a process that was killed leaves it.
    std::fs::write(elsewhere.path().join(".real.lock.new"), "half").unwrap();
    approve(&file, "cat").unwrap();
    assert!(file.path().is_symlink());
    assert_eq!(
        target.metadata().unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(file.read().unwrap().plugins().count(), 1);
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 1);
}

#[test]
fn nothing_is_written_where_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = LockFile::in_folder(folder.path());
    file.update(|_| ()).unwrap();
    assert!(!file.path().exists());
    approve(&file, "cat").unwrap();
    let before = file.path().metadata().unwrap();
    approve(&file, "cat").unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(file.path().metadata().unwrap().ino(), before.ino());
}

/// The text with the plugins of these names.
fn text_with(names: &[&str]) -> String {
    let mut lock = Lock::default();
    for name in names {
        lock.approve(Installed::new(
            &manifest(name, Some("1.0.0"), DATA),
            &digest(name),
        ));
    }
    lock.to_text()
}

/// What git makes of two branches, and whether it left nothing to a person.
fn merged(folder: &Path, ours: &str, base: &str, theirs: &str) -> (String, bool) {
    for (name, text) in [("ours", ours), ("base", base), ("theirs", theirs)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let git = Command::new("git")
        .args(["merge-file", "-p", "ours", "base", "theirs"])
        .current_dir(folder)
        .output()
        .expect("git runs");
    (String::from_utf8(git.stdout).unwrap(), git.status.success())
}

#[test]
fn two_branches_that_add_plugins_can_be_merged() {
    let folder = tempfile::tempdir().unwrap();
    let base = ["bee", "gnu", "owl"];
    let base_text = text_with(&base);
    // At different places git needs nobody.
    let [ours, theirs] = [["ant"], ["rat"]].map(|more| text_with(&[&base[..], &more].concat()));
    let (text, clean) = merged(folder.path(), &ours, &base_text, &theirs);
    assert!(clean, "{text}");
    assert_eq!(
        Lock::parse(&text).unwrap().to_text(),
        text_with(&["ant", "bee", "gnu", "owl", "rat"])
    );
    // At one place it asks, and both sides are taken.
    let [ours, theirs] = [["cat"], ["dog"]].map(|more| text_with(&[&base[..], &more].concat()));
    let (text, clean) = merged(folder.path(), &ours, &base_text, &theirs);
    assert!(!clean, "{text}");
    let file = LockFile::new(folder.path().join("outrigger.lock"));
    std::fs::write(file.path(), &text).unwrap();
    assert_eq!(file.read().unwrap_err().code(), "lock-conflict");
    assert!(file.resolve_merge().unwrap());
    assert!(!file.resolve_merge().unwrap());
    let all = text_with(&["bee", "cat", "dog", "gnu", "owl"]);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), all);
}

#[test]
fn of_one_plugin_that_both_sides_changed_only_what_both_approved_is_approved() {
    let entry = |asked: &str, program: &str| {
        let mut lock = Lock::default();
        let manifest = manifest("cat", None, asked);
        lock.approve(Installed::new(&manifest, &digest(program)));
        lock.to_text()
    };
    let (ours, theirs) = (entry(DATA, "one"), entry(NET, "two"));
    let text =
        format!("<<<<<<< ours\n{ours}||||||| base\nwhatever\n=======\n{theirs}>>>>>>> theirs\n");
    let lock = Lock::parse_merged(&text).unwrap();
    let cat = lock.plugins().next().unwrap();
    assert!(cat.knows(&digest("one")) && cat.knows(&digest("two")));
    assert_eq!(cat.approved().lines(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_plugins_are_found_leaves_no_trace(
        mut found in proptest::collection::vec(("[a-d]", 0..3u64, "[a-c]"), 1..8).prop_shuffle(),
        seed in any::<prop::sample::Index>(),
    ) {
        found.sort();
        found.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        let write = |found: &[(String, u64, String)]| {
            let mut lock = Lock::default();
            for (name, version, asked) in found {
                let asked = [DATA, NET, ""][usize::from(asked.as_bytes()[0] - b'a')];
                let manifest = manifest(name, Some(&format!("1.{version}.0")), asked);
                lock.admit(Installed::new(&manifest, &digest(name)));
                lock = Lock::parse(&lock.to_text()).unwrap();
            }
            lock.to_text()
        };
        let sorted = write(&found);
        let middle = seed.index(found.len());
        found.rotate_left(middle);
        found.reverse();
        prop_assert_eq!(write(&found), sorted);
    }
}
