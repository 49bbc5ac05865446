//! The one place that knows the YAML library: text to a tree that keeps positions.
//!
//! Nothing is interpreted here. A scalar keeps its letters, a map keeps keys written twice, and
//! what cannot be represented is reported and left out as [`Kind::Broken`].

use std::collections::HashSet;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, StructureStyle};

use crate::check::Check;
use crate::problem::{Position, ProblemCode};
use crate::syntax::{Context, trace};

/// Deepest nesting of flow collections, and of block collections.
const MAX_DEPTH: usize = 24;

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

enum Frame {
    Map {
        at: Position,
        flow: bool,
        entries: Vec<(Key, Node)>,
        key: Pending,
    },
    List {
        at: Position,
        flow: bool,
        items: Vec<Node>,
    },
}

impl Frame {
    fn at(&self) -> Position {
        match self {
            Frame::Map { at, .. } | Frame::List { at, .. } => *at,
        }
    }

    fn is_flow(&self) -> bool {
        match self {
            Frame::Map { flow, .. } | Frame::List { flow, .. } => *flow,
        }
    }
}

/// The key whose value comes next.
enum Pending {
    None,
    Key(Key),
    Unusable,
}

/// The first document of the text. `None` when there is none; the reason is then reported.
pub(crate) fn parse(text: &str, check: &mut Check) -> Option<Node> {
    if !check.fits_a_file(text.len(), Position::START) {
        return None;
    }
    let mut builder = Builder {
        check,
        frames: Vec::new(),
        root: None,
        documents: 0,
        after_scalar: false,
        last: Position::START,
        last_spans_lines: false,
    };
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                let (start, end) = (position(&span.start), position(&span.end));
                builder.last = start;
                builder.last_spans_lines = quoted_over_lines(&event, start, end);
                if !builder.take(event, start) {
                    break;
                }
            }
            Err(error) => {
                builder.syntax_error(text, &error);
                break;
            }
        }
    }
    builder.finish()
}

struct Builder<'c> {
    check: &'c mut Check,
    frames: Vec<Frame>,
    root: Option<Node>,
    documents: usize,
    after_scalar: bool,
    /// Where the last event began.
    last: Position,
    last_spans_lines: bool,
}

