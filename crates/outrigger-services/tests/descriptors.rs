//! Attacks on the socket that hands over descriptors, and what its descriptors
//! are good for.
#![allow(clippy::disallowed_methods)] // A foreign process is no plugin.

mod support;

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_services::{
    AuditLog, AuditRecord, GrantedServices, Limits, NetworkLimits, NetworkSettings, Verdict,
};
use outrigger_transport::PluginIdentity;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::*;
use prost::Message;
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::{Connection, grants_with};

/// One plugin with its own socket directory, and its end of the services.
struct Peer {
    dir: tempfile::TempDir,
    connection: Connection,
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

/// Where a plugin that claims the process `pid` is served, with what is granted.
async fn peer(pid: Option<u32>, permissions: &str, limits: Limits) -> Peer {
    peer_with(pid, permissions, limits, "{}", NetworkLimits::default()).await
}

async fn peer_with(
    pid: Option<u32>,
    permissions: &str,
    limits: Limits,
    network: &str,
    network_limits: NetworkLimits,
) -> Peer {
    peer_beside(pid, permissions, "", limits, network, network_limits).await
}

/// [`peer_with`] with `more` granted of the file tree.
async fn peer_beside(
    pid: Option<u32>,
    permissions: &str,
    more: &str,
    limits: Limits,
    network: &str,
    network_limits: NetworkLimits,
) -> Peer {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    std::fs::write(dir.path().join("data/file"), b"contents").expect("a file");
    std::fs::write(dir.path().join("outside"), b"secret").expect("a file");
    let data = dir.path().join("data");
    let sections = format!(
        "services: [filesystem, process, network]\n\
         capabilities:\n  filesystem: [{{path: {data:?}, permissions: [{permissions}], recursive: true}}{more}]\n  \
         process: {{exec: [{{command: /bin/cat}}]}}\n  network: {network}\n"
    );
    let records: Arc<Mutex<Vec<AuditRecord>>> = Arc::default();
    let kept = records.clone();
    let audit = AuditLog::callback(move |record| {
        kept.lock().expect("not poisoned").push(record.clone());
    });
    let services = GrantedServices::new(grants_with(&sections))
        .limits(limits)
        .network(&NetworkSettings::new().limits(network_limits))
        .audit(audit);
    let identity = PluginIdentity::new("tester", "tester-1", pid).with_socket_dir(dir.path());
    Peer {
        dir,
        connection: Connection::new(&services, &identity).await,
        records,
    }
}

async fn own(permissions: &str) -> (Peer, DescriptorOffer) {
    let peer = peer(Some(std::process::id()), permissions, Limits::default()).await;
    let offer = peer.offer().await.expect("descriptors are offered");
    (peer, offer)
}

impl Peer {
    async fn offer(&self) -> Option<DescriptorOffer> {
        self.describe().await.descriptors
    }

    async fn describe(&self) -> DescribeResponse {
        let path = http::uri::PathAndQuery::from_static("/outrigger.host.v1.Session/Describe");
        let request = tonic::Request::new(DescribeRequest {});
        let reply = self.connection.call(path, request).await;
        reply.expect("an answer")
    }

    /// The records of one operation, once there are as many.
    async fn records(&self, operation: &str, count: usize) -> Vec<AuditRecord> {
        recorded(&self.records, operation, count).await
    }

    fn path(&self, name: &str) -> String {
        let path = self.dir.path().join("data").join(name);
        path.to_str().expect("text").to_owned()
    }

    async fn close(self) {
        self.connection.close().await;
    }
}

/// A connection as an attacker, or an SDK, makes it.
struct Socket(UnixStream);

impl Socket {
    fn connect(offer: &DescriptorOffer) -> Self {
        let stream = UnixStream::connect(&offer.path).expect("the socket is there");
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).expect("a timeout");
        stream.set_write_timeout(limit).expect("a timeout");
        Self(stream)
    }

    fn greet(offer: &DescriptorOffer, token: &[u8]) -> Self {
        let mut socket = Self::connect(offer);
        let token = token.to_vec().into();
        socket.send(&DescriptorHello { token });
        socket
    }

