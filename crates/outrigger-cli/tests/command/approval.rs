//! `lock` and `approve`, and what `inspect` says of a plugin beside a lock file: with plugins in
//! Rust, Go and Python.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Ran, command, found, go_peer, left_out, rust_example};

/// A folder with a folder `plugins`, in which the command runs.
struct Stage(TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(stage.path("plugins")).expect("made");
        stage
    }

    /// With a lister in each of three languages, if those are there.
    fn with_listers() -> Option<Self> {
        let rust = rust_example("granted-lister")?;
        let go = go_peer("lister")?;
        let python = std::env::var_os("OUTRIGGER_PYTHON").or_else(|| {
            left_out("OUTRIGGER_PYTHON does not name a Python with grpcio");
            None
        })?;
        let python = found(Path::new(&python), "make a venv of examples/python")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/lister.py");
        let stage = Self::new();
        stage.add("rust-lister", "1.0.0", DOCS);
        stage.link("rust-lister", Path::new(&rust));
        stage.add("go-lister", "1.0.0", DOCS);
        stage.link("go-lister", Path::new(&go));
        stage.add("python-lister", "1.0.0", DOCS);
        let text = format!("#!/bin/sh\nexec {python} {}\n", script.display());
        stage.program("python-lister", &text);
        Some(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the manifest of a plugin that asks for this.
    fn add(&self, name: &str, version: &str, asked: &str) {
        let folder = self.path("plugins").join(name);
        std::fs::create_dir_all(folder.join("docs")).expect("made");
        std::fs::write(folder.join("docs/a.txt"), "text").expect("written");
        let manifest = format!(
            "plugin: {{name: {name}, format: grpc, entrypoint: program, version: {version}}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}}\n\
             {asked}"
        );
        std::fs::write(folder.join("manifest.yaml"), manifest).expect("written");
    }

    fn link(&self, name: &str, program: &Path) {
        let link = self.path("plugins").join(name).join("program");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(program, link).expect("linked");
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("plugins").join(name).join("program");
        let _ = std::fs::remove_file(&path);
        super::write_program(&path, text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("CI");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args)
            .output()
            .expect("the command runs")
            .into()
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        self.run(args).expect(code).json()
    }
}

/// What was printed, without what differs from machine to machine.
fn shown(ran: &Ran) -> String {
    let mut text = format!("exit {}\n{}", ran.code, ran.stdout);
    if !ran.stderr.is_empty() {
        text += &format!("--- stderr\n{}", ran.stderr);
    }
    let mut shown = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("sha256:") {
        let (before, after) = rest.split_at(at + "sha256:".len());
        shown += before;
        let digits = after
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(after.len());
        shown += "…";
        rest = &after[digits..];
    }
    shown + rest
}

const DOCS: &str = "\
capabilities:
  filesystem: [{path: \"${plugin_dir}/docs\", permissions: [read, list]}]
";
const MORE: &str = "\
capabilities:
  filesystem: [{path: \"${plugin_dir}/docs\", permissions: [read, list, write]}]
  network: {egress: [{protocol: tcp, hosts: [api.example.com], ports: [443]}]}
";
const LESS: &str = "services: [log]\n";
const COMMANDS: &str = "capabilities: {process: {exec: [{command: /usr/bin/git, args: [pull]}]}}\n";

#[test]
fn plugins_in_three_languages_are_locked_and_one_that_asks_for_more_waits_for_its_approval() {
    let Some(stage) = Stage::with_listers() else {
        return;
    };
    insta::assert_snapshot!(shown(&stage.run(&["lock", "--check"])), @r#"
    exit 5
    ./plugins/outrigger.lock
      go-lister 1.0.0      was never approved here
        + filesystem ${plugin_dir}/docs: read, list
          it could see what is there
        + services: clock, filesystem, log
          it could ask the host for more kinds of things
      python-lister 1.0.0  was never approved here
        + filesystem ${plugin_dir}/docs: read, list
          it could see what is there
        + services: clock, filesystem, log
          it could ask the host for more kinds of things
      rust-lister 1.0.0    was never approved here
        + filesystem ${plugin_dir}/docs: read, list
          it could see what is there
        + services: clock, filesystem, log
          it could ask the host for more kinds of things
    --- stderr
    error[lock-differs]: 3 plugins are not what the lock file says
      help: `outrigger lock` records what asks for no more; review the change of the lock file
    "#);
    insta::assert_snapshot!(shown(&stage.run(&["lock"])), @r#"
    exit 0
    ./plugins/outrigger.lock
      go-lister 1.0.0      recorded: it is new
      python-lister 1.0.0  recorded: it is new
      rust-lister 1.0.0    recorded: it is new
    "#);
    insta::assert_snapshot!(shown(&stage.run(&["lock", "--check"])), @r#"
    exit 0
    ./plugins/outrigger.lock
      go-lister 1.0.0      known
      python-lister 1.0.0  known
      rust-lister 1.0.0    known
    "#);
    let locked = std::fs::read_to_string(stage.path("plugins/outrigger.lock")).expect("read");
    assert_eq!(locked.matches("[[plugin]]").count(), 3);
    assert!(!locked.contains(&stage.0.path().display().to_string()));

    // One asks for more, one has another program, one asks for less.
    stage.add("rust-lister", "1.1.0", MORE);
    stage.program("go-lister", "#!/bin/sh\nexit 1\n");
    stage.add("python-lister", "1.0.0", LESS);
    insta::assert_snapshot!(shown(&stage.run(&["lock", "--check"])), @r#"
    exit 5
    ./plugins/outrigger.lock
      go-lister 1.0.0      has another program than the one that was approved
      python-lister 1.0.0  asks for less than was approved
        - filesystem ${plugin_dir}/docs: read, list
        ~ services: clock, filesystem, log → log
      rust-lister 1.1.0    asks for more than was approved
        ~ filesystem ${plugin_dir}/docs: read, list → read, write, list
          it could change or remove what is there
        + network egress tcp api.example.com:443
          it could send there whatever it gets to see
        ~ services: clock, filesystem, log → clock, filesystem, log, network
          it could ask the host for more kinds of things
      rust-lister 1.0.0    is locked and not installed
    --- stderr
    error[needs-approval]: plugin `rust-lister` needs approval
      help: review what it asks for, then `outrigger approve rust-lister`
    "#);
    let again = std::fs::read_to_string(stage.path("plugins/outrigger.lock")).expect("read");
    assert_eq!(again, locked, "a check changes nothing");
    insta::assert_snapshot!(shown(&stage.run(&["lock"])), @r#"
    exit 5
    ./plugins/outrigger.lock
      go-lister 1.0.0      recorded: it changed and asks for no more
      python-lister 1.0.0  recorded: it changed and asks for no more
      rust-lister 1.1.0    asks for more than was approved
        ~ filesystem ${plugin_dir}/docs: read, list → read, write, list
          it could change or remove what is there
        + network egress tcp api.example.com:443
          it could send there whatever it gets to see
        ~ services: clock, filesystem, log → clock, filesystem, log, network
          it could ask the host for more kinds of things
      rust-lister 1.0.0    is locked and not installed
    --- stderr
    error[needs-approval]: plugin `rust-lister` needs approval
      help: review what it asks for, then `outrigger approve rust-lister`
    "#);

    // Nobody can be asked.
    insta::assert_snapshot!(shown(&stage.run(&["approve", "rust-lister"])), @r#"
    exit 5
    --- stderr
    rust-lister 1.1.0 asks for more than was approved
      ~ filesystem ${plugin_dir}/docs: read, list → read, write, list
        it could change or remove what is there
      + network egress tcp api.example.com:443
        it could send there whatever it gets to see
      ~ services: clock, filesystem, log → clock, filesystem, log, network
        it could ask the host for more kinds of things
      program sha256:…
    error[needs-approval]: plugin `rust-lister` was not approved: nobody was asked
      help: `outrigger approve rust-lister --expect sha256:…` approves just this
    "#);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let other = stage.run(&["approve", "rust-lister", "--expect", &zeros]);
    insta::assert_snapshot!(shown(&other), @r#"
    exit 5
    --- stderr
    error[digest-unexpected]: plugin `rust-lister` is not the one that was to be approved
      note: its program is sha256:…
      note: to be approved was sha256:…
      help: look at the plugin that is there now, and approve that or bring the other one back
    "#);
    let object = stage.json(&["approve", "rust-lister", "--json"], 5);
    assert_eq!(
        (&object["why"], &object["approved"]),
        (&"asks-for-more".into(), &false.into())
    );
    assert_eq!(object["error"]["code"], "needs-approval");
    let changes = object["changes"].as_array().expect("a list");
    assert!(
        changes
            .iter()
            .any(|change| change["change"] == "added" && change["why"].is_string())
    );
    let digest = object["digest"].as_str().expect("a digest").to_owned();
    insta::assert_snapshot!(
        shown(&stage.run(&["approve", "rust-lister", "--expect", &digest, "--audit", "audit.jsonl"])),
        @r#"
    exit 0
    approved rust-lister 1.1.0 in ./plugins/outrigger.lock
    "#
    );
    let record = std::fs::read_to_string(stage.path("audit.jsonl")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("one line of JSON");
    assert_eq!(
        (&record["plugin"], &record["operation"], &record["digest"]),
        (
            &"rust-lister".into(),
            &"approve".into(),
            &digest.clone().into()
        )
    );
    assert!(
        record["rule"]
            .as_str()
            .is_some_and(|who| who.starts_with("uid "))
    );
    stage.run(&["lock", "--check"]).expect(0);
    insta::assert_snapshot!(shown(&stage.run(&["approve", "rust-lister"])), @r#"
    exit 0
    rust-lister 1.1.0 is approved in ./plugins/outrigger.lock already
    "#);
    let object = stage.json(&["lock", "--check", "--json"], 0);
    let verdicts: Vec<&Value> = object["plugins"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| &p["verdict"])
        .collect();
    assert_eq!(verdicts, ["known"; 3]);
    assert_eq!(object["not_installed"][0]["version"], "1.0.0");
}

#[test]
fn inspect_says_whether_a_plugin_was_approved() {
    let Some(stage) = Stage::with_listers() else {
        return;
    };
    let look = |name: &str| {
        let manifest = format!("plugins/{name}/manifest.yaml");
        stage.json(&["inspect", "--manifest", &manifest, "--json"], 0)["manifest"]["lock"].clone()
    };
    assert_eq!(look("rust-lister"), Value::Null, "nothing is locked there");
    stage.run(&["lock"]).expect(0);
    for name in ["rust-lister", "go-lister", "python-lister"] {
        assert_eq!(look(name)["verdict"], "known", "{name}");
    }
    stage.add("rust-lister", "1.0.0", MORE);
    let lock = look("rust-lister");
    assert_eq!(
        (&lock["verdict"], &lock["why"]),
        (&"needs-approval".into(), &"asks-for-more".into())
    );
    let ran = stage
        .run(&["inspect", "--manifest", "plugins/rust-lister"])
        .expect(0);
    assert!(
        ran.stdout
            .contains("it asks for more than was approved in "),
        "{ran:?}"
    );
    assert!(
        ran.stdout
            .contains("+ network egress tcp api.example.com:443"),
        "{ran:?}"
    );
}

#[test]
fn what_nobody_trusts_at_first_sight_and_what_is_broken_is_said() {
    let stage = Stage::new();
    stage.add("puller", "1.0.0", COMMANDS);
    stage.program("puller", "#!/bin/sh\nexit 1\n");
    stage.add("lost", "1.0.0", "");
    stage.add("plain", "1.0.0", "");
    stage.program("plain", "#!/bin/sh\nexit 1\n");
    insta::assert_snapshot!(shown(&stage.run(&["lock"])), @r#"
    exit 5
    ./plugins/outrigger.lock
      lost          broken: plugin `lost` has no program at its entrypoint
      plain 1.0.0   recorded: it is new
      puller 1.0.0  was never approved here
        + process exec /usr/bin/git [pull]
          the command is not held to what the plugin is granted
        + services: clock, log, process
          it could ask the host for more kinds of things
        never trusted at first sight: process exec /usr/bin/git [pull]
          a command is not held to what the plugin is granted
    --- stderr
    error[needs-approval]: plugin `puller` needs approval
      help: review what it asks for, then `outrigger approve puller`
    "#);
    // What needs nobody was recorded all the same.
    let object = stage.json(&["lock", "--check", "--json"], 5);
    let plain = object["plugins"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|p| p["name"] == "plain");
    assert_eq!(plain.expect("there")["verdict"], "known");
    std::fs::remove_dir_all(stage.path("plugins/puller")).expect("removed");
    stage
        .run(&["lock"])
        .expect(1)
        .says("error[plugins-unusable]");
    stage
        .run(&["approve", "nobody"])
        .expect(2)
        .says("error[plugin-not-found]");
    std::fs::write(stage.path("plugins/outrigger.lock"), "version = 9\n").expect("written");
    stage.run(&["lock"]).expect(2).says("error[lock-newer]");
    stage
        .run(&["lock", "nowhere"])
        .expect(2)
        .says("error[plugins-unreadable]");
}

#[test]
fn a_lock_file_in_the_middle_of_a_merge_is_joined() {
    let stage = Stage::new();
    for name in ["cat", "dog"] {
        stage.add(name, "1.0.0", "");
        stage.program(name, &format!("#!/bin/sh\n# {name}\n"));
    }
    stage.run(&["lock"]).expect(0);
    let path = stage.path("plugins/outrigger.lock");
    let both = std::fs::read_to_string(&path).expect("read");
    let (head, dog) = both.rsplit_once("\n[[plugin]]").expect("two plugins");
    let (head, cat) = head.rsplit_once("\n[[plugin]]").expect("two plugins");
    let torn =
        format!("{head}\n<<<<<<< ours\n[[plugin]]{cat}=======\n[[plugin]]{dog}>>>>>>> theirs\n");
    std::fs::write(&path, torn).expect("written");
    stage
        .run(&["lock", "--check"])
        .expect(2)
        .says("error[lock-conflict]");
    stage
        .run(&["lock"])
        .expect(0)
        .says("in the middle of a merge");
    stage.run(&["lock", "--check"]).expect(0);
    assert_eq!(std::fs::read_to_string(&path).expect("read"), both);
}

#[test]
fn of_approvals_at_once_none_is_lost() {
    let stage = Stage::new();
    let names: Vec<String> = (0..8).map(|number| format!("puller-{number}")).collect();
    for name in &names {
        stage.add(name, "1.0.0", COMMANDS);
        stage.program(name, "#!/bin/sh\nexit 1\n");
    }
    let object = stage.json(&["lock", "--json"], 5);
    let digest = object["plugins"][0]["digest"].as_str().expect("a digest");
    let all: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = stage.command(&["approve", name, "--expect", digest]);
            command.spawn().expect("the command runs")
        })
        .collect();
    for child in all {
        Ran::from(child.wait_with_output().expect("it ends")).expect(0);
    }
    stage.run(&["lock", "--check"]).expect(0);
}

/// What a person at a terminal sees who answers with this.
fn answered(stage: &Stage, answer: &str) -> Option<String> {
    let approve = format!("exec {} approve puller", env!("CARGO_BIN_EXE_outrigger"));
    let child = Command::new("script")
        .args(["-qec", &approve, "/dev/null"])
        .current_dir(stage.0.path())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        left_out("`script` gives no terminal");
        return None;
    };
    let mut seen = Vec::new();
    let mut output = child.stdout.take().expect("a pipe");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains("[y/N] ") {
        assert_eq!(
            output.read(&mut byte).expect("readable"),
            1,
            "{}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend(byte);
    }
    stdin.write_all(answer.as_bytes()).expect("written");
    stdin.flush().expect("flushed");
    output.read_to_end(&mut seen).expect("readable");
    let status = child.wait().expect("it ends");
    let seen = String::from_utf8_lossy(&seen).into_owned();
    Some(format!("{seen}\nexit {}", status.code().unwrap_or(-1)))
}

#[test]
fn a_person_at_a_terminal_is_asked_and_silence_is_a_no() {
    let stage = Stage::new();
    stage.add("puller", "1.0.0", COMMANDS);
    stage.program("puller", "#!/bin/sh\nexit 1\n");
    for no in ["\n", "n\n", "maybe\n", "\u{4}"] {
        let Some(seen) = answered(&stage, no) else {
            return;
        };
        assert!(
            seen.contains("+ process exec /usr/bin/git [pull]"),
            "{seen}"
        );
        assert!(seen.contains("never trusted at first sight"), "{seen}");
        assert!(
            seen.contains("was not approved") && seen.ends_with("exit 5"),
            "{no:?}: {seen}"
        );
        assert!(!stage.path("plugins/outrigger.lock").exists());
    }
    let seen = answered(&stage, "yes\n").expect("a terminal");
    assert!(
        seen.contains("approved puller 1.0.0 in ") && seen.ends_with("exit 0"),
        "{seen}"
    );
    stage.run(&["lock", "--check"]).expect(0);
}
