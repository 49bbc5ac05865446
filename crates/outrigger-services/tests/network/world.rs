//! A plugin's end of the network service, and a small world for it to reach.
#![allow(dead_code, reason = "not every test program uses everything")]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use outrigger_manifest::Policy;
use outrigger_services::{
    AuditLog, AuditReceiver, AuditRecord, Dialer, GrantedServices, Limits, NetworkLimits,
    NetworkSettings, Resolver, SystemDialer, TrustedRoots,
};
use outrigger_transport::PluginIdentity;
use outrigger_wire::proto::host::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use crate::support::{Connection, decision};

/// An address of the internet at large, which the switchboard leads elsewhere.
pub(crate) const PUBLIC: &str = "93.184.215.14";
/// How long anything may take before a test counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Answers for names, and a list of who was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<BookState>>);

#[derive(Debug, Default)]
struct BookState {
    answers: HashMap<String, VecDeque<Vec<IpAddr>>>,
    silent: Vec<String>,
    asked: Vec<String>,
}

impl Book {
    /// `name` has these answers, one query after the other; the last one stays.
    pub(crate) fn answers(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        self.0.lock().unwrap().answers.insert(name.into(), answers);
    }

    /// `name` is never answered.
    pub(crate) fn is_silent_about(&self, name: &str) {
        self.0.lock().unwrap().silent.push(name.into());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}

impl Resolver for Book {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(name.into());
        if state.silent.iter().any(|silent| silent == name) {
            return Box::pin(std::future::pending());
        }
        let answer = match state.answers.get_mut(name) {
            None => Vec::new(),
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0].clone(),
        };
        Box::pin(async move { Ok(answer) })
    }
}

/// Leads addresses elsewhere, and lists those that were dialled. Addresses of
/// this machine are reached as they are; all others refuse.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switchboard(Arc<Mutex<SwitchboardState>>);

#[derive(Debug, Default)]
struct SwitchboardState {
    routes: HashMap<SocketAddr, SocketAddr>,
    silent: Vec<SocketAddr>,
    dialled: Vec<SocketAddr>,
}

impl Switchboard {
    pub(crate) fn route(&self, from: &str, to: SocketAddr) {
        let from = from.parse().unwrap();
        self.0.lock().unwrap().routes.insert(from, to);
    }

    pub(crate) fn is_silent_at(&self, address: &str) {
        self.0.lock().unwrap().silent.push(address.parse().unwrap());
    }

    pub(crate) fn dialled(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.dialled.iter().map(SocketAddr::to_string).collect()
    }
}

impl Dialer for Switchboard {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        let mut state = self.0.lock().unwrap();
        state.dialled.push(address);
        if state.silent.contains(&address) {
            return Box::pin(std::future::pending());
        }
        let to = state.routes.get(&address).copied();
        let to = to.or_else(|| address.ip().is_loopback().then_some(address));
        Box::pin(async move {
            match to {
                Some(to) => TcpStream::connect(to).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }

    fn dial_udp(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        let mut state = self.0.lock().unwrap();
        state.dialled.push(address);
        let to = state.routes.get(&address).copied();
        Box::pin(async move { SystemDialer.dial_udp(to.unwrap_or(address)).await })
    }
}

/// What is around the plugins of one test.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) book: Book,
    pub(crate) board: Switchboard,
    pub(crate) limits: Limits,
    pub(crate) network: NetworkLimits,
    pub(crate) roots: Option<TrustedRoots>,
}

impl World {
    /// A plugin to which the manifest's `network:` part is granted.
    pub(crate) async fn plugin(&self, network: &str) -> Plugin {
        self.plugin_with(network, &Policy::allow_requested()).await
    }

    pub(crate) async fn plugin_with(&self, network: &str, policy: &Policy) -> Plugin {
        // Its process is this one, so that it may ask for descriptors.
        let dir = tempfile::tempdir().expect("a directory");
        let pid = Some(std::process::id());
        let identity = PluginIdentity::new("caller", "caller-1", pid).with_socket_dir(dir.path());
        let grants = decision(&format!("capabilities:\n  network:\n{network}"), policy).grants();
        let (log, audit) = AuditLog::channel(10_000);
        let mut settings = NetworkSettings::new()
            .resolver(self.book.clone())
            .dialer(self.board.clone())
            .limits(self.network.clone());
        if let Some(roots) = &self.roots {
            settings = settings.roots(roots.clone());
        }
        let services = GrantedServices::new(grants)
            .limits(self.limits.clone())
            .audit(log)
            .network(&settings);
        Plugin {
            connection: Connection::new(&services, &identity).await,
            audit,
            _dir: dir,
        }
    }
}

/// One plugin, connected.
pub(crate) struct Plugin {
    _dir: tempfile::TempDir,
    connection: Connection,
    pub(crate) audit: AuditReceiver,
}

impl Plugin {
    /// Ends the connection and waits until the host has let go of it.
    pub(crate) async fn close(self) {
        self.connection.close().await;
    }

