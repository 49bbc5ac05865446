//! Datagrams: who gets them, who may send them, their bounds, and their ends, by
//! call and by descriptor.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use outrigger_services::{AuditLog, AuditRecord, Dialer, Limits, Verdict};
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::open_udp_request::Part as Sent;
use outrigger_wire::proto::host::open_udp_response::Part as Received;
use outrigger_wire::proto::host::*;
use prost::Message;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

use crate::world::*;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
/// The most contents of a datagram.
const LONGEST: usize = 65_507;

/// How a plugin comes to its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Call,
    Descriptor,
}

const WAYS: [Way; 2] = [Way::Call, Way::Descriptor];

/// A plugin's socket.
struct Socket {
    end: End,
    opened: Connected,
}

enum End {
    Call {
        sender: Option<mpsc::Sender<OpenUdpRequest>>,
        replies: Streaming<OpenUdpResponse>,
    },
    Packets(UnixDatagram),
}

/// What was said of what did not happen.
#[derive(Debug)]
struct Told {
    code: Code,
    reason: String,
    errno: String,
    missing: String,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        let detail = |key| failure.metadata.get(key).cloned().unwrap_or_default();
        let (errno, missing) = (detail("errno"), detail("missing"));
        Self {
            code: Code::from(failure.status),
            reason: failure.reason,
            errno,
            missing,
        }
    }
}

impl From<tonic::Status> for Told {
    fn from(status: tonic::Status) -> Self {
        let info = status.get_details_error_info().expect("details");
        Self::from(Failure {
            status: status.code().into(),
            message: String::new(),
            reason: info.reason,
            metadata: info.metadata,
        })
    }
}

/// What a socket has for its plugin.
#[derive(Debug)]
enum Event {
    Datagram(Vec<u8>, String),
    Failure(Told),
    /// The host ended it, and said why.
    Ended(Told),
    End,
}

impl Event {
    fn datagram(self) -> (Vec<u8>, String) {
        match self {
            Self::Datagram(data, address) => (data, address),
            other => panic!("no datagram: {other:?}"),
        }
    }

    fn failure(self) -> Told {
        match self {
            Self::Failure(told) => told,
            other => panic!("no failure: {other:?}"),
        }
    }

    fn ended(self) -> Told {
        match self {
            Self::Ended(told) => told,
            other => panic!("no end: {other:?}"),
        }
    }
}

