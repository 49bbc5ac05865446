//! The calling end of one connection.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use outrigger_gob::{DecodeErrorKind, Decoder, Encode, Encoded};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{oneshot, watch};

use super::super::error::{Cause, Lost};
use super::super::outgoing::{Outgoing, SendError};
use super::super::{Budget, CallError, CallErrorKind, LARGE, Request, Response};
use super::{Limit, Reply};
use crate::fate::Fate;
use crate::stream::Stream;
use crate::task::OwnedTask;

/// Bytes that are read at a time.
const READ: usize = 16 << 10;

/// The calling end of one net/rpc connection. Clones share it; the last one to
/// go closes it.
#[derive(Clone)]
pub(crate) struct Connected {
    shared: Arc<Shared>,
    _tasks: Arc<[OwnedTask; 2]>,
}

struct Shared {
    outgoing: Arc<Outgoing>,
    pending: Mutex<Pending>,
    ended: watch::Sender<bool>,
    fate: Fate,
}

#[derive(Default)]
struct Pending {
    next: u64,
    calls: HashMap<u64, oneshot::Sender<Result<Encoded, Unanswered>>>,
    ended: Option<Cause>,
}

enum Unanswered {
    Failed(String),
    Lost(Cause),
}

impl Connected {
    /// Calls over `stream`; `fate` explains why the peer is gone. An argument of more
    /// than `max_value` bytes is refused, such a reply ends the connection.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(stream: Stream, fate: Fate, max_value: usize) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (outgoing, writing) = Outgoing::start(writer, max_value);
        let shared = Arc::new(Shared {
            outgoing,
            pending: Mutex::default(),
            ended: watch::Sender::new(false),
            fate,
        });
        let reading = OwnedTask::spawn(read(reader, shared.clone(), max_value));
        Self {
            shared,
            _tasks: Arc::new([reading, writing]),
        }
    }

    /// Calls `method`, waits within `limit` for its reply, and notes in `sent` when
    /// the call is sent.
    pub(super) async fn call<A: Encode + ?Sized>(
        &self,
        method: &str,
        argument: &A,
        limit: Option<&Limit>,
        sent: &AtomicBool,
    ) -> Result<Reply, CallError> {
        let exchange = self.exchange(method, argument, sent);
        let Some(limit) = limit else {
            return exchange.await;
        };
        match tokio::time::timeout_at(limit.deadline, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(CallError::new(
                method,
                match sent.load(Ordering::Relaxed) {
                    true => CallErrorKind::TimedOut(limit.whole),
                    false => CallErrorKind::NotSent(limit.whole),
                },
            )),
        }
    }

    async fn exchange<A: Encode + ?Sized>(
        &self,
        method: &str,
        argument: &A,
        noted: &AtomicBool,
    ) -> Result<Reply, CallError> {
        if let Some(cause) = self.shared.ended_by() {
            return Err(self.lost(method, cause).await);
        }
        let (sender, reply) = oneshot::channel();
        let mut registered = Registered {
            shared: &self.shared,
            seq: None,
        };
        let sent = self.shared.outgoing.send(|encoder, bytes| {
            let seq = self.shared.register(sender);
            registered.seq = Some(seq);
            let header = Request {
                service_method: method.to_owned(),
                seq,
            };
            noted.store(true, Ordering::Relaxed);
            encoder.encode_pair(&header, argument, bytes)
        });
        let unanswered = match sent.await {
            Ok(()) => match reply.await {
                Ok(Ok(encoded)) => {
                    registered.seq = None;
                    return Ok(Reply::new(method, encoded));
                }
                Ok(Err(unanswered)) => unanswered,
                Err(_) => Unanswered::Lost(Cause::Closed),
            },
            Err(SendError::Encode(error)) => {
                return Err(CallError::new(method, CallErrorKind::Argument(error)));
            }
            Err(SendError::Io(error)) => Unanswered::Lost(Cause::Io(error)),
        };
        Err(match unanswered {
            Unanswered::Failed(text) => CallError::new(method, CallErrorKind::Failed(text)),
            Unanswered::Lost(cause) => self.lost(method, cause).await,
        })
    }

    async fn lost(&self, method: &str, cause: Cause) -> CallError {
        let lost = Lost::explained(cause, &self.shared.fate).await;
        CallError::new(method, CallErrorKind::Lost(lost))
    }

    /// Waits until the connection is over.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn closed(&self) {
        let mut ended = self.shared.ended.subscribe();
        // The sender lives as long as this client.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether the connection is over.
    pub(crate) fn is_closed(&self) -> bool {
        *self.shared.ended.borrow()
    }
}

/// A call in the table; it leaves when the caller does.
struct Registered<'a> {
    shared: &'a Shared,
    seq: Option<u64>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            self.shared.pending().calls.remove(&seq);
        }
    }
}

impl Shared {
    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection is over, if it is.
    fn ended_by(&self) -> Option<Cause> {
        self.pending().ended.clone()
    }

    /// A number for a call; after the end the call fails at once.
    fn register(&self, call: oneshot::Sender<Result<Encoded, Unanswered>>) -> u64 {
        let mut pending = self.pending();
        let seq = pending.next;
        pending.next += 1;
        match pending.ended.clone() {
            None => {
                pending.calls.insert(seq, call);
            }
            Some(cause) => {
                let _ = call.send(Err(Unanswered::Lost(cause)));
            }
        }
        seq
    }

    fn end(&self, cause: Cause) {
        let mut pending = self.pending();
        pending.ended = Some(cause.clone());
        let calls = std::mem::take(&mut pending.calls);
        drop(pending);
        for (_, call) in calls {
            let _ = call.send(Err(Unanswered::Lost(cause.clone())));
        }
        self.ended.send_replace(true);
    }
}

/// Hands each reply to its caller. Replies that nobody waits for are dropped.
async fn read(mut reader: ReadHalf<Stream>, shared: Arc<Shared>, max_value: usize) {
    let mut decoder = Decoder::new(Budget::new(max_value).limits());
    let mut bytes = BytesMut::with_capacity(READ);
    let mut header: Option<Response> = None;
    let cause = loop {
        let value = match decoder.next(&mut bytes) {
            Ok(Some(value)) => value,
            Ok(None) => {
                bytes.reserve(READ);
                match reader.read_buf(&mut bytes).await {
                    Ok(0) if bytes.is_empty() && header.is_none() => break Cause::Closed,
                    Ok(0) => break Cause::Truncated,
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        break Cause::Truncated;
                    }
                    Err(error) => break Cause::Io(Arc::new(error)),
                }
            }
            Err(error) if matches!(error.kind(), DecodeErrorKind::Limit { .. }) => {
                break Cause::Beyond(Arc::new(error));
            }
            Err(error) => break Cause::Malformed(Arc::new(error)),
        };
        if value.len() >= LARGE {
            tokio::task::yield_now().await;
        }
        match header.take() {
            None => match value.decode::<Response>() {
                Ok(response) => header = Some(response),
                Err(error) => break Cause::Malformed(Arc::new(error)),
            },
            Some(response) => {
                let Some(call) = shared.pending().calls.remove(&response.seq) else {
                    continue;
                };
                let reply = match response.error.as_bytes().is_empty() {
                    true => Ok(value),
                    false => {
                        let text = response.error.to_string_lossy().into_owned();
                        Err(Unanswered::Failed(text))
                    }
                };
                // The caller may have left.
                let _ = call.send(reply);
            }
        }
    };
    shared.end(cause);
}
