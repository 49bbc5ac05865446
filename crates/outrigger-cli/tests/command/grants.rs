//! `check`, and `inspect` and `call` under a manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Fake, Ran, command, found, go_peer, run, rust_example, script};

const ESTABLISH: &str = "filelister.v1.FileLister/EstablishHostServices";
const LIST: &str = "filelister.v1.FileLister/List";
const COOKIE: &str = "TEST_KEY=TEST_VALUE";

/// A folder with a plugin's manifest, some files, and a policy beside it.
struct Folder(TempDir);

impl Folder {
    fn new(manifest: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Self(dir);
        std::fs::create_dir_all(folder.plugin().join("docs")).expect("made");
        for name in ["a.txt", "b.txt"] {
            std::fs::write(folder.plugin().join("docs").join(name), "text").expect("written");
        }
        std::fs::write(folder.manifest(), manifest).expect("written");
        folder
    }

    /// For the lister at `program`, which is linked in as the entrypoint.
    fn lister(program: &str, capabilities: &str) -> Self {
        let folder = Self::new(&format!("{HEAD}capabilities:\n{capabilities}"));
        std::os::unix::fs::symlink(program, folder.plugin().join("lister")).expect("linked");
        folder
    }

    fn plugin(&self) -> PathBuf {
        let dir = self.0.path().canonicalize().expect("it is there");
        dir.join("lister")
    }

    fn manifest(&self) -> PathBuf {
        self.plugin().join("manifest.yaml")
    }

    fn docs(&self) -> String {
        self.plugin().join("docs").display().to_string()
    }

