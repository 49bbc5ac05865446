//! `outrigger run` with plugins in Rust, Go and Python, and the commands that talk to it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Ran, command, found, go_peer, left_out, rust_example, write_program};

/// How long what comes about may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A folder of plugins, and a place for control sockets.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("plugins")).expect("made");
        std::fs::create_dir(dir.path().join("sockets")).expect("made");
        Self(dir)
    }

    fn plugins(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    fn sockets(&self) -> PathBuf {
        self.0.path().join("sockets")
    }

    /// A plugin's folder with a manifest; `program` is linked in as its entrypoint.
    fn add(&self, name: &str, format: &str, cookie: (&str, &str), program: &str) {
        let folder = self.plugins().join(name);
        std::fs::create_dir(&folder).expect("made");
        let (key, value) = cookie;
        let manifest = format!(
            "plugin: {{name: {name}, type: test, format: {format}, entrypoint: run, version: 1.2.3}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: {key}, magic_cookie_value: {value}}}\n"
        );
        std::fs::write(folder.join("manifest.yaml"), manifest).expect("written");
        symlink(program, folder.join("run")).expect("linked");
    }

    /// A plugin that is a script.
    fn add_script(&self, name: &str, text: &str) {
        self.add(name, "grpc", KV, "script");
        let script = self.plugins().join(name).join("script");
        write_program(&script, &format!("#!/bin/sh\n{text}\n"));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.sockets())
            .env("XDG_DATA_HOME", self.0.path().join("data"))
            .env("OUTRIGGER_LOCK_MODE", "trust-first")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("OUTRIGGER_CONTROL_SOCKET");
        command
    }

    fn ran(&self, args: &[&str]) -> Ran {
        self.command(args)
            .output()
            .expect("the command runs")
            .into()
    }

    fn run(&self, more: &[&str]) -> Running {
        let args: Vec<&str> = ["run"].iter().chain(more).copied().collect();
        Running::of(self.command(&args))
    }

    /// What is left of sockets and locks.
    fn left(&self) -> Vec<String> {
        let entries = self.sockets().read_dir().expect("listed");
        entries
            .map(|entry| {
                entry
                    .expect("read")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }
}

const KV: (&str, &str) = ("BASIC_PLUGIN", "hello");

/// A run that is ready; killed when dropped.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: Vec<String>,
}

