//! The tree of a file, before anything is made of it.

use std::collections::HashSet;

use crate::problem::Position;

/// A value of the file and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
}

/// A value that stands for one that cannot be read.
pub(crate) static BROKEN: Node = Node {
    at: Position::START,
    kind: Kind::Broken,
};

impl Node {
    /// The key at this position, and its value.
    pub(crate) fn entry(&self, key: Position) -> Option<(&Key, &Node)> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find_map(|(mine, value)| {
                if mine.at == key {
                    Some((mine, value))
                } else {
                    value.entry(key)
                }
            }),
            Kind::List(items) => items.iter().find_map(|item| item.entry(key)),
            Kind::Plain(_) | Kind::Text(_) | Kind::NotUtf8(_) | Kind::Broken => None,
        }
    }

    /// Where it and everything in it stands.
    pub(crate) fn positions(&self) -> HashSet<Position> {
        fn add(node: &Node, all: &mut HashSet<Position>) {
            all.insert(node.at);
            match &node.kind {
                Kind::Map(entries) => {
                    for (key, value) in entries {
                        all.insert(key.at);
                        add(value, all);
                    }
                }
                Kind::List(items) => items.iter().for_each(|item| add(item, all)),
                Kind::Plain(_) | Kind::Text(_) | Kind::NotUtf8(_) | Kind::Broken => {}
            }
        }
        let mut all = HashSet::new();
        add(self, &mut all);
        all
    }
}

/// A key of a map and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) text: String,
}

/// What a value is, before anything is made of it.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Map(Vec<(Key, Node)>),
    List(Vec<Node>),
    /// Unquoted: could be a text, a number, a truth value or nothing.
    Plain(String),
    /// Quoted or a block: certainly a text.
    Text(String),
    /// A path that is no text, made in code and shown as near as a text comes.
    NotUtf8(String),
    /// Something already reported.
    Broken,
}

/// What an unquoted scalar would be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Bool,
    Number,
    Text,
}

pub(crate) fn scalar(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Scalar::Bool,
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let based = |prefix: &str, radix: u32| {
        unsigned
            .strip_prefix(prefix)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
    };
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || (unsigned.starts_with('.') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit()));
    let special = matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    );
    if special || based("0x", 16) || based("0o", 8) || (starts && unsigned.parse::<f64>().is_ok()) {
        Scalar::Number
    } else {
        Scalar::Text
    }
}

pub(crate) fn is_null(kind: &Kind) -> bool {
    matches!(kind, Kind::Plain(text) if scalar(text) == Scalar::Null)
}
