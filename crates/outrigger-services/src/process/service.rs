//! `outrigger.host.v1.Process` for one plugin connection.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use outrigger_manifest::{Grants, HostService, Permissions};
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::{self as wire, *};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tonic::{Code, Request, Response, Status, Streaming};

use super::child::End;
use super::output::{Outputs, Part};
use super::processes::{Process, Processes, Room};
use super::program::{Program, ProgramError, Programs};
use super::spawn::Order;
use super::variables::{self, BadVariable};
use crate::arguments::Arguments;
use crate::environment;
use crate::fault::Fault;
use crate::fs::call::SessionFiles;
use crate::fs::resolve::granted_dir;
use crate::leases::{Leased, Slot};
use crate::operation::{Described, Operation, described};
use crate::progress::Progress;
use crate::proto::host::process_server;
use crate::running::{Caller, Running};
use crate::session::Session;
use crate::streaming::{self, Next, Replies, Source};
use crate::text::Quoted;

described! {
    operation("output").on_lease(), OutputRequest { process }
    operation("write_input").on_lease(), WriteInputRequest { process, data, close }
    operation("wait").on_lease(), WaitRequest { process }
    operation("signal"), SignalRequest { process, signal }
    operation("kill"), KillRequest { process }
    operation("close"), CloseProcessRequest { process }
    operation("list"), ListProcessesRequest {}
}

/// Messages that ask for a command to be run.
macro_rules! commands {
    ($($name:literal, $message:ident, |$asked:ident| $command:expr;)*) => {$(
        impl Described for $message {
            const OPERATION: Operation = operation($name);

            fn show(&self, shown: &mut Arguments) {
                let $asked = self;
                if let Some(command) = $command {
                    show(shown, command);
                }
            }
        }
    )*};
}

commands! {
    "run", RunRequest, |asked| &asked.command;
    "start", StartRequest, |asked| &asked.command;
    "exec", ExecRequest, |asked| match &asked.part {
        Some(exec_request::Part::Command(command)) => Some(command),
        _ => None,
    };
}

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Process, name)
}

pub(crate) const OPERATIONS: &[Operation] = &[
    RunRequest::OPERATION,
    ExecRequest::OPERATION,
    StartRequest::OPERATION,
    OutputRequest::OPERATION,
    WriteInputRequest::OPERATION,
    WaitRequest::OPERATION,
    SignalRequest::OPERATION,
    KillRequest::OPERATION,
    CloseProcessRequest::OPERATION,
    ListProcessesRequest::OPERATION,
];

/// The most arguments of a command.
const MOST_ARGUMENTS: usize = 4096;
/// The most bytes of a command's arguments and environment together.
const LONGEST_ARGUMENTS: usize = 1 << 20;

/// The process service of one plugin connection; clones are the same one.
#[derive(Clone)]
pub(crate) struct ProcessService {
    session: Arc<Session>,
    files: Arc<SessionFiles>,
    programs: Arc<Programs>,
    processes: Arc<Processes>,
}

/// A process service as long as someone else has it.
#[derive(Clone)]
pub(crate) struct WeakProcessService {
    files: Weak<SessionFiles>,
    programs: Arc<Programs>,
    processes: Weak<Processes>,
}

impl WeakProcessService {
    pub(crate) fn upgrade(&self) -> Option<ProcessService> {
        let files = self.files.upgrade()?;
        Some(ProcessService {
            session: files.session().clone(),
            files,
            programs: self.programs.clone(),
            processes: self.processes.upgrade()?,
        })
    }
}

impl ProcessService {
    pub(crate) fn downgrade(&self) -> WeakProcessService {
        WeakProcessService {
            files: Arc::downgrade(&self.files),
            programs: self.programs.clone(),
            processes: Arc::downgrade(&self.processes),
        }
    }

    pub(crate) fn new(files: Arc<SessionFiles>, programs: Arc<Programs>) -> Self {
        let session = files.session().clone();
        let pids = session.grants().resources().pids;
        let pids = pids.map_or(usize::MAX, |pids| {
            usize::try_from(pids).unwrap_or(usize::MAX)
        });
        let most = pids.min(session.limits().leases);
        Self {
            processes: Arc::new(Processes::new(most)),
            session,
            files,
            programs,
        }
    }