async fn open(plugin: &Plugin, way: Way, first: OpenUdpRequest) -> Result<Socket, Told> {
    match way {
        Way::Call => {
            let (sender, mut replies) = plugin.both("OpenUdp", first).await?;
            let first: Option<OpenUdpResponse> = replies.message().await?;
            let Some(Received::Opened(opened)) = first.and_then(|first| first.part) else {
                panic!("the first message says where");
            };
            let sender = Some(sender);
            let end = End::Call { sender, replies };
            Ok(Socket { end, opened })
        }
        Way::Descriptor => {
            let offer = plugin.describe().await.descriptors;
            let mut asking = Asking::new(offer.expect("descriptors are offered")).await;
            match asking.ask(Request::OpenUdp(first)).await {
                (Reply::Connected(opened), mut given) => {
                    let pair = std::os::unix::net::UnixDatagram::from(given.remove(0));
                    assert!(given.is_empty());
                    pair.set_nonblocking(true).expect("a socket");
                    let end = End::Packets(UnixDatagram::from_std(pair).expect("a socket"));
                    Ok(Socket { end, opened })
                }
                (Reply::Failure(failure), given) if given.is_empty() => Err(failure.into()),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

async fn connect(plugin: &Plugin, way: Way, host: &str, port: u16) -> Result<Socket, Told> {
    let target = Target {
        host: host.to_owned(),
        port: port.into(),
        timeout_ms: 0,
    };
    open(plugin, way, request(Sent::Connect(target))).await
}

async fn bind(plugin: &Plugin, way: Way, address: &str, port: u16) -> Result<Socket, Told> {
    let bind = ListenRequest {
        port: port.into(),
        address: address.to_owned(),
    };
    open(plugin, way, request(Sent::Bind(bind))).await
}

fn request(part: Sent) -> OpenUdpRequest {
    OpenUdpRequest { part: Some(part) }
}

impl Socket {
    async fn put(&self, message: OpenUdpRequest) {
        match &self.end {
            End::Call { sender, .. } => {
                let sender = sender.as_ref().expect("open");
                let _ = sender.send(message).await;
            }
            End::Packets(pair) => {
                let _ = pair.send(&message.encode_to_vec()).await;
            }
        }
    }

    async fn send(&self, data: impl Into<bytes::Bytes>) {
        self.send_to(data, "").await;
    }

    async fn send_to(&self, data: impl Into<bytes::Bytes>, address: &str) {
        let (data, address) = (data.into(), address.to_owned());
        self.put(request(Sent::Datagram(Datagram { data, address })))
            .await;
    }

    /// Sends no more, and says no word of it.
    fn finish(&mut self) {
        match &mut self.end {
            End::Call { sender, .. } => *sender = None,
            End::Packets(pair) => pair.shutdown(std::net::Shutdown::Write).expect("open"),
        }
    }

    /// What comes next, and how many datagrams were dropped before it.
    async fn next_counted(&mut self) -> (Event, u64) {
        let next = tokio::time::timeout(PATIENCE, async {
            match &mut self.end {
                End::Call { replies, .. } => match replies.message().await {
                    Ok(message) => Ok(message),
                    Err(status) => Err(status),
                },
                End::Packets(pair) => {
                    let mut packet = vec![0; 70_000];
                    let length = loop {
                        match pair.recv(&mut packet).await {
                            // Something that it sent was not taken.
                            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                            received => break received.expect("a socket"),
                        }
                    };
                    let message = OpenUdpResponse::decode(&packet[..length]).expect("a message");
                    Ok((length > 0).then_some(message))
                }
            }
        });
        let message = match next.await.expect("in time") {
            Ok(Some(message)) => message,
            Ok(None) => return (Event::End, 0),
            Err(status) => return (Event::Ended(status.into()), 0),
        };
        let event = match message.part.expect("a part") {
            Received::Datagram(datagram) => {
                Event::Datagram(datagram.data.to_vec(), datagram.address)
            }
            Received::Failure(failure) => Event::Failure(failure.into()),
            Received::Ended(failure) => Event::Ended(failure.into()),
            Received::Opened(opened) => panic!("opened twice: {opened:?}"),
        };
        (event, message.dropped)
    }

    async fn next(&mut self) -> Event {
        self.next_counted().await.0
    }

    fn local(&self) -> SocketAddr {
        self.opened.local_address.parse().expect("an address")
    }
}

/// A connection to the descriptor socket.
struct Asking(UnixStream);

impl Asking {
    async fn new(offer: DescriptorOffer) -> Self {
        let mut asking = Self(UnixStream::connect(&offer.path).await.expect("it is there"));
        let token = offer.token;
        asking.send(&DescriptorHello { token }).await;
        let (greeting, _) = asking.receive().await;
        assert_eq!(greeting.id, 0);
        asking
    }

    async fn send(&mut self, message: &impl Message) {
        let mut bytes = (message.encoded_len() as u32).to_be_bytes().to_vec();
        message.encode(&mut bytes).expect("room");
        self.0.write_all(&bytes).await.expect("taken");
    }

    async fn receive(&mut self) -> (DescriptorReply, Vec<OwnedFd>) {
        let (mut length, mut given) = ([0; 4], Vec::new());
        let received = self.0.async_io(Interest::READABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut length)];
            let received = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    given.extend(rights);
                }
            }
            Ok(received.bytes)
        });
        assert_eq!(received.await.expect("an answer"), 4);
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).await.expect("all of it");
        (DescriptorReply::decode(&bytes[..]).expect("a reply"), given)
    }

    async fn ask(&mut self, request: Request) -> (Reply, Vec<OwnedFd>) {
        let request = Some(request);
        self.send(&DescriptorRequest {
            id: 7,
            request,
            ..DescriptorRequest::default()
        })
        .await;
        let (reply, given) = self.receive().await;
        (reply.reply.expect("a reply"), given)
    }
}

/// What may be reached at this machine.
fn egress(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    format!("    egress: [{{protocol: udp, hosts: [127.0.0.1], ports: [{ports}]}}]")
}

fn ingress(port: u16, origins: &str) -> String {
    format!("    ingress: [{{protocol: udp, ports: [{port}], allowed_origins: [{origins}]}}]")
}

/// A port for UDP that nobody has: none of those that the system gives to whoever
/// asks for any.
fn free_udp_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 100).unwrap_or(0) * 100;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn socket_at(ip: [u8; 4], port: u16) -> UdpSocket {
    let address = SocketAddr::from((ip, port));
    UdpSocket::bind(address).await.expect("a socket")
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
    let (length, from) = received.expect("in time").expect("a datagram");
    buffer.truncate(length);
    (buffer, from)
}

