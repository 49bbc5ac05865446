//! The records of one connection: each operation leaves one, whatever became of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outrigger_transport::PluginIdentity;

use crate::arguments::Arguments;
use crate::audit::{AuditLog, AuditRecord, Verdict};
use crate::fault::Fault;
use crate::operation::Operation;
use crate::rate::Sampler;

/// How many refusals before an operation began leave a record each, per second:
/// they cost the plugin nothing to cause.
const UNBEGUN_RECORDS: u64 = 10;

/// What was turned away without a record of its own when the connection ended.
pub(crate) const TURNED_AWAY: Operation = Operation::of_session("turned_away");

/// Makes the records of one connection.
pub(crate) struct Recorder {
    audit: AuditLog,
    plugin: Arc<str>,
    instance: Arc<str>,
    pid: Option<u32>,
    digest: Option<Arc<str>>,
    /// Which refusals before an operation began leave a record.
    unbegun: Sampler,
}

/// What a record says of the request.
#[derive(Debug, Default)]
pub(crate) struct RecordedRequest {
    pub(crate) client: String,
    pub(crate) request: String,
    pub(crate) argument: String,
    pub(crate) trace_id: Option<String>,
}

impl Recorder {
    pub(crate) fn new(
        audit: &AuditLog,
        digest: Option<&Arc<str>>,
        identity: &PluginIdentity,
    ) -> Self {
        Self {
            audit: audit.clone(),
            plugin: identity.name().into(),
            instance: identity.instance().into(),
            pid: identity.pid(),
            digest: digest.cloned(),
            unbegun: Sampler::new(UNBEGUN_RECORDS, Instant::now()),
        }
    }

    /// Whether anyone keeps records.
    pub(crate) fn is_on(&self) -> bool {
        !self.audit.is_empty()
            || tracing::enabled!(target: "outrigger_services::audit", tracing::Level::WARN)
    }

    /// Records what ended before it could begin: not each time, when it happens
    /// often, but how often it did. It is no operation of the plugin's, and not
    /// counted as one.
    pub(crate) fn turn_away(
        &self,
        operation: Operation,
        show: impl FnOnce(&mut Arguments),
        fault: &Fault,
    ) {
        if let Some(more) = self.unbegun.sample(Instant::now()) {
            self.record_unbegun(operation, more, show, fault);
        }
    }

    /// Records that `more` of an operation were refused without a record each.
    pub(crate) fn left_out(
        &self,
        operation: Operation,
        more: u64,
        show: impl FnOnce(&mut Arguments),
    ) {
        if more > 0 {
            let text = "turned away without a record each";
            let fault = Fault::exhausted("too-many-refusals", text);
            self.record_unbegun(operation, more, show, &fault);
        }
    }

    fn record_unbegun(
        &self,
        operation: Operation,
        more: u64,
        show: impl FnOnce(&mut Arguments),
        fault: &Fault,
    ) {
        if self.is_on() {
            let mut shown = Arguments::default();
            show(&mut shown);
            shown.number("more", more);
            let request = RecordedRequest {
                argument: shown.into_text(),
                ..RecordedRequest::default()
            };
            let judged = match fault.is_refusal() {
                true => (Verdict::Refused, fault.rule()),
                false => (Verdict::Undecided, String::new()),
            };
            let nothing = (0, Duration::ZERO);
            self.record(operation, request, judged, Some(fault), nothing);
        }
    }

    /// Keeps a record: what was asked, how it was judged, how it ended, how many
    /// bytes it moved and how long it took.
    pub(crate) fn record(
        &self,
        operation: Operation,
        request: RecordedRequest,
        (verdict, rule): (Verdict, String),
        fault: Option<&Fault>,
        (bytes, took): (u64, Duration),
    ) {
        let text = |text: fn(&Fault) -> std::borrow::Cow<'_, str>| {
            fault
                .map(|fault| text(fault).into_owned())
                .unwrap_or_default()
        };
        let record = AuditRecord {
            time: SystemTime::now(),
            plugin: self.plugin.clone(),
            digest: self.digest.clone(),
            instance: self.instance.clone(),
            pid: self.pid,
            client: request.client,
            request: request.request,
            trace_id: request.trace_id,
            capability: operation.capability(),
            operation: operation.name,
            argument: request.argument,
            verdict,
            rule,
            code: fault.map_or("ok", Fault::code),
            reason: text(|fault| fault.reason()),
            missing: text(|fault| fault.missing()),
            bytes,
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        };
        tell(&record);
        if !self.audit.is_empty() {
            self.audit.record(&Arc::new(record));
        }
    }
}

impl Drop for Recorder {
    /// Records how many more were turned away than records say.
    fn drop(&mut self) {
        self.left_out(TURNED_AWAY, self.unbegun.rest(), |_| {});
    }
}

/// Tells `tracing`: at debug level of what worked, at info level of what failed or
/// was not judged, as a warning of what was refused.
fn tell(record: &AuditRecord) {
    macro_rules! tell {
        ($level:expr, $text:literal) => {
            tracing::event!(
                target: "outrigger_services::audit",
                $level,
                plugin = &*record.plugin,
                instance = &*record.instance,
                client = %record.client,
                request = %record.request,
                trace_id = record.trace_id.as_deref(),
                operation = %format_args!("{}.{}", record.capability, record.operation),
                arguments = %record.argument,
                verdict = record.verdict.as_str(),
                rule = %record.rule,
                code = record.code,
                reason = %record.reason,
                missing = %record.missing,
                bytes = record.bytes,
                duration_us = record.micros,
                $text
            )
        };
    }
    match record.verdict {
        Verdict::Refused => tell!(tracing::Level::WARN, "host service call refused"),
        Verdict::Allowed if record.code == "ok" => {
            tell!(tracing::Level::DEBUG, "host service call");
        }
        Verdict::Allowed => tell!(tracing::Level::INFO, "host service call failed"),
        Verdict::Undecided => tell!(tracing::Level::INFO, "host service call not judged"),
    }
}
