//! net/rpc one behaviour at a time: our host with the modes of Go's test plugin,
//! and with plugins in both languages at the limits. Ways of connecting and the
//! interfaces are paired by `cargo xtask interop`.
#![allow(clippy::disallowed_methods)] // Plugins that no host of ours starts.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outrigger_examples::basic_cookie;
use outrigger_examples::netrpc::{Any, AnyMap};
use outrigger_host::netrpc::{CallError, CallErrorKind, Client, Methods};
use outrigger_host::{
    Address, AllowedTransports, AppProtocolVersion, Attach, Broker, ExitStatus, Interface, Launch,
    Network, PluginExited, PluginSet, Reattach, RunningPlugin, Transport, UnsupportedTransport,
};
use outrigger_interop::netrpc::{
    Callbacks, Greeter, Streams, StreamsClient, Types, adder, pattern,
};
use outrigger_interop::peer_cookie;
use outrigger_interop::tls::static_tls;
use support::{SOON, go_peer, lines_of, runs, signal, stops_cleanly, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Our plugin that serves everything.
const PEER: &str = env!("CARGO_BIN_EXE_netrpc-peer");

/// The peer program, or an early end of the test.
macro_rules! go {
    ($name:literal) => {
        match go_peer($name) {
            Some(program) => program,
            None => return,
        }
    };
}

/// The object of Go's test plugin.
struct Test;

struct TestClient(Client);

impl Interface for Test {
    type Client = TestClient;

    fn netrpc(object: Client, _: Arc<dyn Broker>) -> Result<TestClient, UnsupportedTransport> {
        Ok(TestClient(object))
    }
}

impl TestClient {
    async fn double(&self, number: isize) -> Result<isize, CallError> {
        self.0.call("Plugin.Double", &number).await
    }

    async fn print(&self, key: &str, value: Any) -> Result<(), CallError> {
        let pair = AnyMap::from([("key".into(), key.into()), ("value".into(), value)]);
        self.0.call("Plugin.PrintKV", &pair).await
    }
}

/// A launch of `helper MODE` that offers `version` of the test object.
fn helper(program: &Path, mode: &str, version: u32) -> Launch {
    Launch::new(program, peer_cookie())
        .arg(mode)
        .offer(version, PluginSet::new().with::<Test>("test"))
}

async fn doubles(plugin: &RunningPlugin) {
    let client = plugin.dispense::<Test>("test").await.expect("a client");
    assert_eq!(client.double(21).await.expect("a reply"), 42);
}

/// The files of static TLS, which a Go peer writes.
fn certificates(program: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(program)
        .arg("make-tls")
        .arg(dir.path())
        .status();
    assert!(made.expect("it runs").success());
    dir
}

/// The plugin that serves everything, in each language that there is.
fn peers() -> Vec<PathBuf> {
    let mut peers = vec![PathBuf::from(PEER)];
    peers.extend(go_peer("netrpc"));
    peers
}

fn everything() -> PluginSet {
    PluginSet::new()
        .with::<Greeter>("greeter")
        .with::<Callbacks>("callbacks")
        .with::<Streams>("streams")
        .with::<Types>("types")
}

async fn started(program: &Path) -> RunningPlugin {
    let launch = Launch::new(program, basic_cookie()).offer(1, everything());
    launch.start().await.expect("a plugin")
}

async fn greets(plugin: &RunningPlugin) {
    let greeter = plugin.dispense::<Greeter>("greeter").await;
    let greeting = greeter.expect("a client").greet().await;
    assert_eq!(greeting.expect("a greeting"), "Hello!");
}

#[tokio::test]
async fn a_go_plugin_over_net_rpc_doubles_and_ends_by_itself() {
    let plugin = helper(&go!("helper"), "test-interface", 1)
        .start()
        .await
        .expect("a plugin");
    assert_eq!(plugin.transport(), Transport::NetRpc);
    doubles(&plugin).await;
    plugin.ping().await.expect("well");
    let error = plugin.dispense::<Test>("other").await.err();
    assert_eq!(error.expect("unknown here").code(), "unknown-plugin-name");
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_go_plugin_over_net_rpc_logs_fields_with_its_words() {
    let (program, name) = (go!("helper"), "netrpc-logger");
    lines_of(name);
    let launch = helper(&program, "test-interface-logger-netrpc", 1).named(name);
    let plugin = launch.start().await.expect("a plugin");
    let client = plugin.dispense::<Test>("test").await.expect("a client");
    client.print("foo", "bar".into()).await.expect("printed");
    client.print("foo", 12_isize.into()).await.expect("printed");
    for expected in ["foo=bar", "foo=12"] {
        wait_for(expected, || {
            lines_of(name).iter().any(|line| {
                line.level == "INFO"
                    && line.text("message") == "PrintKV called"
                    && line.text("fields").split(' ').any(|pair| pair == expected)
            })
        })
        .await;
    }
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_go_plugin_over_net_rpc_shares_one_authority() {
    let program = go!("helper");
    let dir = certificates(&program);
    let launch = helper(&program, "test-interface-tls", 1)
        .env("OUTRIGGER_TLS_DIR", dir.path())
        .tls(static_tls(dir.path()).expect("certificates"));
    let plugin = launch.start().await.expect("a plugin");
    doubles(&plugin).await;
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn a_go_plugin_over_net_rpc_behind_tls_dispenses_nothing_without_tls() {
    let program = go!("helper");
    let dir = certificates(&program);
    for _ in 0..5 {
        let launch = helper(&program, "test-interface-tls", 1);
        let began = Instant::now();
        match launch.env("OUTRIGGER_TLS_DIR", dir.path()).start().await {
            // The plugin has closed the connection already.
            Err(error) => assert!(error.code().starts_with("yamux-"), "{error:?}"),
            Ok(plugin) => {
                plugin.ping().await.expect_err("it speaks TLS");
                let dispensed = plugin.dispense::<Test>("test").await;
                dispensed.err().expect("it speaks TLS");
                let pid = plugin.pid().expect("a pid");
                plugin.kill().await;
                assert!(!runs(pid));
            }
        }
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_go_plugin_over_net_rpc_of_version_0_takes_part_in_auto_mtls() {
    let launch = helper(&go!("helper"), "test-interface-mtls", 0).auto_mtls();
    let plugin = launch.start().await.expect("a plugin");
    assert_eq!(plugin.negotiated_version(), AppProtocolVersion(0));
    assert!(plugin.handshake().certificate.is_some());
    doubles(&plugin).await;
    stops_cleanly(plugin).await;
}

#[tokio::test]
async fn an_upgraded_go_plugin_serves_its_old_set_to_an_old_host() {
    let program = go!("helper");
    let dir = certificates(&program);
    let set = || PluginSet::new().with::<Test>("old").with::<Test>("test");
    let launch = || {
        Launch::new(&program, peer_cookie())
            .arg("test-proto-upgraded-plugin")
            .env("OUTRIGGER_TLS_DIR", dir.path())
            .offer(1, set())
    };
    let plugin = launch()
        .tls(static_tls(dir.path()).expect("certificates"))
        .start()
        .await
        .expect("a plugin");
    let agreed = (plugin.negotiated_version(), plugin.transport());
    assert_eq!(agreed, (AppProtocolVersion(1), Transport::NetRpc));
    let old = plugin.dispense::<Test>("old").await.expect("a client");
    assert_eq!(old.double(3).await.expect("a reply"), 6);
    let error = plugin.dispense::<Test>("test").await.err().expect("newer");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("unknown plugin type: test"), "{cause}");
    stops_cleanly(plugin).await;
    // A host that knows nothing of the certificates gets no further than the handshake.
    if let Ok(plugin) = launch().start().await {
        assert_eq!(plugin.negotiated_version(), AppProtocolVersion(1));
        plugin.ping().await.expect_err("it speaks TLS");
        plugin.kill().await;
    }
}

#[tokio::test]
async fn thirty_go_plugins_over_net_rpc_end_by_themselves() {
    let program = go!("helper");
    for _ in 0..30 {
        let launch = helper(&program, "test-interface", 1);
        let plugin = launch.start().await.expect("a plugin");
        doubles(&plugin).await;
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn a_stopped_go_plugin_over_net_rpc_runs_its_cleanup() {
    let program = go!("helper");
    let dir = tempfile::tempdir().expect("a directory");
    let (file, name) = (dir.path().join("cleaned"), "netrpc-cleanup");
    lines_of(name);
    let launch = helper(&program, "cleanup", 1).arg(&file).named(name);
    let plugin = launch.start().await.expect("a plugin");
    assert!(!file.exists());
    stops_cleanly(plugin).await;
    assert!(file.exists());
    let errors: Vec<_> = lines_of(name)
        .into_iter()
        .filter(|line| line.level == "ERROR")
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn net_rpc_is_refused_where_only_grpc_is_allowed() {
    for program in peers() {
        let launch = Launch::new(program, basic_cookie())
            .offer(1, everything())
            .allow(AllowedTransports::GRPC);
        let error = launch.start().await.expect_err("refused");
        assert_eq!(error.code(), "transport-not-allowed", "{error}");
    }
}

/// A plugin that no host of ours started.
struct Stranger {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Stranger {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(program)
            .args(arguments)
            .env("TEST_MAGIC_COOKIE", "test")
            .env("BASIC_PLUGIN", "hello")
            .env("PLUGIN_PROTOCOL_VERSIONS", "1")
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let fields: Vec<&str> = line.trim().split('|').collect();
        assert_eq!(fields[4], "netrpc", "{line}");
        Self {
            address: fields[3].into(),
            child,
            _dir: dir,
        }
    }

    fn reattach(&self) -> Reattach {
        Reattach {
            transport: Transport::NetRpc,
            version: AppProtocolVersion(1),
            address: Address {
                network: Network::Unix,
                text: self.address.clone(),
            },
            pid: Some(self.child.id()),
            started: None,
            test: false,
        }
    }

    async fn joined(&self, set: PluginSet) -> RunningPlugin {
        let launch = Attach::new(self.reattach()).offer(1, set);
        launch.connect().await.expect("joined")
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
async fn a_host_joins_a_detached_go_plugin_over_net_rpc_and_ends_it() {
    let mut stranger = Stranger::start(&go!("helper"), &["test-interface-daemon"]);
    let set = || PluginSet::new().with::<Test>("test");
    let plugin = stranger.joined(set()).await;
    assert_eq!(plugin.reattach(), stranger.reattach());
    doubles(&plugin).await;
    assert!(plugin.exited().is_none());
    // Leaving does not end it; whoever comes next finds it.
    drop(plugin);
    let plugin = stranger.joined(set()).await;
    doubles(&plugin).await;
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
    assert!(stranger.child.wait().expect("its status").success());
}

#[tokio::test]
async fn a_killed_plugin_over_net_rpc_fails_its_pending_calls_within_100_ms() {
    for program in peers() {
        let mut took = Vec::new();
        // A busy machine may be late once; a host that only looked now and then would be so always.
        while took.len() < 10 && !took.iter().any(|time| *time < Duration::from_millis(100)) {
            took.push(from_kill_to_failure(&program).await);
        }
        assert!(took.len() < 10, "{took:?}");
    }
}

async fn from_kill_to_failure(program: &Path) -> Duration {
    let plugin = started(program).await;
    let client = plugin.dispense::<Types>("types").await.expect("a client");
    let pending: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.sleep(30_000).await })
        })
        .collect();
    // Its answer shows that the calls before it are on their way.
    assert_eq!(client.sleep(1).await.expect("a reply"), 1);
    signal(plugin.pid().expect("a pid"), "KILL");
    let began = Instant::now();
    let mut errors = Vec::new();
    for call in pending {
        errors.push(
            call.await
                .expect("its end")
                .expect_err("the plugin is gone"),
        );
    }
    let after = began.elapsed();
    for error in &errors {
        assert_eq!(error.code(), "netrpc-connection-lost");
        let exited = PluginExited::behind(error).unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(exited.report.status, ExitStatus::Signal(9));
    }
    client.sleep(1).await.expect_err("a call after the end");
    assert!(plugin.ping().await.is_err());
    assert_eq!(plugin.wait().await.status, ExitStatus::Signal(9));
    after
}

#[tokio::test]
async fn a_call_without_an_answer_costs_its_deadline_and_its_late_reply_harms_nobody() {
    for program in peers() {
        let plugin = started(&program).await;
        let client = plugin.dispense::<Types>("types").await.expect("a client");
        let object = &client.0.client;
        let limit = Duration::from_millis(50);
        let sleeping = object.call_within::<_, i64>(limit, "Plugin.Sleep", &250_i64);
        let error = sleeping.await.expect_err("no reply in time");
        assert!(matches!(error.kind(), CallErrorKind::TimedOut(_)));
        // Its reply comes while this one is awaited.
        assert_eq!(client.sleep(400).await.expect("a reply"), 400);
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_move_costs_deadlines_and_is_killed_in_the_end() {
    for program in peers() {
        let plugin = started(&program).await;
        let client = plugin.dispense::<Types>("types").await.expect("a client");
        let pid = plugin.pid().expect("a pid");
        signal(pid, "STOP");
        wait_for("the stop of every thread", || all_stopped(pid)).await;
        let limit = Duration::from_millis(50);
        let object = &client.0.client;
        let word = Any::from("word");
        for _ in 0..3 {
            let echo = object.call_within::<_, Any>(limit, "Plugin.Echo", &word);
            let error = echo.await.expect_err("nobody moves");
            assert!(matches!(error.kind(), CallErrorKind::TimedOut(_)));
        }
        let dispensed = tokio::time::timeout(limit, plugin.dispense::<Types>("types")).await;
        assert!(dispensed.is_err());
        let report = plugin.stop_within(limit).await;
        assert!(report.forced, "{report:?}");
        assert!(!runs(pid));
        assert!(client.sleep(1).await.is_err());
    }
}

fn all_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// A stream that gives back what it gets, and has given back `word`.
async fn echoing(client: &StreamsClient, word: &[u8]) -> outrigger_host::Stream {
    let id = client.echo().await.expect("an id");
    let mut stream = client.0.broker.dial(id).await.expect("a stream");
    stream.write_all(word).await.expect("written");
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await.expect("an echo");
    assert_eq!(back, word);
    stream
}

#[tokio::test]
async fn thousands_of_streams_share_one_connection_and_go() {
    const AT_ONCE: usize = 1000;
    const OPENING: usize = 32;
    for program in peers() {
        let plugin = started(&program).await;
        let client = plugin.dispense::<Streams>("streams").await;
        let client = client.expect("a client");
        for round in 0..3_u32 {
            let open = |number: usize| {
                let client = &client;
                let word = format!("{round} {number}").into_bytes();
                async move { echoing(client, &word).await }
            };
            let opening = futures_util::stream::iter((0..AT_ONCE).map(open));
            let mut streams: Vec<_> = opening.buffer_unordered(OPENING).collect().await;
            assert_eq!(streams.len(), AT_ONCE);
            let closing: FuturesUnordered<_> = streams
                .iter_mut()
                .map(|stream| async move {
                    stream.shutdown().await.expect("closed");
                    let mut rest = Vec::new();
                    stream.read_to_end(&mut rest).await.expect("the end");
                    assert!(rest.is_empty());
                })
                .collect();
            closing.collect::<Vec<()>>().await;
        }
        greets(&plugin).await;
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_stream_and_gets_all_of_it() {
    const BYTES: u64 = 10 << 20;
    for program in peers() {
        let plugin = started(&program).await;
        let client = plugin.dispense::<Streams>("streams").await;
        let client = client.expect("a client");
        let stream = echoing(&client, b"").await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut writing = tokio::spawn(async move {
            pattern::write(&mut writer, BYTES).await?;
            writer.shutdown().await
        });
        // Nobody reads: the writer comes to a stop, and everything else goes on.
        let stuck = tokio::time::timeout(Duration::from_millis(300), &mut writing).await;
        assert!(stuck.is_err(), "10 MiB went nowhere");
        plugin.ping().await.expect("well");
        greets(&plugin).await;
        let id = client.0.broker.next_id();
        let mut listener = client.0.broker.accept(id).await.expect("a listener");
        let other = async {
            let mut stream = listener.accept().await.expect("a stream");
            pattern::write(&mut stream, BYTES).await.expect("written");
            stream.shutdown().await.expect("closed");
        };
        let ((), digest) = tokio::join!(other, client.sum(id));
        assert_eq!(digest.expect("a digest"), pattern::digest_of(BYTES));
        pattern::check(&mut reader, BYTES).await.expect("all bytes");
        writing.await.expect("its end").expect("written");
        stops_cleanly(plugin).await;
    }
}

fn descriptors(pid: &str) -> usize {
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd"));
    listed.expect("a process").count()
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse().expect("a number")
}

#[tokio::test]
async fn a_thousand_dispenses_leave_nothing_behind() {
    for program in peers() {
        let plugin = started(&program).await;
        let pid = plugin.pid().expect("a pid");
        let dispense = async |count: usize| {
            for _ in 0..count {
                greets(&plugin).await;
            }
        };
        dispense(200).await;
        let before = (descriptors(&pid.to_string()), resident(pid));
        dispense(1000).await;
        let after = (descriptors(&pid.to_string()), resident(pid));
        assert!(after.0 <= before.0 + 2, "descriptors: {before:?} {after:?}");
        // An object with its stream takes more than 4 KiB.
        let grown = after.1.saturating_sub(before.1);
        assert!(grown < 3 << 10, "{grown} KiB: {before:?} {after:?}");
        stops_cleanly(plugin).await;
    }
}

/// Longer than yamux waits for anything: 30 s between its pings, 75 s for an acknowledgement.
#[tokio::test]
#[ignore = "takes 85 s; the test command runs it beside the others"]
async fn a_connection_that_was_idle_for_85_s_still_works() {
    let idle = async |program: PathBuf| {
        let plugin = started(&program).await;
        let streams = plugin.dispense::<Streams>("streams").await;
        let streams = streams.expect("a client");
        let mut stream = echoing(&streams, b"before").await;
        tokio::time::sleep(Duration::from_secs(85)).await;
        greets(&plugin).await;
        stream.write_all(b"after").await.expect("written");
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.expect("an echo");
        assert_eq!(&back, b"after");
        stops_cleanly(plugin).await;
    };
    futures_util::future::join_all(peers().into_iter().map(idle)).await;
}

/// Answers nothing before it is dropped.
fn silent() -> Methods {
    Methods::new().method("Add", |_: outrigger_interop::netrpc::Pair| {
        std::future::pending::<Result<i64, String>>()
    })
}

#[tokio::test]
async fn a_plugin_outlives_a_host_that_vanishes_in_the_middle_of_everything() {
    for program in peers() {
        let stranger = Stranger::start(&program, &[]);
        for _ in 0..5 {
            let plugin = stranger.joined(everything()).await;
            let callbacks = plugin.dispense::<Callbacks>("callbacks").await;
            let callbacks = callbacks.expect("a client");
            let types = plugin.dispense::<Types>("types").await.expect("a client");
            let streams = plugin.dispense::<Streams>("streams").await;
            let streams = streams.expect("a client");
            let broker = plugin.broker();
            let serving = broker.serve_netrpc(broker.next_id(), silent()).await;
            let id = serving.as_ref().expect("served").id();
            // The plugin waits for the host, the host for the plugin, and bytes are on their way.
            let asking = tokio::spawn(async move { callbacks.call_host(id).await });
            let sleeping = tokio::spawn({
                let types = types.clone();
                async move { types.sleep(10_000).await }
            });
            let mut stream = echoing(&streams, b"").await;
            let writing = tokio::spawn(async move {
                let _ = pattern::write(&mut stream, 10 << 20).await;
            });
            assert_eq!(types.sleep(1).await.expect("a reply"), 1);
            drop(plugin);
            // The plugin may still say that the host has left it alone.
            let asked = asking.await.expect("its end");
            asked.expect_err("the host is silent");
            let slept = sleeping.await.expect("its end");
            let error = slept.expect_err("the connection is over");
            assert_eq!(error.code(), "netrpc-connection-lost", "{error:?}");
            writing.await.expect("its end");
        }
        let plugin = stranger.joined(everything()).await;
        greets(&plugin).await;
        // What vanished hosts had asked for does not hold up the end.
        let report = plugin.stop().await;
        assert!(!report.forced, "{report:?}");
    }
}

#[tokio::test]
async fn what_is_served_once_is_gone_after_its_connection() {
    let plugin = started(Path::new(PEER)).await;
    let client = plugin.dispense::<Callbacks>("callbacks").await;
    let client = client.expect("a client");
    let broker = plugin.broker();
    // More than a session keeps listeners for.
    for _ in 0..1500 {
        let id = client.offer_helper().await.expect("an id");
        let helper = broker.connect_netrpc(id).await.expect("a helper");
        drop(helper);
    }
    let id = broker.next_id();
    let once = broker.serve_netrpc_once(id, adder()).await.expect("served");
    let reply = client.call_host(id).await;
    assert_eq!(reply.expect("a reply"), "42");
    wait_for("the id to be free", || {
        let accepting = broker.accept(id);
        futures_util::FutureExt::now_or_never(accepting).is_some_and(|free| free.is_ok())
    })
    .await;
    drop(once);
    stops_cleanly(plugin).await;
}