    fn policy(&self, text: &str) -> String {
        let path = self.0.path().join("policy.yaml");
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// Runs the command in the plugin's folder, with a home and data of its own.
    fn run(&self, args: &[&str]) -> Ran {
        let mut command = command(args);
        command
            .current_dir(self.plugin())
            .env("HOME", self.0.path())
            .env_remove("XDG_DATA_HOME");
        command.output().expect("the command runs").into()
    }

    fn list(&self, path: &str, more: &[&str]) -> Ran {
        let data = json!({"path": path}).to_string();
        let mut args = vec!["call", "--method", LIST, "--data", &data];
        args.extend(more);
        self.run(&args)
    }
}

const HEAD: &str = "\
plugin: {name: lister, format: grpc, entrypoint: lister}
handshake: {protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}
sandbox: off
";

const DOCS: &str =
    "  filesystem: [{path: \"${plugin_dir}/docs\", permissions: [read, list], recursive: true}]\n";

const BAD: &str = "\
plugin:
  name: lister
  format: grcp
  entrypoint: lister
handshake: {protocol_version: 1, magic_cookie_key: TEST_KEY}
capabilities:
  filesystem:
    - {path: /srv, permisions: [read]}
    - {path: ~/x, permissions: [read]}
  network:
    egress: [{protocol: tcp, hosts: [0x7f.1], ports: [70000]}]
";

#[test]
fn check_says_which_rule_refuses_a_place_that_links_lead_to() {
    let folder = Folder::new(&format!("{HEAD}capabilities:\n{DOCS}"));
    let docs = folder.plugin().join("docs");
    let elsewhere = folder.0.path().canonicalize().expect("there").join("keys");
    std::fs::rename(&docs, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &docs).expect("linked");
    let policy = folder.policy(
        "{default: {sandbox: off, allow: requested, deny: {filesystem: [{path: \"${HOME}/keys\"}]}}}",
    );
    let ran = folder.run(&["check", ".", "--policy", &policy]).expect(0);
    let reason = format!(
        "{:?} is granted and cannot be served: it leads to {elsewhere:?}, refused by policy default.deny.filesystem[0]",
        folder.docs()
    );
    assert!(
        ran.stdout.contains(&format!("not served   {reason}\n")),
        "{ran:?}"
    );
    let object = folder
        .run(&["check", ".", "--policy", &policy, "--json"])
        .expect(0)
        .json();
    assert_eq!(object["unusable"], json!([reason]));
}

#[test]
fn check_says_of_what_a_grant_holds_that_it_is_served_in_part_or_not_at_all() {
    let folder = Folder::new(&format!(
        "{HEAD}capabilities:\n  filesystem:\n    \
         - {{path: /, permissions: [read, list], recursive: true}}\n    \
         - {{path: /proc/self/environ, permissions: [read]}}\n"
    ));
    let ran = folder.run(&["check", "."]).expect(0);
    let limited = "what belongs to processes is never served there, the rest is only read";
    let said = |start: &str, end: &str| {
        ran.stdout
            .lines()
            .any(|line| line.starts_with(start) && line.ends_with(end))
    };
    assert!(
        said("in part      \"/\" is granted, with \"/proc\"", limited),
        "{ran:?}"
    );
    assert!(
        said(
            "not served   \"/proc/self/environ\" is granted",
            "never served"
        ),
        "{ran:?}"
    );
    let object = folder.run(&["check", ".", "--json"]).expect(0).json();
    let limits = object["limited"].as_array().expect("a list");
    assert!(
        limits
            .iter()
            .any(|told| told.as_str().is_some_and(|told| told.ends_with(limited)))
    );
    assert_eq!(object["unusable"].as_array().map(Vec::len), Some(1));
}

#[test]
fn check_shows_every_problem_in_its_place_with_what_was_meant() {
    let folder = Folder::new(BAD);
    let ran = folder.run(&["check", "manifest.yaml"]).expect(1);
    assert_eq!(ran.stdout, "");
    let first = "\
error[unknown-word]: `grcp` is not a format
 --> manifest.yaml:3:11
  |
3 |   format: grcp
  |           ^^^^ did you mean `grpc`?
  |
  = at: plugin.format
  = help: possible: rpc, grpc

";
    assert!(ran.stderr.starts_with(first), "{ran:?}");
    let ran = ran
        .says("error[missing-key]: the key `magic_cookie_value` is missing")
        .says("error[unknown-key]")
        .says("^^^^^^^^^^ did you mean `permissions`?")
        .says("did you mean `${HOME}/x`?")
        .says("did you mean `127.0.0.1`?")
        .says("error[invalid-port]: `70000` is not a port")
        .says("error[manifest-invalid]: manifest.yaml has 6 problems");
    assert!(
        !ran.stderr.contains('\u{1b}'),
        "no colours without a terminal"
    );

    let object = folder.run(&["check", ".", "--json"]).expect(1).json();
    assert_eq!(object["kind"], "manifest");
    assert_eq!(object["valid"], false);
    assert_eq!(object["error"]["code"], "manifest-invalid");
    let problems = object["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 6);
    assert_eq!(
        problems[0],
        json!({
            "file": "./manifest.yaml", "line": 3, "column": 11, "code": "unknown-word",
            "location": "plugin.format", "message": "`grcp` is not a format",
            "near_miss": "grpc", "help": "possible: rpc, grpc"
        })
    );
}

#[test]
fn check_reports_the_problems_of_manifest_and_policy_together() {
    let folder = Folder::new(BAD);
    let policy = folder.policy("default:\n  alow: requested\n");
    folder
        .run(&["check", ".", "--policy", &policy])
        .expect(1)
        .says("did you mean `grpc`?")
        .says("did you mean `allow`?")
        .says("./manifest.yaml has 6 problems, and")
        .says("policy.yaml has 1 problem\n");
    folder
        .run(&["check", &policy])
        .expect(1)
        .says("error[policy-invalid]");
}

#[test]
fn check_says_what_is_granted_and_what_is_refused_and_why() {
    let folder = Folder::new(&format!(
        "{HEAD}resources: {{memory: 2GiB}}\ncapabilities:\n{DOCS}  \
         network: {{egress: [{{protocol: tcp, hosts: [a.example.com], ports: [443, 8080]}}]}}\n  \
         environment: {{read: [LANG, SECRET]}}\n"
    ));
    let docs = folder.docs();
    let ran = folder.run(&["check", "."]).expect(0);
    for text in [
        "policy       allow_requested: whatever the manifest asks for (no `--policy`)",
        "entrypoint   lister (no such program in the folder)",
        "granted (4)",
        &format!(
            "capabilities.filesystem[0]: {{path: {docs}, permissions: [read, list], recursive: true}}"
        ),
        "refused: nothing",
        "limits       memory 2GiB",
        "sandbox      off: not confined",
    ] {
        assert!(ran.stdout.contains(text), "no {text:?} in {ran:?}");
    }
    let policy = folder.policy(
        "default:\n  sandbox: require\n  resources: {memory: 1GiB}\n  allow:\n    \
         filesystem: [{path: \"${plugin_dir}\", permissions: [read, list], recursive: true}]\n    \
         network: {egress: [{protocol: tcp, hosts: [\"*.example.com\"], ports: [443]}]}\n    \
         environment: {read: [LANG]}\n",
    );
    let ran = folder.run(&["check", ".", "--policy", &policy]).expect(0);
    for text in [
        "by policy default.allow.filesystem[0]",
        "refused[not-allowed]: capabilities.network.egress[0]: {protocol: tcp, hosts: [a.example.com], ports: [8080]}",
        "refused[not-allowed]: capabilities.environment.read[1]: SECRET",
        "                              ^^^^^^",
        "refused[narrowed]: resources.memory: 2GiB",
        "  = rule: policy default.resources.memory",
        "  = granted instead: 1GiB",
        "sandbox      require: started only fully confined",
    ] {
        assert!(ran.stdout.contains(text), "no {text:?} in {ran:?}");
    }
    let args = ["check", ".", "--policy", &policy, "--strict", "--json"];
    let object = folder
        .run(&args)
        .expect(1)
        .says("error[not-granted]")
        .json();
    assert_eq!(object["valid"], true);
    assert_eq!(object["policy"], json!({"file": policy}));
    let decision = &object["decision"];
    assert_eq!(decision["complete"], false);
    assert_eq!(decision["resources"]["memory"], "1GiB");
    assert_eq!(decision["sandbox"], "require");
    assert_eq!(
        object["places"]["plugin_dir"],
        folder.plugin().to_str().expect("text")
    );
    let object = folder
        .run(&["check", ".", "--json", "--strict"])
        .expect(0)
        .json();
    assert_eq!(object["policy"], "allow-requested");
}

#[test]
fn check_prints_a_policy_as_it_is_understood() {
    let folder = Folder::new(HEAD);
    let policy = folder.policy("plugins:\n  lister: {allow: requested, sandbox: off}\n");
    let ran = folder.run(&["check", &policy]).expect(0);
    assert!(ran.stdout.contains("      allow: requested"), "{ran:?}");
    let object = folder.run(&["check", &policy, "--json"]).expect(0).json();
    assert_eq!(
        (&object["kind"], &object["valid"]),
        (&json!("policy"), &json!(true))
    );
    folder
        .run(&["check", &policy, "--policy", &policy])
        .expect(2)
        .says("error[policy-not-wanted]");
}

#[test]
fn files_that_cannot_be_used_are_explained() {
    let folder = Folder::new(BAD);
    folder
        .run(&["check", "absent.yaml"])
        .expect(2)
        .says("error[manifest-unreadable]");
    std::fs::rename(folder.manifest(), folder.plugin().join("manifest.yml")).expect("renamed");
    folder
        .run(&["check", "."])
        .expect(2)
        .says("the folder holds `manifest.yml`");
    let call = |more: &[&str]| {
        let mut args = vec!["call", "--method", "a.B/C"];
        args.extend(more);
        folder.run(&args)
    };
    call(&["--manifest", "manifest.yml"])
        .expect(2)
        .says("error[manifest-invalid]: manifest.yml has 6 problems")
        .says("manifest.yml:3:11: plugin.format: `grcp` is not a format; did you mean `grpc`?");
    std::fs::write(folder.manifest(), HEAD).expect("written");
    call(&["--manifest", "."])
        .expect(3)
        .says("error[entrypoint-not-found]: plugin `lister` has no program at its entrypoint");
    call(&["--manifest", ".", "--policy", "absent"])
        .expect(2)
        .says("error[policy-unreadable]");
    let policy = folder.policy("default: 1\n");
    call(&["--manifest", ".", "--policy", &policy])
        .expect(2)
        .says("error[policy-invalid]");
    call(&["--manifest", ".", "--data-dir", "/"])
        .expect(2)
        .says("error[place-unusable]");
    call(&["--manifest", ".", "--audit=/nonexistent/audit"])
        .expect(2)
        .says("error[audit-file-unusable]");
    call(&["--descriptors", "absent", "--policy", "x", "--", "x"]).expect(2);
}

#[test]
fn the_manifest_says_how_to_start_the_plugin_unless_the_command_line_does() {
    let (_dir, program) = script(
        "test \"$TEST_KEY\" = TEST_VALUE && test \"$PLUGIN_PROTOCOL_VERSIONS\" = 7 \
         && test -n \"$PLUGIN_CLIENT_CERT\" && test \"$MODE\" = night && exit 42\nexit 43",
    );
    let folder = Folder::lister(&program, "  environment: {set: {MODE: night}}\n");
    let manifest = format!(
        "{HEAD}security: {{auto_mtls: true}}\ncapabilities:\n  environment: {{set: {{MODE: night}}}}\n"
    );
    let manifest = manifest.replace("protocol_version: 1", "protocol_version: 7");
    std::fs::write(folder.manifest(), manifest).expect("written");
    folder
        .run(&["inspect", "--manifest", "."])
        .expect(3)
        .says("plugin `lister` exited")
        .says("exited with status 42");
    folder
        .run(&["inspect", "--manifest", ".", "--app-version", "8"])
        .expect(3)
        .says("exited with status 43");
    let (_other, program) = script("exit 44");
    folder
        .run(&["inspect", "--manifest", ".", "--", &program])
        .expect(3)
        .says("exited with status 44");
    let (_rpc, program) = script("echo '1|7|tcp|127.0.0.1:1|netrpc'; read x");
    folder
        .run(&["inspect", "--manifest", ".", "--", &program])
        .expect(3)
        .says("error[transport-not-allowed]")
        .says("its manifest says `format: grpc`")
        .says("correct `plugin.format`");
}

/// A lister lists what is granted and nothing else, and the audit tells. It has
/// `done` operations for that.
fn lister(program: &str, arguments: &[&str], names: &[&str], done: u64) {
    let folder = Folder::lister(program, DOCS);
    let docs = folder.docs();
    let mut tail = Vec::new();
    if !arguments.is_empty() {
        tail.extend(["--", program]);
        tail.extend(arguments);
    }
    let with = |head: &[&'static str]| -> Vec<String> {
        let head = head.iter().chain(&tail);
        head.map(|part| (*part).to_owned()).collect()
    };
    let list = |path: &str, head: &[&'static str]| {
        let args = with(head);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        folder.list(path, &args)
    };
    let under = ["--manifest", ".", "--establish", ESTABLISH];

    let allowed = list(&docs, &[&under[..], &["--audit"]].concat()).expect(0);
    let reply: Value = serde_json::from_str(&allowed.stdout).expect("JSON");
    assert_eq!(reply["entry"], json!(names), "{allowed:?}");
    let record = allowed
        .stderr
        .lines()
        .find(|line| line.contains("allowed filesystem.ReadDir"))
        .unwrap_or_else(|| panic!("no record in {allowed:?}"));
    assert!(
        record.contains(&docs) && record.ends_with(" µs"),
        "{record}"
    );
    assert!(
        record.contains("rule: capabilities.filesystem[0] by policy"),
        "{record}"
    );

    let refused = list("/etc", &[&under[..], &["--audit"]].concat())
        .expect(0)
        .says("refused filesystem.ReadDir path=\"/etc\"")
        .says("it would need capabilities.filesystem: {path: /etc, permissions: [list]}");
    let reply: Value = serde_json::from_str(&refused.stdout).expect("JSON");
    assert!(
        reply["error"].is_string() && reply["entry"].is_null(),
        "{refused:?}"
    );

    // Without `--audit` the refusal is said all the same.
    let object = list("/etc", &[&under[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(
        object["host"]["operations"],
        json!({"done": 0, "failed": 0, "refused": 1, "undecided": 0})
    );
    assert!(object["host"]["client_id"].is_string(), "{object}");
    let note = object["notes"][0].as_str().expect("a note");
    assert!(
        note.starts_with("the host refused filesystem.ReadDir"),
        "{note}"
    );

    let object = list(
        &docs,
        &[&under[..], &["--audit=audit.jsonl", "--json"]].concat(),
    );
    assert_eq!(object.expect(0).json()["host"]["operations"]["done"], done);
    let lines = std::fs::read_to_string(folder.plugin().join("audit.jsonl")).expect("a file");
    assert_eq!(lines.lines().count() as u64, done, "{lines}");
    let record = lines.lines().next().expect("a line");
    let record: Value = serde_json::from_str(record).expect("a line of JSON");
    assert_eq!(record["plugin"], "lister");
    assert_eq!(record["verdict"], "allowed");
    assert!(
        record["client"].as_str().is_some_and(|id| !id.is_empty()),
        "{record}"
    );

    // A policy that allows less.
    let policy = folder.policy("default: {sandbox: off, allow: {environment: {read: [LANG]}}}\n");
    let mut args = with(&[&under[..], &["--audit"]].concat());
    args.splice(0..0, ["--policy".to_owned(), policy]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = folder.list(&docs, &args).expect(0);
    assert!(ran.stderr.contains("refused filesystem.ReadDir"), "{ran:?}");
}

#[test]
fn the_rust_lister_lists_what_its_manifest_was_granted() {
    let Some(program) = rust_example("filelister") else {
        return;
    };
    let lines = ["- a.txt  1 line", "- b.txt  1 line"];
    // It lists, and opens, reads and closes two files.
    lister(&program, &[], &lines, 7);
    let folder = Folder::lister(&program, DOCS);
    let docs = folder.docs();
    // The request has a field for the broker id of its own.
    let filled = folder.list(&docs, &["--manifest", "."]).expect(0);
    assert_eq!(filled.stdout, format!("{}\n", json!({"entry": lines})));
    let data = json!({"path": docs, "host_service": 0}).to_string();
    let args = ["call", "--manifest", ".", "--method", LIST, "--data", &data];
    folder.run(&args).expect(1).says("FAILED_PRECONDITION");
    // Without a manifest there are services, and nothing is granted.
    folder
        .list(
            &docs,
            &[
                "--cookie",
                COOKIE,
                "--establish",
                ESTABLISH,
                "--",
                "./lister",
            ],
        )
        .expect(0)
        .says("note: the host refused filesystem.ReadDir")
        .says("nothing is granted without `--manifest`");
    // Names are looked for among those there are.
    folder
        .list(
            &docs,
            &[
                "--manifest",
                ".",
                "--establish",
                "filelister.v1.FileLister/Establish",
            ],
        )
        .expect(2)
        .says("error[unknown-method]");
    folder
        .list(
            &docs,
            &[
                "--manifest",
                ".",
                "--establish",
                "grpc.health.v1.Health/Check",
            ],
        )
        .expect(2)
        .says("error[establish-unsuitable]");
    let found = folder
        .run(&["inspect", "--manifest", ".", "--json"])
        .expect(0)
        .json();
    assert_eq!(found["offered"], "1");
    assert_eq!(
        found["manifest"],
        json!({"file": "./manifest.yaml", "policy": "allow-requested", "granted": 4, "refused": 0, "sandbox": "off"})
    );
}

#[test]
fn the_rust_demo_works_within_its_grants() {
    let Some(program) = rust_example("hostdemo") else {
        return;
    };
    let capabilities = "  filesystem: [{path: \"${data_dir}\", permissions: [read, write, list, create], recursive: true}]\n  \
                        environment: {read: [LISTED]}\n";
    let folder = Folder::lister(&program, capabilities);
    let call = |method: &str, data: &Value| {
        let (method, data) = (format!("hostdemo.v1.HostDemo/{method}"), data.to_string());
        let establish = "hostdemo.v1.HostDemo/EstablishHostServices";
        folder.run(&[
            "call",
            "--manifest",
            ".",
            "--data-dir",
            "../data",
            "--establish",
            establish,
            "--method",
            &method,
            "--data",
            &data,
            "--audit",
        ])
    };
    call("GetEnvDemo", &json!({"key": "LISTED"}))
        .expect(0)
        .says("allowed environment.GetEnv");
    call("GetEnvDemo", &json!({"key": "OTHER"}))
        .expect(0)
        .says("refused environment.GetEnv");
    let data = folder
        .0
        .path()
        .canonicalize()
        .expect("it is there")
        .join("data");
    let inside = data.join("made").display().to_string();
    call(
        "CreateDirFileDemo",
        &json!({"dir_to_create": inside, "file_to_create": "f"}),
    )
    .expect(0)
    .says("allowed filesystem.WriteFile");
    assert!(Path::new(&inside).join("f").is_file());
    let outside = folder.plugin().join("made").display().to_string();
    call(
        "CreateDirFileDemo",
        &json!({"dir_to_create": outside, "file_to_create": "f"}),
    )
    .expect(0)
    .says("refused filesystem.");
    assert!(!Path::new(&outside).exists());
}

#[test]
fn the_go_lister_lists_what_its_manifest_was_granted() {
    if let Some(program) = go_peer("lister") {
        lister(&program, &[], &["- a.txt", "- b.txt"], 1);
    }
}

/// It describes nothing; its contract is published.
#[test]
fn the_python_lister_lists_what_its_manifest_was_granted() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/lister.py");
    let Some(python) = std::env::var_os("OUTRIGGER_PYTHON") else {
        super::left_out("OUTRIGGER_PYTHON does not name a Python with grpcio");
        return;
    };
    if let Some(python) = found(Path::new(&python), "make a venv of examples/python") {
        let script = script.display().to_string();
        lister(&python, &[&script], &["- a.txt", "- b.txt"], 1);
    }
}

#[test]
fn a_plugin_without_a_broker_is_called_all_the_same() {
    let fake = Fake::new(|services| services, true);
    let folder = Folder::lister(&fake.program(), DOCS);
    let manifest = std::fs::read_to_string(folder.manifest()).expect("read");
    assert!(manifest.contains("sandbox: off"));
    let method = "grpc.health.v1.Health/Check";
    let args = ["call", "--manifest", ".", "--method", method];
    let ran = folder.run(&args).expect(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("{\"status\":\"SERVING\"}\n", "")
    );
    std::fs::write(folder.manifest(), manifest.replace("sandbox: off\n", "")).expect("written");
    folder
        .run(&args)
        .expect(0)
        .says("the plugin is not confined here (`sandbox: require`)");
}

#[test]
fn a_plugin_that_needs_no_host_is_called_all_the_same() {
    let Some(program) = rust_example("kv") else {
        return;
    };
    let folder = Folder::lister(&program, DOCS);
    let call = |more: &[&str]| {
        let mut args = vec![
            "call",
            "--cookie",
            "BASIC_PLUGIN=hello",
            "--manifest",
            ".",
            "--method",
            "proto.KV/Put",
            "--data",
            "{\"key\":\"k\",\"value\":\"aGVsbG8=\"}",
        ];
        args.extend(more);
        folder.run(&args)
    };
    assert_eq!(call(&[]).expect(0).stdout, "{}\n");
}

/// Numbers that are as good as random and the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % bound.max(1)
    }
}

const SOUND: &str = r##"schema: 1
plugin:
  name: indexer   # its name
  type: worker
  format: grpc
  entrypoint: bin/indexer
  version: 2.1.0
about:
  description: "Indexes dokumentë at night."
handshake:
  protocol_version: 3
  magic_cookie_key: INDEXER
  magic_cookie_value: 7c0a1f
security: {auto_mtls: true}
capabilities:
  filesystem:
    - {path: "${data_dir}", permissions: [read, write, list, create, delete], recursive: true}
    - {path: /etc/indexer.json, permissions: [read]}
  network:
    egress:  [{protocol: tcp, hosts: [api.example.com, 192.0.2.0/24], ports: [443, 8000-8010]}]
    ingress: [{protocol: tcp, ports: [9000], allowed_origins: [127.0.0.1]}]
  process:
    exec: [{command: /usr/bin/git, args: [pull]}, {command: /usr/bin/rsync, args: [-a, "*"]}]
    kill: [children]
  environment:
    read: [LANG, TZ]
    set: {MODE: night}
resources: {memory: 512MiB, cpu: 1.5}
sandbox: require
services: [filesystem, network, process, environment, log]
"##;

/// The sound manifest with one to three damages.
fn damaged(numbers: &mut Numbers) -> Vec<u8> {
    const BITS: [&str; 24] = [
        "\t",
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "#",
        "&a ",
        "*a",
        "!t ",
        "..",
        "~",
        "\r",
        "---\n",
        "\u{1b}",
        "\u{feff}",
        "日",
        "99999999999",
        "null",
        "? ",
        "| ",
    ];
    let mut text = SOUND.as_bytes().to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(text.len());
        let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let line = numbers.below(lines.len());
        match numbers.below(8) {
            0 => {
                text.remove(at);
            }
            1 => text[at] = u8::try_from(numbers.below(256)).unwrap_or(0),
            2 | 3 => {
                let bit = BITS[numbers.below(BITS.len())];
                text.splice(at..at, bit.bytes());
            }
            4 => text.truncate(at),
            5 => {
                lines.remove(line);
                text = lines.join(&b'\n');
            }
            6 => {
                let copy = lines[line].clone();
                lines.insert(numbers.below(lines.len()), copy);
                text = lines.join(&b'\n');
            }
            _ => {
                let other = numbers.below(lines.len());
                lines.swap(line, other);
                text = lines.join(&b'\n');
            }
        }
        if text.is_empty() {
            text.push(b'\n');
        }
    }
    text
}

#[test]
fn a_thousand_damaged_manifests_are_judged_at_places_that_exist() {
    let seed = 0x5eed_0f0f_1234_9876;
    let workers: Vec<_> = (0..4_u64)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut numbers = Numbers(seed + worker);
                let dir = tempfile::tempdir().expect("a directory");
                let path = dir.path().join("manifest.yaml");
                (0..250)
                    .filter(|_| judged(&damaged(&mut numbers), &path))
                    .count()
            })
        })
        .collect();
    let refused: usize = workers
        .into_iter()
        .map(|worker| worker.join().expect("no failure"))
        .sum();
    assert!(refused > 500, "only {refused} of 1000 were refused");
}

