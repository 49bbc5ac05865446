//! What a host counts of its plugins.

mod calls;
mod exposition;
mod names;
mod process;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use outrigger_services::Verdict;
use outrigger_transport::{CallObserver, HostServices, PluginIdentity, ServiceSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use self::calls::{Calls, Count, Room};
pub use self::exposition::{Exposition, ExpositionError, ExpositionPlace};
pub use self::text::MetricsFormat;

/// How old what [`Metrics::traffic`] compares with is at least.
const WINDOW: Duration = Duration::from_secs(60);

/// What a host counts of its plugins: their calls, states, starts and processes, and
/// what was decided for them. Clones share it.
///
/// It is kept whether anybody reads it or not. Nothing of it is shown to anybody before [`serve`](Self::serve).
///
/// # Examples
/// ```
/// use outrigger::{Metrics, MetricsFormat};
///
/// let text = Metrics::new().text(MetricsFormat::Prometheus);
/// assert!(text.contains("outrigger_build_info{version="), "{text}");
/// ```
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    plugins: RwLock<BTreeMap<Arc<str>, Arc<PluginMetrics>>>,
    /// Where it is known how plugins are.
    sources: Mutex<Vec<Source>>,
}

/// Tells how the plugins of a host are; nothing once there is no such host.
pub(crate) type Source = Box<dyn Fn() -> Option<Vec<Life>> + Send>;

/// How a plugin is.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) plugin: String,
    pub(crate) state: &'static str,
    pub(crate) generation: u64,
    pub(crate) pid: Option<u32>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing was counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps account of the calls to `plugin`, for [`Router::observe`]. A
    /// [`Host`](crate::Host) sees to it by itself.
    ///
    /// [`Router::observe`]: outrigger_transport::Router::observe
    pub fn calls_to(&self, plugin: &str) -> Arc<dyn CallObserver> {
        self.plugin(plugin).client()
    }

    /// What is counted of `plugin`.
    pub(crate) fn plugin(&self, plugin: &str) -> Arc<PluginMetrics> {
        if let Some(known) = self.known().get(plugin) {
            return known.clone();
        }
        let plugins = &self.0.plugins;
        let mut plugins = plugins.write().unwrap_or_else(PoisonError::into_inner);
        plugins.entry(plugin.into()).or_default().clone()
    }

    fn known(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<PluginMetrics>>> {
        let plugins = &self.0.plugins;
        plugins.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how the plugins of `source` are, beside what is counted of them.
    pub(crate) fn look_at(&self, source: Source) {
        lock(&self.0.sources).push(source);
    }

    /// How all plugins are, by name.
    fn lives(&self) -> BTreeMap<String, Life> {
        let mut lives = BTreeMap::new();
        lock(&self.0.sources).retain(|source| {
            let known = source();
            let is_there = known.is_some();
            let known = known.into_iter().flatten();
            lives.extend(known.map(|life| (life.plugin.clone(), life)));
            is_there
        });
        lives
    }

    /// The calls to a plugin; nothing if none was counted yet under that name. Cheap
    /// enough for whoever draws them.
    ///
    /// # Examples
    /// ```
    /// assert!(outrigger::Metrics::new().traffic("lister").is_none());
    /// ```
    pub fn traffic(&self, plugin: &str) -> Option<Traffic> {
        let plugin = self.known().get(plugin)?.clone();
        Some(plugin.traffic(Instant::now()))
    }
}

/// The calls to a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Those that have ended, since the host began.
    pub calls: u64,
    /// How many of them failed: neither answered with `OK` nor given up by who
    /// made them.
    pub failed: u64,
    /// Those that have not ended.
    pub in_flight: u64,
    /// Calls that ended, a second, lately: since an earlier reading that was a
    /// minute old, or since the first.
    pub calls_per_second: f64,
    /// Failures a second, lately.
    pub failed_per_second: f64,
    /// Half of the calls of late took no longer than this, as far as the
    /// histogram's bounds tell.
    pub p50: Option<Duration>,
    /// 99 of 100 did.
    pub p99: Option<Duration>,
}

