//! What a plugin asks for now, compared with what was approved for it: whether that covers it, and
//! what differs.
//!
//! What was approved becomes a policy that allows just that, and the code that decides about
//! every manifest decides here as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::choices::{Access, Direction, ProcessControl};
use crate::entries::environment::Ruled;
use crate::entries::{At, FilesystemEntry};
use crate::grants::FilesystemGrant;
use crate::host::HostPattern;
use crate::name::{PluginName, VariablePattern};
use crate::path::Places;
use crate::permissions::Permissions;
use crate::policy::{Allow, Policy, PolicyEntries, Section};
use crate::requests::{Ask, Requests, Thing};

/// How the requests of a plugin differ from those that were approved for it.
///
/// ```
/// use outrigger_manifest::Requests;
///
/// let approved = Requests::from_lines(["filesystem /data: read, recursive"]).unwrap();
/// let now = Requests::from_lines([
///     "filesystem /data: read, write, recursive",
///     "network egress tcp api.example.com:443",
/// ]).unwrap();
/// let changes = now.changes_from(&approved);
/// assert!(changes.widen());
/// assert_eq!(changes.to_string(), "\
/// ~ filesystem /data: read, recursive → read, write, recursive
///   it could change or remove what is there
/// + network egress tcp api.example.com:443
///   it could send there whatever it gets to see");
///
/// let less = Requests::from_lines(["filesystem /data/in: read"]).unwrap();
/// assert!(less.are_covered_by(&approved));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestChanges(Vec<RequestChange>);

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestChange {
    kind: RequestChangeKind,
    /// Of what: in the words of a manifest.
    subject: String,
    /// What stands between that and what is asked of it.
    between: &'static str,
    /// What is asked of it, before and now.
    before: Option<String>,
    after: Option<String>,
    why: Option<&'static str>,
}

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestChangeKind {
    /// It was not asked for before.
    Added,
    /// It is no longer asked for.
    Removed,
    /// Something else is asked of the same thing.
    Changed,
}

impl RequestChangeKind {
    /// `added`, `removed` or `changed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RequestChangeKind::Added => "added",
            RequestChangeKind::Removed => "removed",
            RequestChangeKind::Changed => "changed",
        }
    }

    const fn sign(self) -> char {
        match self {
            RequestChangeKind::Added => '+',
            RequestChangeKind::Removed => '-',
            RequestChangeKind::Changed => '~',
        }
    }
}

impl Requests {
    /// Whether everything that these allow was allowed by what was approved, whatever the
    /// placeholders stand for and whatever else a policy allows.
    ///
    /// Where only several approved networks together contain a requested one, this says no.
    #[must_use]
    pub fn are_covered_by(&self, approved: &Requests) -> bool {
        !self.changes_from(approved).widen()
    }

    /// How these differ from those that were approved.
    #[must_use]
    pub fn changes_from(&self, approved: &Requests) -> RequestChanges {
        let (now, before) = (self.canonical(), approved.canonical());
        let (asks, earlier) = (now.asks(), before.asks());
        let known: BTreeSet<String> = earlier.iter().map(Ask::text).collect();
        let kept: BTreeSet<String> = asks.iter().map(Ask::text).collect();
        let new = by_subject(asks.iter().filter(|ask| !known.contains(&ask.text())));
        let mut gone = by_subject(earlier.iter().filter(|ask| !kept.contains(&ask.text())));

        let wider = wider(&now, &before, &known);
        let mut changes = Vec::new();
        for (subject, asks) in &new {
            // Where each side says one thing of it, that has changed.
            let one_each = asks.len() == 1 && gone.get(subject).is_some_and(|gone| gone.len() == 1);
            let before = if one_each { gone.remove(subject) } else { None };
            let before = before.and_then(|gone| gone.first().and_then(|ask| ask.detail()));
            for ask in asks {
                let (between, after) = ask.detail().unwrap_or_default();
                changes.push(RequestChange {
                    kind: match before {
                        Some(_) => RequestChangeKind::Changed,
                        None => RequestChangeKind::Added,
                    },
                    subject: subject.clone(),
                    between,
                    before: before.as_ref().map(|(_, detail)| detail.clone()),
                    after: Some(after),
                    why: wider.contains(&ask.text()).then(|| matters(&ask.thing)),
                });
            }
        }
        for (subject, asks) in gone {
            for ask in asks {
                let (between, before) = ask.detail().unwrap_or_default();
                let limit = matches!(ask.thing, Thing::Limit(..));
                changes.push(RequestChange {
                    kind: RequestChangeKind::Removed,
                    subject: subject.clone(),
                    between,
                    before: Some(before),
                    after: None,
                    why: limit
                        .then_some("without it the host's own limit holds, which may be higher"),
                });
            }
        }
        changes.sort_by(|a, b| (&a.subject, a.kind).cmp(&(&b.subject, b.kind)));
        RequestChanges(changes)
    }
}