impl Running {
    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().expect("it runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut running = Self {
            child,
            stdout,
            said: Vec::new(),
        };
        running.until("ready");
        running
    }

    /// Reads lines up to the one that has `text` in it.
    fn until(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "no {text:?} in {:?}", self.said);
            self.said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Tells it to end, and returns its code and the rest of what it said.
    fn end(mut self, signal: &str) -> (i32, String) {
        self.signal(signal);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.code().unwrap_or(-1), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_gone(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Waits until something holds.
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A script that becomes the lister in Python, if there is a Python for it.
fn python_lister(folder: &Folder) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/lister.py");
    let Some(python) = std::env::var_os("OUTRIGGER_PYTHON") else {
        left_out("OUTRIGGER_PYTHON does not name a Python with grpcio");
        return None;
    };
    let python = found(Path::new(&python), "make a venv of examples/python")?;
    let path = folder.0.path().join("py");
    let text = format!("#!/bin/sh\nexec '{python}' '{}' \"$@\"\n", script.display());
    write_program(&path, &text);
    Some(path)
}

#[test]
fn a_run_serves_plugins_in_three_languages_until_it_is_told_to_stop() {
    let folder = Folder::new();
    let (Some(rust), Some(animal)) = (rust_example("kv"), rust_example("cat")) else {
        return;
    };
    let mut names = vec!["animal", "rust"];
    folder.add("rust", "grpc", KV, &rust);
    let cookie = "lFLmoCE3ckw6erJxYxcRd6keedUodVMctD3XOGj9bLMYsFZi1Qh0vKEJftppo5ek";
    folder.add("animal", "rpc", ("CAT_PLUGIN", cookie), &animal);
    if let Some(go) = go_peer("kv") {
        folder.add("go", "grpc", KV, &go);
        names.push("go");
    }
    if let Some(python) = python_lister(&folder) {
        let script = python.display().to_string();
        folder.add("python", "grpc", ("TEST_KEY", "TEST_VALUE"), &script);
        names.push("python");
    }
    names.sort_unstable();
    let mut run = folder.run(&[]);
    let count = names.len();
    assert!(
        run.said[0].starts_with(&format!("outrigger 0.0.0 serves {count} plugins in ")),
        "{:?}",
        run.said
    );
    for name in &names {
        let line = run
            .said
            .iter()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("no start line of {name}: {:?}", run.said));
        let protocol = if *name == "animal" { "netrpc" } else { "grpc" };
        let begins = format!("{name} 1.2.3 {protocol} running unsandboxed (process ");
        assert!(line.starts_with(&begins), "{line}");
    }
    assert_eq!(
        run.said.last(),
        Some(&format!("ready: {count} plugins run\n"))
    );

    // What runs, and what it uses.
    let listed = folder.ran(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["run"]["pid"], run.pid());
    assert_eq!(listed["run"]["ready"], true);
    let plugins = listed["plugins"].as_array().expect("a list").clone();
    let shown: Vec<&str> = plugins.iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(shown, names);
    for plugin in &plugins {
        assert_eq!(plugin["state"], "running", "{plugin}");
        assert_eq!(
            plugin["sandbox"],
            json!({"wanted": "require", "enforced": false})
        );
        for figure in ["resident_bytes", "threads", "descriptors"] {
            assert!(
                plugin["usage"][figure].as_u64() > Some(0),
                "{figure} of {plugin}"
            );
        }
    }
    let table = folder.ran(&["list"]).expect(0).stdout;
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    assert_eq!(table.matches("unsandboxed").count(), count, "{table}");

    // Each that speaks gRPC is reached by its name, at once and several times.
    for name in names.iter().filter(|name| ["rust", "go"].contains(name)) {
        let put = json!({"key": "a", "value": "aGVsbG8="}).to_string();
        let calls = ["call", name, "--method", "proto.KV/Put", "--data", &put];
        let calls = [
            &calls[..],
            &["--method", "proto.KV/Get", "--data", r#"{"key":"a"}"#],
        ]
        .concat();
        let ran = folder.ran(&calls).expect(0);
        assert!(
            ran.stdout.ends_with("{\"value\":\"aGVsbG8=\"}\n"),
            "{name}: {ran:?}"
        );
        let inspected = folder.ran(&["inspect", name, "--json"]).expect(0).json();
        assert_eq!(inspected["health"]["plugin"], "SERVING", "{inspected}");
        assert_eq!(inspected["end"]["how"], "left", "{inspected}");
    }
    if names.contains(&"python") {
        let method = "filelister.v1.FileLister/List";
        folder
            .ran(&["call", "python", "--method", method, "--data", "{}"])
            .expect(1)
            .says("EstablishHostServices was not called");
    }
    folder
        .ran(&[
            "call",
            "animal",
            "--plugin",
            "animal",
            "--method",
            "Plugin.Speak",
        ])
        .expect(1)
        .says("error[protocol-unsupported]");

    // A restart is another process; what happened is told.
    let pid = |name: &str| {
        let shown = folder.ran(&["show", name, "--json"]).expect(0).json();
        shown["plugin"]["pid"].as_u64()
    };
    for name in &names {
        let before = pid(name).expect("it runs");
        folder.ran(&["restart", name]).expect(0);
        let after = pid(name).expect("it runs");
        assert_ne!(before, after, "{name}");
        assert!(is_gone(before), "{name}");
        let stopped = folder.ran(&["stop", name, "--json"]).expect(0).json();
        assert_eq!(stopped["plugin"]["state"], "stopped", "{stopped}");
        assert!(stopped["ended"].is_string(), "{stopped}");
        assert!(is_gone(after), "{name}");
        let refused = folder.ran(&["call", name, "--method", "a.B/C"]);
        assert_ne!(refused.code, 0, "a stopped plugin is not started by a call");
        assert_eq!(pid(name), None);
        let started = folder.ran(&["start", name]).expect(0).stdout;
        assert!(started.starts_with(&format!("{name} 1.2.3 ")), "{started}");
        let events = folder
            .ran(&["events", "--plugin", name, "--json"])
            .expect(0)
            .stdout;
        let kinds: Vec<Value> = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("an object"))
            .map(|event| event["kind"].clone())
            .collect();
        let expected = [
            "starting", "running", "stopping", "starting", "running", "stopping", "stopped",
            "starting", "running",
        ];
        let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
        let shortened: Vec<&str> = kinds
            .iter()
            .enumerate()
            .filter(|(at, kind)| **kind != "stopped" || kinds.get(at + 1) == Some(&"starting"))
            .map(|(_, kind)| *kind)
            .collect();
        assert!(kinds.starts_with(&expected[..2]), "{name}: {kinds:?}");
        assert!(
            shortened.ends_with(&["starting", "running"]),
            "{name}: {kinds:?}"
        );
        assert_eq!(
            kinds.iter().filter(|kind| **kind == "running").count(),
            3,
            "{name}: {kinds:?}"
        );
    }

    let pids: Vec<u64> = names.iter().filter_map(|name| pid(name)).collect();
    let (code, rest) = run_end(&mut run);
    assert_eq!(code, 0, "{rest}");
    assert!(rest.ends_with("stopped\n"), "{rest}");
    assert!(pids.iter().all(|pid| is_gone(*pid)), "{pids:?}");
    assert_eq!(folder.left(), Vec::<String>::new());
}

