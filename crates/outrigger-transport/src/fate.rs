//! Why a connection's other end is gone.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The reason as a shared error, ready to become the source of a status.
type Reason = Arc<dyn Error + Send + Sync>;

/// A slot that learns why the process behind a connection ended.
///
/// A connection breaks before anyone knows why: the socket closes first, the
/// exit status follows. Callers with a broken connection ask here, wait a short
/// bounded time, and fail with the real reason instead of "broken pipe".
#[derive(Clone)]
pub struct Fate {
    slot: Arc<watch::Sender<Option<Reason>>>,
    /// Whether a reason may still come; it always may without this.
    expected: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fate").field(&self.get()).finish()
    }
}

impl Fate {
    /// How long a failed call waits for the exit status behind the failure.
    pub const PATIENCE: Duration = Duration::from_millis(250);

    /// A slot without a reason yet.
    pub fn new() -> Self {
        Self {
            slot: Arc::new(watch::Sender::new(None)),
            expected: None,
        }
    }

    /// The same slot, whose reason is waited for only when `expected` says so.
    #[cfg(feature = "netrpc")]
    pub(crate) fn expected_if(self, expected: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            expected: Some(Arc::new(expected)),
            ..self
        }
    }

    /// Stores the reason; the first one stays.
    pub fn set(&self, reason: Arc<dyn Error + Send + Sync>) {
        self.slot.send_if_modified(|slot| {
            let empty = slot.is_none();
            if empty {
                *slot = Some(reason);
            }
            empty
        });
    }

    /// The reason, if it is known.
    pub fn get(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        self.slot.borrow().clone()
    }

    /// Waits up to `within` for the reason, where one is to be expected.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn known(&self, within: Duration) -> Option<Arc<dyn Error + Send + Sync>> {
        if self.expected.as_ref().is_some_and(|expected| !expected()) {
            return self.get();
        }
        let mut slot = self.slot.subscribe();
        let reason = tokio::time::timeout(within, slot.wait_for(Option::is_some)).await;
        reason.ok()?.ok()?.clone()
    }
}

impl Default for Fate {
    fn default() -> Self {
        Self::new()
    }
}
