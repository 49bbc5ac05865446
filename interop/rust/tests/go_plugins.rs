//! Our host with the Go library's plugins, one behaviour at a time. Ways of
//! connecting and the services are paired by `cargo xtask interop`.
#![allow(clippy::disallowed_methods)] // Plugins that no host of ours starts.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_examples::netrpc::KvStore;
use outrigger_examples::proto::counter::add_helper_server::{AddHelper, AddHelperServer};
use outrigger_examples::proto::counter::{PutRequest, SumRequest, SumResponse};
use outrigger_examples::{Counter, basic_cookie};
use outrigger_host::{
    Address, AddressTranslator, AllowedTransports, AppProtocolVersion, Attach, Deadlines,
    ExitStatus, ExpectedDigest, KillReason, Launch, LaunchError, Network, PluginExited, PluginSet,
    ProcessRunner, Reattach, Runner, RunnerError, RunningPlugin, ServiceSet, Started, Transport,
    stop_managed,
};
use outrigger_interop::proto::grpctest::{PrintStdioRequest, TestRequest};
use outrigger_interop::{Test, peer_cookie, ping_pong};
use support::{Bytes, SOON, go_peer, logged, runs, signal, stops_cleanly, wait_for, wait_until};
use tonic::{Request, Response, Status};

/// The peer program, or an early end of the test.
macro_rules! go {
    ($name:literal) => {
        match go_peer($name) {
            Some(program) => program,
            None => return,
        }
    };
}

fn test_set() -> PluginSet {
    PluginSet::new().with::<Test>("test")
}

/// A launch of `helper MODE` that offers version 1 of the test service.
fn helper(program: &Path, mode: &str) -> Launch {
    Launch::new(program, peer_cookie())
        .arg(mode)
        .offer(1, test_set())
}

async fn refused(launch: Launch) -> LaunchError {
    let began = Instant::now();
    let error = launch.start().await.expect_err("refused");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    error
}

async fn not_joined(attach: Attach) -> LaunchError {
    let began = Instant::now();
    let error = attach.connect().await.expect_err("nothing to join");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    error
}

async fn double(plugin: &RunningPlugin, input: i32) -> Result<i32, Status> {
    let mut client = plugin.dispense::<Test>("test").await.expect("a client");
    client
        .double(TestRequest { input })
        .await
        .map(|reply| reply.into_inner().output)
}

#[tokio::test]
async fn a_go_plugin_of_another_app_version_is_refused_and_runs_only_once() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("started");
    let error = refused(helper(&program, "bad-version").arg(&file)).await;
    assert_eq!(error.code(), "app-version-mismatch", "{error}");
    assert!(
        std::error::Error::source(&error)
            .expect("a source")
            .to_string()
            .contains("11")
    );
    // A launch is used up by its start: what would start it again does not compile.
    assert!(file.exists());
}

#[tokio::test]
async fn a_go_program_that_prints_no_handshake_is_refused_with_its_words() {
    let error = refused(helper(&go!("helper"), "invalid-rpc-address")).await;
    assert_eq!(error.code(), "handshake-malformed", "{error}");
    assert!(
        format!("{:?}", error.kind()).contains("this is no address"),
        "{error:?}"
    );
    // A busy machine may not have ended it before it is killed.
    let exit = error.exit().map(|(status, _)| status);
    assert!(
        [None, Some(ExitStatus::Code(0))].contains(&exit),
        "{exit:?}"
    );
}

#[tokio::test]
async fn four_fields_mean_net_rpc_which_must_be_allowed_and_reachable() {
    let program = go!("helper");
    let error = refused(helper(&program, "mock").allow(AllowedTransports::GRPC)).await;
    assert_eq!(error.code(), "transport-not-allowed", "{error}");
    // Nobody listens where it says.
    let error = refused(helper(&program, "mock")).await;
    assert_eq!(error.code(), "connect-failed", "{error}");
}