/// A server that returns what it gets to whoever sent it.
async fn echo() -> u16 {
    let socket = socket_at(LOOPBACK, 0).await;
    let port = socket.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut buffer = vec![0; 70_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    port
}

/// The next record of a socket.
async fn opened(plugin: &mut Plugin) -> Arc<AuditRecord> {
    loop {
        let record = plugin.record().await;
        if record.operation != "describe" {
            return record;
        }
    }
}

/// Waits until nobody has a port of this machine, as the kernel lists them.
async fn until_free(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "{port} is still taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn datagrams_keep_their_bounds_and_their_order() {
    for way in WAYS {
        let port = echo().await;
        let mut plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        let remote = format!("127.0.0.1:{port}");
        assert_eq!(socket.opened.remote_address, remote);
        assert!(socket.local().ip().is_loopback());
        let mut sent = 0;
        for (number, length) in [0, 1, 0, 1472, 9000, LONGEST, 0, 17]
            .into_iter()
            .enumerate()
        {
            let datagram: Vec<u8> = (0..length).map(|at| (at + number) as u8).collect();
            // To name the one address that there is changes nothing.
            let to = if number % 2 == 0 { "" } else { &remote };
            socket.send_to(datagram.clone(), to).await;
            assert!(socket.next().await.datagram() == (datagram, String::new()));
            sent += length as u64;
        }
        // Many at once are neither joined nor cut.
        for number in 0..50_u8 {
            socket.send(vec![number; 100 + number as usize]).await;
        }
        for number in 0..50_u8 {
            let (data, _) = socket.next().await.datagram();
            assert_eq!(data, vec![number; 100 + number as usize]);
            sent += data.len() as u64;
        }
        drop(socket);
        let record = opened(&mut plugin).await;
        let by = match way {
            Way::Call => "",
            Way::Descriptor => " by=descriptor",
        };
        assert_eq!(
            record.argument,
            format!("host=\"127.0.0.1\" port={port}{by}")
        );
        assert_eq!(
            (record.capability, record.operation, record.code),
            ("network", "open_udp", "ok")
        );
        assert_eq!((record.verdict, record.bytes), (Verdict::Allowed, 2 * sent));
        assert!(record.rule.contains("network.egress[0]"), "{record}");
        assert!(record.rule.ends_with(&format!("dialled {remote}")));
        assert!(plugin.audit.try_recv().is_none());
    }
}

/// A query and its answer as DNS has them, from a server that answers twice and
/// late, by a granted name.
#[tokio::test]
async fn a_query_by_a_granted_name_is_answered_by_that_server_alone() {
    for way in WAYS {
        let world = World::default();
        let server = socket_at(LOOPBACK, 0).await;
        let at = server.local_addr().expect("an address");
        world.book.answers("dns.example", &[&[PUBLIC]]);
        world.board.route(&format!("{PUBLIC}:53"), at);
        let grant = "    egress: [{protocol: udp, hosts: [dns.example], ports: [53]}]";
        let plugin = world.plugin(grant).await;
        assert_eq!(
            plugin.resolve("dns.example", 53).await.expect("granted"),
            [PUBLIC]
        );
        let mut socket = connect(&plugin, way, "DNS.example.", 53)
            .await
            .expect("granted");
        assert_eq!(socket.opened.remote_address, format!("{PUBLIC}:53"));
        let mut query = vec![0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x04host\x07example\0\0\x01\0\x01");
        socket.send(query.clone()).await;
        let (asked, from) = receive(&server).await;
        assert_eq!(asked, query);
        // Somebody else is quicker, from the same machine and from another address.
        for spoofer in [
            socket_at(LOOPBACK, 0).await,
            socket_at([127, 0, 0, 2], 0).await,
        ] {
            let _ = spoofer.send_to(b"\xbe\xefforged", from).await;
        }
        let answer = [
            &query[..],
            b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01",
        ]
        .concat();
        server.send_to(&answer, from).await.expect("sent");
        server.send_to(&answer, from).await.expect("sent");
        for _ in 0..2 {
            assert_eq!(socket.next().await.datagram().0, answer);
        }
    }
}

#[tokio::test]
async fn nothing_that_is_not_granted_for_udp_is_opened_or_resolved() {
    let world = World::default();
    world.book.answers("lan.example", &[&["10.0.0.7"]]);
    world.book.answers("home.example", &[&["127.0.0.1", "::1"]]);
    let grant = "    egress:\n      - {protocol: udp, hosts: [lan.example, home.example, 192.0.2.1], ports: [53]}\n      \
                 - {protocol: tcp, hosts: [web.example, 127.0.0.1], ports: [443]}\n    \
                 ingress: [{protocol: tcp, ports: [9000], allowed_origins: [127.0.0.1]}]";
    let mut plugin = world.plugin(grant).await;
    for way in WAYS {
        for (host, port, reason) in [
            ("other.example", 53, "not-granted"),
            ("lan.example", 54, "not-granted"),
            // What is granted for TCP is not granted for UDP.
            ("web.example", 443, "not-granted"),
            ("127.0.0.1", 443, "not-granted"),
            ("192.0.2.2", 53, "not-granted"),
            // Where a granted name may not lead to.
            ("lan.example", 53, "bad-address"),
            ("home.example", 53, "bad-address"),
        ] {
            let told = connect(&plugin, way, host, port).await.err();
            let told = told.unwrap_or_else(|| panic!("{host}:{port} was opened"));
            assert_eq!((told.code, &*told.reason), (Code::PermissionDenied, reason));
            assert!(told.missing.contains("udp"), "{told:?}");
            let record = opened(&mut plugin).await;
            assert_eq!(
                (record.operation, record.verdict),
                ("open_udp", Verdict::Refused)
            );
            assert_eq!(record.code, reason);
            assert!(record.argument.contains(host), "{record}");
        }
        for (host, port) in [("127.1", 53), ("lan.example", 0), ("", 53), ("[::1]", 53)] {
            let told = connect(&plugin, way, host, port).await.err();
            assert_eq!(told.expect("no host").reason, "malformed-request");
            opened(&mut plugin).await;
        }
        let told = bind(&plugin, way, "", 9000).await.err().expect("TCP only");
        assert_eq!(told.reason, "not-granted");
        assert!(told.missing.contains("udp"), "{told:?}");
        opened(&mut plugin).await;
        for first in [request(Sent::Close(true)), OpenUdpRequest::default()] {
            let told = open(&plugin, way, first).await.err().expect("nothing");
            assert_eq!(told.reason, "malformed-request");
            opened(&mut plugin).await;
        }
    }
    let asked = world.book.asked();
    let granted = ["lan.example", "home.example"];
    assert!(asked.iter().all(|name| granted.contains(&&**name)));
    assert!(world.board.dialled().is_empty());
    // And the other way round.
    let tcp = plugin.connect("lan.example", 53).await.err();
    assert_eq!(tcp.expect("UDP only").code(), Code::PermissionDenied);
}

/// TCP reaches none of these; UDP could.
#[tokio::test]
async fn addresses_of_groups_of_all_and_of_nobody_are_refused_though_granted() {
    let grant = "    egress: [{protocol: udp, hosts: [224.0.0.0/4, \"ff00::/8\", 255.255.255.255, 0.0.0.0, \"::\"], ports: [9]}]\n    \
                 ingress: [{protocol: udp, ports: [9], allowed_origins: [127.0.0.1]}]";
    let world = World::default();
    let mut plugin = world.plugin(grant).await;
    for way in WAYS {
        for host in ["224.0.0.251", "ff02::1", "255.255.255.255", "0.0.0.0", "::"] {
            let told = connect(&plugin, way, host, 9).await.err();
            let told = told.unwrap_or_else(|| panic!("{host} was opened"));
            assert_eq!(told.reason, "forbidden", "{host}");
            let record = opened(&mut plugin).await;
            assert!(record.reason.contains("no address of a single machine"));
        }
        for address in [
            "224.0.0.251",
            "255.255.255.255",
            "192.0.2.1",
            "::ffff:224.0.0.251",
            "::ffff:255.255.255.255",
        ] {
            let told = bind(&plugin, way, address, 9).await.err();
            assert_eq!(told.expect(address).errno, "EADDRNOTAVAIL");
        }
        while plugin.audit.try_recv().is_some() {}
    }
    assert!(world.board.dialled().is_empty());
}

#[tokio::test]
async fn nobody_at_the_other_end_is_an_error_and_the_socket_goes_on() {
    for way in WAYS {
        let port = free_udp_port();
        let plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        for _ in 0..2 {
            socket.send("anybody?").await;
            let told = socket.next().await.failure();
            assert_eq!(
                (told.code, &*told.errno),
                (Code::Unavailable, "ECONNREFUSED")
            );
        }
        let server = socket_at(LOOPBACK, port).await;
        socket.send("now?").await;
        let (asked, from) = receive(&server).await;
        assert_eq!(asked, b"now?");
        assert_eq!(from, socket.local());
        server.send_to(b"yes", from).await.expect("sent");
        assert_eq!(socket.next().await.datagram().0, b"yes");
    }
}

#[tokio::test]
async fn what_is_too_long_is_told_and_the_socket_goes_on() {
    for way in WAYS {
        let port = echo().await;
        let plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        for length in [LONGEST + 1, 70_000, 90_000] {
            socket.send(vec![7; length]).await;
            assert_eq!(socket.next().await.failure().errno, "EMSGSIZE");
        }
        // Elsewhere than where it leads to.
        socket.send_to("astray", "127.0.0.1:1").await;
        assert_eq!(socket.next().await.failure().reason, "forbidden");
        socket.send_to("astray", "nowhere").await;
        assert_eq!(socket.next().await.failure().reason, "malformed-request");
        socket.send("still there").await;
        assert_eq!(socket.next().await.datagram().0, b"still there");
    }
}

#[tokio::test]
async fn a_port_takes_datagrams_of_allowed_origins_and_answers_those_who_sent() {
    for way in WAYS {
        let port = free_udp_port();
        let mut plugin = World::default()
            .plugin(&ingress(port, "127.0.0.1, 127.0.0.8/30"))
            .await;
        let mut socket = bind(&plugin, way, "", port).await.expect("granted");
        assert_eq!(socket.opened.local_address, format!("127.0.0.1:{port}"));
        assert_eq!(socket.opened.remote_address, "");
        let at = SocketAddr::from((LOOPBACK, port));
        let mut senders = Vec::new();
        for (ip, welcome) in [
            ([127, 0, 0, 2], false),
            ([127, 0, 0, 9], true),
            ([127, 0, 0, 12], false),
            (LOOPBACK, true),
        ] {
            let sender = socket_at(ip, 0).await;
            sender.send_to(b"hello", at).await.expect("sent");
            let address = sender.local_addr().expect("an address").to_string();
            if welcome {
                assert_eq!(
                    socket.next().await.datagram(),
                    (b"hello".to_vec(), address.clone())
                );
            }
            senders.push((sender, address, welcome));
        }
        for (sender, address, welcome) in &senders {
            socket.send_to("answer", address).await;
            if *welcome {
                assert_eq!(receive(sender).await, (b"answer".to_vec(), at));
            } else {
                assert_eq!(socket.next().await.failure().reason, "forbidden");
            }
        }
        // An allowed origin that has sent nothing, and no address at all.
        let silent = socket_at(LOOPBACK, 0).await;
        let silent = silent.local_addr().expect("an address").to_string();
        for (address, reason) in [(&*silent, "forbidden"), ("", "malformed-request")] {
            socket.send_to("unasked", address).await;
            assert_eq!(socket.next().await.failure().reason, reason);
        }
        drop(socket);
        let record = opened(&mut plugin).await;
        assert_eq!(
            (record.operation, record.code, record.bytes),
            ("open_udp", "ok", 22)
        );
        let (by, rule) = (
            match way {
                Way::Call => "",
                Way::Descriptor => " by=descriptor",
            },
            &record.rule,
        );
        // Two that were turned away, and four answers to nobody.
        assert_eq!(
            record.argument,
            format!("listen=true port={port}{by} refused=6")
        );
        assert!(rule.contains("network.ingress[0]"), "{rule}");
        for (_, address, welcome) in &senders {
            assert_eq!(rule.contains(&format!("from {address}")), *welcome);
        }
        assert!(plugin.audit.try_recv().is_none());
        until_free(port).await;
    }
}

/// At `::`, IPv4 comes in as IPv6.
#[tokio::test]
async fn senders_have_one_address_however_the_system_writes_it() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        // A machine without IPv6.
        return;
    }
    for way in WAYS {
        let port = free_udp_port();
        let plugin = World::default()
            .plugin(&ingress(port, "127.0.0.1, \"::1\""))
            .await;
        let mut socket = bind(&plugin, way, "::", port).await.expect("granted");
        for from in ["127.0.0.1", "::1", "127.0.0.2"] {
            let ip: std::net::IpAddr = from.parse().expect("an address");
            let sender = UdpSocket::bind((ip, 0)).await.expect("a socket");
            let to = if ip.is_ipv6() { "::1" } else { "127.0.0.1" };
            let to: std::net::IpAddr = to.parse().expect("an address");
            sender.send_to(b"hello", (to, port)).await.expect("sent");
            let address = sender.local_addr().expect("an address").to_string();
            if from == "127.0.0.2" {
                socket.send_to("answer", &address).await;
                assert_eq!(socket.next().await.failure().reason, "forbidden");
                continue;
            }
            let heard = (b"hello".to_vec(), address.clone());
            assert_eq!(socket.next().await.datagram(), heard);
            socket.send_to("answer", &address).await;
            assert_eq!(receive(&sender).await.0, b"answer");
        }
    }
}

