//! TCP connections that the host has for the plugin.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::{
    accept_request, accept_response, connect_request, connect_response, listen_response,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, PollSender};
use tonic::Streaming;

use super::calls::call;
use super::parts::{Parts, WAITING};
use super::{Host, HostError};

/// The most that one message carries, in bytes.
const PART: usize = 64 << 10;
/// How long what was written to a connection is sent after it was dropped, and
/// its peer may take to finish.
const LINGER: Duration = Duration::from_secs(10);
/// How much may come for a connection that was dropped, in bytes.
const DISCARDED: usize = 256 << 10;

/// The plugin's end of what a call sends.
struct Sender {
    parts: mpsc::Sender<Option<Bytes>>,
    /// Cancelled when the call has taken everything.
    taken: CancellationToken,
}

/// A channel into a call. What comes out of it is data, and nothing for the end of
/// the plugin's direction.
fn outgoing() -> (Sender, impl Stream<Item = Option<Bytes>> + Send) {
    let (parts, receiver) = mpsc::channel(WAITING);
    let taken = CancellationToken::new();
    let state = (receiver, taken.clone().drop_guard());
    let outgoing = futures_util::stream::unfold(state, |(mut parts, taken)| async {
        Some((mpsc::Receiver::recv(&mut parts).await?, (parts, taken)))
    });
    (Sender { parts, taken }, outgoing)
}

/// A connection.
///
/// As with a socket, what was written goes out after this is dropped: for 10 s,
/// and while the plugin runs. Without anything written the connection ends at
/// once. What the peer still sends to a dropped connection is discarded; where that
/// is much, the connection ends, and what the host has not sent by then is lost,
/// as where a socket is reset.
///
/// The host may carry a connection to an address through a local socket. Then
/// the plugin cannot tell why it ended: the peer's breaking off, the end of its
/// time and the end of the host look as if the peer had finished. A protocol that
/// does not mark its own end cannot tell these apart. Every other connection
/// reports an error.
#[derive(Debug)]
pub struct TcpStream {
    carrier: Carrier,
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

/// What carries the bytes between plugin and host.
enum Carrier {
    /// One end of a pair, which the host connects to the peer.
    Socket(tokio::net::UnixStream),
    Call {
        sender: PollSender<Option<Bytes>>,
        received: Parts,
        /// Whether anything was written, for the task that outlives this value.
        wrote: Arc<AtomicBool>,
    },
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Socket",
            Self::Call { .. } => "Call",
        })
    }
}

impl Carrier {
    fn call(
        sender: Sender,
        received: impl Stream<Item = Result<Option<Bytes>, HostError>> + Send + 'static,
    ) -> Self {
        let (parts, parts_in) = Parts::channel();
        let wrote = Arc::new(AtomicBool::new(false));
        let (written, taken) = (wrote.clone(), sender.taken);
        // Ends with the connection, or soon after nobody has it any more.
        tokio::spawn(async move {
            let mut received = std::pin::pin!(received.fuse());
            pass_on(&mut received, parts_in).await;
            // To end the call now would lose what is still to be sent. The call's
            // messages end with the connection's value, and then the host finishes.
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
        Self::Call {
            sender: PollSender::new(sender.parts),
            received: parts,
            wrote,
        }
    }
}

/// Passes on what is received, until its end or until nobody reads it. The peer's
/// end becomes an empty part.
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
    pub(super) fn by_socket(socket: OwnedFd, connected: &messages::Connected) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(socket)?;
        Ok(Self::new(Carrier::Socket(socket), connected))
    }

    pub(super) async fn by_call(host: &Host, target: messages::Target) -> Result<Self, HostError> {
        let operation = "network.connect";
        let (sender, outgoing) = outgoing();
        let parts = futures_util::stream::iter([connect_request::Part::Target(target)]);
        let parts = parts.chain(outgoing.map(|part| match part {
            Some(data) => connect_request::Part::Data(data),
            None => connect_request::Part::Finish(true),
        }));
        let sending = parts.map(|part| messages::ConnectRequest { part: Some(part) });
        let mut replies = call!(host, network.connect, sending)?;
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
        Ok(Self::new(Carrier::call(sender, received), &connected))
    }

    fn new(carrier: Carrier, connected: &messages::Connected) -> Self {
        Self {
            carrier,
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
        match &mut self.carrier {
            Carrier::Socket(socket) => {
                let read = Pin::new(socket).poll_read(context, buffer);
                read.map_err(failed)
            }
            Carrier::Call { received, .. } => received.poll_read(context, buffer),
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
        match &mut self.carrier {
            Carrier::Socket(socket) => Pin::new(socket).poll_write(context, data).map_err(failed),
            Carrier::Call { sender, wrote, .. } => {
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
        match &mut self.carrier {
            Carrier::Socket(socket) => Pin::new(socket).poll_flush(context),
            Carrier::Call { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Ends our direction; the other one stays open.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Socket(socket) => Pin::new(socket).poll_shutdown(context).map_err(failed),
            Carrier::Call { sender, .. } => {
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
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// let mut listener = host.network().listen(None, 8080).await?;
/// loop {
///     let (stream, from) = listener.accept().await?;
///     println!("{from} connected");
///     drop(stream);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    host: Host,
    local: SocketAddr,
    incoming: Streaming<messages::ListenResponse>,
}

impl Listener {
    pub(super) async fn open(
        host: &Host,
        request: messages::ListenRequest,
    ) -> Result<Self, HostError> {
        let operation = "network.listen";
        let mut incoming = call!(host, network.listen, request)?;
        let first = incoming.next().await.transpose();
        let first = first.map_err(|status| HostError::status(operation, status))?;
        let Some(listen_response::Part::Listening(text)) = first.and_then(|r| r.part) else {
            return Err(HostError::protocol(operation));
        };
        Ok(Self {
            host: host.clone(),
            local: text.parse().map_err(|_| HostError::protocol(operation))?,
            incoming,
        })
    }

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
        let (sender, outgoing) = outgoing();
        let first = accept_request::Part::Connection(incoming.connection);
        let parts = futures_util::stream::iter([first]).chain(outgoing.map(|part| match part {
            Some(data) => accept_request::Part::Data(data),
            None => accept_request::Part::Finish(true),
        }));
        let sending = parts.map(|part| messages::AcceptRequest { part: Some(part) });
        let replies = call!(self.host, network.accept, sending)?;
        let received = replies.map(|reply| match reply.map(|reply| reply.part) {
            Ok(Some(accept_response::Part::Data(data))) => Ok(Some(data)),
            Ok(Some(accept_response::Part::Finish(_))) => Ok(None),
            Ok(None) => Ok(Some(Bytes::new())),
            Err(status) => Err(HostError::status("network.accept", status)),
        });
        let connected = messages::Connected {
            remote_address: incoming.remote_address,
            local_address: self.local.to_string(),
        };
        Ok(TcpStream::new(Carrier::call(sender, received), &connected))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_dropped_download_ends_when_what_was_written_is_taken() {
        let (sender, outgoing) = outgoing();
        let ended = CancellationToken::new();
        let came = Arc::new(AtomicUsize::new(0));
        let (coming, guard) = (came.clone(), ended.clone().drop_guard());
        let download = futures_util::stream::repeat_with(move || {
            let _until_dropped = &guard;
            coming.fetch_add(PART, Ordering::Relaxed);
            Ok(Some(Bytes::from_static(&[0; PART])))
        });
        let carrier = Carrier::call(sender, download.take(1000));
        let mut stream = TcpStream::new(carrier, &messages::Connected::default());
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