#[tokio::test]
async fn a_go_plugin_that_speaks_grpc_is_refused_where_only_net_rpc_is_allowed() {
    let launch = helper(&go!("helper"), "test-grpc").allow(AllowedTransports::NETRPC);
    assert_eq!(refused(launch).await.code(), "transport-not-allowed");
}

#[tokio::test]
async fn a_silent_go_plugin_is_given_up_and_killed_at_its_deadline() {
    let deadlines = Deadlines {
        start: Duration::from_millis(50),
        ..Deadlines::default()
    };
    let began = Instant::now();
    let error = refused(helper(&go!("helper"), "start-timeout").deadlines(deadlines)).await;
    assert_eq!(error.code(), "handshake-timeout", "{error}");
    // By itself it would have been silent for a minute.
    let after = began.elapsed();
    assert!((deadlines.start..SOON).contains(&after), "{after:?}");
}

#[tokio::test]
async fn a_go_plugin_without_the_mux_broker_is_refused_when_mux_is_asked_for() {
    let program = go!("helper");
    for mode in [
        "mux-grpc-with-old-plugin",
        "mux-grpc-with-unsupported-plugin",
    ] {
        let error = refused(helper(&program, mode).mux_broker()).await;
        assert_eq!(error.code(), "mux-unsupported", "{mode}: {error}");
    }
}

