//! Folders of plugins, sound and broken in every way, as they lie on a real file system.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use outrigger_registry::{Bundle, DigestCache, EntryState, Registry, RegistryErrorKind, Scan};
use outrigger_wire::{Coded, ExpectedDigest};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// A folder of plugins.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Adds a sound plugin with a folder, a manifest and a program of this name.
    fn add(&self, name: &str) -> PathBuf {
        self.add_as(name, name)
    }

    fn add_as(&self, folder: impl AsRef<Path>, name: &str) -> PathBuf {
        let folder = self.path(folder);
        fs::create_dir(&folder).expect("a plugin's folder");
        fs::write(folder.join("manifest.yaml"), manifest(name)).expect("a manifest");
        write_program(&folder.join(name), "#!/bin/sh\n");
        folder
    }

    fn scan(&self) -> Registry {
        Registry::scan(self.0.path()).expect("it can be listed")
    }

    /// The name of each entry, and the code of what is wrong with it.
    fn states(&self) -> Vec<(String, Option<&'static str>)> {
        let registry = self.scan();
        let states = registry.entries().iter().map(|entry| {
            let code = entry.error().map(Coded::code);
            (entry.name().to_owned(), code)
        });
        states.collect()
    }
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

fn fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a pipe");
}

#[test]
fn what_is_installed_is_found_in_the_order_of_folders() {
    let folder = Folder::new();
    folder.add_as("2", "dog");
    folder.add_as("1", "cat");
    fs::create_dir(folder.path(".staging")).expect("a folder");
    fs::write(folder.path("outrigger.lock"), "").expect("a file");
    fifo(&folder.path("pipe"));
    symlink("outrigger.lock", folder.path("link-to-a-file")).expect("linked");
    symlink("1", folder.path(".hidden-link")).expect("linked");

    let registry = folder.scan();
    let names: Vec<&str> = registry
        .entries()
        .iter()
        .map(|entry| entry.name())
        .collect();
    assert_eq!(names, ["cat", "dog"]);
    let cat = registry.get("cat").expect("installed");
    let EntryState::Available {
        program, checksum, ..
    } = cat.state()
    else {
        panic!("{cat:?}");
    };
    assert_eq!(*program, folder.path("1/cat"));
    assert_eq!(*checksum, None);
}

#[test]
fn a_folder_that_is_broken_has_an_entry_with_its_error_and_costs_the_others_nothing() {
    let folder = Folder::new();
    folder.add("sound");
    let broken = |name: &str| folder.add_as(name, "dog");

    fs::create_dir(folder.path("a-empty")).expect("a folder");
    let own = broken("b-manifest-is-a-folder");
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    fs::create_dir(own.join("manifest.yaml")).expect("a folder");
    let own = broken("c-manifest-is-a-pipe");
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    fifo(&own.join("manifest.yaml"));
    let own = broken("d-manifest-is-a-socket");
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    let _listener = UnixListener::bind(own.join("manifest.yaml")).expect("a socket");
    let own = broken("e-manifest-links-to-itself");
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    symlink("manifest.yaml", own.join("manifest.yaml")).expect("linked");
    let own = broken("f-manifest-is-huge");
    let huge = File::options().write(true).open(own.join("manifest.yaml"));
    huge.expect("opened").set_len(1 << 40).expect("a hole");
    let own = broken("g-manifest-is-a-device");
    fs::remove_file(own.join("manifest.yaml")).expect("removed");
    symlink("/dev/zero", own.join("manifest.yaml")).expect("linked");
    fs::write(
        broken("h-manifest-is-binary").join("manifest.yaml"),
        [0xff; 99],
    )
    .expect("written");
    fs::write(
        broken("i-manifest-has-problems").join("manifest.yaml"),
        "a: [",
    )
    .expect("written");
    symlink("j-links-to-itself", folder.path("j-links-to-itself")).expect("linked");
    symlink("nowhere", folder.path("k-links-nowhere")).expect("linked");
    symlink(".", folder.path("l-links-to-all")).expect("linked");

    let unreadable = Some("manifest-unreadable");
    let invalid = Some("manifest-invalid");
    let leads_nowhere = Some("plugin-folder-unreadable");
    let expected = [
        ("a-empty", unreadable),
        ("b-manifest-is-a-folder", unreadable),
        ("c-manifest-is-a-pipe", unreadable),
        ("d-manifest-is-a-socket", unreadable),
        ("e-manifest-links-to-itself", unreadable),
        ("f-manifest-is-huge", unreadable),
        ("g-manifest-is-a-device", unreadable),
        ("h-manifest-is-binary", invalid),
        ("i-manifest-has-problems", invalid),
        ("j-links-to-itself", leads_nowhere),
        ("k-links-nowhere", leads_nowhere),
        ("l-links-to-all", unreadable),
        ("sound", None),
    ];
    let expected = expected.map(|(name, code)| (name.to_owned(), code));
    assert_eq!(folder.states(), expected);
    assert!(
        folder
            .scan()
            .get("sound")
            .expect("installed")
            .digest(&DigestCache::in_memory())
            .is_ok()
    );
}

