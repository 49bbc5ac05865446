//! What a plugin logs through `tracing` or the `log` crate, as its host reads it.

use std::fmt::Write as _;

use outrigger_transport::TraceContext;
use outrigger_wire::logs::{Level, LogRecord, LogSource, write_hclog};
use outrigger_wire::text::shortened;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::stdio::write_stderr;

/// The longest text of one field that is sent, in bytes: a host splits lines
/// of more than 64 KiB and then no longer understands them.
const MAX_TEXT: usize = 16 << 10;

/// Writes events to the plugin's real stderr as hclog JSON, one line each, so
/// that any go-plugin host logs them with their level and fields.
///
/// [`serve`](crate::serve) installs it where no other subscriber is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct HclogLayer;

impl<S: Subscriber> Layer<S> for HclogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let caller = metadata.file().zip(metadata.line());
        let line = write_hclog(&LogRecord {
            time: Some(jiff::Timestamp::now()),
            module: Some(metadata.target().to_owned()),
            caller: caller.map(|(file, line)| format!("{file}:{line}")),
            fields: traced(fields.others),
            ..LogRecord::new(
                LogSource::Hclog,
                level_of(*metadata.level()),
                fields.message,
            )
        });
        write_stderr(format!("{line}\n").as_bytes());
    }
}

/// The fields of a record, with the trace of the call that is answered here.
fn traced(mut fields: Vec<(String, Value)>) -> Vec<(String, Value)> {
    if let Some(trace) = TraceContext::current() {
        fields.push(("trace_id".to_owned(), trace.trace_id().into()));
    }
    fields
}

fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::TRACE => Level::Trace,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name.to_owned(), value)),
        }
    }
}

fn cut(text: &str) -> String {
    shortened(text, MAX_TEXT).into_owned()
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        // Formatting into a string fails only when the value's own code fails.
        let _ = write!(text, "{value:?}");
        self.put(field, Value::String(cut(&text)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(cut(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// Writes what is logged through the `log` crate as [`HclogLayer`] writes events.
struct HclogLogger;

impl log::Log for HclogLogger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info || !is_quiet(metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut pairs = Pairs::default();
        // The visitor itself never fails.
        let _ = record.key_values().visit(&mut pairs);
        let caller = record.file().zip(record.line());
        let message = cut(&record.args().to_string());
        let line = write_hclog(&LogRecord {
            time: Some(jiff::Timestamp::now()),
            module: Some(record.target().to_owned()),
            caller: caller.map(|(file, line)| format!("{file}:{line}")),
            fields: traced(pairs.0),
            ..LogRecord::new(LogSource::Hclog, level_of_log(record.level()), message)
        });
        write_stderr(format!("{line}\n").as_bytes());
    }

    fn flush(&self) {}
}

fn level_of_log(level: log::Level) -> Level {
    match level {
        log::Level::Trace => Level::Trace,
        log::Level::Debug => Level::Debug,
        log::Level::Info => Level::Info,
        log::Level::Warn => Level::Warn,
        log::Level::Error => Level::Error,
    }
}

/// The key-value pairs of a record of the `log` crate.
#[derive(Default)]
struct Pairs(Vec<(String, Value)>);

impl<'kvs> log::kv::VisitSource<'kvs> for Pairs {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        let value = match (
            value.to_bool(),
            value.to_i64(),
            value.to_u64(),
            value.to_f64(),
        ) {
            (Some(truth), ..) => truth.into(),
            (_, Some(number), ..) => number.into(),
            (_, _, Some(number), _) => number.into(),
            (_, _, _, Some(number)) => number.into(),
            _ => Value::String(cut(&value.to_string())),
        };
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

/// Libraries below this are too talkative for a host's log.
const QUIET: [&str; 5] = ["h2", "hyper", "tonic", "rustls", "outrigger_transport"];

fn is_quiet(target: &str) -> bool {
    QUIET.iter().any(|library| target.starts_with(library))
}

/// Installs the layer and the logger, each where nothing is installed yet: the
/// plugin's author may have installed one of their own.
pub(crate) fn install() {
    let quiet = tracing_subscriber::filter::filter_fn(|metadata| {
        *metadata.level() <= tracing::Level::INFO || !is_quiet(metadata.target())
    });
    let subscriber = tracing_subscriber::registry().with(HclogLayer.with_filter(quiet));
    let _ = tracing::subscriber::set_global_default(subscriber);
    if log::set_logger(&HclogLogger).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}
