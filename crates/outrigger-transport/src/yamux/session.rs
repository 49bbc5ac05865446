//! The session's handle, and what handles, streams and the task share.

use std::io::IoSlice;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::driver::Driver;
use super::frame::Header;
use super::state::{Key, State};
use super::stream::Stream;
use super::wire::{MAX_BODY_SLICES, Wire};
use super::{CloseReason, Config, INITIAL_WINDOW, Role, YamuxError};

/// Longest frame written straight from an application's buffer, in bytes.
const MAX_DIRECT: usize = 128 * 1024;

/// Time a closed session has to write what was queued before.
pub(super) const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// Time to read what the peer wrote before it stopped reading.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Many streams over one connection.
///
/// Clones are handles of the same session. The session ends when [`close`] is
/// called, when the peer closes the connection, when the peer breaks the
/// protocol or stays silent, and when the last handle and the last stream have
/// been dropped (what was written before is still sent).
///
/// [`close`]: Session::close
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Starts a session on a connection, as a task of the current runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without timers.
    pub fn new<T>(io: T, role: Role, config: Config) -> Session
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let task = Arc::new(TaskWaker::default());
        let shared = Arc::new(Shared {
            opens: Semaphore::new(config.accept_backlog.clamp(1, Semaphore::MAX_PERMITS)),
            credit_step: config.window.max(INITIAL_WINDOW) / 2,
            state: Mutex::new(State::new(role, config, Instant::now())),
            wire: Mutex::new(Some(Wire::new(Box::new(io)))),
            io_waker: Waker::from(Arc::clone(&task)),
            task,
            accepts: Notify::new(),
            finished: Semaphore::new(0),
        });
        tokio::spawn(Driver::new(Arc::clone(&shared)));
        Session { shared }
    }

    /// Opens a stream. The peer is told at once; data can be written without
    /// waiting for the peer to accept. Waits only while
    /// [`accept_backlog`](Config::accept_backlog) streams opened before have not
    /// been accepted.
    ///
    /// # Errors
    ///
    /// When the session has ended, the peer takes no more streams, or the ids
    /// are used up.
    ///
    /// # Cancel safety
    ///
    /// Nothing is opened when the future is dropped.
    pub async fn open(&self) -> Result<Stream, YamuxError> {
        if let Some(error) = self.shared.with(|state| state.open_failure()) {
            return Err(error);
        }
        let Ok(permit) = self.shared.opens.acquire().await else {
            return Err(self.shared.closed_error());
        };
        let (key, id) = self.shared.with(|state| state.open(Instant::now()))?;
        // It comes back when the peer accepts the stream or the stream ends.
        permit.forget();
        self.shared.kick();
        Ok(Stream::new(Arc::clone(&self.shared), key, id))
    }

    /// Takes the next stream that the peer opened, in the order of their
    /// opening, and tells the peer at once. A stream the peer has reset
    /// meanwhile is returned as well.
    ///
    /// # Errors
    ///
    /// When the session has ended.
    ///
    /// # Cancel safety
    ///
    /// No stream is lost when the future is dropped.
    pub async fn accept(&self) -> Result<Stream, YamuxError> {
        loop {
            let mut notified = pin!(self.shared.accepts.notified());
            notified.as_mut().enable();
            let next = self.shared.with(|state| match state.reason() {
                Some(reason) => Err(YamuxError::SessionClosed(reason.clone())),
                None => Ok(state.accept()),
            })?;
            if let Some((key, id)) = next {
                self.shared.kick();
                return Ok(Stream::new(Arc::clone(&self.shared), key, id));
            }
            notified.await;
        }
    }

    /// Asks the peer for a sign of life and returns the time it took.
    ///
    /// # Errors
    ///
    /// When no answer comes within
    /// [`keep_alive_timeout`](Config::keep_alive_timeout), or the session has
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// The answer is ignored when the future is dropped.
    pub async fn ping(&self) -> Result<Duration, YamuxError> {
        let (answered, answer) = oneshot::channel();
        let sent = Instant::now();
        let (number, limit) = self.shared.with(|state| {
            state
                .ping(answered)
                .map(|n| (n, state.keep_alive_timeout()))
        })?;
        let _forget = ForgetPing {
            shared: &self.shared,
            number,
        };
        self.shared.kick();
        match timeout(limit, answer).await {
            Ok(Ok(())) => Ok(sent.elapsed()),
            Ok(Err(_)) => Err(self.shared.closed_error()),
            Err(_) => Err(YamuxError::PingTimeout(limit)),
        }
    }

    /// Ends the session and all its streams. What was written before is still
    /// sent if the peer reads it within a second; [`closed`](Session::closed)
    /// waits for that.
    pub fn close(&self) {
        self.shared.with(|state| state.end(CloseReason::Local));
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|state| state.reason().is_some())
    }

    /// Waits until the session has ended and its connection is closed, and
    /// returns why.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) -> CloseReason {
        // Never has a permit, is closed at the end.
        let _closed = self.shared.finished.acquire().await;
        self.shared.end_reason()
    }

    /// Tells whether the session has ended, without keeping it.
    #[cfg(feature = "netrpc")]
    pub(crate) fn watch(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.with(|state| state.reason().is_some())
    }

    /// Streams that are not closed in both directions, accepted or not.
    pub fn streams(&self) -> usize {
        self.shared.with(|state| state.streams())
    }
}

impl Clone for Session {
    fn clone(&self) -> Session {
        self.shared.with(|state| state.add_handle());
        Session {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_handle());
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (streams, reason) = self
            .shared
            .with(|state| (state.streams(), state.reason().cloned()));
        f.debug_struct("Session")
            .field("streams", &streams)
            .field("closed", &reason)
            .finish()
    }
}

