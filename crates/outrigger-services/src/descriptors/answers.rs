//! What can be asked for on the descriptor socket: operations that calls have too,
//! answered with open descriptors.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::*;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::fault::Fault;
use crate::fs::call::{FileCall, SessionFiles};
use crate::fs::open_file::Storage;
use crate::fs::operation::{FileOperation, Thread};
use crate::fs::operations::{Opens, info};
use crate::fs::place::Opening;
use crate::fs::requested_path::RequestedPath;
use crate::network::account::Account;
use crate::network::egress::{Egress, Lookups};
use crate::network::packets::packets;
use crate::network::relay::relay;
use crate::network::service::NetworkService;
use crate::operation::{Described, Operation};
use crate::process::service::WeakProcessService;
use crate::running::{Caller, Running};
use crate::session::Session;

/// Who connects to the socket, and what is no request.
pub(crate) const DESCRIPTORS: Operation = Operation::of_session("descriptors");

/// How much longer than `call_timeout` a thread waits for work that ends in time by
/// itself.
const MARGIN: Duration = Duration::from_secs(5);

/// What a request is answered with: a message, and descriptors that go with it.
pub(crate) type Answer = (Reply, Vec<OwnedFd>);

/// Answers requests for the descriptors of one plugin connection.
pub(crate) struct Answers {
    files: Weak<SessionFiles>,
    processes: WeakProcessService,
    egress: Arc<Egress>,
    lookups: Lookups,
    /// What carries the bytes of connections that were handed over.
    relays: Mutex<JoinSet<()>>,
    over: AtomicBool,
    runtime: tokio::runtime::Handle,
}

impl Answers {
    /// Answers on the runtime that this is called on.
    pub(crate) fn new(
        files: &Weak<SessionFiles>,
        processes: &WeakProcessService,
        (egress, lookups): (&Arc<Egress>, &Lookups),
    ) -> Result<Self, tokio::runtime::TryCurrentError> {
        Ok(Self {
            files: files.clone(),
            processes: processes.clone(),
            egress: egress.clone(),
            lookups: lookups.clone(),
            relays: Mutex::default(),
            over: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::try_current()?,
        })
    }