#[tokio::test]
async fn the_stderr_of_a_go_plugin_is_copied_byte_for_byte() {
    let (program, copy) = (go!("helper"), Bytes::default());
    let plugin = helper(&program, "stderr-then-serve")
        .stderr(copy.clone())
        .start()
        .await;
    let plugin = plugin.expect("a plugin");
    wait_for("the text", || copy.text().starts_with("HELLO\nWORLD\n")).await;
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn json_that_is_no_log_record_is_logged_as_it_stands() {
    let (program, name) = (go!("helper"), "odd-json");
    logged(name);
    let plugin = helper(&program, "stderr-json-then-serve")
        .named(name)
        .start()
        .await;
    let plugin = plugin.expect("a plugin");
    for text in [r#"["HELLO"]"#, "12345", r#"{"a":1}"#] {
        wait_for(text, || {
            logged(name).iter().any(|line| line.ends_with(text))
        })
        .await;
    }
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_level_before_a_line_of_text_is_its_level() {
    let (program, name) = (go!("helper"), "text-level");
    logged(name);
    let plugin = helper(&program, "level-warn-text-then-serve")
        .named(name)
        .start()
        .await;
    let plugin = plugin.expect("a plugin");
    let warned = |line: &String| line.starts_with("WARN ") && line.contains("test line 98765");
    wait_for("the warning", || logged(name).iter().any(warned)).await;
    stops_cleanly(plugin).await;
}

/// Runs the host program with a Go plugin and returns its exit status and report.
fn interop_host(program: &Path, mode: &str, flag: Option<&str>, stdin: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut host = Command::new(env!("CARGO_BIN_EXE_interop-host"))
        .args([
            "--service",
            "grpctest",
            "--scenario",
            "ping",
            "--forbid-leftovers",
        ])
        .args(flag)
        .arg("--")
        .arg(program)
        .arg(mode)
        .env("TMPDIR", dir.path())
        .env("OUTRIGGER_TEST_HOST_ENV", "set")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host runs");
    // The plugin may end before it has read everything.
    let _ = host
        .stdin
        .take()
        .expect("a pipe")
        .write_all(stdin.as_bytes());
    let output = host.wait_with_output().expect("the host ends");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn a_go_plugin_reads_the_stdin_of_its_host() {
    let program = go!("helper");
    let (well, report) = interop_host(&program, "stdin-then-serve", None, "hello");
    assert!(well, "{report}");
    let (well, report) = interop_host(&program, "stdin-then-serve", None, "other");
    assert!(!well && report.contains("exited with status 1"), "{report}");
}

#[test]
fn a_go_plugin_sees_the_environment_of_its_host_unless_that_is_skipped() {
    let program = go!("helper");
    let (well, report) = interop_host(&program, "skip-host-env-false-then-serve", None, "");
    assert!(well, "{report}");
    let skip = Some("--skip-host-env");
    let (well, report) = interop_host(&program, "skip-host-env-true-then-serve", skip, "");
    assert!(well, "{report}");
    let (well, report) = interop_host(&program, "skip-host-env-true-then-serve", None, "");
    assert!(!well, "{report}");
}

#[tokio::test]
async fn a_stopped_go_plugin_runs_its_cleanup_and_is_not_killed() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cleaned");
    let (name, cleanup) = ("cleanup", helper(&program, "cleanup-grpc").arg(&file));
    logged(name);
    let plugin = cleanup.named(name).start().await.expect("a plugin");
    assert!(!file.exists());
    stops_cleanly(plugin).await;
    assert!(file.exists());
    let errors = logged(name)
        .into_iter()
        .filter(|line| line.starts_with("ERROR"))
        .count();
    assert_eq!(errors, 0);
}

#[tokio::test]
async fn what_a_go_plugin_writes_to_descriptor_1_later_is_drained() {
    let (program, printed) = (go!("helper"), Bytes::default());
    let launch = helper(&program, "print-raw-then-serve").mirror_stdout(printed.clone());
    let plugin = launch.start().await.expect("a plugin");
    wait_for("the end of a mebibyte", || printed.text() == "printed").await;
    assert_eq!(double(&plugin, 21).await.expect("a reply"), 42);
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn what_a_go_plugin_prints_arrives_in_order_on_the_right_side() {
    let (program, stdout, stderr) = (go!("helper"), Bytes::default(), Bytes::default());
    let launch = helper(&program, "test-grpc")
        .mirror_stdout(stdout.clone())
        .mirror_stderr(stderr.clone());
    let plugin = launch.start().await.expect("a plugin");
    let mut client = plugin.dispense::<Test>("test").await.expect("a client");
    for n in 0..100 {
        let (out, err) = (format!("out {n}\n"), format!("err {n}\n"));
        let request = PrintStdioRequest {
            stdout: out.into(),
            stderr: err.into(),
        };
        client.print_stdio(request).await.expect("printed");
    }
    let all = |word: &str| {
        (0..100)
            .map(|n| format!("{word} {n}\n"))
            .collect::<String>()
    };
    wait_for("stdout", || stdout.text() == all("out")).await;
    wait_for("stderr", || stderr.text() == all("err")).await;
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_go_plugin_without_broker_controller_and_stdio_works_and_is_killed_in_the_end() {
    let plugin = helper(&go!("helper"), "health-only")
        .start()
        .await
        .expect("a plugin");
    plugin.ping().await.expect("well");
    let broker = plugin.broker();
    // It hears of nothing, before and after that is known, and may not care.
    for known in [false, true] {
        if known {
            wait_for("the answer", || broker.is_missing()).await;
        }
        broker
            .serve(broker.next_id(), ping_pong())
            .await
            .expect("served all the same");
    }
    let dialled = broker.connect(outrigger_host::BrokerId(1)).await;
    assert_eq!(dialled.expect_err("it has none").code(), "broker-missing");
    let began = Instant::now();
    let report = plugin.stop().await;
    assert_eq!(report.kill_reason, Some(KillReason::NoController));
    // Not after go-plugin's two idle seconds.
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(!runs(plugin.pid().expect("a pid")));
}

/// go-plugin's hosts wait for the reply, and then two seconds more.
#[tokio::test]
async fn a_go_plugin_whose_shutdown_takes_longer_than_the_grace_ends_by_itself() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let late = |file: &Path, after: &str| {
        helper(&program, "cleanup-late")
            .arg(file)
            .env("OUTRIGGER_TEST_SHUTDOWN_AFTER", after)
    };
    let (file, never) = (dir.path().join("cleaned"), dir.path().join("never"));
    let plugin = late(&file, "2100ms").start().await.expect("a plugin");
    plugin.ping().await.expect("well");
    let began = Instant::now();
    let report = plugin.stop().await;
    let took = began.elapsed();
    assert_eq!(report.kill_reason, None, "{report:?}");
    assert_eq!(report.status, ExitStatus::Code(0));
    assert!(took >= Duration::from_millis(2100), "{took:?}");
    assert!(file.exists(), "it cleaned up");

    // Unlike there, the reply has a deadline.
    let deadlines = Deadlines {
        stop_reply: Duration::from_secs(1),
        ..Deadlines::default()
    };
    let launch = late(&never, "12s").deadlines(deadlines);
    let plugin = launch.start().await.expect("a plugin");
    plugin.ping().await.expect("well");
    let report = plugin.stop().await;
    let reason = KillReason::NoAnswer(Duration::from_secs(1));
    assert_eq!(report.kill_reason, Some(reason), "{report:?}");
    assert!(!never.exists());
}

#[tokio::test]
async fn a_go_plugin_behind_tls_is_refused_without_tls() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(&program)
        .arg("make-tls")
        .arg(dir.path())
        .status();
    assert!(made.expect("it runs").success());
    let mode = |mode: &str| {
        helper(&program, mode)
            .skip_host_env()
            .env("OUTRIGGER_TLS_DIR", dir.path())
    };
    let error = refused(mode("test-grpc-tls")).await;
    assert!(
        ["closed-at-once", "peer-uses-tls"].contains(&error.code()),
        "{} {error}",
        error.code()
    );
    let error = refused(mode("test-grpc-tls").auto_mtls()).await;
    assert_eq!(error.code(), "certificate-missing", "{error}");
}

#[tokio::test]
async fn an_upgraded_go_plugin_has_only_net_rpc_for_an_old_host() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(&program)
        .arg("make-tls")
        .arg(dir.path())
        .status();
    assert!(made.expect("it runs").success());
    let launch = |mode: &str, version| {
        Launch::new(&program, peer_cookie())
            .arg(mode)
            .offer(version, test_set())
            .env("OUTRIGGER_TLS_DIR", dir.path())
    };
    let old = launch("test-proto-upgraded-plugin", 1).allow(AllowedTransports::GRPC);
    let error = refused(old).await;
    assert_eq!(error.code(), "transport-not-allowed", "{error}");
    let error = refused(launch("test-versioned-plugins", 1)).await;
    assert_eq!(error.code(), "app-version-mismatch", "{error}");
}

#[tokio::test]
async fn a_killed_go_plugin_fails_its_pending_call_within_100_ms() {
    let program = go!("helper");
    let mut took = Vec::new();
    // A busy machine may be late once; a host that only looked now and then would be so always.
    while took.len() < 10 && !took.iter().any(|time| *time < Duration::from_millis(100)) {
        took.push(from_kill_to_failure(&program).await);
    }
    assert!(took.len() < 10, "{took:?}");
}

async fn from_kill_to_failure(program: &Path) -> Duration {
    let plugin = helper(program, "test-grpc").start().await;
    let plugin = plugin.expect("a plugin");
    let mut client = plugin.dispense::<Test>("test").await.expect("a client");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(TestRequest { input: 1 }).await.expect("sent");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut echoes = client
        .stream(requests)
        .await
        .expect("a stream")
        .into_inner();
    let echo = echoes.message().await.expect("an echo");
    assert_eq!(echo.expect("a message").output, 1);
    signal(plugin.pid().expect("a pid"), "KILL");
    let began = Instant::now();
    let status = echoes.message().await.expect_err("the plugin is gone");
    let after = began.elapsed();
    let exited = PluginExited::behind(&status).unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(exited.report.status, ExitStatus::Signal(9));
    assert!(plugin.ping().await.is_err());
    assert_eq!(plugin.wait().await.status, ExitStatus::Signal(9));
    after
}

/// A Go plugin that no host of ours started.
struct Stranger {
    child: Child,
    line: String,
    _dir: tempfile::TempDir,
}

impl Stranger {
    fn start(program: &Path, mode: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(program)
            .arg(mode)
            .env("TEST_MAGIC_COOKIE", "test")
            .env("PLUGIN_PROTOCOL_VERSIONS", "1")
            .env("TMPDIR", dir.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self {
            child,
            line: line.trim().to_owned(),
            _dir: dir,
        }
    }

    fn reattach(&self) -> Reattach {
        let fields: Vec<&str> = self.line.split('|').collect();
        Reattach {
            transport: Transport::Grpc,
            version: AppProtocolVersion(1),
            address: Address {
                network: Network::Unix,
                text: fields[3].into(),
            },
            pid: Some(self.child.id()),
            started: None,
            test: false,
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_host_joins_a_detached_go_plugin_and_ends_it() {
    let mut stranger = Stranger::start(&go!("helper"), "test-grpc-daemon");
    let reattach = stranger.reattach();
    let plugin = Attach::new(reattach.clone())
        .offer(1, test_set())
        .connect()
        .await;
    let plugin = plugin.expect("joined");
    assert_eq!(plugin.reattach(), reattach);
    assert_eq!(double(&plugin, 4).await.expect("a reply"), 8);
    assert!(plugin.exited().is_none());
    // Leaving does not end it; whoever comes next finds it.
    drop(plugin);
    let plugin = Attach::new(reattach)
        .offer(1, test_set())
        .connect()
        .await
        .expect("joined");
    assert_eq!(double(&plugin, 5).await.expect("a reply"), 10);
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
    assert!(plugin.exited().is_some());
    assert!(stranger.child.wait().expect("its status").success());
}

#[tokio::test]
async fn joining_nothing_is_process_not_found_and_harms_no_other_process() {
    let mut other = Command::new("sleep").arg("600").spawn().expect("it starts");
    let dir = tempfile::tempdir().expect("a directory");
    let reattach = |address: Address, pid| Reattach {
        transport: Transport::Grpc,
        version: AppProtocolVersion(1),
        address,
        pid,
        started: None,
        test: false,
    };
    let socket = Address {
        network: Network::Unix,
        text: dir.path().join("none").display().to_string(),
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let text = closed.local_addr().expect("an address").to_string();
    drop(closed);
    for address in [
        socket,
        Address {
            network: Network::Tcp,
            text,
        },
    ] {
        for pid in [Some(other.id()), None] {
            let attach = Attach::new(reattach(address.clone(), pid)).offer(1, test_set());
            assert_eq!(
                not_joined(attach).await.code(),
                "process-not-found",
                "{address} {pid:?}"
            );
        }
    }
    assert!(runs(other.id()));
    other.kill().expect("killed");
    let pid = other.id();
    other.wait().expect("its status");
    let gone = Address {
        network: Network::Tcp,
        text: "127.0.0.1:9".into(),
    };
    let attach = Attach::new(reattach(gone, Some(pid))).offer(1, test_set());
    assert_eq!(not_joined(attach).await.code(), "process-not-found");
}

#[tokio::test]
async fn a_go_plugin_in_test_mode_is_visited_and_never_stopped() {
    let mut stranger = Stranger::start(&go!("helper"), "test-mode-grpc");
    let said: serde_json::Value = serde_json::from_str(&stranger.line).expect("an object");
    let reattach = Reattach {
        transport: Transport::Grpc,
        version: AppProtocolVersion(said["version"].as_u64().expect("a number") as u32),
        address: Address {
            network: Network::Unix,
            text: said["address"].as_str().expect("a path").into(),
        },
        pid: said["pid"].as_u64().map(|pid| pid as u32),
        started: None,
        test: true,
    };
    let plugin = Attach::new(reattach)
        .offer(1, test_set())
        .connect()
        .await
        .expect("joined");
    assert_eq!(plugin.negotiated_version(), AppProtocolVersion(1));
    assert_eq!(double(&plugin, 6).await.expect("a reply"), 12);
    plugin.stop().await;
    plugin.kill().await;
    plugin.ping().await.expect("it still serves");
    drop(stranger.child.stdin.take());
    wait_until("the end of the program", || !runs(stranger.child.id()));
    assert!(stranger.child.wait().expect("its status").success());
    plugin.ping().await.expect_err("it has ended");
}

#[tokio::test]
async fn a_go_plugin_with_another_digest_is_not_started_and_with_its_own_it_is() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("started");
    let wrong = ExpectedDigest::sha256(&[7; 32]).expect("a digest");
    let launch = helper(&program, "bad-version")
        .arg(&file)
        .expect_digest(wrong);
    assert_eq!(refused(launch).await.code(), "digest-mismatch");
    assert!(!file.exists(), "it was started");
    let right = ExpectedDigest::of(File::open(&program).expect("opened")).expect("a digest");
    let plugin = helper(&program, "test-grpc")
        .expect_digest(right)
        .start()
        .await;
    stops_cleanly(plugin.expect("a plugin")).await;
}

#[tokio::test]
async fn managed_go_plugins_are_stopped_together() {
    let program = go!("helper");
    let first = helper(&program, "test-grpc")
        .managed()
        .start()
        .await
        .expect("a plugin");
    let second = helper(&program, "test-grpc")
        .managed()
        .start()
        .await
        .expect("a plugin");
    stop_managed().await;
    for plugin in [first, second] {
        let report = plugin.exited().expect("it ended");
        assert_eq!((report.status, report.forced), (ExitStatus::Code(0), false));
    }
}

/// A bare process, whose runner notes what it was asked for.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Option<outrigger_host::Command>>>);

#[tonic::async_trait]
impl Runner for Noting {
    async fn start(&self, command: &outrigger_host::Command) -> Result<Started, RunnerError> {
        *self.0.lock().expect("lock") = Some(command.clone());
        ProcessRunner.start(command).await
    }
}

/// Notes what it is asked for and the rights of the socket directory, and starts nothing.
#[derive(Clone, Debug, Default)]
struct Refusing(Arc<Mutex<Option<(outrigger_host::Command, u32, u32)>>>);

#[tonic::async_trait]
impl Runner for Refusing {
    async fn start(&self, command: &outrigger_host::Command) -> Result<Started, RunnerError> {
        use std::os::unix::fs::MetadataExt;

        let facts = std::fs::metadata(&command.socket_dir).map_err(RunnerError::Spawn)?;
        let noted = (command.clone(), facts.mode() & 0o777, facts.gid());
        *self.0.lock().expect("lock") = Some(noted);
        Err(RunnerError::Other("it starts nothing".into()))
    }
}

#[tokio::test]
async fn library_variables_override_the_hosts_which_override_the_callers() {
    let own_path = std::env::var("PATH").expect("a path");
    let runner = Refusing::default();
    let launch = |skip: bool| {
        let launch = Launch::new("any", peer_cookie())
            .offer(2, test_set())
            .offer(7, test_set())
            .env("PATH", "the caller's")
            .env("OUTRIGGER_TEST_OWN", "the caller's")
            .env("TEST_MAGIC_COOKIE", "the caller's")
            .env("PLUGIN_MIN_PORT", "1")
            .runner(runner.clone());
        if skip { launch.skip_host_env() } else { launch }
    };
    let noted = async |skip: bool| {
        assert_eq!(refused(launch(skip)).await.stderr(), [""; 0]);
        let (command, ..) = runner
            .0
            .lock()
            .expect("lock")
            .clone()
            .expect("it was asked");
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let pairs = command
            .environment
            .iter()
            .map(|(key, value)| (text(key), text(value)));
        pairs.collect::<BTreeMap<_, _>>()
    };
    for (skip, path) in [(false, own_path.as_str()), (true, "the caller's")] {
        let environment = noted(skip).await;
        assert_eq!(environment["PATH"], path);
        assert_eq!(environment["OUTRIGGER_TEST_OWN"], "the caller's");
        assert_eq!(environment["TEST_MAGIC_COOKIE"], "test");
        assert_eq!(environment["PLUGIN_MIN_PORT"], "10000");
        assert_eq!(environment["PLUGIN_MAX_PORT"], "25000");
        assert_eq!(environment["PLUGIN_PROTOCOL_VERSIONS"], "2,7");
        assert!(!environment.contains_key("PLUGIN_MULTIPLEX_GRPC"));
        assert!(!environment.contains_key("PLUGIN_CLIENT_CERT"));
    }
    // The caller's five entries, three of the library besides, and nothing of the host.
    assert_eq!(noted(true).await.len(), 7);
}

#[tokio::test]
async fn a_runner_gets_a_private_socket_directory_which_a_group_may_share() {
    use std::os::unix::fs::MetadataExt;

    let (runner, dir) = (
        Refusing::default(),
        tempfile::tempdir().expect("a directory"),
    );
    let launch = || {
        Launch::new("any", peer_cookie())
            .offer(1, test_set())
            .runner(runner.clone())
    };
    let noted = || runner.0.lock().expect("lock").take().expect("it was asked");
    refused(launch()).await;
    let (command, mode, _) = noted();
    assert_eq!(mode, 0o700);
    assert!(!command.socket_dir.exists());
    let own = std::fs::metadata(dir.path()).expect("facts");
    let gid = if own.uid() == 0 { 1 } else { own.gid() };
    refused(launch().socket_group(gid.to_string())).await;
    let (command, mode, group) = noted();
    assert_eq!((mode, group), (0o770, gid));
    assert!(!command.socket_dir.exists());
    let variable = |name: &str| {
        let found = command.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(
        variable("PLUGIN_UNIX_SOCKET_DIR"),
        command.socket_dir.as_os_str()
    );
    assert_eq!(
        variable("PLUGIN_UNIX_SOCKET_GROUP"),
        gid.to_string().as_str()
    );
}

#[tokio::test]
async fn a_line_printed_right_before_the_exit_is_not_lost() {
    for round in 0..20 {
        let launch = Launch::new("/bin/sh", peer_cookie())
            .args(["-c", "echo first >&2; echo '1|9|unix|/nonexistent|grpc'"])
            .offer(1, test_set());
        let error = refused(launch).await;
        assert_eq!(
            error.code(),
            "app-version-mismatch",
            "round {round}: {error}"
        );
        assert_eq!(error.stderr().len(), 1, "round {round}: {error}");
    }
}

/// Links stand for the addresses of the other side's world.
#[derive(Clone, Debug)]
struct Linking {
    dir: PathBuf,
    seen: Arc<Mutex<Vec<(&'static str, Address)>>>,
}

impl Linking {
    fn link(&self, side: &'static str, address: Address) -> Result<Address, String> {
        let mut seen = self.seen.lock().expect("lock");
        seen.push((side, address.clone()));
        let link = self.dir.join(format!("{side}{}", seen.len()));
        std::os::unix::fs::symlink(&address.text, &link).map_err(|error| error.to_string())?;
        Ok(Address {
            text: link.display().to_string(),
            ..address
        })
    }
}

impl AddressTranslator for Linking {
    fn plugin_to_host(&self, address: Address) -> Result<Address, String> {
        self.link("p", address)
    }

    fn host_to_plugin(&self, address: Address) -> Result<Address, String> {
        self.link("h", address)
    }
}

struct Adder;

#[tonic::async_trait]
impl AddHelper for Adder {
    async fn sum(&self, request: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
        let SumRequest { a, b } = request.into_inner();
        Ok(Response::new(SumResponse { r: a + b }))
    }
}

#[tokio::test]
async fn a_runner_and_its_translator_see_all_addresses_of_a_go_plugin() {
    use std::os::unix::fs::PermissionsExt;

    let (program, helper_program) = (go!("counter"), go!("helper"));
    let dir = tempfile::tempdir().expect("a directory");
    let (runner, seen) = (Noting::default(), Arc::default());
    let translator = Linking {
        dir: dir.path().to_owned(),
        seen,
    };
    let plugin = Launch::new(&program, basic_cookie())
        .offer(1, PluginSet::new().with::<Counter>("counter"))
        .current_dir(dir.path())
        .runner(runner.clone())
        .translate(translator.clone())
        .start()
        .await
        .expect("a plugin");
    let command = runner
        .0
        .lock()
        .expect("lock")
        .clone()
        .expect("it was asked");
    let name = command
        .socket_dir
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    assert!(name.starts_with("plugin-dir"), "{name}");
    let mode = std::fs::metadata(&command.socket_dir)
        .expect("it exists")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let variable = command
        .environment
        .iter()
        .find(|(key, _)| key == "PLUGIN_UNIX_SOCKET_DIR");
    assert_eq!(
        variable.expect("the variable").1,
        command.socket_dir.as_os_str()
    );

    let counter = plugin
        .dispense::<Counter>("counter")
        .await
        .expect("a client");
    let adder = ServiceSet::new().with(AddHelperServer::new(Adder));
    let serving = counter
        .broker
        .serve(counter.broker.next_id(), adder)
        .await
        .expect("served");
    let put = PutRequest {
        add_server: serving.id().0,
        key: "a".into(),
        value: 2,
    };
    counter.client.clone().put(put).await.expect("put");
    let seen = translator.seen.lock().expect("lock").clone();
    let sides: Vec<_> = seen.iter().map(|(side, _)| *side).collect();
    assert_eq!(
        sides,
        ["p", "h"],
        "the handshake's address, then the host's own: {seen:?}"
    );
    assert_eq!(&seen[0].1, plugin.address());
    drop(serving);
    stops_cleanly(plugin).await;
    assert!(!command.socket_dir.exists());

    // What the plugin announces over the broker is translated, too.
    let translator = Linking {
        dir: dir.path().join("second"),
        seen: Arc::default(),
    };
    std::fs::create_dir(&translator.dir).expect("made");
    let launch = helper(&helper_program, "test-grpc").translate(translator.clone());
    let plugin = launch.start().await.expect("a plugin");
    let broker = plugin.broker();
    let serving = broker
        .serve(broker.next_id(), ping_pong())
        .await
        .expect("served");
    let mut client = plugin.dispense::<Test>("test").await.expect("a client");
    let request = outrigger_interop::proto::grpctest::BidirectionalRequest { id: serving.id().0 };
    let id = client
        .bidirectional(request)
        .await
        .expect("a reply")
        .into_inner()
        .id;
    broker
        .connect(outrigger_host::BrokerId(id))
        .await
        .expect("connected");
    let seen = translator.seen.lock().expect("lock").clone();
    let sides: Vec<_> = seen.iter().map(|(side, _)| *side).collect();
    assert_eq!(sides, ["p", "h", "p"], "{seen:?}");
    drop(serving);
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn dispensing_asks_no_plugin_and_has_two_errors() {
    let plugin = helper(&go!("helper"), "test-grpc")
        .start()
        .await
        .expect("a plugin");
    let error = plugin.dispense::<Test>("other").await.expect_err("unknown");
    assert_eq!(error.code(), "unknown-plugin-name");
    let error = plugin.dispense::<KvStore>("test").await;
    let error = error.expect_err("another interface");
    assert_eq!(error.code(), "other-interface");
    // Clients share one connection, which was made once.
    assert_eq!(double(&plugin, 1).await.expect("a reply"), 2);
    assert_eq!(double(&plugin, 2).await.expect("a reply"), 4);
    stops_cleanly(plugin).await;
}
