//! A plugin's life as its host sees it: start, end, and what is left.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_host::{
    Address, AddressTranslator, AppProtocolVersion, Attach, AttachedRunner, BrokerId, Deadlines,
    ExitStatus, ExpectedDigest, HostServices, KillReason, Launch, Network, PingError, PluginExited,
    PluginIdentity, PluginSet, PortRange, ProcessRunner, Reattach, Runner, RunnerError,
    RunningPlugin, ServiceSet, Started, Transport, stop_managed,
};
use outrigger_testing::{
    Fault, TestDir, copy_program, holds_within, is_gone, kill, processes_with, program,
    write_script,
};
use support::{Kept, SOON, chain, digest_of, kv, misbehaving, nothing_left, shell, until};

const NEVER: Duration = Duration::from_secs(60);

/// A host that does nothing for its plugins.
struct NoServices;

impl HostServices for NoServices {
    fn bind(&self, _: &PluginIdentity) -> ServiceSet {
        ServiceSet::new()
    }
}

// ---- the end -------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_stops_once_however_many_ask_it() {
    let dir = TestDir::new();
    let plugin = Arc::new(kv(&dir).start().await.expect("started"));
    let stops: Vec<_> = (0..16)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move { plugin.stop().await })
        })
        .collect();
    for stop in stops {
        let report = stop.await.expect("no panic");
        assert_eq!((report.status, report.forced), (ExitStatus::Code(0), false));
    }
    let again = [
        plugin.stop().await,
        plugin.kill().await,
        plugin.wait().await,
    ];
    assert!(
        again
            .iter()
            .all(|report| report.status == ExitStatus::Code(0) && !report.forced)
    );
    assert!(plugin.ping().await.is_err());
    nothing_left(&dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_stays_is_killed_once_after_the_grace_period() {
    let dir = TestDir::new();
    let plugin = misbehaving(Fault::IgnoresShutdown, &dir)
        .start()
        .await
        .expect("started");
    let plugin = Arc::new(plugin);
    let began = Instant::now();
    let stops: Vec<_> = (0..16)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move { plugin.stop().await })
        })
        .collect();
    for stop in stops {
        let report = stop.await.expect("no panic");
        assert_eq!(
            (report.status, report.forced),
            (ExitStatus::Signal(9), true)
        );
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < SOON,
        "{took:?}"
    );
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_stop_that_was_given_up_can_be_taken_up_again() {
    let dir = TestDir::new();
    let plugin = misbehaving(Fault::IgnoresShutdown, &dir)
        .start()
        .await
        .expect("started");
    let given_up = tokio::time::timeout(Duration::from_millis(20), plugin.stop_within(NEVER)).await;
    assert!(given_up.is_err());
    let report = plugin.stop_within(Duration::from_millis(20)).await;
    assert!(report.forced);
    nothing_left(&dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_given_the_time_that_its_host_sets_and_the_report_says_which_ran_out() {
    let set = |reply: u64, grace: u64| Deadlines {
        stop_reply: Duration::from_millis(reply),
        stop_grace: Duration::from_millis(grace),
        ..Deadlines::default()
    };
    let no_answer = KillReason::NoAnswer(Duration::from_millis(50));
    let stayed = KillReason::Stayed(Duration::from_millis(50));
    let late = "it did not answer within 0.05 s when it was asked to end (`stop_reply`)";
    let stays = "it did not end within 0.05 s of its answer (`stop_grace`)";
    let unable = "it could not be asked to end: it has no controller";
    let unasked = "it was not asked to end";
    let cases = [
        (Fault::AgreesLate, set(50, 60_000), Some((no_answer, late))),
        // The grace begins with the answer, which took longer than the grace.
        (Fault::AgreesLate, set(60_000, 400), None),
        (
            Fault::AgreesAndStays,
            set(60_000, 50),
            Some((stayed, stays)),
        ),
        (Fault::AgreesAndWaits, set(60_000, 60_000), None),
        (
            Fault::ControllerMissing,
            set(60_000, 60_000),
            Some((KillReason::NoController, unable)),
        ),
    ];
    for (fault, deadlines, reason) in cases {
        let dir = TestDir::new();
        let launch = misbehaving(fault, &dir).deadlines(deadlines);
        let plugin = launch.start().await.expect("started");
        plugin.ping().await.expect("an answer");
        let began = Instant::now();
        let report = plugin.stop().await;
        assert!(began.elapsed() < SOON, "{fault}: {:?}", began.elapsed());
        assert_eq!(
            report.kill_reason,
            reason.map(|(reason, _)| reason),
            "{fault}"
        );
        assert_eq!(report.forced, reason.is_some(), "{fault}");
        if let Some((reason, text)) = reason {
            assert_eq!(reason.to_string(), text);
        }
        nothing_left(&dir).await;
    }
    let dir = TestDir::new();
    let plugin = kv(&dir).start().await.expect("started");
    let report = plugin.kill().await;
    assert_eq!(report.kill_reason, Some(KillReason::Unasked));
    assert_eq!(KillReason::Unasked.to_string(), unasked);
    let both = misbehaving(Fault::AgreesLate, &dir)
        .start()
        .await
        .expect("started");
    let limit = Duration::from_millis(900);
    let report = both.stop_within(limit).await;
    assert_eq!(report.kill_reason, None, "answer and end together fit in");
    let defaults = Deadlines::default();
    let defaults = (defaults.stop_reply.as_secs(), defaults.stop_grace.as_secs());
    assert_eq!(
        defaults,
        (10, 2),
        "go-plugin's grace, and a bound that it has not"
    );
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_plugin_without_a_broker_is_offered_services_and_can_be_dialled_by_nobody() {
    let dir = TestDir::new();
    // Both before and after it is known.
    let launch = misbehaving(Fault::BrokerMissing, &dir).host_services(Arc::new(NoServices));
    let plugin = launch.start().await.expect("started");
    plugin.ping().await.expect("an answer");
    until("it is known", || plugin.broker().is_missing()).await;
    let first = plugin.serve(&NoServices).await.expect("offered");
    let second = plugin.serve(&NoServices).await.expect("offered");
    assert_ne!(first.id(), second.id());
    let began = Instant::now();
    let error = plugin.broker().dial(BrokerId(1)).await.map(drop);
    let error = error.expect_err("it has none");
    assert_eq!(error.code(), "broker-missing");
    assert_eq!(
        chain(&error),
        "the host could not open broker id 1\n\
         the other side has no broker: it does not serve `plugin.GRPCBroker`"
    );
    assert!(began.elapsed() < Duration::from_secs(2), "known at once");
    plugin.ping().await.expect("still well");
    assert_eq!(plugin.stop().await.status, ExitStatus::Code(0));
    let gone = plugin.serve(&NoServices).await.expect_err("it is gone");
    assert_eq!(gone.code(), "broker-closed");
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_call_under_which_the_plugin_is_killed_learns_so_within_100_ms() {
    let mut took = Duration::MAX;
    // The machine may be busy with something else; the host may not.
    for _ in 0..5 {
        let dir = TestDir::new();
        let plugin = misbehaving(Fault::NeverAnswers, &dir)
            .start()
            .await
            .expect("started");
        let pid = plugin.pid().expect("a process");
        let plugin = Arc::new(plugin);
        let calling = tokio::spawn({
            let plugin = plugin.clone();
            async move { plugin.ping().await }
        });
        until("the call arrived", || !plugin.stderr_tail().is_empty()).await;
        let killed = Instant::now();
        kill(pid);
        let error = calling.await.expect("no panic").expect_err("no answer");
        took = took.min(killed.elapsed());
        let PingError::Grpc(status) = &error else {
            panic!("a gRPC plugin: {error}");
        };
        assert_eq!(status.code(), tonic::Code::Unavailable);
        let exited = PluginExited::behind(&error).expect("the exit is the source");
        assert_eq!(
            (exited.code(), exited.plugin.as_str()),
            ("plugin-exited", "misbehaving-plugin")
        );
        assert_eq!(exited.report.status, ExitStatus::Signal(9));
        assert!(!exited.report.forced, "it was not this host");
        assert_eq!(exited.report.stderr, ["\"called\""]);
        assert_eq!(
            status.message(),
            "plugin `misbehaving-plugin` was killed by signal 9 (SIGKILL); \
             its last line on stderr: \"called\""
        );
        nothing_left(&dir).await;
        if took < Duration::from_millis(100) {
            return;
        }
    }
    panic!("the fastest took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_plugin_leaves_nothing() {
    let dir = TestDir::new();
    for fault in [Fault::IgnoresSignals, Fault::ChildStaysToo] {
        let plugin = misbehaving(fault, &dir).start().await.expect("started");
        plugin.ping().await.expect("an answer");
        let pid = plugin.pid().expect("a process");
        drop(plugin);
        until("the process is gone", || is_gone(pid)).await;
        nothing_left(&dir).await;
    }
    dir.assert_empty();
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let dir = TestDir::new();
    let marker = dir.path().display().to_string();
    for fault in [Fault::Silence, Fault::NeverAccepts, Fault::StderrFloodFirst] {
        let starting = misbehaving(fault, &dir).start();
        let running = until("it runs", || !processes_with(&marker).is_empty());
        tokio::select! {
            started = starting => panic!("{fault}: {started:?}"),
            () = running => {}
        }
        nothing_left(&dir).await;
    }
    dir.assert_empty();
}

#[test]
fn a_dropped_runtime_leaves_nothing_whenever_the_handle_goes() {
    let dir = TestDir::new();
    let marker = dir.path().display().to_string();
    for (threads, handle_first) in [(0, true), (0, false), (2, true), (2, false)] {
        let runtime = match threads {
            0 => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
            _ => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build(),
        };
        let runtime = runtime.expect("a runtime");
        let launch = misbehaving(Fault::ChildStaysToo, &dir);
        let plugin = runtime.block_on(launch.start()).expect("started");
        runtime.block_on(plugin.ping()).expect("an answer");
        if handle_first {
            drop(plugin);
            drop(runtime);
        } else {
            drop(runtime);
            drop(plugin);
        }
        let case = format!("{threads} threads, handle first: {handle_first}");
        assert!(
            holds_within(SOON, || processes_with(&marker).is_empty()),
            "{case}"
        );
        assert!(
            holds_within(SOON, || dir.entries().is_empty()),
            "{case}: {:?}",
            dir.entries()
        );
    }
}

#[test]
fn a_plugin_outlives_the_thread_that_started_it() {
    let dir = TestDir::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_keep_alive(Duration::from_millis(1))
        .enable_all()
        .build()
        .expect("a runtime");
    let own_name = || std::fs::read_link("/proc/thread-self").expect("a thread");
    let launch = kv(&dir);
    let handle = runtime.handle().clone();
    let start = move || {
        (
            handle.block_on(launch.start()).expect("started"),
            own_name(),
        )
    };
    let (first, thread) = std::thread::spawn(start).join().expect("no panic");
    let launch = kv(&dir);
    let handle = runtime.handle().clone();
    let start = move || {
        (
            handle.block_on(launch.start()).expect("started"),
            own_name(),
        )
    };
    let pool = runtime.spawn_blocking(start);
    let (second, pool_thread) = runtime.block_on(pool).expect("no panic");
    for (plugin, thread) in [(first, thread), (second, pool_thread)] {
        let task = std::path::Path::new("/proc").join(thread);
        assert!(
            holds_within(SOON, || !task.exists()),
            "{} is still there",
            task.display()
        );
        // A signal at the thread's end would have come before the thread was gone.
        runtime.block_on(plugin.ping()).expect("an answer");
        assert_eq!(runtime.block_on(plugin.stop()).status, ExitStatus::Code(0));
    }
}

// ---- the end of the host --------------------------------------------------

/// A host in a process of its own.
struct Holder {
    process: Child,
    pids: Vec<u32>,
}

impl Holder {
    #[allow(clippy::disallowed_methods)] // The host is no plugin.
    fn start(dir: &TestDir, times: usize, command: &[&str]) -> Self {
        let mut process = Command::new(program("holder"))
            .args(["--times", &times.to_string(), "--"])
            .args(command)
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let pids: Vec<u32> = stdout
            .lines()
            .take(times)
            .map(|line| {
                line.expect("text")
                    .strip_prefix("held ")
                    .expect("a pid")
                    .parse()
            })
            .collect::<Result<_, _>>()
            .expect("numbers");
        assert_eq!(pids.len(), times, "the host started its plugins");
        Self { process, pids }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn plugins_and_all_they_started_end_within_a_second_of_a_killed_host() {
    let misbehaving = program("misbehaving-plugin").display().to_string();
    for fault in [
        Fault::IgnoresSignals,
        Fault::ChildStaysToo,
        Fault::LeavesDaemon,
    ] {
        let dir = TestDir::new();
        let marker = format!("TMPDIR={}", dir.path().display());
        let mut holder = Holder::start(&dir, 4, &[&misbehaving, fault.as_str()]);
        let expected = if fault == Fault::IgnoresSignals { 5 } else { 9 };
        let running = || processes_with(&marker).len();
        assert!(
            holds_within(SOON, || running() == expected),
            "{fault}: {}",
            running()
        );
        holder.process.kill().expect("killed");
        let killed = Instant::now();
        assert!(
            holds_within(SOON, || running() == 0),
            "{fault}: left {}",
            running()
        );
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(1), "{fault}: {took:?}");
        assert!(holder.pids.iter().all(|pid| is_gone(*pid)));
        assert!(holds_within(Duration::from_secs(1), || dir
            .entries()
            .is_empty()));
    }
}

// ---- reattaching ----------------------------------------------------------

#[tokio::test]
async fn a_plugin_is_joined_left_and_stopped_by_another_host() {
    let dir = TestDir::new();
    let owner = kv(&dir).start().await.expect("started");
    let reattach = owner.reattach();
    assert_eq!(reattach.pid, owner.pid());
    assert!(reattach.started.is_some() && !reattach.test);
    let join = || {
        Attach::new(reattach.clone())
            .temp_dir(dir.path())
            .offer(1, PluginSet::new())
    };

    let visitor = join().connect().await.expect("joined");
    visitor.ping().await.expect("an answer");
    assert_eq!(visitor.reattach(), reattach);
    assert_eq!(visitor.negotiated_version(), AppProtocolVersion(1));
    drop(visitor);
    owner
        .ping()
        .await
        .expect("a visitor that leaves ends nothing");
    let left = join().connect().await.expect("joined").leave();
    assert_eq!(left, Some(reattach.clone()));
    owner.ping().await.expect("still there");

    let visitor = join().connect().await.expect("joined");
    let report = visitor.stop().await;
    assert_eq!((report.status, report.forced), (ExitStatus::Unknown, false));
    assert_eq!(owner.wait().await.status, ExitStatus::Code(0));
    let gone = join().connect().await.expect_err("nothing to join");
    assert_eq!(gone.code(), "process-not-found");
    drop(visitor);
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_process_that_only_has_the_same_id_is_neither_joined_nor_harmed() {
    let dir = TestDir::new();
    let owner = kv(&dir).start().await.expect("started");
    let mut reattach = owner.reattach();
    reattach.started = reattach.started.map(|ticks| ticks + 1);
    let error = Attach::new(reattach.clone())
        .temp_dir(dir.path())
        .offer(1, PluginSet::new())
        .connect()
        .await
        .expect_err("another process");
    assert_eq!(error.code(), "process-not-found");
    assert!(chain(&error).contains("is not running any more"), "{error}");
    owner.ping().await.expect("not harmed");

    // The right process, and nothing at the address.
    let mut elsewhere = owner.reattach();
    elsewhere.address.text += "-not-here";
    let launch = Attach::new(elsewhere).temp_dir(dir.path());
    let error = launch.connect().await.expect_err("nobody listens");
    assert_eq!(error.code(), "process-not-found");
    owner.ping().await.expect("not harmed");
    owner.stop().await;
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_closed_port_is_nothing_to_join() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let text = port.local_addr().expect("an address").to_string();
    drop(port);
    let reattach = Reattach {
        transport: Transport::Grpc,
        version: AppProtocolVersion(1),
        address: Address {
            network: Network::Tcp,
            text,
        },
        pid: Some(std::process::id()),
        started: None,
        test: false,
    };
    let error = Attach::new(reattach)
        .connect()
        .await
        .expect_err("nobody listens");
    assert_eq!(error.code(), "process-not-found");
}

#[tokio::test]
async fn a_plugin_in_test_mode_is_never_stopped() {
    let dir = TestDir::new();
    let owner = kv(&dir).start().await.expect("started");
    let reattach = Reattach {
        test: true,
        pid: None,
        ..owner.reattach()
    };
    let launch = Attach::new(reattach).temp_dir(dir.path());
    let visitor = launch
        .offer(1, PluginSet::new())
        .connect()
        .await
        .expect("joined");
    assert_eq!((visitor.id(), visitor.pid()), (String::new(), None));
    visitor.stop().await;
    visitor.kill().await;
    visitor.ping().await.expect("an answer");
    drop(visitor);
    owner.ping().await.expect("an answer");
    owner.stop().await;
    nothing_left(&dir).await;
}

#[tokio::test]
async fn managed_plugins_and_no_others_are_stopped_together() {
    let dir = TestDir::new();
    let first = kv(&dir).managed().start().await.expect("started");
    let second = kv(&dir).managed().start().await.expect("started");
    let other = kv(&dir).start().await.expect("started");
    stop_managed().await;
    for plugin in [&first, &second] {
        assert_eq!(
            plugin.exited().map(|report| report.status),
            Some(ExitStatus::Code(0))
        );
    }
    other.ping().await.expect("an answer");
    stop_managed().await;
    other.stop().await;
    nothing_left(&dir).await;
}

// ---- what a plugin gets ---------------------------------------------------

/// Runs in a process of its own, with stdin and variables that the test below set.
#[tokio::test]
#[ignore = "part of the test below"]
async fn a_host_with_variables_of_its_own() {
    if std::env::var_os("SET_BY").is_none() {
        return;
    }
    let script = r#"read -r line; echo "stdin: $line" >&2; env >&2; exit 9"#;
    let show = async |launch: fn(Launch) -> Launch| {
        let (dir, stderr) = (TestDir::new(), Kept::default());
        let script = shell(script, &dir).stderr(stderr.clone());
        let script = script
            .env("SET_BY", "caller")
            .env("ONLY_CALLER", "caller")
            .env("PLUGIN_PROTOCOL_VERSIONS", "caller")
            .env("COOKIE", "caller");
        let error = launch(script).start().await.expect_err("it exits");
        assert_eq!(error.code(), "exited-early");
        stderr.text()
    };
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    let text = show(|launch| launch).await;
    for line in [
        "stdin: typed by the user",
        "SET_BY=host",
        "ONLY_CALLER=caller",
        "PLUGIN_PROTOCOL_VERSIONS=1",
        "COOKIE=value",
        "PLUGIN_MIN_PORT=10000",
        "PLUGIN_MAX_PORT=25000",
    ] {
        assert!(has(&text, line), "no {line} in {text}");
    }
    // What the host itself got from its own host.
    for name in [
        "PLUGIN_CLIENT_CERT",
        "PLUGIN_MULTIPLEX_GRPC",
        "PLUGIN_UNIX_SOCKET_GROUP",
    ] {
        assert!(!text.contains(name), "{text}");
    }
    assert!(
        !text.contains("PLUGIN_UNIX_SOCKET_DIR=/another/dir"),
        "{text}"
    );

    let text = show(Launch::skip_host_env).await;
    assert!(
        has(&text, "SET_BY=caller") && !text.contains("HOME="),
        "{text}"
    );
    let text = show(|launch| {
        let ports = PortRange::new(20_000, 20_010).expect("a range");
        let launch = launch.mux_broker().auto_mtls().socket_group("0");
        launch.port_range(ports)
    })
    .await;
    for line in [
        "PLUGIN_MULTIPLEX_GRPC=true",
        "PLUGIN_UNIX_SOCKET_GROUP=0",
        "PLUGIN_MIN_PORT=20000",
        "PLUGIN_MAX_PORT=20010",
    ] {
        assert!(has(&text, line), "no {line} in {text}");
    }
    assert!(
        has(&text, "PLUGIN_CLIENT_CERT=-----BEGIN CERTIFICATE-----"),
        "{text}"
    );
}

#[test]
#[allow(clippy::disallowed_methods)] // The host is no plugin.
fn a_plugin_gets_stdin_and_the_variables_that_are_meant_for_it() {
    let mut host = Command::new(std::env::current_exe().expect("its own path"))
        .args([
            "--exact",
            "a_host_with_variables_of_its_own",
            "--ignored",
            "--nocapture",
        ])
        .env("SET_BY", "host")
        .env("PLUGIN_CLIENT_CERT", "another's")
        .env("PLUGIN_MULTIPLEX_GRPC", "true")
        .env("PLUGIN_UNIX_SOCKET_GROUP", "another's")
        .env("PLUGIN_UNIX_SOCKET_DIR", "/another/dir")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = host.stdin.take().expect("piped");
    stdin
        .write_all(b"typed by the user\nand again\nand again\n")
        .expect("written");
    let output = host.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
async fn a_group_gets_the_sockets_and_their_directory() {
    use std::os::unix::fs::MetadataExt;

    let own = std::fs::metadata("/proc/self").expect("metadata").gid();
    let table = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(own)).then(|| name.to_owned())
    });
    for group in [Some(own.to_string()), name].into_iter().flatten() {
        let dir = TestDir::new();
        let plugin = kv(&dir)
            .socket_group(&group)
            .start()
            .await
            .expect("started");
        let socket = std::path::Path::new(&plugin.address().text).to_owned();
        let seen = |path: &std::path::Path| {
            let meta = std::fs::metadata(path).expect("metadata");
            (meta.mode() & 0o7777, meta.gid())
        };
        assert_eq!(seen(&socket), (0o660, own), "{group}");
        assert_eq!(
            seen(socket.parent().expect("a directory")),
            (0o770, own),
            "{group}"
        );
        plugin.stop().await;
        nothing_left(&dir).await;
    }
    let dir = TestDir::new();
    let error = kv(&dir)
        .socket_group("no such group")
        .start()
        .await
        .expect_err("refused");
    assert_eq!(error.code(), "socket-directory-failed");
    assert!(
        chain(&error).ends_with("no group is named `no such group`"),
        "{}",
        chain(&error)
    );
    dir.assert_empty();
}

#[tokio::test]
async fn a_socket_directory_that_a_cleaner_removed_is_made_again() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TestDir::new();
    let plugin = kv(&dir).start().await.expect("started");
    let [socket_dir] = &dir.entries()[..] else {
        panic!("{:?}", dir.entries())
    };
    for _ in 0..2 {
        std::fs::remove_dir_all(socket_dir).expect("removed");
        let serving = plugin.serve(&NoServices).await.expect("offered");
        let mode = std::fs::metadata(socket_dir).expect("made again");
        assert_eq!(mode.permissions().mode() & 0o7777, 0o700);
        let sockets = std::fs::read_dir(socket_dir).expect("listed").count();
        assert_eq!(sockets, 1);
        drop(serving);
    }
    plugin.stop().await;
    nothing_left(&dir).await;
    dir.assert_empty();
}

#[tokio::test]
async fn without_a_group_the_directory_is_the_users_alone() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TestDir::new();
    let plugin = kv(&dir).start().await.expect("started");
    let [socket_dir] = &dir.entries()[..] else {
        panic!("{:?}", dir.entries())
    };
    let mode = std::fs::metadata(socket_dir)
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
    plugin.stop().await;
    dir.assert_empty();
}

// ---- which program is started ---------------------------------------------

#[tokio::test]
async fn a_program_with_another_digest_is_not_started() {
    let dir = TestDir::new();
    let (script, trace) = (dir.path().join("plugin"), dir.path().join("trace"));
    write_script(
        &script,
        &format!("#!/bin/sh\necho ran > {}\n", trace.display()),
    );
    let launch = || Launch::new(&script, outrigger_host::MagicCookie::new("COOKIE", "value"));
    let digest = ExpectedDigest::sha256(&[7; 32]).expect("32 bytes");
    let error = launch()
        .expect_digest(digest)
        .start()
        .await
        .expect_err("refused");
    assert_eq!(error.code(), "digest-mismatch");
    let text = chain(&error);
    let expected = "07".repeat(32);
    assert!(
        text.starts_with("plugin `plugin` is not the program that was meant\n"),
        "{text}"
    );
    assert!(text.ends_with(&format!(", expected {expected}")), "{text}");
    assert!(!trace.exists(), "it ran");
    let missing = Launch::new("/nonexistent", outrigger_host::MagicCookie::new("C", "v"));
    let digest = ExpectedDigest::sha256(&[7; 32]).expect("32 bytes");
    let error = missing
        .expect_digest(digest)
        .start()
        .await
        .expect_err("refused");
    assert_eq!(error.code(), "digest-unreadable");
}

#[tokio::test]
async fn programs_and_scripts_with_the_right_digest_run() {
    let dir = TestDir::new();
    let elf = dir.path().join("elf");
    copy_program(&program("kv"), &elf);
    let script = dir.path().join("script");
    write_script(
        &script,
        &format!("#!/bin/sh\nexec {} \"$@\"\n", elf.display()),
    );
    for path in [&elf, &script] {
        let digest = digest_of(path);
        let cookie = outrigger_host::MagicCookie::new("BASIC_PLUGIN", "hello");
        let launch = Launch::new(path, cookie).offer(1, PluginSet::new());
        let launch = launch.temp_dir(dir.path()).expect_digest(digest);
        let plugin = launch.start().await.expect("started");
        plugin.ping().await.expect("an answer");
        assert_eq!(plugin.stop().await.status, ExitStatus::Code(0));
        nothing_left(&dir).await;
    }
}

#[tokio::test]
async fn a_program_that_is_replaced_after_the_check_never_runs() {
    let dir = TestDir::new();
    let path = |name: &str| dir.path().join(name);
    write_script(&path("good"), "#!/bin/sh\nexit 3\n");
    let bad = format!("#!/bin/sh\necho ran > {}\n", path("trace").display());
    write_script(&path("bad"), &bad);
    write_script(&path("plugin"), "#!/bin/sh\nexit 3\n");
    let digest = digest_of(&path("good"));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (stop, dir) = (stop.clone(), dir.path().to_owned());
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["bad", "good"] {
                    std::fs::hard_link(dir.join(name), dir.join("next")).expect("linked");
                    std::fs::rename(dir.join("next"), dir.join("plugin")).expect("renamed");
                    // A rename onto another name of the same file leaves both.
                    let _ = std::fs::remove_file(dir.join("next"));
                }
            }
        }
    });
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let cookie = outrigger_host::MagicCookie::new("COOKIE", "value");
        let launch = Launch::new(path("plugin"), cookie).expect_digest(digest.clone());
        let error = launch
            .temp_dir(dir.path())
            .start()
            .await
            .expect_err("no plugin");
        *seen.entry(error.code()).or_insert(0) += 1;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().expect("no panic");
    assert!(!path("trace").exists(), "{seen:?}");
    assert!(
        seen.keys()
            .all(|code| ["digest-mismatch", "exited-early"].contains(code)),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_run_is_diagnosed() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TestDir::new();
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    };
    let mut foreign = vec![0; 64];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[18] = 22;
    let own = std::env::consts::ARCH;
    let foreign_hint = format!("it is ELF s390x and this host is {own}; rebuild it for this host");
    let not_found = "No such file or directory (os error 2)";
    let cases = [
        (
            dir.path().join("missing"),
            "program-not-found",
            not_found,
            "build it or correct its path",
        ),
        (
            write("plain", b"#!/bin/sh\n", 0o644),
            "program-not-executable",
            "Permission denied (os error 13)",
            "make it executable (`chmod +x`)",
        ),
        (
            write("orphan", b"#!/no/such/interpreter -x\n", 0o755),
            "interpreter-not-found",
            not_found,
            "its first line names \"/no/such/interpreter\", which does not exist; install it or change the line",
        ),
        (
            write("foreign", &foreign, 0o755),
            "wrong-architecture",
            "Exec format error (os error 8)",
            &foreign_hint,
        ),
        (
            dir.path().to_owned(),
            "program-is-a-directory",
            "Permission denied (os error 13)",
            "name the program inside it",
        ),
    ];
    for (path, code, system, hint) in cases {
        let cookie = outrigger_host::MagicCookie::new("COOKIE", "value");
        let error = Launch::new(&path, cookie)
            .named("greeter")
            .start()
            .await
            .expect_err("refused");
        assert_eq!(error.code(), code);
        let expected =
            format!("plugin `greeter` could not be started\ncould not start the program\n{system}");
        assert_eq!(chain(&error), expected);
        assert_eq!(error.hint().as_deref(), Some(hint));
        assert!(
            error
                .diagnosis()
                .is_some_and(|diagnosis| diagnosis.path == path)
        );
    }
}

