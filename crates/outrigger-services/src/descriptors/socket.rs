//! The descriptor socket of one plugin connection.
//!
//! One thread waits for each connection, so that a request takes one wake of the
//! host and one of the plugin, and nothing in between. A plugin has few such
//! connections, and they are made only once it has asked where the socket is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use outrigger_transport::TraceContext;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::{
    DescriptorHello, DescriptorOffer, DescriptorReply, DescriptorRequest,
};
use prost::Message;
use rustix::net::sockopt::Timeout;
use rustix::net::{Shutdown, sockopt};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::answers::{Answers, DESCRIPTORS, WeakServices};
use super::frames::{Frames, send};
use crate::arguments::Arguments;
use crate::fault::{self, Fault};
use crate::fs::call::SessionFiles;
use crate::network::egress::Egress;
use crate::process::commands::Commands;
use crate::session::Session;

/// Connections of one plugin at the same time.
const CONNECTIONS: usize = 4;
/// How long a peer may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How long a peer may leave replies lying.
const UNREAD: Duration = Duration::from_secs(10);
/// Replies that wait for a plugin hold their descriptors open: few fit.
const SEND_BUFFER: usize = 8 << 10;
/// After the host could not accept, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a token.
const TOKEN: usize = 32;

/// Where descriptors are handed over to one plugin connection. The socket is
/// made when it is first asked for, and goes with this value.
pub(crate) struct Descriptors {
    services: WeakServices,
    offered: OnceLock<Option<Offered>>,
}

struct Offered {
    path: PathBuf,
    socket: Arc<Socket>,
}

/// What the threads share.
struct Socket {
    listener: UnixListener,
    token: [u8; TOKEN],
    connections: Mutex<Vec<Arc<UnixStream>>>,
    answers: Answers,
}

impl Descriptors {
    pub(crate) fn new(files: &Arc<SessionFiles>, processes: &Commands, egress: &Egress) -> Self {
        let services = WeakServices {
            files: Arc::downgrade(files),
            processes: processes.downgrade(),
            egress: egress.downgrade(),
        };
        Self {
            services,
            offered: OnceLock::new(),
        }
    }

    /// Where the plugin finds the socket. There is none where the plugin could not
    /// reach it, and where bytes are paced: the host could not count those that pass
    /// through a descriptor.
    pub(crate) fn offer(&self) -> Option<DescriptorOffer> {
        let offered = self.offered.get_or_init(|| {
            let files = self.services.files.upgrade()?;
            let session = files.session();
            session.identity().socket_dir()?;
            if session.limits().bytes_per_second != 0 {
                return None;
            }
            match self.listen(session) {
                Ok(offered) => Some(offered),
                Err(error) => {
                    let plugin = session.identity().name();
                    tracing::warn!(plugin, %error, "no descriptors are handed over");
                    None
                }
            }
        });
        offered.as_ref().map(|offered| DescriptorOffer {
            path: offered.path.to_string_lossy().into_owned(),
            token: offered.socket.token.to_vec().into(),
        })
    }

    fn listen(&self, session: &Session) -> io::Result<Offered> {
        let answers = Answers::new(self.services.clone()).map_err(io::Error::other)?;
        let dir = session.identity().socket_dir();
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        let (name, _) = Uuid::new_v4().as_u64_pair();
        let path = dir.join(format!("fd-{name:016x}"));
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let mut token = [0; TOKEN];
        getrandom::fill(&mut token)?;
        let socket = Arc::new(Socket {
            listener,
            token,
            connections: Mutex::default(),
            answers,
        });
        let accepting = socket.clone();
        let thread = std::thread::Builder::new().name("outrigger-fd".into());
        thread.spawn(move || accepting.accept())?;
        Ok(Offered { path, socket })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        let Some(Some(offered)) = self.offered.get() else {
            return;
        };
        // Threads that wait are woken, and end by themselves.
        offered.socket.answers.end();
        let _ = rustix::net::shutdown(&offered.socket.listener, Shutdown::Both);
        for connection in offered.socket.connections().iter() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        let _ = std::fs::remove_file(&offered.path);
    }
}

