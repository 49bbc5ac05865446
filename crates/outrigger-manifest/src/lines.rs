//! The lines of a text as YAML counts them.

use crate::problem::Position;

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

/// The nearest position that exists in the text.
pub(crate) fn inside(position: Position, text: &str) -> Position {
    let mut last = (1, "");
    for (number, line) in (1_u32..).zip(lines(text)) {
        last = (number, line);
        if number == position.line {
            break;
        }
    }
    let (line, content) = last;
    let end = u32::try_from(content.chars().count()).unwrap_or(u32::MAX - 1) + 1;
    let column = if line == position.line {
        position.column.min(end)
    } else {
        end
    };
    Position {
        line,
        column: column.max(1),
    }
}