    /// Decides whether a command may run.
    fn judge(&self, command: &wire::Command, running: &Running) -> Result<Judged, Fault> {
        let bytes = |text: &String| text.len() + 1;
        let size: usize = command.args.iter().map(bytes).sum::<usize>()
            + command
                .environment
                .iter()
                .map(|(name, value)| bytes(name) + bytes(value))
                .sum::<usize>();
        if command.args.len() > MOST_ARGUMENTS || size > LONGEST_ARGUMENTS {
            return Err(Fault::exhausted(
                "arguments-too-long",
                format!(
                    "at most {MOST_ARGUMENTS} arguments, {LONGEST_ARGUMENTS} bytes with the environment"
                ),
            ));
        }
        if command.args.iter().any(|arg| arg.contains('\0')) {
            return Err(Fault::abuse("an argument holds a zero byte"));
        }
        let grants = self.session.grants();
        let grant = grants.process().exec(&command.command, &command.args)?;
        let variables = command.environment.iter();
        let rules = variables.map(|(name, value)| judge_variable(grants, name, value));
        let rules: Vec<String> = rules.collect::<Result<_, _>>()?;
        running.allowed_by(&grant.rule().to_string());
        for rule in rules {
            running.allowed_by(&rule);
        }
        let program = self.programs.get(grant);
        let program = program.map_err(unusable)?;
        Ok(Judged {
            program,
            name: grant.command().to_string_lossy().into_owned(),
        })
    }

    /// Room for one more process, if need be that of one that has ended.
    fn room(&self) -> Result<(Slot, Room), Fault> {
        let slot = self.session.slot()?;
        loop {
            if let Some(room) = self.processes.room() {
                return Ok((slot, room));
            }
            if !self.session.leases().forget_ended() {
                let most = self.processes.most();
                let text = format!("{most} processes are there already (`pids`, `leases`)");
                return Err(Fault::exhausted("too-many-processes", text));
            }
        }
    }

    /// Judges a command and starts it.
    async fn start_process(
        &self,
        command: wire::Command,
        running: &Running,
    ) -> Result<(Slot, Process), Fault> {
        let judged = self.judge(&command, running)?;
        let (slot, room) = self.room()?;
        let (processes, progress) = (self.processes.clone(), running.progress().clone());
        let files = self.files.clone();
        let started = self.session.blocking(move || {
            let session = files.session();
            let home = processes.home(&files.settings.temp_root, session.identity())?;
            let directory = if command.directory.is_empty() {
                // What the plugin could write there, many programs would obey.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(CWD, home, flags, Mode::empty())?
            } else {
                let granted = granted_dir(&files, &command.directory, Permissions::READ);
                let (directory, rule) = granted?;
                progress.allowed_by(&rule);
                directory
            };
            let environment = variables::compose(home, processes.variable(), &command.environment);
            let order = Order {
                program: judged.program,
                name: judged.name,
                arguments: command.args,
                environment,
                directory,
                open_files: session.grants().resources().open_files.map(u64::from),
            };
            Ok(processes.start(room, order)?)
        });
        // Given up meanwhile, the process is dropped, which ends it.
        Ok((slot, started.await?))
    }

    /// [`start_process`](Self::start_process) with its pipes handed over: what
    /// `Start` answers, and stdin, stdout and stderr.
    pub(crate) async fn start_with_pipes(
        &self,
        command: wire::Command,
        running: &Running,
    ) -> Result<(StartResponse, [OwnedFd; 3]), Fault> {
        let (slot, process) = self.start_process(command, running).await?;
        let pipes = process.take_pipes().await?;
        Ok((self.keep(slot, process), pipes))
    }

    /// Names a process that lasts until it is ended.
    fn keep(&self, slot: Slot, process: Process) -> StartResponse {
        let pid = process.child.pid().as_raw_nonzero().get();
        let (process, _) = self.session.lend(slot, process);
        StartResponse { process, pid }
    }

