//! Datagrams, and what became of others, that wait for the plugin: so many bytes
//! of them, and what finds no room is dropped and counted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use outrigger_wire::proto::host::OpenUdpResponse;
use outrigger_wire::proto::host::open_udp_response::Part;
use prost::Message;
use tokio::sync::Notify;

use crate::fault::Fault;

/// What a message that waits takes beside its contents, in bytes.
const BESIDE: usize = 256;

/// Messages that wait for one taker.
pub(crate) struct Datagrams {
    state: Mutex<State>,
    changed: Notify,
    /// In bytes.
    room: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<OpenUdpResponse>,
    held: usize,
    /// Since the last message that was taken.
    dropped: u64,
    /// Nothing more is wanted, and why.
    over: Option<Result<(), Fault>>,
}

fn size(message: &OpenUdpResponse) -> usize {
    message.encoded_len() + BESIDE
}

impl Datagrams {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            room,
        }
    }

    /// Keeps a message for the plugin; whether there was room. There always is
    /// for one.
    pub(crate) fn push(&self, part: Part) -> bool {
        let message = OpenUdpResponse {
            dropped: 0,
            part: Some(part),
        };
        let size = size(&message);
        {
            let mut state = self.state();
            if !state.waiting.is_empty() && state.held.saturating_add(size) > self.room {
                state.dropped += 1;
                return false;
            }
            state.held += size;
            state.waiting.push_back(message);
        }
        self.changed.notify_one();
        true
    }

    /// Counts a message that was taken and could not be handed over.
    pub(crate) fn drop_one(&self) {
        self.state().dropped += 1;
    }

    /// Ends it: what waits is not wanted.
    pub(crate) fn end(&self, outcome: Result<(), Fault>) {
        self.state().over.get_or_insert(outcome);
        self.changed.notify_one();
    }

    /// The next message; nothing at the end.
    ///
    /// # Errors
    /// Why it ended, once.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&self) -> Result<Option<OpenUdpResponse>, Fault> {
        loop {
            {
                let mut state = self.state();
                if let Some(over) = &mut state.over {
                    return std::mem::replace(over, Ok(())).map(|()| None);
                }
                if let Some(mut message) = state.waiting.pop_front() {
                    state.held -= size(&message);
                    message.dropped = std::mem::take(&mut state.dropped);
                    return Ok(Some(message));
                }
            }
            self.changed.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use outrigger_wire::proto::host::Datagram;

    use super::*;

    fn datagram(length: usize) -> Part {
        Part::Datagram(Datagram {
            data: vec![7; length].into(),
            address: String::new(),
        })
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_in_the_next_message() {
        let waiting = Datagrams::new(4 * (BESIDE + 120));
        let kept = (0..100).filter(|_| waiting.push(datagram(100))).count();
        assert_eq!(kept, 4);
        waiting.drop_one();
        let mut told = Vec::new();
        for _ in 0..kept {
            told.push(waiting.next().await.expect("open").expect("one").dropped);
        }
        assert_eq!(told, [97, 0, 0, 0]);
        // Empty ones take room, too, and one has room however long it is.
        assert!((0..1000).filter(|_| waiting.push(datagram(0))).count() < 8);
        let small = Datagrams::new(0);
        assert!(small.push(datagram(65_507)) && !small.push(datagram(0)));
    }

    #[tokio::test]
    async fn the_end_comes_before_what_waits_and_says_why_once() {
        let waiting = Datagrams::new(10_000);
        waiting.push(datagram(1));
        waiting.end(Err(Fault::Deadline));
        waiting.end(Ok(()));
        assert!(matches!(waiting.next().await, Err(Fault::Deadline)));
        assert!(matches!(waiting.next().await, Ok(None)));
    }
}
