//! The sending half of a connection: values leave whole and in order, and a
//! value that cannot be encoded leaves nothing behind.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use outrigger_gob::{EncodeError, Encoder};
use tokio::io::{AsyncWrite, WriteHalf};
use tokio::sync::Notify;

use crate::stream::Stream;
use crate::task::OwnedTask;

/// Bytes that wait to be written before senders wait.
const HIGH_WATER: usize = 1 << 20;

pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    /// There is something to write.
    work: Notify,
    /// Less is waiting than before, or nothing ever will be written again.
    moved: Notify,
}

struct Queue {
    encoder: Encoder,
    bytes: BytesMut,
    writer: WriteHalf<Stream>,
    /// The writing task has the rest.
    busy: bool,
    failed: Option<Arc<io::Error>>,
}

/// A value could not be queued.
pub(super) enum SendError {
    Encode(EncodeError),
    Io(Arc<io::Error>),
}

impl Outgoing {
    /// The sending half over `writer`, and the task that writes what cannot be
    /// written at once.
    ///
    /// Values of more than `max_value` bytes are refused.
    pub(super) fn start(writer: WriteHalf<Stream>, max_value: usize) -> (Arc<Self>, OwnedTask) {
        let outgoing = Arc::new(Self {
            queue: Mutex::new(Queue {
                encoder: Encoder::new().limited(max_value),
                bytes: BytesMut::new(),
                writer,
                busy: false,
                failed: None,
            }),
            work: Notify::new(),
            moved: Notify::new(),
        });
        let task = OwnedTask::spawn(outgoing.clone().write_on());
        (outgoing, task)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room, then queues what `encode` adds. It is written
    /// at once if the connection takes it.
    ///
    /// # Cancel safety
    /// Either everything is sent or nothing.
    pub(super) async fn send(
        &self,
        encode: impl FnOnce(&mut Encoder, &mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), SendError> {
        loop {
            let moved = self.moved.notified();
            {
                let mut queue = self.queue();
                if let Some(error) = &queue.failed {
                    return Err(SendError::Io(error.clone()));
                }
                if queue.bytes.len() < HIGH_WATER {
                    return self.push(&mut queue, encode);
                }
            }
            moved.await;
        }
    }

    fn push(
        &self,
        queue: &mut Queue,
        encode: impl FnOnce(&mut Encoder, &mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), SendError> {
        encode(&mut queue.encoder, &mut queue.bytes).map_err(SendError::Encode)?;
        if queue.busy {
            return Ok(());
        }
        // Most values fit into the connection's window: no other task need run.
        let mut context = Context::from_waker(Waker::noop());
        match queue.poll_write(&mut context) {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => {
                let error = Arc::new(error);
                queue.failed = Some(error.clone());
                Err(SendError::Io(error))
            }
            Poll::Pending => {
                queue.busy = true;
                self.work.notify_one();
                Ok(())
            }
        }
    }

    /// Waits until everything that was queued has been written.
    pub(super) async fn written(&self) {
        loop {
            let moved = self.moved.notified();
            {
                let queue = self.queue();
                if queue.failed.is_some() || (!queue.busy && queue.bytes.is_empty()) {
                    return;
                }
            }
            moved.await;
        }
    }

    /// Says goodbye: no value follows.
    pub(super) async fn finish(&self) {
        self.written().await;
        let shutdown = std::future::poll_fn(|context| {
            let mut queue = self.queue();
            Pin::new(&mut queue.writer).poll_shutdown(context)
        });
        // The peer may be gone already, which is what was wanted.
        let _ = shutdown.await;
    }

    async fn write_on(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            std::future::poll_fn(|context| {
                let mut queue = self.queue();
                let before = queue.bytes.len();
                let polled = queue.poll_write(context);
                if polled.is_ready() || queue.bytes.len() != before {
                    self.moved.notify_waiters();
                }
                // Decided under the lock under which nothing was left: what is
                // queued a moment later is for whoever queues it.
                polled.map(|written| {
                    queue.busy = false;
                    queue.failed = written.err().map(Arc::new);
                })
            })
            .await;
        }
    }
}

impl Queue {
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            match Pin::new(&mut self.writer).poll_write(context, &self.bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.bytes.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::io::ReadBuf;

    /// Takes nothing at first, then everything, and says when it does.
    struct Reluctant {
        refused: bool,
        taken: Arc<Mutex<Vec<u8>>>,
        taking: mpsc::Sender<()>,
    }

    impl tokio::io::AsyncRead for Reluctant {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Reluctant {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if !self.refused {
                self.refused = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.taken.lock().expect("taken").extend_from_slice(bytes);
            let _ = self.taking.send(());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A value that is queued in the very moment in which the writing task has
    /// nothing left must not wait for a further one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_value_queued_as_the_writer_ends_is_written() {
        for _ in 0..2000 {
            let (taking, taken_some) = mpsc::channel();
            let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
            let stream: Stream = Box::new(Reluctant {
                refused: false,
                taken: taken.clone(),
                taking,
            });
            let (_reader, writer) = tokio::io::split(stream);
            let (outgoing, _task) = Outgoing::start(writer, 1 << 20);
            let put = |text: &'static [u8]| {
                move |_: &mut Encoder, bytes: &mut BytesMut| {
                    bytes.extend_from_slice(text);
                    Ok(())
                }
            };
            let second = outgoing.clone();
            let sending = std::thread::spawn(move || {
                taken_some.recv().expect("the first value");
                let sent = second.send(put(b"second"));
                let sent = std::pin::pin!(sent).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(sent, Poll::Ready(Ok(()))));
            });
            assert!(outgoing.send(put(b"first")).await.is_ok());
            tokio::task::spawn_blocking(|| sending.join())
                .await
                .expect("a thread")
                .expect("sent");
            outgoing.written().await;
            assert_eq!(*taken.lock().expect("taken"), b"firstsecond");
        }
    }
}
