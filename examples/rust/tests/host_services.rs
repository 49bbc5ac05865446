//! Plugins that use granted services through the SDK, in processes of their
//! own, over every kind of connection, by descriptor and by call.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use outrigger_examples::granting::{self, Rights};
use outrigger_examples::proto::bench::CallbackRequest;
use outrigger_examples::proto::filelister::FileListRequest;
use outrigger_examples::{Bench, FileLister, bench_cookie, host_services_cookie};
use outrigger_host::{AllowedTransports, Connection, Launch, PluginSet, RunningPlugin};
use outrigger_manifest::{Manifest, Places, Policy};
use outrigger_services::{
    AuditLog, GrantedServices, Limits, NetworkLimits, NetworkSettings, Verdict,
};

use support::python;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hostclient");

/// A host's side: a directory that is granted, an echo server, a server that
/// only takes and says how much it was, and a port to listen on; an echo server, a
/// port where nobody is and one to bind, for UDP.
struct Side {
    dir: tempfile::TempDir,
    port: u16,
    http: u16,
    sink: u16,
    taken: Receiver<usize>,
    listen: u16,
    udp: u16,
    free: u16,
    bind: u16,
    services: GrantedServices,
}

/// A server whose peers count what they send; ends with the test's process.
fn sink() -> (u16, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, taken) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), sender) = (stream, sender.clone()) else {
                return;
            };
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                let mut all = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    all += read;
                }
                let _ = sender.send(all);
            });
        }
    });
    (port, taken)
}

/// A server that says hello to every request; ends with the test's process.
fn http() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut request = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            while let Ok(3..) = request.read_line(&mut line) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let reply = "HTTP/1.1 200 OK\r\nX-Said: yes\r\nContent-Length: 5\r\n\
                         Connection: close\r\n\r\nhello";
            if request.read_exact(&mut body).is_ok() {
                let _ = (&stream).write_all(reply.as_bytes());
            }
        }
    });
    port
}

/// A UDP server that returns what it gets; ends with the test's process.
fn udp_echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    port
}

/// A port for UDP that nobody has: none of those that the system gives to whoever
/// asks for any.
fn free_udp_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 100).unwrap_or(0) * 100;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn side() -> Side {
    side_with("kill: [children]\n    list: [children]\n    signal: [children]\n")
}

