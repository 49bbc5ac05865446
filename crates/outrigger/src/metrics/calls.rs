//! The calls of one plugin in one direction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use outrigger_transport::{CallObserver, EndedCall};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use tonic::Code;

use super::names::{CALL_SECONDS, OTHER, TRACE_ID};

/// How many methods with a code a plugin has, of both directions: what comes after
/// them is [`OTHER`].
pub(super) const SERIES: usize = 200;
/// The longest name of a method that is a label, in bytes.
const LONGEST: usize = 200;
const CODES: usize = 17;

/// What is known of the slowest calls besides: which trace they belong to.
pub(super) type Exemplar = [(&'static str, String); 1];
pub(super) type Series = HistogramWithExemplars<Exemplar>;

/// How much room the methods of a plugin take.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

impl Room {
    fn has_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) < SERIES
    }

    /// Takes a place, if there is one.
    fn take(&self) -> bool {
        let one_more = |taken: usize| (taken < SERIES).then_some(taken + 1);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, one_more).is_ok()
    }
}

/// The calls of one plugin: how long they took, by method and code.
#[derive(Debug)]
pub(super) struct Calls {
    methods: RwLock<HashMap<Box<str>, Method>>,
    others: Method,
    room: Room,
    pub(super) totals: Totals,
}

/// A histogram for each code, once there was a call with it; nothing where there was
/// no room for it.
#[derive(Debug, Default)]
struct Method([OnceLock<Option<Series>>; CODES]);

impl Calls {
    pub(super) fn new(room: Room) -> Self {
        Self {
            methods: RwLock::default(),
            others: Method::default(),
            room,
            totals: Totals::default(),
        }
    }

    fn record(&self, call: &EndedCall<'_>) {
        let seconds = call.took.as_secs_f64();
        self.totals.record(call.code, seconds);
        let sampled = call.trace.filter(|trace| trace.is_sampled());
        let exemplar = || sampled.map(|trace| [(TRACE_ID, trace.trace_id().to_owned())]);
        let observe = |series: &Series| {
            series.observe(seconds, exemplar(), sampled.map(|_| SystemTime::now()));
        };
        if is_label(call) && self.record_named(call, observe) {
            return;
        }
        if let Some(series) = self.others.series(call.code, || true) {
            observe(series);
        }
    }

    /// Whether there is room for the method with that code.
    fn record_named(&self, call: &EndedCall<'_>, observe: impl Fn(&Series)) -> bool {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(method) = methods.get(call.method) {
            let series = method.series(call.code, || self.room.take());
            return series.map(observe).is_some();
        }
        drop(methods);
        let mut methods = self.methods.write().unwrap_or_else(PoisonError::into_inner);
        if !methods.contains_key(call.method) && !self.room.has_some() {
            return false;
        }
        let method = methods.entry(call.method.into()).or_default();
        let series = method.series(call.code, || self.room.take());
        series.map(observe).is_some()
    }

    /// Calls `each` with every method, its codes and their calls.
    pub(super) fn each<E>(
        &self,
        mut each: impl FnMut(&str, Code, &Series) -> Result<(), E>,
    ) -> Result<(), E> {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<(&str, &Method)> = methods
            .iter()
            .map(|(name, method)| (&**name, method))
            .collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        names.push((OTHER, &self.others));
        for (name, method) in names {
            for (code, series) in (0..).zip(&method.0) {
                if let Some(Some(series)) = series.get() {
                    each(name, Code::from_i32(code), series)?;
                }
            }
        }
        Ok(())
    }
}

/// Labels are what the caller's code, or a service of the host, calls its methods.
fn is_label(call: &EndedCall<'_>) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/');
    call.is_known && call.method.len() <= LONGEST && call.method.bytes().all(is_plain)
}

impl Method {
    fn series(&self, code: Code, has_room: impl FnOnce() -> bool) -> Option<&Series> {
        let series = self.0.get(code as usize)?;
        let new = || has_room().then(|| Series::new(CALL_SECONDS.into_iter()));
        series.get_or_init(new).as_ref()
    }
}

impl CallObserver for Calls {
    fn begun(&self) {
        self.totals.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, call: &EndedCall<'_>) {
        self.totals.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.record(call);
    }
}

/// All calls of a plugin together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) in_flight: AtomicU64,
    failed: AtomicU64,
    /// How many calls took as long as each bound; the last one has no bound.
    buckets: [AtomicU64; CALL_SECONDS.len() + 1],
}

/// [`Totals`] at one moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) failed: u64,
    buckets: [u64; CALL_SECONDS.len() + 1],
}

impl Totals {
    fn record(&self, code: Code, seconds: f64) {
        let bucket = CALL_SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(code, Code::Ok | Code::Cancelled) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self) -> Count {
        Count {
            failed: self.failed.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
        }
    }
}

impl Count {
    pub(super) fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            failed: self.failed.saturating_sub(earlier.failed),
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at])),
        }
    }

    /// How long `part` of the calls took at most, as far as the bounds tell; nothing
    /// where there were none. Calls of one bucket count as evenly spread in it.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let calls = self.calls();
        if calls == 0 {
            return None;
        }
        let rank = part * calls as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.buckets.iter().zip(CALL_SECONDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_secs_f64(lower + (upper - lower) * within));
            }
            below += count;
            lower = upper;
        }
        Some(Duration::from_secs_f64(lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn quantiles_lie_in_the_bucket_of_the_calls_that_they_are_about() {
        let totals = Totals::default();
        assert_eq!(totals.count().quantile(0.99), None);
        for _ in 0..98 {
            totals.record(Code::Ok, 30e-6);
        }
        totals.record(Code::Internal, 0.3);
        totals.record(Code::Cancelled, 60.0);
        let count = totals.count();
        assert_eq!((count.calls(), count.failed), (100, 1));
        let half = count.quantile(0.5).expect("calls");
        assert!((Duration::from_micros(25)..=Duration::from_micros(50)).contains(&half));
        let most = count.quantile(0.99).expect("calls");
        assert!((ms(250)..=ms(500)).contains(&most), "{most:?}");
        assert_eq!(
            count.quantile(1.0),
            Some(ms(10_000)),
            "as far as bounds tell"
        );
        assert_eq!(totals.count().since(&count).calls(), 0);
    }

    proptest! {
        #[test]
        fn a_greater_part_of_the_calls_never_took_less(
            seconds in proptest::collection::vec(0.0_f64..20.0, 1..50),
            parts in (0.0_f64..1.0, 0.0_f64..1.0),
        ) {
            let totals = Totals::default();
            for seconds in &seconds {
                totals.record(Code::Ok, *seconds);
            }
            let count = totals.count();
            prop_assert_eq!(count.calls(), seconds.len() as u64);
            let (low, high) = (parts.0.min(parts.1), parts.0.max(parts.1));
            prop_assert!(count.quantile(low) <= count.quantile(high));
        }
    }
}