#[tokio::test]
async fn a_failed_start_says_what_the_plugin_said_and_how_it_ended() {
    let dir = TestDir::new();
    let failed = async |script: &str| {
        let error = shell(script, &dir).start().await.expect_err("no plugin");
        let text = chain(&error);
        // How long it took is the machine's business.
        let (before, after) = text.split_once(" after ").unwrap_or((&text, ""));
        let after = after
            .split_once(" ms")
            .map_or(String::new(), |(_, rest)| rest.to_owned());
        (error.code(), format!("{before}{after}"), error.hint())
    };
    let (code, text, _) = failed("echo 'opening database' >&2; exit 3").await;
    assert_eq!(code, "exited-early");
    assert_eq!(
        text,
        "plugin `script` exited before its handshake; it exited with status 3; \
         its last line on stderr: \"opening database\""
    );
    let (code, text, _) = failed("kill -SYS $$").await;
    assert_eq!(code, "exited-early");
    assert_eq!(
        text,
        "plugin `script` exited before its handshake; it was killed by signal 31 (SIGSYS)"
    );
    let (code, text, hint) = failed("echo 'usage: greeter [--serve]'; exit 2").await;
    assert_eq!(code, "handshake-malformed");
    assert_eq!(
        text,
        "plugin `script` printed no usable handshake line; it exited with status 2\n\
         expected a handshake line of at least 4 fields separated by `|`, found 1 in \
         \"usage: greeter [--serve]\""
    );
    assert_eq!(
        hint.as_deref(),
        Some("keep stdout for the handshake; print everything else to stderr")
    );
    // A last line without an end is a line.
    let (code, _, _) = failed("printf '1|99|unix|/nonexistent|grpc|'; exec >&-; sleep 60").await;
    assert_eq!(code, "app-version-mismatch");
    nothing_left(&dir).await;
}

