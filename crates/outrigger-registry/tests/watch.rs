//! Real folders that change while they are watched.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_registry::{DigestCache, EntryChanged, Pace, Registry, Scan, Snapshot, Watch};
use outrigger_wire::Coded as _;
use proptest::prelude::*;
use tempfile::TempDir;

/// How long a change may take to be reported on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A watched folder of plugins, and what was reported of it.
struct Watched {
    folder: TempDir,
    /// Each report.
    reports: Arc<Mutex<Vec<Vec<EntryChanged>>>>,
    /// What was reported, put together.
    known: Arc<Mutex<Snapshot>>,
    watch: Watch,
}

fn manifest(name: &str) -> String {
    format!(
        "plugin: {{name: {name}, format: grpc, entrypoint: {name}}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n"
    )
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    set_mode(path, 0o755);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

/// Makes a plugin's folder.
fn add_to(folder: &Path, name: &str) -> PathBuf {
    let own = folder.join(name);
    fs::create_dir_all(&own).expect("a plugin's folder");
    fs::write(own.join("manifest.yaml"), manifest(name)).expect("a manifest");
    write_program(&own.join(name), "#!/bin/sh\n");
    own
}

impl Watched {
    /// Watches `plugins` in a folder of its own, in which `prepare` did what it wanted.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::at(Pace::default(), prepare)
    }

    fn at(pace: Pace, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plugins = folder.path().join("plugins");
        fs::create_dir(&plugins).expect("a folder");
        prepare(&plugins);
        let reports = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::new(Mutex::new(Snapshot::default()));
        let digests = Arc::new(DigestCache::in_memory());
        // What is reported before the first state is known is put together after it.
        let mut held = known.lock().expect("not poisoned");
        let (watch, registry) = Watch::start(Scan::new(), &plugins, digests, pace, {
            let (reports, known) = (reports.clone(), known.clone());
            move |changes| {
                known.lock().expect("not poisoned").apply(&changes);
                reports.lock().expect("not poisoned").push(changes);
            }
        })
        .expect("watched");
        *held = Snapshot::of(&registry, &DigestCache::in_memory());
        drop(held);
        Self {
            folder,
            reports,
            known,
            watch,
        }
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.plugins().join(name)
    }

    fn add(&self, name: &str) -> PathBuf {
        add_to(&self.plugins(), name)
    }

    /// All that was reported, a line for each change.
    fn lines(&self) -> Vec<String> {
        let reports = self.reports.lock().expect("not poisoned");
        reports.iter().flatten().map(ToString::to_string).collect()
    }

    /// Waits until what was reported is what a scan finds now.
    fn until_known(&self) {
        self.until("what was reported is what is there", |watched| {
            let Ok(registry) = Registry::scan(watched.plugins()) else {
                return false;
            };
            let found = Snapshot::of(&registry, &DigestCache::in_memory());
            *watched.known.lock().expect("not poisoned") == found
        });
    }

    /// Waits until these lines were reported, in this order, and no others.
    fn until_reported(&self, lines: &[&str]) {
        self.until(&format!("reported: {lines:?}"), |watched| {
            watched.lines() == lines
        });
    }

    fn until(&self, what: &str, state: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !state(self) {
            assert!(
                Instant::now() < deadline,
                "never so: {what}; {:#?}",
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_comes_and_goes_is_reported_once_it_is_all_there() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "old");
    });
    watched.add("new");
    watched.until_reported(&["plugin new was added"]);
    fs::remove_dir_all(watched.path("old")).expect("removed");
    watched.until_reported(&["plugin new was added", "plugin old was removed"]);
    watched.until_known();
}

#[test]
fn what_changes_is_said_by_content_and_not_by_time() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "cat");
    });
    let own = watched.path("cat");
    let now = || std::time::SystemTime::now();
    // Touched, written anew with the same content, replaced by its equal: no change.
    let program = File::options()
        .write(true)
        .open(own.join("cat"))
        .expect("opened");
    program.set_modified(now()).expect("touched");
    drop(program);
    fs::write(own.join("manifest.yaml"), manifest("cat")).expect("the same");
    write_program(&own.join(".cat.new"), "#!/bin/sh\n");
    fs::rename(own.join(".cat.new"), own.join("cat")).expect("replaced");
    // Comes after them, and is the first that is reported.
    std::thread::sleep(Pace::default().settle * 4);
    write_program(&own.join(".cat.new"), "#!/bin/sh\nexit 1\n");
    fs::rename(own.join(".cat.new"), own.join("cat")).expect("replaced");
    let mut lines = vec!["plugin cat has another program"];
    watched.until_reported(&lines);

    fs::write(own.join("manifest.yaml"), manifest("cat") + "\n").expect("changed");
    lines.push("plugin cat has another manifest");
    watched.until_reported(&lines);
    set_mode(&own.join("cat"), 0o644);
    lines.push("plugin cat has another program: it cannot be used [entrypoint-not-executable]");
    watched.until_reported(&lines);
    set_mode(&own.join("cat"), 0o755);
    lines.push("plugin cat has another program");
    watched.until_reported(&lines);
    fs::write(own.join("plugin.sha256"), "0".repeat(64)).expect("written");
    lines.push("plugin cat has another checksum");
    watched.until_reported(&lines);
    fs::write(own.join("plugin.sha256"), "0").expect("written");
    lines.push("plugin cat has another program, has another checksum: it cannot be used [checksum-malformed]");
    watched.until_reported(&lines);
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    lines.push("plugin cat has another manifest: it cannot be used [manifest-unreadable]");
    watched.until_reported(&lines);
    watched.until_known();
}

