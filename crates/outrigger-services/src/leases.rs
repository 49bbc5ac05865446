//! What a plugin holds by name: open files, directories, connections,
//! processes, listeners. The names are random and mean nothing on any other
//! connection.

use std::any::Any;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use crate::fault::Fault;

/// A place for one more lease.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// A value that a plugin can hold by name.
pub(crate) trait Lease: Any + Send + Sync {
    /// How far something is that has an end of its own; nothing for what lasts
    /// until it is given back.
    fn life(&self) -> Option<Life> {
        None
    }
}

/// A value that is lent. It counts until its last holder lets go of it, which may
/// be a stream that outlives the name.
#[derive(Debug)]
pub(crate) struct Leased<T> {
    value: T,
    used: Used,
    _slot: Slot,
}

impl<T> Leased<T> {
    /// Puts off the moment at which it counts as unused.
    pub(crate) fn touch(&self) {
        self.used.now();
    }
}

impl<T> Deref for Leased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// When something was last used, in milliseconds after `since`.
#[derive(Debug)]
struct Used {
    since: Instant,
    at: AtomicU64,
}

impl Used {
    fn now(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(at, Ordering::Relaxed);
    }

    fn idle(&self, now: Instant) -> Duration {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        now.saturating_duration_since(self.since).saturating_sub(at)
    }
}

/// How far something is that has an end of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Runs,
    Ended {
        /// Whether the plugin knows how.
        told: bool,
        at: Instant,
    },
}

