//! Several calls on one plugin: flags, scripts, the shell, plugins that run already.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{EXAMPLE_COOKIE, Fake, Ran, command, go_peer, run, run_with_input, rust_example};

const PUT: &str = "proto.KV/Put";
const GET: &str = "proto.KV/Get";

/// Runs the command in a folder of its own, where the examples keep their values.
fn run_in(folder: &tempfile::TempDir, args: &[&str], input: &str) -> Ran {
    let mut child = command(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that is done with its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// The programs of the key-value example that are built: ours and Go's.
fn stores() -> Vec<String> {
    [rust_example("kv"), go_peer("kv")]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn calls_are_made_in_order_on_one_plugin_each_with_the_data_after_it() {
    let fake = Fake::new(|services| services, true);
    let method = "grpc.health.v1.Health/Check";
    let ran = run(&[
        "call",
        "--method",
        method,
        "--data",
        "{\"service\":\"plugin\"}",
        "--method",
        "grpc.health.v1.Health/List",
        "--method",
        method,
        "--",
        &fake.program(),
    ])
    .expect(0);
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (lines.len(), &lines[0]),
        (3, &json!({"status": "SERVING"})),
        "{ran:?}"
    );
    assert!(lines[1]["statuses"]["plugin"].is_object(), "{ran:?}");
    ran.says("grpc.health.v1.Health/Check\ngrpc.health.v1.Health/List\n");
}

#[test]
fn what_one_call_wrote_the_next_one_reads_and_bytes_are_text_beside_the_reply() {
    for program in stores() {
        let folder = tempfile::tempdir().expect("a directory");
        let put = "{\"key\":\"k\",\"value\":{\"@text\":\"h\u{fc} \\u001b\"}}";
        let get = "{\"key\":\"k\"}";
        let file = folder.path().join("value");
        std::fs::write(&file, "from a file").expect("written");
        let other = format!(
            "{{\"key\":\"f\",\"value\":{{\"@file\":\"{}\"}}}}",
            file.display()
        );
        let args = [
            "call",
            "--cookie",
            EXAMPLE_COOKIE,
            "--method",
            PUT,
            "--data",
            put,
            "--method",
            GET,
            "--data",
            get,
            "--method",
            PUT,
            "--data",
            &other,
            "--method",
            GET,
            "--data",
            "{\"key\":\"f\"}",
            "--",
            &program,
        ];
        let ran = run_in(&folder, &args, "").expect(0);
        assert_eq!(
            ran.stdout,
            "{}\n{\"value\":\"aMO8IBs=\"}\n{}\n{\"value\":\"ZnJvbSBhIGZpbGU=\"}\n"
        );
        // A control character makes it no text that is shown.
        assert!(!ran.stderr.contains("h\u{fc}"), "{ran:?}");
        ran.says("  value is the text \"from a file\"\n");
    }
}

#[test]
fn a_call_that_fails_is_the_last_unless_they_keep_going() {
    for program in stores() {
        let folder = tempfile::tempdir().expect("a directory");
        let calls = [
            "--method",
            GET,
            "--data",
            "{\"key\":\"absent\"}",
            "--method",
            PUT,
            "--data",
            "{\"key\":\"k\",\"value\":\"YQ==\"}",
            "--method",
            GET,
            "--data",
            "{\"key\":\"k\"}",
            "--",
            &program,
        ];
        let with = |more: &[&'static str]| {
            let head = ["call", "--cookie", EXAMPLE_COOKIE];
            let args: Vec<&str> = head.iter().chain(more).chain(&calls).copied().collect();
            run_in(&folder, &args, "")
        };
        let ran = with(&[]).expect(1).says("error[rpc-failed]");
        assert_eq!(ran.stdout, "");
        ran.says("note: 2 further calls were not made (`--keep-going`)");
        let ran = with(&["--keep-going"]).expect(1).says("error[rpc-failed]");
        assert_eq!(ran.stdout, "{}\n{\"value\":\"YQ==\"}\n");
        let object = with(&["--keep-going", "--json"]).expect(1).json();
        let calls = object["calls"].as_array().expect("a list");
        let status = |at: usize| &calls[at]["status"]["name"];
        assert_eq!(calls.len(), 3);
        assert_eq!(
            (status(0), status(1), status(2)),
            (&json!("NOT_FOUND"), &json!("OK"), &json!("OK"))
        );
        assert_eq!(calls[0]["error"]["code"], "rpc-failed");
        assert_eq!(
            (&calls[2]["method"], &calls[2]["replies"]),
            (&json!(GET), &json!([{"value": "YQ=="}]))
        );
        assert_eq!(object["error"], json!(null));
        let object = with(&["--json"]).expect(1).json();
        assert_eq!(object["calls"].as_array().expect("a list").len(), 1);
    }
}

#[test]
fn a_wrong_name_is_found_before_the_first_call_is_made() {
    let fake = Fake::new(|services| services, true);
    let ran = run(&[
        "call",
        "--json",
        "--method",
        "grpc.health.v1.Health/Check",
        "--method",
        "grpc.health.v1.Health/Chek",
        "--",
        &fake.program(),
    ])
    .expect(2);
    let object = ran.json();
    assert_eq!(
        (&object["calls"], &object["error"]["code"]),
        (&json!([]), &json!("unknown-method"))
    );
}

#[test]
fn a_script_is_read_as_a_whole_and_its_calls_are_made_in_order() {
    let folder = tempfile::tempdir().expect("a directory");
    let script = folder.path().join("script");
    let path = script.display().to_string();
    std::fs::write(
        &script,
        "# one\nproto.KV/Get {}\nproto.KV/Get {\"key\": }\n",
    )
    .expect("written");
    run(&["call", "--script", &path, "--", "/nonexistent/plugin"])
        .expect(2)
        .says("error[script-invalid]: line 3 is no call: its data is no JSON");
    run(&["call", "--script", "/nonexistent/script", "--", "x"])
        .expect(2)
        .says("error[script-unreadable]");
    let text = "# put, then get\nproto.KV/Put {\n  \"key\": \"k\",\n\n  \"value\": {\"@text\": \"v\"}\n}\n\nproto.KV/Get {\"key\": \"k\"}\n";
    std::fs::write(&script, text).expect("written");
    for program in stores() {
        for (from, input) in [(path.as_str(), ""), ("-", text)] {
            let args = [
                "call",
                "--cookie",
                EXAMPLE_COOKIE,
                "--script",
                from,
                "--",
                &program,
            ];
            let ran = run_in(&folder, &args, input).expect(0);
            assert_eq!(ran.stdout, "{}\n{\"value\":\"dg==\"}\n");
        }
    }
}

#[test]
fn a_script_on_stdin_is_done_line_by_line() {
    let Some(program) = rust_example("kv") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let mut child = command(&[
        "call",
        "--cookie",
        EXAMPLE_COOKIE,
        "--script",
        "-",
        "--",
        &program,
    ])
    .current_dir(&folder)
    .stdin(Stdio::piped())
    .spawn()
    .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for value in ["YQ==", "Yg=="] {
        writeln!(stdin, "{PUT} {{\"key\":\"k\",\"value\":\"{value}\"}}").expect("written");
        assert_eq!(lines.next().expect("a line").expect("text"), "{}");
        writeln!(stdin, "{GET} {{\"key\":\"k\"}}").expect("written");
        let reply = lines.next().expect("a line").expect("text");
        assert_eq!(reply, format!("{{\"value\":\"{value}\"}}"));
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_plugin_that_ends_ends_the_calls_too() {
    let Some(helper) = go_peer("helper") else {
        return;
    };
    let panic = [
        "--method",
        "grpctest.Test/Panic",
        "--data",
        "{\"message\":\"boom\"}",
    ];
    let head = ["call", "--cookie", "TEST_MAGIC_COOKIE=test", "--keep-going"];
    let args: Vec<&str> = head
        .iter()
        .chain(&panic)
        .chain(&panic)
        .copied()
        .chain(["--", &helper, "test-grpc"])
        .collect();
    let ran = run(&args)
        .expect(1)
        .says("error[rpc-failed]: `grpctest.Test/Panic` failed with UNAVAILABLE (14): the plugin exited with status 2\n")
        .says("note: stderr: panic: boom\n")
        .says("note: stderr: in outrigger.dev/interop/internal/testsvc.(*grpcServer).Panic at ")
        .says("note: 1 further call was not made: the plugin is gone\n");
    assert!(!ran.stderr.contains("google.golang.org"), "{ran:?}");
}

#[test]
fn several_net_rpc_calls_are_made_on_one_object() {
    let fake = Fake::net_rpc();
    let program = fake.program();
    let ran = run(&[
        "call",
        "--plugin",
        "types",
        "--method",
        "Plugin.Echo",
        "--type",
        "[]byte",
        "--data",
        "{\"@text\":\"v\"}",
        "--method",
        "Plugin.Add",
        "--type",
        "struct{A, B int64}",
        "--data",
        "{\"A\":1,\"B\":2}",
        "--method",
        "Plugin.Echo",
        "--",
        &program,
    ])
    .expect(0)
    .says("Plugin.Echo\n  the reply is the text \"v\"\nPlugin.Add\nPlugin.Echo\n");
    assert_eq!(ran.stdout, "\"dg==\"\n3\nnull\n");
    let Some(program) = go_peer("kv") else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let put = "{\"key\":\"k\",\"value\":{\"@type\":\"[]byte\",\"value\":{\"@text\":\"v\"}}}";
    let shell = [
        "shell",
        "--cookie",
        EXAMPLE_COOKIE,
        "--app-version",
        "2",
        "--plugin",
        "kv",
        "--",
        &program,
        "negotiated",
    ];
    let lines = format!("Plugin.Put {put}\nPlugin.Get \"k\"\n");
    run_in(&folder, &shell, &lines)
        .expect(0)
        .says("the reply is the text \"v");
}

#[test]
fn the_shell_without_a_terminal_reads_lines_and_tells_of_the_first_failure() {
    for program in stores() {
        let folder = tempfile::tempdir().expect("a directory");
        let shell = |more: &[&'static str], input: &str| {
            let head = ["shell", "--cookie", EXAMPLE_COOKIE];
            let tail = ["--", &program];
            let args: Vec<&str> = head.iter().chain(more).copied().chain(tail).collect();
            run_in(&folder, &args, input)
        };
        let ran = shell(
            &[],
            "methods\nproto.KV/Put {\"key\": \"k\",\n  \"value\": \"dg==\"}\nhelp proto.KV/Put\nproto.KV/Get {\"key\": \"k\"}\nexit\nnonsense\n",
        )
        .expect(0);
        assert!(
            ran.stdout.contains("\nproto.KV/Get\nproto.KV/Put\n"),
            "{ran:?}"
        );
        assert!(
            ran.stdout
                .contains("  request proto.PutRequest\n    key: string\n    value: bytes\n"),
            "{ran:?}"
        );
        assert!(ran.stdout.ends_with("{\"value\":\"dg==\"}\n"), "{ran:?}");
        let ran = shell(
            &[],
            "nonsense\nproto.KV/Get {\"key\":\"absent\"}\nproto.KV/Get {\"key\":\"k\"}\nproto.KV/Get {",
        );
        let ran = ran
            .expect(2)
            .says("error[script-invalid]: line 1 is no call")
            .says("error[rpc-failed]");
        assert_eq!(ran.stdout, "{\"value\":\"dg==\"}\n");
        ran.says("line 4 is no call: its JSON is not complete");
        let ran = shell(&["--json"], "proto.KV/Get {\"key\":\"k\"}\nnonsense\n").expect(2);
        let lines: Vec<Value> = ran
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["replies"], json!([{"value": "dg=="}]));
        assert_eq!(lines[1]["error"]["code"], "script-invalid");
        assert_eq!((lines.len(), &lines[2]), (3, &json!({"end": true})));
    }
}

/// A terminal with the shell in it.
struct Terminal {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    seen: String,
}

impl Terminal {
    fn open(folder: &tempfile::TempDir, shell: &str) -> Option<Self> {
        let mut script = Command::new("script");
        // `script` has the shell of `$SHELL` run this, and one that waits for its
        // command takes an interrupt of the terminal for its own, too.
        let command = format!("exec {shell}");
        script
            .args(["-qec", &command, "/dev/null"])
            .current_dir(folder)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = match script.spawn() {
            Ok(child) => child,
            Err(error) => {
                super::left_out(&format!("`script` gives no terminal: {error}"));
                return None;
            }
        };
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self {
            child,
            output,
            seen: String::new(),
        })
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(keys.as_bytes()).expect("written");
        stdin.flush().expect("flushed");
    }

    /// Reads until `text` was shown since the last time.
    fn wait_for(&mut self, text: &str) {
        let mut byte = [0];
        while !self.seen.contains(text) {
            let read = self.output.read(&mut byte).expect("readable");
            assert!(read == 1, "no {text:?} in {:?}", self.seen);
            self.seen.push(char::from(byte[0]));
        }
        self.seen.clear();
    }

    /// The end of the shell, which must be a good one.
    fn ends_well(&mut self, program: impl std::fmt::Display) {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).expect("readable");
        let status = self.child.wait().expect("it ends");
        let rest = String::from_utf8_lossy(&rest);
        assert!(status.success(), "{program} ends with {status}: {rest}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_shell_on_a_terminal_completes_cancels_and_ends_with_the_plugin() {
    for program in stores() {
        let folder = tempfile::tempdir().expect("a directory");
        let shell = format!(
            "{} shell --cookie {EXAMPLE_COOKIE} --history history -- {program}",
            env!("CARGO_BIN_EXE_outrigger")
        );
        let Some(mut terminal) = Terminal::open(&folder, &shell) else {
            return;
        };
        terminal.wait_for("Ctrl-D ends");
        terminal.wait_for("outrigger> ");
        terminal.press("proto.KV/P\t {\"key\":\"k\",\"value\":{\"@text\":\"v\"}}\r");
        terminal.wait_for("proto.KV/Put");
        terminal.wait_for("\n{}");
        terminal.wait_for("outrigger> ");
        // Ctrl-C at the prompt forgets the line; in a call, it gives the call up.
        terminal.press("nonsense\u{3}");
        terminal.wait_for("outrigger> ");
        terminal.press("Watch\t {\"service\":\"plugin\"}\r");
        terminal.wait_for("SERVING");
        terminal.press("\u{3}");
        terminal.wait_for("was given up");
        terminal.wait_for("outrigger> ");
        terminal.press("proto.KV/Get {\"key\":\"k\"}\r");
        terminal.wait_for("{\"value\":\"dg==\"}");
        terminal.wait_for("outrigger> ");
        // The line before comes back with the arrow key.
        terminal.press("\u{1b}[A\r");
        terminal.wait_for("{\"value\":\"dg==\"}");
        terminal.wait_for("outrigger> ");
        terminal.press("\u{4}");
        terminal.ends_well(&program);
        let history = std::fs::read_to_string(folder.path().join("history")).expect("a history");
        assert!(
            history.contains("proto.KV/Get {\"key\":\"k\"}"),
            "{history}"
        );
    }
}

/// A plugin that was started by hand.
struct ByHand {
    child: Child,
    line: String,
}

impl ByHand {
    fn start(program: &str, folder: &tempfile::TempDir) -> Self {
        let mut child = Command::new(program)
            .env("BASIC_PLUGIN", "hello")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the plugin runs");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        Self { child, line }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What a plugin leaves that is killed.
        if let Some(socket) = self.line.split('|').nth(3) {
            let _ = std::fs::remove_file(socket);
        }
    }
}

#[test]
fn a_plugin_that_runs_already_is_joined_and_left_running() {
    for program in stores() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut plugin = ByHand::start(&program, &folder);
        let line = plugin.line.clone();
        let put = "{\"key\":\"k\",\"value\":\"dg==\"}";
        let ran = run(&["call", "--reattach", &line, "--method", PUT, "--data", put]).expect(0);
        assert_eq!(ran.stdout, "{}\n");
        let fields: Vec<&str> = line.split('|').collect();
        let configuration =
            json!({"own": {"Protocol": "grpc", "ProtocolVersion": 1, "Pid": plugin.child.id(),
            "Addr": {"Network": "unix", "String": fields[3]}}})
            .to_string();
        let shell = ["shell", "--reattach", &configuration];
        let ran = run_with_input(&shell, "proto.KV/Get {\"key\":\"k\"}\n").expect(0);
        assert_eq!(ran.stdout, "{\"value\":\"dg==\"}\n");
        let found = run(&["inspect", "--json", "--reattach", &configuration])
            .expect(0)
            .json();
        assert_eq!(
            (&found["end"]["how"], &found["pid"]),
            (&json!("left"), &json!(plugin.child.id()))
        );
        assert_eq!(found["start"]["spawn_ms"], json!(null));
        assert!(
            plugin.child.try_wait().expect("a child").is_none(),
            "it was ended"
        );
        plugin.child.kill().expect("killed");
        plugin.child.wait().expect("it ends");
        run(&["call", "--reattach", &line, "--method", GET])
            .expect(3)
            .says("error[process-not-found]");
    }
    run(&["inspect", "--reattach", "nonsense"]).expect(2);
    run(&["inspect", "--reattach", "1|1|unix|/tmp/p|grpc", "--mux"]).expect(2);
    run(&["inspect", "--reattach", "1|1|unix|/tmp/p|grpc", "--", "x"]).expect(2);
}
