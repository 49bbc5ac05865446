//! A failure on its way over the control socket.

use std::collections::BTreeMap;

use outrigger::{Coded as _, Error, ErrorKind};
use outrigger_wire::ErrorInfo;
use tonic::{Code, Status};

use crate::failure::{Exit, Failure, printable};
use crate::files;

/// The domain of the reasons.
pub(crate) const DOMAIN: &str = "outrigger.control";
/// Most bytes of what else is known: it travels in a header.
const MOST_DETAILS: usize = 16 << 10;

/// The status that stands for a failure.
pub(crate) fn status(code: Code, failure: &Failure) -> Status {
    let mut metadata = BTreeMap::new();
    let known: Vec<&str> = (failure.causes.iter().chain(&failure.notes))
        .map(String::as_str)
        .collect();
    for (key, texts) in [
        ("details", known.join("\n")),
        ("help", failure.help.join("\n")),
    ] {
        if !texts.is_empty() {
            let text = outrigger_wire::text::shortened(texts, MOST_DETAILS);
            metadata.insert(key.to_owned(), text.into_owned());
        }
    }
    let info = ErrorInfo {
        reason: failure.code.to_string(),
        domain: DOMAIN.to_owned(),
        metadata,
    };
    let details = info.encode_with(code as i32, &failure.message);
    Status::with_details(code, &*failure.message, details.into())
}

/// The status that stands for what is wrong with a plugin.
pub(crate) fn of_plugin(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::Launch(_) | ErrorKind::ShutDown => Code::Unavailable,
        _ if error.code() == "plugin-not-found" => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    status(code, &files::failure(error))
}

/// The failure that a status stands for.
pub(crate) fn failure(status: &Status) -> Failure {
    let Some(info) = ErrorInfo::find(status.details(), DOMAIN) else {
        let message = "the running `outrigger run` did not answer as it should";
        let said = format!(
            "{}: {}",
            crate::status::name(status.code()),
            status.message()
        );
        return Failure::new(Exit::NotStarted, "control-lost", message)
            .note(printable(&said))
            .help("it may have ended meanwhile: `outrigger list` shows what runs");
    };
    let exit = match (info.reason.as_str(), status.code()) {
        ("needs-approval" | "lock-differs", _) => Exit::NeedsApproval,
        (_, Code::NotFound | Code::InvalidArgument) => Exit::Usage,
        (_, Code::Unavailable) => Exit::NotStarted,
        _ => Exit::Failed,
    };
    let lines = |key: &str| -> Vec<String> {
        let text = info.metadata.get(key).map(String::as_str);
        text.into_iter()
            .flat_map(str::lines)
            .map(printable)
            .collect()
    };
    let mut failure = Failure::new(exit, info.reason.clone(), printable(status.message()));
    failure.notes = lines("details");
    failure.help = lines("help");
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let sent = Failure::new(Exit::NotStarted, "exited-early", "plugin `a` exited")
            .note("killed by signal 9")
            .note("stderr: \"x\"")
            .help("look at it");
        assert_eq!(failure(&status(Code::Unavailable, &sent)), sent);
        let lost = failure(&Status::unavailable("gone"));
        assert_eq!((lost.exit, &*lost.code), (Exit::NotStarted, "control-lost"));
    }
}
