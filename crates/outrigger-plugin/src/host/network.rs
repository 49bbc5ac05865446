//! Connections to granted places.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::{
    accept_request, accept_response, connect_request, connect_response, http_stream_response,
    listen_response,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tonic::{Status, Streaming};

use super::process::Parts;
use super::{Host, HostError, call};
use crate::proto::host::network_client::NetworkClient;

/// Parts of a connection that wait to be read or sent.
const WAITING: usize = 4;
/// The most that one message carries, in bytes.
const PART: usize = 64 << 10;
/// How long what was written to a connection is sent after it was dropped, and
/// its peer may take to finish.
const LINGER: Duration = Duration::from_secs(10);
/// How much may come for a connection that was dropped, in bytes.
const DISCARDED: usize = 256 << 10;

macro_rules! network {
    ($host:expr, $method:ident, $request:expr) => {
        call!($host, NetworkClient, "network", $method, $request)
    };
}

/// Connections that the host makes for the plugin.
#[derive(Clone, Debug)]
pub struct NetworkAccess(pub(super) Host);

impl NetworkAccess {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// The addresses of a granted name that may be dialled.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn resolve(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<Vec<IpAddr>, HostError> {
        let (host, port) = (host.into(), port.into());
        let found = network!(self.0, resolve, messages::ResolveRequest { host, port })?;
        let addresses = found.addresses.iter().map(|text| text.parse());
        let addresses: Result<_, _> = addresses.collect();
        addresses.map_err(|_| HostError::protocol("network.resolve"))
    }

    /// Connects to a granted place.
    ///
    /// # Errors
    /// It is not granted, nobody answers there, or see [`HostError`].
    pub async fn connect(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<TcpStream, HostError> {
        let operation = "network.connect";
        let target = messages::Target {
            host: host.into(),
            port: port.into(),
            timeout_ms: 0,
        };
        // By name the host stays in between, to see that the name is kept to.
        let by_address = target.host.parse::<IpAddr>().is_ok();
        if let Some(descriptors) = self.0.descriptors().filter(|_| by_address) {
            let request = Request::Connect(target.clone());
            if let Some((reply, mut taken)) = descriptors.ask(operation, request).await? {
                let taken = (reply, taken.pop(), taken.is_empty());
                let (Reply::Connected(connected), Some(socket), true) = taken else {
                    return Err(HostError::protocol(operation));
                };
                // One end of a pair: the host carries it to the peer.
                let stream = std::os::unix::net::UnixStream::from(socket);
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| tokio::net::UnixStream::from_std(stream));
                let stream = stream.map_err(|error| HostError::system(operation, error))?;
                return Ok(TcpStream::new(Way::Descriptor(stream), &connected));
            }
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let taken = CancellationToken::new();
        let outgoing = outgoing(receiver, taken.clone().drop_guard());
        let first = messages::ConnectRequest {
            part: Some(connect_request::Part::Target(target)),
        };
        let sending = futures_util::stream::iter([first]).chain(outgoing.map(|part| {
            let part = match part {
                Some(data) => connect_request::Part::Data(data),
                None => connect_request::Part::Finish(true),
            };
            messages::ConnectRequest { part: Some(part) }
        }));
        let mut replies = network!(self.0, connect, sending)?;
        let first = replies.next().await.transpose();
        let first = first.map_err(|status| HostError::status(operation, status))?;
        let Some(connect_response::Part::Connected(connected)) = first.and_then(|r| r.part) else {
            return Err(HostError::protocol(operation));
        };
        let received = replies.map(move |reply| match reply.map(|reply| reply.part) {
            Ok(Some(connect_response::Part::Data(data))) => Ok(Some(data)),
            Ok(Some(connect_response::Part::Finish(_))) => Ok(None),
            Ok(_) => Ok(Some(Bytes::new())),
            Err(status) => Err(HostError::status(operation, status)),
        });
        Ok(TcpStream::new(
            Way::calls(sender, taken, received),
            &connected,
        ))
    }

    /// Listens on a granted port, at 127.0.0.1 unless another address of the
    /// host is named. Dropping the listener ends that.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn listen(&self, address: Option<IpAddr>, port: u16) -> Result<Listener, HostError> {
        let operation = "network.listen";
        let address = address.map(|address| address.to_string());
        let request = messages::ListenRequest {
            port: port.into(),
            address: address.unwrap_or_default(),
        };
        let mut incoming = network!(self.0, listen, request)?;
        let first = incoming.next().await.transpose();
        let first = first.map_err(|status| HostError::status(operation, status))?;
        let Some(listen_response::Part::Listening(text)) = first.and_then(|r| r.part) else {
            return Err(HostError::protocol(operation));
        };
        let local = text.parse().map_err(|_| HostError::protocol(operation))?;
        let host = self.0.clone();
        Ok(Listener {
            host,
            local,
            incoming,
        })
    }

    /// A `GET` of an `http://` or `https://` address. Redirects are followed as
    /// far as each of them is granted.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn get(&self, url: impl Into<String>) -> Result<HttpResponse, HostError> {
        self.request(HttpRequest::new("GET", url).follow_redirects(5))
            .await
    }

    /// Makes one HTTP request and collects the reply.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn request(&self, request: HttpRequest) -> Result<HttpResponse, HostError> {
        Ok(HttpResponse(network!(self.0, http, request.0)?))
    }

    /// Makes one HTTP request; the body of the reply comes as a stream.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn request_stream(
        &self,
        request: HttpRequest,
    ) -> Result<(HttpResponse, BoxStream<'static, Result<Bytes, HostError>>), HostError> {
        let operation = "network.http_stream";
        let lost = move |status: Status| HostError::status(operation, status);
        let mut reply = network!(self.0, http_stream, request.0)?;
        let first = reply.next().await.transpose().map_err(lost)?;
        let Some(http_stream_response::Part::Head(head)) = first.and_then(|r| r.part) else {
            return Err(HostError::protocol(operation));
        };
        let body = reply.map(move |part| match part.map_err(lost)?.part {
            Some(http_stream_response::Part::Data(data)) => Ok(data),
            Some(http_stream_response::Part::Head(_)) | None => Ok(Bytes::new()),
        });
        Ok((HttpResponse(head), body.boxed()))
    }
}

