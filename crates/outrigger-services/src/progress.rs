//! What is found out about an operation while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fault::Fault;

/// What stands in a record in place of the rules that it has no room for.
const MORE: &str = "; and more";

/// What is found out about an operation while it runs. Work on a thread that
/// outlives the call still has it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    rule: Mutex<String>,
    bytes: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    fn rule(&self) -> MutexGuard<'_, String> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a rule allowed the operation.
    pub(crate) fn is_allowed(&self) -> bool {
        !self.rule().is_empty()
    }

    /// Notes which rule allowed the operation; several rules are joined.
    pub(crate) fn allowed_by(&self, rule: &str) {
        let mut known = self.rule();
        if known.is_empty() {
            known.push_str(rule);
        } else if *known != rule && known.len() < 500 {
            known.push_str("; ");
            known.push_str(rule);
        } else if *known != rule && !known.ends_with(MORE) {
            known.push_str(MORE);
        }
    }

    /// Fails once nobody waits for the operation any more: long work asks now
    /// and then.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self.over.load(Ordering::Relaxed) {
            true => Err(Fault::Cancelled),
            false => Ok(()),
        }
    }

    /// Counts contents that were moved.
    pub(crate) fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the operation, and says how many bytes it moved.
    pub(crate) fn end(&self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes the rules that allowed the operation; empty when none did.
    pub(crate) fn take_rule(&self) -> String {
        std::mem::take(&mut self.rule())
    }
}
