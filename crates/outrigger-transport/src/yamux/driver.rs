//! The task of a session: reads frames, writes what nobody else could write,
//! and keeps the time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::time::{Instant, Sleep, sleep_until};

use super::frame::{HEADER_LEN, Header, HeaderError};
use super::session::{CLOSE_LINGER, Shared};
use super::state::{KEEP_CHUNK, Next, Payload, State};
use super::wire::Wire;
use super::{CloseReason, Violation};

/// Bytes read ahead: many small frames in one read.
const READ_BUFFER: usize = 16 * 1024;

/// Largest buffer made for one payload at a time, in bytes.
const MAX_CHUNK: usize = 256 * 1024;

/// What to do after a step.
enum Step {
    Again,
    Wait,
}

/// Drives a session to its end.
pub(super) struct Driver {
    shared: Arc<Shared>,
    sleep: Pin<Box<Sleep>>,
    /// The sleep is set to the state's next deadline.
    armed: bool,
    reader: Reader,
    /// Set when the session has ended and its last frames are being written.
    closing: Option<Closing>,
}

struct Closing {
    written: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Driver {
        Driver {
            shared,
            sleep: Box::pin(sleep_until(Instant::now())),
            armed: false,
            reader: Reader::default(),
            closing: None,
        }
    }

    /// Writes, then reads once.
    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let Driver { shared, reader, .. } = self;
        let read = {
            let mut guard = shared.wire();
            let Some(wire) = guard.as_mut() else {
                return Step::Wait;
            };
            shared.drive(wire);
            let drained = wire.is_empty();
            match shared.with(|state| state.next_step(drained, Instant::now())) {
                Next::Close => return Step::Again,
                // The connection is full and holds a waker.
                Next::Write => Poll::Pending,
                Next::Read if std::mem::take(&mut reader.held) => Poll::Ready(Ok(None)),
                Next::Read => reader
                    .poll_read(wire, &mut Context::from_waker(&shared.io_waker))
                    .map_ok(Some),
            }
        };
        let reason = match read {
            Poll::Pending => return self.poll_time(cx),
            Poll::Ready(Ok(Some(0))) => Some(CloseReason::Peer),
            Poll::Ready(Ok(_)) => {
                let now = Instant::now();
                shared.with(|state| reader.parse(state, now)).err()
            }
            Poll::Ready(Err(error)) => Some(CloseReason::from_io(&error)),
        };
        if let Some(reason) = reason {
            tracing::debug!(%reason, "yamux session ends");
            shared.with(|state| state.end(reason));
        }
        Step::Again
    }

    /// Does what is due; otherwise sees to it that the task wakes when it is.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Step {
        let Some(deadline) = self.shared.with(State::arm) else {
            self.armed = false;
            return Step::Wait;
        };
        if !self.armed || self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
            self.armed = true;
        }
        let now = Instant::now();
        // A task that has used up its budget does not see a sleep end, and with
        // a busy peer it always has.
        if now < deadline && self.sleep.as_mut().poll(cx).is_pending() {
            return Step::Wait;
        }
        self.armed = false;
        self.shared.with(|state| state.expire(now.max(deadline)));
        Step::Again
    }

    /// Writes the last frames and closes the connection.
    fn poll_close(&mut self, cx: &mut Context<'_>, reason: &CloseReason) -> Poll<()> {
        match reason {
            CloseReason::Local | CloseReason::Violation(_) => {}
            CloseReason::Peer
            | CloseReason::GoAway(_)
            | CloseReason::KeepAliveTimeout(_)
            | CloseReason::OpenTimeout { .. }
            | CloseReason::WriteTimeout(_)
            | CloseReason::Io { .. }
            | CloseReason::RuntimeStopped => return Poll::Ready(()),
        }
        let closing = match &mut self.closing {
            Some(closing) => closing,
            none => {
                self.sleep.as_mut().reset(Instant::now() + CLOSE_LINGER);
                none.insert(Closing { written: false })
            }
        };
        let mut guard = self.shared.wire();
        let Some(wire) = guard.as_mut() else {
            return Poll::Ready(());
        };
        let mut io_cx = Context::from_waker(&self.shared.io_waker);
        if !closing.written {
            self.shared.drive(wire);
            closing.written = wire.is_empty();
        }
        if closing.written && wire.poll_shutdown(&mut io_cx).is_ready() {
            return Poll::Ready(());
        }
        drop(guard);
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(())
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.task.register(cx.waker());
        loop {
            if let Some(reason) = self.shared.with(|state| state.reason().cloned()) {
                ready!(self.poll_close(cx, &reason));
                self.shared.finish();
                return Poll::Ready(());
            }
            match self.step(cx) {
                Step::Again => {}
                Step::Wait => return Poll::Pending,
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared
            .with(|state| state.end(CloseReason::RuntimeStopped));
        self.shared.finish();
    }
}

/// Cuts what arrives into headers and payloads.
#[derive(Default)]
struct Reader {
    buffer: BytesMut,
    payload: Option<Payload>,
    /// Frames were left in the buffer because reading was paused.
    held: bool,
    /// Where a large payload is read to, without a detour.
    chunk: BytesMut,
}

impl Reader {
    fn poll_read(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.payload {
            Some(payload) if payload.rest >= KEEP_CHUNK => {
                if self.chunk.capacity() < payload.rest.min(MAX_CHUNK) {
                    self.chunk = BytesMut::with_capacity(payload.rest.min(MAX_CHUNK));
                }
                let mut limited = bytes::BufMut::limit(&mut self.chunk, payload.rest);
                wire.poll_read(cx, &mut limited)
            }
            _ => {
                self.buffer
                    .reserve(READ_BUFFER.saturating_sub(self.buffer.len()));
                wire.poll_read(cx, &mut self.buffer)
            }
        }
    }

    /// Gives the state everything that has arrived.
    fn parse(&mut self, state: &mut State, now: Instant) -> Result<(), CloseReason> {
        loop {
            if let Some(payload) = &mut self.payload {
                if self.chunk.is_empty() {
                    let length = payload.rest.min(self.buffer.len());
                    if length == 0 {
                        return Ok(());
                    }
                    state.on_bytes(payload, self.buffer.get(..length).unwrap_or_default());
                    self.buffer.advance(length);
                } else {
                    state.on_chunk(payload, &mut self.chunk);
                }
                if payload.rest > 0 {
                    return Ok(());
                }
                self.payload = None;
                // Another stream's data must not keep this buffer alive.
                self.chunk = BytesMut::new();
            }
            if state.is_reading_paused() {
                self.held = true;
                return Ok(());
            }
            let Some(bytes) = self.buffer.first_chunk::<HEADER_LEN>() else {
                return Ok(());
            };
            let header = Header::decode(*bytes).map_err(|error| match error {
                HeaderError::Version(version) => Violation::Version(version),
                HeaderError::Kind(kind) => Violation::FrameType(kind),
            })?;
            self.buffer.advance(HEADER_LEN);
            let payload = state.on_header(header, now)?;
            if payload.rest > 0 {
                self.payload = Some(payload);
            }
        }
    }
}
