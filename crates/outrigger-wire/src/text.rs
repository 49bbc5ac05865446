//! Text that somebody else chose, made safe to show.
//!
//! A plugin, a file or a peer may put anything into a text: codes that move a
//! terminal's cursor, characters that turn the direction of what follows or that
//! nobody sees, a second line, a pair that looks like ours, or a megabyte. There
//! is one way to show such a text to people ([`printable`], [`Excerpt`]) and one
//! to put it into a record of `key=value` pairs ([`message`], [`word`],
//! [`quoted`]). In all of them a character either looks like itself or is
//! written as an escape, such as `\n` or `\u{202e}`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;

/// How many bytes of the observed text an [`Excerpt`] shows.
pub const EXCERPT_LIMIT: usize = 120;

/// A short, quoted, escaped rendering of bytes that came from a peer.
///
/// Control characters, invisible characters, quotes, backslashes and bytes
/// that are not UTF-8 are escaped, so an excerpt never moves a terminal's
/// cursor and never spans lines. At most [`EXCERPT_LIMIT`] bytes are shown and
/// kept; the rest is counted.
///
/// ```
/// use outrigger_wire::Excerpt;
///
/// assert_eq!(Excerpt::new(b"usage:\tplugin\x1b[2J\xff").to_string(), r#""usage:\tplugin\u{1b}[2J\xff""#);
/// assert!(Excerpt::new(&[b'a'; 130]).to_string().ends_with("aaa\"… (+10 bytes)"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Excerpt {
    quoted: String,
    omitted: usize,
}

impl Excerpt {
    /// Renders the beginning of `bytes`.
    pub fn new(bytes: &[u8]) -> Excerpt {
        let shown = &bytes[..end(bytes, EXCERPT_LIMIT)];
        let mut quoted = String::with_capacity(shown.len() + 2);
        quote(&mut quoted, shown);
        Excerpt {
            quoted,
            omitted: bytes.len() - shown.len(),
        }
    }

    /// Renders the beginning of `length` bytes of which only `head` was kept.
    /// A head of more than [`EXCERPT_LIMIT`] bytes gives the same as all bytes.
    ///
    /// ```
    /// use outrigger_wire::Excerpt;
    ///
    /// let whole = [b'a'; 200];
    /// assert_eq!(Excerpt::beginning(&whole[..121], 200), Excerpt::new(&whole));
    /// ```
    pub fn beginning(head: &[u8], length: usize) -> Excerpt {
        let mut excerpt = Excerpt::new(head);
        excerpt.omitted += length.saturating_sub(head.len());
        excerpt
    }

    /// How many bytes of the observed text are not shown.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Excerpt {
        Excerpt::new(text.as_bytes())
    }
}

impl From<&Path> for Excerpt {
    fn from(path: &Path) -> Excerpt {
        Excerpt::new(path.as_os_str().as_encoded_bytes())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.quoted, Omitted(self.omitted))
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text for people, on one line and without quotes around it.
///
/// ```
/// use outrigger_wire::text::printable;
///
/// assert_eq!(printable("it's \"ready\""), "it's \"ready\"");
/// assert_eq!(printable("ready\n\u{1b}[2J"), r"ready\n\u{1b}[2J");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, ' '..='~'))
}

/// The text as the message of a record. Like [`printable`], but tabs stay:
/// records are read by line, and stack traces are indented by tabs.
///
/// ```
/// use outrigger_wire::text::message;
///
/// assert_eq!(message("panic\n\tat main.rs"), "panic\\n\tat main.rs");
/// ```
pub fn message(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\t' | ' '..='~'))
}

/// The text as a key or a value of a record: as it is if it is one plain word,
/// else [`quoted`]. No value can pass for a second pair.
///
/// ```
/// use outrigger_wire::text::word;
///
/// assert_eq!(word("ready"), "ready");
/// assert_eq!(word("no admin=true"), r#""no admin=true""#);
/// ```
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '=' | '"' | '\'' | '\\');
    if text.is_empty() || !text.chars().all(plain) {
        return Cow::Owned(quoted(text));
    }
    printable(text)
}

/// The text between quotes; quotes and backslashes in it are escaped.
///
/// ```
/// use outrigger_wire::text::quoted;
///
/// assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
/// ```
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text.as_bytes());
    out
}

/// The beginning of a text that may be as long as its author likes: `most` bytes
/// of it, and how many are left out. Nothing is escaped.
///
/// ```
/// use outrigger_wire::text::shortened;
///
/// assert_eq!(shortened("outrigger", 3), "out… (+6 bytes)");
/// assert_eq!(shortened("out", 3), "out");
/// ```
pub fn shortened<'a>(text: impl Into<Cow<'a, str>>, most: usize) -> Cow<'a, str> {
    let text = text.into();
    let end = end(text.as_bytes(), most);
    match text.len() - end {
        0 => text,
        omitted => Cow::Owned(format!("{}{}", &text[..end], Omitted(omitted))),
    }
}

/// Whether a character looks like itself after another one that does.
///
/// ```
/// use outrigger_wire::text::is_visible;
///
/// assert!(is_visible('ü') && is_visible('"') && is_visible('\u{301}'));
/// assert!(!is_visible('\u{9b}') && !is_visible('\u{202e}') && !is_visible('\u{200b}'));
/// ```
pub fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // What the standard library escapes after another character is what no
    // terminal shows as itself; a combining mark it escapes only in front.
    let mut pair = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut pair[1..]).len();
    let pair = str::from_utf8(&pair[..length]).unwrap_or_default();
    pair.escape_debug().count() == 2 && !is_ignorable(c)
}

