//! What a peer wrote, made safe to show.

use std::fmt::{self, Write as _};

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
    escaped: String,
    omitted: usize,
}

impl Excerpt {
    /// Renders the beginning of `bytes`.
    pub fn new(bytes: &[u8]) -> Excerpt {
        let shown = &bytes[..cut(bytes)];
        Excerpt {
            escaped: escape(shown),
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

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escaped)?;
        match self.omitted {
            0 => Ok(()),
            1 => f.write_str("… (+1 byte)"),
            n => write!(f, "… (+{n} bytes)"),
        }
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where to cut: at the limit, or up to three bytes earlier so that a
/// character which straddles it is left out whole.
fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= EXCERPT_LIMIT {
        return bytes.len();
    }
    let is_continuation = |at: usize| bytes[at] & 0xc0 == 0x80;
    let mut at = EXCERPT_LIMIT;
    while at > EXCERPT_LIMIT - 3 && is_continuation(at) {
        at -= 1;
    }
    if is_continuation(at) {
        EXCERPT_LIMIT
    } else {
        at
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' => out.push(c),
                _ => out.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn the_cut_is_marked_and_counts_what_is_left_out() {
        assert_eq!(shown(&[b'a'; 120]), format!("\"{}\"", "a".repeat(120)));
        assert_eq!(
            shown(&[b'a'; 121]),
            format!("\"{}\"… (+1 byte)", "a".repeat(120))
        );
        assert_eq!(Excerpt::new(&[b'a'; 65_536]).omitted(), 65_416);
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

    proptest! {
        #[test]
        fn an_excerpt_is_one_short_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = shown(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.len() <= EXCERPT_LIMIT * 10 + 32);
        }
    }
}
