//! The plugin's end of the descriptor socket.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_transport::TraceContext;
use outrigger_wire::descriptors::{
    FrameBuffer, FrameTooLong, MAX_DESCRIPTORS, MAX_FRAME, put_frame,
};
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::{
    DescriptorHello, DescriptorOffer, DescriptorReply, DescriptorRequest,
};
use prost::Message;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Code;

use super::HostError;

/// The most connections to the socket; each carries one request at a time.
const CONNECTIONS: usize = 3;
/// How many of them may carry requests that wait for the network. Opening a file
/// always finds another one.
const DIALLING: usize = CONNECTIONS - 1;
/// After so many failed connections in a row no more are tried.
const FAILURES: u32 = 3;
/// How long the host may take for its first message.
const GREETING: Duration = Duration::from_secs(5);

/// Where the host hands over descriptors.
pub(super) struct Descriptors {
    offer: DescriptorOffer,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
    dialling: Semaphore,
    failures: AtomicU32,
}

impl std::fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is authority.
        f.debug_struct("Descriptors")
            .field("path", &self.offer.path)
            .finish_non_exhaustive()
    }
}

impl Descriptors {
    pub(super) fn new(offer: DescriptorOffer) -> Self {
        Self {
            offer,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
            dialling: Semaphore::new(DIALLING),
            failures: AtomicU32::new(0),
        }
    }