/// What the plugin sends: data, and nothing for its end. All of it was taken when
/// `taken` goes.
fn outgoing(
    parts: mpsc::Receiver<Option<Bytes>>,
    taken: DropGuard,
) -> impl Stream<Item = Option<Bytes>> + Send {
    futures_util::stream::unfold((parts, taken), |(mut parts, taken)| async {
        Some((parts.recv().await?, (parts, taken)))
    })
}

/// A connection.
///
/// As with a socket, what was written goes out after this is dropped: for 10 s,
/// and while the plugin runs. A connection to which nothing was written ends at
/// once, and one whose peer goes on sending ends soon: what comes is not wanted,
/// and what the host has not sent by then is lost, as where a socket is reset.
///
/// One to an address may be a socket that the host carries. When its peer breaks
/// off, its time is up, or the host ends, it ends as if the peer had finished: a
/// protocol that does not mark its own end cannot tell. Any other is an error
/// then.
#[derive(Debug)]
pub struct TcpStream {
    way: Way,
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

enum Way {
    Descriptor(tokio::net::UnixStream),
    Calls {
        sender: PollSender<Option<Bytes>>,
        received: Parts,
        finished: bool,
        wrote: Arc<AtomicBool>,
    },
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Descriptor(_) => "Descriptor",
            Self::Calls { .. } => "Calls",
        })
    }
}

impl Way {
    fn calls(
        sender: mpsc::Sender<Option<Bytes>>,
        taken: CancellationToken,
        received: impl Stream<Item = Result<Option<Bytes>, HostError>> + Send + 'static,
    ) -> Self {
        let (parts_in, parts) = mpsc::channel(WAITING);
        let wrote = Arc::new(AtomicBool::new(false));
        let written = wrote.clone();
        // Ends with the connection, or soon after nobody has it any more.
        tokio::spawn(async move {
            let mut received = std::pin::pin!(received.fuse());
            pass_on(&mut received, parts_in).await;
            // The call's end takes back what it did not send yet. Its messages
            // end with the connection's value, and the host finishes then.
            if written.load(Ordering::Acquire) {
                let rest = async {
                    let mut came = 0;
                    while let Some(Ok(part)) = received.next().await {
                        came += part.map_or(0, |data| data.len());
                        if came > DISCARDED {
                            return taken.cancelled().await;
                        }
                    }
                };
                let _ = tokio::time::timeout(LINGER, rest).await;
            }
        });
        let rest = Bytes::new();
        Self::Calls {
            sender: PollSender::new(sender),
            received: Parts { parts, rest },
            finished: false,
            wrote,
        }
    }
}

