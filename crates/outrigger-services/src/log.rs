//! Records of a plugin for the host's log: the same events, with the same
//! fields, as what it writes to its stderr.

use std::sync::Arc;
use std::time::Instant;

use outrigger_manifest::HostService;
use outrigger_transport::plugin_log;
use outrigger_wire::logs::{self, Level, LogSource};
use outrigger_wire::proto::host::*;
use outrigger_wire::text::shortened;
use tonic::{Request, Response, Status, Streaming};

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::operation::{Described, Operation};
use crate::proto::host::log_server;
use crate::rate::Bucket;
use crate::running::{Caller, Running, calls};
use crate::session::Session;

impl Described for WriteLogRequest {
    const OPERATION: Operation = operation("write");

    fn show(&self, shown: &mut Arguments) {
        shown.shown("records", self.records.len());
    }
}

/// [`WriteLogRequest`]s that come one after another.
const WRITE_STREAM: Operation = operation("write_stream");

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Log, name)
}

/// The most records of one message.
const MOST_RECORDS: usize = 1024;
/// Records per second that are taken from one connection.
const RECORDS_PER_SECOND: u64 = 10_000;
/// The most fields of a record; further ones are left out, and said to be.
const MOST_FIELDS: usize = 64;
/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 64 << 10;
/// The longest key, value or module, in bytes.
const LONGEST_TEXT: usize = 8 << 10;

/// `outrigger.host.v1.Log` for one plugin connection.
pub(crate) struct LogService {
    session: Arc<Session>,
    pace: Bucket,
}

impl LogService {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            pace: Bucket::new(RECORDS_PER_SECOND, Instant::now()),
        }
    }

    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Writes records whose number was judged already.
    fn write_all(&self, records: &[LogRecord], counts: &mut WriteLogResponse) {
        let plugin = self.session.identity().name();
        for record in records {
            match write(plugin, record) {
                true => counts.written = counts.written.saturating_add(1),
                false => counts.filtered = counts.filtered.saturating_add(1),
            }
        }
    }
}

fn check(records: &[LogRecord]) -> Result<(), Fault> {
    match records.len() {
        ..=MOST_RECORDS => Ok(()),
        _ => Err(Fault::abuse(format!(
            "at most {MOST_RECORDS} records in a message"
        ))),
    }
}

calls! {
    LogService as log_server::Log;
    /// What the service can be asked for.
    pub(crate) const OPERATIONS and [WriteLogRequest::OPERATION, WRITE_STREAM];
    level: LevelRequest {} -> LevelResponse = |_, _, _| {
        let level = least().into();
        Ok(LevelResponse { level })
    };
    {
        async fn write(
            &self,
            request: Request<WriteLogRequest>,
        ) -> Result<Response<WriteLogResponse>, Status> {
            let work = async |_: &Running, message: WriteLogRequest| {
                check(&message.records)?;
                let late = |after| Fault::Exhausted {
                    code: "rate-limited",
                    text: format!("more than {RECORDS_PER_SECOND} log records per second"),
                    after: Some(after),
                };
                let count = message.records.len() as u64;
                self.pace.take(count, Instant::now()).map_err(late)?;
                let mut counts = WriteLogResponse::default();
                self.write_all(&message.records, &mut counts);
                Ok(counts)
            };
            self.session().call(request, work).await
        }

        async fn write_stream(
            &self,
            request: Request<Streaming<WriteLogRequest>>,
        ) -> Result<Response<WriteLogResponse>, Status> {
            let (caller, mut messages) = Caller::of(request);
            let running = self.session().begin_call(WRITE_STREAM, &caller, |_| {})?;
            let mut counts = WriteLogResponse::default();
            let outcome = loop {
                match messages.message().await {
                    Ok(Some(message)) => {
                        if let Err(fault) = check(&message.records) {
                            break Err(fault);
                        }
                        let count = message.records.len() as u64;
                        // A stream slows down to the pace.
                        while let Err(wait) = self.pace.take(count, Instant::now()) {
                            tokio::time::sleep(wait).await;
                        }
                        self.write_all(&message.records, &mut counts);
                    }
                    Ok(None) => break Ok(counts),
                    Err(_) => break Err(Fault::Cancelled),
                }
            };
            running.finish(outcome).map(Response::new)
        }
    }
}

/// The level of that number; info for one that names none.
fn level_of(number: i32) -> Level {
    let level = LogLevel::try_from(number).ok();
    level.and_then(Level::from_message).unwrap_or(Level::Info)
}

/// The least severe level that the host keeps; nothing when it keeps none.
fn least() -> LogLevel {
    let kept = Level::ALL
        .into_iter()
        .find(|level| plugin_log::is_kept(*level));
    kept.map_or(LogLevel::Unspecified, LogLevel::from)
}

/// Writes a record under the name of `plugin`; whether the host keeps it.
fn write(plugin: &str, record: &LogRecord) -> bool {
    let level = level_of(record.level);
    let kept = plugin_log::is_kept(level);
    if kept {
        plugin_log::emit(plugin, &bounded(level, record));
    }
    kept
}

/// The record as lines of stderr become one, within the bounds.
fn bounded(level: Level, record: &LogRecord) -> logs::LogRecord {
    let mut fields: Vec<_> = record.fields.iter().collect();
    fields.sort_unstable();
    let short = |text| shortened(text, LONGEST_TEXT).into_owned();
    let taken = fields.iter().take(MOST_FIELDS);
    let time = record.time.as_ref();
    let message = shortened(&record.message, LONGEST_MESSAGE);
    logs::LogRecord {
        time: time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok()),
        module: (!record.module.is_empty()).then(|| short(&record.module)),
        fields: taken
            .map(|(key, value)| (short(key), short(value).into()))
            .collect(),
        fields_omitted: fields.len().saturating_sub(MOST_FIELDS),
        ..logs::LogRecord::new(LogSource::Service, level, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_fields_some_are_taken_and_the_rest_is_counted() {
        let fields = (0..70).map(|n| (format!("k{n:02}"), "v\n".to_owned()));
        let record = LogRecord {
            fields: fields.collect(),
            ..LogRecord::default()
        };
        let text = bounded(Level::Info, &record).fields_text().expect("fields");
        assert!(text.starts_with("k00=\"v\\n\" k01="), "{text}");
        assert!(text.ends_with("k63=\"v\\n\" … 6 more"), "{text}");
    }

    #[test]
    fn a_long_value_is_cut_and_stays_one_word() {
        let long = "x".repeat(LONGEST_TEXT + 5);
        let record = LogRecord {
            fields: [("k".to_owned(), long)].into(),
            ..LogRecord::default()
        };
        let text = bounded(Level::Info, &record).fields_text().expect("fields");
        assert!(text.starts_with("k=\"xxx"), "{text}");
        assert!(text.ends_with("xxx… (+5 bytes)\""), "{text}");
    }

    #[test]
    fn an_unknown_level_is_info() {
        assert_eq!(level_of(0), Level::Info);
        assert_eq!(level_of(99), Level::Info);
        assert_eq!(level_of(5), Level::Error);
    }
}
