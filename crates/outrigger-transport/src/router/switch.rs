//! The part of a router that several threads use at once: which generation is the
//! current one, who is in it, and that nobody enters one that is left.
//!
//! `tests/model.rs` runs this file under loom, with loom's own locks as `sync`.

use super::sync::{Arc, AtomicUsize, Ordering, PoisonError, RwLock};

/// Counts who is inside, until it is shut; then nobody enters any more.
///
/// Whether it is shut stands in the same word as the count: who enters is counted
/// only if it is open at that very moment.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) word: AtomicUsize,
}

/// The gate is shut.
pub(super) const SHUT: usize = 1;
/// One caller.
pub(super) const ONE: usize = 2;

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
        }
    }

    /// Counts a caller in, unless the gate is shut.
    pub(super) fn enter(&self) -> bool {
        let counted = |word: usize| (word & SHUT == 0).then_some(word + ONE);
        let entered = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, counted);
        entered.is_ok()
    }

    /// Counts a caller out, and says whether the gate is shut and this was the last.
    pub(super) fn leave(&self) -> bool {
        self.word.fetch_sub(ONE, Ordering::AcqRel) == SHUT + ONE
    }

    pub(super) fn shut(&self) {
        self.word.fetch_or(SHUT, Ordering::AcqRel);
    }

    /// How many are inside.
    pub(super) fn inside(&self) -> usize {
        self.word.load(Ordering::Acquire) / ONE
    }

    /// Whether nobody is inside, and nobody will be.
    pub(super) fn is_left(&self) -> bool {
        self.word.load(Ordering::Acquire) == SHUT
    }
}

/// One target for calls, from when it became the current one.
#[derive(Debug)]
pub(super) struct Generation<T> {
    pub(super) gate: Gate,
    pub(super) target: T,
}

/// Where calls go: to `T`, or nowhere because of `R`.
#[derive(Debug)]
pub(super) enum Point<T, R> {
    /// Calls wait.
    Nowhere,
    /// Calls fail.
    Refused(Arc<R>),
    To(Arc<Generation<T>>),
}

impl<T, R> Clone for Point<T, R> {
    fn clone(&self) -> Self {
        match self {
            Self::Nowhere => Self::Nowhere,
            Self::Refused(why) => Self::Refused(why.clone()),
            Self::To(generation) => Self::To(generation.clone()),
        }
    }
}

impl<T, R> Point<T, R> {
    pub(super) fn to(target: T) -> Self {
        let gate = Gate::new();
        Self::To(Arc::new(Generation { gate, target }))
    }
}

/// Points where calls go.
#[derive(Debug)]
pub(super) struct Switch<T, R> {
    now: RwLock<Point<T, R>>,
}

impl<T, R> Switch<T, R> {
    /// Points nowhere.
    pub(super) fn new() -> Self {
        Self {
            now: RwLock::new(Point::Nowhere),
        }
    }

    pub(super) fn now(&self) -> Point<T, R> {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where a call goes; it is counted into that generation, which it has to leave.
    pub(super) fn enter(&self) -> Point<T, R> {
        loop {
            match self.now() {
                // It was replaced in between: its successor stands there already.
                Point::To(generation) if !generation.gate.enter() => {}
                now => return now,
            }
        }
    }

    /// Points elsewhere, then shuts the generation that was left, so that whoever
    /// finds it shut finds its successor.
    pub(super) fn turn(&self, to: Point<T, R>) -> Option<Arc<Generation<T>>> {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, to);
        drop(now);
        match before {
            Point::To(generation) => {
                generation.gate.shut();
                Some(generation)
            }
            Point::Nowhere | Point::Refused(_) => None,
        }
    }
}
