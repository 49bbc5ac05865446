//! The descriptor socket: open files, connections and pipes handed to a plugin
//! as descriptors, under the same grants, limits and records as its calls.
//!
//! One thread waits for each connection, so that a request takes one wake of the
//! host and one of the plugin, and nothing in between. A plugin has few such
//! connections, and they are made only once it has asked where the socket is.

use std::io::{self, IoSlice, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use outrigger_manifest::HostService;
use outrigger_wire::descriptors::{FrameBuffer, FrameTooLong, MAX_DESCRIPTORS, put_frame};
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::*;
use prost::Message;
use rustix::fs::Stat;
use rustix::net::sockopt::Timeout;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, sockopt,
};
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::argument::Argument;
use crate::fault::{self, Fault};
use crate::fs::area::{Opening, Place};
use crate::fs::{Cx, Kept, Wanted, rpc as files};
use crate::network::{Account, Lookups, NetworkService, packets, relay, show_udp};
use crate::process::{self, ProcessService, WeakProcessService};
use crate::session::{Operation, Running, Session};

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

const OPEN: Operation = Operation::new(HostService::Filesystem, "open");
const CREATE: Operation = Operation::new(HostService::Filesystem, "create");
const OPEN_DIR: Operation = Operation::new(HostService::Filesystem, "open_dir");
const OPEN_AT: Operation = Operation::new(HostService::Filesystem, "open_at");
const TEMP_FILE: Operation = Operation::new(HostService::Filesystem, "temp_file");
const CONNECT: Operation = Operation::new(HostService::Network, "connect");
const OPEN_UDP: Operation = Operation::new(HostService::Network, "open_udp");
const START: Operation = Operation::new(HostService::Process, "start");
/// Who connects, and what is no request.
const DESCRIPTORS: Operation = Operation::of_session("descriptors");

/// Where descriptors are handed over to one plugin connection. The socket is
/// made when it is first asked for, and goes with this value.
pub(crate) struct Descriptors {
    session: Weak<Session>,
    processes: WeakProcessService,
    lookups: Lookups,
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
    /// What carries the bytes of connections that were handed over.
    relays: Mutex<JoinSet<()>>,
    over: AtomicBool,
    session: Weak<Session>,
    processes: WeakProcessService,
    lookups: Lookups,
    runtime: tokio::runtime::Handle,
}

impl Descriptors {
    pub(crate) fn new(
        session: &Arc<Session>,
        processes: &ProcessService,
        network: &NetworkService,
    ) -> Self {
        Self {
            session: Arc::downgrade(session),
            processes: processes.downgrade(),
            lookups: network.lookups().clone(),
            offered: OnceLock::new(),
        }
    }