#[test]
fn a_program_that_is_still_written_is_reported_when_it_is_done_and_others_do_not_wait() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "slow");
    });
    let mut program = File::options()
        .append(true)
        .open(watched.path("slow/slow"))
        .expect("opened");
    program.write_all(b"exit 1\n").expect("written");
    watched.add("quick");
    watched.until_reported(&["plugin quick was added"]);
    // Longer than what counts as quiet.
    std::thread::sleep(Pace::default().settle * 4);
    program.write_all(b"exit 2\n").expect("written");
    assert_eq!(watched.lines(), ["plugin quick was added"]);
    drop(program);
    watched.until_reported(&["plugin quick was added", "plugin slow has another program"]);
    watched.until_known();
}

#[test]
fn a_file_that_is_written_to_all_the_time_keeps_nothing_from_being_reported() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "noisy");
    });
    let stop = Arc::new(Mutex::new(false));
    let noise = std::thread::spawn({
        let (stop, own) = (stop.clone(), watched.path("noisy"));
        move || {
            for number in 0.. {
                if *stop.lock().expect("not poisoned") {
                    return;
                }
                // Its own log, and a manifest that never comes to rest.
                fs::write(own.join("log.txt"), number.to_string()).expect("written");
                let text = format!("{}# {number}\n", manifest("noisy"));
                fs::write(own.join("manifest.yaml"), text).expect("written");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    watched.add("quiet");
    watched.until("the other one is reported", |watched| {
        watched
            .lines()
            .iter()
            .any(|line| line == "plugin quiet was added")
    });
    *stop.lock().expect("not poisoned") = true;
    noise.join().expect("it ended");
    watched.until_known();
}

#[test]
fn folders_that_are_replaced_are_still_watched() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "cat");
    });
    // The plugin's folder.
    let staged = watched.folder.path().join("staged");
    fs::create_dir(&staged).expect("a folder");
    let new = add_to(&staged, "cat");
    write_program(&new.join("cat"), "#!/bin/sh\nexit 1\n");
    fs::rename(watched.path("cat"), staged.join("old")).expect("renamed");
    fs::rename(&new, watched.path("cat")).expect("renamed");
    watched.until_known();
    write_program(&watched.path("cat/cat"), "#!/bin/sh\nexit 2\n");
    watched.until_known();
    // The folder of all plugins.
    fs::rename(watched.plugins(), watched.folder.path().join("away")).expect("renamed");
    fs::create_dir(watched.plugins()).expect("a folder");
    watched.add("dog");
    watched.until_known();
    watched.add("cow");
    watched.until_known();
    assert!(
        watched
            .lines()
            .contains(&"plugin cat was removed".to_owned())
    );
}

#[test]
fn what_links_lead_to_is_watched_where_it_is() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let real = add_to(elsewhere.path(), "cat");
    let watched = Watched::new(|plugins| {
        symlink(&real, plugins.join("cat")).expect("linked");
        let dog = add_to(plugins, "dog");
        fs::rename(dog.join("dog"), elsewhere.path().join("dog")).expect("moved");
        symlink(elsewhere.path().join("dog"), dog.join("dog")).expect("linked");
    });
    write_program(&real.join("cat"), "#!/bin/sh\nexit 1\n");
    watched.until_known();
    write_program(&elsewhere.path().join("dog"), "#!/bin/sh\nexit 1\n");
    watched.until_known();
    let newer = elsewhere.path().join("newer");
    fs::create_dir(&newer).expect("a folder");
    symlink(add_to(&newer, "cat"), watched.path(".new")).expect("linked");
    write_program(&newer.join("cat/cat"), "#!/bin/sh\nexit 2\n");
    fs::rename(watched.path(".new"), watched.path("cat")).expect("replaced");
    watched.until_known();
    write_program(&newer.join("cat/cat"), "#!/bin/sh\nexit 3\n");
    watched.until_known();
    assert_eq!(watched.lines().len(), 4, "{:#?}", watched.lines());
}