/// `controls` is what the plugin may do to its commands.
fn side_with(controls: &str) -> Side {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let http = http();
    let (sink, taken) = sink();
    // Nobody else takes a port that was just given back.
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let listen = listen.expect("a port").port();
    let (udp, free, bind) = (udp_echo(), free_udp_port(), free_udp_port());
    let manifest = format!(
        "plugin: {{name: client, format: grpc, entrypoint: client}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
         services: [filesystem, environment, process, network, clock, log]\n\
         capabilities:\n  \
         filesystem: [{{path: {dir:?}, permissions: [read, write, list, create, delete], recursive: true}}]\n  \
         environment: {{set: {{HOSTCLIENT_SHOWN: shown}}}}\n  \
         network:\n    egress:\n      \
         - {{protocol: tcp, hosts: [127.0.0.1, localhost], ports: [{port}, {http}, {sink}]}}\n      \
         - {{protocol: udp, hosts: [127.0.0.1, localhost], ports: [{udp}, {free}]}}\n    \
         ingress:\n      - {{protocol: tcp, ports: [{listen}], allowed_origins: [127.0.0.1]}}\n      \
         - {{protocol: udp, ports: [{bind}], allowed_origins: [127.0.0.1]}}\n  \
         process:\n    exec: [{{command: /bin/cat}}, {{command: /bin/echo, args: [\"*\"]}}]\n    \
         {controls}",
        dir = dir.path(),
    );
    let manifest = Manifest::parse(&manifest).unwrap_or_else(|problems| panic!("{problems}"));
    let places = Places::new("/plugins/client", "/data/client").expect("places");
    let decision = Policy::allow_requested().decide(&manifest, &places);
    assert!(decision.is_complete(), "{:?}", decision.refused());
    let services = GrantedServices::new(decision.grants());
    Side {
        dir,
        port,
        http,
        sink,
        taken,
        listen,
        udp,
        free,
        bind,
        services,
    }
}

fn launch(side: &Side) -> Launch {
    let launch = Launch::new(PROGRAM, bench_cookie());
    with_side(
        launch.offer(1, PluginSet::new().with::<Bench>("client")),
        side,
    )
}

fn with_side(launch: Launch, side: &Side) -> Launch {
    let dir: &Path = side.dir.path();
    launch
        .env("HOSTCLIENT_DIR", dir)
        .env("HOSTCLIENT_PORT", side.port.to_string())
        .env("HOSTCLIENT_HTTP", side.http.to_string())
        .env("HOSTCLIENT_SINK", side.sink.to_string())
        .env("HOSTCLIENT_LISTEN", side.listen.to_string())
        .env("HOSTCLIENT_UDP", side.udp.to_string())
        .env("HOSTCLIENT_FREE", side.free.to_string())
        .env("HOSTCLIENT_BIND", side.bind.to_string())
        .host_services(Arc::new(side.services.clone()))
}

async fn ask(plugin: &RunningPlugin, kind: &str) -> Result<(), String> {
    let request = CallbackRequest {
        kind: kind.to_owned(),
        ..CallbackRequest::default()
    };
    let mut client = plugin.dispense::<Bench>("client").await.expect("a client");
    let asked = client.call_back(request).await;
    asked
        .map(|_| ())
        .map_err(|status| format!("{kind}: {}", status.message()))
}

async fn ask_all(plugin: &RunningPlugin, prefix: &str) {
    for kind in [
        "files", "tree", "large", "refused", "small", "commands", "network", "leases",
    ] {
        let asked = ask(plugin, &format!("{prefix}{kind}")).await;
        asked.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What this process, or the plugin, has open.
fn open_files(pid: u32) -> usize {
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd"));
    listed.map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_plugin_uses_its_host_over_plain_grpc_and_leaves_nothing_behind() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    ask_all(&plugin, "").await;
    let pid = plugin.pid().expect("a pid");
    let before = open_files(pid);
    for _ in 0..3 {
        ask(&plugin, "files").await.expect("again");
        ask(&plugin, "commands").await.expect("again");
    }
    support::wait_for("the plugin to close its files", || {
        open_files(pid) <= before + 4
    })
    .await;
    let report = plugin.stop().await;
    assert!(report.status.is_success(), "{:?}", report.stderr);
}

#[tokio::test]
async fn a_plugin_uses_its_host_over_certificates_and_over_one_connection() {
    let side = side();
    let plugin = launch(&side).auto_mtls().start().await.expect("it starts");
    ask_all(&plugin, "").await;
    plugin.stop().await;
    let launch = launch(&side).auto_mtls().mux_broker();
    let plugin = launch.start().await.expect("it starts");
    ask_all(&plugin, "").await;
    plugin.stop().await;
}

#[tokio::test]
async fn a_plugin_uses_its_host_over_netrpc() {
    let side = side();
    let launch = launch(&side)
        .arg("netrpc")
        .allow(AllowedTransports::ALL)
        .auto_mtls();
    let plugin = launch.start().await.expect("it starts");
    let Connection::NetRpc(session) = plugin.connection() else {
        panic!("net/rpc");
    };
    let client = session
        .dispense("client", std::time::Duration::from_secs(5))
        .await
        .expect("an object");
    for kind in ["files", "tree", "commands", "network", "refused"] {
        let done: Result<bool, _> = client.call("Plugin.Run", &kind.to_owned()).await;
        assert!(done.expect(kind));
    }
    plugin.stop().await;
}

#[tokio::test]
async fn counted_bytes_stay_with_the_host_and_services_can_come_with_a_call() {
    let side = side();
    let limits = Limits {
        written_bytes: 1 << 20,
        ..Limits::default()
    };
    let counting = side.services.clone().limits(limits);
    let plugin = launch(&side).start().await.expect("it starts");
    for (kind, services) in [("quota", &counting), ("files", &side.services)] {
        let serving = plugin.serve(services).await.expect("it is served");
        let id = serving.id().0;
        let asked = ask(&plugin, &format!("{kind}@{id}")).await;
        asked.unwrap_or_else(|error| panic!("{error}"));
    }
    // A rate of bytes holds for everything, so that nothing is handed over.
    let limits = Limits {
        bytes_per_second: 1 << 30,
        ..Limits::default()
    };
    let slow = side.services.clone().limits(limits);
    let serving = plugin.serve(&slow).await.expect("it is served");
    let asked = ask(&plugin, &format!("calls-files@{}", serving.id().0)).await;
    asked.unwrap_or_else(|error| panic!("{error}"));
    let serving = plugin.serve(&slow).await.expect("it is served");
    let asked = ask(&plugin, &format!("files@{}", serving.id().0)).await;
    assert!(asked.expect_err("no descriptors").contains("hands over no"));
    plugin.stop().await;
}

#[tokio::test]
async fn a_dropped_child_ends_without_a_grant_to_kill_and_one_that_was_waited_for_is_left_alone() {
    let side = side_with("list: [children]\n");
    let (audit, mut records) = AuditLog::channel(10_000);
    let side = Side {
        services: side.services.clone().audit(audit),
        ..side
    };
    let plugin = launch(&side).start().await.expect("it starts");
    ask(&plugin, "children")
        .await
        .expect("by descriptor and by call");
    plugin.stop().await;
    let mut ends = Vec::new();
    while let Some(record) = records.try_recv() {
        assert_eq!(record.verdict, Verdict::Allowed, "{record}");
        if ["close", "kill", "wait"].contains(&record.operation) {
            ends.push((record.operation, record.code));
        }
    }
    let once = [("wait", "ok"), ("close", "ok")];
    assert_eq!(ends, [once, once].concat());
}

#[tokio::test]
async fn what_was_written_to_a_dropped_connection_arrives_by_descriptor_and_by_call() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    ask(&plugin, "dropped").await.expect("it writes");
    // So slow that most of it is still with the plugin when it is dropped.
    let limits = Limits {
        bytes_per_second: 1 << 20,
        ..Limits::default()
    };
    let slow = side.services.clone().limits(limits);
    let serving = plugin.serve(&slow).await.expect("it is served");
    let asked = ask(&plugin, &format!("calls-dropped@{}", serving.id().0)).await;
    asked.unwrap_or_else(|error| panic!("{error}"));
    // Two by address and two by name: in both ways, and slowly.
    let mut taken = Vec::new();
    support::wait_for("the end of twelve connections", || {
        taken.extend(side.taken.try_iter());
        taken.len() == 12
    })
    .await;
    assert_eq!(taken, [1 << 20; 12]);
    plugin.stop().await;
}

#[tokio::test]
async fn listening_goes_on_after_a_connection_that_was_not_taken_in_time() {
    let mut side = side();
    let limits = NetworkLimits {
        unclaimed_timeout: Duration::from_millis(100),
        ..NetworkLimits::default()
    };
    side.services = side
        .services
        .network(&NetworkSettings::new().limits(limits));
    let plugin = launch(&side).start().await.expect("it starts");
    ask(&plugin, "calls-listen").await.expect("it listens");
    plugin.stop().await;
}

#[tokio::test]
async fn datagrams_of_a_plugin_come_and_go_by_descriptor_and_by_call() {
    let side = side();
    for launch in [launch(&side), launch(&side).auto_mtls().mux_broker()] {
        let plugin = launch.start().await.expect("it starts");
        ask(&plugin, "datagrams").await.expect("it exchanges them");
        plugin.stop().await;
    }
}

#[tokio::test]
async fn a_port_of_a_plugin_that_died_is_free_again() {
    let side = side();
    for kind in ["held", "calls-held"] {
        let plugin = launch(&side).start().await.expect("it starts");
        ask(&plugin, kind).await.expect("it binds");
        let at = ("127.0.0.1", side.bind);
        UdpSocket::bind(at).expect_err("it is the plugin's");
        plugin.kill().await;
        support::wait_for("the port to be free", || UdpSocket::bind(at).is_ok()).await;
    }
}

#[tokio::test]
async fn a_request_too_long_for_the_descriptor_socket_is_made_as_a_call() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    ask(&plugin, "long").await.expect("it runs");
    plugin.stop().await;
}

#[tokio::test]
async fn a_plugin_without_services_is_told_what_its_host_must_do() {
    let side = side();
    let launch = Launch::new(PROGRAM, bench_cookie())
        .offer(1, PluginSet::new().with::<Bench>("client"))
        .env("HOSTCLIENT_DIR", side.dir.path());
    let plugin = launch.start().await.expect("it starts");
    let error = ask(&plugin, "files").await.expect_err("no services");
    assert!(error.contains("Launch::host_services"), "{error}");
    plugin.stop().await;
}

#[tokio::test]
async fn a_plugin_in_python_uses_its_host_by_descriptor_and_by_call() {
    let Some(python) = python() else { return };
    let side = side();
    let data = side.dir.path().join("data");
    std::fs::create_dir_all(data.join("below")).expect("a directory");
    std::fs::write(data.join("note"), b"hello").expect("a file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../python/granted_lister.py");
    let launch = Launch::new(python, host_services_cookie())
        .arg(script)
        .offer(1, PluginSet::new().with::<FileLister>("py-lister"))
        .host_services(Arc::new(side.services.clone()));
    let plugin = launch.start().await.expect("it starts");
    let mut lister = plugin
        .dispense::<FileLister>("py-lister")
        .await
        .expect("a client");
    let mut list = async |path: &str| {
        let request = FileListRequest {
            path: path.to_owned(),
            ..FileListRequest::default()
        };
        let reply = lister.list(request).await.expect("an answer").into_inner();
        (reply.entry, reply.error.unwrap_or_default())
    };
    let (entries, error) = list(data.to_str().expect("text")).await;
    assert_eq!(error, "");
    assert_eq!(
        entries,
        [
            "d below/",
            "- note 5 b'hello' by descriptor",
            "d below/",
            "- note 5 b'hello' by call",
        ]
    );
    let (entries, error) = list("/etc").await;
    assert!(entries.is_empty());
    assert!(
        error.starts_with("outside-grant") || error.starts_with("not-granted"),
        "{error}"
    );
    plugin.stop().await;
}

#[tokio::test]
async fn all_of_the_sdk_in_python_works_by_descriptor_and_by_call() {
    let Some(python) = python() else { return };
    let mut side = side();
    let limits = NetworkLimits {
        unclaimed_timeout: Duration::from_millis(100),
        ..NetworkLimits::default()
    };
    side.services = side
        .services
        .network(&NetworkSettings::new().limits(limits));
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../bindings/python/tests/hostclient.py"
    );
    let launch = Launch::new(python, host_services_cookie())
        .arg(script)
        .offer(1, PluginSet::new().with::<FileLister>("client"));
    let launch = with_side(launch, &side);
    let plugin = launch.start().await.expect("it starts");
    let lister = plugin.dispense::<FileLister>("client").await;
    let lister = lister.expect("a client");
    let ask = async |kind: String| {
        let request = FileListRequest {
            path: kind,
            ..FileListRequest::default()
        };
        let reply = lister.clone().list(request).await.expect("an answer");
        let error = reply.into_inner().error;
        error.map_or(Ok(()), Err)
    };
    for kind in [
        "files",
        "tree",
        "large",
        "refused",
        "small",
        "commands",
        "network",
        "slow",
        "dropped",
        "calls-listen",
        "datagrams",
        "http",
        "leases",
    ] {
        let asked = ask(kind.to_owned()).await;
        asked.unwrap_or_else(|error| panic!("{error}"));
    }
    // So slow that much of it is still with the plugin when it is closed.
    let limits = Limits {
        bytes_per_second: 1 << 20,
        ..Limits::default()
    };
    let slow = side.services.clone().limits(limits);
    let serving = plugin.serve(&slow).await.expect("it is served");
    let asked = ask(format!("calls-dropped@{}", serving.id().0)).await;
    asked.unwrap_or_else(|error| panic!("{error}"));
    let mut taken = Vec::new();
    support::wait_for("the end of twelve connections", || {
        taken.extend(side.taken.try_iter());
        taken.len() == 12
    })
    .await;
    assert_eq!(taken, [1 << 20; 12]);
    plugin.stop().await;
}

#[tokio::test]
async fn a_plugin_in_go_uses_its_host_by_the_published_proto() {
    let Some(program) = support::go_peer("hostclient") else {
        return;
    };
    let side = side();
    let data = side.dir.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::write(data.join("note"), b"hello").expect("a file");
    let launch = || {
        Launch::new(&program, host_services_cookie())
            .offer(1, PluginSet::new().with::<FileLister>("hostclient"))
            .host_services(Arc::new(side.services.clone()))
    };
    for launch in [launch(), launch().auto_mtls(), launch().mux_broker()] {
        let plugin = launch.start().await.expect("it starts");
        let lister = plugin.dispense::<FileLister>("hostclient").await;
        let mut lister = lister.expect("a client");
        for (path, entries, error) in [
            (data.to_str().expect("text"), vec!["- note \"hello\""], ""),
            ("/etc", vec![], "outside the granted directory"),
        ] {
            let request = FileListRequest {
                path: path.to_owned(),
                ..FileListRequest::default()
            };
            let reply = lister.list(request).await.expect("an answer").into_inner();
            assert_eq!(reply.entry, entries);
            assert!(reply.error.unwrap_or_default().contains(error));
        }
        plugin.stop().await;
    }
}

#[tokio::test]
async fn a_lister_keeps_what_it_saw_with_its_host_until_it_is_gone() {
    let (listed, temporary) = (tempfile::tempdir(), tempfile::tempdir());
    let (listed, temporary) = (
        listed.expect("a directory"),
        temporary.expect("a directory"),
    );
    std::fs::write(listed.path().join("old"), "1\n2\n").expect("a file");
    let services = granting::services(listed.path(), Rights::Read, &[]).expect("services");
    let services = services.temp_root(temporary.path());
    let plugin = Launch::new(env!("CARGO_BIN_EXE_colorlister"), host_services_cookie())
        .offer(1, PluginSet::new().with::<FileLister>("color-lister"))
        .start()
        .await
        .expect("a plugin");
    let serving = plugin.serve(&services).await.expect("services");
    let mut lister = plugin
        .dispense::<FileLister>("color-lister")
        .await
        .expect("a client");
    let mut list = async || {
        let request = FileListRequest {
            root_dir: listed.path().display().to_string(),
            path: ".".into(),
            host_service: serving.id().0,
        };
        let reply = lister.list(request).await.expect("a reply").into_inner();
        assert_eq!(reply.error, None);
        reply.entry.join("\n")
    };
    let first = list().await;
    assert!(first.contains("old") && !first.contains("new"), "{first}");
    assert_eq!(temporary_files(temporary.path()), 1, "it is kept");
    std::fs::write(listed.path().join("younger"), "").expect("a file");
    let second = list().await;
    let marked: Vec<&str> = second.lines().filter(|line| line.contains("new")).collect();
    assert_eq!(marked.len(), 1, "{second}");
    assert!(marked[0].contains("younger"), "{second}");
    drop(serving);
    plugin.stop().await;
    support::wait_for("nothing temporary", || {
        temporary_files(temporary.path()) == 0
    })
    .await;
}

/// How many files there are in the directories of a directory for temporary ones.
fn temporary_files(directory: &Path) -> usize {
    support::files_beneath(directory).len()
}
