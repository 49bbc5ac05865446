//! The shapes of plain values: truth values, numbers, words and texts.

use std::marker::PhantomData;

use serde::Serializer;
use serde_json::{Value, json};

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::message::quoted;
use crate::name::is_variable;
use crate::problem::{Position, ProblemCode};
use crate::tree::Node;

/// `true` or `false`.
pub(crate) struct Bool;

impl Shape for Bool {
    type Value = bool;

    fn kind(_: Side) -> String {
        "truth value".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "boolean"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<bool> {
        check.boolean(node, location)
    }
}

/// A whole number, both ends included.
pub(crate) struct Whole<const LOW: u32, const HIGH: u32>;

impl<const LOW: u32, const HIGH: u32> Shape for Whole<LOW, HIGH> {
    type Value = u32;

    fn kind(_: Side) -> String {
        format!("whole number from {LOW}")
    }

    fn schema(_: Side) -> Value {
        json!({"type": "integer", "minimum": LOW, "maximum": HIGH})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<u32> {
        let range = u64::from(LOW)..=u64::from(HIGH);
        u32::try_from(check.integer(node, location, range)?).ok()
    }
}

/// Values that are chosen by a word.
pub(crate) trait Words: Copy + PartialEq + 'static {
    /// What such a word is, with its article.
    const WHAT: &'static str;
    const WORDS: &'static [(&'static str, Self)];

    fn names() -> Vec<&'static str> {
        Self::WORDS.iter().map(|(word, _)| *word).collect()
    }

    /// The word of a value.
    fn word(self) -> &'static str {
        let mut words = Self::WORDS.iter();
        words
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }

    fn listed() -> String {
        let words: Vec<String> = Self::names()
            .iter()
            .map(|word| format!("`{word}`"))
            .collect();
        words.join(", ")
    }
}

/// A value as its word, for serde.
pub(crate) fn word<T: Words, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.word())
}

/// One of the words.
pub(crate) struct Word<T>(PhantomData<T>);

impl<T: Words> Shape for Word<T> {
    type Value = T;

    fn kind(_: Side) -> String {
        T::listed()
    }

    fn schema(_: Side) -> Value {
        json!({"enum": T::names()})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<T> {
        check.word(node, location, T::WHAT, T::WORDS)
    }
}

/// A text in one line that looks like one, not empty.
pub(crate) struct Label;

impl Shape for Label {
    type Value = String;

    fn kind(_: Side) -> String {
        "text".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "minLength": 1})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        let text = check.text(node, location)?;
        if text.is_empty() {
            check.report(
                node.at,
                ProblemCode::EmptyValue,
                location,
                "the text is empty",
            );
        }
        Some(text.to_owned())
    }
}

/// A text that may span lines. One that looks like a number is taken as it is written.
pub(crate) struct Prose;

impl Shape for Prose {
    type Value = String;

    fn kind(_: Side) -> String {
        "text".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": ["string", "number", "boolean"]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        check.prose(node, location).map(str::to_owned)
    }
}

/// A text in one line as its letters are written, be it `8080` or `0.1`; it may be empty.
pub(crate) struct Line;

impl Shape for Line {
    type Value = String;

    fn kind(_: Side) -> String {
        "text".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": ["string", "number", "boolean"]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        check.literal(node, location).map(str::to_owned)
    }
}

/// The name of an environment variable.
pub(crate) struct Variable;

impl Shape for Variable {
    type Value = String;

    fn kind(_: Side) -> String {
        "name of a variable".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "pattern": VARIABLE})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        let text = check.text(node, location)?;
        if is_variable(text) {
            return Some(text.to_owned());
        }
        invalid_variable(check, node.at, location, text);
        None
    }
}

/// As a JSON Schema spells the rule for names of variables.
pub(crate) const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

pub(crate) fn invalid_variable(check: &mut Check, at: Position, location: &str, text: &str) {
    let bare = text.trim_start_matches('$').trim_matches(['{', '}']);
    let near = (bare != text && is_variable(bare)).then(|| bare.to_owned());
    let message = format!(
        "{} is not the name of an environment variable",
        quoted(text)
    );
    check
        .report(at, ProblemCode::InvalidVariable, location, message)
        .near(near)
        .help("names have letters, digits and `_`, and no digit first");
}

pub(crate) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// A list with at least one entry, each once.
pub(crate) fn filled_list(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1, "uniqueItems": true})
}

/// A list of maps, or the one map alone.
pub(crate) fn list_of_maps(item: Value) -> Value {
    json!({"anyOf": [item.clone(), list(item)]})
}
