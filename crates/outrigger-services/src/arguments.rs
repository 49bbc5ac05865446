//! What a record shows of an operation's arguments: escaped, cut, and without
//! what must stay secret.

use std::fmt::{Display, Write};

use bytes::Bytes;
use outrigger_wire::EXCERPT_LIMIT;
use outrigger_wire::text::{quoted, shortened};
use prost_types::Timestamp;

/// How much of a lease's id is shown: enough to follow it, too little to use it.
const ID_SHOWN: usize = 8;
/// The longest list of arguments, in bytes.
const LONGEST: usize = 2048;

/// The arguments of one operation, as `key=value` with spaces between.
#[derive(Debug, Default)]
pub(crate) struct Arguments(String);

impl Arguments {
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn put(&mut self, key: &str, value: impl Display) {
        if self.0.len() < LONGEST {
            let space = if self.0.is_empty() { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(self.0, "{space}{key}={value}");
        }
    }

    /// A text of the plugin; nothing when it is empty.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.put(key, quoted(&shortened(value, EXCERPT_LIMIT)));
        }
        self
    }

    /// A lease, connection or process: authority, of which little is shown.
    pub(crate) fn id(&mut self, key: &str, value: &str) -> &mut Self {
        if !value.is_empty() {
            let shown = value.get(..ID_SHOWN).unwrap_or(value);
            self.put(key, quoted(&shortened(shown, EXCERPT_LIMIT)));
        }
        self
    }

    /// A number; nothing when it is 0.
    pub(crate) fn number(&mut self, key: &str, value: impl Into<i128>) -> &mut Self {
        let value = value.into();
        if value != 0 {
            self.put(key, value);
        }
        self
    }

    /// Contents, of which the length is shown.
    pub(crate) fn bytes(&mut self, key: &str, length: usize) -> &mut Self {
        self.put(key, format_args!("{length}_bytes"));
        self
    }

    /// A switch that is on.
    pub(crate) fn flag(&mut self, key: &str, on: bool) -> &mut Self {
        if on {
            self.put(key, true);
        }
        self
    }

    /// Something that is safe to show as it is.
    pub(crate) fn shown(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.put(key, value);
        self
    }

    /// A number that says something even when it is 0.
    pub(crate) fn always(&mut self, key: &str, value: &impl Display) -> &mut Self {
        self.shown(key, value)
    }

    /// Permission bits.
    pub(crate) fn octal(&mut self, key: &str, value: &u32) -> &mut Self {
        self.shown(key, format_args!("{value:o}"))
    }

    /// An address of the web: without user, password, values of its query, and
    /// fragment.
    pub(crate) fn url(&mut self, key: &str, value: &str) -> &mut Self {
        self.text(key, &redacted_url(value))
    }
}

/// A field of a message, shown by its type.
pub(crate) trait Show {
    fn show(&self, key: &str, shown: &mut Arguments);
}

impl Show for String {
    fn show(&self, key: &str, shown: &mut Arguments) {
        match key {
            "lease" | "handle" | "process" | "connection" => shown.id(key, self),
            _ => shown.text(key, self),
        };
    }
}

impl Show for bool {
    fn show(&self, key: &str, shown: &mut Arguments) {
        shown.flag(key, *self);
    }
}

impl Show for Bytes {
    fn show(&self, key: &str, shown: &mut Arguments) {
        shown.bytes(key, self.len());
    }
}

impl Show for Option<u32> {
    fn show(&self, key: &str, shown: &mut Arguments) {
        if let Some(value) = self {
            shown.shown(key, value);
        }
    }
}

impl Show for Option<Timestamp> {
    fn show(&self, key: &str, shown: &mut Arguments) {
        if let Some(time) = self {
            shown.shown(key, format_args!("{}.{:09}", time.seconds, time.nanos));
        }
    }
}

macro_rules! show_numbers {
    ($($kind:ty),*) => {$(
        impl Show for $kind {
            fn show(&self, key: &str, shown: &mut Arguments) {
                shown.number(key, *self);
            }
        }
    )*};
}

show_numbers!(u32, i32, u64, i64);

/// `url` without user and password, without the values of its query, and
/// without its fragment. Texts that are no URL come back cut at the same signs.
pub(crate) fn redacted_url(url: &str) -> String {
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    let (before, query) = match url.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (url, None),
    };
    let (scheme, rest) = match before.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, before),
    };
    let (authority, path) = match rest.find(['/', '\\']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let mut shown = String::with_capacity(url.len());
    if let Some(scheme) = scheme {
        shown.push_str(scheme);
        shown.push_str("://");
    }
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str("***@");
            shown.push_str(host);
        }
        None => shown.push_str(authority),
    }
    shown.push_str(path);
    if let Some(query) = query {
        shown.push('?');
        let parts: Vec<String> = query
            .split(['&', ';'])
            .map(|part| match part.split_once('=') {
                Some((name, _)) => format!("{name}=***"),
                // A bare word may be the secret itself.
                None if part.is_empty() => String::new(),
                None => "***".into(),
            })
            .collect();
        shown.push_str(&parts.join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_show_what_is_set_and_no_usable_authority() {
        let mut argument = Arguments::default();
        argument
            .text("path", "a\nb")
            .text("empty", "")
            .id("lease", "0123456789abcdef")
            .number("offset", 0)
            .number("length", 5_u32)
            .bytes("data", 3)
            .flag("replace", true);
        assert_eq!(
            argument.into_text(),
            r#"path="a\nb" lease="01234567" length=5 data=3_bytes replace=true"#
        );
    }

    #[test]
    fn arguments_are_bounded_whatever_a_plugin_sends() {
        let mut argument = Arguments::default();
        for _ in 0..10_000 {
            argument.text("path", &"x".repeat(4000));
        }
        assert!(argument.into_text().len() < LONGEST + 200);
    }

    #[test]
    fn urls_are_shown_without_their_secrets() {
        for (url, shown) in [
            ("https://a.example/x", "https://a.example/x"),
            (
                "https://me:pass@a.example:1/x?token=abc&v=1#frag",
                "https://***@a.example:1/x?token=***&v=***",
            ),
            ("https://a@b@c/", "https://***@c/"),
            ("http://a.example?secret", "http://a.example?***"),
            ("u:p@host", "***@host"),
        ] {
            assert_eq!(redacted_url(url), shown);
        }
    }
}