fn by_subject<'a, 'r: 'a>(
    asks: impl Iterator<Item = &'a Ask<'r>>,
) -> BTreeMap<String, Vec<&'a Ask<'r>>> {
    let mut all: BTreeMap<String, Vec<&Ask>> = BTreeMap::new();
    for ask in asks {
        all.entry(ask.subject()).or_default().push(ask);
    }
    all
}

/// The lines of those requests that allow anything which those before did not.
fn wider(now: &Requests, before: &Requests, known: &BTreeSet<String>) -> BTreeSet<String> {
    let (plugin, places) = (PluginName::of_anyone(), Places::of_anyone());
    let decide =
        |policy: &Policy, asked: &Requests| policy.decide_requests(&plugin, asked, &places);

    // Lists of hosts may be long, and most of them are the same as before.
    let mut asked = now.clone();
    let network = &mut asked.capabilities.lists.network;
    for (direction, entries) in [
        (Direction::Egress, &mut network.egress),
        (Direction::Ingress, &mut network.ingress),
    ] {
        entries.retain(|entry| !known.contains(&Ask::of(Thing::Network(direction, entry)).text()));
    }
    let decision = decide(&allowing(before), &asked);
    let refused: BTreeSet<&str> = decision.refused().iter().map(|r| &*r.request).collect();
    let limits = before.resources.texts();
    let refuses = |ask: &&Ask| match ask.thing {
        // A rule names variables, and not what they are set to.
        Thing::Set(..) => true,
        // Without a limit of its own, that of the host held.
        Thing::Limit(key, _) if !limits.iter().any(|(known, _)| *known == key) => true,
        Thing::Limit(..)
        | Thing::Files(_)
        | Thing::Network(..)
        | Thing::Exec(_)
        | Thing::Control(_)
        | Thing::Read(_)
        | Thing::Services(_)
        | Thing::Sandbox(_)
        | Thing::Jit => refused.contains(&*ask.request),
    };
    let mut wider: BTreeSet<String> = asked.asks().iter().filter(refuses).map(Ask::text).collect();

    // An operation may need several permissions of one grant, which has those of the grants around
    // it as well: so one grant of before must answer for all that a grant lets through now.
    let everything = Policy::allow_requested();
    let [grants, granted] = [now, before].map(|requests| decide(&everything, requests).grants());
    for (entry, grant) in now
        .capabilities
        .lists
        .filesystem
        .iter()
        .zip(grants.filesystem())
    {
        let answers = |other: &FilesystemGrant| {
            other.area().contains(grant.area())
                && other.permissions.contains(grant.permissions)
                && other.access >= grant.access
        };
        if !granted.filesystem().iter().any(answers) {
            wider.insert(Ask::of(Thing::Files(entry)).text());
        }
    }
    wider
}

/// The policy that allows what was approved, and nothing else.
fn allowing(approved: &Requests) -> Policy {
    let name = |name: &String, at: &At| (VariablePattern::Name(name.clone()), *at);
    let asked = &approved.capabilities.environment;
    Policy {
        default: Section {
            sandbox: Some(approved.sandbox),
            jit: Some(approved.jit),
            resources: approved.resources,
            allow: Allow::Rules(Box::new(PolicyEntries {
                lists: approved.capabilities.lists.clone(),
                environment: Ruled {
                    read: asked.read.iter().map(|(read, at)| name(read, at)).collect(),
                    set: asked.set.iter().map(|(set, _, at)| name(set, at)).collect(),
                },
                services: approved.canonical().named_services,
            })),
            deny: PolicyEntries::default(),
        },
        plugins: BTreeMap::new(),
    }
}

