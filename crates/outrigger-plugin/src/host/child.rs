//! Commands that run.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::output_response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::calls::call;
use super::parts::Parts;
use super::pending::Pending;
use super::{ExitStatus, Host, HostError};

/// The most that one write sends, in bytes.
const WRITTEN: usize = 64 << 10;

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
    /// Whether dropping this leaves the process alone: it was detached, or it has
    /// ended and the host forgets it by itself.
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
                let _ = call!(
                    host,
                    process.close,
                    messages::CloseProcessRequest { process }
                );
            });
        }
    }
}

impl Child {
    pub(super) async fn start(host: Host, command: messages::Command) -> Result<Self, HostError> {
        let operation = "process.start";
        if let Some(descriptors) = host.descriptors() {
            let asked = Request::Exec(command.clone());
            if let Some((reply, pipes)) = descriptors.ask(operation, asked).await? {
                let pipes: Result<[OwnedFd; 3], _> = pipes.try_into();
                let (Reply::Started(started), Ok(pipes)) = (reply, pipes) else {
                    return Err(HostError::protocol(operation));
                };
                let child = Self::with_pipes(host, started, pipes);
                return child.map_err(|error| HostError::system(operation, error));
            }
        }
        let command = Some(command);
        let started = call!(host, process.start, messages::StartRequest { command })?;
        let process = started.process.clone();
        let lease = ProcessLease::new(host.clone(), started.process);
        let printed = call!(host, process.output, messages::OutputRequest { process })?;
        let (stdout, to_stdout) = ChildOutput::channel();
        let (stderr, to_stderr) = ChildOutput::channel();
        // Ends with the command's output, or when nobody reads any of it.
        tokio::spawn(sort(printed, to_stdout, to_stderr));
        let input = InputByCalls {
            host,
            process: lease.id.clone(),
            writing: None,
        };
        Ok(Self {
            pid: started.pid,
            stdin: Some(ChildInput(Input::Calls(input))),
            stdout: Some(stdout),
            stderr: Some(stderr),
            lease,
        })
    }

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
            let waited = call!(host, process.wait, messages::WaitRequest { process });
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
        call!(
            self.lease.host,
            process.kill,
            messages::KillRequest { process }
        )?;
        Ok(())
    }

    /// Sends it a signal by number, where that is granted.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn signal(&mut self, signal: i32) -> Result<(), HostError> {
        let process = self.lease.id.clone();
        let request = messages::SignalRequest { process, signal };
        call!(self.lease.host, process.signal, request)?;
        Ok(())
    }

    /// Lets it run on without this value, until the plugin is gone.
    pub fn detach(mut self) {
        self.lease.over = true;
    }
}

/// Passes what a command prints on to the two readers.
async fn sort(
    mut printed: Streaming<messages::OutputResponse>,
    stdout: mpsc::Sender<io::Result<Bytes>>,
    stderr: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some(part) = printed.next().await {
        let sent = match part.map(|part| part.part) {
            // An empty part would end the reading.
            Ok(Some(output_response::Part::Output(data))) if !data.is_empty() => {
                stdout.send(Ok(data)).await
            }
            Ok(Some(output_response::Part::ErrorOutput(data))) if !data.is_empty() => {
                stderr.send(Ok(data)).await
            }
            Ok(_) => continue,
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
    writing: Option<(Pending<()>, usize)>,
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
                call!(host, process.write_input, request)?;
                Ok(())
            };
            (Pending::new(writing), length)
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
                    let _ = writing.finish().await;
                }
                let request = messages::WriteInputRequest {
                    process: calls.process,
                    data: Bytes::new(),
                    close: true,
                };
                let _ = call!(calls.host, process.write_input, request);
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
    Call(Parts),
}

impl ChildOutput {
    fn channel() -> (Self, mpsc::Sender<io::Result<Bytes>>) {
        let (parts, sender) = Parts::channel();
        (Self(Printed::Call(parts)), sender)
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
            Printed::Call(parts) => parts.poll_read(context, buffer),
        }
    }
}
