//! What a file is that somebody names, and what is said when one cannot be used.

use std::ffi::OsStr;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use outrigger::{Coded as _, Error, ErrorKind, FileKind, Problem, RegistryErrorKind, SourceFile};
use outrigger_manifest::{Position, ProblemCode};

use crate::failure::{Exit, Failure, printable};
use crate::snippet::Listing;

/// Keys that only a manifest has at its top, and those that only a policy has.
const OF_MANIFESTS: [&str; 9] = [
    "plugin",
    "about",
    "handshake",
    "security",
    "capabilities",
    "resources",
    "sandbox",
    "jit",
    "services",
];
const OF_POLICIES: [&str; 2] = ["default", "plugins"];

/// The lines of a file.
pub(crate) fn listing(source: &SourceFile) -> Listing {
    Listing::new(source.name(), source.bytes())
}

/// What a file seems to be: by its keys, else by its name.
pub(crate) fn kind(source: &SourceFile) -> FileKind {
    let name = source.path().file_name().and_then(OsStr::to_str);
    guess(name, &String::from_utf8_lossy(source.bytes()))
}

fn guess(name: Option<&str>, text: &str) -> FileKind {
    let (mut manifest, mut policy) = (0, 0);
    for line in text.split(['\n', '\r']) {
        let line = line.trim_start_matches(['{', '\u{feff}']);
        // Deeper ones are not at the top, except in JSON that is spread over lines.
        let line = match line.trim_start().starts_with('"') {
            true => line.trim_start(),
            false => line,
        };
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let key = key.trim_matches(['"', '\'', ' ']);
        manifest += usize::from(OF_MANIFESTS.contains(&key) && !line.starts_with(' '));
        policy += usize::from(OF_POLICIES.contains(&key) && !line.starts_with(' '));
    }
    match (manifest, policy) {
        // Both have limits, a sandbox and services, if not at the same place.
        (0, 0) if name.is_some_and(|name| name.contains("policy")) => FileKind::Policy,
        (manifest, policy) if policy > manifest => FileKind::Policy,
        _ => FileKind::Manifest,
    }
}

/// One problem as a compiler would show it.
pub(crate) fn problem_text(problem: &Problem, listing: &Listing) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let bold = Style::new().bold();
    let message = printable(problem.message());
    let mut text = format!(
        "{red}error[{}]{red:#}{bold}: {message}{bold:#}\n",
        problem.code()
    );
    if problem.position() == Position::IN_CODE {
        let meant = problem
            .near_miss()
            .map(|near| format!("did you mean `{}`?", printable(near)));
        let lines = [
            ("at", Some(problem.location())),
            ("help", meant.as_deref().or(problem.help())),
        ];
        for (label, line) in lines {
            if let Some(line) = line.filter(|line| !line.is_empty()) {
                let _ = writeln!(text, "  {bold}{label}{bold:#}: {}", printable(line));
            }
        }
        return text;
    }
    let label = problem
        .near_miss()
        .map(|near| format!("did you mean `{}`?", printable(near)));
    let mut remarks = Vec::new();
    if !problem.location().is_empty() {
        remarks.push(("at", printable(problem.location())));
    }
    if let Some(help) = problem.help() {
        remarks.push(("help", printable(help)));
    }
    let label = label.unwrap_or_default();
    text.push_str(&match problem.kind() {
        ProblemCode::FileTooLarge | ProblemCode::EmptyFile => listing.show_whole(&remarks),
        _ => listing.show(problem.position(), &label, red, &remarks),
    });
    text
}

/// One failure for a plugin that cannot be had, with what helps at the command line.
pub(crate) fn failure(error: &Error) -> Failure {
    let installed = error.registry();
    let exit = match (error.kind(), installed) {
        (ErrorKind::NotApproved { .. } | ErrorKind::NotExpected { .. }, _) => Exit::NeedsApproval,
        (ErrorKind::Launch(_), _)
        | (
            _,
            Some(
                RegistryErrorKind::Entrypoint { .. }
                | RegistryErrorKind::Unusable { .. }
                | RegistryErrorKind::NotExecutable { .. },
            ),
        ) => Exit::NotStarted,
        _ => Exit::Usage,
    };
    let failure = Failure::new(exit, error.code(), printable(&error.to_string()));
    let failure = error.details().into_iter().fold(failure, Failure::note);
    match (error.kind(), installed) {
        (_, Some(RegistryErrorKind::Invalid(_, problems))) => {
            let file = printable(problems.file());
            failure.help(format!("`outrigger check {file}` shows each in its place"))
        }
        (ErrorKind::Place(_), _) => failure
            .help("keep a plugin in a folder of its own, and its data in another (`--data-dir`)"),
        (_, Some(RegistryErrorKind::Entrypoint { .. })) => {
            failure.help("build it, correct `plugin.entrypoint`, or name a program after `--`")
        }
        _ => error
            .hint()
            .into_iter()
            .fold(failure, |failure, hint| failure.help(hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_told_from_manifests_even_when_damaged() {
        for text in [
            "default:\n  allow: requested\n",
            "schema: 1\nplugins: {}\n",
            "{\"default\": {}}",
            "{\n  \"schema\": 1,\n  \"plugins\": {\"a\": {}}\n}",
            "default: [\n",
        ] {
            assert_eq!(guess(Some("x.yaml"), text), FileKind::Policy, "{text}");
        }
        for text in [
            "",
            "plugins: {name: a}\nhandshake: {}\n",
            "plugin:\n  default: 1\n",
            "{plugin: {}}",
            "schema: 1",
        ] {
            assert_eq!(
                guess(Some("manifest.yaml"), text),
                FileKind::Manifest,
                "{text}"
            );
        }
        assert_eq!(guess(Some("policy.yaml"), "schema: 1"), FileKind::Policy);
    }
}
