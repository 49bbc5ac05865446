//! Why a plugin did not start.

use std::path::Path;

use outrigger_host::{ExitStatus, HandshakeError, LaunchError, LaunchErrorKind, diagnose};
use outrigger_wire::{Excerpt, Transport};

use crate::args::PluginArgs;
use crate::cookies::Found;
use crate::failure::{Exit, Failure, printable};
use crate::granting::Target;
use crate::seen::Seen;

/// How many arguments are searched for cookies, if they are files.
const MOST_SEARCHED_ARGUMENTS: usize = 4;

/// Why a plugin did not start, and what may help.
pub(crate) fn explain(error: &LaunchError, seen: &Seen, target: &Target) -> Failure {
    let mut failure = match other_protocol(error, target) {
        Some(message) => Failure::new(Exit::NotStarted, error.code(), message),
        None => Failure::new(Exit::NotStarted, error.code(), message_of(error)).caused_by(error),
    };
    if let Some(verdict) = cookie_verdict(error, seen, target) {
        failure = blame_cookie(verdict, error, target);
    } else if matches!(error.kind(), LaunchErrorKind::HandshakeTimeout(_)) {
        failure = silent(failure, seen, target);
    } else if let Some(help) = manifest_help(error.code(), target)
        .or_else(|| flag_help(error.code()))
        .map(str::to_owned)
        .or_else(|| error.hint())
    {
        failure = failure.help(help);
    }
    if let Some(doubt) = doubt(error, seen) {
        failure = failure.help(doubt);
    }
    seen.stderr.lines().iter().fold(failure, |failure, line| {
        failure.note(format!("stderr: {line}"))
    })
}

/// A program that printed no line in its time: what it was doing, and what it may be.
fn silent(mut failure: Failure, seen: &Seen, target: &Target) -> Failure {
    if !seen.line.is_empty() {
        let begun = Excerpt::new(&seen.line);
        failure = failure.note(format!("it printed {begun} and did not end the line"));
    }
    let notes = failure.help.len();
    if let Some(look) = &seen.look {
        failure = look.told(failure);
    }
    if failure.help.len() == notes {
        let cookie = match &target.args.cookie {
            None => ", once it is given its magic cookie (`--cookie`)",
            Some(_) => "",
        };
        failure = failure.help(format!(
            "it may be no go-plugin program at all: one prints a line such as `1|1|unix|/tmp/plugin|grpc` \
             when it has started{cookie}"
        ));
    }
    failure.help("raise `--start-timeout` if it needs longer")
}

/// What a program may be that ended, or printed something else than a handshake line.
fn doubt(error: &LaunchError, seen: &Seen) -> Option<&'static str> {
    let usage = |text: &str| text.to_lowercase().contains("usage:");
    match error.kind() {
        LaunchErrorKind::Handshake(
            HandshakeError::TooFewFields { .. } | HandshakeError::CoreVersionNotANumber { .. },
        ) if usage(&String::from_utf8_lossy(&seen.line)) => Some(
            "what it printed looks like a help text: it may want other arguments, or be no go-plugin program",
        ),
        LaunchErrorKind::Handshake(HandshakeError::TooFewFields { .. })
            if !seen.line.contains(&b'|') =>
        {
            Some(
                "it may be no go-plugin program: the first line of one is a handshake such as \
                 `1|1|unix|/tmp/plugin|grpc`",
            )
        }
        LaunchErrorKind::ExitedEarly if error.stderr().iter().any(|line| usage(line)) => Some(
            "its stderr looks like a help text: it may want other arguments, or be no go-plugin program",
        ),
        LaunchErrorKind::ExitedEarly if matches!(error.exit(), Some((ExitStatus::Code(0), _))) => {
            Some("it may be no go-plugin program: a plugin goes on until its host ends it")
        }
        _ => None,
    }
}

/// What is wrong when a plugin speaks the protocol that the command line does not ask for.
fn other_protocol(error: &LaunchError, target: &Target) -> Option<String> {
    let asked = target.args.protocol?;
    match error.kind() {
        LaunchErrorKind::Handshake(HandshakeError::TransportNotAllowed { observed, .. }) => {
            let name = target.name();
            Some(match (target.by_manifest.protocol, asked) {
                (false, asked) => format!(
                    "plugin `{name}` speaks {observed}, and `--protocol {}` asks for the other",
                    asked.as_str()
                ),
                (true, Transport::Grpc) => format!(
                    "plugin `{name}` speaks {observed}, and its manifest says `format: grpc`"
                ),
                (true, Transport::NetRpc) => format!(
                    "plugin `{name}` speaks {observed}, and its manifest says `format: rpc`"
                ),
            })
        }
        _ => None,
    }
}

