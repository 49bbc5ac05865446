//! Commands that were granted.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::{exit_status, output_response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::file::Work;
use super::{Host, HostError, call};
use crate::proto::host::process_client::ProcessClient;

/// Parts of a command's output that wait to be read, for each of its streams.
const WAITING: usize = 4;
/// The most that one write sends, in bytes.
const WRITTEN: usize = 64 << 10;

macro_rules! process {
    ($host:expr, $method:ident, $request:expr) => {
        call!($host, ProcessClient, "process", $method, $request)
    };
}

/// Commands of the whitelist, run by the host.
#[derive(Clone, Debug)]
pub struct Processes(Host);

impl Processes {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// A command by its absolute path.
    pub fn command(&self, path: impl Into<String>) -> Command {
        let command = path.into();
        Command {
            host: self.0.clone(),
            command: messages::Command {
                command,
                ..messages::Command::default()
            },
            input: Bytes::new(),
            timeout: Duration::ZERO,
        }
    }

    /// The processes that this plugin has started.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn list(&self) -> Result<Vec<messages::ProcessInfo>, HostError> {
        let request = messages::ListProcessesRequest {};
        Ok(process!(self.0, list, request)?.processes)
    }
}

/// A command to run.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `output` or `spawn`"]
pub struct Command {
    host: Host,
    command: messages::Command,
    input: Bytes,
    timeout: Duration,
}

impl Command {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.command.args.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        self.command.args.extend(arguments);
        self
    }

    /// Gives it a variable. The name must be granted, and the value is the one
    /// that [`Env::var`](super::Env::var) tells: with another one nothing runs
    /// (`value-not-granted`).
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.environment.insert(name.into(), value.into());
        self
    }

    /// Runs it in a granted directory; without, in one that only the plugin's
    /// commands reach.
    pub fn current_dir(mut self, directory: impl Into<String>) -> Self {
        self.command.directory = directory.into();
        self
    }

    /// What [`output`](Self::output) gives it to read.
    pub fn input(mut self, input: impl Into<Bytes>) -> Self {
        self.input = input.into();
        self
    }

    /// How long [`output`](Self::output) lets it run; without, the host's
    /// `call_timeout`, which is also the most there is. What may take longer is
    /// for [`spawn`](Self::spawn).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end and collects what it prints.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`]. A command that fails is no error.
    pub async fn output(self) -> Result<Output, HostError> {
        let request = messages::RunRequest {
            command: Some(self.command),
            input: self.input,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let ran = process!(self.host, run, request)?;
        Ok(Output {
            status: ExitStatus::from_wire(ran.status, "process.run")?,
            stdout: ran.output,
            stderr: ran.error_output,
            dropped: ran.dropped,
        })
    }

    /// Starts it. Its input and output are streams.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`].
    pub async fn spawn(self) -> Result<Child, HostError> {
        let operation = "process.start";
        if let Some(descriptors) = self.host.descriptors() {
            let request = Request::Exec(self.command.clone());
            if let Some((reply, taken)) = descriptors.ask(operation, request).await? {
                let taken: Result<[OwnedFd; 3], _> = taken.try_into();
                return match (reply, taken) {
                    (Reply::Started(started), Ok(pipes)) => {
                        Child::with_pipes(self.host, started, pipes)
                            .map_err(|error| HostError::system(operation, error))
                    }
                    _ => Err(HostError::protocol(operation)),
                };
            }
        }
        let command = Some(self.command);
        let started = process!(self.host, start, messages::StartRequest { command })?;
        let process = started.process.clone();
        let lease = ProcessLease::new(self.host.clone(), started.process);
        let printed = process!(self.host, output, messages::OutputRequest { process })?;
        let (stdout, to_stdout) = ChildOutput::channel();
        let (stderr, to_stderr) = ChildOutput::channel();
        // Ends with the command's output, or when nobody reads any of it.
        tokio::spawn(sort(printed, to_stdout, to_stderr));
        let input = InputByCalls {
            host: self.host,
            process: lease.id.clone(),
            writing: None,
        };
        Ok(Child {
            pid: started.pid,
            stdin: Some(ChildInput(Input::Calls(input))),
            stdout: Some(stdout),
            stderr: Some(stderr),
            lease,
        })
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Bytes,
    /// What it printed as errors.
    pub stderr: Bytes,
    /// Bytes that it printed and that did not fit.
    pub dropped: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended by itself with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    fn from_wire(
        status: Option<messages::ExitStatus>,
        operation: &'static str,
    ) -> Result<Self, HostError> {
        match status.and_then(|status| status.end) {
            Some(exit_status::End::Code(code)) => Ok(Self::Code(code)),
            Some(exit_status::End::Signal(signal)) => Ok(Self::Signal(signal)),
            None => Err(HostError::protocol(operation)),
        }
    }
}

/// A command that runs. It ends, and what it started, when this is dropped.
#[derive(Debug)]
pub struct Child {
    /// Its input; dropping or shutting it down ends that.
    pub stdin: Option<ChildInput>,
    /// What it prints. While nobody reads it, it waits.
    pub stdout: Option<ChildOutput>,
    /// What it prints as errors. Read both: it may wait for either.
    pub stderr: Option<ChildOutput>,
    pid: i32,
    lease: ProcessLease,
}

#[derive(Debug)]
struct ProcessLease {
    host: Host,
    id: String,
    /// Whether there is nothing to give back: the host forgets by itself what
    /// has ended.
    over: bool,
}

impl ProcessLease {
    fn new(host: Host, id: String) -> Self {
        let over = false;
        Self { host, id, over }
    }
}

impl Drop for ProcessLease {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (host, process) = (self.host.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                let _ = process!(host, close, messages::CloseProcessRequest { process });
            });
        }
    }
}