/// A leased value of any kind, as the table keeps it.
trait Entry: Send + Sync {
    fn idle(&self, now: Instant) -> Duration;
    fn life(&self) -> Option<Life>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Lease> Entry for Leased<T> {
    fn idle(&self, now: Instant) -> Duration {
        self.used.idle(now)
    }

    fn life(&self) -> Option<Life> {
        self.value.life()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// The leases of one connection.
pub(crate) struct Leases {
    table: Mutex<HashMap<u128, Arc<dyn Entry>>>,
    slots: Arc<Semaphore>,
    most: usize,
    since: Instant,
}

impl Leases {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            table: Mutex::default(),
            slots: Arc::new(Semaphore::new(most)),
            most,
            since: Instant::now(),
        }
    }

    /// Room for one more, if need be that of a process that has ended.
    pub(crate) fn slot(&self) -> Result<Slot, Fault> {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return Ok(Slot { _permit: permit });
            }
            if !self.forget_ended() {
                return Err(Fault::exhausted(
                    "too-many-leases",
                    format!("{} leases are held already (`leases`)", self.most),
                ));
            }
        }
    }

    /// Takes out a process that has ended and that no call has in hand: rather
    /// one whose end the plugin was told, then the one that ended first. Whether
    /// there was one.
    pub(crate) fn forget_ended(&self) -> bool {
        let forgotten = {
            let mut table = self.table();
            let ended = table.iter().filter_map(|(id, held)| match held.life()? {
                // The table's own is the only one, and no one else can get at it now.
                Life::Ended { told, at } if Arc::strong_count(held) == 1 => Some((!told, at, *id)),
                Life::Ended { .. } | Life::Runs => None,
            });
            let first = ended.min();
            first.and_then(|(.., id)| table.remove(&id))
        };
        // Dropped without the lock.
        forgotten.is_some()
    }

    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.most - self.slots.available_permits()
    }

    /// Keeps `value` and names it.
    pub(crate) fn lend<T: Lease>(&self, slot: Slot, value: T) -> (String, Arc<Leased<T>>) {
        // The fixed bits of the one are covered by random bits of the other.
        let id = Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64);
        let used = Used {
            since: self.since,
            at: AtomicU64::new(0),
        };
        used.now();
        let held = Arc::new(Leased {
            value,
            used,
            _slot: slot,
        });
        self.table().insert(id, held.clone());
        (format!("{id:032x}"), held)
    }

    /// What `lease` names here, if it is of that kind.
    pub(crate) fn get<T: Lease>(&self, lease: &str) -> Result<Arc<Leased<T>>, Fault> {
        let id = parse(lease)?;
        let found = self.table().get(&id).cloned();
        let held = downcast::<T>(found.ok_or(Fault::UnknownLease)?)?;
        held.touch();
        Ok(held)
    }

    /// Takes back what `lease` names here, if it is of that kind.
    pub(crate) fn take<T: Lease>(&self, lease: &str) -> Result<Arc<Leased<T>>, Fault> {
        let id = parse(lease)?;
        let mut table = self.table();
        let held = downcast::<T>(table.get(&id).cloned().ok_or(Fault::UnknownLease)?)?;
        table.remove(&id);
        Ok(held)
    }

    /// All of one kind, with their names.
    pub(crate) fn all<T: Lease>(&self) -> Vec<(String, Arc<Leased<T>>)> {
        let all: Vec<_> = self
            .table()
            .iter()
            .map(|(id, held)| (*id, held.clone()))
            .collect();
        all.into_iter()
            .filter_map(|(id, held)| Some((format!("{id:032x}"), downcast(held).ok()?)))
            .collect()
    }

    /// Takes out what nobody has used for `idle` and nobody is using, and says
    /// when to look again; nothing when there are no leases. A process that runs
    /// is in use: its pipes may be somewhere else. The caller drops what comes
    /// back where dropping may wait.
    pub(crate) fn expire(&self, idle: Duration) -> (Option<Duration>, Vec<Box<dyn Any + Send>>) {
        let now = Instant::now();
        let mut table = self.table();
        let mut next = None;
        let mut expired: Vec<Box<dyn Any + Send>> = Vec::new();
        table.retain(|_, held| {
            let unused = match held.life() {
                None => held.idle(now),
                Some(Life::Runs) => Duration::ZERO,
                Some(Life::Ended { at, .. }) => {
                    held.idle(now).min(now.saturating_duration_since(at))
                }
            };
            // The table's own is the only one, and no one else can get at it now.
            if unused >= idle && Arc::strong_count(held) == 1 {
                expired.push(Box::new(held.clone()));
                return false;
            }
            let left = idle.saturating_sub(unused).max(Duration::from_millis(10));
            next = Some(next.map_or(left, |next: Duration| next.min(left)));
            true
        });
        (next, expired)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u128, Arc<dyn Entry>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn downcast<T: Lease>(held: Arc<dyn Entry>) -> Result<Arc<Leased<T>>, Fault> {
    held.into_any().downcast().map_err(|_| Fault::UnknownLease)
}

fn parse(lease: &str) -> Result<u128, Fault> {
    if lease.len() != 32 || !lease.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::UnknownLease);
    }
    u128::from_str_radix(lease, 16).map_err(|_| Fault::UnknownLease)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Lease for u8 {}
    impl Lease for u32 {}
    impl Lease for u64 {}
    impl Lease for () {}

    #[test]
    fn a_lease_is_of_one_kind_and_counts_until_its_last_holder_is_gone() {
        let leases = Leases::new(1);
        let (id, held) = leases.lend(leases.slot().expect("room"), 7_u32);
        assert!(matches!(leases.get::<u64>(&id), Err(Fault::UnknownLease)));
        assert_eq!(**leases.get::<u32>(&id).expect("there"), 7);
        assert!(leases.slot().is_err());
        assert!(leases.take::<u64>(&id).is_err());
        drop(leases.take::<u32>(&id).expect("there"));
        assert!(leases.slot().is_err(), "someone still uses it");
        assert!(leases.get::<u32>(&id).is_err());
        drop(held);
        assert!(leases.slot().is_ok());
        assert_eq!(leases.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_expires_and_what_is_in_use_does_not() {
        let leases = Leases::new(8);
        let idle = Duration::from_secs(10);
        let (used, _) = leases.lend(leases.slot().expect("room"), 1_u8);
        let (unused, _) = leases.lend(leases.slot().expect("room"), 2_u8);
        let (_, held) = leases.lend(leases.slot().expect("room"), 3_u8);
        tokio::time::advance(Duration::from_secs(9)).await;
        leases.get::<u8>(&used).expect("there");
        assert!(leases.expire(idle).1.is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        let (next, expired) = leases.expire(idle);
        assert_eq!((expired.len(), next), (1, Some(Duration::from_millis(10))));
        drop(expired);
        assert!(leases.get::<u8>(&unused).is_err());
        drop(held);
        assert_eq!(leases.expire(idle).1.len(), 1);
        tokio::time::advance(idle).await;
        assert_eq!(leases.expire(idle).1.len(), 1);
        assert_eq!(leases.expire(idle).0, None);
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn names_that_are_none_name_nothing() {
        let leases = Leases::new(1);
        let (id, _) = leases.lend(leases.slot().expect("room"), ());
        for name in ["", "1", &format!("+{}", &id[1..]), &format!("{id}0"), "é"] {
            assert!(matches!(leases.get::<()>(name), Err(Fault::UnknownLease)));
        }
    }
}
