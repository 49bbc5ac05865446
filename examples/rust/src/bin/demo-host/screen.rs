//! What people see. Plugins' words are made safe before they get here.

use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use outrigger_wire::text;

/// How much of one line of a plugin is shown, in characters.
const LONGEST: usize = 160;

/// Stdout, with colours where someone sees them.
#[derive(Debug)]
pub(crate) struct Screen {
    colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let capable = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            colours: wanted && capable && io::stdout().is_terminal(),
        }
    }

    pub(crate) fn line(&self, text: &str) {
        // A reader that went away needs no report, and the plugins must be stopped still.
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    pub(crate) fn blank(&self) {
        self.line("");
    }

    pub(crate) fn heading(&self, text: &str) -> String {
        self.styled("1", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.styled("32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.styled("31", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// One failure: its code, what went wrong, and what is known about it.
    pub(crate) fn problem(&self, code: &str, text: &str, notes: impl IntoIterator<Item = String>) {
        self.line(&format!(
            "  {}: {text}",
            self.bad(&format!("error[{code}]"))
        ));
        for note in notes {
            self.line(&format!("    {note}"));
        }
    }

    /// A line of a plugin's: its colours stay where someone sees them, every
    /// other control character is shown instead of obeyed.
    pub(crate) fn foreign(&self, line: &str) -> String {
        let (mut shown, mut length, mut coloured) = (String::new(), 0, false);
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            if let Some(colour) = colour_at_start(rest) {
                if self.colours && colour.len() <= LONGEST {
                    shown.push_str(colour);
                    coloured = true;
                }
                rest = &rest[colour.len()..];
                continue;
            }
            if length == LONGEST {
                shown.push('…');
                break;
            }
            let (next, after) = rest.split_at(next.len_utf8());
            shown.push_str(&text::printable(next));
            length += 1;
            rest = after;
        }
        if coloured {
            shown.push_str("\x1b[0m");
        }
        shown
    }
}

/// The terminal code for a colour or weight that `text` begins with, however long.
fn colour_at_start(text: &str) -> Option<&str> {
    let codes = text.strip_prefix("\x1b[")?;
    let length = codes
        .bytes()
        .position(|b| !b.is_ascii_digit() && b != b';' && b != b':')?;
    (codes.as_bytes()[length] == b'm').then(|| &text[..2 + length + 1])
}

/// Text of uncertain origin, safe to print on one line.
pub(crate) fn printable(text: &str) -> String {
    text::printable(&text::shortened(text, LONGEST * 4)).into_owned()
}

/// How wide a name is on the screen, near enough.
pub(crate) fn width(name: &str) -> usize {
    printable(name).chars().count()
}

/// A duration as people read it.
pub(crate) fn took(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..2000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// A number of things.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!(
            "{number} {}s",
            thing
                .strip_suffix('y')
                .map_or(thing.into(), |t| format!("{t}ie"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_colours_are_shown_to_terminals_only_and_other_codes_never() {
        let line = "\x1b[1;34msrc/\x1b[0m \x1b[2J\x1b]0;title\x07 \x1b[31";
        let (terminal, file) = (Screen { colours: true }, Screen { colours: false });
        let rest = r" \u{1b}[2J\u{1b}]0;title\u{7} \u{1b}[31";
        assert_eq!(file.foreign(line), format!("src/{rest}"));
        assert_eq!(
            terminal.foreign(line),
            format!("\x1b[1;34msrc/\x1b[0m{rest}\x1b[0m")
        );
    }

    #[test]
    fn a_code_for_colours_of_any_length_is_no_text() {
        let (terminal, file) = (Screen { colours: true }, Screen { colours: false });
        for (code, obeyed) in [
            (
                "\x1b[38;2;100;120;140;48;2;200;210;220;1;4m".to_owned(),
                true,
            ),
            ("\x1b[38:2::100:120:140m".to_owned(), true),
            (format!("\x1b[{}m", "1;".repeat(LONGEST)), false),
        ] {
            let line = format!("{code}red");
            assert_eq!(file.foreign(&line), "red");
            let shown = if obeyed {
                format!("{line}\x1b[0m")
            } else {
                "red".to_owned()
            };
            assert_eq!(terminal.foreign(&line), shown);
        }
    }

    #[test]
    fn a_long_line_is_cut_after_what_is_seen_of_it() {
        let line = "\x1b[31m".to_owned() + &"é".repeat(LONGEST + 5);
        let shown = Screen { colours: false }.foreign(&line);
        assert_eq!(shown, "é".repeat(LONGEST) + "…");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            (count(1, "entry"), count(2, "entry")),
            ("1 entry".into(), "2 entries".into())
        );
        assert_eq!(count(0, "plugin"), "0 plugins");
        assert_eq!(took(Duration::from_micros(900)), "0.9 ms");
        assert_eq!(took(Duration::from_millis(2500)), "2.5 s");
    }
}
