//! `outrigger.host.v1.Process` for one plugin connection.

use std::time::Duration;

use outrigger_manifest::HostService;
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::*;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, Streaming};

use super::commands::Commands;
use super::exchange::{Exec, OutputReader, collect, feed, signal, status_of, take_parts};
use super::processes::Process;
use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::operation::{Described, Operation, described};
use crate::proto::host::process_server;
use crate::running::{Caller, Running, calls};
use crate::streaming::{self, Replies};

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

/// What a record shows of a command. Values of variables are not shown.
fn show(shown: &mut Arguments, command: &Command) {
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

described! { operation("output").on_lease(), OutputRequest { process } }

calls! {
    Commands as process_server::Process;
    /// What the service can be asked for.
    pub(crate) const OPERATIONS and [
        RunRequest::OPERATION,
        StartRequest::OPERATION,
        ExecRequest::OPERATION,
        OutputRequest::OPERATION,
    ];
    write_input on_lease: WriteInputRequest { process, data, close } -> WriteInputResponse =
        |commands, running, request| {
            commands.session().may_move()?;
            let process = commands.find(&request.process)?;
            feed(&process, &request.data, request.close).await?;
            running.wrote(request.data.len() as u64);
            commands.session().charge(request.data.len() as u64);
            Ok(WriteInputResponse {})
        };
    wait on_lease: WaitRequest { process } -> WaitResponse = |commands, _, request| {
        let process = commands.find(&request.process)?;
        let status = status_of(process.ended().await);
        Ok(WaitResponse { status })
    };
    signal: SignalRequest { process, signal } -> SignalResponse = |commands, running, request| {
        let process = commands.find(&request.process)?;
        signal(commands.session(), &process, request.signal, running.progress())?;
        Ok(SignalResponse {})
    };
    kill: KillRequest { process } -> KillResponse = |commands, running, request| {
        let rule = commands.session().grants().process().kill()?;
        running.allowed_by(&rule.to_string());
        commands.find(&request.process)?.child.kill();
        Ok(KillResponse {})
    };
    close: CloseProcessRequest { process } -> CloseProcessResponse =
        |commands, running, request| {
            let process = commands.session().give_back::<Process>(&request.process)?;
            running.allowed_by("a command ends with its lease");
            // Other calls may still have it in hand.
            process.child.kill();
            Ok(CloseProcessResponse {})
        };
    list: ListProcessesRequest {} -> ListProcessesResponse = |commands, running, _| {
        let rule = commands.session().grants().process().list()?;
        running.allowed_by(&rule.to_string());
        commands.list_processes()
    };
    {
        async fn run(&self, request: Request<RunRequest>) -> Result<Response<RunResponse>, Status> {
            let work = async |running: &Running, message: RunRequest| {
                self.session().may_move()?;
                let command = message.command.unwrap_or_default();
                let (held, mut outputs) = self.hold_process(command, running).await?;
                let limit = match message.timeout_ms {
                    0 => Duration::MAX,
                    limit => Duration::from_millis(limit),
                };
                let most = self.session().limits().payload();
                let collect = collect(&held.process, &mut outputs, message.input, most);
                let reply = tokio::time::timeout(limit, collect).await;
                let reply = reply.unwrap_or(Err(Fault::Deadline))?;
                let bytes = (reply.output.len() + reply.error_output.len()) as u64;
                running.read(bytes);
                self.session().charge(bytes);
                Ok(reply)
            };
            self.session().call(request, work).await
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
            self.session().call(request, work).await
        }

        type ExecStream = Replies<ExecResponse>;

        async fn exec(
            &self,
            request: Request<Streaming<ExecRequest>>,
        ) -> Result<Response<Self::ExecStream>, Status> {
            let (caller, mut messages) = Caller::of(request);
            // Nothing is waited for on behalf of a plugin that may not run commands anyway.
            let operation = ExecRequest::OPERATION;
            let mut running = self.session().begin_call(operation, &caller, |_| {})?;
            let started = match streaming::first(self.session(), &mut messages).await {
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
            let (session, process) = (self.session().clone(), held.process.clone());
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

        type OutputStream = Replies<OutputResponse>;

        async fn output(
            &self,
            request: Request<OutputRequest>,
        ) -> Result<Response<Self::OutputStream>, Status> {
            let (caller, message) = Caller::of(request);
            let show = |shown: &mut Arguments| message.show(shown);
            let running = self
                .session()
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
    }
}

impl Commands {
    /// All processes of this connection in the order of their start, with as
    /// many of their arguments as fit.
    fn list_processes(&self) -> Result<ListProcessesResponse, Fault> {
        let mut all = self.session().leases().all::<Process>();
        all.sort_unstable_by_key(|(_, process)| process.number);
        let mut room = self.session().limits().payload();
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