/// Hands over what is received, until its end or until nobody wants it. An empty
/// part is the peer's end.
async fn pass_on(
    received: &mut (impl Stream<Item = Result<Option<Bytes>, HostError>> + Unpin),
    parts: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut ended = false;
    loop {
        let part = tokio::select! {
            part = received.next() => part,
            () = parts.closed() => return,
        };
        let part = match part {
            // The call goes on until our end.
            Some(Ok(None)) if !ended => {
                ended = true;
                Ok(Bytes::new())
            }
            Some(Ok(Some(data))) if !ended && !data.is_empty() => Ok(data),
            Some(Ok(_)) => continue,
            Some(Err(error)) => Err(error.into()),
            None => return,
        };
        if parts.send(part).await.is_err() {
            return;
        }
    }
}

impl TcpStream {
    fn new(way: Way, connected: &messages::Connected) -> Self {
        Self {
            way,
            remote: connected.remote_address.parse().ok(),
            local: connected.local_address.parse().ok(),
        }
    }

    /// The address at the other end, if the host said.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// The host's own address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Descriptor(stream) => Pin::new(stream).poll_read(context, buffer).map_err(failed),
            Way::Calls {
                received, finished, ..
            } => {
                if *finished {
                    return Poll::Ready(Ok(()));
                }
                if received.rest.is_empty() {
                    match ready!(received.parts.poll_recv(context)) {
                        // An empty part is the peer's end.
                        Some(Ok(part)) if !part.is_empty() => received.rest = part,
                        Some(Err(error)) => return Poll::Ready(Err(error)),
                        Some(Ok(_)) | None => {
                            *finished = true;
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
                received.poll(context, buffer)
            }
        }
    }
}

/// What the system says of a connection, as the host would say it.
fn failed(error: io::Error) -> io::Error {
    HostError::system("network.connect", error).into()
}

fn gone() -> io::Error {
    failed(io::ErrorKind::BrokenPipe.into())
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.way {
            Way::Descriptor(stream) => Pin::new(stream).poll_write(context, data).map_err(failed),
            Way::Calls { sender, wrote, .. } => {
                ready!(sender.poll_reserve(context)).map_err(|_| gone())?;
                wrote.store(true, Ordering::Release);
                let part = data.get(..data.len().min(PART)).unwrap_or_default();
                let sent = sender.send_item(Some(Bytes::copy_from_slice(part)));
                sent.map_err(|_| gone())?;
                Poll::Ready(Ok(part.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Descriptor(stream) => Pin::new(stream).poll_flush(context),
            Way::Calls { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Ends our direction; the other one stays open.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Descriptor(stream) => Pin::new(stream).poll_shutdown(context).map_err(failed),
            Way::Calls { sender, .. } => {
                if sender.is_closed() {
                    return Poll::Ready(Ok(()));
                }
                ready!(sender.poll_reserve(context)).map_err(|_| gone())?;
                sender.send_item(None).map_err(|_| gone())?;
                sender.close();
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// A port on which the host listens for the plugin.
#[derive(Debug)]
pub struct Listener {
    host: Host,
    local: SocketAddr,
    incoming: Streaming<messages::ListenResponse>,
}

impl Listener {
    /// Where the host listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection from a granted origin, and where it comes from. One
    /// that the host gave up meanwhile, because nobody took it in time, is passed
    /// over.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// A connection may be lost when the future is dropped.
    pub async fn accept(&mut self) -> Result<(TcpStream, SocketAddr), HostError> {
        let operation = "network.listen";
        loop {
            let next = self.incoming.next().await.transpose();
            let next = next.map_err(|status| HostError::status(operation, status))?;
            let next = next.ok_or_else(|| HostError::protocol(operation))?;
            let Some(listen_response::Part::Incoming(incoming)) = next.part else {
                continue;
            };
            let remote = incoming.remote_address.parse();
            let remote = remote.map_err(|_| HostError::protocol(operation))?;
            match self.take(incoming).await {
                Ok(stream) => return Ok((stream, remote)),
                Err(error) if error.code() == "unknown-lease" => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn take(&self, incoming: messages::Incoming) -> Result<TcpStream, HostError> {
        let operation = "network.accept";
        let (sender, receiver) = mpsc::channel(WAITING);
        let taken = CancellationToken::new();
        let outgoing = outgoing(receiver, taken.clone().drop_guard());
        let first = messages::AcceptRequest {
            part: Some(accept_request::Part::Connection(incoming.connection)),
        };
        let sending = futures_util::stream::iter([first]).chain(outgoing.map(|part| {
            let part = match part {
                Some(data) => accept_request::Part::Data(data),
                None => accept_request::Part::Finish(true),
            };
            messages::AcceptRequest { part: Some(part) }
        }));
        let replies = network!(self.host, accept, sending)?;
        let received = replies.map(move |reply| match reply.map(|reply| reply.part) {
            Ok(Some(accept_response::Part::Data(data))) => Ok(Some(data)),
            Ok(Some(accept_response::Part::Finish(_))) => Ok(None),
            Ok(None) => Ok(Some(Bytes::new())),
            Err(status) => Err(HostError::status(operation, status)),
        });
        let connected = messages::Connected {
            remote_address: incoming.remote_address,
            local_address: self.local.to_string(),
        };
        Ok(TcpStream::new(
            Way::calls(sender, taken, received),
            &connected,
        ))
    }
}

/// One HTTP request.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before it is given to the network"]
pub struct HttpRequest(messages::HttpRequest);

impl HttpRequest {
    /// A request for an `http://` or `https://` address.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self(messages::HttpRequest {
            method: method.into(),
            url: url.into(),
            ..messages::HttpRequest::default()
        })
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.0.headers.push(messages::Header { name, value });
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Bounds how long it takes, all redirects together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Follows so many redirects, each judged as a request of its own. To another
    /// origin goes no body, and no field that may be a credential.
    pub fn follow_redirects(mut self, most: u32) -> Self {
        self.0.follow_redirects = most;
        self
    }
}

/// The reply to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpResponse(messages::HttpResponse);

impl HttpResponse {
    /// The status, such as 200.
    pub fn status(&self) -> u32 {
        self.0.status
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.0.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(&found.value)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.0.headers.iter();
        headers.map(|header| (header.name.as_str(), &*header.value))
    }

    /// The body; empty where it comes as a stream.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Where it came from, after redirects.
    pub fn url(&self) -> &str {
        &self.0.url
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_dropped_download_ends_when_what_was_written_is_taken() {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (taken, ended) = (CancellationToken::new(), CancellationToken::new());
        let outgoing = outgoing(receiver, taken.clone().drop_guard());
        let came = Arc::new(AtomicUsize::new(0));
        let (coming, guard) = (came.clone(), ended.clone().drop_guard());
        let download = futures_util::stream::repeat_with(move || {
            let _until_dropped = &guard;
            coming.fetch_add(PART, Ordering::Relaxed);
            Ok(Some(Bytes::from_static(&[0; PART])))
        });
        let way = Way::calls(sender, taken, download.take(1000));
        let mut stream = TcpStream::new(way, &messages::Connected::default());
        stream.write_all(b"get").await.expect("taken");
        drop(stream);
        while came.load(Ordering::Relaxed) < DISCARDED {
            tokio::task::yield_now().await;
        }
        assert!(!ended.is_cancelled());
        let sent: Vec<_> = outgoing.collect().await;
        assert_eq!(sent, [Some(Bytes::from_static(b"get"))]);
        ended.cancelled().await;
        let most = DISCARDED + (WAITING + 2) * PART;
        assert!(came.load(Ordering::Relaxed) <= most, "{came:?}");
    }
}
