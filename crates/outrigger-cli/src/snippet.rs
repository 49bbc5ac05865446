//! A place in a file, shown with its line and a mark below it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use outrigger_manifest::Position;
use outrigger_wire::text::is_visible;
use unicode_width::UnicodeWidthStr as _;

use crate::failure::printable;

/// The most columns of a line that are shown.
const WIDEST: usize = 96;
/// How many columns of a longer line stand before the mark, at most.
const BEFORE: usize = 40;

/// The lines of one file.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    name: String,
    lines: Vec<String>,
}

impl Listing {
    /// The file called `name`, which is printable. Bytes that are no text are replaced.
    pub(crate) fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        Self {
            name: name.into(),
            lines: text.split(['\n', '\r']).map(str::to_owned).collect(),
        }
    }

    /// The line at `at` with a mark below it and `label` beside the mark, then
    /// the `remarks`, each with its heading.
    pub(crate) fn show(
        &self,
        at: Position,
        label: &str,
        mark: Style,
        remarks: &[(&str, String)],
    ) -> String {
        let frame = Style::new().bold().fg_color(Some(AnsiColor::Blue.into()));
        let bold = Style::new().bold();
        let number = at.line.to_string();
        let pad = " ".repeat(number.len());
        let mut text = String::new();
        let mut line = |content: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{}", content.to_string().trim_end());
        };
        line(format_args!("{pad}{frame}-->{frame:#} {}:{at}", self.name));
        let shown = self
            .line(at.line)
            .map(|line| MarkedLine::new(line, at.column));
        if let Some(shown) = &shown {
            let below = " ".repeat(shown.column);
            let marks = "^".repeat(shown.width);
            line(format_args!("{pad} {frame}|{frame:#}"));
            line(format_args!("{frame}{number} |{frame:#} {}", shown.text));
            let label = match label {
                "" => String::new(),
                label => format!(" {label}"),
            };
            line(format_args!(
                "{pad} {frame}|{frame:#} {below}{mark}{marks}{label}{mark:#}"
            ));
        }
        if !remarks.is_empty() && shown.is_some() {
            line(format_args!("{pad} {frame}|{frame:#}"));
        }
        let label = shown.is_none().then_some(label).filter(|l| !l.is_empty());
        let unplaced = label.map(|label| ("note", label.to_owned()));
        for (heading, remark) in unplaced.iter().chain(remarks) {
            line(format_args!(
                "{pad} {frame}={frame:#} {bold}{heading}{bold:#}: {remark}"
            ));
        }
        text
    }

    /// The file as a whole, then the `remarks`.
    pub(crate) fn show_whole(&self, remarks: &[(&str, String)]) -> String {
        // No file has such a line.
        let at = Position { line: 0, column: 0 };
        let text = self.show(at, "", Style::new(), remarks);
        text.replacen(":0:0", "", 1)
    }

    fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.lines.get(index).map(String::as_str)
    }
}

/// The part of a line around a mark.
struct MarkedLine {
    text: String,
    /// Columns before the mark.
    column: usize,
    /// Columns of the mark.
    width: usize,
}

impl MarkedLine {
    fn new(line: &str, column: u32) -> Self {
        let chars: Vec<char> = line.chars().collect();
        let at = usize::try_from(column).unwrap_or(usize::MAX);
        let at = at.saturating_sub(1).min(chars.len());
        let length = word(&chars[at..]);
        let first = match chars.len() > WIDEST {
            true => at.saturating_sub(BEFORE),
            false => 0,
        };
        let last = chars.len().min(first + WIDEST);
        let mut shown = Self {
            text: String::new(),
            column: 0,
            width: 0,
        };
        let mut columns = 0;
        if first > 0 {
            shown.text.push('…');
            columns = 1;
        }
        for (index, c) in chars[first..last].iter().enumerate() {
            let index = first + index;
            if index == at {
                shown.column = columns;
            }
            let piece = visible(*c);
            columns += piece.width();
            shown.text.push_str(&piece);
            if index + 1 == at + length {
                shown.width = columns - shown.column;
            }
        }
        if at >= last {
            shown.column = columns;
        }
        if shown.width == 0 {
            shown.width = columns.saturating_sub(shown.column).max(1);
        }
        if last < chars.len() {
            shown.text.push('…');
        }
        shown
    }
}