impl Socket {
    fn connections(&self) -> MutexGuard<'_, Vec<Arc<UnixStream>>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why a peer, or what it sent, was turned away.
    fn turn_away(&self, show: impl FnOnce(&mut Arguments), why: &Fault) {
        if let Some(session) = self.answers.session() {
            session.recorder().turn_away(DESCRIPTORS, show, why);
        }
    }

    fn accept(self: Arc<Self>) {
        loop {
            let accepted = self.listener.accept();
            if self.answers.is_over() {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.clone().admit(Arc::new(stream)),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection for descriptors");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn admit(self: Arc<Self>, stream: Arc<UnixStream>) {
        if !self.is_the_plugin(&stream) {
            return;
        }
        {
            let mut connections = self.connections();
            if connections.len() >= CONNECTIONS {
                drop(connections);
                let text = format!("{CONNECTIONS} connections for descriptors are open already");
                self.turn_away(|_| {}, &Fault::exhausted("too-many-connections", text));
                return;
            }
            connections.push(stream.clone());
        }
        // The session may have ended before this connection was in the list.
        if self.answers.is_over() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let (socket, served) = (self.clone(), stream.clone());
        let thread = std::thread::Builder::new().name("outrigger-fd".into());
        let spawned = thread.spawn(move || {
            let _runtime = socket.answers.runtime().enter();
            if let Err(error) = socket.converse(&served) {
                tracing::debug!(%error, "a connection for descriptors ended");
            }
            socket.forget(&served);
        });
        if let Err(error) = spawned {
            self.turn_away(|_| {}, &error.into());
            self.forget(&stream);
        }
    }

    fn forget(&self, stream: &Arc<UnixStream>) {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        self.connections()
            .retain(|known| !Arc::ptr_eq(known, stream));
    }

    /// Whether the peer is the plugin's own process, by what the kernel says.
    fn is_the_plugin(&self, stream: &UnixStream) -> bool {
        let Some(session) = self.answers.session() else {
            return false;
        };
        let Ok(peer) = sockopt::socket_peercred(stream) else {
            return false;
        };
        let own = session.identity().pid();
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
        if peer.uid != rustix::process::geteuid() || own.is_some_and(|own| own != pid) {
            let shown = |shown: &mut Arguments| {
                shown.number("pid", pid).shown("uid", peer.uid.as_raw());
            };
            let why = Fault::refused("another process than the plugin's asked for descriptors");
            session.recorder().turn_away(DESCRIPTORS, shown, &why);
            return false;
        }
        true
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        let mut frames = Frames::new(stream);
        sockopt::set_socket_timeout(stream, Timeout::Recv, Some(HELLO))?;
        sockopt::set_socket_timeout(stream, Timeout::Send, Some(UNREAD))?;
        sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER)?;
        let hello = frames.next().map_err(|error| self.unread(error))?;
        // A peer that closes the connection without a message asked for nothing.
        let Some(hello) = hello.map(DescriptorHello::decode) else {
            return Ok(());
        };
        if !hello.is_ok_and(|hello| hello.token.ct_eq(&self.token[..]).into()) {
            self.turn_away(|_| {}, &Fault::refused("a wrong token for descriptors"));
            return Ok(());
        }
        let mut buffer = Vec::new();
        send(stream, &mut buffer, &DescriptorReply::default(), &[])?;
        sockopt::set_socket_timeout(stream, Timeout::Recv, None)?;
        while let Some(frame) = frames.next().map_err(|error| self.unread(error))? {
            let request = DescriptorRequest::decode(frame);
            let request = request.map_err(|_| self.unread(io::ErrorKind::InvalidData.into()))?;
            let id = request.id;
            let trace = TraceContext::parse(&request.traceparent, None);
            let answer = || self.answers.answer(request.request);
            let answer = match trace {
                Some(trace) => trace.sync_scope(answer),
                None => answer(),
            };
            let Some(answer) = answer else {
                return Ok(());
            };
            let (reply, descriptors) = answer
                .unwrap_or_else(|status| (Reply::Failure(fault::failure(&status)), Vec::new()));
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            let reply = DescriptorReply {
                id,
                descriptors: u32::try_from(descriptors.len()).unwrap_or(0),
                reply: Some(reply),
            };
            send(stream, &mut buffer, &reply, &descriptors)?;
        }
        Ok(())
    }

    /// Records why nothing more is read, unless the peer is just gone.
    fn unread(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::InvalidData => {
                self.turn_away(|_| {}, &Fault::abuse("a message that is none, or too long"));
            }
            io::ErrorKind::WouldBlock => self.turn_away(|_| {}, &Fault::Deadline),
            _ => {}
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use outrigger_transport::PluginIdentity;
    use outrigger_wire::proto::host::CreateRequest;
    use outrigger_wire::proto::host::descriptor_request::Request;

    use super::*;
    use crate::network::egress::Gateway;
    use crate::network::settings::NetworkSettings;
    use crate::session::Terms;
    use crate::testing;

    fn ask(stream: &UnixStream, message: &impl Message) -> DescriptorReply {
        let mut bytes = (message.encoded_len() as u32).to_be_bytes().to_vec();
        message.encode(&mut bytes).expect("room");
        (&*stream).write_all(&bytes).expect("taken");
        let mut frames = Frames::new(stream);
        let frame = frames.next().expect("readable").expect("an answer");
        DescriptorReply::decode(frame).expect("a reply")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn storage_that_does_not_answer_holds_a_request_up_no_longer_than_a_call() {
        let dir = tempfile::tempdir().expect("a directory");
        // Every thread that may wait is taken, for good.
        let limits = crate::Limits {
            blocking: 0,
            call_timeout: Duration::from_millis(50),
            ..crate::Limits::default()
        };
        let (audit, mut records) = crate::AuditLog::channel(10);
        let path = dir.path();
        let asked = format!("{{filesystem: [{{path: {path:?}, permissions: [write, create]}}]}}");
        let terms = Terms {
            limits,
            audit,
            ..testing::terms(&asked)
        };
        let pid = Some(std::process::id());
        let identity = PluginIdentity::new("p", "p-1", pid).with_socket_dir(path);
        let files = testing::files(terms, identity);
        let gateway = Arc::new(Gateway::new(&NetworkSettings::default()));
        let egress = Egress::new(files.session().clone(), gateway);
        let processes = Commands::new(files.clone(), Arc::default());
        let descriptors = Descriptors::new(&files, &processes, &egress);
        let DescriptorOffer { path, token } = descriptors.offer().expect("an offer");
        let file = dir.path().join("new");
        let name = file.to_str().expect("text").to_owned();
        let asking = tokio::task::spawn_blocking(move || {
            let stream = UnixStream::connect(path).expect("it listens");
            let limit = Some(Duration::from_secs(20));
            stream.set_read_timeout(limit).expect("a timeout");
            ask(&stream, &DescriptorHello { token });
            // Its connection goes on, too.
            for id in 1..3 {
                let (path, mode) = (name.clone(), 0);
                let request = Some(Request::Create(CreateRequest { path, mode }));
                let reply = ask(
                    &stream,
                    &DescriptorRequest {
                        id,
                        request,
                        ..DescriptorRequest::default()
                    },
                );
                let Some(Reply::Failure(failure)) = reply.reply else {
                    panic!("no failure: {reply:?}");
                };
                assert_eq!((reply.id, failure.reason.as_str()), (id, "call-timeout"));
            }
        });
        asking.await.expect("no panic");
        assert!(!file.exists());
        let record = records.recv().await.expect("a record");
        assert_eq!(
            (record.operation, record.verdict),
            ("create", crate::Verdict::Undecided)
        );
    }
}
