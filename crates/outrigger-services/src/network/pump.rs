//! A TCP connection as two streams of messages: each direction at the pace of
//! whoever takes it, each with an end of its own.
//!
//! What a plugin sends is written by a task of its own, so that a plugin that
//! reads nothing can still send; the task belongs to the stream of replies and
//! is aborted with it. What the peer sends is read when the reply before it was
//! taken.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use super::account::Account;
use super::deadline::{Activity, Watch};
use super::failure;
use super::hello::{HelloGuard, Mismatch};
use super::settings::NetworkLimits;
use crate::fault::Fault;

/// Part of what a plugin sends.
pub(crate) enum Part {
    Data(Bytes),
    Finish,
    /// What may only come first.
    Misplaced,
}

/// A message of a plugin on an open connection.
pub(crate) trait Sent: Send + 'static {
    fn part(self) -> Part;
}

/// A message to a plugin on an open connection.
pub(crate) trait Received: Send + 'static {
    fn data(data: Bytes) -> Self;
    fn finish() -> Self;
}

/// An open connection that a plugin uses.
pub(crate) struct Pump<Q, R> {
    reading: OwnedReadHalf,
    peer_finished: bool,
    buffer: BytesMut,
    chunk: usize,
    writing: Writing<Q>,
    activity: Arc<Activity>,
    watch: Watch,
    account: Arc<Account>,
    reply: PhantomData<fn() -> R>,
}

/// What became of the direction from the plugin to the peer.
enum Writing<Q> {
    Open(Writer<Q>),
    /// The plugin has finished; keeping its messages keeps the call open.
    Finished {
        _messages: Streaming<Q>,
    },
    /// The peer takes no more, which may have a reason that it sent before.
    Failed(Fault),
    Over,
}

/// The task that writes, aborted when it is dropped.
struct Writer<Q>(JoinHandle<Result<Streaming<Q>, Fault>>);

impl<Q> Drop for Writer<Q> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes next for the plugin.
enum Step<R> {
    Reply(R),
    /// Both directions have finished.
    End,
    /// The time of the connection is up, as is recorded already.
    Late(Status),
}

impl<Q: Sent, R: Received> Pump<Q, R> {
    pub(crate) fn new(
        stream: TcpStream,
        messages: Streaming<Q>,
        guard: HelloGuard,
        account: Arc<Account>,
        limits: &NetworkLimits,
    ) -> Self {
        let socket = stream.as_fd().try_clone_to_owned();
        let (reading, writing) = stream.into_split();
        let activity = Arc::new(Activity::new(limits));
        let task = write(messages, writing, guard, account.clone(), activity.clone());
        let writer = tokio::spawn(task);
        let cut = writer.abort_handle();
        // A plugin that takes no reply keeps what would read them; so the
        // connection is not dropped but ended.
        let watch = Watch::new(activity.clone(), account.clone(), move || {
            cut.abort();
            let _ = socket.map(rustix::net::connect_unspec);
        });
        Self {
            reading,
            peer_finished: false,
            buffer: BytesMut::new(),
            chunk: limits.chunk.max(1),
            writing: Writing::Open(Writer(writer)),
            activity,
            watch,
            account,
            reply: PhantomData,
        }
    }

    /// The next message for the plugin, or nothing when both directions have
    /// finished. The connection is recorded as ended before its last answer.
    pub(crate) async fn next(&mut self) -> Option<Result<R, Status>> {
        if matches!(self.writing, Writing::Over) {
            return None;
        }
        let step = self.step().await;
        if let Some(late) = self.watch.told() {
            self.writing = Writing::Over;
            return Some(Err(late));
        }
        match step {
            Ok(Step::Reply(reply)) => Some(Ok(reply)),
            Ok(Step::Late(late)) => {
                self.writing = Writing::Over;
                Some(Err(late))
            }
            Ok(Step::End) => {
                self.writing = Writing::Over;
                self.account.end();
                None
            }
            Err(fault) => {
                self.writing = Writing::Over;
                Some(Err(self.account.fail(fault)))
            }
        }
    }

    async fn step(&mut self) -> Result<Step<R>, Fault> {
        loop {
            if self.peer_finished {
                match std::mem::replace(&mut self.writing, Writing::Over) {
                    Writing::Open(writer) => self.writing = Writing::Open(writer),
                    Writing::Failed(fault) => return Err(fault),
                    Writing::Finished { .. } | Writing::Over => return Ok(Step::End),
                }
            }
            let writer = match &mut self.writing {
                Writing::Open(writer) => Some(writer),
                _ => None,
            };
            self.buffer.reserve(self.chunk);
            let mut room = (&mut self.buffer).limit(self.chunk);
            tokio::select! {
                read = self.reading.read_buf(&mut room), if !self.peer_finished => {
                    match read {
                        Ok(0) => {
                            self.peer_finished = true;
                            return Ok(Step::Reply(R::finish()));
                        }
                        Ok(count) => {
                            self.activity.note();
                            self.account.received(count).await;
                            self.activity.note();
                            return Ok(Step::Reply(R::data(self.buffer.split().freeze())));
                        }
                        Err(error) => return Err(failure::io(&error)),
                    }
                }
                written = join(writer) => match written {
                    Ok(messages) => self.writing = Writing::Finished { _messages: messages },
                    Err(fault @ Fault::System(_)) => self.writing = Writing::Failed(fault),
                    Err(fault) => return Err(fault),
                },
                late = self.watch.late() => return Ok(Step::Late(late)),
            }
        }
    }
}

async fn join<Q>(writer: Option<&mut Writer<Q>>) -> Result<Streaming<Q>, Fault> {
    match writer {
        None => std::future::pending().await,
        Some(writer) => match (&mut writer.0).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failure::broken("a task of the host failed")),
        },
    }
}

/// Writes what the plugin sends until it finishes.
async fn write<Q: Sent>(
    mut messages: Streaming<Q>,
    mut stream: OwnedWriteHalf,
    mut guard: HelloGuard,
    account: Arc<Account>,
    activity: Arc<Activity>,
) -> Result<Streaming<Q>, Fault> {
    loop {
        let data = match messages.message().await {
            Ok(Some(message)) => match message.part() {
                Part::Data(data) => data,
                Part::Finish => break,
                Part::Misplaced => {
                    return Err(Fault::abuse(
                        "after the first message only data and the end may follow",
                    ));
                }
            },
            // A plugin that ends its messages without the word means the same.
            Ok(None) => break,
            Err(_) => return Err(Fault::Cancelled),
        };
        account.sent(data.len()).await;
        let data = guard.pass(data).map_err(refused)?;
        put(&mut stream, data, &activity).await?;
    }
    put(&mut stream, guard.finish(), &activity).await?;
    stream
        .shutdown()
        .await
        .map_err(|error| failure::io(&error))?;
    Ok(messages)
}

async fn put(
    stream: &mut OwnedWriteHalf,
    mut data: Bytes,
    activity: &Activity,
) -> Result<(), Fault> {
    while !data.is_empty() {
        let written = stream.write_buf(&mut data).await;
        match written {
            Ok(0) => return Err(Fault::System(rustix::io::Errno::PIPE)),
            Ok(_) => activity.note(),
            Err(error) => return Err(failure::io(&error)),
        }
    }
    Ok(())
}

fn refused(mismatch: Mismatch) -> Fault {
    Fault::refused(match mismatch {
        Mismatch::OtherName(name) => {
            format!(
                "the TLS greeting names {}",
                outrigger_wire::Excerpt::from(&*name)
            )
        }
        Mismatch::Unreadable => "what begins as a TLS greeting cannot be read".to_owned(),
    })
}
