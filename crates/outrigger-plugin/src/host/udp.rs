//! Datagrams to and from granted places.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::open_udp_request::Part as Sent;
use outrigger_wire::proto::host::open_udp_response::Part as Received;
use outrigger_wire::proto::host::{OpenUdpRequest, OpenUdpResponse};
use prost::Message;
use rustix::io::Errno;
use tokio::net::UnixDatagram;
use tokio::sync::{Mutex, mpsc};
use tonic::{Code, Streaming};

use super::calls::call;
use super::{Host, HostError};

const OPERATION: &str = "network.open_udp";
/// The most contents of a datagram, in bytes.
const LONGEST: usize = 65_507;
/// Room for the longest packet of the host: a datagram and what surrounds it.
const PACKET: usize = (64 << 10) + 1024;
/// Datagrams that wait to be sent by a call.
const WAITING: usize = 16;
/// How long what was sent goes out after the socket was dropped.
const LINGER: Duration = Duration::from_secs(10);

/// A UDP socket of the host, as `tokio::net::UdpSocket` is one of this machine.
///
/// Datagrams keep their bounds and may get lost: on the network, and at the host
/// while the plugin takes none, which [`dropped`](Self::dropped) counts. All
/// methods can be used at the same time.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::host::Host) -> Result<(), Box<dyn std::error::Error>> {
/// let socket = host.network().connect_udp("192.0.2.53", 53).await?;
/// socket.send(b"a question").await?;
/// let mut answer = [0; 1500];
/// let length = socket.recv(&mut answer).await?;
/// println!("{length} bytes");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    carrier: Carrier,
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    dropped: AtomicU64,
}

/// What carries datagrams between plugin and host.
enum Carrier {
    /// One end of a pair, which the host connects to the network. It is one of
    /// packets, which unlike datagrams have an end.
    Socket {
        pair: UnixDatagram,
        buffer: Mutex<Vec<u8>>,
    },
    Call {
        sender: mpsc::Sender<OpenUdpRequest>,
        /// Nothing once it is dropped.
        replies: Option<Mutex<Streaming<OpenUdpResponse>>>,
        wrote: AtomicBool,
    },
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket { .. } => "Socket",
            Self::Call { .. } => "Call",
        })
    }
}

impl Carrier {
    fn socket(socket: OwnedFd) -> io::Result<Self> {
        let pair = StdUnixDatagram::from(socket);
        pair.set_nonblocking(true)?;
        Ok(Self::Socket {
            pair: UnixDatagram::from_std(pair)?,
            buffer: Mutex::new(vec![0; PACKET]),
        })
    }
}

impl UdpSocket {
    pub(super) async fn open(host: &Host, wanted: Sent) -> Result<Self, HostError> {
        let first = OpenUdpRequest { part: Some(wanted) };
        if let Some(descriptors) = host.descriptors() {
            let asked = Request::OpenUdp(first.clone());
            match descriptors.ask_for_one(OPERATION, asked).await? {
                Some((Reply::Connected(connected), socket)) => {
                    let carrier = Carrier::socket(socket);
                    let carrier = carrier.map_err(|error| HostError::system(OPERATION, error))?;
                    return Ok(Self::new(carrier, &connected));
                }
                Some(_) => return Err(HostError::protocol(OPERATION)),
                None => {}
            }
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let further = futures_util::stream::unfold(receiver, async |mut receiver| {
            let next = mpsc::Receiver::recv(&mut receiver).await?;
            Some((next, receiver))
        });
        let sending = futures_util::stream::iter([first]).chain(further);
        let mut replies = call!(host, network.open_udp, sending)?;
        let first = replies.next().await.transpose();
        let first = first.map_err(|status| HostError::status(OPERATION, status))?;
        let Some(Received::Opened(connected)) = first.and_then(|first| first.part) else {
            return Err(HostError::protocol(OPERATION));
        };
        let carrier = Carrier::Call {
            sender,
            replies: Some(Mutex::new(replies)),
            wrote: AtomicBool::new(false),
        };
        Ok(Self::new(carrier, &connected))
    }

    fn new(carrier: Carrier, connected: &messages::Connected) -> Self {
        Self {
            carrier,
            remote: connected.remote_address.parse().ok(),
            local: connected.local_address.parse().ok(),
            dropped: AtomicU64::new(0),
        }
    }

    /// The only address that it leads to; nothing at a port.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// The host's own address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// How many datagrams came that the host dropped because the plugin did not
    /// take them in time, as far as it has said so yet.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends a datagram to the one place that the socket leads to, and returns its
    /// length. What became of it is an error, if at all, of a later
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    /// It is longer than 65 507 bytes (`EMSGSIZE`), the socket is a port
    /// (`EDESTADDRREQ`), or the host has ended it (`socket-gone`; `recv` says why).
    ///
    /// # Cancel safety
    /// It is sent, or not.
    pub async fn send(&self, data: &[u8]) -> Result<usize, HostError> {
        match self.remote {
            Some(_) => self.send_datagram(data, String::new()).await,
            None => Err(system(Errno::DESTADDRREQ)),
        }
    }

    /// Sends a datagram to `target`: at a port, one of those from whom something
    /// came, which the host remembers for some while. Anything else is an error
    /// (`forbidden`) of a later [`recv_from`](Self::recv_from).
    ///
    /// # Errors
    /// As [`send`](Self::send); the socket leads to another address (`EISCONN`).
    ///
    /// # Cancel safety
    /// It is sent, or not.
    pub async fn send_to(&self, data: &[u8], target: SocketAddr) -> Result<usize, HostError> {
        match self.remote {
            Some(remote) if remote != target => Err(system(Errno::ISCONN)),
            Some(_) => self.send_datagram(data, String::new()).await,
            None => self.send_datagram(data, target.to_string()).await,
        }
    }

    async fn send_datagram(&self, data: &[u8], address: String) -> Result<usize, HostError> {
        if data.len() > LONGEST {
            return Err(system(Errno::MSGSIZE));
        }
        let length = data.len();
        let data = Bytes::copy_from_slice(data);
        let datagram = messages::Datagram { data, address };
        let message = OpenUdpRequest {
            part: Some(Sent::Datagram(datagram)),
        };
        match &self.carrier {
            Carrier::Socket { pair, .. } => {
                let sent = pair.send(&message.encode_to_vec()).await;
                sent.map_err(lost)?;
            }
            Carrier::Call { sender, wrote, .. } => {
                wrote.store(true, Ordering::Relaxed);
                sender.send(message).await.map_err(|_| gone())?;
            }
        }
        Ok(length)
    }

    /// Receives a datagram into `buffer` and returns its length, which may be 0.
    ///
    /// # Errors
    /// What became of a datagram that was sent before, such as `ECONNREFUSED`: the
    /// socket goes on. One that is longer than `buffer` (`datagram-truncated`):
    /// its beginning is there, the rest is lost. The host has ended the socket:
    /// once why, then `socket-gone`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize, HostError> {
        Ok(self.recv_datagram(buffer).await?.0)
    }