// ---- runners and translators ----------------------------------------------

/// Runs plain processes and writes down what it was asked.
#[derive(Clone, Debug, Default)]
struct Recording {
    seen: Arc<Mutex<Vec<String>>>,
    refuses: bool,
}

impl Recording {
    fn note(&self, text: String) {
        self.seen.lock().expect("no panic").push(text);
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

#[async_trait::async_trait]
impl Runner for Recording {
    async fn start(&self, command: &outrigger_host::Command) -> Result<Started, RunnerError> {
        let variable = |name: &str| {
            let found = command.environment.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        assert_eq!(
            variable("PLUGIN_UNIX_SOCKET_DIR").as_deref(),
            Some(command.socket_dir.as_os_str())
        );
        assert!(command.socket_dir.is_dir());
        self.note(format!("start {:?}", command.arguments));
        if self.refuses {
            return Err(RunnerError::Other("not today".into()));
        }
        ProcessRunner.start(command).await
    }

    fn translator(&self) -> Arc<dyn AddressTranslator> {
        Arc::new(self.clone())
    }
}

impl AddressTranslator for Recording {
    fn plugin_to_host(&self, address: Address) -> Result<Address, String> {
        self.note(format!("to host {}", address.network));
        Ok(address)
    }

    fn host_to_plugin(&self, address: Address) -> Result<Address, String> {
        self.note(format!("to plugin {}", address.network));
        match self.refuses {
            true => Err("no way in".into()),
            false => Ok(address),
        }
    }
}

#[tokio::test]
async fn a_runner_of_ones_own_starts_the_plugin_and_translates_every_address() {
    let dir = TestDir::new();
    let runner = Recording::default();
    let fault = Fault::BrokerAnnouncementStorm;
    let plugin = misbehaving(fault, &dir)
        .runner(runner.clone())
        .start()
        .await
        .expect("started");
    assert_eq!(
        runner.seen(),
        [
            format!("start [{:?}]", fault.as_str()),
            "to host unix".into()
        ]
    );
    let plugin = Arc::new(plugin);
    // It announces its ids before it answers, and the answer may take its time.
    let asking = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.ping().await }
    });
    let error = plugin
        .broker()
        .dial(BrokerId(1))
        .await
        .map(drop)
        .expect_err("nobody listens");
    assert_eq!(error.code(), "broker-peer-unreachable");
    assert_eq!(runner.seen()[2..], ["to host unix"]);
    let broker = plugin.broker();
    let serving = broker
        .serve(broker.next_id(), Default::default())
        .await
        .expect("served");
    assert_eq!(runner.seen()[3..], ["to plugin unix"]);
    drop(serving);
    asking.abort();
    plugin.kill().await;
    nothing_left(&dir).await;
}

