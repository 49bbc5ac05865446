//! The names of all metrics, their labels and buckets: the one place to change when
//! conventions do. They follow OpenTelemetry's semantic conventions for RPC, version
//! 1.45, as Prometheus spells them.

use prometheus_client::metrics::MetricType;

/// A metric: what it is called, and what it counts.
pub(super) struct Name {
    /// Without the `_total` of a counter and the `_info` of an info, which the
    /// encoder adds.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
}

pub(super) const PLUGIN: &str = "plugin";
pub(super) const METHOD: &str = "rpc_method";
pub(super) const CODE: &str = "rpc_status_code";
pub(super) const STATE: &str = "state";
pub(super) const REASON: &str = "reason";
pub(super) const CAPABILITY: &str = "capability";
pub(super) const VERDICT: &str = "verdict";
pub(super) const VERSION: &str = "version";
pub(super) const TRACE_ID: &str = "trace_id";

/// The states of a plugin, as [`PluginState`](crate::PluginState) names them.
pub(super) const STATES: &[&str] = &[
    "installed",
    "needs-approval",
    "starting",
    "running",
    "degraded",
    "backoff",
    "stopping",
    "stopped",
    "failed",
    "broken",
];

/// What stands for a method that somebody made up, or that finds no room.
pub(super) const OTHER: &str = "_OTHER";

/// The upper bounds of calls, in seconds. Those that the conventions advise begin at
/// 5 ms, where a call of a plugin takes 30 µs.
pub(super) const CALL_SECONDS: [f64; 19] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3,
    250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0,
];

/// The upper bounds of starts, in seconds.
pub(super) const START_SECONDS: [f64; 12] = [
    2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 5.0, 15.0, 60.0,
];

macro_rules! names {
    ($($const:ident = $name:literal, $kind:ident, [$($label:ident),*], $help:literal;)*) => {
        $(pub(super) const $const: Name = Name {
            name: $name,
            help: $help,
            kind: MetricType::$kind,
            labels: &[$($label),*],
        };)*

        /// All of them, in the order of the page.
        #[cfg(test)]
        pub(super) const ALL: &[Name] = &[$($const),*];
    };
}

names! {
    BUILD = "outrigger_build", Info, [VERSION],
        "The version of the host's library.";
    CLIENT_CALLS = "rpc_client_call_duration_seconds", Histogram, [PLUGIN, METHOD, CODE],
        "How long calls to plugins took, to the end of the reply.";
    SERVER_CALLS = "rpc_server_call_duration_seconds", Histogram, [PLUGIN, METHOD, CODE],
        "How long calls of plugins to their host's services took.";
    IN_FLIGHT = "outrigger_calls_in_flight", Gauge, [PLUGIN],
        "Calls to plugins that have not ended.";
    DECISIONS = "outrigger_grants_decisions", Counter, [PLUGIN, CAPABILITY, VERDICT],
        "What plugins asked of their host's services, by how it was judged.";
    PLUGIN_STATE = "outrigger_plugin_state", Gauge, [PLUGIN, STATE],
        "1 for the state that a plugin is in, 0 for the others.";
    GENERATION = "outrigger_plugin_generation", Gauge, [PLUGIN],
        "Counts the starts of a plugin: which of them runs, or ran last.";
    STARTS = "outrigger_plugin_starts", Counter, [PLUGIN],
        "How often a plugin was started.";
    RESTARTS = "outrigger_plugin_restarts", Counter, [PLUGIN, REASON],
        "How often a plugin was started anew, by the code of what led to it.";
    START_DURATION = "outrigger_plugin_start_duration_seconds", Histogram, [PLUGIN],
        "How long plugins took from their start until they served.";
    RESIDENT = "process_resident_memory_bytes", Gauge, [PLUGIN],
        "Memory of a plugin's process that is resident.";
    VIRTUAL = "process_virtual_memory_bytes", Gauge, [PLUGIN],
        "Address space of a plugin's process.";
    CPU = "process_cpu_seconds", Counter, [PLUGIN],
        "Time that the threads of a plugin's process ran on a processor.";
    DESCRIPTORS = "process_open_fds", Gauge, [PLUGIN],
        "Open descriptors of a plugin's process, where the host may count them.";
    THREADS = "process_threads", Gauge, [PLUGIN],
        "Threads of a plugin's process.";
}

#[cfg(test)]
impl Name {
    /// The name as it stands before a sample in Prometheus text.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            MetricType::Counter => format!("{}_total", self.name),
            MetricType::Info => format!("{}_info", self.name),
            _ => self.name.to_owned(),
        }
    }
}