impl Child {
    fn with_pipes(
        host: Host,
        started: messages::StartResponse,
        pipes: [OwnedFd; 3],
    ) -> io::Result<Self> {
        let lease = ProcessLease::new(host, started.process);
        let [stdin, stdout, stderr] = pipes;
        let stdin = pipe::Sender::from_owned_fd(stdin)?;
        let stdout = pipe::Receiver::from_owned_fd(stdout)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr)?;
        Ok(Self {
            pid: started.pid,
            stdin: Some(ChildInput(Input::Pipe(stdin))),
            stdout: Some(ChildOutput(Printed::Pipe(stdout))),
            stderr: Some(ChildOutput(Printed::Pipe(stderr))),
            lease,
        })
    }

    /// Its process id at the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Closes its input and waits until it ends. From then on the host may
    /// forget the command when it needs room.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// It may be waited for again.
    pub async fn wait(&mut self) -> Result<ExitStatus, HostError> {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stdin).await;
        }
        let process = self.lease.id.clone();
        // A wait lasts no longer than any call of the host.
        loop {
            let process = process.clone();
            let host = &self.lease.host;
            let waited = process!(host, wait, messages::WaitRequest { process });
            match waited {
                Ok(waited) => {
                    self.lease.over = true;
                    return ExitStatus::from_wire(waited.status, "process.wait");
                }
                Err(error) if error.grpc_code() == tonic::Code::DeadlineExceeded => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Kills it and what it started, where that is granted. To drop it does the
    /// same and needs no grant.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn kill(&mut self) -> Result<(), HostError> {
        let process = self.lease.id.clone();
        process!(self.lease.host, kill, messages::KillRequest { process })?;
        Ok(())
    }

    /// Sends it a signal by number, where that is granted.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn signal(&mut self, signal: i32) -> Result<(), HostError> {
        let process = self.lease.id.clone();
        let request = messages::SignalRequest { process, signal };
        process!(self.lease.host, signal, request)?;
        Ok(())
    }

    /// Lets it run on without this value, until the plugin is gone.
    pub fn detach(mut self) {
        self.lease.over = true;
    }
}