    /// The next record.
    pub(crate) async fn record(&mut self) -> Arc<AuditRecord> {
        let record = tokio::time::timeout(PATIENCE, self.audit.recv()).await;
        record.expect("a record in time").expect("a record")
    }

    /// What the host says of this connection.
    pub(crate) async fn describe(&self) -> DescribeResponse {
        let path = http::uri::PathAndQuery::from_static("/outrigger.host.v1.Session/Describe");
        let reply = self.connection.call(path, Request::new(DescribeRequest {}));
        reply.await.expect("an answer")
    }

    pub(crate) async fn call<Q, R>(&self, method: &str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.connection
            .call(path(method), Request::new(request))
            .await
    }

    pub(crate) async fn start<Q, R>(&self, method: &str, request: Q) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.connection.download(path(method), request).await
    }

    pub(crate) async fn both<Q, R>(
        &self,
        method: &str,
        first: Q,
    ) -> Result<(mpsc::Sender<Q>, Streaming<R>), Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(first).expect("room");
        let parts = futures_util::stream::unfold(receiver, async |mut receiver| {
            let part = mpsc::Receiver::recv(&mut receiver).await?;
            Some((part, receiver))
        });
        let replies = self.connection.converse(path(method), parts).await?;
        Ok((sender, replies))
    }

    pub(crate) async fn resolve(&self, host: &str, port: u32) -> Result<Vec<String>, Status> {
        let host = host.to_owned();
        let reply: ResolveResponse = self.call("Resolve", ResolveRequest { host, port }).await?;
        Ok(reply.addresses)
    }

    pub(crate) async fn connect(&self, host: &str, port: u32) -> Result<Stream, Status> {
        let target = Target {
            host: host.to_owned(),
            port,
            timeout_ms: 0,
        };
        self.connect_to(target).await
    }

    pub(crate) async fn connect_to(&self, target: Target) -> Result<Stream, Status> {
        let first = ConnectRequest {
            part: Some(connect_request::Part::Target(target)),
        };
        let (sender, mut receiver) = self.both("Connect", first).await?;
        let first: Option<ConnectResponse> = receiver.message().await?;
        let Some(connect_response::Part::Connected(connected)) = first.and_then(|first| first.part)
        else {
            panic!("the first message says where");
        };
        Ok(Stream {
            sender: Some(sender),
            receiver,
            connected,
        })
    }

    /// `Connect` with just these messages, to the end of the replies.
    pub(crate) async fn connect_with(
        &self,
        parts: impl futures_util::Stream<Item = ConnectRequest> + Send + 'static,
    ) -> Result<usize, Status> {
        let replies: Streaming<ConnectResponse> =
            self.connection.converse(path("Connect"), parts).await?;
        drain(replies).await
    }

    pub(crate) async fn accept(
        &self,
        connection: &str,
    ) -> Result<(mpsc::Sender<AcceptRequest>, Streaming<AcceptResponse>), Status> {
        let first = AcceptRequest {
            part: Some(accept_request::Part::Connection(connection.to_owned())),
        };
        self.both("Accept", first).await
    }

    pub(crate) async fn http(&self, request: HttpRequest) -> Result<HttpResponse, Status> {
        self.call("Http", request).await
    }

    pub(crate) async fn get(&self, url: &str) -> Result<HttpResponse, Status> {
        self.http(get(url)).await
    }

    /// A streamed reply: its head, and what its body came to.
    pub(crate) async fn http_stream(
        &self,
        request: HttpRequest,
    ) -> Result<(HttpResponse, u64), Status> {
        let mut parts: Streaming<HttpStreamResponse> = self.start("HttpStream", request).await?;
        let mut head = None;
        let mut bytes = 0;
        while let Some(part) = parts.message().await? {
            match part.part.expect("a part") {
                http_stream_response::Part::Head(first) => head = Some(first),
                http_stream_response::Part::Data(data) => bytes += data.len() as u64,
            }
        }
        Ok((head.expect("a head"), bytes))
    }

    pub(crate) async fn listen(
        &self,
        address: &str,
        port: u16,
    ) -> Result<Streaming<ListenResponse>, Status> {
        let request = ListenRequest {
            port: port.into(),
            address: address.to_owned(),
        };
        let mut arrivals: Streaming<ListenResponse> = self.start("Listen", request).await?;
        let first = arrivals.message().await?.and_then(|first| first.part);
        assert!(matches!(first, Some(listen_response::Part::Listening(_))));
        Ok(arrivals)
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    let path = format!("/outrigger.host.v1.Network/{method}");
    path.parse().expect("a path")
}

pub(crate) fn get(url: &str) -> HttpRequest {
    HttpRequest {
        url: url.to_owned(),
        ..HttpRequest::default()
    }
}

