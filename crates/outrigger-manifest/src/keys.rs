//! The keys of manifests and policies: what one is called, what its value is and what it means.
//!
//! A key is described once, beside the type that its section is read into. The names that a
//! reader knows, the JSON Schemas and the tables of `docs/manifest.md` all come from there.

use std::marker::PhantomData;

use serde_json::{Map, Value, json};

use crate::check::{Check, Fields, Home, Side};
use crate::problem::Position;
use crate::tree::{Kind, Node};

/// A kind of value: how it is read, and how others are told of it.
pub(crate) trait Shape {
    /// What it is read into.
    type Value;

    /// What the reference page calls it.
    fn kind(side: Side) -> String;

    fn schema(side: Side) -> Value;

    /// The keys of the value, where it is a map with keys of ours.
    fn keys() -> Option<&'static Section> {
        None
    }

    /// The value; `None` when what is wrong with it was reported.
    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Self::Value>;
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    /// Only a rule that denies may leave it out, and then means all.
    RequiredUnlessDenied,
    Optional,
    /// Without a value it counts as left out.
    MayBeEmpty,
    /// As [`Presence::MayBeEmpty`] in a manifest. In a policy it must have a value: a denial
    /// without one would silently deny nothing.
    MayBeEmptyInRequests,
}

/// A key whose value is of this shape.
pub(crate) struct Key<S> {
    pub(crate) name: &'static str,
    presence: Presence,
    default: &'static str,
    denied_default: &'static str,
    meaning: &'static str,
    shape: PhantomData<fn() -> S>,
}

impl<S> Key<S> {
    /// A key; its meaning is a phrase without a full stop.
    pub(crate) const fn new(name: &'static str, presence: Presence, meaning: &'static str) -> Self {
        Key {
            name,
            presence,
            default: "",
            denied_default: "",
            meaning,
            shape: PhantomData,
        }
    }

    pub(crate) const fn required(name: &'static str, meaning: &'static str) -> Self {
        Key::new(name, Presence::Required, meaning)
    }

    pub(crate) const fn optional(name: &'static str, meaning: &'static str) -> Self {
        Key::new(name, Presence::Optional, meaning)
    }

    /// What the key means when it is left out, in a request or a rule that allows.
    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    /// What the key means when a rule that denies leaves it out.
    pub(crate) const fn denied_default(mut self, default: &'static str) -> Self {
        self.denied_default = default;
        self
    }

    fn default_of(&self, side: Side) -> &'static str {
        match side {
            Side::Request | Side::Allow => self.default,
            Side::Deny => self.denied_default,
        }
    }

    fn is_required_of(&self, side: Side) -> bool {
        match self.presence {
            Presence::Required => true,
            Presence::RequiredUnlessDenied => side != Side::Deny,
            Presence::Optional | Presence::MayBeEmpty | Presence::MayBeEmptyInRequests => false,
        }
    }

    /// Whether the key may stand without a value, as if it were left out.
    fn may_be_empty(&self, side: Side) -> bool {
        match self.presence {
            Presence::MayBeEmpty => true,
            Presence::MayBeEmptyInRequests => side == Side::Request,
            Presence::Required | Presence::RequiredUnlessDenied | Presence::Optional => false,
        }
    }
}

impl<S: Shape> Key<S> {
    /// Where the key's value stands among the fields, if it has one. Reports a required key that
    /// is missing.
    pub(crate) fn find<'n>(
        &self,
        check: &mut Check,
        fields: &Fields<'n>,
    ) -> Option<(String, &'n Node)> {
        if self.is_required_of(check.side) {
            fields.require(check, self.name)
        } else if self.may_be_empty(check.side) {
            fields.section(self.name)
        } else {
            fields.get(self.name)
        }
    }

    /// The key's value; `None` when it is left out or wrong.
    pub(crate) fn read(&self, check: &mut Check, fields: &Fields<'_>) -> Option<S::Value> {
        let (location, node) = self.find(check, fields)?;
        S::read(check, node, &location)
    }

    /// The key's value, or `absent` when it is left out; `None` when it is wrong, or required.
    pub(crate) fn read_or(
        &self,
        check: &mut Check,
        fields: &Fields<'_>,
        absent: S::Value,
    ) -> Option<S::Value> {
        Some(self.given(check, fields)?.unwrap_or(absent))
    }

    /// The key's value; its default, which is then written as in a file, where it is left out or
    /// wrong.
    pub(crate) fn read_or_default(&self, check: &mut Check, fields: &Fields<'_>) -> S::Value {
        let given = self.read(check, fields);
        given.unwrap_or_else(|| {
            let default = Node {
                at: Position::IN_CODE,
                kind: Kind::Plain(self.default.trim_matches('`').to_owned()),
            };
            S::read(&mut Check::default(), &default, self.name)
                .expect("the default of a key is a value of it")
        })
    }

    /// The key's value, `Some(None)` when it is left out; `None` when it is wrong, or required.
    pub(crate) fn given(&self, check: &mut Check, fields: &Fields<'_>) -> Option<Option<S::Value>> {
        match self.find(check, fields) {
            Some((location, node)) => S::read(check, node, &location).map(Some),
            None => (!self.is_required_of(check.side)).then_some(None),
        }
    }
}

