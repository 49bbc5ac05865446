//! One decision, and how it reads.

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

/// How an operation was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A grant covers it; it may still have failed.
    Allowed,
    /// No grant covers it, or a rule or a limit of the host forbids it.
    Refused,
    /// It ended before it was judged: the plugin gave it up, it took too long, or
    /// what had to be known first could not be found out. Nothing was done.
    Undecided,
}

impl Verdict {
    /// Its word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }
}

/// One decision of a host service. Texts that came from a plugin are escaped
/// and cut, and secrets in them are replaced.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When the operation ended.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The plugin's name, as the host knows it.
    pub plugin: Arc<str>,
    /// The digest of its program, where the host said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Arc<str>>,
    /// Which run of the plugin.
    pub instance: Arc<str>,
    /// Its process, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What the plugin said about itself (`client`): shown, never believed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// The plugin's id of the request: shown, never believed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// The trace that the call belongs to, where the plugin said one: shown, never
    /// believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The capability or service: `filesystem`, `network`, …
    pub capability: &'static str,
    /// What was done with it: `open`, `connect`, …
    pub operation: &'static str,
    /// With what.
    pub argument: String,
    /// How it was judged.
    pub verdict: Verdict,
    /// Which rule decided, as its place in the manifest or its name.
    pub rule: String,
    /// `ok`, or the stable code of what happened instead.
    pub code: &'static str,
    /// Why it did not happen, in the host's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The grant that would have been needed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub missing: String,
    /// Contents moved, in bytes.
    pub bytes: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl AuditRecord {
    /// What somebody decided about a plugin that need not run: `who` let it do `operation` with a
    /// `capability`.
    ///
    /// ```
    /// use outrigger_services::{AuditLog, AuditRecord};
    ///
    /// let record = AuditRecord::by_person("ada", "lister", "approval", "approve", "version 1.0.0");
    /// assert_eq!(record.to_string(), "allowed lister: approval.approve version 1.0.0 by ada, 0 µs");
    /// AuditLog::none().add(record);
    /// ```
    pub fn by_person(
        who: &str,
        plugin: &str,
        capability: &'static str,
        operation: &'static str,
        argument: &str,
    ) -> Self {
        let shown = |text| outrigger_wire::text::printable(text).into_owned();
        Self {
            time: SystemTime::now(),
            plugin: shown(plugin).into(),
            digest: None,
            instance: "".into(),
            pid: None,
            trace_id: None,
            client: String::new(),
            request: String::new(),
            capability,
            operation,
            argument: shown(argument),
            verdict: Verdict::Allowed,
            rule: shown(who),
            code: "ok",
            reason: String::new(),
            missing: String::new(),
            bytes: 0,
            micros: 0,
        }
    }

    /// The same record about a program that hashes to `digest`.
    #[must_use]
    pub fn with_digest(mut self, digest: &str) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// The line of the file, without its end.
    pub fn to_json(&self) -> String {
        // Every field is a string or a number: there is nothing that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// For people: one line.
impl std::fmt::Display for AuditRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (verdict, name, operation) = (self.verdict.as_str(), self.capability, self.operation);
        write!(f, "{verdict} {}: {name}.{operation}", self.plugin)?;
        if !self.argument.is_empty() {
            write!(f, " {}", self.argument)?;
        }
        if !self.rule.is_empty() {
            write!(f, " by {}", self.rule)?;
        }
        if self.code != "ok" {
            write!(f, " [{}] {}", self.code, self.reason)?;
        }
        if !self.reason.contains(&self.missing) {
            write!(f, "; needs {}", self.missing)?;
        }
        if self.bytes > 0 {
            write!(f, ", {} bytes", self.bytes)?;
        }
        write!(f, ", {} µs", self.micros)
    }
}

pub(super) fn timestamp(time: SystemTime) -> String {
    let mut text = String::new();
    // A clock that is set beyond the year 9999 has no date.
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let _ = write!(text, "{time:.6}");
    text
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}