    /// Receives a datagram as [`recv`](Self::recv), and says who sent it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), HostError> {
        let (length, address) = self.recv_datagram(buffer).await?;
        let from = match self.remote {
            Some(remote) => Some(remote),
            None => address.parse().ok(),
        };
        let from = from.ok_or_else(|| HostError::protocol(OPERATION))?;
        Ok((length, from))
    }

    async fn recv_datagram(&self, buffer: &mut [u8]) -> Result<(usize, String), HostError> {
        let messages::Datagram { data, address } = loop {
            let message = self.message().await?;
            self.dropped.fetch_add(message.dropped, Ordering::Relaxed);
            match message.part {
                Some(Received::Datagram(datagram)) => break datagram,
                Some(Received::Failure(failure) | Received::Ended(failure)) => {
                    return Err(HostError::failure(OPERATION, failure));
                }
                Some(Received::Opened(_)) | None => {}
            }
        };
        let length = data.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(&data) {
            *to = *from;
        }
        if length < data.len() {
            let text = format!(
                "{OPERATION}: a datagram of {} bytes is cut to the {length} that were asked for",
                data.len()
            );
            let (code, status) = ("datagram-truncated", Code::OutOfRange);
            return Err(HostError::local(code, OPERATION, status, text));
        }
        Ok((length, address))
    }

    async fn message(&self) -> Result<OpenUdpResponse, HostError> {
        match &self.carrier {
            Carrier::Socket { pair, buffer } => {
                let mut buffer = buffer.lock().await;
                let length = loop {
                    match pair.recv(&mut buffer).await {
                        // The host did not take everything; what it sent is there.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                        received => break received.map_err(lost)?,
                    }
                };
                if length == 0 {
                    return Err(gone());
                }
                let packet = buffer.get(..length).unwrap_or_default();
                OpenUdpResponse::decode(packet).map_err(|_| HostError::protocol(OPERATION))
            }
            Carrier::Call { replies, .. } => {
                let Some(replies) = replies else {
                    return Err(gone());
                };
                match replies.lock().await.next().await {
                    Some(Ok(message)) => Ok(message),
                    Some(Err(status)) => Err(HostError::status(OPERATION, status)),
                    None => Err(gone()),
                }
            }
        }
    }
}

impl Drop for UdpSocket {
    /// As with a socket of the system, what was sent goes out: the host takes it
    /// to its end from a descriptor, and has to be given time in a call.
    fn drop(&mut self) {
        let Carrier::Call {
            sender,
            replies,
            wrote,
        } = &mut self.carrier
        else {
            return;
        };
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(replies), true, Ok(runtime)) = (replies.take(), *wrote.get_mut(), runtime) {
            let (sender, mut replies) = (sender.clone(), replies.into_inner());
            runtime.spawn(tokio::time::timeout(LINGER, async move {
                let part = Some(Sent::Close(true));
                let _ = sender.send(OpenUdpRequest { part }).await;
                while let Some(Ok(_)) = replies.next().await {}
            }));
        }
    }
}

/// The host has ended the socket, or is gone.
fn gone() -> HostError {
    let text = format!("{OPERATION}: the host has ended the socket");
    HostError::local("socket-gone", OPERATION, Code::Unavailable, text)
}

/// What an error of our end of a pair means.
fn lost(error: io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
        _ => HostError::system(OPERATION, error),
    }
}

fn system(errno: Errno) -> HostError {
    HostError::system(OPERATION, errno.into())
}