    fn open(offer: &DescriptorOffer) -> Self {
        let mut socket = Self::greet(offer, &offer.token);
        let (greeting, none) = socket.receive().expect("a greeting");
        assert_eq!((greeting.id, none.len()), (0, 0));
        socket
    }

    /// The peer may be gone already.
    fn send(&mut self, message: &impl Message) {
        let mut bytes = (message.encoded_len() as u32).to_be_bytes().to_vec();
        message.encode(&mut bytes).expect("room");
        let _ = self.0.write_all(&bytes);
    }

    fn receive(&mut self) -> std::io::Result<(DescriptorReply, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut descriptors = Vec::new();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut length)];
        let received = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        assert_eq!(received.bytes, 4);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes)?;
        let reply = DescriptorReply::decode(&bytes[..]).map_err(std::io::Error::other)?;
        assert_eq!(reply.descriptors as usize, descriptors.len());
        Ok((reply, descriptors))
    }

    fn ask(&mut self, request: Request) -> (Reply, Vec<OwnedFd>) {
        let request = Some(request);
        self.send(&DescriptorRequest {
            id: 7,
            request,
            ..DescriptorRequest::default()
        });
        let (reply, descriptors) = self.receive().expect("an answer");
        assert_eq!(reply.id, 7);
        (reply.reply.expect("a reply"), descriptors)
    }

    fn refused(&mut self, request: Request) -> Failure {
        match self.ask(request) {
            (Reply::Failure(failure), none) if none.is_empty() => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    fn file(&mut self, path: String, options: OpenOptions) -> Result<std::fs::File, Failure> {
        let options = Some(options);
        match self.ask(Request::Open(OpenRequest { path, options })) {
            (Reply::Open(_), mut files) => Ok(files.pop().expect("a descriptor").into()),
            (Reply::Failure(failure), none) if none.is_empty() => Err(failure),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Whether the host has closed the connection without another word.
    fn is_shut(&mut self) -> bool {
        match self.0.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

const READ: OpenOptions = OpenOptions {
    read: true,
    write: false,
    append: false,
    truncate: false,
    create: false,
    create_new: false,
    mode: 0,
};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("readable")
        .count()
}

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("readable");
    let named = tasks.filter_map(Result::ok).filter(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "outrigger-fd")
    });
    named.count()
}

fn access(file: &std::fs::File) -> OFlags {
    rustix::fs::fcntl_getfl(file).expect("flags") & (OFlags::RWMODE | OFlags::APPEND)
}

/// The records of one operation, once there are as many.
async fn recorded(
    records: &Mutex<Vec<AuditRecord>>,
    operation: &str,
    count: usize,
) -> Vec<AuditRecord> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let records = records.lock().expect("not poisoned").clone();
        let of = |record: &AuditRecord| record.operation == operation;
        let found: Vec<_> = records.into_iter().filter(of).collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{operation}: {found:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_has_the_rights_that_were_asked_for_and_granted_and_no_others() {
    let (peer, offer) = own("read, write, list, create").await;
    let mode = std::fs::metadata(&offer.path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut socket = Socket::open(&offer);
    let path = peer.path("file");

    let file = socket.file(path.clone(), READ).expect("opened");
    assert_eq!(access(&file), OFlags::RDONLY);
    let mut contents = [0; 8];
    file.read_exact_at(&mut contents, 0).expect("readable");
    assert_eq!(&contents, b"contents");
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.set_len(0).is_err());
    let flags = rustix::io::fcntl_getfd(&file).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));

    let write = OpenOptions {
        read: false,
        write: true,
        ..READ
    };
    let file = socket.file(path.clone(), write).expect("opened");
    assert_eq!(access(&file), OFlags::WRONLY);
    assert!(file.read_at(&mut [0; 1], 0).is_err());
    let both = OpenOptions {
        write: true,
        ..READ
    };
    let file = socket.file(path.clone(), both).expect("opened");
    assert_eq!(access(&file), OFlags::RDWR);
    let append = OpenOptions {
        read: false,
        append: true,
        ..READ
    };
    let file = socket.file(path.clone(), append).expect("opened");
    assert_eq!(access(&file), OFlags::WRONLY | OFlags::APPEND);

    // A directory is a name at the host: from its descriptor `..` leads out.
    let open_dir = OpenDirRequest {
        path: peer.path(""),
    };
    let (reply, none) = socket.ask(Request::OpenDir(open_dir));
    let Reply::OpenDir(OpenDirResponse { lease }) = reply else {
        panic!("no directory: {reply:?}");
    };
    assert!(none.is_empty());
    for (name, opens) in [
        ("file", true),
        ("../outside", false),
        ("/etc/passwd", false),
    ] {
        let request = OpenAtRequest {
            lease: lease.clone(),
            path: name.to_owned(),
            options: None,
        };
        let (reply, files) = socket.ask(Request::OpenAt(request));
        assert_eq!(matches!(reply, Reply::Open(_)), opens, "{name}: {reply:?}");
        assert_eq!(files.len(), usize::from(opens));
    }
    // Every one of them is in the records.
    let records = peer.records.lock().expect("not poisoned").clone();
    let opened = records
        .iter()
        .filter(|record| record.operation == "open" && record.argument.contains("by=descriptor"));
    assert_eq!(opened.count(), 4);
    assert!(records.iter().any(|record| record.operation == "open_dir"));
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_on_the_socket_as_in_a_call() {
    let (peer, offer) = own("read").await;
    let mut socket = Socket::open(&offer);
    std::os::unix::fs::symlink("../outside", peer.dir.path().join("data/link")).expect("a link");
    let fifo = peer.dir.path().join("data/fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a fifo");
    let outside = peer.dir.path().join("outside");
    for path in [
        outside.to_str().expect("text").to_owned(),
        peer.path("../outside"),
        peer.path("link"),
        peer.path("fifo"),
        peer.path("."),
        "/etc/passwd".to_owned(),
        "/proc/self/root/etc/passwd".to_owned(),
        "\0".to_owned(),
        String::new(),
    ] {
        let failure = socket.file(path.clone(), READ).expect_err(&path);
        assert!(
            !failure.reason.is_empty() && failure.status != 0,
            "{path}: {failure:?}"
        );
    }
    let write = OpenOptions {
        write: true,
        ..READ
    };
    let failure = socket
        .file(peer.path("file"), write)
        .expect_err("only reading");
    assert_eq!(failure.reason, "not-granted");
    assert!(failure.metadata.contains_key("missing"), "{failure:?}");
    let create = CreateRequest {
        path: peer.path("new"),
        mode: 0,
    };
    assert_eq!(
        socket.refused(Request::Create(create)).reason,
        "not-granted"
    );
    assert!(!peer.dir.path().join("data/new").exists());
    let target = |host: &str| Target {
        host: host.to_owned(),
        port: 80,
        timeout_ms: 0,
    };
    for host in ["127.0.0.1", "169.254.169.254", "::1"] {
        let failure = socket.refused(Request::Connect(target(host)));
        assert_eq!(failure.reason, "not-granted", "{host}");
    }
    // By name the host stays in between: not even the refusal is asked for here.
    assert_eq!(
        socket
            .refused(Request::Connect(target("example.com")))
            .reason,
        "use-rpc"
    );
    let command = Command {
        command: "/bin/sh".into(),
        ..Command::default()
    };
    assert_eq!(socket.refused(Request::Exec(command)).reason, "not-granted");
    peer.close().await;
}

/// A peer in the network, where it is, and a plugin that may connect to it.
async fn connectable(limits: NetworkLimits) -> (Peer, Socket, std::net::TcpListener, Target) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let network = format!("{{egress: [{{protocol: tcp, hosts: [127.0.0.1], ports: [{port}]}}]}}");
    let own = Some(std::process::id());
    let peer = peer_with(own, "read", Limits::default(), &network, limits).await;
    let socket = Socket::open(&peer.offer().await.expect("descriptors are offered"));
    let target = Target {
        host: "127.0.0.1".into(),
        port: port.into(),
        timeout_ms: 0,
    };
    (peer, socket, listener, target)
}

