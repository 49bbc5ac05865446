//! What went wrong, for people and for programs.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// What the exit code of the command says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// The plugin started, and then it or the call failed.
    Failed = 1,
    /// The command line, the method name or the JSON was wrong.
    Usage = 2,
    /// The plugin could not be started or reached.
    NotStarted = 3,
    /// This side could not do its part, such as writing its output.
    Internal = 4,
    /// A plugin asks for more than was approved.
    NeedsApproval = 5,
}

/// One failure, complete with what may help.
///
/// Every text in it is safe to print: what a plugin chose is already escaped.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Failure {
    #[serde(skip)]
    pub(crate) exit: Exit,
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) help: Vec<String>,
}

impl Failure {
    pub(crate) fn new(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into().into_boxed_str(),
            causes: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    pub(crate) fn usage(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// Adds the chain of sources beneath `error`, leaving out repetitions.
    pub(crate) fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(error) = source {
            let text = printable(&error.to_string());
            if !self.message.contains(&text) && !self.causes.iter().any(|c| c.contains(&text)) {
                self.causes.push(text);
            }
            source = error.source();
        }
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The failure as text, with terminal codes that the printing stream removes where they do not belong.
    pub(crate) fn render(&self) -> String {
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let bold = Style::new().bold();
        let mut text = format!(
            "{red}error[{}]{red:#}{bold}: {}{bold:#}\n",
            self.code, self.message
        );
        let lists = [
            ("caused by", &self.causes),
            ("note", &self.notes),
            ("help", &self.help),
        ];
        for (label, entries) in lists {
            for entry in entries {
                let entry = entry.replace('\n', "\n    ");
                let _ = writeln!(text, "  {bold}{label}{bold:#}: {entry}");
            }
        }
        text
    }
}

/// What an error and those beneath it say, on one line and safe to print.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = printable(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let reason = printable(&error.to_string());
        if !text.contains(&reason) {
            let _ = write!(text, ": {reason}");
        }
        source = error.source();
    }
    text
}

/// Text of uncertain origin, safe to print on one line, without quotes.
pub(crate) fn printable(text: &str) -> String {
    outrigger_wire::text::printable(text).into_owned()
}

/// The names nearest to `wanted`, best first, at most three.
pub(crate) fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| name.len() <= 512)
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= wanted.len().max(name.len()) / 3)
        .collect();
    scored.sort();
    let furthest = scored.first().map_or(0, |(best, _)| best + 2);
    scored.retain(|(distance, _)| *distance <= furthest);
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_prints_its_code_causes_notes_and_help() {
        let failure = Failure::new(Exit::NotStarted, "exited-early", "plugin `a` exited")
            .note("last stderr line: \"x\"\nsecond")
            .help("look at it");
        let text = anstream::adapter::strip_str(&failure.render()).to_string();
        assert_eq!(
            text,
            "error[exited-early]: plugin `a` exited\n  note: last stderr line: \"x\"\n    second\n  help: look at it\n"
        );
    }

    #[test]
    fn near_names_are_found_despite_case_and_typing_errors() {
        let names = [
            "proto.KV/Get",
            "proto.KV/Put",
            "grpc.health.v1.Health/Check",
        ];
        assert_eq!(
            near("proto.kv/Gte", names),
            ["proto.KV/Get", "proto.KV/Put"]
        );
        assert!(near("unrelated", names).is_empty());
    }
}