#[tokio::test]
async fn a_runner_that_fails_and_an_address_without_a_way_are_reported() {
    let dir = TestDir::new();
    let refusing = Recording {
        refuses: true,
        ..Recording::default()
    };
    let error = kv(&dir)
        .runner(refusing.clone())
        .start()
        .await
        .expect_err("refused");
    assert_eq!(error.code(), "start-failed");
    assert_eq!(
        chain(&error),
        "plugin `kv` could not be started\nthe runner failed\nnot today"
    );
    dir.assert_empty();
    let plugin = kv(&dir).translate(refusing).start().await.expect("started");
    let broker = plugin.broker();
    let error = broker
        .serve(broker.next_id(), Default::default())
        .await
        .expect_err("no way");
    assert_eq!(error.code(), "broker-address-unusable");
    plugin.stop().await;
    nothing_left(&dir).await;
}

/// Never ends by itself, and cannot be killed.
struct Immortal;

#[async_trait::async_trait]
impl AttachedRunner for Immortal {
    async fn wait(&self) -> ExitStatus {
        std::future::pending().await
    }

    fn kill(&self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn id(&self) -> String {
        "immortal".into()
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}

#[tokio::test]
async fn a_process_that_another_runner_holds_is_joined_through_it() {
    let dir = TestDir::new();
    let owner = kv(&dir).start().await.expect("started");
    let reattach = Reattach {
        pid: None,
        ..owner.reattach()
    };
    let visitor: RunningPlugin = Attach::new(reattach)
        .runner(Arc::new(Immortal))
        .temp_dir(dir.path())
        .offer(1, PluginSet::new())
        .deadlines(Deadlines {
            stop_grace: Duration::from_millis(10),
            ..Deadlines::default()
        })
        .connect()
        .await
        .expect("joined");
    assert_eq!(visitor.id(), "immortal");
    let began = Instant::now();
    visitor.stop().await;
    assert!(began.elapsed() < SOON, "stopping is bounded");
    // The plugin did as it was asked; only its runner does not know.
    assert_eq!(owner.wait().await.status, ExitStatus::Code(0));
    drop(visitor);
    nothing_left(&dir).await;
}
