//! JSON that is safe to look at on a terminal.

use std::io;

use outrigger_wire::text::is_visible;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// `value` on one line, control and invisible characters escaped.
pub(crate) fn line<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    line_within(value, usize::MAX)
}

/// [`line()`] of no more than `most` bytes, for what a peer made: a few bytes of
/// its own can stand for many of JSON.
///
/// # Errors
/// It would take more.
pub(crate) fn line_within<T: Serialize + ?Sized>(
    value: &T,
    most: usize,
) -> Result<String, serde_json::Error> {
    write(value, Safe(CompactFormatter), most)
}

/// `value` over several lines, for the one object that a command prints.
pub(crate) fn pretty<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    write(value, Safe(PrettyFormatter::new()), usize::MAX)
}

fn write<T: Serialize + ?Sized, F: Formatter>(
    value: &T,
    formatter: F,
    most: usize,
) -> Result<String, serde_json::Error> {
    let mut out = Bounded {
        bytes: Vec::new(),
        most,
    };
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    String::from_utf8(out.bytes).map_err(serde::ser::Error::custom)
}

/// A buffer that fails where it would become too large.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.most - self.bytes.len() {
            let text = format!("it takes more than {} bytes as JSON", self.most);
            return Err(io::Error::other(text));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes what JSON itself would let through: C1 controls, direction marks and the like.
struct Safe<F>(F);

impl<F: Formatter> Formatter for Safe<F> {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut plain = 0;
        for (at, c) in fragment.char_indices() {
            if is_visible(c) {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_read_back_unchanged() {
        let text = "ü \u{1b}[2J \u{9b}1m \u{202e} \u{7f} \u{e0041} 'q' \"d\" \\";
        let json = line(text).expect("a line");
        assert!(json.chars().all(is_visible), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }

    #[test]
    fn the_two_layouts_differ_only_in_white_space() {
        let value = serde_json::json!({"a": [1, {"b": null}], "c": {}});
        assert_eq!(
            line(&value).expect("a line"),
            r#"{"a":[1,{"b":null}],"c":{}}"#
        );
        assert_eq!(pretty(&value).expect("lines").lines().count(), 9);
    }
}
