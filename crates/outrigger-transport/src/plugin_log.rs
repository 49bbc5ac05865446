//! What plugins log, as `tracing` events of their host: the one way from a
//! [`LogRecord`] to whoever keeps it, for lines of stderr and for what came
//! through the host's log service.

use outrigger_wire::logs::{Level, LogRecord};
use outrigger_wire::text::message;

/// The target of the events.
pub const PLUGIN_LOG: &str = "outrigger::plugin";

/// Calls a macro with the level as `tracing` names it.
macro_rules! at_level {
    ($level:expr, $call:ident) => {
        match $level {
            Level::Trace => $call!(TRACE),
            Level::Debug => $call!(DEBUG),
            Level::Info => $call!(INFO),
            Level::Warn => $call!(WARN),
            Level::Error => $call!(ERROR),
        }
    };
}

/// Whether anybody in this process keeps what plugins log at `level`.
pub fn is_kept(level: Level) -> bool {
    macro_rules! kept {
        ($level:ident) => {
            tracing::enabled!(target: PLUGIN_LOG, tracing::Level::$level)
        };
    }
    at_level!(level, kept)
}

/// Emits what `plugin` logged as one event. Its message, and the fields `time`,
/// `module`, `caller` and `fields` (pairs of `key=value`) where the record has
/// them, are escaped: none of them ends a line or moves a cursor.
pub fn emit(plugin: &str, record: &LogRecord) {
    let text = message(&record.message);
    let time = record.time.map(|time| time.to_string());
    let module = record.module.as_deref().map(message);
    let caller = record.caller.as_deref().map(message);
    let fields = record.fields_text();
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: PLUGIN_LOG,
                tracing::Level::$level,
                plugin,
                time,
                module = module.as_deref(),
                caller = caller.as_deref(),
                fields,
                "{text}"
            )
        };
    }
    at_level!(record.level, event);
}
