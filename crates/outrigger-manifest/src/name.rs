//! Names of plugins, environment variables and programs.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::check::{Check, Side, join};
use crate::keys::Shape;
use crate::message::quoted;
use crate::problem::{Position, ProblemCode};
use crate::tree::Node;

/// The name of a plugin: 1 to 64 lower-case ASCII letters, digits, `-`, `_` and `.`, beginning
/// with a letter, ending with a letter or digit, never with two of `-`, `_`, `.` in a row.
///
/// ```
/// use outrigger_manifest::PluginName;
///
/// assert!("dog-grpc".parse::<PluginName>().is_ok());
/// assert!("../etc".parse::<PluginName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(String);

/// A text that is no plugin name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is not a plugin name", quoted(.0))]
pub struct PluginNameError(String);

impl PluginNameError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-name"
    }

    /// A name near to the text, if there is one.
    #[must_use]
    pub fn near_miss(&self) -> Option<String> {
        near_name(&self.0)
    }
}

/// A name near to a text that is none, if there is one.
pub(crate) fn near_name(text: &str) -> Option<String> {
    let mut near = String::new();
    for character in text.trim().to_lowercase().chars().take(64) {
        let kept = if character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.') {
            character
        } else {
            '-'
        };
        if kept.is_ascii_alphanumeric() || near.ends_with(|c: char| c.is_ascii_alphanumeric()) {
            near.push(kept);
        }
    }
    let near = near
        .trim_start_matches(|c: char| !c.is_ascii_lowercase())
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    is_name(near).then(|| near.to_owned())
}

/// Whether a text can be the name of a plugin or of a service.
pub(crate) fn is_name(text: &str) -> bool {
    let joiner = |byte: u8| matches!(byte, b'-' | b'_' | b'.');
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.last().is_some_and(|last| letter(*last))
        && bytes.iter().all(|byte| letter(*byte) || joiner(*byte))
        && !bytes
            .windows(2)
            .any(|pair| joiner(pair[0]) && joiner(pair[1]))
}

