//! The numbers as text, in the two formats that Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_transport::code_name;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::calls::Calls;
use super::names::{self, Name};
use super::process::Usage;
use super::{Life, Metrics, PluginMetrics, lock};

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// Prometheus text, version 0.0.4: what everything reads.
    #[default]
    Prometheus,
    /// OpenMetrics text, version 1.0, with the ids of sampled traces beside calls.
    OpenMetrics,
}

impl MetricsFormat {
    /// Its name as a content type of HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// All numbers as they are now. Reads `/proc` of each plugin that runs.
    pub fn text(&self, format: MetricsFormat) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut written = String::new();
        // Writing to a string does not fail.
        let _ = match format {
            MetricsFormat::Prometheus => prometheus_text::encode(&mut written, &registry),
            MetricsFormat::OpenMetrics => text::encode(&mut written, &registry),
        };
        written
    }
}

/// A plugin on the page.
struct Shown {
    name: Arc<str>,
    metrics: Arc<PluginMetrics>,
    /// How it is, where a host says.
    life: Option<Life>,
    /// What its process uses, while there is one.
    used: Option<Usage>,
}

/// Writes a sample: the values of the labels after the plugin's, and its value.
type Put<'a> = dyn FnMut(&[&str], &dyn EncodeMetric) -> fmt::Result + 'a;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let lives = self.lives();
        for plugin in lives.keys() {
            self.plugin(plugin);
        }
        let shown = |(name, metrics): (&Arc<str>, &Arc<PluginMetrics>)| {
            let life = lives.get(&**name);
            Shown {
                name: name.clone(),
                metrics: metrics.clone(),
                used: life.and_then(|life| life.pid).and_then(Usage::of),
                life: life.cloned(),
            }
        };
        let plugins: Vec<Shown> = self.known().iter().map(shown).collect();
        let mut family = |name: &Name, each: fn(&Shown, &mut Put) -> fmt::Result| {
            let mut metric = encoder.encode_descriptor(name.name, name.help, None, name.kind)?;
            plugins.iter().try_for_each(|plugin| {
                each(plugin, &mut |values, value| {
                    let values = std::iter::once(&*plugin.name).chain(values.iter().copied());
                    let labels: Vec<(&str, &str)> =
                        name.labels.iter().copied().zip(values).collect();
                    value.encode(metric.encode_family(&labels)?)
                })
            })
        };
        family(&names::CLIENT_CALLS, |plugin, put| {
            calls(&plugin.metrics.client, put)
        })?;
        family(&names::SERVER_CALLS, |plugin, put| {
            calls(&plugin.metrics.server, put)
        })?;
        family(&names::IN_FLIGHT, |plugin, put| {
            let in_flight = &plugin.metrics.client.totals.in_flight;
            put(&[], &ConstGauge::new(in_flight.load(Ordering::Relaxed)))
        })?;
        family(&names::DECISIONS, |plugin, put| {
            let decisions = lock(&plugin.metrics.decisions);
            let mut decisions = decisions.iter();
            decisions
                .try_for_each(|((capability, verdict), count)| put(&[capability, verdict], count))
        })?;
        family(&names::PLUGIN_STATE, |plugin, put| {
            let Some(life) = &plugin.life else {
                return Ok(());
            };
            names::STATES.iter().try_for_each(|state| {
                put(&[state], &ConstGauge::new(u64::from(life.state == *state)))
            })
        })?;
        family(&names::GENERATION, |plugin, put| {
            plugin
                .life
                .iter()
                .try_for_each(|life| put(&[], &ConstGauge::new(life.generation)))
        })?;
        family(&names::STARTS, |plugin, put| {
            put(&[], &plugin.metrics.starts)
        })?;
        family(&names::RESTARTS, |plugin, put| {
            let restarts = lock(&plugin.metrics.restarts);
            let mut restarts = restarts.iter();
            restarts.try_for_each(|(reason, count)| put(&[reason], count))
        })?;
        family(&names::START_DURATION, |plugin, put| {
            put(&[], &plugin.metrics.start_duration)
        })?;
        family(&names::RESIDENT, |plugin, put| {
            used(plugin, put, |used| Some(used.resident))
        })?;
        family(&names::VIRTUAL, |plugin, put| {
            used(plugin, put, |used| Some(used.address_space))
        })?;
        family(&names::CPU, |plugin, put| match &plugin.used {
            Some(used) => put(&[], &ConstCounter::new(used.cpu)),
            None => Ok(()),
        })?;
        family(&names::DESCRIPTORS, |plugin, put| {
            used(plugin, put, |used| used.descriptors)
        })?;
        family(&names::THREADS, |plugin, put| {
            used(plugin, put, |used| Some(used.threads))
        })?;
        let Name {
            name, help, kind, ..
        } = names::BUILD;
        let mut build = encoder.encode_descriptor(name, help, None, kind)?;
        build.encode_info(&[(names::VERSION, env!("CARGO_PKG_VERSION"))])
    }
}

fn calls(calls: &Calls, put: &mut Put<'_>) -> fmt::Result {
    calls.each(|method, code, series| put(&[method, code_name(code)], series))
}

fn used(plugin: &Shown, put: &mut Put<'_>, what: fn(&Usage) -> Option<u64>) -> fmt::Result {
    match plugin.used.as_ref().and_then(what) {
        Some(value) => put(&[], &ConstGauge::new(value)),
        None => Ok(()),
    }
}