    /// [`start_process`](Self::start_process) of a process that lasts no longer
    /// than the call, which alone takes its output.
    async fn hold_process(
        &self,
        command: wire::Command,
        running: &Running,
    ) -> Result<(CallProcess, OwnedMutexGuard<Outputs>), Fault> {
        let (slot, process) = self.start_process(command, running).await?;
        let outputs = process.outputs.clone().lock_owned().await;
        let (id, process) = self.session.lend(slot, process);
        let session = self.session.clone();
        let held = CallProcess {
            session,
            id,
            process,
        };
        Ok((held, outputs))
    }

    fn find(&self, id: &str) -> Result<Arc<Leased<Process>>, Fault> {
        self.session.lease(id)
    }
}

/// A command that may run.
struct Judged {
    program: Arc<Program>,
    name: String,
}

/// A process that ends with this value.
struct CallProcess {
    session: Arc<Session>,
    id: String,
    process: Arc<Leased<Process>>,
}

impl Drop for CallProcess {
    fn drop(&mut self) {
        // Others may be about to do something with it.
        self.process.child.kill();
        drop(self.session.give_back::<Process>(&self.id));
    }
}

/// Whether a command may have this variable with this value, and which grant
/// says so. The values are the operator's: many programs obey them.
fn judge_variable(grants: &Grants, name: &str, value: &str) -> Result<String, Fault> {
    variables::check(name, value).map_err(bad_variable)?;
    let granted = environment::get(grants, name)?;
    if granted.value.as_deref() == Some(value) {
        return Ok(granted.rule);
    }
    let missing = format!("capabilities.environment.set: {{{name}: VALUE}}");
    Err(Fault::Ungranted {
        code: "value-not-granted",
        text: format!(
            "variable {}: a command gets the granted value (`Environment.Get`) and no other; \
             that would need {missing} in place of `read`",
            Quoted(name)
        ),
        missing,
    })
}

fn bad_variable(error: BadVariable) -> Fault {
    match error {
        BadVariable::NotAName | BadVariable::ZeroByte => Fault::abuse(error.to_string()),
        BadVariable::Fixed | BadVariable::Steering => Fault::refused(error.to_string()),
    }
}

