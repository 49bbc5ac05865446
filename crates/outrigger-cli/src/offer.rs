//! What `--serve` says: a service, the replies of its methods, and how the plugin
//! learns where it is.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use crate::failure::{Failure, printable};

/// The largest file of replies, in bytes.
const LARGEST_FILE: u64 = 64 << 20;

/// What `--serve` says: `SERVICE=REPLIES`, and then `@FIELD` or `@ID`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) service: String,
    replies: Replies,
    pub(crate) place: Place,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Replies {
    /// JSON on the command line.
    Text(String),
    File(PathBuf),
}

/// How the plugin learns where the service is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The broker id goes into the field of a request whose name says that it is for one.
    Guessed,
    /// It goes into this field.
    Field(Vec<String>),
    /// The plugin knows it: this is the id.
    Id(u32),
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        let name = |name: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        let good = |own: &String| !own.is_empty() && name(own);
        names
            .iter()
            .all(good)
            .then_some(Self::Field(names))
            .ok_or(())
    }
}

impl FromStr for Offer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, rest) = text
            .split_once('=')
            .filter(|(service, rest)| !service.is_empty() && !rest.is_empty())
            .ok_or("expected PACKAGE.SERVICE=FILE, and perhaps @FIELD or @ID")?;
        // Of several `@`, the last may say the place; a file may have them in its name.
        let (replies, place) = match rest.rsplit_once('@') {
            Some((replies, place)) if !replies.is_empty() => match place.parse() {
                Ok(place) => (replies, place),
                Err(()) => (rest, Place::Guessed),
            },
            _ => (rest, Place::Guessed),
        };
        Ok(Self {
            service: service.to_owned(),
            replies: match replies.starts_with('{') {
                true => Replies::Text(replies.to_owned()),
                false => Replies::File(replies.into()),
            },
            place,
        })
    }
}

impl Offer {
    /// The replies of each method.
    pub(crate) fn read(&self) -> Result<serde_json::Map<String, Value>, Failure> {
        let text = match &self.replies {
            Replies::Text(text) => text.clone(),
            Replies::File(path) => read(path).map_err(|reason| {
                let path = printable(&path.display().to_string());
                let message = format!("the replies in `{path}` (`--serve`) could not be read");
                Failure::usage("serve-unreadable", message).note(reason)
            })?,
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(methods)) => Ok(methods),
            Ok(_) => Err(self.invalid("they are no JSON object")),
            Err(error) => Err(self.invalid(&printable(&error.to_string()))),
        }
    }

    /// The replies cannot be used, for this reason.
    pub(crate) fn invalid(&self, reason: &str) -> Failure {
        let message = format!(
            "the replies of `{}` (`--serve`) cannot be used",
            printable(&self.service)
        );
        Failure::usage("serve-invalid", message)
            .note(reason.to_owned())
            .help(
                "they are an object with the methods: `{\"Sum\": {\"r\": 3}}`; a list has a reply for each call, \
                 or the replies of a stream; `{\"@error\": {\"code\": \"NOT_FOUND\", \"message\": \"\"}}` is an error",
            )
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    match text.len() as u64 > LARGEST_FILE {
        true => Err(format!("they are longer than {} MiB", LARGEST_FILE >> 20)),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_a_service_its_replies_and_a_place() {
        let file = |path: &str| Replies::File(path.into());
        let field = |names: &[&str]| Place::Field(names.iter().map(|n| (*n).to_owned()).collect());
        for (text, replies, place) in [
            ("a.B=f.json", file("f.json"), Place::Guessed),
            (
                "a.B=f.json@add_server",
                file("f.json"),
                field(&["add_server"]),
            ),
            ("a.B=f@1.json@x.y_z", file("f@1.json"), field(&["x", "y_z"])),
            ("a.B=f@1.2.json", file("f@1.2.json"), Place::Guessed),
            ("a.B=f@1", file("f"), Place::Id(1)),
            (
                "a.B={\"M\": {\"m\": \"a@b\"}}",
                Replies::Text("{\"M\": {\"m\": \"a@b\"}}".into()),
                Place::Guessed,
            ),
            ("a.B={}@7", Replies::Text("{}".into()), Place::Id(7)),
        ] {
            let expected = Offer {
                service: "a.B".to_owned(),
                replies,
                place,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "a.B", "a.B=", "=f"] {
            assert!(bad.parse::<Offer>().is_err(), "{bad}");
        }
    }
}