/// The plugin's end and the other one.
fn connect(
    socket: &mut Socket,
    listener: &std::net::TcpListener,
    target: &Target,
) -> (UnixStream, std::net::TcpStream) {
    let (reply, mut given) = socket.ask(Request::Connect(target.clone()));
    assert!(matches!(reply, Reply::Connected(_)), "{reply:?}");
    let (peer, _) = listener.accept().expect("it came");
    let limit = Some(Duration::from_secs(20));
    let stream = UnixStream::from(given.pop().expect("a descriptor"));
    stream.set_read_timeout(limit).expect("a timeout");
    peer.set_read_timeout(limit).expect("a timeout");
    (stream, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_a_pair_that_leads_nowhere_else_and_is_counted() {
    let (peer, mut socket, listener, target) = connectable(NetworkLimits::default()).await;
    let (mut stream, mut other) = connect(&mut socket, &listener, &target);
    let domain = rustix::net::sockopt::socket_domain(&stream).expect("known");
    assert_eq!(domain, rustix::net::AddressFamily::UNIX);
    assert!(rustix::net::connect_unspec(&stream).is_err());
    assert!(rustix::net::connect(&stream, &listener.local_addr().expect("an address")).is_err());

    // More than any buffer on the way, both ways, each with its own end.
    let large = vec![7; 4 << 20];
    let sent = large.clone();
    let mut writing = stream.try_clone().expect("a clone");
    let sending = std::thread::spawn(move || {
        writing.write_all(&sent).expect("taken");
        writing
            .shutdown(std::net::Shutdown::Write)
            .expect("finished");
    });
    let mut heard = Vec::new();
    other.read_to_end(&mut heard).expect("it ends");
    assert!(heard == large);
    sending.join().expect("no panic");
    other.write_all(b"answer").expect("taken");
    drop(other);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it ends");
    assert_eq!(answer, b"answer");
    let records = peer.records("connect", 1).await;
    let [record] = records.as_slice() else {
        panic!("one record: {records:?}")
    };
    assert_eq!((record.code, record.bytes), ("ok", (4 << 20) + 6));
    assert!(record.argument.ends_with("by=descriptor"), "{record}");
    assert!(record.rule.contains("network.egress[0]") && record.rule.contains("dialled"));
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_either_side_or_the_services_end() {
    let (peer, mut socket, listener, target) = connectable(NetworkLimits::default()).await;
    // The plugin is gone: the other side need not say a word.
    let (stream, mut other) = connect(&mut socket, &listener, &target);
    (&stream).write_all(b"bye").expect("taken");
    drop(stream);
    let mut heard = Vec::new();
    other.read_to_end(&mut heard).expect("it ends");
    assert_eq!(heard, b"bye");
    let records = peer.records("connect", 1).await;
    assert_eq!((records[0].code, records[0].bytes), ("ok", 3));
    // The plugin is there, and the services are not.
    let (mut stream, mut other) = connect(&mut socket, &listener, &target);
    let records = peer.records.clone();
    peer.close().await;
    assert_eq!(stream.read(&mut [0; 1]).expect("it ends"), 0);
    assert_eq!(other.read(&mut [0; 1]).expect("it ends"), 0);
    let records = recorded(&records, "connect", 2).await;
    let last = (records[1].code, records[1].verdict);
    assert_eq!(last, ("cancelled", Verdict::Allowed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_finished_and_then_closed_ends_its_connection() {
    let (peer, mut socket, listener, target) = connectable(NetworkLimits::default()).await;
    let (mut stream, mut other) = connect(&mut socket, &listener, &target);
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("finished");
    assert_eq!(other.read(&mut [0; 1]).expect("it ends"), 0);
    // The end was carried, and its way is done, when an answer comes.
    other.write_all(b".").expect("taken");
    stream.read_exact(&mut [0; 1]).expect("an answer");
    // The other side has no more to say.
    drop(stream);
    let records = peer.records("connect", 1).await;
    assert_eq!(records[0].code, "ok");
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_closes_before_it_read_everything_has_not_failed() {
    let (peer, mut socket, listener, target) = connectable(NetworkLimits::default()).await;
    // Something lies unread when it closes.
    let (mut stream, mut other) = connect(&mut socket, &listener, &target);
    other.write_all(b"unread").expect("taken");
    stream.read_exact(&mut [0; 1]).expect("it is there");
    stream.write_all(b"bye").expect("taken");
    drop(stream);
    let mut heard = Vec::new();
    other.read_to_end(&mut heard).expect("it ends");
    assert_eq!(heard, b"bye");
    let records = peer.records("connect", 1).await;
    assert_eq!((records[0].code, records[0].bytes), ("ok", 9));

    // More comes after it closed, while what it wrote is on its way.
    let (mut stream, mut other) = connect(&mut socket, &listener, &target);
    // Long enough that only full buffers end the writing, not a busy machine.
    let full = Some(Duration::from_secs(2));
    stream.set_write_timeout(full).expect("a timeout");
    let mut wrote = 0;
    while let Ok(count) = stream.write(&[7; 64 << 10]) {
        wrote += count;
    }
    drop(stream);
    other.write_all(b"too late").expect("taken");
    let mut heard = Vec::new();
    other.read_to_end(&mut heard).expect("it ends");
    assert_eq!(heard.len(), wrote);
    let records = peer.records("connect", 2).await;
    assert_eq!(
        (records[1].code, records[1].bytes),
        ("ok", wrote as u64 + 8)
    );
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carries_nothing_ends_and_each_takes_a_lease() {
    let limits = NetworkLimits {
        idle_timeout: Duration::from_millis(100),
        ..NetworkLimits::default()
    };
    let (peer, mut socket, listener, target) = connectable(limits).await;
    let (mut stream, _other) = connect(&mut socket, &listener, &target);
    assert_eq!(stream.read(&mut [0; 1]).expect("it ends"), 0);
    let records = peer.records("connect", 1).await;
    assert_eq!(records[0].code, "network-timeout");
    peer.close().await;

    let (peer, mut socket, listener, target) = connectable(NetworkLimits::default()).await;
    let most = Limits::default().leases;
    let kept: Vec<_> = (0..most)
        .map(|_| connect(&mut socket, &listener, &target))
        .collect();
    let failure = socket.refused(Request::Connect(target.clone()));
    assert_eq!(failure.reason, "too-many-leases");
    drop(kept);
    peer.records("connect", most + 1).await;
    connect(&mut socket, &listener, &target);
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_pipes_come_as_descriptors_and_it_ends_with_the_connection() {
    let (peer, offer) = own("read").await;
    let mut socket = Socket::open(&offer);
    let command = Command {
        command: "/bin/cat".into(),
        ..Command::default()
    };
    let (reply, pipes) = socket.ask(Request::Exec(command));
    let Reply::Started(started) = reply else {
        panic!("not started: {reply:?}");
    };
    let pipes: [OwnedFd; 3] = pipes.try_into().expect("three");
    let [stdin, stdout, _stderr] = pipes.map(std::fs::File::from);
    (&stdin).write_all(b"hello").expect("it reads");
    let mut line = [0; 5];
    // The pipe may be a non-blocking one.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut filled = 0;
    while filled < line.len() {
        assert!(Instant::now() < deadline, "nothing came back");
        match (&stdout).read(&mut line[filled..]) {
            Ok(read) => filled += read,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(&line, b"hello");
    assert!(support::plugin::is_running(started.pid));
    peer.close().await;
    support::plugin::ended(started.pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_plugins_own_process_is_answered_even_with_the_token() {
    // The plugin is said to be another process than this one.
    let mut other = std::process::Command::new("/bin/cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a process");
    let peer = peer(Some(other.id()), "read", Limits::default()).await;
    let offer = peer.offer().await.expect("descriptors are offered");
    let mut socket = Socket::greet(&offer, &offer.token);
    assert!(socket.is_shut());
    let records = peer.records("descriptors", 1).await;
    assert_eq!(records[0].verdict, Verdict::Refused);
    let own = format!("pid={}", std::process::id());
    assert!(records[0].argument.contains(&own), "{}", records[0]);
    peer.close().await;
    other.kill().expect("it runs");
    other.wait().expect("it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_or_one_of_another_plugin_is_answered_by_nothing() {
    let (peer, offer) = own("read").await;
    let (second, other) = own("read").await;
    assert_ne!(offer.token, other.token);
    let mut almost = offer.token.to_vec();
    *almost.last_mut().expect("long") ^= 1;
    for token in [
        &b""[..],
        &almost,
        &other.token,
        &offer.token[..16],
        &[0; 9000],
    ] {
        let mut socket = Socket::greet(&offer, token);
        assert!(socket.is_shut(), "{} bytes", token.len());
    }
    // No hello at all.
    let mut socket = Socket::connect(&offer);
    let options = None;
    let path = peer.path("file");
    let request = Some(Request::Open(OpenRequest { path, options }));
    socket.send(&DescriptorRequest {
        id: 1,
        request,
        ..DescriptorRequest::default()
    });
    assert!(socket.is_shut());
    let records = peer.records("descriptors", 6).await;
    assert!(
        records
            .iter()
            .all(|record| record.verdict == Verdict::Refused)
    );
    drop(Socket::open(&offer));
    second.close().await;
    assert!(!Path::new(&other.path).exists());
    assert!(UnixStream::connect(&other.path).is_err());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_long_and_senseless_messages_end_the_connection_and_nothing_else() {
    let (peer, offer) = own("read").await;
    for bytes in [
        &[0xff; 8][..],
        &(65_537_u32).to_be_bytes(),
        b"\0\0\0\x04\xff\xff\xff\xff",
    ] {
        let mut socket = Socket::open(&offer);
        socket.0.write_all(bytes).expect("taken");
        assert!(socket.is_shut());
    }
    for record in peer.records("descriptors", 3).await {
        assert_eq!(record.code, "malformed-request", "{record}");
    }
    // The longest that is allowed is looked at.
    let mut socket = Socket::open(&offer);
    let failure = socket
        .file("x".repeat(60 << 10), READ)
        .expect_err("too long");
    assert!(!failure.reason.is_empty());
    let empty = DescriptorRequest {
        id: 3,
        ..DescriptorRequest::default()
    };
    socket.send(&empty);
    let (reply, _) = socket.receive().expect("an answer");
    assert!(matches!(reply.reply, Some(Reply::Failure(_))));
    assert_eq!(peer.records("descriptors", 4).await.len(), 4);
    // Half a message holds up its own connection only.
    let mut half = Socket::open(&offer);
    half.0.write_all(&[0, 0, 1]).expect("taken");
    socket.file(peer.path("file"), READ).expect("still served");
    peer.close().await;
    assert!(half.is_shut());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_requests_leak_nothing_on_either_side() {
    let (peer, offer) = own("read, write, create").await;
    let mut socket = Socket::open(&offer);
    drop(socket.file(peer.path("file"), READ));
    let before = open_files();
    for round in 0..5000 {
        drop(socket.file(peer.path("file"), READ).expect("opened"));
        drop(socket.file(peer.path("none"), READ).expect_err("not there"));
        if round % 50 == 0 {
            drop(Socket::open(&offer));
        }
    }
    // Descriptors that are sent to the host are not taken.
    for _ in 0..100 {
        let file = std::fs::File::open("/dev/null").expect("there");
        let fds = [std::os::fd::AsFd::as_fd(&file)];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [0, 0, 0, 0];
        let parts = [std::io::IoSlice::new(&bytes)];
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&socket.0, &parts, &mut control, flags).expect("sent");
        assert!(matches!(
            socket.receive().expect("an answer").0.reply,
            Some(Reply::Failure(_))
        ));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while open_files() > before {
        assert!(Instant::now() < deadline, "{} of {before}", open_files());
        std::thread::yield_now();
    }
    drop(socket);
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_and_of_unread_replies_is_bounded() {
    let (peer, offer) = own("read").await;
    let mut kept: Vec<Socket> = (0..4).map(|_| Socket::open(&offer)).collect();
    for _ in 0..50 {
        assert!(Socket::greet(&offer, &offer.token).is_shut());
    }
    // Requests whose answers nobody takes: the host stops reading them.
    let flooding = &mut kept[0];
    let timeout = Some(Duration::from_millis(300));
    flooding.0.set_write_timeout(timeout).expect("a timeout");
    let options = None;
    let path = peer.path("file");
    let request = Some(Request::Open(OpenRequest { path, options }));
    let request = DescriptorRequest {
        id: 1,
        request,
        ..DescriptorRequest::default()
    };
    let mut bytes = (request.encoded_len() as u32).to_be_bytes().to_vec();
    request.encode(&mut bytes).expect("room");
    let mut sent = 0;
    while sent < 100_000 && flooding.0.write_all(&bytes).is_ok() {
        sent += 1;
    }
    assert!(sent < 100_000, "the host read {sent} requests ahead");
    let opened = |peer: &Peer| {
        let records = peer.records.lock().expect("not poisoned");
        records
            .iter()
            .filter(|record| record.operation == "open")
            .count()
    };
    assert!(opened(&peer) < 1000, "{} answers in flight", opened(&peer));
    // The others are served all the while, and the end ends it all.
    kept[1].file(peer.path("file"), READ).expect("served");
    let records = peer.records.clone();
    peer.close().await;
    assert!(kept[1].is_shut());
    // Each that was turned away is there, or counted when nothing of the
    // connection is left.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let records = records.lock().expect("not poisoned").clone();
        let away = records
            .iter()
            .filter(|record| record.operation == "descriptors");
        let more = records
            .iter()
            .filter_map(|record| record.argument.split("more=").nth(1));
        let more: usize = more
            .map(|more| more.parse::<usize>().expect("a number"))
            .sum();
        let told = away.count() + more;
        if told == 50 {
            return;
        }
        assert!(Instant::now() < deadline, "{told} are told");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_bytes_are_counted_the_host_moves_them() {
    let limits = Limits {
        written_bytes: 1000,
        ..Limits::default()
    };
    let own = Some(std::process::id());
    let counted = peer(own, "read, write, create", limits).await;
    let offer = counted.offer().await.expect("descriptors are offered");
    let mut socket = Socket::open(&offer);
    socket
        .file(counted.path("file"), READ)
        .expect("reading is not counted");
    let write = OpenOptions {
        write: true,
        ..READ
    };
    let failure = socket
        .file(counted.path("file"), write)
        .expect_err("writing is");
    assert_eq!(failure.reason, "use-rpc");
    counted.close().await;
    let limits = Limits {
        bytes_per_second: 1000,
        ..Limits::default()
    };
    let slow = peer(own, "read", limits).await;
    assert_eq!(slow.offer().await, None);
    slow.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_a_while_is_written_by_the_host_unless_nobody_counts() {
    let (counted, offer) = own("read").await;
    let mut socket = Socket::open(&offer);
    let temp = || {
        let pattern = String::new();
        Request::TempFile(TempFileRequest { pattern })
    };
    assert_eq!(socket.refused(temp()).reason, "use-rpc");
    let path = counted.describe().await.temp_dir + "/file";
    let create = OpenOptions {
        write: true,
        create_new: true,
        ..READ
    };
    let failure = socket
        .file(path.clone(), create)
        .expect_err("it is counted");
    assert_eq!(failure.reason, "use-rpc");
    assert!(!Path::new(&path).exists(), "the call makes it");
    std::fs::write(&path, b"x").expect("a file");
    let file = socket.file(path.clone(), READ).expect("opened to read");
    assert_eq!(access(&file), OFlags::RDONLY);
    counted.close().await;
    let limits = Limits {
        temp_bytes: 0,
        ..Limits::default()
    };
    let free = peer(Some(std::process::id()), "read", limits).await;
    let offer = free.offer().await.expect("descriptors are offered");
    let (reply, files) = Socket::open(&offer).ask(temp());
    assert!(matches!(reply, Reply::TempFile(_)), "{reply:?}");
    assert_eq!(
        access(&std::fs::File::from(
            files.into_iter().next().expect("a file")
        )),
        OFlags::RDWR
    );
    free.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threads_end_with_the_plugin() {
    let (first, offer) = own("read").await;
    let sockets: Vec<Socket> = (0..3).map(|_| Socket::open(&offer)).collect();
    assert!(threads() >= 4);
    first.close().await;
    drop(sockets);
    let (second, offer) = own("read").await;
    let idle = Socket::open(&offer);
    second.close().await;
    // Other tests of this process have threads of their own, and end.
    let deadline = Instant::now() + Duration::from_secs(60);
    while threads() > 0 {
        assert!(Instant::now() < deadline, "{} threads remain", threads());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(idle);
}

#[test]
#[allow(clippy::disallowed_methods)] // Hosts are no plugins.
fn descriptors_are_handed_over_where_newer_system_calls_are_refused() {
    let calls = outrigger_testing::NEWER_CALLS.iter().map(|(call, _)| *call);
    for call in calls.chain(["all"]) {
        for answer in ["ENOSYS", "EPERM"] {
            let mut host = std::process::Command::new(outrigger_testing::program("refusing"));
            host.args([call, answer]);
            host.arg(std::env::current_exe().expect("its own path"));
            host.arg("--exact")
                .args(["a_commands_pipes_come_as_descriptors_and_it_ends_with_the_connection"]);
            let output = host.output().expect("run");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{call}: {answer}: {text}"
            );
        }
    }
}

fn opening(path: &str) -> Request {
    let path = path.to_owned();
    let options = Some(READ);
    Request::Open(OpenRequest { path, options })
}

/// Every request that names a place, with `path` there.
fn requests(path: &str, lease: &str) -> Vec<Request> {
    let writing = OpenOptions {
        write: true,
        ..OpenOptions::default()
    };
    let below = path.trim_start_matches('/').to_owned();
    let path = path.to_owned();
    vec![
        opening(&path),
        Request::Open(OpenRequest {
            path: path.clone(),
            options: Some(writing),
        }),
        Request::Create(CreateRequest {
            path: path.clone(),
            mode: 0,
        }),
        Request::OpenAt(OpenAtRequest {
            lease: lease.to_owned(),
            path: below,
            options: Some(READ),
        }),
        Request::OpenDir(OpenDirRequest { path: path.clone() }),
        Request::Exec(Command {
            command: "/bin/cat".into(),
            directory: path,
            ..Command::default()
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_leads_to_a_process_or_to_what_the_kernel_tells_whatever_is_granted() {
    let everything =
        ", {path: /, permissions: [read, write, list, create, delete], recursive: true}";
    let (pid, limits) = (Some(std::process::id()), Limits::default());
    let (rights, network) = ("read, write, create", NetworkLimits::default());
    let peer = peer_beside(pid, rights, everything, limits, "{}", network).await;
    let offer = peer.offer().await.expect("descriptors are offered");
    let ordinary = peer.path("file");
    let asking = tokio::task::spawn_blocking(move || {
        let mut socket = Socket::open(&offer);
        let top = Request::OpenDir(OpenDirRequest { path: "/".into() });
        let (Reply::OpenDir(top), _) = socket.ask(top) else {
            panic!("no lease of the top");
        };
        let own = format!("/proc/{}/mem", std::process::id());
        for path in [
            "/proc/self/environ",
            "/proc/self/mem",
            "/proc/self/oom_score_adj",
            "/proc/self/fd",
            "/proc/self/cwd",
            "/proc/thread-self/environ",
            "/proc/sysrq-trigger",
            "/proc/kcore",
            "/dev/stdin",
            "/dev/fd/0",
            own.as_str(),
        ] {
            // The kernel may be without it.
            if std::fs::symlink_metadata(path).is_err() {
                continue;
            }
            for request in requests(path, &top.lease) {
                let failure = socket.refused(request.clone());
                let reason = failure.reason.as_str();
                let expected = match request {
                    // The kernel says so without opening it.
                    Request::OpenDir(_) | Request::Exec(_) if reason == "system-error" => true,
                    _ => ["forbidden", "outside-grant"].contains(&reason),
                };
                assert!(expected, "{request:?}: {failure:?}");
            }
        }
        // What is served is read by the host: a descriptor would be more than that.
        for facts in ["/proc/version", "/proc/sys/kernel/osrelease"] {
            let failure = socket.refused(opening(facts));
            assert_eq!(failure.reason, "use-rpc", "{facts}: {failure:?}");
            let failure = socket.refused(Request::Create(CreateRequest {
                path: facts.into(),
                mode: 0,
            }));
            assert_eq!(failure.reason, "forbidden", "{facts}: {failure:?}");
        }
        let (reply, descriptors) = socket.ask(opening(&ordinary));
        assert!(matches!(reply, Reply::Open(_)) && descriptors.len() == 1);
        // Also where devices might lie.
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"x").expect("a file");
        let (reply, descriptors) = socket.ask(opening(path.to_str().expect("text")));
        assert!(matches!(reply, Reply::Open(_)) && descriptors.len() == 1);
    });
    asking.await.expect("no panic");
    peer.close().await;
}