async fn sort(
    mut printed: Streaming<messages::OutputResponse>,
    stdout: mpsc::Sender<io::Result<Bytes>>,
    stderr: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some(part) = printed.next().await {
        let sent = match part.map(|part| part.part) {
            Ok(Some(output_response::Part::Output(data))) => stdout.send(Ok(data)).await,
            Ok(Some(output_response::Part::ErrorOutput(data))) => stderr.send(Ok(data)).await,
            Ok(None) => continue,
            Err(status) => {
                let lost = || HostError::status("process.output", status.clone()).into();
                let _ = stdout.send(Err(lost())).await;
                stderr.send(Err(lost())).await
            }
        };
        if sent.is_err() && stdout.is_closed() && stderr.is_closed() {
            return;
        }
    }
}

/// A command's input.
#[derive(Debug)]
pub struct ChildInput(Input);

#[derive(Debug)]
enum Input {
    Pipe(pipe::Sender),
    Calls(InputByCalls),
    Closed,
}

struct InputByCalls {
    host: Host,
    process: String,
    writing: Option<(Work<()>, usize)>,
}

impl std::fmt::Debug for InputByCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InputByCalls").finish_non_exhaustive()
    }
}

impl InputByCalls {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        data: &[u8],
        close: bool,
    ) -> Poll<io::Result<usize>> {
        let (writing, length) = self.writing.get_or_insert_with(|| {
            let data = data.get(..data.len().min(WRITTEN)).unwrap_or_default();
            let length = data.len();
            let request = messages::WriteInputRequest {
                process: self.process.clone(),
                data: Bytes::copy_from_slice(data),
                close,
            };
            let host = self.host.clone();
            let writing = async move {
                process!(host, write_input, request)?;
                Ok(())
            };
            (Work::new(writing), length)
        });
        let (written, length) = (ready!(writing.poll(context)), *length);
        self.writing = None;
        Poll::Ready(written.map(|()| length).map_err(io::Error::from))
    }
}

impl Drop for ChildInput {
    fn drop(&mut self) {
        if let Input::Calls(calls) = std::mem::replace(&mut self.0, Input::Closed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                // What a poll has begun comes first.
                if let Some((writing, _)) = calls.writing {
                    let _ = writing.done().await;
                }
                let request = messages::WriteInputRequest {
                    process: calls.process,
                    data: Bytes::new(),
                    close: true,
                };
                let _ = process!(calls.host, write_input, request);
            });
        }
    }
}

/// What the system says of an input, as the host would say it.
fn unwritten(error: io::Error) -> io::Error {
    HostError::system("process.write_input", error).into()
}

impl AsyncWrite for ChildInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Input::Pipe(pipe) => Pin::new(pipe).poll_write(context, data).map_err(unwritten),
            Input::Calls(_) if data.is_empty() => Poll::Ready(Ok(0)),
            Input::Calls(calls) => calls.poll(context, data, false),
            Input::Closed => Poll::Ready(Err(unwritten(io::ErrorKind::BrokenPipe.into()))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Input::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
            Input::Calls(_) | Input::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Input::Calls(calls) = &mut self.0 {
            ready!(calls.poll(context, &[], true))?;
        }
        // A pipe has no half: closing it is the end.
        self.0 = Input::Closed;
        Poll::Ready(Ok(()))
    }
}

/// What a command prints.
#[derive(Debug)]
pub struct ChildOutput(Printed);

#[derive(Debug)]
enum Printed {
    Pipe(pipe::Receiver),
    Calls(Parts),
}

/// Parts of a stream, read as bytes.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) parts: mpsc::Receiver<io::Result<Bytes>>,
    pub(super) rest: Bytes,
}

impl Parts {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.parts.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(part) => self.rest = part?,
            }
        }
        let part = self.rest.split_to(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl ChildOutput {
    fn channel() -> (Self, mpsc::Sender<io::Result<Bytes>>) {
        let (sender, parts) = mpsc::channel(WAITING);
        let rest = Bytes::new();
        (Self(Printed::Calls(Parts { parts, rest })), sender)
    }
}

impl AsyncRead for ChildOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Printed::Pipe(pipe) => {
                let read = Pin::new(pipe).poll_read(context, buffer);
                read.map_err(|error| HostError::system("process.output", error).into())
            }
            Printed::Calls(parts) => parts.poll(context, buffer),
        }
    }
}