/// Letters and marks that Unicode lets everyone leave out when showing a text:
/// a name with one of them looks like a name without.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// How a cut is marked.
struct Omitted(usize);

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("… (+1 byte)"),
            n => write!(f, "… (+{n} bytes)"),
        }
    }
}

/// Where to cut: at the limit, or up to three bytes earlier so that a
/// character which straddles it is left out whole.
fn end(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    let is_continuation = |at: usize| bytes[at] & 0xc0 == 0x80;
    let earliest = most.saturating_sub(3);
    let whole = (earliest..=most).rev().find(|at| !is_continuation(*at));
    whole.unwrap_or(most)
}

/// The text with whatever is neither `kept` nor visible escaped.
fn escaped(text: &str, kept: fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(kept) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    escape(&mut out, text, kept);
    Cow::Owned(out)
}

fn quote(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        let kept = |c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        escape(out, chunk.valid(), kept);
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
}

/// Appends `text`. `kept` says which ASCII characters stay as they are.
fn escape(out: &mut String, text: &str, kept: fn(char) -> bool) {
    // Whether the last character looks like itself, so that a combining mark
    // joins that one and not the text around.
    let mut after_visible = false;
    for c in text.chars() {
        after_visible = match c {
            _ if kept(c) => true,
            _ if c.is_ascii() => false,
            _ if after_visible => is_visible(c),
            _ => c.escape_debug().len() == 1 && is_visible(c),
        };
        match c {
            _ if after_visible => out.push(c),
            '\0' | '\t' | '\n' | '\r' | '"' | '\\' => out.extend(c.escape_debug()),
            _ => out.extend(c.escape_unicode()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        Excerpt::new(bytes).to_string()
    }

    #[test]
    fn printable_text_is_only_quoted() {
        assert_eq!(shown("1|1|ünïx|it's".as_bytes()), "\"1|1|ünïx|it's\"");
        assert_eq!(shown(b""), "\"\"");
    }

    #[test]
    fn characters_that_could_deceive_a_terminal_are_escaped() {
        assert_eq!(
            shown("a\"\\\n\r\0\u{1b}\u{7f}\u{9b}\u{202e}\u{200b}".as_bytes()),
            r#""a\"\\\n\r\0\u{1b}\u{7f}\u{9b}\u{202e}\u{200b}""#
        );
        assert_eq!(shown(b"\xff\xc3("), r#""\xff\xc3(""#);
    }

    #[test]
    fn no_character_that_nobody_sees_or_that_moves_others_is_visible() {
        let ranges = [
            '\0'..='\u{1f}',
            '\u{7f}'..='\u{9f}',
            '\u{ad}'..='\u{ad}',
            '\u{34f}'..='\u{34f}',
            '\u{61c}'..='\u{61c}',
            '\u{115f}'..='\u{1160}',
            '\u{180b}'..='\u{180f}',
            '\u{200b}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
            '\u{3164}'..='\u{3164}',
            '\u{fe00}'..='\u{fe0f}',
            '\u{feff}'..='\u{feff}',
            '\u{ffa0}'..='\u{ffa0}',
            '\u{fff0}'..='\u{fffb}',
            '\u{1d173}'..='\u{1d17a}',
            '\u{e0000}'..='\u{e0fff}',
        ];
        for c in ranges.into_iter().flatten() {
            assert!(!is_visible(c), "{}", c.escape_unicode());
            assert!(!printable(&format!("a{c}b")).contains(c));
            assert!(!word(&format!("a{c}b")).contains(c));
        }
    }

    #[test]
    fn a_combining_mark_stays_with_its_letter_and_joins_nothing_of_ours() {
        assert_eq!(printable("e\u{301}"), "e\u{301}");
        assert_eq!(quoted("\u{301}e"), "\"\\u{301}e\"");
        assert_eq!(printable("\n\u{301}"), "\\n\\u{301}");
    }

    #[test]
    fn the_cut_is_marked_and_counts_what_is_left_out() {
        assert_eq!(shown(&[b'a'; 120]), format!("\"{}\"", "a".repeat(120)));
        assert_eq!(
            shown(&[b'a'; 121]),
            format!("\"{}\"… (+1 byte)", "a".repeat(120))
        );
        assert_eq!(Excerpt::new(&[b'a'; 65_536]).omitted(), 65_416);
        assert_eq!(shortened("üü", 3), "ü… (+2 bytes)");
        assert_eq!(shortened("ü", 0), "… (+2 bytes)");
    }

    #[test]
    fn a_character_that_straddles_the_cut_is_left_out_whole() {
        let text = format!("{}€uro", "a".repeat(118));
        assert_eq!(
            shown(text.as_bytes()),
            format!("\"{}\"… (+6 bytes)", "a".repeat(118))
        );
        // Bytes that only look like the middle of a character are no reason
        // to show less.
        assert_eq!(Excerpt::new(&[0x80; 130]).omitted(), 10);
    }

    #[test]
    fn no_value_passes_for_a_second_pair() {
        for (text, expected) in [
            ("plain", "plain"),
            ("ü", "ü"),
            ("", r#""""#),
            ("a admin=true", r#""a admin=true""#),
            ("\" admin=true", r#""\" admin=true""#),
            ("a\u{2028}b", r#""a\u{2028}b""#),
            ("a\u{202e}b", r"a\u{202e}b"),
            ("it's", r#""it's""#),
        ] {
            assert_eq!(word(text), expected, "{text:?}");
        }
    }
}
