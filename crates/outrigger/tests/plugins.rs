//! Real plugins, found in folders, judged, started, called and stopped.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outrigger::{
    AuditLog, Coded, Deadlines, ErrorKind, ExitStatus, ExpectedDigest, Files, Manifest, Pace,
    Permissions, Policy, PolicyRules, PolicySection, RunningPlugin, Settings, Transport, Verdict,
};
use outrigger_examples::FileLister;
use outrigger_examples::netrpc::Animal;
use outrigger_examples::proto::filelister::{FileListRequest, FileListResponse};
use outrigger_testing::{is_gone, processes_with, program};
use tempfile::TempDir;

/// How long a state may take to come about.
const SOON: Duration = Duration::from_secs(10);

/// Allows the documents that a plugin has beside its program, and no more.
const DOCUMENTS_ONLY: &str = "
default:
  allow:
    services: [filesystem, log]
    filesystem:
      - {path: \"${plugin_dir}/docs\", permissions: [read, list], recursive: true}
";

/// A folder with the folders of plugins.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a plugin's folder with its manifest, and links its program into it.
    fn add(&self, name: &str, manifest: &str, built: &str) -> PathBuf {
        let folder = self.path().join(name);
        std::fs::create_dir(&folder).expect("a plugin's folder");
        std::fs::write(folder.join("manifest.yaml"), manifest).expect("a manifest");
        symlink(program(built), folder.join(built)).expect("a program");
        folder
    }

    /// Adds a lister that asks for `places`; it has a document of four bytes.
    fn add_lister(&self, places: &[&str]) -> PathBuf {
        let files: Vec<String> = places
            .iter()
            .map(|path| format!("{{path: \"{path}\", permissions: [read, list], recursive: true}}"))
            .collect();
        let manifest = format!(
            "plugin: {{name: lister, format: grpc, entrypoint: granted-lister}}
handshake: {{protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}}
services: [filesystem, log]
capabilities: {{filesystem: [{}]}}
",
            files.join(", ")
        );
        let folder = self.add("lister", &manifest, "granted-lister");
        std::fs::create_dir(folder.join("docs")).expect("documents");
        std::fs::write(folder.join("docs/a.txt"), "text").expect("a document");
        folder
    }

    /// Adds an animal of the examples, with the manifest that it has there.
    fn add_animal(&self, name: &str) -> PathBuf {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/animals");
        let manifest = std::fs::read_to_string(examples.join(name).join("manifest.yaml"));
        self.add(name, &manifest.expect("the manifest of an example"), name)
    }
}

fn documents_only() -> Settings {
    Settings::new().policy(Policy::parse(DOCUMENTS_ONLY).expect("a policy"))
}

async fn list(plugin: &RunningPlugin, folder: &Path) -> FileListResponse {
    let mut lister = plugin.client::<FileLister>().await.expect("a client");
    let request = FileListRequest {
        path: folder.display().to_string(),
        ..FileListRequest::default()
    };
    lister.list(request).await.expect("an answer").into_inner()
}

async fn speak(plugin: &RunningPlugin) -> String {
    let animal = plugin.client::<Animal>().await.expect("a client");
    animal.speak(false).await.expect("a sound")
}

