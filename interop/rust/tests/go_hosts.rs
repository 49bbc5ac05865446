//! Our plugins as a host sees them before any library is in between, and under
//! a host on the Go library. Ways of connecting and the services are paired by
//! `cargo xtask interop`.
#![allow(clippy::disallowed_methods)] // These plugins are looked at without a host of ours.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use outrigger_host::{
    Address, AppProtocolVersion, Attach, Network, PluginSet, Reattach, Transport,
};
use outrigger_interop::Test;
use outrigger_interop::proto::grpctest::TestRequest;
use support::{example, files_beneath, go_peer, runs, signal, wait_until};

/// What a directory must hold in the end.
const NOTHING: [PathBuf; 0] = [];
const PEER: &str = env!("CARGO_BIN_EXE_peer");
const NETRPC_PEER: &str = env!("CARGO_BIN_EXE_netrpc-peer");

/// The peer program, or an early end of the test.
macro_rules! go {
    ($name:literal) => {
        match go_peer($name) {
            Some(program) => program,
            None => return,
        }
    };
}

/// A plugin without a host, in a directory of its own.
struct Bare {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    line: String,
    dir: tempfile::TempDir,
}

impl Bare {
    fn start(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(program)
            .args(arguments)
            .env("TMPDIR", dir.path())
            .env("BASIC_PLUGIN", "hello")
            .env("TEST_MAGIC_COOKIE", "test")
            .envs(environment.iter().copied())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        Self {
            child,
            stdout,
            line,
            dir,
        }
    }

    fn fields(&self) -> Vec<&str> {
        assert!(self.line.ends_with('\n'), "{:?}", self.line);
        self.line.trim_end_matches('\n').split('|').collect()
    }

    fn reattach(&self) -> Attach {
        let reattach = Reattach {
            transport: Transport::Grpc,
            version: AppProtocolVersion(1),
            address: Address {
                network: Network::Unix,
                text: self.fields()[3].into(),
            },
            pid: Some(self.child.id()),
            started: None,
            test: false,
        };
        Attach::new(reattach).offer(1, PluginSet::new().with::<Test>("test"))
    }