/// Ends a run in place.
fn run_end(run: &mut Running) -> (i32, String) {
    run.signal("TERM");
    let mut rest = String::new();
    run.stdout.read_to_string(&mut rest).expect("text");
    let status = run.child.wait().expect("it ends");
    (status.code().unwrap_or(-1), rest)
}

#[test]
fn a_second_run_of_a_folder_is_refused_and_a_killed_one_is_replaced() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    let first = folder.run(&[]);
    let refused = folder.ran(&["run", "plugins"]).expect(3);
    let says = format!("is served already, by process {}", first.pid());
    let refused = refused.says("error[already-served]").says(&says);
    drop(refused);
    let elsewhere = folder.0.path().join("elsewhere");
    let socket = elsewhere.display().to_string();
    folder
        .ran(&["run", "--socket", &socket])
        .expect(3)
        .says(&says);
    let before = folder.ran(&["show", "kv", "--json"]).expect(0).json();
    let pid = before["plugin"]["pid"].as_u64().expect("it runs");

    first.signal("KILL");
    soon("the plugin of a killed run is gone", || is_gone(pid));
    assert!(!folder.left().is_empty(), "a killed run leaves its socket");
    folder
        .ran(&["stop", "kv"])
        .expect(3)
        .says("error[run-not-found]");
    let second = folder.run(&["plugins"]);
    let after = folder.ran(&["show", "kv", "--json"]).expect(0).json();
    assert_eq!(after["run"]["pid"], second.pid());
    assert_eq!(second.end("INT").0, 0);
    assert_eq!(folder.left(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_plugin_is_told_and_costs_no_other_one() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    folder.add_script("ends", "echo no database >&2; exit 3");
    std::fs::create_dir(folder.plugins().join("empty")).expect("made");
    let run = folder.run(&["--json"]);
    let said: Vec<Value> = run
        .said
        .iter()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let ready = said.last().expect("said");
    assert_eq!(
        (&ready["event"], &ready["running"], &ready["plugins"]),
        (&json!("ready"), &json!(1), &json!(3))
    );
    let of = |name: &str| {
        let told = said.iter().find(|event| event["plugin"]["name"] == name);
        told.unwrap_or_else(|| panic!("no {name} in {said:?}"))["plugin"].clone()
    };
    assert_eq!(of("empty")["state"], "broken");
    assert_eq!(of("empty")["why"]["code"], "manifest-unreadable");
    assert_eq!(of("ends")["why"]["code"], "exited-early");
    soon("it failed too often", || {
        let shown = folder.ran(&["show", "ends", "--json"]).expect(0).json();
        shown["plugin"]["state"] == "failed"
    });
    let shown = folder.ran(&["show", "ends"]).expect(0).stdout;
    assert!(
        shown.contains("state      failed for ") && shown.contains("no database"),
        "{shown}"
    );
    folder
        .ran(&["start", "ends"])
        .expect(3)
        .says("error[exited-early]");
    folder
        .ran(&["start", "empty"])
        .expect(1)
        .says("error[manifest-unreadable]");
    folder
        .ran(&["show", "kvv"])
        .expect(2)
        .says("error[plugin-not-found]: there is no plugin `kvv`\n  help: did you mean `kv`?");
    folder
        .ran(&["stop", "kw"])
        .expect(2)
        .says("error[plugin-not-found]");
    let error = folder.ran(&["stop", "kw", "--json"]).expect(2).json();
    assert_eq!(error["error"]["code"], "plugin-not-found");
    assert_eq!(run.end("TERM").0, 0);
}

#[test]
fn a_lazy_run_starts_a_plugin_when_it_is_called() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    let run = folder.run(&["--set", "supervision.start=lazily"]);
    assert_eq!(
        run.said.last().map(String::as_str),
        Some("ready: 0 of 1 plugins run\n")
    );
    let state =
        || folder.ran(&["show", "kv", "--json"]).expect(0).json()["plugin"]["state"].clone();
    assert_eq!(state(), "installed");
    let get = ["call", "kv", "--method", "grpc.health.v1.Health/Check"];
    assert_eq!(
        folder.ran(&get).expect(0).stdout,
        "{\"status\":\"SERVING\"}\n"
    );
    assert_eq!(state(), "running");
    drop(run);
}