impl Builder<'_> {
    /// Returns whether to go on.
    fn take(&mut self, event: Event<'_>, at: Position) -> bool {
        self.after_scalar = false;
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.check.report(
                        at,
                        ProblemCode::SeveralDocuments,
                        "",
                        "a second document begins here; only one is read",
                    );
                    return false;
                }
            }
            Event::Scalar(value, style, _, tag) => {
                if tag.is_some() {
                    self.tag(at);
                }
                let value = value.into_owned();
                let kind = match style {
                    ScalarStyle::Plain => Kind::Plain(value),
                    _ => Kind::Text(value),
                };
                self.push(Node { at, kind });
                self.after_scalar = true;
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.check
                    .report(
                        at,
                        ProblemCode::AliasNotAllowed,
                        "",
                        "aliases (`*name`) are not read",
                    )
                    .help("write the value out");
                self.push(Node {
                    at,
                    kind: Kind::Broken,
                });
            }
            Event::SequenceStart(style, _, tag) => {
                if tag.is_some() {
                    self.tag(at);
                }
                self.frames.push(Frame::List {
                    at,
                    flow: style == StructureStyle::Flow,
                    items: Vec::new(),
                });
            }
            Event::MappingStart(style, _, tag) => {
                if tag.is_some() {
                    self.tag(at);
                }
                self.frames.push(Frame::Map {
                    at,
                    flow: style == StructureStyle::Flow,
                    entries: Vec::new(),
                    key: Pending::None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => {}
        }
        true
    }

    fn tag(&mut self, at: Position) {
        self.check
            .report(
                at,
                ProblemCode::TagNotAllowed,
                "",
                "tags (`!name`) are not read",
            )
            .help("remove the tag; quote the value if it is meant as a text");
    }

    fn push(&mut self, node: Node) {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => match std::mem::replace(key, Pending::None) {
                Pending::Key(name) => {
                    // The library places a value that is not there behind later comments.
                    let at = match &node.kind {
                        Kind::Plain(text) if text.is_empty() => name.at,
                        _ => node.at,
                    };
                    entries.push((name, Node { at, ..node }));
                }
                Pending::Unusable => {}
                Pending::None => match node.kind {
                    Kind::Plain(text) | Kind::Text(text) => {
                        *key = Pending::Key(Key { at: node.at, text });
                    }
                    Kind::NotUtf8(_) | Kind::Broken => *key = Pending::Unusable,
                    Kind::Map(_) | Kind::List(_) => {
                        *key = Pending::Unusable;
                        self.check.report(
                            node.at,
                            ProblemCode::KeyNotText,
                            "",
                            "the key of a map must be a text, not a list or a map",
                        );
                    }
                },
            },
        }
    }

    fn close(&mut self) {
        let node = match self.frames.pop() {
            Some(Frame::List { at, items, .. }) => Node {
                at,
                kind: Kind::List(items),
            },
            Some(Frame::Map { at, entries, .. }) => Node {
                at,
                kind: Kind::Map(entries),
            },
            None => return,
        };
        self.push(node);
    }

    fn syntax_error(&mut self, text: &str, error: &ScanError) {
        let at = position(error.marker());
        match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart => self.tabs(text, at),
            // Shown where the text before the tab begins.
            ErrorKind::TabInPlainScalar => {
                let line = at.line + 1;
                self.tabs(text, Position { line, column: 1 });
            }
            // A tab can pass for an indentation until it is compared with another.
            ErrorKind::ExpectedDocumentStart
            | ErrorKind::ExpectedBlockMappingKey
            | ErrorKind::ExpectedBlockSequenceEntry
            | ErrorKind::MappingValueNotAllowed
                if tabs(text).next().is_some_and(|tab| tab.line <= at.line) =>
            {
                self.tabs(text, Position::START);
            }
            ErrorKind::RecursionLimitExceeded => {
                self.check.report(
                    at,
                    ProblemCode::NestingTooDeep,
                    "",
                    format!("lists and maps lie in one another deeper than {MAX_DEPTH} levels"),
                );
            }
            _ => {
                let brackets: Vec<Position> = self
                    .frames
                    .iter()
                    .filter(|frame| frame.is_flow())
                    .map(Frame::at)
                    .collect();
                let context = Context {
                    text,
                    last: self.last,
                    last_spans_lines: self.last_spans_lines,
                    brackets: &brackets,
                };
                for error in trace(&context, error) {
                    self.after_scalar &= !forget_key(&mut self.frames, error.at);
                    let problem =
                        self.check
                            .report(error.at, ProblemCode::YamlSyntax, "", error.message);
                    let problem = problem.near(error.near);
                    if let Some(help) = error.help {
                        problem.help(help);
                    }
                }
            }
        }
        // What was read before the error is still checked, but nothing is called missing, and
        // what was open when it happened is not looked at.
        self.check.incomplete = true;
        if self.after_scalar {
            self.drop_last_scalar();
        }
        while let Some(frame) = self.frames.last() {
            if frame.is_flow() {
                let at = frame.at();
                self.frames.pop();
                self.push(Node {
                    at,
                    kind: Kind::Broken,
                });
            } else {
                self.close();
            }
        }
    }

    /// The text before a syntax error may be longer or shorter than it was meant to be.
    fn drop_last_scalar(&mut self) {
        match self.frames.last_mut() {
            None => self.root = None,
            Some(Frame::List { items, .. }) => {
                items.pop();
            }
            Some(Frame::Map { entries, key, .. }) => match key {
                Pending::None => {
                    if let Some((_, node)) = entries.last_mut() {
                        node.kind = Kind::Broken;
                    }
                }
                Pending::Key(_) | Pending::Unusable => *key = Pending::None,
            },
        }
    }

    /// Every line that is indented with a tab, from the first that was met.
    fn tabs(&mut self, text: &str, first: Position) {
        let mut found: Vec<Position> = tabs(text).filter(|tab| tab.line >= first.line).collect();
        if found.is_empty() {
            found.push(first);
        }
        for position in found {
            self.check
                .report(
                    position,
                    ProblemCode::TabIndentation,
                    "",
                    "this line is indented with a tab",
                )
                .help("indent with spaces");
        }
    }

    fn finish(mut self) -> Option<Node> {
        while !self.frames.is_empty() {
            self.close();
        }
        let empty = match &self.root {
            None => true,
            Some(node) => matches!(&node.kind, Kind::Plain(text) if text.is_empty()),
        };
        if empty && !self.check.incomplete {
            self.check.report(
                Position::START,
                ProblemCode::EmptyFile,
                "",
                "the file says nothing",
            );
        }
        if empty { None } else { self.root }
    }
}

/// The first tab in the indentation of each line that has one.
fn tabs(text: &str) -> impl Iterator<Item = Position> {
    (1_u32..).zip(lines(text)).filter_map(|(number, line)| {
        let rest = line.trim_start();
        let indent = &line[..line.len() - rest.len()];
        let tab = indent.chars().position(|character| character == '\t')?;
        let column = u32::try_from(tab).unwrap_or(u32::MAX - 1) + 1;
        (!rest.is_empty()).then_some(Position {
            line: number,
            column,
        })
    })
}

/// Leaves out a key that is a syntax error itself; whether there was one.
fn forget_key(frames: &mut [Frame], at: Position) -> bool {
    let Some(Frame::Map { entries, key, .. }) = frames.last_mut() else {
        return false;
    };
    let count = entries.len();
    entries.retain(|(key, _)| key.at != at);
    let pending = matches!(key, Pending::Key(key) if key.at == at);
    if pending {
        *key = Pending::None;
    }
    pending || entries.len() < count
}

fn quoted_over_lines(event: &Event<'_>, start: Position, end: Position) -> bool {
    let quoted = matches!(
        event,
        Event::Scalar(_, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted, ..)
    );
    quoted && start.line < end.line
}

pub(crate) fn position(marker: &Marker) -> Position {
    Position {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col()).unwrap_or(u32::MAX - 1) + 1,
    }
}

/// The lines of a text as YAML counts them.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let skip = if text[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = Some(&text[end + skip..]);
        Some(&text[..end])
    })
}