/// Checks one manifest; whether it was refused.
fn judged(text: &[u8], path: &Path) -> bool {
    std::fs::write(path, text).expect("written");
    let ran = run(&["check", "--json", &path.display().to_string()]);
    let shown = String::from_utf8_lossy(text).into_owned();
    assert!(!ran.stderr.contains("panicked"), "{shown}\n{ran:?}");
    assert!(
        !ran.stderr.chars().any(|c| c.is_control() && c != '\n'),
        "{shown}\n{ran:?}"
    );
    let object = ran.json();
    let problems = object["problems"].as_array().expect("a list");
    match ran.code {
        0 => assert!(
            problems.is_empty() && object["valid"] == true,
            "{shown}\n{ran:?}"
        ),
        1 => assert!(
            !problems.is_empty() && object["valid"] == false,
            "{shown}\n{ran:?}"
        ),
        code => panic!("status {code} for {shown}\n{ran:?}"),
    }
    let normal = shown.replace("\r\n", "\n");
    let lines: Vec<&str> = normal.split(['\n', '\r']).collect();
    let mut last = (0, 0);
    for problem in problems {
        let number = |key: &str| usize::try_from(problem[key].as_u64().expect("a number"));
        let (line, column) = (
            number("line").expect("small"),
            number("column").expect("small"),
        );
        let there = line >= 1
            && column >= 1
            && lines
                .get(line - 1)
                .is_some_and(|text| column <= text.chars().count() + 1);
        assert!(there, "{line}:{column} is not in {shown}\n{ran:?}");
        assert!((line, column) >= last, "not in order: {ran:?}");
        last = (line, column);
        let code = problem["code"].as_str().expect("a code");
        assert!(
            PROBLEMS_PAGE.contains(&format!("| `{code}` |")),
            "{code} has no entry"
        );
    }
    ran.code != 0
}