    /// Where the plugin finds the socket; nothing where there is none, because
    /// the plugin would not reach it, or because bytes are counted that nobody
    /// could count on a descriptor.
    pub(crate) fn offer(&self) -> Option<DescriptorOffer> {
        let offered = self.offered.get_or_init(|| {
            let session = self.session.upgrade()?;
            session.identity().socket_dir()?;
            if session.limits().bytes_per_second != 0 {
                return None;
            }
            match self.listen(&session) {
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
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let dir = session.identity().socket_dir();
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        let (name, _) = Uuid::new_v4().as_u64_pair();
        let path = dir.join(format!("fd-{name:016x}"));
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let mut token = [0; TOKEN];
        crate::random::fill(&mut token)?;
        let socket = Arc::new(Socket {
            listener,
            token,
            connections: Mutex::default(),
            relays: Mutex::default(),
            over: AtomicBool::new(false),
            session: self.session.clone(),
            processes: self.processes.clone(),
            lookups: self.lookups.clone(),
            runtime,
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
        // Whoever waits is woken; the threads end by themselves.
        offered.socket.over.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&offered.socket.listener, Shutdown::Both);
        for connection in offered.socket.connections().iter() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        offered.socket.relays().abort_all();
        let _ = std::fs::remove_file(&offered.path);
    }
}

impl Socket {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Arc<UnixStream>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn relays(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why someone, or something, was turned away.
    fn turn_away(&self, argument: impl FnOnce(&mut Argument), why: &Fault) {
        if let Some(session) = self.session.upgrade() {
            session.turn_away(DESCRIPTORS, argument, why);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn accept(self: Arc<Self>) {
        loop {
            let accepted = self.listener.accept();
            if self.is_over() {
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
        // The end may have come in between, and looked at the list before.
        if self.is_over() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let (socket, served) = (self.clone(), stream.clone());
        let thread = std::thread::Builder::new().name("outrigger-fd".into());
        let spawned = thread.spawn(move || {
            let _runtime = socket.runtime.enter();
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
        let Some(session) = self.session.upgrade() else {
            return false;
        };
        let Ok(peer) = sockopt::socket_peercred(stream) else {
            return false;
        };
        let own = session.identity().pid();
        let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
        if peer.uid != rustix::process::geteuid() || own.is_some_and(|own| own != pid) {
            let shown = |shown: &mut Argument| {
                shown.number("pid", pid).shown("uid", peer.uid.as_raw());
            };
            let why = Fault::refused("another process than the plugin's asked for descriptors");
            session.turn_away(DESCRIPTORS, shown, &why);
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
        // Whoever goes without a word asked for nothing.
        let Some(hello) = hello.map(DescriptorHello::decode) else {
            return Ok(());
        };
        if !hello.is_ok_and(|hello| same(&hello.token, &self.token)) {
            self.turn_away(|_| {}, &Fault::refused("a wrong token for descriptors"));
            return Ok(());
        }
        let mut buffer = Vec::new();
        send(stream, &mut buffer, &DescriptorReply::default(), &[])?;
        sockopt::set_socket_timeout(stream, Timeout::Recv, None)?;
        while let Some(frame) = frames.next().map_err(|error| self.unread(error))? {
            let request = DescriptorRequest::decode(frame);
            let request = request.map_err(|_| self.unread(io::ErrorKind::InvalidData.into()))?;
            let Some(session) = self.session.upgrade() else {
                return Ok(());
            };
            let id = request.id;
            let (reply, descriptors) = match self.answer(&session, request.request) {
                Ok((reply, descriptors)) => (reply, descriptors),
                Err(status) => (Reply::Failure(fault::failure(&status)), Given::default()),
            };
            drop(session);
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

    fn answer(
        &self,
        session: &Arc<Session>,
        request: Option<Request>,
    ) -> Result<(Reply, Given), Status> {
        match request {
            Some(Request::Open(request)) => {
                let shown = |a: &mut Argument| {
                    a.text("path", &request.path);
                    files::options_shown(request.options.as_ref(), a);
                };
                let running = begin(session, OPEN, shown)?;
                match now(|| open_now(&running.cx(), &request)) {
                    Some(opened) => running.finish(opened),
                    None => self.on_a_thread(running, move |cx| {
                        let how = files::opening(request.options.as_ref())?;
                        file(cx, &Wanted::new(&cx.session, &request.path)?, how)
                    }),
                }
            }
            Some(Request::Create(request)) => {
                let shown = |a: &mut Argument| {
                    a.text("path", &request.path);
                };
                let running = begin(session, CREATE, shown)?;
                self.on_a_thread(running, move |cx| {
                    let how = files::creating(&request)?;
                    file(cx, &Wanted::new(&cx.session, &request.path)?, how)
                })
            }
            Some(Request::OpenAt(request)) => {
                let shown = |a: &mut Argument| {
                    a.id("lease", &request.lease).text("path", &request.path);
                    files::options_shown(request.options.as_ref(), a);
                };
                let running = begin(session, OPEN_AT, shown)?;
                self.on_a_thread(running, move |cx| {
                    let how = files::opening(request.options.as_ref())?;
                    file(cx, &files::wanted_at(cx, &request)?, how)
                })
            }
            Some(Request::OpenDir(request)) => {
                let shown = |a: &mut Argument| {
                    a.text("path", &request.path);
                };
                let running = begin(session, OPEN_DIR, shown)?;
                self.on_a_thread(running, move |cx| {
                    let opened = files::open_dir(cx, &request)?;
                    Ok((Reply::OpenDir(opened), Given::default()))
                })
            }
            Some(Request::TempFile(request)) => {
                let shown = |a: &mut Argument| {
                    a.text("pattern", &request.pattern);
                };
                let running = begin(session, TEMP_FILE, shown)?;
                self.on_a_thread(running, move |cx| {
                    let how = Opening {
                        write: true,
                        ..Opening::READ
                    };
                    countable(&cx.session, how)?;
                    if cx.session.limits().temp_bytes != 0 {
                        return Err(use_rpc());
                    }
                    let open = |wanted: &Wanted, how| cx.open(wanted, how);
                    let ((file, ..), path) = cx.temp_file_by(&request.pattern, open)?;
                    let path = path.to_string_lossy().into_owned();
                    let lease = String::new();
                    let reply = Reply::TempFile(TempFileResponse { lease, path });
                    Ok((reply, vec![file.into()]))
                })
            }
            Some(Request::Connect(target)) => self.connect(session, target),
            Some(Request::OpenUdp(request)) => self.open_udp(session, request),
            Some(Request::Exec(command)) => self.start(session, command),
            None => {
                let running = begin(session, DESCRIPTORS, |_| {})?;
                running.finish(Err(Fault::abuse("an empty request")))
            }
        }
    }

    /// A connection to an address. One to a name stays with the host, which
    /// watches what TLS greets.
    fn connect(&self, session: &Arc<Session>, target: Target) -> Result<(Reply, Given), Status> {
        let running = begin(session, CONNECT, |a| {
            a.text("host", &target.host).number("port", target.port);
        })?;
        if target.host.parse::<IpAddr>().is_err() {
            return running.finish(Err(use_rpc()));
        }
        let (door, limit) = (session.shared().door.clone(), session.limits().call_timeout);
        let network = self.network(session);
        let connected = self.wait_for(session, async move {
            let dial = async {
                let slot = running.session().slot()?;
                let (host, port) = (&target.host, target.port);
                let dialled = network
                    .dial(&running, host, port, target.timeout_ms)
                    .await?;
                Ok((slot, dialled))
            };
            match tokio::time::timeout(limit, dial).await {
                Ok(Ok((slot, dialled))) => {
                    let connected = Connected {
                        remote_address: dialled.remote.to_string(),
                        local_address: dialled.local.to_string(),
                    };
                    let account = Account::new(running, slot);
                    let (given, relay) = relay(dialled.stream, account, &door.limits)?;
                    Ok((connected, given, relay))
                }
                Ok(Err(fault)) => running.finish(Err(fault)),
                Err(_) => running.finish(Err(Fault::Deadline)),
            }
        });
        let (connected, given, relay) = connected?;
        self.carry(relay);
        Ok((Reply::Connected(connected), vec![given]))
    }

    /// A socket for datagrams. Names are no reason for a call: nobody looks at
    /// what datagrams greet.
    fn open_udp(
        &self,
        session: &Arc<Session>,
        request: OpenUdpRequest,
    ) -> Result<(Reply, Given), Status> {
        let running = begin(session, OPEN_UDP, |a| show_udp(a, &request))?;
        let (door, limit) = (session.shared().door.clone(), session.limits().call_timeout);
        let network = self.network(session);
        let opened = self.wait_for(session, async move {
            let open = async {
                let slot = running.session().slot()?;
                Ok((slot, network.open(&running, &request).await?))
            };
            let open = tokio::time::timeout(limit, open).await;
            match open.unwrap_or(Err(Fault::Deadline)) {
                Ok((slot, opened)) => {
                    let connected = opened.connected.clone();
                    let account = Account::new(running, slot);
                    let (given, carrying) = packets(opened, account, &door.limits)?;
                    Ok((connected, given, carrying))
                }
                Err(fault) => running.finish(Err(fault)),
            }
        });
        let (connected, given, carrying) = opened?;
        self.carry(carrying);
        Ok((Reply::Connected(connected), vec![given]))
    }

    fn network(&self, session: &Arc<Session>) -> NetworkService {
        let door = session.shared().door.clone();
        NetworkService::sharing(session.clone(), door, self.lookups.clone())
    }

    /// Carries what was handed over until its end, or that of the services.
    fn carry(&self, relay: impl Future<Output = ()> + Send + 'static) {
        let mut relays = self.relays();
        while relays.try_join_next().is_some() {}
        relays.spawn_on(relay, &self.runtime);
        // The end may have come in between, and looked at them before.
        if self.is_over() {
            relays.abort_all();
        }
    }

    fn start(&self, session: &Arc<Session>, command: Command) -> Result<(Reply, Given), Status> {
        let running = begin(session, START, |a| process::show(a, &command))?;
        let Some(processes) = self.processes.upgrade() else {
            return running.finish(Err(Fault::Cancelled));
        };
        if session.limits().bytes_per_second != 0 {
            return running.finish(Err(use_rpc()));
        }
        let limit = session.limits().call_timeout;
        self.wait_for(session, async move {
            let starting = processes.start_with_pipes(command, &running);
            let started = tokio::time::timeout(limit, starting).await;
            let started = started.unwrap_or(Err(Fault::Deadline));
            let started = started.map(|(started, pipes)| (Reply::Started(started), pipes.into()));
            running.finish(started)
        })
    }

    /// Does what may wait for storage where calls do: this thread goes on in time
    /// whatever happens there.
    fn on_a_thread(
        &self,
        running: Running,
        work: impl FnOnce(&Cx) -> Result<(Reply, Given), Fault> + Send + 'static,
    ) -> Result<(Reply, Given), Status> {
        let (session, cx) = (running.session().clone(), running.cx());
        let own = session.clone();
        self.wait_for(&own, async move {
            let done = session.blocking(move |_| work(&cx)).await;
            running.finish(done)
        })
    }

    /// Does on the host's runtime what only works there. `work` ends in time by
    /// itself, unless the runtime does not.
    fn wait_for<T: Send + 'static>(
        &self,
        session: &Session,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let (sender, done) = std::sync::mpsc::channel();
        let task = self.runtime.spawn(async move {
            let _ = sender.send(work.await);
        });
        match done.recv_timeout(session.limits().call_timeout.saturating_add(HELLO)) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Broken.status("session.descriptors")),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(Fault::Deadline.status("session.descriptors"))
            }
        }
    }
}

/// What goes with a reply.
type Given = Vec<OwnedFd>;

fn begin(
    session: &Arc<Session>,
    operation: Operation,
    argument: impl FnOnce(&mut Argument),
) -> Result<Running, Status> {
    let running = session.begin(operation, &MetadataMap::new(), |shown| {
        argument(shown);
        shown.shown("by", "descriptor");
    });
    running.map_err(|fault| fault.status(&operation.full_name()))
}

/// What this thread does itself, because it waits for nothing.
fn now(
    work: impl FnOnce() -> Option<Result<(Reply, Given), Fault>>,
) -> Option<Result<(Reply, Given), Fault>> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or(Some(Err(Fault::Broken)))
}

/// Opens a file to read, if no one has to be waited for.
fn open_now(cx: &Cx, request: &OpenRequest) -> Option<Result<(Reply, Given), Fault>> {
    let options = request.options.as_ref();
    let reading = options.is_none_or(|options| {
        let OpenOptions { mode, .. } = *options;
        *options
            == OpenOptions {
                read: true,
                mode,
                ..OpenOptions::default()
            }
    });
    if !reading {
        return None;
    }
    let wanted = files::opening(options).and_then(|how| {
        countable(&cx.session, how)?;
        Wanted::new(&cx.session, &request.path)
    });
    match wanted {
        Ok(wanted) => Some(cx.open_now(&wanted)?.map(given)),
        Err(fault) => Some(Err(fault)),
    }
}

/// Opens a file with just the rights that were asked for, all of them granted.
fn file(cx: &Cx, wanted: &Wanted, how: Opening) -> Result<(Reply, Given), Fault> {
    countable(&cx.session, how)?;
    let counted = how.writes() && cx.session.limits().temp_bytes != 0;
    let (file, place, stat) = cx.open_if(wanted, how, |place| match cx.kept(&place.area) {
        Kept::InTemp if counted => Err(use_rpc()),
        Kept::InTemp | Kept::Elsewhere => Ok(()),
    })?;
    if !place.keeps(&file, &stat)? {
        // A descriptor of it would be a way to change it, for the host's user.
        return Err(use_rpc());
    }
    Ok(given((file.into(), place, stat)))
}

fn given((file, place, stat): (OwnedFd, Place, Stat)) -> (Reply, Given) {
    let info = files::info(&place.file_name(), &stat);
    let lease = String::new();
    (Reply::Open(OpenResponse { lease, info }), vec![file])
}

/// Refuses a descriptor through which what is limited could not be counted.
fn countable(session: &Session, how: Opening) -> Result<(), Fault> {
    let limits = session.limits();
    if limits.bytes_per_second != 0 || (limits.written_bytes != 0 && how.writes()) {
        return Err(use_rpc());
    }
    Ok(())
}

fn use_rpc() -> Fault {
    let text = "the host does this itself: make the same request as a call";
    Fault::failed_as("use-rpc", Code::FailedPrecondition, text)
}

/// Whether both are the same, in a time that says nothing of where they differ.
fn same(told: &[u8], token: &[u8; TOKEN]) -> bool {
    let differing = told.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    told.len() == TOKEN && std::hint::black_box(differing) == 0
}

/// Sends one message; the descriptors go with its first byte.
fn send(
    stream: &UnixStream,
    buffer: &mut Vec<u8>,
    reply: &DescriptorReply,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    buffer.clear();
    put_frame(reply, buffer).map_err(no_message)?;
    let mut space =
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut rest = buffer.as_slice();
    while !rest.is_empty() {
        let parts = [IoSlice::new(rest)];
        match sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                control.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn no_message(error: FrameTooLong) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Messages of a peer. Descriptors that it sends are dropped by the kernel.
struct Frames<'a> {
    stream: &'a UnixStream,
    buffer: FrameBuffer,
}

impl<'a> Frames<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        let buffer = FrameBuffer::new();
        Self { stream, buffer }
    }

    /// The next message; nothing when the peer is done.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        while !self.buffer.is_ready().map_err(no_message)? {
            match (&mut &*self.stream).read(self.buffer.room()) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.filled(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.buffer.take()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use outrigger_wire::descriptors::MAX_FRAME;

    use super::*;

    #[test]
    fn a_token_is_the_same_only_whole() {
        let token = [7; TOKEN];
        assert!(same(&[7; TOKEN], &token));
        assert!(!same(&[7; TOKEN - 1], &token));
        assert!(!same(&[7; TOKEN + 1], &token));
        assert!(!same(&[], &token));
        let mut other = token;
        other[TOKEN - 1] ^= 1;
        assert!(!same(&other, &token));
    }

    #[test]
    fn messages_are_found_however_they_are_cut_and_an_endless_one_is_refused() {
        let (mut writer, reader) = UnixStream::pair().expect("a pair");
        let mut bytes = Vec::new();
        for length in [0_usize, 1, 5000, MAX_FRAME] {
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
            bytes.extend(std::iter::repeat_n(9, length));
        }
        bytes.extend_from_slice(&(MAX_FRAME as u32 + 1).to_be_bytes());
        let sending = std::thread::spawn(move || {
            for part in bytes.chunks(977) {
                writer.write_all(part).expect("the reader takes it");
            }
        });
        let mut frames = Frames::new(&reader);
        for length in [0, 1, 5000, MAX_FRAME] {
            let frame = frames.next().expect("readable").expect("there");
            assert_eq!(frame.len(), length);
        }
        let refused = frames.next().expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        sending.join().expect("no panic");
    }

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
        let manifest = format!(
            "plugin: {{name: p, format: grpc, entrypoint: p}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
             capabilities: {{filesystem: [{{path: {:?}, permissions: [write, create]}}]}}\n",
            dir.path()
        );
        let manifest = outrigger_manifest::Manifest::parse(&manifest).expect("a manifest");
        let places = outrigger_manifest::Places::new("/nowhere", "/nowhere").expect("places");
        let policy = outrigger_manifest::Policy::allow_requested();
        // Every thread that may wait is taken, for good.
        let limits = crate::Limits {
            blocking: 0,
            call_timeout: Duration::from_millis(50),
            ..crate::Limits::default()
        };
        let (audit, mut records) = crate::AuditLog::channel(10);
        let services = crate::GrantedServices::new(policy.decide(&manifest, &places).grants());
        let shared = services.limits(limits).audit(audit).shared();
        let pid = Some(std::process::id());
        let identity = outrigger_transport::PluginIdentity::new("p", "p-1", pid);
        let identity = identity.with_socket_dir(dir.path());
        let session = Arc::new(Session::new(Arc::new(shared), identity));
        let processes = ProcessService::new(session.clone());
        let network = NetworkService::new(session.clone(), session.shared().door.clone());
        let descriptors = Descriptors::new(&session, &processes, &network);
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
                let reply = ask(&stream, &DescriptorRequest { id, request });
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