/// How many characters at the start belong together: what is probably meant by a position.
fn word(rest: &[char]) -> usize {
    let first = match rest.first() {
        Some(first) if !first.is_whitespace() && *first != char::REPLACEMENT_CHARACTER => first,
        _ => return 1,
    };
    if matches!(first, '"' | '\'') {
        let mut escaped = false;
        for (index, c) in rest.iter().enumerate().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if *first == '"' => escaped = true,
                c if c == first => return index + 1,
                _ => {}
            }
        }
        return rest.len();
    }
    if let Some(close) = closing(rest) {
        return close + 1;
    }
    let space = |at: usize| rest.get(at).is_none_or(|c| c.is_whitespace());
    let mut index = 0;
    while let Some(c) = rest.get(index) {
        match c {
            '$' if rest.get(index + 1) == Some(&'{') => {
                let end = rest[index..].iter().position(|c| *c == '}');
                index += end.unwrap_or(0);
            }
            ':' | '-' if index == 0 && space(1) => break,
            ':' if space(index + 1) => break,
            '[' | ']' | '{' | '}' | ',' => break,
            ' ' if rest.get(index + 1) == Some(&'#') => break,
            _ => {}
        }
        index += 1;
    }
    let text = rest[..index].iter().rposition(|c| !c.is_whitespace());
    text.map_or(1, |last| last + 1)
}

/// Where the list or map that begins here ends, if it does on this line.
fn closing(rest: &[char]) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (index, c) in rest.iter().enumerate() {
        match (quote, c) {
            (Some(open), c) => quote = Some(open).filter(|open| open != c),
            (None, '"' | '\'') => quote = Some(*c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.checked_sub(1)?,
            (None, _) => {}
        }
        if depth == 0 && quote.is_none() {
            return (index > 0).then_some(index);
        }
    }
    None
}

/// A character as it is shown: nothing that moves a cursor.
fn visible(c: char) -> String {
    match c {
        '\t' => "    ".to_owned(),
        c if is_visible(c) => c.to_string(),
        c => printable(&c.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: u32) -> (String, String) {
        let shown = MarkedLine::new(line, column);
        let mark = " ".repeat(shown.column) + &"^".repeat(shown.width);
        (shown.text, mark)
    }

    #[test]
    fn the_mark_stands_below_the_whole_word() {
        for (line, column, mark) in [
            ("permisions: [read]", 1, "^^^^^^^^^^"),
            (
                "a: {path: /x, permisions: [r]}",
                15,
                "              ^^^^^^^^^^",
            ),
            ("a: \"b c\" # d", 4, "   ^^^^^"),
            ("- 'it''s'", 3, "  ^^^^"),
            ("path: ${HOME}/a}", 7, "      ^^^^^^^^^"),
            ("text: two words # three", 7, "      ^^^^^^^^^"),
            ("a: [1, {b: ']'}] # x", 4, "   ^^^^^^^^^^^^^"),
            ("a: [1, 2", 4, "   ^"),
            ("- a", 1, "^"),
            ("a:", 3, "  ^"),
            ("", 1, "^"),
            ("\tname: x", 1, "^^^^"),
            ("\u{fffd}\u{fffd}x", 1, "^"),
            ("日本: x", 1, "^^^^"),
        ] {
            assert_eq!(shown(line, column).1, mark, "{line}");
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_mark_and_nothing_moves_the_cursor() {
        let line = format!("{}bad: x {}", "a".repeat(300), "b".repeat(300));
        let (text, mark) = shown(&line, 301);
        assert!(text.starts_with('…') && text.ends_with('…'));
        let at = mark.find('^').expect("a mark");
        assert_eq!(text.chars().skip(at).take(3).collect::<String>(), "bad");
        let (text, mark) = shown("\t\u{1b}[2Jx: y", 6);
        assert_eq!((text.as_str(), mark.trim()), ("    \\u{1b}[2Jx: y", "^"));
    }

    #[test]
    fn a_place_beyond_the_file_is_named_and_not_shown() {
        let listing = Listing::new("f", b"a\r\nb");
        let at = |line, column| Position { line, column };
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let text = listing.show(at(2, 1), "here", Style::new(), &[("help", "no".to_owned())]);
        assert_eq!(
            plain(text),
            " --> f:2:1\n  |\n2 | b\n  | ^ here\n  |\n  = help: no\n"
        );
        let text = listing.show(at(9, 9), "here", Style::new(), &[]);
        assert_eq!(plain(text), " --> f:9:9\n  = note: here\n");
        let text = listing.show_whole(&[("help", "no".to_owned())]);
        assert_eq!(plain(text), " --> f\n  = help: no\n");
    }
}