#[test]
fn events_are_followed_until_the_run_ends() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    let run = folder.run(&[]);
    let mut following = folder
        .command(&["events", "--follow"])
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
    let mut until = |text: &str| {
        let found = lines.by_ref().map(|line| line.expect("text"));
        found
            .into_iter()
            .find(|line| line.contains(text))
            .expect("it is told")
    };
    let line = until("kv: running");
    assert!(line.ends_with("kv: running because it answers"), "{line}");
    folder.ran(&["restart", "kv"]).expect(0);
    until("kv: stopping");
    until("kv: running");
    assert_eq!(run.end("TERM").0, 0);
    until("kv: stopped");
    assert!(
        following.wait().expect("it ends").success(),
        "the end of the run is its end"
    );
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    let path = folder.0.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(LONG)).expect("set");
    let mut command = folder.command(&["run"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    let run = Running::of(command);
    let mut said: Vec<String> = Vec::new();
    let mut until = |text: &str| {
        while !said.iter().any(|message| message == text) {
            let mut bytes = [0; 512];
            let length = manager.recv(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("{error}: no {text:?} in {said:?}"));
            said.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        said.clear();
    };
    until("READY=1\nSTATUS=1 plugins run");
    until("WATCHDOG=1");
    folder.ran(&["stop", "kv"]).expect(0);
    until("STATUS=0 of 1 plugins run");
    run.signal("TERM");
    until("STOPPING=1");
    assert_eq!(run.end("CONT").0, 0);
}

/// A user that is not root and has nothing.
const NOBODY: u32 = 65534;

#[test]
fn other_users_are_refused_at_the_control_socket_and_root_is_not() {
    if !std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    }) {
        left_out("only root can be somebody else");
        return;
    }
    let folder = Folder::new();
    let open = |path: &Path, mode: u32| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("set");
    };
    // Where nobody may be, and may read what it starts.
    open(folder.0.path(), 0o755);
    let program = folder.0.path().join("outrigger");
    std::fs::copy(env!("CARGO_BIN_EXE_outrigger"), &program).expect("copied");
    open(&program, 0o755);
    let as_nobody = |args: &[&str]| -> Ran {
        let mut command = Command::new(&program);
        command
            .args(args)
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::null());
        command.output().expect("it runs").into()
    };

    let socket = folder.0.path().join("control");
    let path = socket.display().to_string();
    let run = folder.run(&["--socket", &path]);
    as_nobody(&["list", "--socket", &path])
        .expect(3)
        .says("error[control-refused]");
    // Even if the file is open to all, its other end knows who comes.
    open(&socket, 0o666);
    as_nobody(&["list", "--socket", &path])
        .expect(3)
        .says("error[control-refused]");
    let mut raw = Command::new("python3");
    let script = format!(
        "import socket,os\nos.setuid({NOBODY})\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(30)\n\
         s.connect({path:?})\nassert s.recv(1) == b'', 'it is answered'\n"
    );
    let ended = raw.args(["-c", &script]).output().expect("python3 runs");
    assert!(ended.status.success(), "{ended:?}");
    folder.ran(&["list", "--socket", &path]).expect(0);
    assert_eq!(run.end("TERM").0, 0);

    // The other way round: root may look at a run of anybody.
    let own = folder.0.path().join("own");
    std::fs::create_dir(&own).expect("made");
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).expect("given");
    let path = own.join("control").display().to_string();
    let mut theirs = Command::new(&program);
    theirs
        .args(["run", "--socket", &path])
        .arg(folder.plugins())
        .env("HOME", &own)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let theirs = Running::of(theirs);
    let listed = folder
        .ran(&["list", "--socket", &path, "--json"])
        .expect(0)
        .json();
    assert_eq!(listed["run"]["pid"], theirs.pid());
    assert_eq!(theirs.end("TERM").0, 0);
}

