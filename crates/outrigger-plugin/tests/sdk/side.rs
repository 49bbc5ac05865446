//! What a host has and grants: a directory, commands, and places on the network.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use outrigger_host::{Launch, PluginSet, RunningPlugin};
use outrigger_manifest::{Manifest, Places, Policy};
use outrigger_services::GrantedServices;

use crate::interface::Lister;
use crate::plugin;

/// How long a state may take to come about.
const SOON: Duration = Duration::from_secs(10);

/// A host's side: a directory that is granted, an echo server, a server that
/// only takes and says how much it was, and a port to listen on; an echo server, a
/// port where nobody is and one to bind, for UDP.
pub(crate) struct Side {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) http: u16,
    pub(crate) sink: u16,
    pub(crate) taken: Receiver<usize>,
    pub(crate) listen: u16,
    pub(crate) udp: u16,
    pub(crate) free: u16,
    pub(crate) bind: u16,
    pub(crate) services: GrantedServices,
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

pub(crate) fn side() -> Side {
    side_with("kill: [children]\n    list: [children]\n    signal: [children]\n")
}

/// `controls` is what the plugin may do to its commands.
pub(crate) fn side_with(controls: &str) -> Side {
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

/// The plugin that this program is, with what is granted on `side`.
pub(crate) fn launch(side: &Side) -> Launch {
    let own = std::env::current_exe().expect("this program");
    let launch = Launch::new(own, plugin::cookie());
    granting(
        launch.offer(1, PluginSet::new().with::<Lister>("client")),
        side,
    )
}

/// Tells a plugin where everything is, and serves it.
pub(crate) fn granting(launch: Launch, side: &Side) -> Launch {
    launch
        .env("HOSTCLIENT_DIR", side.dir.path())
        .env("HOSTCLIENT_PORT", side.port.to_string())
        .env("HOSTCLIENT_HTTP", side.http.to_string())
        .env("HOSTCLIENT_SINK", side.sink.to_string())
        .env("HOSTCLIENT_LISTEN", side.listen.to_string())
        .env("HOSTCLIENT_UDP", side.udp.to_string())
        .env("HOSTCLIENT_FREE", side.free.to_string())
        .env("HOSTCLIENT_BIND", side.bind.to_string())
        .host_services(Arc::new(side.services.clone()))
}

/// Has the plugin make a check; its error is the plugin's.
pub(crate) async fn ask(plugin: &RunningPlugin, kind: &str) -> Result<(), String> {
    let lister = plugin.dispense::<Lister>("client").await;
    let reply = lister.expect("a client").list(kind).await;
    let reply = reply.map_err(|status| format!("{kind}: {status}"))?;
    reply.error.map_or(Ok(()), Err)
}

/// Has the plugin make a check that must succeed.
///
/// # Panics
/// With the plugin's error.
pub(crate) async fn check(plugin: &RunningPlugin, kind: &str) {
    let checked = ask(plugin, kind).await;
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// The same with `services`, which are served to the one call.
///
/// # Panics
/// With the plugin's error.
pub(crate) async fn check_with(plugin: &RunningPlugin, kind: &str, services: &GrantedServices) {
    let serving = plugin.serve(services).await.expect("it is served");
    check(plugin, &format!("{kind}@{}", serving.id().0)).await;
}

/// Waits until `holds`.
///
/// # Panics
/// When that takes longer than [`SOON`].
pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about within {} s",
            SOON.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until all that was written to twelve dropped connections has arrived:
/// those of two checks by address and two by name, in both ways and slowly.
///
/// # Panics
/// When something is missing.
pub(crate) async fn all_arrives(side: &Side) {
    let mut taken = Vec::new();
    wait_for("the end of twelve connections", || {
        taken.extend(side.taken.try_iter());
        taken.len() == 12
    })
    .await;
    assert_eq!(taken, [1 << 20; 12]);
}
