//! What a plugin called of the services that the caller offered: shown as it
//! happens, or kept for the one object.

use std::sync::{Arc, Mutex, PoisonError};

use prost_reflect::DynamicMessage;
use serde_json::json;
use tonic::Status;

use crate::failure::printable;
use crate::printer::line;
use crate::{codec, output, status};

/// How many calls are kept for the one object.
const MOST_CALLS: usize = 1000;
/// How much of their messages is kept, in bytes of JSON.
const MOST_BYTES: usize = 64 << 20;
/// How much of one message is shown in text, in characters.
const SHOWN: usize = 4096;

/// Sees the plugin's calls. Clones share what they see.
#[derive(Clone)]
pub(crate) struct Witness {
    /// Nothing where calls are shown as text.
    kept: Option<Arc<Mutex<Exchanges>>>,
}

#[derive(Default)]
struct Exchanges {
    calls: Vec<Exchange>,
    /// Bytes of JSON in them.
    bytes: usize,
    /// What there was no room for.
    more: u64,
}

/// One call, in JSON.
struct Exchange {
    method: String,
    requests: Vec<String>,
    replies: Vec<String>,
    error: Option<String>,
}

/// One call that is going on.
#[derive(Clone)]
pub(crate) struct Call {
    witness: Witness,
    method: String,
    /// Its number among those that are kept.
    at: Option<usize>,
}

impl Witness {
    /// Keeps what it sees for JSON, or shows it as text.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            kept: json.then(Arc::default),
        }
    }

    pub(crate) fn called(&self, method: &str) -> Call {
        let at = self.kept.as_ref().and_then(|kept| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.calls.len() >= MOST_CALLS {
                kept.more += 1;
                return None;
            }
            kept.calls.push(Exchange {
                method: method.to_owned(),
                requests: Vec::new(),
                replies: Vec::new(),
                error: None,
            });
            Some(kept.calls.len() - 1)
        });
        Call {
            witness: self.clone(),
            method: method.to_owned(),
            at,
        }
    }

    /// What was seen, as a list in JSON, and a note when some of it was not kept.
    pub(crate) fn told(&self) -> Option<(String, Option<String>)> {
        let kept = self.kept.as_ref()?;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let calls: Vec<String> = kept.calls.iter().map(Exchange::json).collect();
        let note = (kept.more > 0).then(|| {
            format!(
                "{} calls or messages of the plugin were too many to keep",
                kept.more
            )
        });
        Some((format!("[{}]", calls.join(",")), note))
    }
}

impl Exchange {
    fn json(&self) -> String {
        format!(
            "{{\"method\":{},\"requests\":[{}],\"replies\":[{}],\"error\":{}}}",
            line(&self.method),
            self.requests.join(","),
            self.replies.join(","),
            self.error.as_deref().unwrap_or("null")
        )
    }
}

impl Call {
    /// The plugin sent this, as JSON.
    pub(crate) fn request(&self, text: String) {
        self.seen("the plugin called", "with", text, |exchange, text| {
            exchange.requests.push(text);
        });
    }

    /// It gets this; given back.
    pub(crate) fn reply(
        &self,
        reply: Result<DynamicMessage, Status>,
    ) -> Result<DynamicMessage, Status> {
        match reply {
            Ok(message) => {
                let text = codec::text(&message);
                self.seen("", "answered", text, |exchange, text| {
                    exchange.replies.push(text);
                });
                Ok(message)
            }
            Err(status) => Err(self.failed(status)),
        }
    }

    /// It gets this error; given back.
    pub(crate) fn failed(&self, status: Status) -> Status {
        let error = json!({"code": status::name(status.code()), "message": status.message()});
        let error = line(&error);
        self.seen("", "answered with the error", error, |exchange, text| {
            exchange.error = Some(text);
        });
        status
    }

    fn seen(
        &self,
        before: &str,
        after: &str,
        text: String,
        keep: impl FnOnce(&mut Exchange, String),
    ) {
        let Some(kept) = &self.witness.kept else {
            let method = printable(&self.method);
            let told = format!("{before} {method} {after} {}", shortened(&text));
            output::aside(told.trim_start());
            return;
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = self.at else {
            return;
        };
        if kept.bytes + text.len() > MOST_BYTES {
            kept.more += 1;
            return;
        }
        kept.bytes += text.len();
        if let Some(exchange) = kept.calls.get_mut(at) {
            keep(exchange, text);
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => {
            let more = text[end..].chars().count();
            format!("{}… (+{more} characters)", &text[..end])
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_plugins_calls_is_bounded() {
        let witness = Witness::new(true);
        for _ in 0..=MOST_CALLS {
            witness.called("a.B/C").request("{}".to_owned());
        }
        let big = witness.called("a.B/C");
        big.request("x".repeat(MOST_BYTES));
        let (json, note) = witness.told().expect("kept");
        let calls: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(calls.as_array().expect("a list").len(), MOST_CALLS);
        assert_eq!(
            calls[0],
            json!({"method": "a.B/C", "requests": [{}], "replies": [], "error": null})
        );
        assert!(note.expect("a note").starts_with("2 calls"));
    }

    #[test]
    fn what_is_shown_of_a_message_is_cut() {
        assert_eq!(shortened("ü"), "ü");
        let shown = shortened(&"ü".repeat(SHOWN + 3));
        assert!(shown.ends_with("ü… (+3 characters)"), "{shown}");
    }
}
