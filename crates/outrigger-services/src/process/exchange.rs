//! What a plugin and a process exchange: input, output, signals, and how it ended.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::*;
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tonic::{Code, Streaming};

use super::child::End;
use super::commands::CallProcess;
use super::output::{Outputs, Part};
use super::processes::Process;
use crate::fault::Fault;
use crate::leases::Leased;
use crate::progress::Progress;
use crate::running::Running;
use crate::session::Session;
use crate::streaming::{Next, Source};

fn ended() -> Fault {
    Fault::failed_as(
        "process-ended",
        Code::FailedPrecondition,
        "the process has ended",
    )
}

pub(super) fn status_of(end: End) -> Option<ExitStatus> {
    let end = match end {
        End::Code(code) => exit_status::End::Code(code),
        End::Signal(signal) => exit_status::End::Signal(signal),
        End::Unknown => return None,
    };
    Some(ExitStatus { end: Some(end) })
}

/// Sends a signal to a process that this plugin started.
pub(super) fn signal(
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
pub(super) async fn feed(process: &Process, data: &[u8], close: bool) -> Result<(), Fault> {
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

/// Feeds a process, and collects what it prints until it has ended: three
/// quarters of `most` bytes of stdout, a quarter of stderr. The rest is counted.
pub(super) async fn collect(
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
pub(super) async fn take_parts(
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
pub(super) struct Exec {
    /// The process's name, until it was told.
    pub(super) greeting: Option<String>,
    pub(super) printing: bool,
    pub(super) over: bool,
    pub(super) outputs: OwnedMutexGuard<Outputs>,
    /// What the other half of the call could not do; nothing once that is over.
    pub(super) failure: Option<oneshot::Receiver<Fault>>,
    pub(super) _feeder: OwnedTask,
    pub(super) held: CallProcess,
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
pub(super) struct OutputReader {
    pub(super) process: Arc<Leased<Process>>,
    pub(super) outputs: OwnedMutexGuard<Outputs>,
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