    /// Asks the host. Nothing means that nothing was done and the same has to be
    /// asked by a call: the host said so, the request is too long for the socket,
    /// or slow requests occupy it.
    pub(super) async fn ask(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Option<(Reply, Vec<OwnedFd>)>, HostError> {
        if self.failures.load(Ordering::Relaxed) >= FAILURES {
            return Ok(None);
        }
        let trace = TraceContext::current().map(|trace| trace.to_string());
        let request = DescriptorRequest {
            id: u64::MAX,
            request: Some(request),
            traceparent: trace.unwrap_or_default(),
        };
        if request.encoded_len() > MAX_FRAME {
            return Ok(None);
        }
        let Some(_places) = self.place(&request).await else {
            return Ok(None);
        };
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match tokio::time::timeout(GREETING, Connection::open(&self.offer)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(_)) | Err(_) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    return Ok(None);
                }
            },
        };
        self.failures.store(0, Ordering::Relaxed);
        // Dropped in between, the connection is closed with what is on its way.
        let asked = connection.ask(request).await;
        let (reply, descriptors) = asked.map_err(|error| {
            let text = format!("{operation}: the host's descriptor socket is gone: {error}");
            HostError::local("descriptors-gone", operation, Code::Unavailable, text)
        })?;
        self.idle().push(connection);
        match reply {
            Some(Reply::Failure(failure)) if failure.reason == "use-rpc" => Ok(None),
            Some(Reply::Failure(failure)) => Err(HostError::failure(operation, failure)),
            Some(reply) => Ok(Some((reply, descriptors))),
            None => Err(HostError::protocol(operation)),
        }
    }

    /// Asks for exactly one descriptor, as [`ask`](Self::ask).
    pub(super) async fn ask_for_one(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Option<(Reply, OwnedFd)>, HostError> {
        let Some((reply, descriptors)) = self.ask(operation, request).await? else {
            return Ok(None);
        };
        match <[OwnedFd; 1]>::try_from(descriptors) {
            Ok([descriptor]) => Ok(Some((reply, descriptor))),
            Err(_) => Err(HostError::protocol(operation)),
        }
    }

    /// Waits for a connection that may be used; nothing where too many already
    /// wait for the network.
    async fn place(
        &self,
        request: &DescriptorRequest,
    ) -> Option<(SemaphorePermit<'_>, Option<SemaphorePermit<'_>>)> {
        let dialling = match request.request {
            Some(Request::Connect(_) | Request::OpenUdp(_)) => {
                Some(self.dialling.try_acquire().ok()?)
            }
            _ => None,
        };
        Some((self.places.acquire().await.ok()?, dialling))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection {
    stream: UnixStream,
    sending: Vec<u8>,
    received: FrameBuffer,
    next: u64,
}

impl Connection {
    async fn open(offer: &DescriptorOffer) -> io::Result<Self> {
        let mut connection = Self {
            stream: UnixStream::connect(&offer.path).await?,
            sending: Vec::new(),
            received: FrameBuffer::new(),
            next: 0,
        };
        let hello = DescriptorHello {
            token: offer.token.clone(),
        };
        connection.send(&hello).await?;
        let (greeting, _) = connection.receive().await?;
        connection.next = 1;
        match greeting.id {
            0 => Ok(connection),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn ask(
        &mut self,
        mut request: DescriptorRequest,
    ) -> io::Result<(Option<Reply>, Vec<OwnedFd>)> {
        let id = self.next;
        self.next += 1;
        request.id = id;
        self.send(&request).await?;
        let (reply, descriptors) = self.receive().await?;
        if reply.id != id || reply.descriptors as usize != descriptors.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((reply.reply, descriptors))
    }

    async fn send(&mut self, message: &impl Message) -> io::Result<()> {
        self.sending.clear();
        put_frame(message, &mut self.sending).map_err(no_message)?;
        let mut rest = self.sending.as_slice();
        while !rest.is_empty() {
            // There is room nearly always; only then the reactor is asked.
            let sent = match send(
                &self.stream,
                rest,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Err(rustix::io::Errno::AGAIN) => {
                    self.stream
                        .async_io(Interest::WRITABLE, || {
                            Ok(send(&self.stream, rest, SendFlags::NOSIGNAL)?)
                        })
                        .await?
                }
                sent => sent?,
            };
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<(DescriptorReply, Vec<OwnedFd>)> {
        let mut descriptors = Vec::new();
        while !self.received.is_ready().map_err(no_message)? {
            let (stream, room) = (&self.stream, self.received.room());
            let read = stream
                .async_io(Interest::READABLE, || take(stream, room, &mut descriptors))
                .await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if descriptors.len() > MAX_DESCRIPTORS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.received.filled(read);
        }
        let reply = DescriptorReply::decode(self.received.take()).map_err(io::Error::other)?;
        // One request at a time: nothing may follow its reply.
        if !self.received.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((reply, descriptors))
    }
}

fn no_message(error: FrameTooLong) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn take(stream: &UnixStream, room: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space =
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(room)];
    let received = recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use futures_util::FutureExt;
    use outrigger_wire::proto::host::{OpenRequest, OpenResponse, Target};

    use super::*;

    fn message(stream: &mut UnixStream) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message).ok()?;
        Some(message)
    }

    /// A host that opens at once and never gets anybody on the network. Ends
    /// when its peers are gone.
    fn serve(mut stream: UnixStream) -> Option<()> {
        message(&mut stream)?;
        stream.write_all(&[0; 4]).ok()?;
        while let Some(request) = message(&mut stream) {
            let request = DescriptorRequest::decode(&*request).ok()?;
            if let Some(Request::Open(_)) = request.request {
                let reply = DescriptorReply {
                    id: request.id,
                    descriptors: 0,
                    reply: Some(Reply::Open(OpenResponse::default())),
                };
                let length = reply.encoded_len() as u32;
                stream.write_all(&length.to_be_bytes()).ok()?;
                stream.write_all(&reply.encode_to_vec()).ok()?;
            }
        }
        Some(())
    }

    fn descriptors(dir: &tempfile::TempDir) -> Descriptors {
        let path = dir.path().join("fd");
        let listener = UnixListener::bind(&path).expect("it listens");
        std::thread::spawn(move || {
            for stream in listener.incoming().take(CONNECTIONS).flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        Descriptors::new(DescriptorOffer {
            path: path.to_string_lossy().into_owned(),
            token: vec![7; 32].into(),
        })
    }

    fn open(path: &str) -> Request {
        Request::Open(OpenRequest {
            path: path.to_owned(),
            options: None,
        })
    }

    #[tokio::test]
    async fn slow_connections_leave_room_for_files_and_more_of_them_are_calls() {
        let dir = tempfile::tempdir().expect("a directory");
        let descriptors = descriptors(&dir);
        let connect = || descriptors.ask("network.connect", Request::Connect(Target::default()));
        let mut slow = [Box::pin(connect()), Box::pin(connect())];
        for slow in &mut slow {
            assert!(slow.as_mut().now_or_never().is_none());
        }
        let third = connect().await.expect("no failure");
        assert!(third.is_none());
        let opened = descriptors.ask("filesystem.open", open("/x")).await;
        assert!(opened.expect("no failure").is_some());
    }

    #[tokio::test]
    async fn what_is_too_long_for_the_socket_is_a_call_and_the_socket_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let descriptors = descriptors(&dir);
        for length in [MAX_FRAME, MAX_FRAME - 8] {
            let long = descriptors.ask("filesystem.open", open(&"x".repeat(length)));
            assert!(long.await.expect("no failure").is_none());
        }
        let path = "x".repeat(MAX_FRAME - 64);
        let opened = descriptors.ask("filesystem.open", open(&path)).await;
        assert!(opened.expect("no failure").is_some());
    }
}