#[test]
fn a_program_that_cannot_run_is_said_to_be_so() {
    let folder = Folder::new();
    let replaced = |name: &str, replace: &dyn Fn(&Path)| {
        let program = folder.add(name).join(name);
        fs::remove_file(&program).expect("removed");
        replace(&program);
    };
    replaced("a-missing", &|_| {});
    replaced("b-folder", &|at| fs::create_dir(at).expect("a folder"));
    replaced("c-pipe", &fifo);
    replaced("d-loop", &|at| symlink("d-loop", at).expect("linked"));
    replaced("e-dangling", &|at| symlink("nowhere", at).expect("linked"));
    set_mode(&folder.add("f-plain").join("f-plain"), 0o644);
    let below_a_file = folder.add("g-below").join("manifest.yaml");
    let deeper = manifest("g-below").replace("entrypoint: g-below", "entrypoint: g-below/x");
    fs::write(below_a_file, deeper).expect("written");

    let states = folder.states();
    let codes: Vec<_> = states.iter().filter_map(|(_, code)| *code).collect();
    assert_eq!(
        codes,
        [
            "entrypoint-not-found",
            "entrypoint-unusable",
            "entrypoint-unusable",
            "entrypoint-unusable",
            "entrypoint-not-found",
            "entrypoint-not-executable",
            "entrypoint-not-found",
        ]
    );
    let registry = folder.scan();
    let error = registry.get("f-plain").expect("installed").error();
    let mode = "has the mode 0644";
    assert!(error.expect("it cannot run").details()[0].ends_with(mode));
}

#[test]
fn a_checksum_file_counts_whatever_its_name_and_one_that_says_nothing_is_an_error() {
    let folder = Folder::new();
    let digest = ExpectedDigest::of(&b"#!/bin/sh\n"[..]).expect("read");
    let digits = digest.to_string().replace("sha256:", "");
    let line = |name: &str| format!("{digits}  {name}\n");
    let write = |at: &str, text: &str| fs::write(folder.path(at), text).expect("written");
    for name in [
        "a-none", "b-own", "c-beside", "d-both", "e-other", "f-bad", "g-pipe", "h-huge",
    ] {
        folder.add(name);
    }
    write("b-own/plugin.sha256", &line("b-own"));
    write("c-beside/c-beside.sha256", &line("c-beside"));
    write("d-both/plugin.sha256", &line("d-both"));
    write("d-both/d-both.sha256", "not looked at");
    write("e-other/plugin.sha256", &"0".repeat(64));
    write("f-bad/plugin.sha256", "f-bad");
    fifo(&folder.path("g-pipe/plugin.sha256"));
    write("h-huge/plugin.sha256", &line("h-huge").repeat(20_000));

    let registry = folder.scan();
    let seen: Vec<String> = registry
        .entries()
        .iter()
        .map(|entry| match entry.state() {
            EntryState::Available {
                checksum: Some(stated),
                ..
            } if *stated == digest => "stated".to_owned(),
            EntryState::Available {
                checksum: Some(_), ..
            } => "another".to_owned(),
            EntryState::Available { checksum: None, .. } => "none".to_owned(),
            EntryState::Unusable { error, .. } => error.code().to_owned(),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "none",
            "stated",
            "stated",
            "stated",
            "another",
            "checksum-malformed",
            "checksum-unreadable",
            "checksum-unreadable"
        ]
    );
    let own = registry
        .get("b-own")
        .expect("installed")
        .digest(&DigestCache::in_memory());
    assert_eq!(own.expect("the same"), digest);
    let error = registry
        .get("e-other")
        .expect("installed")
        .digest(&DigestCache::in_memory());
    assert_eq!(error.expect_err("another").code(), "digest-mismatch");

    let demanding = Scan::new()
        .require_checksums(true)
        .folder(registry.folder());
    let demanding = demanding.expect("it can be listed");
    let error = demanding.get("a-none").expect("installed").error();
    assert_eq!(error.map(Coded::code), Some("checksum-missing"));
    assert!(demanding.get("b-own").expect("installed").error().is_none());
}