    /// The session, as long as it lasts.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        Some(self.files.upgrade()?.session().clone())
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Whether the connection of the plugin has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends what is carried, and what is carried from now on.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.relays().abort_all();
    }

    fn relays(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is asked for; nothing once the session is over.
    pub(crate) fn answer(&self, request: Option<Request>) -> Option<Result<Answer, Status>> {
        let files = &self.files.upgrade()?;
        Some(match request {
            Some(Request::Open(request)) => self.open(files, request),
            Some(Request::Create(request)) => self.open(files, request),
            Some(Request::OpenAt(request)) => self.open(files, request),
            Some(Request::OpenDir(request)) => self.on_files(files, request, |call, request| {
                Ok((Reply::OpenDir(request.run(call)?), Vec::new()))
            }),
            Some(Request::TempFile(request)) => self.on_files(files, request, temp_file),
            Some(Request::Connect(target)) => self.connect(files.session(), target),
            Some(Request::OpenUdp(request)) => self.open_udp(files.session(), request),
            Some(Request::Exec(command)) => self.start(files.session(), command),
            None => {
                let caller = Caller::default();
                let running = files.session().begin_call(DESCRIPTORS, &caller, |shown| {
                    shown.shown("by", "descriptor");
                });
                running.and_then(|running| Err(running.fail(&Fault::abuse("an empty request"))))
            }
        })
    }

    /// An open file with just the rights that were asked for.
    fn open<Q: Opens + FileOperation>(
        &self,
        files: &Arc<SessionFiles>,
        request: Q,
    ) -> Result<Answer, Status> {
        self.on_files(files, request, |call, request| {
            let (path, how) = request.opens(call)?;
            file(call, &path, how)
        })
    }

    /// Does `work` on this thread where the operation may be tried there and does not
    /// have to wait, else where calls do what may wait for storage: this thread goes
    /// on in time whatever happens there.
    fn on_files<Q: FileOperation>(
        &self,
        files: &Arc<SessionFiles>,
        request: Q,
        work: fn(&FileCall, &Q) -> Result<Answer, Fault>,
    ) -> Result<Answer, Status> {
        let session = files.session();
        let running = begin(session, &request)?;
        let call = files.call(&running);
        let at_once = match Q::THREAD {
            Thread::Waiting => Err(Fault::WouldWait),
            Thread::Connection | Thread::ConnectionFirst => {
                caught(|| work(&call.at_once(), &request))
            }
        };
        match at_once {
            Err(Fault::WouldWait) => {
                let waiting = session.clone();
                self.wait_for(session, async move {
                    let done = waiting.blocking(move || work(&call, &request)).await;
                    running.finish(done)
                })
            }
            done => running.finish(done),
        }
    }

    /// A connection to an address. A request for one to a name has to be a call: the
    /// host then watches which name TLS greets.
    fn connect(&self, session: &Arc<Session>, target: Target) -> Result<Answer, Status> {
        let by_name = target.host.parse::<IpAddr>().is_err();
        let part = Some(connect_request::Part::Target(target.clone()));
        let running = begin(session, &ConnectRequest { part })?;
        if by_name {
            return Err(running.fail(&use_rpc()));
        }
        let network = self.network(session);
        let limits = self.egress.limits.clone();
        let connected = self.wait_for_call(
            session,
            running,
            move |running| {
                Box::pin(async move {
                    let slot = running.session().slot()?;
                    let (host, port) = (&target.host, target.port);
                    let dialled = network.dial(running, host, port, target.timeout_ms).await?;
                    Ok((slot, dialled))
                })
            },
            move |dialled, running| {
                let (slot, dialled) = dialled;
                let connected = Connected {
                    remote_address: dialled.remote.to_string(),
                    local_address: dialled.local.to_string(),
                };
                let account = Account::new(running, slot);
                let (end, carrying) = relay(dialled.stream, account, &limits)?;
                Ok((connected, end, carrying))
            },
        );
        self.carry(connected?)
    }

    /// A socket for datagrams. It may lead to a name, too: nobody looks at what
    /// datagrams greet.
    fn open_udp(&self, session: &Arc<Session>, request: OpenUdpRequest) -> Result<Answer, Status> {
        let running = begin(session, &request)?;
        let network = self.network(session);
        let limits = self.egress.limits.clone();
        let opened = self.wait_for_call(
            session,
            running,
            move |running| {
                Box::pin(async move {
                    let slot = running.session().slot()?;
                    Ok((slot, network.open(running, &request).await?))
                })
            },
            move |opened, running| {
                let (slot, opened) = opened;
                let connected = opened.connected.clone();
                let account = Account::new(running, slot);
                let (end, carrying) = packets(opened, account, &limits)?;
                Ok((connected, end, carrying))
            },
        );
        self.carry(opened?)
    }

    fn network(&self, session: &Arc<Session>) -> NetworkService {
        NetworkService::sharing(session.clone(), self.egress.clone(), self.lookups.clone())
    }

    /// Carries what a connection moves, until its end or that of the session.
    fn carry(
        &self,
        (connected, end, carrying): (
            Connected,
            OwnedFd,
            impl Future<Output = ()> + Send + 'static,
        ),
    ) -> Result<Answer, Status> {
        let mut relays = self.relays();
        while relays.try_join_next().is_some() {}
        relays.spawn_on(carrying, &self.runtime);
        // The session may have ended just before this connection joined the others.
        if self.is_over() {
            relays.abort_all();
        }
        Ok((Reply::Connected(connected), vec![end]))
    }

    fn start(&self, session: &Arc<Session>, command: Command) -> Result<Answer, Status> {
        let request = StartRequest {
            command: Some(command),
        };
        let running = begin(session, &request)?;
        let Some(processes) = self.processes.upgrade() else {
            return Err(running.fail(&Fault::Cancelled));
        };
        if session.limits().bytes_per_second != 0 {
            return Err(running.fail(&use_rpc()));
        }
        let command = request.command.unwrap_or_default();
        self.wait_for_call(
            session,
            running,
            move |running| {
                Box::pin(async move {
                    let (started, pipes) = processes.start_with_pipes(command, running).await?;
                    Ok((Reply::Started(started), pipes.into()))
                })
            },
            |started, running| {
                running.end(None);
                Ok(started)
            },
        )
    }

    /// Does `work` within `call_timeout`, and then `answer`, which gets the
    /// operation in hand.
    fn wait_for_call<T: Send, A: Send + 'static>(
        &self,
        session: &Session,
        running: Running,
        work: impl for<'a> FnOnce(&'a Running) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
        answer: impl FnOnce(T, Running) -> Result<A, Status> + Send + 'static,
    ) -> Result<A, Status> {
        let limit = session.limits().call_timeout;
        self.wait_for(session, async move {
            let done = tokio::time::timeout(limit, work(&running)).await;
            match done.unwrap_or(Err(Fault::Deadline)) {
                Ok(done) => answer(done, running),
                Err(fault) => Err(running.fail(&fault)),
            }
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
        match done.recv_timeout(session.limits().call_timeout.saturating_add(MARGIN)) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Broken.status("session.descriptors")),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(Fault::Deadline.status("session.descriptors"))
            }
        }
    }
}

/// Begins the operation that a message asks for.
fn begin<Q: Described>(session: &Arc<Session>, request: &Q) -> Result<Running, Status> {
    session.begin_call(Q::OPERATION, &Caller::default(), |shown| {
        request.show(shown);
        shown.shown("by", "descriptor");
    })
}

/// What `work` does on this thread: a panic there is a failure of the host, and the
/// thread goes on.
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or(Err(Fault::Broken))
}

fn temp_file(call: &FileCall, request: &TempFileRequest) -> Result<Answer, Fault> {
    let how = Opening {
        write: true,
        ..Opening::READ
    };
    countable(&call.session, how)?;
    if call.session.limits().temp_bytes != 0 {
        return Err(use_rpc());
    }
    let open = |path: &RequestedPath, how| call.open(path, how);
    let ((file, ..), path) = call.temp_file_by(&request.pattern, open)?;
    let path = path.to_string_lossy().into_owned();
    let lease = String::new();
    let reply = Reply::TempFile(TempFileResponse { lease, path });
    Ok((reply, vec![file.into()]))
}

/// Opens a file with just the rights that were asked for, all of them granted.
fn file(call: &FileCall, wanted: &RequestedPath, how: Opening) -> Result<Answer, Fault> {
    countable(&call.session, how)?;
    let counted = how.writes() && call.session.limits().temp_bytes != 0;
    let (file, place, stat) =
        call.open_if(wanted, how, |place| match call.storage_of(&place.area) {
            Storage::Temporary if counted => Err(use_rpc()),
            Storage::Temporary | Storage::Other => Ok(()),
        })?;
    if !place.keeps(&file, &stat)? {
        // A descriptor of it would be a way to change it, for the host's user.
        return Err(use_rpc());
    }
    let info = info(&place.file_name(), &stat);
    let lease = String::new();
    Ok((Reply::Open(OpenResponse { lease, info }), vec![file.into()]))
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