#[test]
fn a_program_below_its_plugins_folder_is_watched_when_its_folder_comes() {
    let watched = Watched::new(|plugins| {
        let own = add_to(plugins, "cat");
        let below = manifest("cat").replace("entrypoint: cat", "entrypoint: build/bin/cat");
        fs::write(own.join("manifest.yaml"), below).expect("written");
    });
    let bin = watched.path("cat/build/bin");
    fs::create_dir_all(&bin).expect("folders");
    watched.until_known();
    write_program(&bin.join("cat"), "#!/bin/sh\n");
    watched.until_known();
    fs::remove_dir_all(watched.path("cat/build")).expect("removed");
    watched.until_known();
    assert_eq!(
        watched.lines(),
        [
            "plugin cat has another program",
            "plugin cat has another program: it cannot be used [entrypoint-not-found]",
        ]
    );
}

#[test]
fn a_folder_that_cannot_be_listed_for_a_while_takes_nothing_away() {
    let watched = Watched::new(|plugins| {
        add_to(plugins, "cat");
    });
    let away = watched.folder.path().join("away");
    fs::rename(watched.plugins(), &away).expect("renamed");
    std::thread::sleep(Pace::default().settle * 4);
    assert_eq!(watched.lines(), [""; 0]);
    fs::rename(away, watched.plugins()).expect("renamed back");
    watched.add("dog");
    watched.until_reported(&["plugin dog was added"]);
}

#[test]
fn more_changes_than_the_kernel_remembers_are_found_by_looking() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a number");
    let most: usize = most.trim().parse().expect("a number");
    let watched = Watched::new(|plugins| {
        add_to(plugins, "cat");
    });
    for number in 0..most.min(100_000) {
        let file = watched.path(format!("cat/{number}"));
        File::create(&file).expect("made");
        fs::remove_file(file).expect("removed");
    }
    watched.add("dog");
    watched.until_known();
}

#[test]
fn without_events_the_folders_are_looked_at_from_time_to_time() {
    let pace = Pace {
        settle: Duration::from_millis(50),
        poll: Duration::from_millis(50),
        always_poll: true,
    };
    let watched = Watched::at(pace, |plugins| {
        add_to(plugins, "cat");
    });
    watched.add("dog");
    watched.until_known();
    write_program(&watched.path("cat/cat"), "#!/bin/sh\nexit 1\n");
    fs::remove_dir_all(watched.path("dog")).expect("removed");
    watched.until_known();
}