    /// Everything that it printed after its handshake, once it has ended.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.stdout
            .read_to_string(&mut rest)
            .expect("the end of stdout");
        self.child.wait().expect("its status");
        rest
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output_of(program: impl AsRef<std::ffi::OsStr>, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command
        .env_remove("BASIC_PLUGIN")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command.output().expect("it runs")
}

/// Runs the Go host; returns whether all went well, and its report.
fn go_host(host: &Path, flags: &[&str], program: &[&str]) -> (bool, serde_json::Value) {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(host)
        .args(flags)
        .arg("--")
        .args(program)
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("the host runs");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(files_beneath(dir.path()), NOTHING, "{report}");
    (output.status.success(), report)
}

#[test]
fn a_plugin_without_its_cookie_says_so_on_stderr_and_exits_with_1() {
    for environment in [&[][..], &[("BASIC_PLUGIN", "other")]] {
        let output = output_of(example("kv"), environment);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("plugin"), "{text}");
    }
    let output = output_of(go!("kv"), &[]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "the Go library does the same"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_plugin_with_an_empty_cookie_says_something_else_and_exits_with_1() {
    let output = Command::new(PEER)
        .arg("--no-cookie")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let other = output_of(example("kv"), &[]);
    assert_ne!(output.stderr, other.stderr);
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_plugin_takes_the_highest_common_version_and_tolerates_any_list() {
    // It has versions 1 and 3.
    for (offered, taken) in [
        (Some("1"), "1"),
        (Some("3"), "3"),
        (Some("1,3"), "3"),
        (Some("3,2,1"), "3"),
        (Some("2,1"), "1"),
        (Some("x,, 3,1"), "1"),
        (Some("7,8"), "1"),
        (Some(""), "1"),
        (None, "1"),
    ] {
        let variable = offered.map(|offered| ("PLUGIN_PROTOCOL_VERSIONS", offered));
        let plugin = Bare::start(&example("kv"), &[], variable.as_slice());
        assert_eq!(plugin.fields()[1], taken, "{offered:?}: {}", plugin.line);
    }
}

#[test]
fn a_plugin_prints_six_fields_and_a_seventh_only_to_hosts_that_know_it() {
    let plugin = Bare::start(&example("kv"), &[], &[]);
    let fields = plugin.fields();
    assert_eq!(
        (fields[0], fields[2], fields[4], fields[5]),
        ("1", "unix", "grpc", "")
    );
    assert_eq!(fields.len(), 6, "{fields:?}");
    let socket = Path::new(fields[3]);
    assert!(
        std::fs::metadata(socket)
            .expect("it listens")
            .file_type()
            .is_socket()
    );
    for (value, count) in [("true", 7), ("false", 7), ("rubbish", 7), ("", 6)] {
        let plugin = Bare::start(&example("kv"), &[], &[("PLUGIN_MULTIPLEX_GRPC", value)]);
        let fields = plugin.fields();
        assert_eq!(fields.len(), count, "{value:?}: {fields:?}");
        assert!(count == 6 || fields[6] == "true", "{value:?}: {fields:?}");
    }
}

#[test]
fn a_plugin_announces_the_protocol_that_its_version_has() {
    for (program, arguments, offered, taken, protocol) in [
        (NETRPC_PEER, &[][..], "1", "1", "netrpc"),
        (&example("kv"), &[], "1", "1", "grpc"),
        (&example("kv"), &["netrpc"], "1", "1", "netrpc"),
        (&example("kv"), &["mixed"], "2,3", "3", "grpc"),
        (&example("kv"), &["mixed"], "2", "2", "netrpc"),
        (&example("kv"), &["mixed"], "7", "2", "netrpc"),
    ] {
        let environment = [
            ("PLUGIN_PROTOCOL_VERSIONS", offered),
            // Multiplexing is for gRPC; who knows of it gets its field.
            ("PLUGIN_MULTIPLEX_GRPC", "true"),
        ];
        let plugin = Bare::start(program, arguments, &environment);
        let fields = plugin.fields();
        assert_eq!((fields[1], fields[4]), (taken, protocol), "{arguments:?}");
        assert_eq!(fields.len(), 7, "{fields:?}");
    }
}

#[tokio::test]
async fn a_plugin_prints_its_handshake_and_nothing_else_on_stdout() {
    let bare = Bare::start(PEER, &["--print", "5000"], &[]);
    let plugin = bare.reattach().connect().await.expect("joined");
    plugin.ping().await.expect("well");
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
    assert_eq!(bare.rest(), "");
}

#[test]
fn a_plugin_with_its_own_certificates_ignores_the_hosts() {
    let helper = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(helper)
        .arg("make-tls")
        .arg(dir.path())
        .status();
    assert!(made.expect("it runs").success());
    let certificate = std::fs::read_to_string(dir.path().join("ca.pem")).expect("text");
    let dir = dir.path().display().to_string();
    let environment = [
        ("PLUGIN_CLIENT_CERT", certificate.as_str()),
        ("OUTRIGGER_TLS_DIR", &dir),
    ];
    assert_eq!(Bare::start(PEER, &["--tls"], &environment).fields()[5], "");
    assert!(Bare::start(PEER, &[], &environment).fields()[5].len() > 50);
}

#[test]
fn a_plugin_puts_its_sockets_where_its_host_says_and_gives_them_to_the_group() {
    let host = go!("host");
    let dir = tempfile::tempdir().expect("a directory");
    let own = std::fs::metadata(dir.path()).expect("facts");
    // Another group than the own one can be given away by root only.
    let gid = if own.uid() == 0 { 1 } else { own.gid() };
    let sockets = dir.path().join("sockets");
    std::fs::create_dir(&sockets).expect("made");
    let mut host = Command::new(host)
        .args([
            "--service",
            "grpctest",
            "--scenario",
            "bidirectional",
            "--hold",
        ])
        .args(["--socket-group", &gid.to_string(), "--socket-dir"])
        .arg(&sockets)
        .arg("--")
        .arg(PEER)
        .env("TMPDIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host runs");
    let mut stdout = BufReader::new(host.stdout.take().expect("a pipe"));
    let mut ready = String::new();
    stdout.read_line(&mut ready).expect("a line");
    assert!(ready.starts_with("ready"), "{ready}");
    let files = files_beneath(&sockets);
    assert_eq!(
        files.len(),
        2,
        "the main socket and a brokered one: {files:?}"
    );
    for file in &files {
        let facts = std::fs::metadata(file).expect("facts");
        assert!(facts.file_type().is_socket(), "{}", file.display());
        assert_eq!(facts.gid(), gid, "{}", file.display());
        assert_eq!(
            facts.permissions().mode() & 0o777,
            0o660,
            "{}",
            file.display()
        );
    }
    drop(host.stdin.take());
    let mut report = String::new();
    stdout.read_to_string(&mut report).expect("a report");
    assert!(host.wait().expect("its status").success(), "{report}");
    assert_eq!(files_beneath(dir.path()), NOTHING);
}

#[test]
fn a_plugin_that_cannot_listen_exits_with_0_and_no_handshake() {
    for environment in [
        [
            ("BASIC_PLUGIN", "hello"),
            ("PLUGIN_UNIX_SOCKET_DIR", "/nonexistent/directory"),
        ],
        [
            ("BASIC_PLUGIN", "hello"),
            ("PLUGIN_UNIX_SOCKET_GROUP", "no-such-group"),
        ],
    ] {
        let output = output_of(example("kv"), &environment);
        assert_eq!(output.status.code(), Some(0), "{environment:?}");
        assert!(output.stdout.is_empty());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            log.contains(r#""@level":"error""#) && log.contains("plugin init error"),
            "{log}"
        );
    }
}

#[test]
fn a_plugin_on_tcp_keeps_to_the_port_range() {
    let range = [("PLUGIN_MIN_PORT", "22000"), ("PLUGIN_MAX_PORT", "22999")];
    let (first, second) = (
        Bare::start(&example("kv"), &["--tcp"], &range),
        Bare::start(&example("kv"), &["--tcp"], &range),
    );
    let port = |plugin: &Bare| {
        let fields = plugin.fields();
        assert_eq!(fields[2], "tcp");
        fields[3]
            .strip_prefix("127.0.0.1:")
            .expect("the loopback")
            .parse::<u16>()
            .expect("a port")
    };
    assert!((22000..=22999).contains(&port(&first)));
    assert!((22000..=22999).contains(&port(&second)));
    assert_ne!(port(&first), port(&second));
    let reversed = [
        ("BASIC_PLUGIN", "hello"),
        ("PLUGIN_MIN_PORT", "9"),
        ("PLUGIN_MAX_PORT", "8"),
    ];
    let output = Command::new(example("kv"))
        .arg("--tcp")
        .envs(reversed)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_plugin_outlives_silent_connections_and_serves_one_host_after_the_other() {
    let bare = Bare::start(PEER, &[], &[]);
    for _ in 0..10 {
        drop(UnixStream::connect(bare.fields()[3]).expect("connected"));
    }
    for input in 0..3 {
        let plugin = bare.reattach().connect().await.expect("joined");
        let mut client = plugin.dispense::<Test>("test").await.expect("a client");
        let reply = client.double(TestRequest { input }).await.expect("a reply");
        assert_eq!(reply.into_inner().output, input * 2);
        // Leaving ends the connection and not the plugin.
    }
    let plugin = bare.reattach().connect().await.expect("joined");
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
    assert_eq!(files_beneath(bare.dir.path()), NOTHING);
}

#[test]
fn a_plugin_ignores_interrupts_and_dies_of_a_termination() {
    let mut plugin = Bare::start(&example("kv"), &[], &[]);
    // From the handshake on.
    signal(plugin.child.id(), "INT");
    let socket = PathBuf::from(plugin.fields()[3]);
    wait_until("an answer", || answers(&socket));
    for _ in 0..5 {
        signal(plugin.child.id(), "INT");
        assert!(answers(&socket), "an interrupt ended it");
    }
    signal(plugin.child.id(), "TERM");
    let status = plugin.child.wait().expect("its status");
    assert_eq!(status.signal(), Some(15));
}

/// Whether the plugin greets an HTTP/2 client.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else {
        return false;
    };
    let mut greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // An empty SETTINGS frame.
    greeting.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut head = [0; 9];
    stream
        .write_all(&greeting)
        .and_then(|()| stream.read_exact(&mut head))
        .is_ok()
        && head[3] == 4
}

#[test]
fn a_plugin_runs_what_comes_after_serving() {
    let host = go!("host");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cleaned");
    let path = file.display().to_string();
    let (well, report) = go_host(
        &host,
        &["--service", "grpctest", "--forbid-leftovers"],
        &[PEER, "--cleanup", &path],
    );
    assert!(well, "{report}");
    assert_eq!(report["forced"], false);
    assert!(file.exists());
}

#[test]
fn a_multiplexed_plugin_ends_with_its_host() {
    let host = go!("host");
    let dir = tempfile::tempdir().expect("a directory");
    let mut host = Command::new(host)
        .args(["--service", "grpctest", "--mux", "--hold", "--", PEER])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host runs");
    let mut ready = String::new();
    BufReader::new(host.stdout.take().expect("a pipe"))
        .read_line(&mut ready)
        .expect("a line");
    let pid: u32 = ready
        .trim()
        .strip_prefix("ready ")
        .expect("ready")
        .parse()
        .expect("a pid");
    assert!(runs(pid));
    host.kill().expect("killed");
    host.wait().expect("its status");
    wait_until("the plugin's end", || !runs(pid));
    let sockets = files_beneath(dir.path())
        .into_iter()
        .filter(|file| std::fs::metadata(file).is_ok_and(|facts| facts.file_type().is_socket()));
    assert_eq!(sockets.count(), 0);
}

/// The multiplexed listener takes one connection; its socket goes with it.
#[test]
fn a_multiplexed_plugin_takes_exactly_one_connection() {
    let plugin = Bare::start(&example("kv"), &[], &[("PLUGIN_MULTIPLEX_GRPC", "true")]);
    let socket = PathBuf::from(plugin.fields()[3]);
    let first = UnixStream::connect(&socket).expect("connected");
    wait_until("the listener's end", || {
        UnixStream::connect(&socket).is_err()
    });
    assert!(!socket.exists());
    let pid = plugin.child.id();
    assert!(runs(pid));
    drop(first);
    wait_until("the plugin's end", || !runs(pid));
}

/// A plugin in test mode, and where it says that it is.
struct InTestMode {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    at: String,
    dir: tempfile::TempDir,
}

impl InTestMode {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(program)
            .arg("--test-mode")
            .args(arguments)
            // No cookie: test mode does not ask for one.
            .env_remove("TEST_MAGIC_COOKIE")
            .env_remove("BASIC_PLUGIN")
            .env("TMPDIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut at = String::new();
        stdout.read_line(&mut at).expect("a line");
        Self {
            child,
            stdout,
            at: at.trim().to_owned(),
            dir,
        }
    }
}

#[test]
fn a_plugin_in_test_mode_survives_the_kill_of_a_go_host_and_ends_when_cancelled() {
    survives_kills(&go!("host"), PEER, "grpctest", "double,stream");
}

#[test]
fn a_plugin_over_net_rpc_in_test_mode_survives_the_kill_of_a_go_host() {
    survives_kills(&go!("host"), NETRPC_PEER, "callbacks", "callbacks");
}

fn survives_kills(host: &Path, program: &str, service: &str, scenarios: &str) {
    let mut plugin = InTestMode::start(program, &[]);
    assert!(
        plugin.at.contains(r#""test":true"#) && plugin.at.contains(r#""version":1"#),
        "{}",
        plugin.at
    );
    for _ in 0..2 {
        let flags = [
            "--service",
            service,
            "--scenario",
            scenarios,
            "--attach",
            &plugin.at,
        ];
        let (well, report) = go_host(host, &flags, &["unused"]);
        assert!(well, "{report}");
        let killed = report["steps"]
            .as_array()
            .expect("steps")
            .last()
            .expect("a step")
            .clone();
        assert!(
            killed["detail"]
                .as_str()
                .expect("text")
                .contains("still serving"),
            "{killed}"
        );
    }
    drop(plugin.child.stdin.take());
    let mut rest = String::new();
    plugin
        .stdout
        .read_to_string(&mut rest)
        .expect("the end of stdout");
    assert_eq!(rest, "stopped\n");
    assert!(plugin.child.wait().expect("its status").success());
    assert_eq!(files_beneath(plugin.dir.path()), NOTHING);
}

#[test]
fn a_plugin_in_test_mode_leaves_stdout_and_stderr_alone() {
    let mut plugin = InTestMode::start(PEER, &["--print", "10"]);
    let path = serde_json::from_str::<serde_json::Value>(&plugin.at).expect("an object");
    let path = PathBuf::from(path["address"].as_str().expect("a path"));
    wait_until("an answer", || answers(&path));
    drop(plugin.child.stdin.take());
    let mut rest = String::new();
    plugin
        .stdout
        .read_to_string(&mut rest)
        .expect("the end of stdout");
    assert!(
        rest.contains("..........") && rest.ends_with("stopped\n"),
        "{rest:?}"
    );
    assert!(plugin.child.wait().expect("its status").success());
}

#[test]
fn a_program_with_several_plugins_takes_one_name_as_its_argument() {
    let run = |arguments: &[&str]| {
        Command::new(PEER)
            .arg0("several")
            .args(arguments)
            .env_clear()
            .output()
            .expect("it runs")
    };
    for arguments in [&[][..], &["third"], &["first", "second"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("second"), "{text}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(PEER)
        .arg0("several")
        .arg("second")
        .env("TEST_MAGIC_COOKIE", "test")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert!(line.starts_with("1|1|unix|"), "{line}");
    child.kill().expect("killed");
    child.wait().expect("its status");
}

#[test]
fn a_plugin_refuses_a_connection_without_the_certificate_that_it_was_told() {
    let host = go!("host");
    let helper = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(helper)
        .arg("make-tls")
        .arg(dir.path())
        .status();
    assert!(made.expect("it runs").success());
    let certificate = std::fs::read_to_string(dir.path().join("ca.pem")).expect("text");
    let tls = dir.path().display().to_string();
    for (program, protocol, service, scenario) in [
        (PEER, "grpc", "grpctest", "double"),
        (NETRPC_PEER, "netrpc", "greeter", "greeter"),
    ] {
        let plugin = Bare::start(program, &[], &[("PLUGIN_CLIENT_CERT", &certificate)]);
        let (pid, address) = (plugin.child.id(), plugin.fields()[3]);
        let at = format!(
            r#"{{"protocol":"{protocol}","version":1,"network":"unix","address":"{address}","pid":{pid},"test":true}}"#
        );
        // Without TLS, and with a certificate that is not the one.
        for flags in [&[][..], &["--tls-dir", &tls]] {
            let attach = [
                "--service",
                service,
                "--scenario",
                scenario,
                "--attach",
                &at,
            ];
            let (well, report) = go_host(&host, &[&attach, flags].concat(), &["unused"]);
            assert!(!well, "{report}");
        }
        assert!(runs(pid));
    }
}
