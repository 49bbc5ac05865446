//! JSON that loggers write and a strict reader refuses.
//!
//! One odd value in a field must not cost an operator the level and the message
//! of a record. So a line that is refused is read again, with what nobody can
//! represent replaced: half a surrogate pair (`\udce9`, as Python writes a file
//! name that is not UTF-8) by U+FFFD, as Go reads it; `NaN`, `Infinity` and
//! numbers beyond any double by their text; what is nested too deeply by its text.

use std::fmt::Write as _;

/// How deeply the values of a record are nested at most; what is deeper is kept
/// as text. A strict reader goes to 127.
const DEEPEST: usize = 64;

/// `line` with everything replaced that only a strict reader refuses. What is no
/// JSON otherwise stays so.
pub(super) fn repair(line: &str) -> String {
    let mut repair = Repair {
        rest: line.trim_start_matches('\u{feff}'),
        done: String::with_capacity(line.len() + 16),
        depth: 0,
    };
    while repair.step() {}
    repair.done
}

struct Repair<'a> {
    rest: &'a str,
    done: String,
    depth: usize,
}

impl<'a> Repair<'a> {
    /// Takes one token over; says whether there was one.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        match first {
            '"' => self.string(),
            '{' | '[' if self.depth == DEEPEST => self.deeper(),
            '{' | '[' => {
                self.depth += 1;
                self.keep(1);
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.keep(1);
            }
            '-' | '0'..='9' | 'a'..='z' | 'A'..='Z' => self.word(),
            other => self.keep(other.len_utf8()),
        }
        true
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn keep(&mut self, length: usize) {
        let taken = self.take(length);
        self.done.push_str(taken);
    }

    /// A string, in which half a surrogate pair becomes U+FFFD.
    fn string(&mut self) {
        let whole = self.take(string_length(self.rest));
        let mut rest = whole;
        while let Some(at) = rest.find('\\') {
            let (before, escape) = rest.split_at(at);
            self.done.push_str(before);
            let length = match (unit(escape), escape.get(6..).and_then(unit)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    self.done.push_str("\\ufffd");
                    rest = &escape[6..];
                    continue;
                }
                _ => escape.len().min(2),
            };
            // A backslash and half of a longer character would be no text.
            let length = (length..).find(|length| escape.is_char_boundary(*length));
            let (kept, after) = escape.split_at(length.unwrap_or(escape.len()));
            self.done.push_str(kept);
            rest = after;
        }
        self.done.push_str(rest);
    }

    /// A number or a word.
    fn word(&mut self) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let end = self.rest.find(|c| !is_part(c));
        let word = self.take(end.unwrap_or(self.rest.len()));
        let is_odd = match word {
            "NaN" | "Infinity" | "-Infinity" => true,
            // The words that JSON has are no numbers to anybody.
            _ => word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && is_too_large(word),
        };
        match is_odd {
            true => self.text(word),
            false => self.done.push_str(word),
        }
    }

    /// An object or a list that lies too deep.
    fn deeper(&mut self) {
        let (mut depth, mut length) = (0usize, 0);
        while let Some(first) = self.rest[length..].chars().next() {
            length += match first {
                '"' => string_length(&self.rest[length..]),
                other => other.len_utf8(),
            };
            match first {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        let value = self.take(length);
        self.text(value);
    }

    /// `text` as a string.
    fn text(&mut self, text: &str) {
        // Writing to a `String` cannot fail.
        let _ = write!(self.done, "{}", serde_json::Value::from(text));
    }
}

/// The length of the string that `text` begins with, quotes included; all of it
/// if the string does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    text.len()
}

/// The number in `\uXXXX`, if `text` begins with that.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whether this is a number in JSON's form that no double comes near.
fn is_too_large(word: &str) -> bool {
    let is_infinite = word.parse::<f64>().is_ok_and(f64::is_infinite);
    // Rust reads `1.` and `-inf`, which are not JSON's.
    let only_exponent_is_large = || {
        let mantissa = word.split(['e', 'E']).next().unwrap_or_default();
        serde_json::from_str::<f64>(mantissa).is_ok() || mantissa.len() > 300
    };
    is_infinite && only_exponent_is_large()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn read(line: &str) -> Value {
        let repaired = repair(line);
        serde_json::from_str(&repaired).unwrap_or_else(|error| panic!("{repaired}: {error}"))
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        for (written, meant) in [
            (r#""caf\udce9""#, "caf\u{fffd}"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\\udce9 \\\udce9""#, "\\udce9 \\\u{fffd}"),
            (r#""\uD800\u00e9""#, "\u{fffd}é"),
        ] {
            assert_eq!(read(written), Value::from(meant), "{written}");
        }
    }

    #[test]
    fn what_is_no_number_of_json_becomes_its_text() {
        for odd in ["NaN", "Infinity", "-Infinity", "1e999", "-2.5E+400"] {
            assert_eq!(read(odd), Value::from(odd));
            assert_eq!(read(&format!("[{odd}, 1]"))[0], Value::from(odd));
        }
        let long = format!("{}.0", "9".repeat(400));
        assert_eq!(read(&long), Value::from(long.as_str()));
        for plain in ["1e308", "0", "-1.5", "18446744073709551616", "true", "null"] {
            assert_eq!(repair(plain), plain);
        }
    }

    #[test]
    fn what_lies_too_deep_is_kept_as_text() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(repair(&nested(DEEPEST)), nested(DEEPEST));
        let mut value = read(&nested(10_000));
        for _ in 0..DEEPEST {
            value = value[0].take();
        }
        assert_eq!(value, Value::from(nested(10_000 - DEEPEST)));
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_what_is_no_json_stays_none() {
        assert_eq!(repair("\u{feff}{}"), "{}");
        for line in [
            "",
            "plain text",
            "{",
            "\"",
            "\"\\",
            "{\"a\":nan}",
            "1.e999",
            "-",
            "\\ué",
        ] {
            let repaired = repair(line);
            assert!(
                serde_json::from_str::<Value>(&repaired).is_err(),
                "{line} → {repaired}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_strict_reader_takes_stays_as_it_is(text in ".{0,40}", number: f64, deep in 0usize..60) {
            let value = serde_json::json!({"a": text, "b": [number, null, true]});
            let nested = format!("{}{value}{}", "[".repeat(deep), "]".repeat(deep));
            prop_assert_eq!(repair(&nested), nested);
        }

        #[test]
        fn nothing_that_is_written_makes_a_repair_fail_or_grow_without_end(
            line in r#"([\[\]{}":,\\ué😀nNaI0-9.eE+-]|\\ud83d|\\udce9|Infinity|NaN){0,60}"#
        ) {
            prop_assert!(repair(&line).len() <= 16 + 6 * line.len());
        }
    }
}
