//! A YAML file whose keys only somebody else knows, such as a plugin's own configuration.

use std::convert::Infallible;

use serde_json::{Map, Number, Value};

use crate::check::{Check, join, utf8};
use crate::problem::{Position, ProblemCode, Problems};
use crate::tree::{Kind, Node, Scalar, scalar};
use crate::yaml;

/// What problems call the file unless somebody says otherwise.
const FILE: &str = "config.yaml";

/// A YAML file whose keys only somebody else knows: a map, which JSON can say as well.
///
/// It is read by the rules of manifests: one document, no key twice, no anchors, at most 256 KiB.
///
/// ```
/// use outrigger_manifest::Document;
///
/// let document = Document::parse("
/// limits: {requests: 100}
/// hosts: [a.example.com]
/// ").unwrap();
/// assert_eq!(document.value()["limits"]["requests"], 100);
///
/// // Whoever knows the keys says what is wrong with them.
/// let problems = document.problems([("/limits/requests".to_owned(), "100 is too many".to_owned())]);
/// assert_eq!(problems.to_string(), "config.yaml:2:20: limits.requests: 100 is too many [against-schema]");
/// ```
#[derive(Clone, Debug)]
pub struct Document {
    root: Node,
    value: Value,
    text: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Every problem of the text at once, sorted by position.
    pub fn parse(text: &str) -> Result<Document, Problems> {
        let mut check = Check::default();
        let root = yaml::parse(text, &mut check);
        let document = root.map(|root| {
            if !matches!(root.kind, Kind::Map(_)) {
                // A list or a text has no keys.
                check.entries(&root, "");
            }
            let value = json(&mut check, &root, "");
            Document {
                root,
                value,
                text: text.to_owned(),
            }
        });
        check.finish(FILE, text, document)
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// As for [`Document::parse`]; also that the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Document, Problems> {
        Document::parse(utf8(FILE, bytes)?)
    }

    /// A file that says nothing, for one that is not there.
    #[must_use]
    pub fn empty() -> Document {
        Document {
            root: Node {
                at: Position::START,
                kind: Kind::Map(Vec::new()),
            },
            value: Value::Object(Map::new()),
            text: String::new(),
        }
    }

    /// What it says, as JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// What somebody found wrong with it: for each problem where, as a JSON pointer, and what. At
    /// most [`MAX_PROBLEMS`](crate::MAX_PROBLEMS) are kept.
    #[must_use]
    pub fn problems(&self, found: impl IntoIterator<Item = (String, String)>) -> Problems {
        let mut check = Check::default();
        for (pointer, message) in found {
            let (location, at) = self.place(&pointer);
            check.report(at, ProblemCode::AgainstSchema, &location, message);
        }
        match check.finish::<Infallible>(FILE, &self.text, None) {
            Err(problems) => problems,
            Ok(never) => match never {},
        }
    }

    /// Where a JSON pointer leads, as a path of keys and as a place in the file: as near as the
    /// file has it.
    fn place(&self, pointer: &str) -> (String, Position) {
        let (mut location, mut node) = (String::new(), &self.root);
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Map(entries) => {
                    location = join(&location, &part);
                    entries
                        .iter()
                        .find(|(key, _)| key.text == part)
                        .map(|(_, value)| value)
                }
                Kind::List(items) => {
                    location = format!("{location}[{part}]");
                    part.parse().ok().and_then(|index: usize| items.get(index))
                }
                Kind::Plain(_) | Kind::Text(_) | Kind::NotUtf8(_) | Kind::Broken => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        (location, node.at)
    }
}

/// The value; what JSON cannot say is reported.
fn json(check: &mut Check, node: &Node, location: &str) -> Value {
    match &node.kind {
        Kind::Map(_) => {
            let entries = check.entries(node, location).unwrap_or_default();
            let entry = |(key, node): (&crate::tree::Key, &Node)| {
                let value = json(check, node, &join(location, &key.text));
                (key.text.clone(), value)
            };
            Value::Object(entries.into_iter().map(entry).collect())
        }
        Kind::List(items) => {
            let items = items.iter().enumerate();
            let item = |(index, node)| json(check, node, &format!("{location}[{index}]"));
            Value::Array(items.map(item).collect())
        }
        Kind::Text(text) => Value::String(text.clone()),
        Kind::Plain(text) => match scalar(text) {
            Scalar::Null => Value::Null,
            Scalar::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
            Scalar::Text => Value::String(text.clone()),
            Scalar::Number => match number(text) {
                Some(number) => Value::Number(number),
                None => {
                    let message = format!(
                        "{} is no number that JSON has",
                        crate::message::quoted(text)
                    );
                    check.report(node.at, ProblemCode::OutOfRange, location, message);
                    Value::Null
                }
            },
        },
        Kind::NotUtf8(_) | Kind::Broken => Value::Null,
    }
}

fn number(text: &str) -> Option<Number> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let based = |prefix: &str, radix| {
        let digits = unsigned.strip_prefix(prefix)?;
        u64::from_str_radix(digits, radix).ok()
    };
    let whole = based("0x", 16)
        .or_else(|| based("0o", 8))
        .or_else(|| unsigned.parse().ok());
    match whole {
        Some(whole) if !negative => Some(whole.into()),
        Some(whole) => i64::try_from(whole).ok().map(|whole| Number::from(-whole)),
        None => Number::from_f64(text.parse().ok()?),
    }
}