/// Waits until `state` holds.
async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !state() {
        assert!(Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().expect("a folder").next().is_none()
}

/// Where a plugin has its sockets.
fn sockets(plugin: &RunningPlugin) -> PathBuf {
    let socket = PathBuf::from(&plugin.address().text);
    assert!(socket.exists(), "no socket at {}", socket.display());
    socket.parent().expect("a directory").to_owned()
}

/// Stops a plugin, which ends by itself and leaves neither process nor sockets.
async fn stops_cleanly(plugin: RunningPlugin) {
    let (pid, sockets) = (plugin.pid().expect("a pid"), sockets(&plugin));
    let report = plugin.stop().await;
    assert_eq!((report.status, report.forced), (ExitStatus::Code(0), false));
    assert!(is_gone(pid), "{pid} still runs");
    assert!(!sockets.exists(), "{} is left", sockets.display());
}

// ---- what a plugin gets --------------------------------------------------

#[tokio::test]
async fn a_plugin_reads_what_its_policy_grants_nothing_else_and_both_are_recorded() {
    let folder = Folder::new();
    let own = folder.add_lister(&["${plugin_dir}/docs"]);
    let (audit, mut records) = AuditLog::channel(100);
    let settings = documents_only().services(move |services| services.audit(audit.clone()));
    let plugins = settings.open(folder.path()).expect("a folder of plugins");
    let plugin = plugins.get("lister").expect("installed").start().await;
    let plugin = plugin.expect("started");

    let granted = list(&plugin, &own.join("docs")).await;
    assert_eq!(granted.entry, ["- a.txt 4"], "{granted:?}");
    let refused = list(&plugin, &own).await.error.expect("not granted");
    assert!(refused.starts_with("outside-grant: "), "{refused}");

    let lists: Vec<_> = std::iter::from_fn(|| records.try_recv())
        .filter(|record| record.operation == "list")
        .map(|record| (record.plugin.to_string(), record.verdict))
        .collect();
    let lister = || "lister".to_owned();
    assert_eq!(
        lists,
        [(lister(), Verdict::Allowed), (lister(), Verdict::Refused)]
    );
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_plugin_that_asks_for_more_is_not_started_unless_it_may_start_with_less() {
    let folder = Folder::new();
    let own = folder.add_lister(&["${plugin_dir}/docs", "/etc"]);
    let plugin = documents_only().open_plugin(&own).expect("a plugin");
    let error = plugin.start().await.expect_err("refused");
    let ErrorKind::Refused { refused, .. } = error.kind() else {
        panic!("{error:?}");
    };
    assert_eq!(refused.len(), 1, "{error:?}");
    assert!(error.details()[0].contains("/etc"), "{error:?}");
    let marker = own.display().to_string();
    assert_eq!(processes_with(&marker), [0; 0]);

    let lenient = documents_only().start_with_less();
    let plugin = lenient.open_plugin(&own).expect("a plugin").start().await;
    let plugin = plugin.expect("started");
    let granted = list(&plugin, &own.join("docs")).await;
    assert_eq!(granted.entry, ["- a.txt 4"], "{granted:?}");
    let refused = list(&plugin, Path::new("/etc")).await.error;
    assert!(refused.is_some_and(|error| error.starts_with("outside-grant: ")));
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_plugin_has_its_data_where_its_host_keeps_data() {
    let (folder, data) = (Folder::new(), Folder::new());
    let own = folder.add_lister(&["${data_dir}"]);
    let settings = Settings::new()
        .policy(Policy::allow_requested())
        .data_root(data.path());
    let plugin = settings.open_plugin(&own).expect("a plugin");
    assert!(!data.path().join("lister").exists(), "nothing is made yet");
    let plugin = plugin.start().await.expect("started");
    std::fs::write(data.path().join("lister/kept"), "1").expect("the host's own");
    let listed = list(&plugin, &data.path().join("lister")).await;
    assert_eq!(listed.entry, ["- kept 1"], "{listed:?}");
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_plugin_whose_manifest_is_made_in_code_gets_what_that_asks_for() {
    let listed = Folder::new();
    std::fs::write(listed.path().join("a.txt"), "text").expect("a file");
    let files = Files::new(listed.path(), Permissions::READ | Permissions::LIST);
    let manifest = Manifest::builder("lister", Transport::Grpc, "granted-lister")
        .handshake(1, "TEST_KEY", "TEST_VALUE")
        .files(files.clone())
        .build()
        .expect("a manifest");
    let allowed = PolicySection::new().allow(PolicyRules::new().files(files));
    let policy = Policy::builder().plugin("lister", allowed).build();
    let settings = Settings::new().policy(policy.expect("a policy"));
    let built = program("granted-lister");
    let folder = built.parent().expect("a directory");
    let plugin = settings.plugin(manifest, folder).expect("a plugin");
    let plugin = plugin.start().await.expect("started");
    let entries = list(&plugin, listed.path()).await;
    assert_eq!(entries.entry, ["- a.txt 4"], "{entries:?}");
    stops_cleanly(plugin).await;
}

// ---- several plugins -----------------------------------------------------

#[tokio::test]
async fn plugins_speak_whichever_protocol_their_manifests_name() {
    let folder = Folder::new();
    let names = ["dog", "dog-grpc"];
    for name in names {
        folder.add_animal(name);
    }
    let settings = Settings::new().policy(Policy::allow_requested());
    let plugins = settings.open(folder.path()).expect("a folder of plugins");
    for name in names {
        let plugin = plugins.get(name).expect("installed").start().await;
        let plugin = plugin.expect("started");
        assert_eq!(speak(&plugin).await, "Woof!", "{name}");
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_plugin_is_no_matter_of_those_beside_it() {
    let folder = Folder::new();
    folder.add_animal("dog");
    let broken = folder.add_animal("cat");
    std::fs::write(broken.join("manifest.yaml"), "plugin: {nme: cat}").expect("a manifest");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    std::fs::create_dir(folder.path().join(".hidden")).expect("a folder");
    std::fs::write(folder.path().join("notes.txt"), "").expect("a file");
    std::fs::rename(folder.add_animal("cow"), folder.path().join("x1")).expect("renamed");
    std::fs::rename(folder.add_animal("cow"), folder.path().join("x2")).expect("renamed");

    let plugins = outrigger::Plugins::open(folder.path()).expect("a folder of plugins");
    let found: Vec<_> = plugins
        .entries()
        .iter()
        .map(|entry| {
            let code = entry.plugin().err().map(Coded::code);
            (entry.name(), code)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("cat", Some("manifest-invalid")),
            ("dog", None),
            ("empty", Some("manifest-unreadable")),
            ("cow", None),
            ("cow", Some("plugin-name-taken")),
        ]
    );
    // The plugin of that name is the sound one.
    let cow = plugins.get("cow").expect("installed");
    assert_eq!(cow.places().plugin_dir().file_name(), Some("x1".as_ref()));
    let dog = plugins.get("dog").expect("installed").start().await;
    let dog = dog.expect("started");
    assert_eq!(speak(&dog).await, "Woof!");
    stops_cleanly(dog).await;
}

#[tokio::test]
async fn a_plugin_that_comes_into_a_watched_folder_is_reported_when_it_can_be_started() {
    let folder = Folder::new();
    let settings = Settings::new().policy(Policy::allow_requested());
    let (changed, reports) = std::sync::mpsc::channel();
    let report = move |changes| {
        let _ = changed.send(changes);
    };
    let watched = settings.watch(folder.path(), Pace::default(), report);
    let (plugins, _watch) = watched.expect("a folder of plugins");
    assert!(plugins.entries().is_empty());
    folder.add_animal("dog");
    loop {
        let changes = reports.recv_timeout(SOON).expect("a change");
        let dog = changes.iter().find(|change| change.name() == "dog");
        let now = dog.and_then(|change| change.after());
        if now.is_some_and(|now| now.entry().error().is_none()) {
            break;
        }
    }
    let plugins = settings.open(folder.path()).expect("a folder of plugins");
    let dog = plugins.get("dog").expect("installed").start().await;
    let dog = dog.expect("started");
    assert_eq!(speak(&dog).await, "Woof!");
    stops_cleanly(dog).await;
}

// ---- the program ---------------------------------------------------------

#[tokio::test]
async fn only_the_program_of_the_checksum_file_is_started() {
    let folder = Folder::new();
    let own = folder.add_animal("dog");
    let plugin = outrigger::Plugin::open(&own).expect("a plugin");

    let checksum = own.join("plugin.sha256");
    let digest_of = |built: &str| {
        let content = File::open(program(built)).expect("opened");
        let digest = ExpectedDigest::of(content).expect("it is read");
        digest.to_string().replace("sha256:", "")
    };
    std::fs::write(&checksum, format!("{}  dog\n", digest_of("cow"))).expect("written");
    let error = plugin.start().await.expect_err("another program");
    assert_eq!(error.code(), "digest-mismatch", "{error:?}");

    std::fs::write(&checksum, "not a checksum\n").expect("written");
    let error = plugin.start().await.expect_err("no checksum");
    assert_eq!(error.code(), "checksum-malformed", "{error:?}");

    std::fs::write(&checksum, format!("{}  dog\n", digest_of("dog"))).expect("written");
    let dog = plugin.start().await.expect("started");
    assert_eq!(speak(&dog).await, "Woof!");
    stops_cleanly(dog).await;
}

#[tokio::test]
async fn a_program_that_is_no_plugin_is_an_error_with_the_reasons_of_the_launch() {
    let folder = Folder::new();
    let own = folder.add_animal("dog");
    std::fs::remove_file(own.join("dog")).expect("removed");
    symlink("/bin/true", own.join("dog")).expect("linked");
    let plugin = outrigger::Plugin::open(&own).expect("a plugin");
    let error = plugin.start().await.expect_err("no plugin");
    assert_eq!(error.code(), "exited-early", "{error:?}");
    assert!(error.to_string().contains("plugin `dog` exited"), "{error}");
}

// ---- the end -------------------------------------------------------------

#[tokio::test]
async fn a_plugin_that_is_dropped_leaves_nothing() {
    let folder = Folder::new();
    let own = folder.add_lister(&["${plugin_dir}/docs"]);
    let plugin = documents_only().open_plugin(&own).expect("a plugin");
    let running = plugin.start().await.expect("started");
    let (pid, sockets) = (running.pid().expect("a pid"), sockets(&running));
    drop(running);
    until("nothing is left", || is_gone(pid) && !sockets.exists()).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let folder = Folder::new();
    let own = folder.add_animal("dog");
    std::fs::remove_file(own.join("dog")).expect("removed");
    let waits = "#!/bin/sh\ntouch \"$0.started\"\nexec sleep 600\n";
    outrigger_testing::write_script(&own.join("dog"), waits);
    let plugin = outrigger::Plugin::open(&own).expect("a plugin");
    let launch = plugin.launch().expect("it asks for nothing");
    let sockets = Folder::new();
    let launch = launch.temp_dir(sockets.path()).deadlines(Deadlines {
        start: Duration::from_secs(600),
        ..Deadlines::default()
    });
    let began = own.join("dog.started");
    tokio::select! {
        launched = launch.start() => panic!("{launched:?}"),
        () = until("the program runs", || began.exists()) => {}
    }
    let marker = sockets.path().display().to_string();
    until("no process is left", || processes_with(&marker).is_empty()).await;
    until("no socket is left", || is_empty(sockets.path())).await;
}

#[tokio::test]
async fn plugins_of_a_type_have_its_interface_whichever_format_they_speak() {
    let folder = Folder::new();
    for animal in ["cat", "dog-grpc", "horse"] {
        folder.add_animal(animal);
    }
    folder.add_lister(&[]);
    let manifest = folder.path().join("horse/manifest.yaml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let unknown = text.replace("type: animal", "type: vehicle");
    std::fs::write(&manifest, unknown).expect("written");

    let settings = Settings::new()
        .policy(Policy::allow_requested())
        .plugin_type::<Animal>("animal")
        .plugin_type::<Animal>("animal-grpc");
    let plugins = settings.open(folder.path()).expect("plugins");
    let of_type: Vec<&str> = plugins
        .of_type::<Animal>()
        .map(|plugin| plugin.name())
        .collect();
    assert_eq!(of_type, ["cat", "dog-grpc"]);
    assert_eq!(plugins.of_type::<FileLister>().count(), 0);
    assert!(!plugins.get("horse").expect("listed").is::<Animal>());

    let host = settings.host(folder.path()).await.expect("a host");
    let mut said = Vec::new();
    for (name, animal) in host.of_type::<Animal>().await {
        let animal = animal.expect("a client");
        said.push((name, animal.speak(false).await.expect("a sound")));
    }
    let expected = [("cat", "Meow!"), ("dog-grpc", "Woof!")];
    assert_eq!(
        said,
        expected.map(|(name, sound)| (name.to_owned(), sound.to_owned()))
    );
    // One of an unknown type is listed, and can be called all the same.
    let horse = host.status("horse").expect("listed");
    assert_eq!(horse.kind.as_deref(), Some("vehicle"));
    let plugin = plugins
        .get("horse")
        .expect("sound")
        .start()
        .await
        .expect("started");
    assert_eq!(speak(&plugin).await, "Neigh!");
    stops_cleanly(plugin).await;
    let report = host.shutdown(SOON).await;
    assert_eq!(report.killed().count(), 0);
}