#[test]
fn names_that_are_no_text_are_shown_and_found() {
    let folder = Folder::new();
    let odd = OsStr::from_bytes(b"\xff\x1b[2J");
    folder.add_as(odd, "dog");
    fs::create_dir(folder.path(OsStr::from_bytes(b"broken\xff\n"))).expect("a folder");
    let states = folder.states();
    let broken = ("broken\u{fffd}\n".to_owned(), Some("manifest-unreadable"));
    assert_eq!(states, [broken, ("dog".to_owned(), None)]);
    for entry in &folder.scan() {
        let error = entry.error().map(ToString::to_string).unwrap_or_default();
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn of_two_plugins_with_one_name_the_first_counts_and_both_are_listed() {
    let folder = Folder::new();
    folder.add_as("1", "dog");
    folder.add_as("2", "dog");
    fs::create_dir(folder.path("dog")).expect("a folder");
    let taken = Some("plugin-name-taken");
    let expected = [None, taken, Some("manifest-unreadable")];
    assert_eq!(
        folder.states(),
        expected.map(|code| ("dog".to_owned(), code))
    );
    let registry = folder.scan();
    assert_eq!(
        registry.get("dog").expect("installed").folder(),
        folder.path("1")
    );
    let second = &registry.entries()[1];
    assert!(second.bundle().is_some(), "{second:?}");

    // One that cannot run has its name all the same.
    set_mode(&folder.path("1/dog"), 0o644);
    let dog = folder.scan();
    let dog = dog.get("dog").expect("installed");
    assert_eq!(
        dog.error().map(Coded::code),
        Some("entrypoint-not-executable")
    );
}

#[test]
fn the_folder_itself_must_be_one() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "").expect("written");
    for missing in ["nowhere", "file"] {
        let error = Registry::scan(folder.path(missing)).expect_err("no folder");
        assert_eq!(error.code(), "plugins-unreadable");
        assert!(matches!(error.kind(), RegistryErrorKind::Folder { .. }));
    }
}

#[test]
fn an_entrypoint_is_looked_for_in_the_folder_before_it_is_read_from_the_repository() {
    let folder = Folder::new();
    let own = folder.add("cat");
    let from_repository =
        manifest("cat").replace("entrypoint: cat", "entrypoint: ./plugins/cat/cat");
    fs::write(own.join("manifest.yaml"), from_repository).expect("written");
    let bundle = Bundle::open(&own).expect("sound");
    assert_eq!(bundle.program().expect("found"), own.join("cat"));
    fs::create_dir_all(own.join("plugins/cat")).expect("folders");
    write_program(&own.join("plugins/cat/cat"), "");
    assert_eq!(
        bundle.program().expect("found"),
        own.join("plugins/cat/cat")
    );
}

/// What this user may not read. Root may read everything, so the test runs itself anew as nobody.
#[test]
fn what_this_user_may_not_use_is_an_error_of_that_plugin_alone_and_no_program_is_read() {
    const FOLDER: &str = "SCANNED_BY_NOBODY";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let registry = Registry::scan(folder).expect("it can be listed");
        let codes = registry
            .entries()
            .iter()
            .map(|entry| entry.error().map(Coded::code));
        let codes: Vec<_> = codes.collect();
        let unreadable = Some("manifest-unreadable");
        let not_executable = Some("entrypoint-not-executable");
        let expected = [unreadable, unreadable, not_executable, None, None];
        assert_eq!(codes, expected, "{registry:?}");
        return;
    }
    let folder = Folder::new();
    set_mode(folder.0.path(), 0o755);
    for name in ["a", "b", "c", "d", "e"] {
        folder.add(name);
    }
    set_mode(&folder.path("a"), 0o700);
    set_mode(&folder.path("b/manifest.yaml"), 0o600);
    set_mode(&folder.path("c/c"), 0o700);
    // Who may execute it need not be able to read it.
    set_mode(&folder.path("e/e"), 0o711);
    if !rustix::process::geteuid().is_root() {
        set_mode(&folder.path("a"), 0);
        set_mode(&folder.path("b/manifest.yaml"), 0);
        set_mode(&folder.path("c/c"), 0o600);
        set_mode(&folder.path("e/e"), 0o111);
    }
    // The test's own program, where nobody finds it.
    let own = folder.path(".test");
    fs::copy(std::env::current_exe().expect("its path"), &own).expect("copied");
    #[allow(clippy::disallowed_methods)] // It is no plugin.
    let mut command = std::process::Command::new(own);
    command
        .args([
            "--exact",
            "what_this_user_may_not_use_is_an_error_of_that_plugin_alone_and_no_program_is_read",
        ])
        .env(FOLDER, folder.0.path());
    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt as _;
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("it runs");
    set_mode(&folder.path("a"), 0o700);
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{output:?}"
    );
}