/// What is counted of one plugin.
#[derive(Debug)]
pub(crate) struct PluginMetrics {
    /// Those to the plugin.
    client: Arc<Calls>,
    /// Those of the plugin to its host.
    server: Arc<Calls>,
    decisions: Mutex<BTreeMap<(&'static str, &'static str), Counter>>,
    starts: Counter,
    restarts: Mutex<BTreeMap<&'static str, Counter>>,
    start_duration: Histogram,
    readings: Mutex<Readings>,
}

/// Earlier readings: one that is at least [`WINDOW`] old as soon as there can be one.
#[derive(Debug)]
struct Readings {
    before: (Instant, Count),
    last: (Instant, Count),
}

impl Default for PluginMetrics {
    fn default() -> Self {
        let room = Room::default();
        let first = (Instant::now(), Count::default());
        Self {
            client: Arc::new(Calls::new(room.clone())),
            server: Arc::new(Calls::new(room)),
            decisions: Mutex::default(),
            starts: Counter::default(),
            restarts: Mutex::default(),
            start_duration: Histogram::new(names::START_SECONDS),
            readings: Mutex::new(Readings {
                before: first,
                last: first,
            }),
        }
    }
}

/// Services of a plugin, whose calls are counted.
pub(crate) struct CountedServices {
    services: Box<dyn HostServices>,
    observer: Arc<dyn CallObserver>,
}

impl HostServices for CountedServices {
    fn bind(&self, identity: &PluginIdentity) -> ServiceSet {
        self.services.bind(identity).observed(self.observer.clone())
    }

    fn names(&self) -> Vec<String> {
        self.services.names()
    }

    fn bind_named(&self, name: &str, identity: &PluginIdentity) -> ServiceSet {
        let services = self.services.bind_named(name, identity);
        services.observed(self.observer.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PluginMetrics {
    /// Who keeps account of the calls to the plugin.
    pub(crate) fn client(&self) -> Arc<dyn CallObserver> {
        self.client.clone()
    }

    /// The services, whose calls are counted.
    pub(crate) fn services(&self, services: impl HostServices + 'static) -> CountedServices {
        CountedServices {
            services: Box::new(services),
            observer: self.server.clone(),
        }
    }

    pub(crate) fn decided(&self, capability: &'static str, verdict: Verdict) {
        let mut decisions = lock(&self.decisions);
        let key = (capability, verdict.as_str());
        decisions.entry(key).or_default().inc();
    }

    /// It is started once more.
    pub(crate) fn starts(&self) {
        self.starts.inc();
    }

    /// It serves, `took` after its start.
    pub(crate) fn serves(&self, took: Duration) {
        self.start_duration.observe(took.as_secs_f64());
    }

    /// It is to be started anew, because of `reason`.
    pub(crate) fn restarts(&self, reason: &'static str) {
        lock(&self.restarts).entry(reason).or_default().inc();
    }

    fn traffic(&self, now: Instant) -> Traffic {
        let totals = &self.client.totals;
        let count = totals.count();
        let mut readings = lock(&self.readings);
        if now.duration_since(readings.last.0) >= WINDOW {
            readings.before = readings.last;
            readings.last = (now, count);
        }
        let (begun, earlier) = readings.before;
        drop(readings);
        let lately = count.since(&earlier);
        let seconds = now.duration_since(begun).as_secs_f64();
        let a_second = |many: u64| match seconds > 0.0 {
            true => many as f64 / seconds,
            false => 0.0,
        };
        Traffic {
            calls: count.calls(),
            failed: count.failed,
            in_flight: totals.in_flight.load(Ordering::Relaxed),
            calls_per_second: a_second(lately.calls()),
            failed_per_second: a_second(lately.failed),
            p50: lately.quantile(0.5),
            p99: lately.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests;
