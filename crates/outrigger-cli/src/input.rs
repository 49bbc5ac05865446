//! Where the JSON of a call comes from.

use std::io::{BufReader, Read};
use std::os::fd::AsFd as _;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::failure::{Exit, Failure, printable};
use crate::steps::Input;

/// Where JSON comes from, opened before the plugin is started.
pub(crate) enum Source {
    Absent,
    Read(Box<dyn Read + Send>),
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// `data-unreadable` and `input-failed`.
    pub(crate) fn open(input: Input) -> Result<Self, Failure> {
        Ok(match input {
            Input::Absent => Self::Absent,
            Input::Stdin => Self::Read(Box::new(stdin()?)),
            Input::Text(text) => Self::Read(Box::new(std::io::Cursor::new(text))),
            Input::File(path) => {
                let file = std::fs::File::open(&path).map_err(|error| {
                    let path = printable(&path.display().to_string());
                    Failure::usage("data-unreadable", format!("`{path}` could not be opened"))
                        .note(error.to_string())
                })?;
                Self::Read(Box::new(BufReader::new(file)))
            }
        })
    }
}

/// Stdin, for this side alone.
///
/// # Errors
/// `input-failed`.
pub(crate) fn stdin() -> Result<BufReader<std::fs::File>, Failure> {
    own_stdin().map(BufReader::new)
}

/// Takes stdin away from the plugin, which would inherit it and could read the requests.
fn own_stdin() -> Result<std::fs::File, Failure> {
    let take = || -> std::io::Result<std::fs::File> {
        let own = std::io::stdin().as_fd().try_clone_to_owned()?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(own.into())
    };
    take().map_err(|error| {
        Failure::new(
            Exit::Internal,
            "input-failed",
            "stdin could not be kept from the plugin",
        )
        .note(error.to_string())
    })
}

/// A JSON value out of several, or why it is none.
pub(crate) fn parsed(number: usize, value: serde_json::Result<Value>) -> Result<Value, Failure> {
    value.map_err(|error| {
        let what = if error.is_io() {
            "could not be read"
        } else {
            "is not JSON"
        };
        Failure::usage("data-invalid", format!("request message {number} {what}"))
            .note(printable(&error.to_string()))
    })
}

/// Does `read` on a thread of its own: a read from a terminal cannot be
/// cancelled, and must not hold up the end of the command.
///
/// # Errors
/// `input-failed` without a thread.
pub(crate) fn beside(read: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name("input".into())
        .spawn(read)
        .map(drop)
        .map_err(|error| {
            Failure::new(
                Exit::Internal,
                "input-failed",
                "no thread could be started to read the input",
            )
            .note(error.to_string())
        })
}

/// The only value of the input, if there is one.
///
/// # Errors
/// `data-invalid` when it is no JSON, `data-too-much` when there are more.
///
/// # Cancel safety
/// What was read is lost when the future is dropped.
pub(crate) async fn only_value(source: Source) -> Result<Option<Value>, Failure> {
    let Source::Read(reader) = source else {
        return Ok(None);
    };
    let (report, value) = oneshot::channel();
    beside(move || {
        // The command may have ended.
        let _ = report.send(one(reader));
    })?;
    value.await.unwrap_or_else(|_| {
        let text = "the reader of the input stopped";
        Err(Failure::new(Exit::Internal, "input-failed", text))
    })
}

fn one(reader: Box<dyn Read + Send>) -> Result<Option<Value>, Failure> {
    let mut values = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let value = parsed(1, value)?;
    match values.next() {
        None => Ok(Some(value)),
        Some(second) => {
            parsed(2, second)?;
            Err(too_much())
        }
    }
}

pub(crate) fn too_much() -> Failure {
    Failure::usage(
        "data-too-much",
        "the method takes exactly one request message, and the data holds more",
    )
}