/// Why it matters that a plugin may do more than before.
fn matters(thing: &Thing<'_>) -> &'static str {
    match thing {
        Thing::Files(entry) => matters_of_files(entry),
        Thing::Network(Direction::Egress, entry) => match entry.patterns().first() {
            Some(HostPattern::Wildcard(_) | HostPattern::Network(_)) => {
                "it could send to any of these hosts whatever it gets to see"
            }
            _ => "it could send there whatever it gets to see",
        },
        Thing::Network(Direction::Ingress, _) => "these hosts could connect to it",
        Thing::Exec(entry) if entry.args.entries().any(|arg| arg == "*") => {
            "the command runs with arguments that the plugin chooses, and is not held to its grants"
        }
        Thing::Exec(_) => "the command is not held to what the plugin is granted",
        Thing::Control(ProcessControl::Kill) => "it could end the commands that it started",
        Thing::Control(ProcessControl::List) => "it could see the commands that it started",
        Thing::Control(ProcessControl::Signal) => "it could signal the commands that it started",
        Thing::Read(_) => "it would know the value, which may be a secret",
        Thing::Set(..) => "such a variable can change what the plugin's libraries and commands do",
        Thing::Services(_) => "it could ask the host for more kinds of things",
        Thing::Limit(..) => "it could use more of this machine",
        Thing::Sandbox(_) => "less would hold it to its grants, or nothing",
        Thing::Jit => "it could run machine code that was never in its program",
    }
}

fn matters_of_files(entry: &FilesystemEntry) -> &'static str {
    let changes = Permissions::WRITE | Permissions::CREATE | Permissions::DELETE;
    let changes = !(entry.permissions & changes).is_empty();
    match (entry.access(), changes) {
        (Access::Mediated, true) => "it could change or remove what is there",
        (Access::Mediated, false) => "it could see what is there",
        (Access::Direct, true) => {
            "it could change or remove what is there by itself, and the audit would not show each time"
        }
        (Access::Direct, false) => {
            "it could see what is there by itself, and the audit would not show each time"
        }
    }
}

impl RequestChanges {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything is allowed now that was not before.
    #[must_use]
    pub fn widen(&self) -> bool {
        self.0.iter().any(|change| change.why.is_some())
    }

    /// Each difference, in the order of the things they are about.
    pub fn iter(&self) -> std::slice::Iter<'_, RequestChange> {
        self.0.iter()
    }
}

impl<'c> IntoIterator for &'c RequestChanges {
    type Item = &'c RequestChange;
    type IntoIter = std::slice::Iter<'c, RequestChange>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl RequestChange {
    /// What kind of difference it is.
    #[must_use]
    pub fn kind(&self) -> RequestChangeKind {
        self.kind
    }

    /// Why it matters, where more is allowed than before.
    #[must_use]
    pub fn why(&self) -> Option<&'static str> {
        self.why
    }
}

/// `~ filesystem /data: read → read, write`.
impl fmt::Display for RequestChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.sign(), self.subject)?;
        f.write_str(self.between)?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{before} → {after}"),
            (Some(detail), None) | (None, Some(detail)) => f.write_str(detail),
            (None, None) => Ok(()),
        }
    }
}

impl Serialize for RequestChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = |detail: &String| format!("{}{}{detail}", self.subject, self.between);
        let mut state = serializer.serialize_struct("Change", 4)?;
        state.serialize_field("change", self.kind.as_str())?;
        state.serialize_field("before", &self.before.as_ref().map(line))?;
        state.serialize_field("after", &self.after.as_ref().map(line))?;
        state.serialize_field("why", &self.why)?;
        state.end()
    }
}

/// A line for each difference, and an indented one for why it matters.
impl fmt::Display for RequestChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{change}")?;
            if let Some(why) = change.why {
                write!(f, "\n  {why}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for RequestChanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}
