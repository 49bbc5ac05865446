//! Where a text stops being YAML, as its author would point at it.
//!
//! A parser notices an open bracket, an open quote or a missing `:` only lines later. What it
//! says is traced back here to the line that is to be mended.

use granit_parser::{ErrorKind, ScanError};

use crate::problem::Position;
use crate::text::{escaped, quoted};
use crate::yaml::{lines, position};

/// What a syntax error is, and where it began.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) near: Option<String>,
    pub(crate) help: Option<&'static str>,
}

/// How far the text was understood.
pub(crate) struct Context<'t> {
    pub(crate) text: &'t str,
    /// Where the last value or key began.
    pub(crate) last: Position,
    /// The last one was quoted, and ended on a later line than it began.
    pub(crate) last_spans_lines: bool,
    /// The open `[` and `{`, the outermost first.
    pub(crate) brackets: &'t [Position],
}

/// The errors behind the one that was noticed: several where one line after the other lacks its
/// `:`.
pub(crate) fn trace(context: &Context<'_>, error: &ScanError) -> Vec<SyntaxError> {
    let at = position(error.marker());
    let text = context.text;
    let one = |at, message: String| SyntaxError {
        at,
        message,
        near: None,
        help: None,
    };
    if let Some(start) = open_quote(context, error.kind(), at) {
        return vec![SyntaxError {
            help: Some("close it on the same line"),
            ..one(start, "this quote is not closed".to_owned())
        }];
    }
    let behind = || first_opening(context, at, &['[', '{']).filter(|open| open.line < at.line);
    let outermost = context.brackets.first().copied();
    if let Some((open, bracket)) = outermost
        .or_else(behind)
        .and_then(|open| unclosed(text, open))
    {
        let close = if bracket == '[' { ']' } else { '}' };
        return vec![SyntaxError {
            help: dollar(text, open).filter(|_| open.line == at.line),
            ..one(
                open,
                format!("this `{bracket}` is not closed by a `{close}`"),
            )
        }];
    }
    if outermost.is_some() {
        return vec![SyntaxError {
            help: dollar(text, at),
            ..one(at, not_yaml(error))
        }];
    }
    let lines: Vec<&str> = lines(text).collect();
    let line = lines.get(at.line as usize - 1).copied().unwrap_or_default();
    match error.kind() {
        ErrorKind::MappingValueNotAllowed => {
            let before: String = line.chars().take(at.column as usize - 1).collect();
            if lacks_colon_before_bracket(line) {
                return vec![lacks_colon(line, at.line)];
            }
            if has_colon(content(&before).1) {
                return vec![SyntaxError {
                    help: Some("quote a text that contains `: `"),
                    ..one(at, "a second `: ` stands on this line".to_owned())
                }];
            }
            without_colon(&lines, at.line).unwrap_or_else(|| {
                let start = first_column(line, at.line);
                let message = format!(
                    "{} is indented as part of the value before it",
                    quoted(line.trim())
                );
                vec![one(start, message)]
            })
        }
        ErrorKind::SimpleKeyExpected if !has_colon(content(line).1) => {
            vec![lacks_colon(line, at.line)]
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            let start = first_column(line, at.line);
            let message = if line.trim_start().starts_with("- ") {
                "this `- ` is in the column of no list above it".to_owned()
            } else {
                "this line is indented like none of those above it".to_owned()
            };
            vec![one(start, message)]
        }
        ErrorKind::ExpectedDocumentStart => vec![SyntaxError {
            help: Some("all keys of the top level begin in the same column"),
            ..one(at, "this belongs to nothing above it".to_owned())
        }],
        _ => vec![one(at, not_yaml(error))],
    }
}

fn not_yaml(error: &ScanError) -> String {
    format!("this is not YAML: {}", escaped(&error.info()))
}

/// `${…}` is a map to YAML where brackets are open.
fn dollar(text: &str, at: Position) -> Option<&'static str> {
    lines(text)
        .nth(at.line as usize - 1)
        .is_some_and(|line| line.contains("${"))
        .then_some("quote a text that contains `${…}` inside `[…]` or `{…}`")
}

/// Where a quote began that was not closed, or only by one that was to open another text.
fn open_quote(context: &Context<'_>, kind: &ErrorKind, at: Position) -> Option<Position> {
    if context.last_spans_lines {
        return Some(context.last);
    }
    let trailing = match kind {
        ErrorKind::InvalidTrailingSingleQuotedScalar => Some('\''),
        ErrorKind::InvalidTrailingDoubleQuotedScalar => Some('"'),
        _ => None,
    };
    if let Some(quote) = trailing {
        // The last quote before `at` closes what the one before that opened.
        let mut quotes = quotes_before(context.text, at, quote);
        let open = quotes
            .len()
            .checked_sub(2)
            .map(|index| quotes.swap_remove(index));
        return open.filter(|open| open.line < at.line);
    }
    let quoting = matches!(
        kind,
        ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar
    );
    if !quoting {
        return None;
    }
    first_opening(context, at, &['"', '\''])
}