/// The name of the next connection.
pub(crate) async fn incoming(arrivals: &mut Streaming<ListenResponse>) -> Incoming {
    let next = tokio::time::timeout(PATIENCE, arrivals.message()).await;
    match next
        .expect("in time")
        .expect("a message")
        .and_then(|next| next.part)
    {
        Some(listen_response::Part::Incoming(incoming)) => incoming,
        other => panic!("no connection: {other:?}"),
    }
}

/// A byte stream of `Connect`.
pub(crate) struct Stream {
    sender: Option<mpsc::Sender<ConnectRequest>>,
    receiver: Streaming<ConnectResponse>,
    pub(crate) connected: Connected,
}

/// What came out of a byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Data(Vec<u8>),
    Finish,
    End,
}

impl Stream {
    pub(crate) async fn send(&self, data: impl Into<bytes::Bytes>) {
        send(self.sender.as_ref().expect("open"), data).await;
    }

    pub(crate) async fn finish(&mut self) {
        let part = Some(connect_request::Part::Finish(true));
        let sender = self.sender.as_ref().expect("open");
        let _ = sender.send(ConnectRequest { part }).await;
    }

    /// Ends the messages without saying so.
    pub(crate) fn end(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        let next = tokio::time::timeout(PATIENCE, self.receiver.message()).await;
        Ok(match next.expect("in time")?.map(|next| next.part) {
            None => Event::End,
            Some(Some(connect_response::Part::Data(data))) => Event::Data(data.to_vec()),
            Some(Some(connect_response::Part::Finish(true))) => Event::Finish,
            Some(other) => panic!("unexpected: {other:?}"),
        })
    }

    /// Everything until the peer finishes.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, Status> {
        let mut all = Vec::new();
        loop {
            match self.next().await? {
                Event::Data(data) => all.extend(data),
                Event::Finish => return Ok(all),
                Event::End => panic!("ended without a word"),
            }
        }
    }

    pub(crate) fn split(self) -> (mpsc::Sender<ConnectRequest>, Streaming<ConnectResponse>) {
        (self.sender.expect("open"), self.receiver)
    }
}

pub(crate) async fn send(sender: &mpsc::Sender<ConnectRequest>, data: impl Into<bytes::Bytes>) {
    let part = Some(connect_request::Part::Data(data.into()));
    let _ = sender.send(ConnectRequest { part }).await;
}

/// A server at a port of its own, which does `serve` with each connection.
pub(crate) async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that returns what it gets, until the end of it.
pub(crate) async fn echo_server() -> SocketAddr {
    server(async |mut stream| {
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        let _ = writing.shutdown().await;
    })
    .await
}

/// A request as a server saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn has(&self, field: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(field))
    }

    pub(crate) fn names(&self, name: &str) -> bool {
        let name = format!("{name}:");
        self.head
            .to_ascii_lowercase()
            .lines()
            .any(|line| line.starts_with(&name))
    }
}

/// The requests that a server saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visits(Arc<Mutex<Vec<Seen>>>);

impl Visits {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.all().pop().expect("a request")
    }
}

/// Reads one request and sends `reply` made from it.
pub(crate) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    visits: &Visits,
    reply: impl Fn(&Seen) -> Vec<u8>,
) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("text");
    let length = text
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| {
            line.strip_prefix("content-length: ")
                .map(|n| n.parse().unwrap())
        })
        .unwrap_or(0);
    let mut body = bytes[head..].to_vec();
    while body.len() < length {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => body.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let (line, head) = text.split_once("\r\n").expect("a line");
    let seen = Seen {
        line: line.to_owned(),
        head: head.to_owned(),
        body,
    };
    visits.0.lock().unwrap().push(seen.clone());
    let _ = stream.write_all(&reply(&seen)).await;
    let _ = stream.shutdown().await;
}

/// An HTTP server with one answer to everything.
pub(crate) async fn http_server(
    reply: impl Fn(&Seen) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> (SocketAddr, Visits) {
    let visits = Visits::default();
    let seen = visits.clone();
    let address = server(move |stream| {
        let (seen, reply) = (seen.clone(), reply.clone());
        async move { answer(stream, &seen, reply).await }
    });
    (address.await, visits)
}

/// A reply with a body and its length.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Kind: test\r\n\r\n{body}").into()
}

pub(crate) fn redirect(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into()
}

/// The `errno` that a status carries.
pub(crate) fn errno(status: &Status) -> String {
    use tonic_types::StatusExt;
    let info = status.get_details_error_info().expect("details");
    info.metadata.get("errno").cloned().unwrap_or_default()
}

/// Collects a stream's messages until it ends or fails.
pub(crate) async fn drain<R>(mut stream: Streaming<R>) -> Result<usize, Status> {
    let mut count = 0;
    while let Some(next) = stream.next().await {
        next?;
        count += 1;
    }
    Ok(count)
}
