//! Words of a plugin, made safe to show.

use std::fmt::{Display, Formatter, Result, Write};

/// How many bytes of a foreign text are shown.
const SHOWN: usize = 120;

/// A foreign text: quoted, control characters escaped, cut at 120 bytes with
/// the cut marked.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut end = self.0.len().min(SHOWN);
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        f.write_char('"')?;
        Display::fmt(&self.0[..end].escape_debug(), f)?;
        f.write_str(if end < self.0.len() { "…\"" } else { "\"" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_hostile_text_is_escaped_and_its_cut_is_marked() {
        assert_eq!(Quoted("a\n\u{1b}[1m\"").to_string(), r#""a\n\u{1b}[1m\"""#);
        let long = "é".repeat(100);
        assert_eq!(
            Quoted(&long).to_string(),
            format!("\"{}…\"", "é".repeat(60))
        );
    }
}
