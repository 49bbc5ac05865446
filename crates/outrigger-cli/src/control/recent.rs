//! The last things that happened, for readers of the past and of what comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The most that one look takes.
const AT_ONCE: usize = 256;

/// The last `room` things, each with a number. Readers share it: one that is slow
/// holds up nobody, and learns how many it missed. Clones share it too.
#[derive(Debug)]
pub(crate) struct Recent<T>(Arc<Shared<T>>);

impl<T> Clone for Recent<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<T> {
    kept: Mutex<Kept<T>>,
    /// How many there were.
    count: watch::Sender<u64>,
    room: usize,
}

#[derive(Debug)]
struct Kept<T> {
    last: VecDeque<Arc<T>>,
    /// The number of the first one that is kept.
    first: u64,
}

/// What one look found.
struct Look<T> {
    missed: u64,
    found: VecDeque<Arc<T>>,
    next: u64,
}

impl<T: Send + Sync + 'static> Recent<T> {
    pub(crate) fn new(room: usize) -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::new(Kept {
                last: VecDeque::new(),
                first: 0,
            }),
            count: watch::Sender::new(0),
            room,
        }))
    }

    pub(crate) fn push(&self, item: T) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last.len() == self.0.room {
            kept.last.pop_front();
            kept.first += 1;
        }
        kept.last.push_back(Arc::new(item));
        let count = kept.first + kept.last.len() as u64;
        // Under the lock, so that numbers only grow.
        self.0.count.send_replace(count);
    }

    fn look(&self, from: u64) -> Look<T> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let start = from.max(kept.first);
        let passed = (start - kept.first) as usize;
        let found: VecDeque<_> = (kept.last.iter().skip(passed).take(AT_ONCE))
            .cloned()
            .collect();
        Look {
            missed: start - from,
            next: start + found.len() as u64,
            found,
        }
    }

    /// What is kept, and with `follow` what comes until `stop` fires, each with
    /// how many were forgotten in front of it.
    pub(crate) fn read(
        &self,
        follow: bool,
        stop: CancellationToken,
    ) -> impl Stream<Item = (u64, Arc<T>)> + Send + 'static {
        struct Reader<T> {
            recent: Recent<T>,
            count: watch::Receiver<u64>,
            look: Look<T>,
        }
        let mut reader = Reader {
            recent: self.clone(),
            count: self.0.count.subscribe(),
            look: self.look(0),
        };
        // What was forgotten before anybody asked is not missed.
        reader.look.missed = 0;
        unfold(Some(reader), move |reader| {
            let stop = stop.clone();
            async move {
                let mut reader = reader?;
                loop {
                    let missed = std::mem::take(&mut reader.look.missed);
                    if let Some(item) = reader.look.found.pop_front() {
                        return Some(((missed, item), Some(reader)));
                    }
                    let next = reader.look.next;
                    let is_over = *reader.count.borrow_and_update() <= next;
                    if is_over && !follow {
                        return None;
                    }
                    if is_over {
                        tokio::select! {
                            changed = reader.count.changed() => changed.ok()?,
                            () = stop.cancelled() => return None,
                        }
                    }
                    let look = reader.recent.look(next);
                    reader.look = Look {
                        missed: missed + look.missed,
                        ..look
                    };
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn the_past_is_told_then_what_comes_and_what_was_missed_is_counted() {
        let recent = Recent::new(3);
        (0..5).for_each(|n| recent.push(n));
        let stop = CancellationToken::new();
        let past: Vec<_> = recent.read(false, stop.clone()).collect().await;
        let past: Vec<_> = past.iter().map(|(missed, n)| (*missed, **n)).collect();
        assert_eq!(past, [(0, 2), (0, 3), (0, 4)]);

        let mut reader = Box::pin(recent.read(true, stop.clone()));
        for n in 2..5 {
            assert_eq!(*reader.next().await.expect("kept").1, n);
        }
        (5..10).for_each(|n| recent.push(n));
        let (missed, n) = reader.next().await.expect("comes");
        assert_eq!(
            (missed, *n),
            (2, 7),
            "a slow reader learns how many it missed"
        );
        assert_eq!(*reader.next().await.expect("comes").1, 8);
        assert_eq!(*reader.next().await.expect("comes").1, 9);
        let waiting = tokio::spawn(async move { reader.next().await.map(|(_, n)| *n) });
        tokio::task::yield_now().await;
        recent.push(10);
        assert_eq!(waiting.await.expect("no panic"), Some(10));

        let mut reader = Box::pin(recent.read(true, stop.clone()));
        for _ in 8..11 {
            reader.next().await.expect("kept");
        }
        stop.cancel();
        assert!(reader.next().await.is_none(), "the host ends");
    }
}