#[test]
fn without_a_run_the_folder_is_read_and_what_needs_one_says_so() {
    let folder = Folder::new();
    folder.add("one", "grpc", KV, "/bin/sh");
    folder.add("two", "rpc", KV, "/bin/sh");
    std::fs::create_dir(folder.plugins().join("three")).expect("made");
    let listed = folder.ran(&["list"]).expect(0).stdout;
    let (path, _) = listed
        .split_once("manifest `")
        .expect("a manifest is missing")
        .1
        .split_once("/three/")
        .expect("its folder");
    let path = path.to_owned();
    let listed: Vec<&str> = listed
        .lines()
        .map(|line| line.split(&path).next().unwrap_or(line))
        .collect();
    insta::assert_snapshot!(listed.join("\n"), @r"
    NAME   VERSION    PROTOCOL STATE            PROCESS     MEMORY
    one    1.2.3      grpc     installed
      unsandboxed: its manifest says `sandbox: require`
    three                      broken
      manifest-unreadable: the manifest `
    two    1.2.3      netrpc   installed
      unsandboxed: its manifest says `sandbox: require`
    no `outrigger run` serves this folder
    ");
    let shown = folder.ran(&["show", "one"]).expect(0).stdout;
    let shown = shown.replace(&path, "[PLUGINS]");
    insta::assert_snapshot!(shown, @r"
    one 1.2.3
      state      installed
      sandbox    unsandboxed: its manifest says `sandbox: require`
      protocol   grpc
      type       test
      folder     [PLUGINS]/one
    ");
    for args in [
        &["start", "one"][..],
        &["stop", "one"],
        &["restart", "one"],
        &["events"],
        &["audit"],
        &["call", "one", "--method", "a.B/C"],
        &["inspect", "one"],
    ] {
        let ran = folder.ran(args).expect(3);
        let text = ran.stderr;
        assert!(
            text.contains("error[run-not-found]: no `outrigger run`"),
            "{args:?}: {text}"
        );
        assert!(
            text.contains("help: start one with `outrigger run FOLDER`"),
            "{args:?}: {text}"
        );
    }
    folder
        .ran(&["list", "--folder", "nowhere"])
        .expect(2)
        .says("error[plugins-unreadable]");
    folder
        .ran(&["run", "nowhere"])
        .expect(2)
        .says("error[plugins-unreadable]");
}

#[test]
fn what_was_refused_is_told_of_the_plugin_that_asked() {
    let folder = Folder::new();
    let Some(lister) = rust_example("granted-lister") else {
        return;
    };
    folder.add("lister", "grpc", ("TEST_KEY", "TEST_VALUE"), &lister);
    let manifest = folder.plugins().join("lister/manifest.yaml");
    let mut text = std::fs::read_to_string(&manifest).expect("read");
    text.push_str("services: [filesystem, log]\n");
    std::fs::write(&manifest, text).expect("written");
    let policy = folder.0.path().join("policy.yaml");
    std::fs::write(&policy, "{default: {sandbox: off, allow: requested}}").expect("written");
    let run = folder.run(&["--policy", "policy.yaml"]);
    let call = [
        "call",
        "lister",
        "--method",
        "filelister.v1.FileLister/List",
    ];
    let call = [&call[..], &["--data", r#"{"path": "/etc"}"#]].concat();
    let _ = folder.ran(&call);
    let refused = folder
        .ran(&["audit", "--refused", "--json", "--plugin", "lister"])
        .expect(0);
    let record: Value = refused
        .stdout
        .lines()
        .next()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .unwrap_or_else(|| panic!("no record: {refused:?}"));
    assert_eq!(
        (&record["plugin"], &record["verdict"], &record["capability"]),
        (&json!("lister"), &json!("refused"), &json!("filesystem"))
    );
    let text = folder.ran(&["audit", "--refused"]).expect(0).stdout;
    assert!(text.contains("refused lister: filesystem."), "{text}");
    let other = folder.ran(&["audit", "--plugin", "other"]).expect(0);
    assert_eq!(other.stdout, "");
    assert_eq!(run.end("TERM").0, 0);
}

#[test]
fn the_configuration_decides_what_a_run_does() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    folder.add("later", "grpc", KV, &kv);
    std::fs::rename(folder.plugins(), folder.0.path().join("elsewhere")).expect("moved");
    let text = "
application: {app_name: Plugin Manager, app_mode: dev, app_version: {major: 1, minor: 2}}
directories: {plugins_dir: elsewhere}
audit: {file: audit.jsonl}
control: {socket: control}
plugins: {later: {start: lazily}}
";
    std::fs::write(folder.0.path().join("outrigger.yaml"), text).expect("written");
    let run = folder.run(&[]);
    assert!(
        run.said[0].starts_with("Plugin Manager 1.2.0 serves 2 plugins in "),
        "{:?}",
        run.said
    );
    assert_eq!(
        run.said.last().map(String::as_str),
        Some("ready: 1 of 2 plugins run\n")
    );
    assert!(folder.0.path().join("audit.jsonl").exists());
    let socket = folder.0.path().join("control").display().to_string();
    let listed = folder.ran(&["list", "--socket", &socket, "--json"]);
    let listed = listed.expect(0).json();
    let states: Vec<&Value> = (listed["plugins"].as_array().expect("a list").iter())
        .map(|plugin| &plugin["state"])
        .collect();
    assert_eq!(states, ["running", "installed"]);
    // A variable is as good as a flag.
    let mut shown = folder.command(&["show", "later"]);
    shown.env("OUTRIGGER_CONTROL_SOCKET", &socket);
    let shown: Ran = shown.output().expect("it runs").into();
    assert!(shown.expect(0).stdout.starts_with("later 1.2.3\n"));
    assert_eq!(run.end("TERM").0, 0);
    folder
        .ran(&["run", "--set", "supervision.start=never"])
        .expect(2)
        .says("error[configuration-invalid]");
}

#[test]
fn a_plugin_that_nobody_approved_is_told_and_started_once_it_is() {
    let folder = Folder::new();
    let Some(kv) = rust_example("kv") else {
        return;
    };
    folder.add("kv", "grpc", KV, &kv);
    let run = folder.run(&["--set", "lock.mode=strict"]);
    let line = run.said.iter().find(|line| line.starts_with("kv "));
    let line = line.expect("a start line");
    assert!(line.starts_with("kv 1.2.3 grpc needs-approval "), "{line}");
    let shown = folder.ran(&["show", "kv", "--json"]).expect(0).json();
    assert_eq!(shown["plugin"]["state"], "needs-approval");
    assert_eq!(shown["plugin"]["why"]["code"], "needs-approval");
    folder
        .ran(&["start", "kv"])
        .expect(5)
        .says("error[needs-approval]");
    let program = folder.plugins().join("kv/run");
    let sum = Command::new("sha256sum").arg(program).output();
    let sum = String::from_utf8(sum.expect("sha256sum runs").stdout).expect("text");
    let digest = format!("sha256:{}", &sum[..64]);
    folder
        .ran(&["approve", "kv", "--expect", &digest])
        .expect(0);
    folder.ran(&["start", "kv"]).expect(0);
    assert_eq!(run.end("TERM").0, 0);
}