fn quotes_before(text: &str, end: Position, quote: char) -> Vec<Position> {
    let mut found = Vec::new();
    for (line, content) in (1_u32..).zip(lines(text)).take(end.line as usize) {
        for (column, character) in (1_u32..).zip(content.chars()) {
            let at = Position { line, column };
            if character == quote && at < end {
                found.push(at);
            }
        }
    }
    found
}

/// The first of these characters behind what was understood that stands where a text, list or
/// map may begin.
fn first_opening(context: &Context<'_>, end: Position, wanted: &[char]) -> Option<Position> {
    for (number, line) in (1_u32..).zip(lines(context.text)) {
        if number < context.last.line || number > end.line {
            continue;
        }
        let mut may_begin = true;
        for (column, character) in (1_u32..).zip(line.chars()) {
            let here = Position {
                line: number,
                column,
            };
            if here >= context.last && here <= end && may_begin && wanted.contains(&character) {
                return Some(here);
            }
            may_begin = match character {
                ' ' => may_begin,
                ':' | '-' | '[' | '{' | ',' => true,
                '#' if may_begin => break,
                _ => false,
            };
        }
    }
    None
}

/// The first bracket from `start` on that nothing closes.
fn unclosed(text: &str, start: Position) -> Option<(Position, char)> {
    let mut open: Vec<(Position, char)> = Vec::new();
    for (number, line) in (1_u32..).zip(lines(text)) {
        if number < start.line {
            continue;
        }
        let mut quote = None;
        let mut before = ' ';
        for (column, character) in (1_u32..).zip(line.chars()) {
            let at = Position {
                line: number,
                column,
            };
            if at < start {
                continue;
            }
            match (quote, character) {
                (Some(opened), _) if opened == character => quote = None,
                (Some(_), _) => {}
                (None, '#') if before == ' ' => break,
                (None, '"' | '\'') if " [{,:".contains(before) => quote = Some(character),
                (None, '[' | '{') => open.push((at, character)),
                (None, ']' | '}') => match open.pop() {
                    Some((_, '[')) if character == ']' => {}
                    Some((_, '{')) if character == '}' => {}
                    unmatched => return unmatched,
                },
                (None, _) => {}
            }
            if open.is_empty() {
                return None;
            }
            before = character;
        }
    }
    open.first().copied()
}

/// Lines before `number` that were to begin with a key.
fn without_colon(lines: &[&str], number: u32) -> Option<Vec<SyntaxError>> {
    let mut found = Vec::new();
    let mut depth = None;
    for (index, line) in lines.iter().enumerate().take(number as usize - 1).rev() {
        let (indent, rest) = content(line);
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        if has_colon(rest) {
            // What follows a value, and is deeper, goes on with it.
            let has_value = !rest.trim_end().ends_with(':');
            if has_value && depth.is_some_and(|depth| indent < depth) {
                return None;
            }
            break;
        }
        depth = Some(indent);
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        found.push(lacks_colon(line, number));
        // An entry of a list begins anew.
        if line.trim_start().starts_with("- ") {
            break;
        }
    }
    (!found.is_empty()).then_some(found)
}

fn lacks_colon(line: &str, number: u32) -> SyntaxError {
    let (indent, rest) = content(line);
    let rest = rest.trim_end();
    let near = with_colon(rest);
    let plain = near
        .split(':')
        .next()
        .is_some_and(|key| key.chars().all(is_key));
    SyntaxError {
        at: Position {
            line: number,
            column: u32::try_from(indent + 1).unwrap_or(u32::MAX),
        },
        message: format!(
            "{} is no key with a `:` and a space behind it",
            quoted(rest)
        ),
        near: plain.then_some(near),
        help: None,
    }
}

/// `key value` and `key:value` with a `:` and a space.
pub(crate) fn with_colon(text: &str) -> String {
    match (text.split_once(':'), text.split_once(' ')) {
        (Some((key, value)), _) if !key.contains(' ') => format!("{key}: {value}"),
        (_, Some((key, value))) => format!("{key}: {}", value.trim_start()),
        _ => format!("{text}:"),
    }
}

/// `key [` or `key:{`, of which YAML takes everything up to the next `: ` for a key.
fn lacks_colon_before_bracket(line: &str) -> bool {
    let (_, rest) = content(line);
    let word = rest.trim_start_matches(is_key);
    let inside = word.trim_start_matches([' ', ':']);
    word.len() < rest.len() && inside.starts_with(['[', '{']) && !word.starts_with(": ")
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// A line behind its indentation and the marks of list entries, and how many characters those
/// are.
fn content(line: &str) -> (usize, &str) {
    let mut rest = line.trim_start();
    while let Some(entry) = rest.strip_prefix("- ") {
        rest = entry.trim_start();
    }
    (line.chars().count() - rest.chars().count(), rest)
}

fn has_colon(content: &str) -> bool {
    let content = match content.find(" #") {
        Some(comment) => &content[..comment],
        None => content,
    };
    content.contains(": ") || content.trim_end().ends_with(':')
}

fn first_column(line: &str, number: u32) -> Position {
    let indent = line.chars().count() - line.trim_start().chars().count();
    Position {
        line: number,
        column: u32::try_from(indent + 1).unwrap_or(u32::MAX),
    }
}
