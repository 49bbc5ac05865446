//! What the host decided while a plugin ran.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use outrigger_services::{AuditLog, AuditRecord, Verdict};
use serde::Serialize;

use crate::control::{proto, telling};
use crate::failure::{Failure, printable};
use crate::{output, shown};

/// The largest size of an audit file, in bytes, before it is put aside.
pub(crate) const LARGEST_FILE: u64 = 64 << 20;
/// How long the last records may take to reach the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where decisions go, and how many there were.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    log: AuditLog,
    tally: Arc<Tally>,
    shown: bool,
}

#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    undecided: AtomicU64,
    first: OnceLock<String>,
}

/// For the object that `call --json` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) undecided: u64,
}

impl Audit {
    /// For `--audit` (a line on stderr for each decision) and `--audit=FILE`.
    ///
    /// # Errors
    /// `audit-file-unusable`.
    pub(crate) fn new(wanted: &Option<Option<PathBuf>>) -> Result<Self, Failure> {
        let tally = Arc::new(Tally::default());
        let shown = matches!(wanted, Some(None));
        let seen = tally.clone();
        let mut log = AuditLog::callback(move |record| {
            seen.count(record);
            if shown {
                output::audit(&line(&telling::audit(record)));
            }
        });
        if let Some(Some(path)) = wanted {
            let file = AuditLog::open(path, LARGEST_FILE).map_err(|error| {
                Failure::usage(error.code(), printable(&error.to_string())).caused_by(&error)
            })?;
            log = log.and(file);
        }
        Ok(Self { log, tally, shown })
    }

    /// Takes the records.
    pub(crate) fn log(&self) -> AuditLog {
        self.log.clone()
    }

    /// How many operations there were so far.
    pub(crate) fn counts(&self) -> Counts {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            done: count(&self.tally.done),
            failed: count(&self.tally.failed),
            refused: count(&self.tally.refused),
            undecided: count(&self.tally.undecided),
        }
    }

    /// Waits for the file, and says what was refused if nobody saw it.
    pub(crate) fn finish(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.log.flush(PATIENCE) || self.log.dropped() > 0 {
            let dropped = self.log.dropped();
            notes.push(format!("{dropped} audit records could not be written"));
        }
        if let (false, Some(first)) = (self.shown, self.tally.first.get()) {
            let refused = self.counts().refused;
            notes.push(match refused {
                1 => format!("the host refused {first}"),
                _ => format!(
                    "the host refused {refused} operations (`--audit` shows all), the first: {first}"
                ),
            });
        }
        notes
    }
}

impl Tally {
    fn count(&self, record: &AuditRecord) {
        let number = match record.verdict {
            Verdict::Refused => &self.refused,
            Verdict::Allowed if record.code == "ok" => &self.done,
            Verdict::Allowed => &self.failed,
            Verdict::Undecided => &self.undecided,
        };
        number.fetch_add(1, Ordering::Relaxed);
        if record.verdict == Verdict::Refused {
            self.first.get_or_init(|| {
                let record = telling::audit(record);
                operation(&record) + &reasons(&record)
            });
        }
    }
}

fn operation(record: &proto::AuditRecord) -> String {
    let text = format!(
        "{}.{} {}",
        record.capability, record.operation, record.argument
    );
    text.trim_end().to_owned()
}

/// Why something did not happen, and what would have been needed.
fn reasons(record: &proto::AuditRecord) -> String {
    let mut text = String::new();
    for (before, part) in [
        (": ", &record.reason),
        ("; it would need ", &record.missing),
    ] {
        // Some reasons say what is missing.
        if !text.contains(part.as_str()) {
            text.push_str(before);
            text.push_str(part);
        }
    }
    text
}

/// One decision: when, what, how it was judged, by which rule, and how long it took.
fn line(record: &proto::AuditRecord) -> String {
    line_of(record, "")
}

/// [`line()`] with the plugin's name, where there are several.
pub(crate) fn named_line(record: &proto::AuditRecord) -> String {
    line_of(record, &format!("{}: ", record.plugin))
}

fn line_of(record: &proto::AuditRecord, name: &str) -> String {
    let colour = |colour: AnsiColor| Style::new().bold().fg_color(Some(colour.into()));
    let (word, style) = match (record.verdict.as_str(), record.code.as_str()) {
        ("refused", _) => ("refused", colour(AnsiColor::Red)),
        ("allowed", "ok") => ("allowed", colour(AnsiColor::Green)),
        ("allowed", _) => ("failed ", colour(AnsiColor::Yellow)),
        _ => ("undecided", colour(AnsiColor::Yellow)),
    };
    let dim = Style::new().dimmed();
    let mut text = format!(
        "{dim}{}{dim:#} {style}{word}{style:#} {name}{}",
        shown::clock(record.time.as_ref()),
        operation(record)
    );
    if record.code != "ok" {
        text.push_str(&format!(" [{}]{}", record.code, reasons(record)));
    }
    if !record.rule.is_empty() && !record.reason.contains(&record.rule) {
        text.push_str(&format!("; rule: {}", record.rule));
    }
    if record.bytes > 0 {
        text.push_str(&format!(", {} bytes", record.bytes));
    }
    let took = shown::span(record.took.as_ref()).unwrap_or_default();
    format!("{text}, {} µs", took.as_micros())
}
