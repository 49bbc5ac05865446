//! What calls print.

use std::time::{Duration, Instant};

use outrigger_host::Transport;
use serde_json::json;

use crate::establish::Introduced;
use crate::failure::Failure;
use crate::status::StatusReport;
use crate::texts::ReadableBytes;
use crate::{json, output};

/// How the calls of one run are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// A reply a line; notes and failures on stderr.
    Text,
    /// The one object of a single call.
    Object,
    /// One object with a list of the calls.
    List,
    /// An object a line, one for each call.
    Lines,
}

impl Form {
    /// What suits a number of calls that is known, or not.
    pub(crate) fn of(json: bool, several: bool) -> Self {
        match (json, several) {
            (false, _) => Self::Text,
            (true, false) => Self::Object,
            (true, true) => Self::List,
        }
    }
}

/// Prints replies as they come: a line each, or parts of an object.
pub(crate) struct Printer {
    form: Form,
    /// Whether there may be several calls.
    several: bool,
    /// Whether each is named in text.
    pub(crate) headed: bool,
    calls: u64,
    call: Call,
    pub(crate) notes: Vec<String>,
    /// What the host did for the plugin, if anything was offered.
    pub(crate) host: Option<serde_json::Value>,
    /// What the plugin called itself when the host was introduced.
    pub(crate) client_id: Option<String>,
    /// The calls that the plugin made to a service of the caller's own, as JSON.
    pub(crate) served: Option<String>,
}

/// The call that is being made.
struct Call {
    method: String,
    begun: bool,
    replies: u64,
    started: Instant,
    took: Option<Duration>,
    ending: Ending,
    notes: Vec<String>,
}

impl Call {
    fn of(method: String) -> Self {
        Self {
            method,
            begun: false,
            replies: 0,
            started: Instant::now(),
            took: None,
            ending: Ending::Grpc(None),
            notes: Vec::new(),
        }
    }

    /// The end of its object, after the list of replies.
    fn rest(&self) -> String {
        let took = self.took.unwrap_or_else(|| self.started.elapsed());
        let millis = (took.as_secs_f64() * 1e4).round() / 10.0;
        format!("],{},\"duration_ms\":{millis}", self.ending.members())
    }
}

/// How a call ended, in the words of its protocol.
pub(crate) enum Ending {
    /// A gRPC status, unless the call was given up.
    Grpc(Option<StatusReport>),
    NetRpc {
        /// What the reply is in Go, if there is one.
        reply_type: Option<String>,
        /// All that the method's error says, if it failed.
        failure: Option<String>,
    },
}

impl Ending {
    /// Its members of the one object.
    fn members(&self) -> String {
        match self {
            Self::Grpc(status) => format!("\"status\":{}", line(status)),
            Self::NetRpc {
                reply_type,
                failure,
            } => format!(
                "\"reply_type\":{},\"failure\":{}",
                line(reply_type),
                line(failure)
            ),
        }
    }
}

impl Printer {
    pub(crate) fn new(form: Form, several: bool) -> Self {
        Self {
            form,
            several,
            headed: several,
            calls: 0,
            call: Call::of(String::new()),
            notes: Vec::new(),
            host: None,
            client_id: None,
            served: None,
        }
    }

    /// Keeps what came of an introduction.
    pub(crate) fn introduced(&mut self, mut introduced: Introduced) -> Introduced {
        self.notes.append(&mut introduced.notes);
        self.client_id = introduced.client_id.take();
        introduced
    }

    /// Turns to the next call.
    pub(crate) fn call(&mut self, method: String) {
        if self.form == Form::Text && self.headed {
            output::heading(&method);
        }
        self.call = Call::of(method);
    }

    /// Notes something about the call.
    pub(crate) fn note(&mut self, note: String) {
        self.call.notes.push(note);
    }

    /// Says how the call ended.
    pub(crate) fn ending(&mut self, ending: Ending) {
        self.call.ending = ending;
    }