struct ForgetPing<'a> {
    shared: &'a Shared,
    number: u32,
}

impl Drop for ForgetPing<'_> {
    fn drop(&mut self) {
        self.shared.with(|state| state.forget_ping(self.number));
    }
}

/// Wakes the session's task. The connection is only ever given this waker,
/// whoever writes to it.
#[derive(Default)]
pub(super) struct TaskWaker(AtomicWaker);

impl TaskWaker {
    pub(super) fn register(&self, waker: &Waker) {
        self.0.register(waker);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

/// What the handles, the streams and the task of a session have in common.
///
/// Whoever needs both locks takes `wire` first. No lock is held across an
/// await, nor while a task of the application is woken, except that `wire` may
/// be held while waking.
pub(super) struct Shared {
    state: Mutex<State>,
    /// `None` once the connection is closed.
    wire: Mutex<Option<Wire>>,
    pub(super) task: Arc<TaskWaker>,
    pub(super) io_waker: Waker,
    /// Bytes an application reads before the peer is given new credit.
    pub(super) credit_step: u32,
    opens: Semaphore,
    accepts: Notify,
    finished: Semaphore,
}

impl Shared {
    /// Changes the state, then does what follows from the change.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, effects) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut state);
            (result, state.take_effects())
        };
        if effects.permits > 0 {
            self.opens.add_permits(effects.permits);
        }
        for _ in 0..effects.accepts {
            self.accepts.notify_one();
        }
        if effects.ended {
            self.opens.close();
            self.accepts.notify_waiters();
        }
        if effects.wake_task {
            self.task.wake_by_ref();
        }
        effects.wake_all();
        result
    }

    pub(super) fn wire(&self) -> MutexGuard<'_, Option<Wire>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_wire(&self) -> Option<MutexGuard<'_, Option<Wire>>> {
        match self.wire.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn end_reason(&self) -> CloseReason {
        self.with(|state| state.reason().cloned())
            .unwrap_or(CloseReason::RuntimeStopped)
    }

    fn closed_error(&self) -> YamuxError {
        YamuxError::SessionClosed(self.end_reason())
    }

    /// The connection is closed.
    pub(super) fn finish(&self) {
        *self.wire() = None;
        self.with(State::finish);
        self.finished.close();
    }

    /// Gets queued frames written: here and now if the connection is free,
    /// otherwise by whoever has it.
    pub(super) fn kick(&self) {
        match self.try_wire() {
            Some(mut guard) => match guard.as_mut() {
                // The task is woken when the connection can take more.
                Some(wire) if wire.blocked => {}
                Some(wire) => self.drive(wire),
                None => {}
            },
            None => self.task.wake_by_ref(),
        }
    }

    /// Commits and writes frames until there are none or the connection is full.
    pub(super) fn drive(&self, wire: &mut Wire) {
        let mut cx = Context::from_waker(&self.io_waker);
        loop {
            self.with(|state| {
                state.on_written(wire.written());
                if wire.is_empty() {
                    state.commit(wire);
                }
            });
            if wire.is_empty() {
                if let Poll::Ready(Err(error)) = wire.poll_flush(&mut cx) {
                    self.on_write_error(wire, &error);
                }
                return;
            }
            match wire.poll_drain(&mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.on_write_error(wire, &error),
                Poll::Pending => return self.on_blocked(wire),
            }
        }
    }

    fn on_blocked(&self, wire: &Wire) {
        let now = Instant::now();
        self.with(|state| {
            state.on_written(wire.written());
            state.on_blocked(now);
        });
    }

    fn on_write_error(&self, wire: &mut Wire, error: &std::io::Error) {
        wire.discard();
        let reason = CloseReason::from_io(error);
        let now = Instant::now();
        self.with(|state| match reason {
            CloseReason::Peer => state.break_writes(now + LAST_WORDS),
            reason => state.end(reason),
        });
    }

    /// Writes on a stream: straight to the connection when nothing is before
    /// it, into the stream's queue otherwise.
    pub(super) fn poll_write(
        &self,
        key: Key,
        cx: &mut Context<'_>,
        body: &[IoSlice<'_>],
    ) -> Poll<Result<usize, YamuxError>> {
        let body = body.get(..MAX_BODY_SLICES).unwrap_or(body);
        let total: usize = body.iter().map(|piece| piece.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if let Some(mut guard) = self.try_wire()
            && let Some(wire) = guard.as_mut()
            && wire.is_empty()
            && !wire.blocked
            && let Some((id, length)) =
                self.with(|state| state.reserve(key, total.min(MAX_DIRECT)))?
        {
            self.write_frame(wire, key, Header::data(id, length), body);
            return Poll::Ready(Ok(length as usize));
        }
        let taken = self.with(|state| state.enqueue(key, body, cx.waker()));
        if taken.is_ready() {
            self.kick();
        }
        taken
    }

    fn write_frame(&self, wire: &mut Wire, key: Key, header: Header, body: &[IoSlice<'_>]) {
        let mut cx = Context::from_waker(&self.io_waker);
        match wire.poll_frame(&mut cx, header, body, header.length as usize) {
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(Err(error)) = wire.poll_flush(&mut cx) {
                    self.on_write_error(wire, &error);
                }
            }
            Poll::Ready(Err(error)) => self.on_write_error(wire, &error),
            Poll::Pending => {
                let committed = wire.committed();
                self.with(|state| state.set_committed(key, committed));
                self.on_blocked(wire);
            }
        }
    }

    /// Waits until what a stream has written has left.
    pub(super) fn poll_written(
        &self,
        key: Key,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), YamuxError>> {
        self.with(|state| state.poll_written(key, cx.waker()))
    }
}