/// A key of any shape.
pub(crate) trait AnyKey: Sync {
    fn name(&self) -> &'static str;
    fn is_required(&self, side: Side) -> bool;
    fn schema(&self, side: Side) -> Value;
    /// The keys of its value, where that is a map with keys of ours.
    fn keys(&self) -> Option<&'static Section>;
    /// The row of the reference page: key, type, default, meaning.
    fn row(&self, side: Side) -> [String; 4];
}

impl<S: Shape> AnyKey for Key<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_required(&self, side: Side) -> bool {
        self.is_required_of(side)
    }

    fn schema(&self, side: Side) -> Value {
        let mut text = sentence(self.meaning);
        if !self.default_of(side).is_empty() {
            text = format!("{text} Default: {}.", self.default_of(side));
        }
        let schema = S::schema(side);
        let schema = if self.may_be_empty(side) {
            or_null(schema)
        } else {
            schema
        };
        described(schema, &text)
    }

    fn keys(&self) -> Option<&'static Section> {
        S::keys()
    }

    fn row(&self, side: Side) -> [String; 4] {
        let default = if self.is_required_of(side) {
            "required"
        } else {
            self.default_of(side)
        };
        [
            format!("`{}`", self.name),
            S::kind(side),
            default.to_owned(),
            self.meaning.to_owned(),
        ]
    }
}

/// The keys that a map may have.
pub(crate) struct Section {
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [&'static dyn AnyKey],
}

impl Section {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name()).collect()
    }

    /// The entries of a map with these keys; others are reported.
    pub(crate) fn fields<'n>(
        &self,
        check: &mut Check,
        node: &'n Node,
        location: &str,
    ) -> Option<Fields<'n>> {
        check.map(node, location, &self.names())
    }

    pub(crate) fn schema(&self, side: Side) -> Value {
        let property = |key: &&dyn AnyKey| (key.name().to_owned(), key.schema(side));
        let properties: Map<String, Value> = self.keys.iter().map(property).collect();
        let required = self.keys.iter().filter(|key| key.is_required(side));
        let required: Vec<&str> = required.map(|key| key.name()).collect();
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        described(schema, &sentence(self.about))
    }
}

/// What a section is read into.
pub(crate) trait Group: Sized {
    fn section() -> &'static Section;

    /// The value; `None` when what is wrong with it was reported.
    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Self>;
}

impl<G: Group> Shape for G {
    type Value = G;

    fn kind(_: Side) -> String {
        "map".to_owned()
    }

    fn schema(side: Side) -> Value {
        G::section().schema(side)
    }

    fn keys() -> Option<&'static Section> {
        Some(G::section())
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<G> {
        let fields = G::section().fields(check, node, location)?;
        G::from_fields(check, &fields)
    }
}

/// The place of a section in a file, where its keys belong if they stand elsewhere.
pub(crate) const fn home<G: Group>(place: &'static str) -> Home {
    Home {
        place,
        has: |key| G::section().keys.iter().any(|known| known.name() == key),
        read: |check, fields| drop(G::from_fields(check, fields)),
    }
}

/// The phrase as a sentence.
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}

pub(crate) fn described(mut schema: Value, description: &str) -> Value {
    if !description.is_empty() {
        schema["description"] = json!(description);
    }
    schema
}

/// What may also be named without a value.
fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = match kind {
            Value::Array(mut kinds) => {
                kinds.push(json!("null"));
                Value::Array(kinds)
            }
            kind => json!([kind, "null"]),
        };
        return schema;
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(Value::Array(ways)) = schema.get_mut(choice) {
            ways.push(json!({"type": "null"}));
        }
    }
    schema
}
