//! What the values of a peer may take.

use std::sync::Arc;
use std::time::Duration;

use outrigger_gob::Limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_VALUE;

/// What a call takes at least, in bytes: its argument may keep a whole buffer.
const LEAST: usize = 16 << 10;
/// Arguments up to this many bytes never wait for larger ones.
const SMALL: usize = 64 << 10;
/// Bytes for small arguments.
const SMALL_ROOM: usize = 32 << 20;
/// How long a value that turns out larger than announced waits for room, for what
/// it has already may be what others wait for; and how long others wait before
/// the log says so.
const GROWTH: Duration = Duration::from_secs(10);
/// Bytes per permit.
const UNIT: usize = 1 << 10;

/// How large one value may be, and how much the arguments of all calls of a
/// session may take while they are received and answered. Clones share the latter.
///
/// # Examples
/// ```
/// use outrigger_transport::netrpc::Budget;
///
/// assert_eq!(Budget::new(1 << 20).max_value(), 1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    max_value: usize,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// All permits of `large`.
    most: u32,
}

impl Budget {
    /// Values of up to `max_value` bytes in either direction. The arguments of
    /// all calls may take twice that at a time, small ones 32 MiB more; callers
    /// that send more are not read meanwhile, which is logged after 10 s. So
    /// methods that wait for a large call of their own caller's need room for
    /// both: take a `max_value` that has it.
    pub fn new(max_value: usize) -> Self {
        let most = units(max_value.saturating_mul(2)).max(1);
        Self {
            max_value,
            small: Arc::new(Semaphore::new(SMALL_ROOM / UNIT)),
            large: Arc::new(Semaphore::new(most as usize)),
            most,
        }
    }

    /// The largest value that is sent or read, in bytes.
    pub fn max_value(&self) -> usize {
        self.max_value
    }

    /// What every reader of a peer's values allows.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            message: self.max_value,
            ..Limits::default()
        }
    }

    /// Waits until there is room for `bytes` in all, of which `held` has some.
    /// Returns whether there is.
    pub(super) async fn cover(&self, held: &mut Room, bytes: usize) -> bool {
        if bytes <= SMALL {
            if held.permit.is_none() {
                held.small = true;
                let units = units(bytes.max(LEAST));
                held.permit = self.small.clone().acquire_many_owned(units).await.ok();
            }
            return held.permit.is_some();
        }
        if held.small {
            *held = Room::default();
        }
        let wanted = units(bytes).min(self.most);
        match &mut held.permit {
            None => {
                let mut room = std::pin::pin!(self.large.clone().acquire_many_owned(wanted));
                let first = tokio::time::timeout(GROWTH, &mut room).await;
                held.permit = match first {
                    Ok(room) => room.ok(),
                    Err(_) => {
                        tracing::warn!(
                            bytes,
                            max_value = self.max_value,
                            "a call waits: unanswered calls of its session hold all the room \
                             for arguments"
                        );
                        room.await.ok()
                    }
                };
                held.permit.is_some()
            }
            Some(permit) => {
                let more = wanted.saturating_sub(units_of(permit));
                if more == 0 {
                    return true;
                }
                let more = self.large.clone().acquire_many_owned(more);
                match tokio::time::timeout(GROWTH, more).await {
                    Ok(Ok(more)) => {
                        permit.merge(more);
                        true
                    }
                    _ => false,
                }
            }
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_VALUE)
    }
}

/// Room that one argument has. It is given back when this is dropped.
#[derive(Default)]
pub(super) struct Room {
    permit: Option<OwnedSemaphorePermit>,
    small: bool,
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn units_of(permit: &OwnedSemaphorePermit) -> u32 {
    u32::try_from(permit.num_permits()).unwrap_or(u32::MAX)
}
