//! Entries about commands, and control over what was started.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{At, Entry, EntryList};
use crate::arguments::ArgPattern;
use crate::check::{Check, Fields, Side};
use crate::choices::{Children, ProcessControl};
use crate::flow::word_text;
use crate::keys::{Group, Key, Section, Shape};
use crate::path::PathTemplate;
use crate::problem::Position;
use crate::shapes::{Words, filled_list};
use crate::tree::Node;

pub(crate) static EXEC: Key<EntryList<ExecEntry>> =
    Key::optional("exec", "commands that the host may be asked to run");
static KILL: Key<ChildrenOnly> = Key::optional(
    ProcessControl::Kill.as_str(),
    "end processes that the plugin started; there is no other scope",
);
static LIST: Key<ChildrenOnly> = Key::optional(
    ProcessControl::List.as_str(),
    "see the processes that the plugin started",
);
static SIGNAL: Key<ChildrenOnly> = Key::optional(
    ProcessControl::Signal.as_str(),
    "send signals to processes that the plugin started",
);
pub(crate) static SECTION: Section = Section {
    about: "",
    keys: &[&EXEC, &KILL, &LIST, &SIGNAL],
};

pub(crate) static COMMAND: Key<PathTemplate> =
    Key::required("command", "the program, by a path as for files");
pub(crate) static ARGS: Key<ArgPattern> = Key::optional(
    "args",
    "its arguments, matched one by one; a lone `*` stands for one argument, as the last for any number, and never for one that begins with `-`",
)
.default("no arguments")
.denied_default("any arguments");
pub(crate) static EXEC_ENTRY: Section = Section {
    about: "a command and its arguments",
    keys: &[&COMMAND, &ARGS],
};

/// What is asked or ruled about processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) exec: Vec<ExecEntry>,
    /// Which kinds of control over the plugin's own children, and where each is said.
    control: Vec<(ProcessControl, At)>,
}

impl Processes {
    pub(crate) fn new(exec: Vec<ExecEntry>, control: Vec<(ProcessControl, At)>) -> Processes {
        Processes { exec, control }
    }

    pub(crate) fn add_control(&mut self, control: ProcessControl, at: At) {
        self.control.push((control, at));
    }

    pub(crate) fn controls(&self, control: ProcessControl) -> Option<At> {
        let mut said = self.control.iter();
        said.find(|(mine, _)| *mine == control).map(|(_, at)| *at)
    }
}

impl Group for Processes {
    fn section() -> &'static Section {
        &SECTION
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Processes> {
        let exec = EXEC.read(check, fields).unwrap_or_default();
        let mut control = Vec::new();
        for (key, kind) in [
            (&KILL, ProcessControl::Kill),
            (&LIST, ProcessControl::List),
            (&SIGNAL, ProcessControl::Signal),
        ] {
            control.extend(key.read(check, fields).map(|at| (kind, at)));
        }
        Some(Processes { exec, control })
    }
}

impl Serialize for Processes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        super::print(&mut map, EXEC.name, &self.exec)?;
        for (control, _) in &self.control {
            map.serialize_entry(control.as_str(), &Children::names())?;
        }
        map.end()
    }
}

/// The one scope there is: `[children]`. The value is where it stands.
pub(crate) struct ChildrenOnly;

impl Shape for ChildrenOnly {
    type Value = At;

    fn kind(_: Side) -> String {
        "`[children]`".to_owned()
    }

    fn schema(_: Side) -> Value {
        filled_list(json!({"const": "children"}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<At> {
        let scope = check.words(node, location, Children::WHAT, Children::WORDS)?;
        (!scope.is_empty()).then_some(At(node.at))
    }
}

/// A request for, or a rule about, running a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecEntry {
    pub(crate) at: At,
    pub(crate) command: PathTemplate,
    pub(crate) args: ArgPattern,
}

impl ExecEntry {
    pub(crate) fn text(&self) -> String {
        exec_text(&self.command.to_string(), &self.args.to_string())
    }
}

pub(crate) fn exec_text(command: &str, args: &str) -> String {
    format!("{{command: {}, args: {args}}}", word_text(command))
}

impl Group for ExecEntry {
    fn section() -> &'static Section {
        &EXEC_ENTRY
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<ExecEntry> {
        let absent = match check.side {
            Side::Request | Side::Allow => ArgPattern::default(),
            Side::Deny => ArgPattern::anything(),
        };
        let command = COMMAND.read(check, fields);
        let args = ARGS.read_or(check, fields, absent);
        Some(ExecEntry {
            at: At(fields.at()),
            command: command?,
            args: args?,
        })
    }
}

impl Entry for ExecEntry {
    fn at(&self) -> Position {
        self.at.0
    }
}

impl Serialize for ExecEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(COMMAND.name, &self.command)?;
        map.serialize_entry(ARGS.name, &self.args)?;
        map.end()
    }
}