/// The error without the line that the notes repeat.
fn message_of(error: &LaunchError) -> String {
    let text = error.to_string();
    match text.split_once("; its last line on stderr: ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// What to change in the manifest for one kind of error, where that said what was wrong.
fn manifest_help(code: &str, target: &Target) -> Option<&'static str> {
    Some(match code {
        "transport-not-allowed" if target.by_manifest.protocol => {
            "correct `plugin.format`, or name another protocol with `--protocol`"
        }
        "certificate-missing" if target.by_manifest.auto_mtls => {
            "correct `security.auto_mtls`: it does not take part in that"
        }
        _ => return None,
    })
}

/// What to change on the command line for one kind of error.
fn flag_help(code: &str) -> Option<&'static str> {
    Some(match code {
        "certificate-unexpected" => "run it with `--auto-mtls`",
        "certificate-missing" => "run it without `--auto-mtls`: it does not take part in that",
        "mux-unsupported" => "run it without `--mux`: it does not take part in that",
        "app-version-mismatch" => {
            "offer what it speaks with `--app-version`, or leave that out to accept any version"
        }
        "transport-not-allowed" => {
            "leave `--protocol` out to accept either; a plugin that speaks both chooses by app version: \
             offer the one you mean with `--app-version`"
        }
        "process-not-found" => "is it still running? its address is new each time it is started",
        _ => return None,
    })
}

/// How sure it is that the cookie kept a plugin from starting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The plugin says so.
    Said,
    /// It behaves like it: status 1 and nothing on stdout.
    Likely,
}

fn cookie_verdict(error: &LaunchError, seen: &Seen, target: &Target) -> Option<Verdict> {
    let early = matches!(
        error.kind(),
        LaunchErrorKind::ExitedEarly | LaunchErrorKind::StdoutClosed
    );
    if !early || !seen.line.is_empty() {
        return None;
    }
    if error.stderr().iter().any(|line| speaks_of_cookie(line)) {
        return Some(Verdict::Said);
    }
    // A plugin that was given a cookie and complains of something else means that.
    let complains =
        target.args.cookie.is_some() && !error.stderr().is_empty() || seen.stderr.crashed();
    let like_it = matches!(error.exit(), Some((ExitStatus::Code(1), _))) && !complains;
    like_it.then_some(Verdict::Likely)
}

/// Whether a line is what plugins print when they are started by hand.
fn speaks_of_cookie(line: &str) -> bool {
    let line = line.to_lowercase();
    [
        "is a plugin",
        "magic cookie",
        "not meant to be executed directly",
    ]
    .iter()
    .any(|words| line.contains(words))
}

fn blame_cookie(verdict: Verdict, error: &LaunchError, target: &Target) -> Failure {
    let likely = if verdict == Verdict::Likely {
        ", most likely"
    } else {
        ""
    };
    let (code, reason) = match &target.args.cookie {
        None => (
            "magic-cookie-missing",
            "it was given no magic cookie".to_owned(),
        ),
        Some(cookie) => {
            let given = printable(&format!("{}={}", cookie.key, cookie.value));
            (
                "magic-cookie-wrong",
                format!("`{given}` is not its magic cookie"),
            )
        }
    };
    let message = format!(
        "plugin `{}` did not start{likely} because {reason}",
        target.name()
    );
    let mut failure = Failure::new(Exit::NotStarted, code, message);
    if let Some((status, after)) = error.exit() {
        failure = failure.note(format!(
            "it {status} after {} ms and printed no handshake line",
            after.as_millis()
        ));
    }
    cookies_of_program(failure, &target.args).help(
        "its cookie is `MagicCookieKey` and `MagicCookieValue` of the `HandshakeConfig` in the source \
         of the plugin, of its SDK or of its host; pass it as `--cookie KEY=VALUE`",
    )
}

/// Tells which cookies the program itself speaks of. Only those may be its own.
fn cookies_of_program(mut failure: Failure, args: &PluginArgs) -> Failure {
    let given = args.cookie.as_ref();
    let key = given.map(|cookie| cookie.key.as_str());
    let mut found = Found::default();
    found.look(&diagnose(&args.program()).path, key);
    // The plugin of an interpreter stands among its arguments.
    for argument in args.arguments().iter().take(MOST_SEARCHED_ARGUMENTS) {
        found.look(Path::new(argument), key);
    }
    if let (Some(key), true, false) = (key, found.looked, found.asked) {
        failure = failure.note(format!("the program does not contain `{}`", printable(key)));
    }
    for cookie in found.known {
        let pair = format!("{}={}", cookie.key, cookie.value);
        let quote = if pair.contains(' ') { "'" } else { "" };
        let own = format!("`--cookie {quote}{pair}{quote}` ({})", cookie.product);
        match given {
            Some(given) if (&*given.key, &*given.value) == (cookie.key, cookie.value) => {}
            Some(given) if given.key == cookie.key => {
                failure = failure.help(format!("its key is published with another value: {own}"));
            }
            _ => {
                let key = cookie.key;
                failure = failure.help(format!("the program contains `{key}`; try {own}"));
            }
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_plugins_started_by_hand_are_recognised() {
        assert!(speaks_of_cookie(
            "This binary is a plugin. These are not meant to be"
        ));
        assert!(speaks_of_cookie("no Magic Cookie"));
        assert!(!speaks_of_cookie("cannot open database"));
    }
}
