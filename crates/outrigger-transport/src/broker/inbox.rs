//! What a dialler waits for: announcements and acknowledgements, by id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_wire::{Address, AddressError, BrokerId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::BrokerErrorKind;

/// How long an announcement is kept for its dialler.
pub(super) const KEEP: Duration = Duration::from_secs(5);
/// Ids that a peer may announce without anyone dialling them.
pub(super) const MAX_PENDING: usize = 1024;
/// How often a full inbox is looked through at most.
const SWEEP: Duration = Duration::from_millis(100);
/// Ids whose end is remembered, to explain a late dial.
const MAX_REMEMBERED: usize = 256;

/// What arrived for an id.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The accepting side listens here.
    Address(Result<Address, AddressError>),
    /// The accepting side is ready for a stream, or says why not.
    Ack(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Taken,
    Expired,
}

#[derive(Default, Debug)]
struct Slot {
    arrival: Option<(Arrival, Instant)>,
    waiting: usize,
    wake: Arc<Notify>,
}

#[derive(Default, Debug)]
struct State {
    slots: HashMap<BrokerId, Slot>,
    ended: VecDeque<(BrokerId, End)>,
    /// When a full inbox was last looked through, which is not free.
    swept: Option<Instant>,
}

#[derive(Default, Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
}

impl State {
    fn remember(&mut self, id: BrokerId, end: End) {
        if self.ended.len() == MAX_REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, end));
    }

    fn sweep(&mut self, now: Instant) {
        let mut expired = Vec::new();
        for (id, slot) in &mut self.slots {
            if slot
                .arrival
                .as_ref()
                .is_some_and(|(_, at)| now - *at > KEEP)
            {
                slot.arrival = None;
                expired.push(*id);
            }
        }
        self.slots
            .retain(|_, slot| slot.arrival.is_some() || slot.waiting > 0);
        for id in expired {
            self.remember(id, End::Expired);
        }
    }
}

impl Inbox {
    /// Stores what arrived for `id`. A second arrival while the first waits is
    /// dropped, as go-plugin does.
    pub(super) fn put(&self, id: BrokerId, arrival: Arrival) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.swept.is_none_or(|at| now - at > SWEEP);
        if state.slots.len() >= MAX_PENDING && due {
            state.swept = Some(now);
            state.sweep(now);
        }
        if state.slots.len() >= MAX_PENDING && !state.slots.contains_key(&id) {
            tracing::warn!(
                id = id.0,
                limit = MAX_PENDING,
                "too many broker ids announced; dropped"
            );
            return;
        }
        let slot = state.slots.entry(id).or_default();
        if slot.arrival.as_ref().is_none_or(|(_, at)| now - *at > KEEP) {
            slot.arrival = Some((arrival, now));
            slot.wake.notify_one();
        }
    }

    /// Hands an answer to whoever waits for it; says whether somebody does.
    pub(super) fn answer(&self, id: BrokerId, arrival: Arrival) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = state.slots.get_mut(&id).filter(|slot| slot.waiting > 0) else {
            return false;
        };
        slot.arrival = Some((arrival, Instant::now()));
        slot.wake.notify_one();
        true
    }

    /// Forgets what arrived for `id` so far.
    pub(super) fn clear(&self, id: BrokerId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.arrival = None;
        }
        state.sweep(Instant::now());
    }

    /// Waits up to `within` for what arrives for `id`.
    pub(super) async fn take(
        &self,
        id: BrokerId,
        within: Duration,
    ) -> Result<Arrival, BrokerErrorKind> {
        let deadline = Instant::now() + within;
        let waiter = Waiter::new(self, id);
        loop {
            let woken = waiter.wake.notified();
            if let Some(arrival) = waiter.take() {
                return Ok(arrival);
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Err(self.explain(id, within));
            }
        }
    }

    fn explain(&self, id: BrokerId, waited: Duration) -> BrokerErrorKind {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.ended.iter().rev().find(|(ended, _)| *ended == id) {
            Some((_, End::Taken)) => BrokerErrorKind::AlreadyDialled,
            Some((_, End::Expired)) => BrokerErrorKind::Expired { kept: KEEP },
            None => BrokerErrorKind::NeverAccepted(waited),
        }
    }
}

/// A dialler's claim on a slot; the slot goes when nobody waits and nothing is in it.
struct Waiter<'a> {
    inbox: &'a Inbox,
    id: BrokerId,
    wake: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    fn new(inbox: &'a Inbox, id: BrokerId) -> Self {
        let mut state = inbox.state.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = state.slots.entry(id).or_default();
        slot.waiting += 1;
        let wake = slot.wake.clone();
        Self { inbox, id, wake }
    }

    fn take(&self) -> Option<Arrival> {
        let mut state = self
            .inbox
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = state.slots.get_mut(&self.id)?;
        let (arrival, at) = slot.arrival.take()?;
        let fresh = at.elapsed() <= KEEP;
        state.remember(self.id, if fresh { End::Taken } else { End::Expired });
        fresh.then_some(arrival)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self
            .inbox
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = state.slots.get_mut(&self.id) {
            slot.waiting -= 1;
            if slot.waiting == 0 && slot.arrival.is_none() {
                state.slots.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack() -> Arrival {
        Arrival::Ack(None)
    }

    #[tokio::test(start_paused = true)]
    async fn an_arrival_waits_for_its_dialler_and_serves_one() {
        let inbox = Inbox::default();
        inbox.put(BrokerId(7), ack());
        assert!(inbox.take(BrokerId(7), KEEP).await.is_ok());
        let again = inbox.take(BrokerId(7), KEEP).await;
        assert!(
            matches!(again, Err(BrokerErrorKind::AlreadyDialled)),
            "{again:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_dialler_waits_for_an_arrival() {
        let inbox = Arc::new(Inbox::default());
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.take(BrokerId(1), KEEP).await }
        });
        tokio::time::advance(Duration::from_secs(4)).await;
        inbox.put(BrokerId(1), ack());
        assert!(waiting.await.expect("no panic").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_arrival_and_a_missing_one_are_told_apart() {
        let inbox = Inbox::default();
        inbox.put(BrokerId(1), ack());
        tokio::time::advance(KEEP + Duration::from_millis(1)).await;
        let late = inbox.take(BrokerId(1), KEEP).await;
        assert!(
            matches!(late, Err(BrokerErrorKind::Expired { .. })),
            "{late:?}"
        );
        let never = inbox.take(BrokerId(2), KEEP).await;
        assert!(
            matches!(never, Err(BrokerErrorKind::NeverAccepted(_))),
            "{never:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_ids_stays_bounded_and_later_ids_still_work() {
        let inbox = Inbox::default();
        for id in 0..100_000 {
            inbox.put(BrokerId(id), ack());
        }
        assert_eq!(inbox.state.lock().expect("lock").slots.len(), MAX_PENDING);
        tokio::time::advance(KEEP + Duration::from_millis(1)).await;
        inbox.put(BrokerId(200_000), ack());
        assert!(inbox.take(BrokerId(200_000), KEEP).await.is_ok());
        let state = inbox.state.lock().expect("lock");
        assert!(state.slots.is_empty() && state.ended.len() <= MAX_REMEMBERED);
    }
}