/// What the codes of a manifest's problems mean.
const PROBLEMS_PAGE: &str = include_str!("../../docs/errors.md");
const COMMAND_PAGE: &str = include_str!("../../docs/command.md");

#[test]
fn every_code_of_the_command_is_documented_with_its_exit_code() {
    let table = table_of_codes();
    let own = source_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut found = 0;
    for (call, exit) in [
        ("Failure::usage(", "2"),
        ("Failure::new(Exit::Failed,", "1"),
        ("Failure::new(Exit::Usage,", "2"),
        ("Failure::new(Exit::NotStarted,", "3"),
        ("Failure::new(Exit::Internal,", "4"),
    ] {
        for (at, _) in own.match_indices(call) {
            let Some(code) = own[at + call.len()..].strip_prefix('"') else {
                continue;
            };
            let code = code.split('"').next().expect("a text");
            let exits = table
                .get(code)
                .unwrap_or_else(|| panic!("{code} has no entry"));
            assert!(exits.contains(exit), "{code} ends with {exit}, not {exits}");
            found += 1;
        }
    }
    assert!(found > 40, "only {found}");
}

#[test]
fn every_documented_code_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources: String = std::fs::read_dir(crates)
        .expect("the crates")
        .map(|entry| source_of(&entry.expect("an entry").path().join("src")))
        .collect();
    for code in table_of_codes().keys() {
        assert!(sources.contains(&format!("\"{code}\"")), "{code}");
    }
}

/// The codes of the page, and what it says of the exit code of each.
fn table_of_codes() -> BTreeMap<&'static str, &'static str> {
    let (_, table) = COMMAND_PAGE
        .split_once("\n| code | exit |")
        .expect("the table");
    let rows = table.lines().take_while(|line| !line.is_empty());
    let mut codes = BTreeMap::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let (Some(names), Some(exits)) = (cells.next(), cells.next()) else {
            continue;
        };
        for name in names.split('`').skip(1).step_by(2) {
            // Names of types have capitals.
            if name.contains('-') {
                codes.insert(name, exits);
            }
        }
    }
    assert!(codes.len() > 50, "{codes:?}");
    codes
}

/// What is in the files of a folder and those in it, without white space.
fn source_of(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => text += &source_of(&path),
            false if path.extension().is_none_or(|end| end != "rs") => {}
            false => {
                let source = std::fs::read_to_string(path).expect("text");
                let source = source.split("#[cfg(test)]\nmod").next().unwrap_or_default();
                text.extend(source.chars().filter(|c| !c.is_whitespace()));
            }
        }
    }
    text
}