fn unusable(error: ProgramError) -> Fault {
    let status = match error {
        ProgramError::Elsewhere(unserved) => return Fault::refused(unserved.to_string()),
        ProgramError::Unreadable(Errno::NOENT) => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    Fault::failed_as("program-unusable", status, error.to_string())
}

fn ended() -> Fault {
    Fault::failed_as(
        "process-ended",
        Code::FailedPrecondition,
        "the process has ended",
    )
}

fn status_of(end: End) -> Option<ExitStatus> {
    let end = match end {
        End::Code(code) => exit_status::End::Code(code),
        End::Signal(signal) => exit_status::End::Signal(signal),
        End::Unknown => return None,
    };
    Some(ExitStatus { end: Some(end) })
}

/// What a record shows of a command. Values of variables are not shown.
fn show(shown: &mut Arguments, command: &wire::Command) {
    shown.text("command", &command.command);
    for argument in &command.args {
        match argument.contains("://") {
            true => shown.url("arg", argument),
            // An empty argument is one, too.
            false if argument.is_empty() => shown.shown("arg", "\"\""),
            false => shown.text("arg", argument),
        };
    }
    shown.text("directory", &command.directory);
    let mut names: Vec<&String> = command.environment.keys().collect();
    names.sort_unstable();
    for name in names {
        shown.text("variable", name);
    }
}

/// Sends a signal to a process that this plugin started.
fn signal(
    session: &Session,
    process: &Process,
    number: i32,
    progress: &Progress,
) -> Result<(), Fault> {
    let signal = Signal::from_named_raw(number).ok_or_else(|| Fault::abuse("not a signal"))?;
    let grants = session.grants().process();
    let rule = match signal {
        Signal::KILL => grants.kill()?,
        _ => grants.signal()?,
    };
    progress.allowed_by(&rule.to_string());
    match process.child.signal(signal) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(ended()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes to a process's stdin, and closes it if asked to.
async fn feed(process: &Process, data: &[u8], close: bool) -> Result<(), Fault> {
    let mut input = process.input.lock().await;
    let closed = || {
        Fault::failed_as(
            "input-closed",
            Code::FailedPrecondition,
            "the input is closed",
        )
    };
    if !data.is_empty() {
        let pipe = input.as_mut().ok_or_else(closed)?;
        pipe.write_all(data).await?;
    }
    if close {
        *input = None;
    }
    Ok(())
}

#[tonic::async_trait]
impl process_server::Process for ProcessService {
    async fn run(&self, request: Request<RunRequest>) -> Result<Response<RunResponse>, Status> {
        let work = async |running: &Running, message: RunRequest| {
            self.session.may_move()?;
            let command = message.command.unwrap_or_default();
            let (held, mut outputs) = self.hold_process(command, running).await?;
            let limit = match message.timeout_ms {
                0 => Duration::MAX,
                limit => Duration::from_millis(limit),
            };
            let most = self.session.limits().payload();
            let collect = collect(&held.process, &mut outputs, message.input, most);
            let reply = tokio::time::timeout(limit, collect).await;
            let reply = reply.unwrap_or(Err(Fault::Deadline))?;
            let bytes = (reply.output.len() + reply.error_output.len()) as u64;
            running.read(bytes);
            self.session.charge(bytes);
            Ok(reply)
        };
        self.session.call(request, work).await
    }

    type ExecStream = Replies<ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (caller, mut messages) = Caller::of(request);
        // Nothing is waited for on behalf of a plugin that may not run commands anyway.
        let operation = ExecRequest::OPERATION;
        let mut running = self.session.begin_call(operation, &caller, |_| {})?;
        let started = match streaming::first(&self.session, &mut messages).await {
            Ok(first) => {
                running.show(|shown| first.show(shown));
                match first.part {
                    Some(exec_request::Part::Command(command)) => {
                        self.hold_process(command, &running).await
                    }
                    _ => Err(Fault::abuse("the stream does not begin with a command")),
                }
            }
            Err(fault) => Err(fault),
        };
        let (held, outputs) = match started {
            Ok(started) => started,
            Err(fault) => return Err(running.fail(&fault)),
        };
        let (failed, failure) = oneshot::channel();
        let (session, process) = (self.session.clone(), held.process.clone());
        let progress = running.progress().clone();
        let feeder = OwnedTask::spawn(async move {
            let fed = take_parts(&session, &process, &mut messages, &progress).await;
            if let Err(fault) = fed {
                // Nobody is there to be told when the call is over.
                let _ = failed.send(fault);
            }
        });
        let exec = Exec {
            greeting: Some(held.id.clone()),
            printing: true,
            over: false,
            outputs,
            failure: Some(failure),
            _feeder: feeder,
            held,
        };
        Ok(Response::new(streaming::replies(running, exec)))
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let work = async |running: &Running, message: StartRequest| {
            let command = message.command.unwrap_or_default();
            let (slot, process) = self.start_process(command, running).await?;
            Ok(self.keep(slot, process))
        };
        self.session.call(request, work).await
    }

    type OutputStream = Replies<OutputResponse>;

    async fn output(
        &self,
        request: Request<OutputRequest>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let (caller, message) = Caller::of(request);
        let show = |shown: &mut Arguments| message.show(shown);
        let running = self
            .session
            .begin_call(OutputRequest::OPERATION, &caller, show)?;
        let taken = self.find(&message.process).and_then(|process| {
            let busy = |_| {
                let text = "another call takes the output";
                Fault::failed_as("output-taken", Code::FailedPrecondition, text)
            };
            let outputs = process.outputs.clone().try_lock_owned().map_err(busy)?;
            Ok(OutputReader { process, outputs })
        });
        match taken {
            Ok(reader) => Ok(Response::new(streaming::replies(running, reader))),
            Err(fault) => Err(running.fail(&fault)),
        }
    }

    async fn write_input(
        &self,
        request: Request<WriteInputRequest>,
    ) -> Result<Response<WriteInputResponse>, Status> {
        let work = async |running: &Running, message: WriteInputRequest| {
            self.session.may_move()?;
            let process = self.find(&message.process)?;
            feed(&process, &message.data, message.close).await?;
            running.wrote(message.data.len() as u64);
            self.session.charge(message.data.len() as u64);
            Ok(WriteInputResponse {})
        };
        self.session.call(request, work).await
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let work = async |_: &Running, message: WaitRequest| {
            let process = self.find(&message.process)?;
            let status = status_of(process.ended().await);
            Ok(WaitResponse { status })
        };
        self.session.call(request, work).await
    }

    async fn signal(
        &self,
        request: Request<SignalRequest>,
    ) -> Result<Response<SignalResponse>, Status> {
        let work = async |running: &Running, message: SignalRequest| {
            let process = self.find(&message.process)?;
            signal(&self.session, &process, message.signal, running.progress())?;
            Ok(SignalResponse {})
        };
        self.session.call(request, work).await
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        let work = async |running: &Running, message: KillRequest| {
            let rule = self.session.grants().process().kill()?;
            running.allowed_by(&rule.to_string());
            self.find(&message.process)?.child.kill();
            Ok(KillResponse {})
        };
        self.session.call(request, work).await
    }

    async fn close(
        &self,
        request: Request<CloseProcessRequest>,
    ) -> Result<Response<CloseProcessResponse>, Status> {
        let work = async |running: &Running, message: CloseProcessRequest| {
            let process = self.session.give_back::<Process>(&message.process)?;
            running.allowed_by("a command ends with its lease");
            // Other calls may still have it in hand.
            process.child.kill();
            Ok(CloseProcessResponse {})
        };
        self.session.call(request, work).await
    }

    async fn list(
        &self,
        request: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        let work = async |running: &Running, _| {
            let rule = self.session.grants().process().list()?;
            running.allowed_by(&rule.to_string());
            self.list_processes()
        };
        self.session.call(request, work).await
    }
}

impl ProcessService {
    /// All processes of this connection in the order of their start, with as
    /// many of their arguments as fit.
    fn list_processes(&self) -> Result<ListProcessesResponse, Fault> {
        let mut all = self.session.leases().all::<Process>();
        all.sort_unstable_by_key(|(_, process)| process.number);
        let mut room = self.session.limits().payload();
        let mut processes = Vec::with_capacity(all.len());
        for (id, process) in all {
            let fixed = id.len() + process.command.len() + 128;
            room = room.checked_sub(fixed).ok_or_else(|| {
                Fault::exhausted("reply-too-large", "the list does not fit into a message")
            })?;
            let args: Vec<String> = process
                .arguments
                .iter()
                .map_while(|argument| {
                    room = room.checked_sub(argument.len() + 8)?;
                    Some(argument.clone())
                })
                .collect();
            processes.push(ProcessInfo {
                process: id,
                pid: process.child.pid().as_raw_nonzero().get(),
                command: process.command.clone(),
                args,
                started: Some(process.started.into()),
                status: process.child.end().and_then(status_of),
            });
        }
        Ok(ListProcessesResponse { processes })
    }
}

/// Feeds a process, and collects what it prints until it has ended: three
/// quarters of `most` bytes of stdout, a quarter of stderr. The rest is counted.
async fn collect(
    process: &Process,
    outputs: &mut Outputs,
    input: Bytes,
    most: usize,
) -> Result<RunResponse, Fault> {
    let mut reply = RunResponse::default();
    let (mut output, mut error_output) = (Vec::new(), Vec::new());
    let gather = async {
        while let Some(part) = outputs.next(&process.child).await? {
            let (bytes, kept, most) = match &part {
                Part::Output(bytes) => (bytes, &mut output, most - most / 4),
                Part::Error(bytes) => (bytes, &mut error_output, most / 4),
            };
            let fits = bytes.len().min(most - kept.len());
            kept.extend_from_slice(&bytes[..fits]);
            reply.dropped += (bytes.len() - fits) as u64;
        }
        // It may close both and go on.
        Ok::<End, Fault>(process.child.ended().await)
    };
    let feed = async {
        // A process need not take its input.
        let _ = feed(process, &input, true).await;
        std::future::pending().await
    };
    let end = tokio::select! {
        end = gather => end?,
        never = feed => never,
    };
    reply.status = status_of(end);
    reply.output = output.into();
    reply.error_output = error_output.into();
    Ok(reply)
}

/// Does what the messages of a plugin say, until there are no more.
async fn take_parts(
    session: &Arc<Session>,
    process: &Process,
    messages: &mut Streaming<ExecRequest>,
    progress: &Progress,
) -> Result<(), Fault> {
    loop {
        let message = messages.message().await.map_err(|_| Fault::Cancelled)?;
        let Some(message) = message else {
            return feed(process, &[], true).await;
        };
        match message.part {
            Some(exec_request::Part::Input(data)) => {
                session.pace(data.len() as u64).await;
                match feed(process, &data, false).await {
                    // A process need not take its input.
                    Ok(()) | Err(Fault::System(Errno::PIPE)) => {}
                    Err(fault) => return Err(fault),
                }
                progress.moved(data.len() as u64);
            }
            Some(exec_request::Part::CloseInput(close)) => feed(process, &[], close).await?,
            Some(exec_request::Part::Signal(number)) => {
                match signal(session, process, number, progress) {
                    Ok(()) => {}
                    // It was alive when the plugin decided.
                    Err(Fault::Failed { .. }) => {}
                    Err(fault) => return Err(fault),
                }
            }
            Some(exec_request::Part::Command(_)) | None => {
                return Err(Fault::abuse("a stream has one command, and it comes first"));
            }
        }
    }
}

/// Counts a part that is about to be sent, at the pace that was granted.
async fn count(running: &Running, part: &Part) {
    let (Part::Output(bytes) | Part::Error(bytes)) = part;
    running.session().pace(bytes.len() as u64).await;
    running.read(bytes.len() as u64);
}

/// A command whose input, output and end belong to one call.
struct Exec {
    /// The process's name, until it was told.
    greeting: Option<String>,
    printing: bool,
    over: bool,
    outputs: OwnedMutexGuard<Outputs>,
    /// What the other half of the call could not do; nothing once that is over.
    failure: Option<oneshot::Receiver<Fault>>,
    _feeder: OwnedTask,
    held: CallProcess,
}

impl Source for Exec {
    type Reply = ExecResponse;

    async fn next(&mut self, running: &Running) -> Result<Next<ExecResponse>, Fault> {
        let reply = |part| Ok(Next::Reply(ExecResponse { part: Some(part) }));
        if let Some(process) = self.greeting.take() {
            return reply(exec_response::Part::Process(process));
        }
        while !self.over {
            let child = &self.held.process.child;
            let failed = async {
                match &mut self.failure {
                    Some(failure) => failure.await.ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                part = self.outputs.next(child), if self.printing => match part? {
                    Some(part) => {
                        count(running, &part).await;
                        return reply(match part {
                            Part::Output(bytes) => exec_response::Part::Output(bytes),
                            Part::Error(bytes) => exec_response::Part::ErrorOutput(bytes),
                        });
                    }
                    None => self.printing = false,
                },
                end = child.ended(), if !self.printing => {
                    self.over = true;
                    let status = status_of(end).unwrap_or_default();
                    return reply(exec_response::Part::Status(status));
                }
                fault = failed => match fault {
                    Some(fault) => return Err(fault),
                    None => self.failure = None,
                },
            }
        }
        Ok(Next::End)
    }
}

/// A call that takes what a process prints.
struct OutputReader {
    process: Arc<Leased<Process>>,
    outputs: OwnedMutexGuard<Outputs>,
}

impl Source for OutputReader {
    type Reply = OutputResponse;

    async fn next(&mut self, running: &Running) -> Result<Next<OutputResponse>, Fault> {
        let part = match self.outputs.next(&self.process.child).await? {
            Some(part) => part,
            None => return Ok(Next::End),
        };
        count(running, &part).await;
        let part = match part {
            Part::Output(bytes) => output_response::Part::Output(bytes),
            Part::Error(bytes) => output_response::Part::ErrorOutput(bytes),
        };
        Ok(Next::Reply(OutputResponse { part: Some(part) }))
    }
}
