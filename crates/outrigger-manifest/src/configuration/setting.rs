//! One value of a configuration, where it came from, and what another has instead.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::message::escaped;
use crate::problem::Position;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Nobody gave it.
    Default,
    /// It stands in a file.
    File {
        /// The file's name, as it was given.
        file: Arc<str>,
        /// Where in it the value stands.
        at: Position,
    },
    /// The environment variable of this name.
    Variable(Arc<str>),
    /// This flag of a command line.
    Flag(Arc<str>),
}

/// `default`, `config.yaml:3:14`, `variable OUTRIGGER_PLUGINS_DIR`, `flag --set`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { file, at } => write!(f, "{}:{at}", escaped(file)),
            Source::Variable(name) => write!(f, "variable {}", escaped(name)),
            Source::Flag(flag) => write!(f, "flag {}", escaped(flag)),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Source::Default => map.serialize_entry("kind", "default")?,
            Source::File { file, at } => {
                map.serialize_entry("kind", "file")?;
                map.serialize_entry("file", file.as_ref())?;
                map.serialize_entry("line", &at.line)?;
                map.serialize_entry("column", &at.column)?;
            }
            Source::Variable(name) => {
                map.serialize_entry("kind", "variable")?;
                map.serialize_entry("variable", name.as_ref())?;
            }
            Source::Flag(flag) => {
                map.serialize_entry("kind", "flag")?;
                map.serialize_entry("flag", flag.as_ref())?;
            }
        }
        map.end()
    }
}

/// One value of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The path of keys that leads to it: `supervision.restart_delay`.
    pub key: String,
    /// What it is, as JSON; null where there is none.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
    /// Whether it changes anything yet.
    pub takes_effect: bool,
    /// The environment variable that sets it, if one does.
    pub variable: Option<String>,
}

/// A value as YAML would have it on one line.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => escaped(text),
        value => escaped(&value.to_string()),
    }
}

impl Setting {
    /// The value as a variable or a flag would give it.
    pub(crate) fn value_text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        }
    }

    /// The value as people read it: a text without quotes, `none` where there is none.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.value)
    }
}

/// A value that is another in the newer of two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SettingChanged {
    /// The path of keys that leads to it.
    pub key: String,
    /// What it was; null where there was none.
    pub before: Value,
    /// What it is; null where there is none.
    pub after: Value,
    /// Where the newer one came from.
    pub source: Source,
    /// Whether it changes anything yet.
    pub takes_effect: bool,
}

/// `supervision.restart_delay: 200ms → 1s (config.yaml:12:18)`.
impl fmt::Display for SettingChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} → {} ({})",
            escaped(&self.key),
            shown(&self.before),
            shown(&self.after),
            self.source
        )?;
        if !self.takes_effect {
            f.write_str(", without effect yet")?;
        }
        Ok(())
    }
}