impl PluginName {
    /// A name, where none matters.
    pub(crate) fn of_anyone() -> PluginName {
        PluginName("anyone".to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginName {
    type Err = PluginNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match is_name(text) {
            true => Ok(PluginName(text.to_owned())),
            false => Err(PluginNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for PluginName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for PluginName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for PluginName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Shape for PluginName {
    type Value = PluginName;

    fn kind(_: Side) -> String {
        "text".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "pattern": PluginName::PATTERN, "maxLength": 64})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<PluginName> {
        let text = check.text(node, location)?;
        PluginName::read_text(check, node.at, location, text)
    }
}

impl PluginName {
    /// The rule for names but for their length, as a JSON Schema spells it.
    pub(crate) const PATTERN: &str = "^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$";

    /// The name; what is wrong with it is reported.
    pub(crate) fn read_text(
        check: &mut Check,
        at: Position,
        location: &str,
        text: &str,
    ) -> Option<PluginName> {
        let name = text.parse::<PluginName>();
        if let Err(error) = &name {
            check
                .report(at, ProblemCode::InvalidName, location, error.to_string())
                .near(error.near_miss())
                .help("names have 1 to 64 of a-z, 0-9, `-`, `_` and `.`, begin with a letter and end with a letter or digit");
        }
        name.ok()
    }
}

/// Variables by which host and plugin find each other; a manifest must not set them.
pub(crate) const RESERVED_VARIABLES: &[&str] = &[
    "PLUGIN_MIN_PORT",
    "PLUGIN_MAX_PORT",
    "PLUGIN_PROTOCOL_VERSIONS",
    "PLUGIN_CLIENT_CERT",
    "PLUGIN_MULTIPLEX_GRPC",
    "PLUGIN_UNIX_SOCKET_DIR",
    "PLUGIN_UNIX_SOCKET_GROUP",
    "OUTRIGGER_HOST_SERVICES",
    "OUTRIGGER_SERVICES",
    "OUTRIGGER_PLUGIN_CONFIG",
];

/// Whether the text can name an environment variable: letters, digits and `_`, no digit first,
/// at most 255.
pub(crate) fn is_variable(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Names of variables that a policy's rule means: one name, `PREFIX*`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum VariablePattern {
    Name(String),
    Prefix(String),
}

impl VariablePattern {
    pub(crate) fn parse(text: &str) -> Option<VariablePattern> {
        match text.strip_suffix('*') {
            Some("") => Some(VariablePattern::Prefix(String::new())),
            Some(prefix) => is_variable(prefix).then(|| VariablePattern::Prefix(prefix.to_owned())),
            None => is_variable(text).then(|| VariablePattern::Name(text.to_owned())),
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            VariablePattern::Name(mine) => mine == name,
            VariablePattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for VariablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VariablePattern::Name(name) => f.write_str(name),
            VariablePattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Serialize for VariablePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The program of a plugin, as its manifest names it.
///
/// The path is meant relative to the plugin's folder; some manifests write it relative to the
/// repository the folder lies in. [`Entrypoint::candidates`] gives both readings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entrypoint(String);

impl Entrypoint {
    /// A clean relative path, or why it is none.
    pub(crate) fn parse(text: &str) -> Result<Entrypoint, &'static str> {
        if text.starts_with('/') {
            return Err("must be relative to the plugin's folder");
        }
        if text.contains("${") {
            return Err("must not have placeholders: it begins in the plugin's folder");
        }
        if text.trim() != text {
            return Err("must not begin or end with a space");
        }
        if text.contains('\\') {
            return Err("must use `/` between its parts");
        }
        if text.ends_with('/') {
            return Err("must name a file, not a directory");
        }
        if text.split('/').any(|part| part == "..") {
            return Err("must not leave the plugin's folder");
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if parts.is_empty() {
            return Err("must name a file, not a directory");
        }
        Ok(Entrypoint(parts.join("/")))
    }

    /// The path without `.` parts, as the manifest names it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Paths relative to the plugin's folder where the program may be, the likeliest first: the
    /// path itself, and what follows the folder's own name in it.
    ///
    /// ```
    /// # use outrigger_manifest::Manifest;
    /// # let text = "
    /// # plugin: {name: cat, format: rpc, entrypoint: ./plugins/cat/cat}
    /// # handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}";
    /// let manifest = Manifest::parse(text).unwrap();
    /// // entrypoint: ./plugins/cat/cat, in a folder named `cat`
    /// assert_eq!(manifest.entrypoint().candidates("cat"), ["plugins/cat/cat", "cat"]);
    /// ```
    #[must_use]
    pub fn candidates(&self, folder: &str) -> Vec<&str> {
        let mut candidates = vec![self.0.as_str()];
        let mut rest = self.0.as_str();
        while let Some((part, tail)) = rest.split_once('/') {
            rest = tail;
            if part == folder {
                candidates.push(tail);
                break;
            }
        }
        candidates
    }
}

impl Shape for Entrypoint {
    type Value = Entrypoint;

    fn kind(_: Side) -> String {
        "text".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "pattern": "^[^/]"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Entrypoint> {
        let text = check.text(node, location)?;
        let entrypoint = Entrypoint::parse(text);
        if let Err(why) = &entrypoint {
            let message = format!("{} {why}", quoted(text));
            check
                .report(node.at, ProblemCode::InvalidEntrypoint, location, message)
                .near(near_entrypoint(text));
        }
        entrypoint.ok()
    }
}

/// `${plugin_dir}/bin/cat` → `bin/cat`.
fn near_entrypoint(text: &str) -> Option<String> {
    let bare = text.trim().replace('\\', "/");
    let bare = bare.strip_prefix("${plugin_dir}/").unwrap_or(&bare);
    (bare != text)
        .then(|| Entrypoint::parse(bare).ok())?
        .map(|entrypoint| entrypoint.as_str().to_owned())
}

impl fmt::Display for Entrypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Entrypoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A value for each plugin, by its name.
pub(crate) struct ByName<S>(PhantomData<S>);

impl<S: Shape<Value: Default>> Shape for ByName<S> {
    type Value = BTreeMap<PluginName, S::Value>;

    fn kind(_: Side) -> String {
        "map of plugins' names to maps".to_owned()
    }

    fn schema(side: Side) -> Value {
        json!({
            "type": "object",
            "propertyNames": {"pattern": PluginName::PATTERN, "maxLength": 64},
            "additionalProperties": S::schema(side),
        })
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Self::Value> {
        let mut plugins = BTreeMap::new();
        for (key, node) in check.entries(node, location)? {
            let location = join(location, &key.text);
            let name = PluginName::read_text(check, key.at, &location, &key.text);
            let value = S::read(check, node, &location).unwrap_or_default();
            plugins.extend(name.map(|name| (name, value)));
        }
        Some(plugins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_names_are_plain() {
        for good in ["a", "cat", "dog-grpc", "py.lister_2"] {
            assert!(good.parse::<PluginName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "a b",
            "1a",
            "é",
            "a/b",
            "..",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<PluginName>().is_err(), "{bad:?}");
        }
        let near = |text: &str| text.parse::<PluginName>().unwrap_err().near_miss();
        assert_eq!(near("My Plugin!").as_deref(), Some("my-plugin"));
        assert_eq!(near("42"), None);
    }

    #[test]
    fn an_entrypoint_stays_inside_its_folder() {
        for bad in ["/bin/sh", "../x", "a/../b", "", ".", "./", "bin/", "a\\b"] {
            assert!(Entrypoint::parse(bad).is_err(), "{bad:?}");
        }
        let spelled = Entrypoint::parse("./plugins/cat/bin/cat").unwrap();
        assert_eq!(
            spelled.candidates("cat"),
            ["plugins/cat/bin/cat", "bin/cat"]
        );
        assert_eq!(spelled.candidates("dog"), ["plugins/cat/bin/cat"]);
        assert_eq!(Entrypoint::parse("cat").unwrap().candidates("cat"), ["cat"]);
    }
}