    /// Says what is called, and takes the time from now on.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn begin(&mut self, protocol: Transport, kind: &'static str) -> Result<(), Failure> {
        self.call.begun = true;
        self.call.started = Instant::now();
        if self.form == Form::Text {
            return Ok(());
        }
        let before = self.before();
        let method = line(&self.call.method);
        output::plain(&format!(
            "{before}{{\"method\":{method},\"protocol\":\"{protocol}\",\"kind\":\"{kind}\",\"replies\":["
        ))
    }

    /// What stands in front of the next object.
    fn before(&mut self) -> &'static str {
        self.calls += 1;
        match (self.form, self.calls) {
            (Form::List, 1) => "{\"calls\":[\n",
            (Form::List, _) => ",\n",
            _ => "",
        }
    }

    /// Prints a reply, which is JSON on one line, and in text beside it what of
    /// its bytes is text.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn reply(&mut self, text: &str, shown: &[ReadableBytes]) -> Result<(), Failure> {
        let (before, after) = match (self.form, self.call.replies) {
            (Form::Text, _) => ("", "\n"),
            (Form::Lines, 0) => ("", ""),
            (Form::Lines, _) => (",", ""),
            (_, 0) => ("\n  ", ""),
            (_, _) => (",\n  ", ""),
        };
        self.call.replies += 1;
        [before, text, after]
            .into_iter()
            .try_for_each(output::plain)?;
        if self.form == Form::Text {
            for (place, text) in shown {
                output::aside(&format!("{place} is the text {text}"));
            }
        }
        Ok(())
    }

    /// Tells of a failure that belongs to no call, after which others follow.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn trouble(&mut self, failure: &Failure) -> Result<(), Failure> {
        output::failure(failure);
        match self.form {
            Form::Lines => output::plain(&format!("{}\n", line(&json!({"error": failure})))),
            _ => Ok(()),
        }
    }

    /// The call is over; `result` is told, unless it is the one of a single call,
    /// which [`finish`](Self::finish) tells.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn called(&mut self, result: &Result<(), Failure>) -> Result<(), Failure> {
        self.call.took = Some(self.call.started.elapsed());
        if !self.several {
            return Ok(());
        }
        if let Err(failure) = result {
            output::failure(failure);
        }
        if self.form == Form::Text {
            self.call.notes.iter().for_each(|note| output::note(note));
            return Ok(());
        }
        let mut text = match self.call.begun {
            true => self.call.rest(),
            false => {
                let before = self.before();
                format!("{before}{{\"method\":{}", line(&self.call.method))
            }
        };
        text.push_str(&told(&self.call.notes, result.as_ref().err()));
        text.push('}');
        if self.form == Form::Lines {
            text.push('\n');
        }
        output::plain(&text)
    }

    /// Completes what is printed, also when nothing came of it.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn finish(&mut self, result: &Result<(), Failure>) -> Result<(), Failure> {
        let error = result.as_ref().err();
        if !self.several {
            self.notes.append(&mut self.call.notes);
        }
        let mut text = match self.form {
            Form::Text => {
                self.notes.iter().for_each(|note| output::note(note));
                return Ok(());
            }
            Form::Lines => "{\"end\":true".to_owned(),
            Form::Object if !self.call.begun => {
                let object = json!({"method": self.call.method, "error": error});
                return output::plain(&format!("{}\n", line(&object)));
            }
            Form::Object => self.call.rest(),
            Form::List if self.calls == 0 => "{\"calls\":[]".to_owned(),
            Form::List => "\n]".to_owned(),
        };
        if let Some(host) = &self.host {
            text.push_str(&format!(",\"host\":{}", line(host)));
        }
        if let Some(served) = &self.served {
            text.push_str(&format!(",\"served\":{served}"));
        }
        text.push_str(&told(&self.notes, error));
        output::plain(&format!("{text}}}\n"))
    }
}

/// Notes and the error as members of an object, if there are any.
fn told(notes: &[String], error: Option<&Failure>) -> String {
    let mut text = String::new();
    if !notes.is_empty() {
        text.push_str(&format!(",\"notes\":{}", line(notes)));
    }
    if let Some(error) = error {
        text.push_str(&format!(",\"error\":{}", line(error)));
    }
    text
}

/// JSON on one line; `null` for what JSON cannot say.
pub(crate) fn line<T: serde::Serialize + ?Sized>(value: &T) -> String {
    json::line(value).unwrap_or_else(|_| "null".to_owned())
}
