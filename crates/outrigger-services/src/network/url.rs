//! Addresses of HTTP requests, read strictly: what two parsers could read in two
//! ways is refused, so that the host that is matched is the host that is dialled.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use http::uri::PathAndQuery;

/// Longest address of a request, in bytes.
pub(crate) const MAX_URL: usize = 8 << 10;

/// How the connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An address taken apart. The host is still the plugin's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// Without brackets.
    pub(crate) host: String,
    /// Whether the host stood in brackets, as IPv6 addresses must.
    pub(crate) bracketed: bool,
    pub(crate) port: u16,
    pub(crate) path: PathAndQuery,
}

impl Url {
    /// Reads an absolute address.
    pub(crate) fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.len() > MAX_URL {
            return Err(format!("the URL is longer than {MAX_URL} bytes").into());
        }
        if let Some(bad) = text
            .chars()
            .find(|&c| c <= ' ' || c == '\u{7f}' || c == '\\')
        {
            return Err(format!("the URL contains {bad:?}").into());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("the URL does not begin with http:// or https://".into());
        };
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err("the URL does not begin with http:// or https://".into());
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("the URL contains a user name or password".into());
        }
        let (host, bracketed, port) = authority_parts(authority)?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => parse_port(port)?,
        };
        let path = path.split('#').next().unwrap_or_default();
        let path = match path.as_bytes().first() {
            None => Cow::Borrowed("/"),
            Some(b'/') => Cow::Borrowed(path),
            Some(_) => Cow::Owned(format!("/{path}")),
        };
        if !path.is_ascii() {
            return Err("the URL's path must be percent-encoded".into());
        }
        let path = PathAndQuery::try_from(path.as_ref())
            .map_err(|_| "the URL's path contains what a path cannot")?;
        Ok(Self {
            scheme,
            host: host.to_owned(),
            bracketed,
            port,
            path,
        })
    }

    /// The address that a reply's `Location` names, seen from this one.
    pub(crate) fn join(&self, location: &[u8]) -> Result<Self, Cow<'static, str>> {
        let mut text = String::new();
        for &byte in location {
            if byte.is_ascii() {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        let location = text.trim();
        let scheme = location
            .split_once(':')
            .map(|(scheme, _)| scheme)
            .filter(|scheme| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            });
        if scheme.is_some() {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme.text()));
        }
        let location = location.split('#').next().unwrap_or_default();
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (location, None),
        };
        let base = self.path.path();
        let (path, query) = if path.is_empty() {
            (base.to_owned(), query.or_else(|| self.path.query()))
        } else if path.starts_with('/') {
            (without_dots(path), query)
        } else {
            let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
            (without_dots(&format!("{folder}{path}")), query)
        };
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        Self::parse(&format!("{}{path}{query}", self.origin()))
    }

    /// `scheme://host[:port]`, the port only where it is not the scheme's own.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme.text(), self.authority())
    }

    /// `host[:port]`, as the `Host` header has it.
    pub(crate) fn authority(&self) -> String {
        let host = match self.bracketed {
            true => Cow::Owned(format!("[{}]", self.host)),
            false => Cow::Borrowed(&*self.host),
        };
        match self.port == self.scheme.default_port() {
            true => host.into_owned(),
            false => format!("{host}:{}", self.port),
        }
    }
}

impl Display for Url {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

type AuthorityParts<'a> = (&'a str, bool, Option<&'a str>);

fn authority_parts(authority: &str) -> Result<AuthorityParts<'_>, Cow<'static, str>> {
    let (host, bracketed, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err("the URL's address in brackets does not end".into());
        };
        match after.strip_prefix(':') {
            Some(port) => (host, true, Some(port)),
            None if after.is_empty() => (host, true, None),
            None => return Err("the URL has text after an address in brackets".into()),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, false, Some(port)),
            None => (authority, false, None),
        }
    };
    if host.is_empty() {
        return Err("the URL names no host".into());
    }
    Ok((host, bracketed, port))
}

fn parse_port(text: &str) -> Result<u16, Cow<'static, str>> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err("the URL's port is not a number between 1 and 65535".into()),
    }
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = false;
    for part in path.split('/').skip(1) {
        folder = matches!(part, "." | ".." | "");
        match part {
            "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    if folder && kept.last() != Some(&"") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, u16, String) {
        let url = Url::parse(text).unwrap();
        (url.host, url.port, url.path.to_string())
    }

    #[test]
    fn an_address_is_taken_apart() {
        let of = |host: &str, port, path: &str| (host.to_owned(), port, path.to_owned());
        assert_eq!(parts("http://a.example"), of("a.example", 80, "/"));
        assert_eq!(
            parts("HTTPS://a.example?q=1#x"),
            of("a.example", 443, "/?q=1")
        );
        assert_eq!(
            parts("https://bücher.example/"),
            of("bücher.example", 443, "/")
        );
        assert_eq!(parts("http://[::1]:8080/a"), of("::1", 8080, "/a"));
        assert_eq!(
            parts("http://a.example:81/a/../b"),
            of("a.example", 81, "/a/../b")
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            "a.example/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "//a.example/",
            "http:/a.example/",
            "http:a.example/",
            "http://",
            "http:///a",
            "http://user@a.example/",
            "http://user:pass@a.example/",
            "http://a.example@evil.example/",
            "http://a.example\\@evil.example/",
            "http://a.example\\.evil.example/",
            "http://a.example:80:81/",
            "http://a.example:/",
            "http://a.example:0/",
            "http://a.example:65536/",
            "http://a.example:+80/",
            "http://a.example:8_0/",
            "http://[::1/",
            "http://[::1]a/",
            "http://a.example/a b",
            "http://a.example/a\r\nHost: evil",
            "http://a.example/\0",
            "http://a.example/\t",
            " http://a.example/",
            "http://a.example/é",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(Url::parse(&format!("http://a/{}", "x".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn a_location_is_read_from_where_it_was_given() {
        let base = Url::parse("https://a.example:8443/one/two?q=1").unwrap();
        for (location, expected) in [
            ("http://b.example/x", "http://b.example/x"),
            ("//b.example/x", "https://b.example/x"),
            ("/x", "https://a.example:8443/x"),
            ("x", "https://a.example:8443/one/x"),
            ("../x/", "https://a.example:8443/x/"),
            ("../../../x", "https://a.example:8443/x"),
            ("./", "https://a.example:8443/one/"),
            ("?r=2", "https://a.example:8443/one/two?r=2"),
            ("", "https://a.example:8443/one/two?q=1"),
            ("/\u{e9}", "https://a.example:8443/%C3%A9"),
            ("/x#part", "https://a.example:8443/x"),
        ] {
            let url = base.join(location.as_bytes()).unwrap();
            assert_eq!(url.to_string(), expected, "{location:?}");
        }
        for location in [
            "javascript:alert(1)",
            "http://u@b.example/",
            "//",
            "file:///x",
        ] {
            assert!(base.join(location.as_bytes()).is_err(), "{location:?}");
        }
    }
}