#[tokio::test]
async fn names_of_origins_are_looked_up_again_and_what_depends_on_them_waits() {
    for way in WAYS {
        let port = free_udp_port();
        let mut world = World::default();
        world.network.origin_refresh = Duration::ZERO;
        world
            .book
            .answers("friend.example", &[&["127.0.0.5"], &["127.0.0.6", "::1"]]);
        let plugin = world
            .plugin(&ingress(port, "127.0.0.9, friend.example"))
            .await;
        let mut socket = bind(&plugin, way, "", port).await.expect("granted");
        let at = SocketAddr::from((LOOPBACK, port));
        // Who was the friend a moment ago is none now.
        for ip in [[127, 0, 0, 5], [127, 0, 0, 6]] {
            let sender = socket_at(ip, 0).await;
            sender.send_to(&ip, at).await.expect("sent");
        }
        assert_eq!(socket.next().await.datagram().0, [127, 0, 0, 6]);
        let asked = world.book.asked().len();
        assert!(asked >= 2, "{asked}");
        // For those who are allowed by address nobody is asked.
        let sender = socket_at([127, 0, 0, 9], 0).await;
        sender.send_to(b"known", at).await.expect("sent");
        assert_eq!(socket.next().await.datagram().0, b"known");
        assert_eq!(world.book.asked().len(), asked);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_dialer_without_udp_are_typed_errors() {
    /// As one that a host wrote for TCP alone.
    #[derive(Debug)]
    struct TcpOnly;
    impl Dialer for TcpOnly {
        fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
            Box::pin(TcpStream::connect(address))
        }
    }
    let refused = TcpOnly.dial_udp(([127, 0, 0, 1], 9).into()).await.err();
    assert_eq!(
        refused.expect("none").kind(),
        std::io::ErrorKind::Unsupported
    );
    for way in WAYS {
        let taken = socket_at(LOOPBACK, 0).await;
        let port = taken.local_addr().expect("an address").port();
        let mut plugin = World::default().plugin(&ingress(port, "127.0.0.1")).await;
        let told = bind(&plugin, way, "", port).await.err().expect("taken");
        assert_eq!(
            (told.code, &*told.errno),
            (Code::FailedPrecondition, "EADDRINUSE")
        );
        // It was allowed, and failed.
        let record = opened(&mut plugin).await;
        assert_eq!(
            (record.verdict, record.code),
            (Verdict::Allowed, "system-error")
        );
    }
}

/// However much comes while a plugin takes nothing: the host holds so much and
/// counts the rest.
#[tokio::test]
async fn of_a_flood_so_much_is_held_and_the_rest_is_counted() {
    const ROOM: usize = 64 << 10;
    const LENGTH: usize = 1000;
    const FLOOD: u64 = 20_000;
    for way in WAYS {
        let port = free_udp_port();
        let mut world = World::default();
        world.network.datagram_bytes = ROOM;
        let mut plugin = world.plugin(&ingress(port, "127.0.0.1")).await;
        let mut socket = bind(&plugin, way, "", port).await.expect("granted");
        let sender = socket_at(LOOPBACK, 0).await;
        sender
            .connect(SocketAddr::from((LOOPBACK, port)))
            .await
            .expect("a way");
        for number in 0..FLOOD {
            let mut datagram = vec![7; LENGTH];
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            sender.send(&datagram).await.expect("sent");
            // So that it is the host who drops, rather than the kernel.
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let (mut taken, mut dropped, mut last) = (0_u64, 0, None);
        let end = u64::MAX.to_be_bytes();
        loop {
            // Until one arrives that the sender sent while there is room again.
            sender.send(&end).await.expect("sent");
            let (event, more) = socket.next_counted().await;
            let (data, _) = event.datagram();
            dropped += more;
            if data == end {
                break;
            }
            let number = u64::from_be_bytes(data[..8].try_into().expect("a number"));
            assert_eq!(data.len(), LENGTH);
            assert!(last.is_none_or(|last| last < number), "{last:?} {number}");
            (taken, last) = (taken + 1, Some(number));
        }
        // What is in the queue, and in the buffers of the connection or the pair.
        assert!(taken < 2500, "{taken} of {FLOOD} by {way:?}");
        assert!(dropped > FLOOD / 2, "{dropped} were counted by {way:?}");
        drop(socket);
        let record = opened(&mut plugin).await;
        let counted = record.argument.split("dropped=").nth(1).expect("counted");
        let counted: u64 = counted.parse().expect("a number");
        assert!(counted >= dropped, "{record}");
    }
}

#[tokio::test]
async fn a_plugin_that_sends_no_more_still_receives() {
    for way in WAYS {
        let server = socket_at(LOOPBACK, 0).await;
        let port = server.local_addr().expect("an address").port();
        let plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        socket.send("question").await;
        let (_, from) = receive(&server).await;
        socket.finish();
        for _ in 0..3 {
            // Longer than it takes to find out that somebody is gone.
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.send_to(b"answer", from).await.expect("sent");
            assert_eq!(socket.next().await.datagram().0, b"answer");
        }
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_leaves_and_the_port_is_free_again() {
    for way in WAYS {
        let server = socket_at(LOOPBACK, 0).await;
        let port = server.local_addr().expect("an address").port();
        let mut plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        let local = socket.local().port();
        // Something lies unread when it ends.
        socket.send("first").await;
        let (_, from) = receive(&server).await;
        server.send_to(b"unread", from).await.expect("sent");
        for number in 0..100_u8 {
            socket.send(vec![number]).await;
        }
        match way {
            Way::Call => {
                socket.put(request(Sent::Close(true))).await;
                while !matches!(socket.next().await, Event::End) {}
            }
            Way::Descriptor => drop(socket),
        }
        for number in 0..100_u8 {
            assert_eq!(receive(&server).await.0, [number]);
        }
        let record = opened(&mut plugin).await;
        assert_eq!((record.code, record.verdict), ("ok", Verdict::Allowed));
        until_free(local).await;
    }
}

#[tokio::test]
async fn a_flow_that_carries_nothing_ends_and_a_port_does_not() {
    for way in WAYS {
        let (port, to) = (free_udp_port(), echo().await);
        let mut world = World::default();
        world.network.idle_timeout = Duration::from_millis(100);
        world.network.total_timeout = Duration::from_millis(100);
        let grant = format!("{}\n{}", egress(&[to]), ingress(port, "127.0.0.1"));
        let mut plugin = world.plugin(&grant).await;
        let mut bound = bind(&plugin, way, "", port).await.expect("granted");
        let mut socket = connect(&plugin, way, "127.0.0.1", to)
            .await
            .expect("granted");
        let local = socket.local().port();
        // Also while the plugin takes nothing.
        let record = opened(&mut plugin).await;
        assert_eq!(
            (record.code, record.verdict),
            ("network-timeout", Verdict::Allowed)
        );
        until_free(local).await;
        let told = socket.next().await.ended();
        assert_eq!(
            (told.code, &*told.reason),
            (Code::DeadlineExceeded, "network-timeout")
        );
        assert!(matches!(socket.next().await, Event::End));
        let sender = socket_at(LOOPBACK, 0).await;
        let at = SocketAddr::from((LOOPBACK, port));
        sender.send_to(b"later", at).await.expect("sent");
        assert_eq!(bound.next().await.datagram().0, b"later");
    }
}

#[tokio::test]
async fn each_socket_takes_a_lease_and_gives_it_back() {
    for way in WAYS {
        let port = echo().await;
        let mut world = World::default();
        world.limits.leases = 3;
        let mut plugin = world.plugin(&egress(&[port])).await;
        let mut kept = Vec::new();
        for _ in 0..3 {
            let socket = connect(&plugin, way, "127.0.0.1", port).await;
            kept.push(socket.expect("granted"));
        }
        let told = connect(&plugin, way, "127.0.0.1", port).await.err();
        assert_eq!(told.expect("none is left").reason, "too-many-leases");
        drop(kept);
        for _ in 0..4 {
            opened(&mut plugin).await;
        }
        let again = connect(&plugin, way, "127.0.0.1", port).await;
        again.expect("there is room again");
    }
}

#[tokio::test]
async fn a_senseless_message_ends_the_socket_and_says_so() {
    for way in WAYS {
        let port = echo().await;
        let mut plugin = World::default().plugin(&egress(&[port])).await;
        let mut socket = connect(&plugin, way, "127.0.0.1", port)
            .await
            .expect("granted");
        let elsewhere = Target {
            host: "127.0.0.1".into(),
            port: 1,
            timeout_ms: 0,
        };
        socket.put(request(Sent::Connect(elsewhere))).await;
        assert_eq!(socket.next().await.ended().reason, "malformed-request");
        assert!(matches!(socket.next().await, Event::End));
        let record = opened(&mut plugin).await;
        assert_eq!(
            (record.code, record.verdict),
            ("malformed-request", Verdict::Refused)
        );
    }
    let port = echo().await;
    let plugin = World::default().plugin(&egress(&[port])).await;
    let mut socket = connect(&plugin, Way::Descriptor, "127.0.0.1", port)
        .await
        .expect("granted");
    let End::Packets(pair) = &socket.end else {
        panic!("a descriptor");
    };
    pair.send(&[0xff; 100]).await.expect("taken");
    assert_eq!(socket.next().await.ended().reason, "malformed-request");
}

#[tokio::test]
async fn a_descriptor_leads_nowhere_else() {
    let (port, other) = (echo().await, socket_at(LOOPBACK, 0).await);
    let elsewhere = other.local_addr().expect("an address");
    let plugin = World::default().plugin(&egress(&[port])).await;
    let mut socket = connect(&plugin, Way::Descriptor, "127.0.0.1", port)
        .await
        .expect("granted");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("elsewhere");
    let neighbour = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    neighbour.set_nonblocking(true).expect("a socket");
    {
        let End::Packets(pair) = &socket.end else {
            panic!("a descriptor");
        };
        let domain = rustix::net::sockopt::socket_domain(pair).expect("known");
        let kind = rustix::net::sockopt::socket_type(pair).expect("known");
        assert_eq!(
            (domain, kind),
            (
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::SEQPACKET
            )
        );
        assert!(rustix::net::connect_unspec(pair.as_fd()).is_err());
        assert!(rustix::net::connect(pair, &elsewhere).is_err());
        let named = rustix::net::SocketAddrUnix::new(&path).expect("a name");
        assert!(rustix::net::connect(pair, &named).is_err());
        // The kernel takes no notice of where else it should go.
        let message = request(Sent::Datagram(Datagram {
            data: "home".into(),
            address: String::new(),
        }));
        let flags = rustix::net::SendFlags::NOSIGNAL;
        let sent = rustix::net::sendto(pair, &message.encode_to_vec(), flags, &named);
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert_eq!(socket.next().await.datagram().0, b"home");
    assert!(neighbour.recv(&mut [0; 1]).is_err());
}

#[tokio::test]
async fn sockets_end_with_the_services() {
    for way in WAYS {
        let port = free_udp_port();
        let mut plugin = World::default().plugin(&ingress(port, "127.0.0.1")).await;
        let mut socket = bind(&plugin, way, "", port).await.expect("granted");
        let (_, nothing) = AuditLog::channel(1);
        let mut audit = std::mem::replace(&mut plugin.audit, nothing);
        plugin.close().await;
        until_free(port).await;
        let record = loop {
            let record = audit.recv().await.expect("a record");
            if record.operation != "describe" {
                break record;
            }
        };
        let code = match way {
            Way::Call => "ok",
            Way::Descriptor => "cancelled",
        };
        assert_eq!((record.operation, record.code), ("open_udp", code));
        if way == Way::Descriptor {
            assert!(matches!(socket.next().await, Event::End));
        }
    }
}

#[tokio::test]
async fn datagrams_are_paced_and_an_empty_one_is_not_free() {
    let port = echo().await;
    let mut world = World {
        limits: Limits {
            bytes_per_second: 2000,
            ..Limits::default()
        },
        ..World::default()
    };
    world.network.datagram_bytes = 1 << 20;
    let plugin = world.plugin(&egress(&[port])).await;
    // Nobody could slow a descriptor down.
    assert!(plugin.describe().await.descriptors.is_none());
    let mut socket = connect(&plugin, Way::Call, "127.0.0.1", port)
        .await
        .expect("granted");
    let started = Instant::now();
    // Each one counts on its way out and back: 100 × 2 × 28 bytes, of which the
    // first 2000 cost no time.
    for _ in 0..100 {
        socket.send("").await;
        assert_eq!(socket.next().await.datagram().0, b"");
    }
    assert!(started.elapsed() >= Duration::from_millis(1500));
}