#[test]
fn a_watch_that_is_dropped_leaves_no_thread_and_no_descriptor() {
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").expect("threads").flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names
            .filter(|name| name.starts_with("dropped-watch"))
            .count()
    };
    let descriptors = |folder: &Path| {
        let all = fs::read_dir("/proc/self/fdinfo")
            .expect("descriptors")
            .flatten();
        let marker = format!(
            "ino:{:x} ",
            std::os::unix::fs::MetadataExt::ino(&folder.metadata().expect("a folder"))
        );
        let watches = all.filter(|fd| {
            let text = fs::read_to_string(fd.path()).unwrap_or_default();
            text.lines()
                .any(|line| line.starts_with("inotify") && line.contains(&marker))
        });
        watches.count()
    };
    let watched = Watched::new(|_| {});
    let folder = watched.plugins();
    assert_eq!(descriptors(&folder), 1);
    drop(watched.watch);
    assert_eq!(descriptors(&folder), 0);
    assert_eq!(threads(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_not_watched() {
    let digests = Arc::new(DigestCache::in_memory());
    let watch = Watch::start(
        Scan::new(),
        "/nonexistent",
        digests,
        Pace::default(),
        |_| {},
    );
    assert_eq!(watch.expect_err("no folder").code(), "plugins-unreadable");
}

/// Something that somebody does in a folder of plugins.
#[derive(Clone, Debug)]
enum Deed {
    Add(u8),
    Remove(u8),
    /// Takes a plugin's folder for another's.
    Rename(u8, u8),
    Replace(u8),
    Program(u8, u8),
    ProgramByRename(u8, u8),
    Manifest(u8, bool),
    Checksum(u8),
    Mode(u8, u32),
    FolderMode(u8, u32),
    Link(u8, u8),
    Version(u8, u8),
    ReplaceAll,
    Pause(u8),
}

impl Deed {
    fn any() -> impl Strategy<Value = Self> {
        let plugin = || 0u8..4;
        prop_oneof![
            plugin().prop_map(Self::Add),
            plugin().prop_map(Self::Remove),
            (plugin(), plugin()).prop_map(|(from, to)| Self::Rename(from, to)),
            plugin().prop_map(Self::Replace),
            (plugin(), any::<u8>()).prop_map(|(plugin, text)| Self::Program(plugin, text)),
            (plugin(), any::<u8>()).prop_map(|(plugin, text)| Self::ProgramByRename(plugin, text)),
            (plugin(), any::<bool>()).prop_map(|(plugin, good)| Self::Manifest(plugin, good)),
            plugin().prop_map(Self::Checksum),
            (plugin(), prop_oneof![Just(0o755), Just(0o644), Just(0)])
                .prop_map(|(plugin, mode)| Self::Mode(plugin, mode)),
            (plugin(), prop_oneof![Just(0o755), Just(0)])
                .prop_map(|(plugin, mode)| Self::FolderMode(plugin, mode)),
            (plugin(), plugin()).prop_map(|(from, to)| Self::Link(from, to)),
            (plugin(), 0u8..3).prop_map(|(plugin, version)| Self::Version(plugin, version)),
            Just(Self::ReplaceAll),
            (0u8..60).prop_map(Self::Pause),
        ]
    }

    /// Does it as far as that is possible.
    fn does(&self, plugins: &Path) {
        let name = |number: &u8| format!("p{number}");
        let own = |number: &u8| plugins.join(name(number));
        let program = |number: &u8| own(number).join(name(number));
        let aside = plugins.join(".aside");
        let text = |number: &u8| format!("#!/bin/sh\nexit {number}\n");
        let _ = fs::remove_dir_all(&aside);
        let _ = match self {
            Self::Add(number) => {
                let _ = fs::create_dir(own(number));
                let _ = fs::write(own(number).join("manifest.yaml"), manifest(&name(number)));
                let _ = fs::write(program(number), text(&0));
                fs::set_permissions(program(number), Permissions::from_mode(0o755))
            }
            Self::Remove(number) => {
                fs::remove_dir_all(own(number)).or_else(|_| fs::remove_file(own(number)))
            }
            Self::Rename(from, to) => fs::rename(own(from), own(to)),
            Self::Replace(number) => {
                let new = add_to(&aside, &name(number));
                let _ = fs::rename(own(number), aside.join("old"));
                fs::rename(new, own(number))
            }
            Self::Program(number, exit) => fs::write(program(number), text(exit)),
            Self::ProgramByRename(number, exit) => {
                let new = own(number).join(".new");
                let _ = fs::write(&new, text(exit));
                let _ = fs::set_permissions(&new, Permissions::from_mode(0o755));
                fs::rename(new, program(number))
            }
            Self::Manifest(number, good) => {
                let text = match good {
                    true => manifest(&name(number)),
                    false => "plugin: {".to_owned(),
                };
                fs::write(own(number).join("manifest.yaml"), text)
            }
            Self::Checksum(number) => fs::write(
                own(number).join("plugin.sha256"),
                "0".repeat(60 + usize::from(*number)),
            ),
            Self::Mode(number, mode) => {
                fs::set_permissions(program(number), Permissions::from_mode(*mode))
            }
            Self::FolderMode(number, mode) => {
                fs::set_permissions(own(number), Permissions::from_mode(*mode))
            }
            Self::Link(from, to) => symlink(name(to), own(from)),
            Self::Version(number, version) => {
                let below = own(number).join(format!("{version}.0.0"));
                let _ = fs::create_dir(&below);
                let _ = fs::write(below.join("manifest.yaml"), manifest(&name(number)));
                let program = below.join(name(number));
                let _ = fs::write(&program, text(version));
                fs::set_permissions(program, Permissions::from_mode(0o755))
            }
            Self::ReplaceAll => {
                let old = plugins.with_file_name("old");
                let _ = fs::remove_dir_all(&old);
                let _ = fs::rename(plugins, old);
                fs::create_dir(plugins)
            }
            Self::Pause(milliseconds) => {
                std::thread::sleep(Duration::from_millis(u64::from(*milliseconds)));
                Ok(())
            }
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn after_quiet_what_was_reported_is_what_a_scan_finds(
        before in prop::collection::vec(Deed::any(), 0..10),
        deeds in prop::collection::vec(Deed::any(), 1..30),
    ) {
        // Quicker than usual, so that looks fall between the deeds.
        let pace = Pace { settle: Duration::from_millis(10), ..Pace::default() };
        let watched = Watched::at(pace, |plugins| before.iter().for_each(|deed| deed.does(plugins)));
        for deed in &deeds {
            deed.does(&watched.plugins());
        }
        watched.until_known();
        for number in 0..4 {
            let _ = fs::set_permissions(watched.path(format!("p{number}")), Permissions::from_mode(0o755));
        }
    }
}
