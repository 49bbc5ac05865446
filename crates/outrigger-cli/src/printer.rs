//! What a call prints.

use std::time::Instant;

use outrigger_host::Transport;
use serde_json::json;

use crate::args::CallArgs;
use crate::establish::Introduced;
use crate::failure::Failure;
use crate::status::StatusReport;
use crate::{json, output};

/// Prints replies as they come: a line each, or parts of the one object.
pub(crate) struct Printer {
    json: bool,
    pub(crate) method: String,
    begun: bool,
    replies: u64,
    started: Instant,
    pub(crate) ending: Ending,
    pub(crate) notes: Vec<String>,
    /// What the host did for the plugin, if anything was offered.
    pub(crate) host: Option<serde_json::Value>,
    /// What the plugin called itself when the host was introduced.
    pub(crate) client_id: Option<String>,
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
    pub(crate) fn new(args: &CallArgs) -> Self {
        Self {
            json: args.plugin.json,
            method: args.method.to_string(),
            begun: false,
            replies: 0,
            started: Instant::now(),
            ending: Ending::Grpc(None),
            notes: Vec::new(),
            host: None,
            client_id: None,
        }
    }

    /// Keeps what came of an introduction.
    pub(crate) fn introduced(&mut self, mut introduced: Introduced) -> Introduced {
        self.notes.append(&mut introduced.notes);
        self.client_id = introduced.client_id.take();
        introduced
    }

    /// Says what is called, and takes the time from now on.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn begin(&mut self, protocol: Transport, kind: &'static str) -> Result<(), Failure> {
        self.begun = true;
        self.started = Instant::now();
        if !self.json {
            return Ok(());
        }
        let method = line(&self.method);
        output::plain(&format!(
            "{{\"method\":{method},\"protocol\":\"{protocol}\",\"kind\":\"{kind}\",\"replies\":["
        ))
    }

    /// Prints a reply, which is JSON on one line.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn reply(&mut self, text: &str) -> Result<(), Failure> {
        let (before, after) = match (self.json, self.replies) {
            (false, _) => ("", "\n"),
            (true, 0) => ("\n  ", ""),
            (true, _) => (",\n  ", ""),
        };
        self.replies += 1;
        [before, text, after]
            .into_iter()
            .try_for_each(output::plain)
    }

    /// Completes the one object, also when nothing came of the call.
    ///
    /// # Errors
    /// As [`output::plain`].
    pub(crate) fn finish(&mut self, result: &Result<(), Failure>) -> Result<(), Failure> {
        if !self.json {
            self.notes.iter().for_each(|note| output::note(note));
            return Ok(());
        }
        if !self.begun {
            let error = result.as_ref().err();
            return output::plain(&format!(
                "{}\n",
                line(&json!({"method": self.method, "error": error}))
            ));
        }
        let millis = (self.started.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        let ending = self.ending.members();
        let mut rest = format!("],{ending},\"duration_ms\":{millis}");
        if let Some(host) = &self.host {
            rest.push_str(&format!(",\"host\":{}", line(host)));
        }
        if !self.notes.is_empty() {
            rest.push_str(&format!(",\"notes\":{}", line(&self.notes)));
        }
        if let Err(failure) = result {
            rest.push_str(&format!(",\"error\":{}", line(failure)));
        }
        output::plain(&format!("{rest}}}\n"))
    }
}

/// JSON on one line; `null` for what JSON cannot say.
pub(crate) fn line<T: serde::Serialize + ?Sized>(value: &T) -> String {
    json::line(value).unwrap_or_else(|_| "null".to_owned())
}
