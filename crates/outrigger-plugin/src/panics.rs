//! What a panic says, as its host reads it.

use crate::stdio::write_stderr;

/// Logs panics so that a go-plugin host sees them as errors, line by line.
pub(crate) fn log() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a value that is no text");
        let place = panic
            .location()
            .map(|place| format!("\n\tat {place}"))
            .unwrap_or_default();
        write_stderr(format!("panic: {message}{place}\n\n{backtrace}\n").as_bytes());
    }));
}
