//! One request on one line, in the words of a manifest, written and read.

use thiserror::Error;

use super::Requests;
use crate::arguments::ArgPattern;
use crate::choices::{Access, Direction, ProcessControl, Protocol, SandboxMode};
use crate::entries::{At, ExecEntry, FilesystemEntry, NetworkEntry};
use crate::host::HostPattern;
use crate::message::quoted;
use crate::name::is_variable;
use crate::path::PathTemplate;
use crate::permissions::Permissions;
use crate::ports::Ports;
use crate::problem::Position;
use crate::resources::Resources;
use crate::services::Services;
use crate::shapes::Words;
use outrigger_wire::text::is_visible;

/// A line that is no request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is no request in the words of a manifest", quoted(.0))]
pub struct RequestError(String);

impl RequestError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "request-invalid"
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Ask<'r> {
    /// Its key path, as a decision about canonical requests names it.
    pub(crate) request: String,
    pub(crate) thing: Thing<'r>,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Thing<'r> {
    Files(&'r FilesystemEntry),
    Network(Direction, &'r NetworkEntry),
    Exec(&'r ExecEntry),
    Control(ProcessControl),
    Read(&'r str),
    Set(&'r str, &'r str),
    Services(&'r Services),
    Limit(&'static str, String),
    Sandbox(SandboxMode),
    Jit,
}

impl Requests {
    /// Each request of canonical ones.
    pub(crate) fn asks(&self) -> Vec<Ask<'_>> {
        let mut asks = Vec::new();
        let mut push = |request: String, thing| asks.push(Ask { request, thing });
        let lists = &self.capabilities.lists;
        for (index, entry) in lists.filesystem.iter().enumerate() {
            let request = format!("capabilities.filesystem[{index}]");
            push(request, Thing::Files(entry));
        }
        for direction in Direction::ALL {
            for (index, entry) in lists.network(*direction).iter().enumerate() {
                let request = format!("capabilities.network.{direction}[{index}]");
                push(request, Thing::Network(*direction, entry));
            }
        }
        for (index, entry) in lists.process.exec.iter().enumerate() {
            let request = format!("capabilities.process.exec[{index}]");
            push(request, Thing::Exec(entry));
        }
        for control in ProcessControl::ALL {
            if lists.controls(*control).is_some() {
                let request = format!("capabilities.process.{control}");
                push(request, Thing::Control(*control));
            }
        }
        let environment = &self.capabilities.environment;
        for (index, (name, _)) in environment.read.iter().enumerate() {
            let request = format!("capabilities.environment.read[{index}]");
            push(request, Thing::Read(name));
        }
        for (name, value, _) in &environment.set {
            let request = format!("capabilities.environment.set.{name}");
            push(request, Thing::Set(name, value));
        }
        if let Some(services) = self
            .named_services
            .as_ref()
            .filter(|named| !named.is_empty())
        {
            push("services".to_owned(), Thing::Services(services));
        }
        for (key, limit) in self.resources.texts() {
            push(format!("resources.{key}"), Thing::Limit(key, limit));
        }
        match self.sandbox {
            SandboxMode::Require => {}
            mode @ (SandboxMode::Off | SandboxMode::BestEffort) => {
                push("sandbox".to_owned(), Thing::Sandbox(mode));
            }
        }
        if self.jit {
            push("jit".to_owned(), Thing::Jit);
        }
        asks
    }
}

impl<'r> Ask<'r> {
    /// One that stands nowhere.
    pub(crate) fn of(thing: Thing<'r>) -> Ask<'r> {
        let request = String::new();
        Ask { request, thing }
    }

    /// The line.
    pub(crate) fn text(&self) -> String {
        let mut text = self.subject();
        if let Some((between, detail)) = self.detail() {
            text += between;
            text += &detail;
        }
        text
    }

    /// What the request is about: two lines with the same subject say different things of it.
    pub(crate) fn subject(&self) -> String {
        match &self.thing {
            Thing::Files(entry) => format!("filesystem {}", written(&entry.path.to_string())),
            Thing::Network(direction, entry) => {
                let protocol = entry.protocol.unwrap_or(Protocol::Tcp);
                let from = match direction {
                    Direction::Egress => "",
                    Direction::Ingress => "from ",
                };
                let host = entry.patterns().first().map(host_text).unwrap_or_default();
                format!("network {direction} {protocol} {from}{host}")
            }
            Thing::Exec(entry) => {
                let command = written(&entry.command.to_string());
                let args: Vec<String> = entry.args.entries().map(written).collect();
                format!("process exec {command} [{}]", args.join(", "))
            }
            Thing::Control(control) => format!("process {control} children"),
            Thing::Read(name) => format!("environment read {name}"),
            Thing::Set(name, _) => format!("environment set {name}"),
            Thing::Services(_) => "services".to_owned(),
            Thing::Limit(key, _) => format!("resources {key}"),
            Thing::Sandbox(_) => "sandbox".to_owned(),
            Thing::Jit => "jit".to_owned(),
        }
    }

    /// What is asked of the subject, and what stands between the two.
    pub(crate) fn detail(&self) -> Option<(&'static str, String)> {
        let (between, detail) = match &self.thing {
            Thing::Files(entry) => {
                let mut words: Vec<&str> = entry.permissions.words().collect();
                words.extend(entry.recursive.then_some(RECURSIVE));
                words.extend((entry.access() == Access::Direct).then_some(Access::Direct.as_str()));
                (": ", words.join(", "))
            }
            Thing::Network(Direction::Egress, entry) => (":", ports_text(&entry.ports)),
            Thing::Network(Direction::Ingress, entry) => (" to ", ports_text(&entry.ports)),
            Thing::Set(_, value) => (": ", written(value)),
            Thing::Services(services) => {
                let words: Vec<&str> = services.names().collect();
                (": ", words.join(", "))
            }
            Thing::Limit(_, limit) => (": ", limit.clone()),
            Thing::Sandbox(mode) => (": ", mode.to_string()),
            Thing::Jit => (": ", "true".to_owned()),
            Thing::Exec(_) | Thing::Control(_) | Thing::Read(_) => return None,
        };
        Some((between, detail))
    }
}

const RECURSIVE: &str = "recursive";

fn ports_text(ports: &Ports) -> String {
    ports.to_string().replace(' ', "")
}

/// The host; what has colons of its own between brackets.
fn host_text(host: &HostPattern) -> String {
    let text = host.to_string();
    if text.contains(':') {
        format!("[{text}]")
    } else {
        text
    }
}

/// Whether a character may stand in a word without quotes.
fn plain(c: char) -> bool {
    c.is_ascii_graphic() && !":,[]\"\\".contains(c)
}

/// A text of somebody else's choice as one word: as it is, or as JSON has it, where whatever
/// cannot be seen is escaped.
fn written(text: &str) -> String {
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            c if is_visible(c) => word.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    word += &format!("\\u{unit:04x}");
                }
            }
        }
    }
    word.push('"');
    word
}

/// Adds the request of a line.
pub(super) fn read(requests: &mut Requests, line: &str) -> Result<(), RequestError> {
    let mut rest = Rest(line);
    let read = request(requests, &mut rest);
    let whole = read.filter(|()| rest.0.is_empty());
    whole.ok_or_else(|| RequestError(line.to_owned()))
}

const AT: At = At(Position::IN_CODE);

fn request(requests: &mut Requests, rest: &mut Rest<'_>) -> Option<()> {
    let capabilities = &mut requests.capabilities;
    let lists = &mut capabilities.lists;
    if rest.take("filesystem ") {
        lists.filesystem.push(files(rest)?);
    } else if rest.take("network egress ") {
        lists.network.egress.push(egress(rest)?);
    } else if rest.take("network ingress ") {
        lists.network.ingress.push(ingress(rest)?);
    } else if rest.take("process exec ") {
        lists.process.exec.push(exec(rest)?);
    } else if rest.take("process ") {
        let control: ProcessControl = known(rest.until(" "))?;
        rest.take(" children").then_some(())?;
        lists.process.add_control(control, AT);
    } else if rest.take("environment read ") {
        let name = rest.all();
        is_variable(name).then_some(())?;
        capabilities.environment.read.push((name.to_owned(), AT));
    } else if rest.take("environment set ") {
        let name = rest.until(":");
        is_variable(name).then_some(())?;
        rest.take(": ").then_some(())?;
        let (name, value) = (name.to_owned(), rest.word()?);
        capabilities.environment.set.push((name, value, AT));
    } else if rest.take("services: ") {
        let all = requests.named_services.get_or_insert_default();
        for name in rest.all().split(", ") {
            all.add(name)?;
        }
    } else if rest.take("resources ") {
        limit(&mut requests.resources, rest)?;
    } else if rest.take("sandbox: ") {
        let first = requests.sandbox == SandboxMode::Require;
        requests.sandbox = known(rest.all()).filter(|_| first)?;
    } else {
        rest.take("jit: true").then_some(())?;
        requests.jit = true;
    }
    Some(())
}

fn files(rest: &mut Rest<'_>) -> Option<FilesystemEntry> {
    let path = PathTemplate::parse(&rest.word()?).ok()?;
    rest.take(": ").then_some(())?;
    let mut entry = FilesystemEntry {
        at: AT,
        path,
        permissions: Permissions::NONE,
        recursive: false,
        access: Some(Access::Mediated),
    };
    for word in rest.all().split(", ") {
        match word {
            RECURSIVE => entry.recursive = true,
            "direct" => entry.access = Some(Access::Direct),
            word => entry.permissions |= known(word)?,
        }
    }
    let sound =
        !entry.permissions.is_empty() && (entry.recursive || entry.access() == Access::Mediated);
    sound.then_some(entry)
}

fn egress(rest: &mut Rest<'_>) -> Option<NetworkEntry> {
    let protocol = known(rest.until(" "))?;
    rest.take(" ").then_some(())?;
    let host = rest.host(":")?;
    rest.take(":").then_some(())?;
    network(Direction::Egress, protocol, host, rest)
}

fn ingress(rest: &mut Rest<'_>) -> Option<NetworkEntry> {
    let protocol = known(rest.until(" "))?;
    rest.take(" from ").then_some(())?;
    let host = rest.host(" ")?;
    rest.take(" to ").then_some(())?;
    network(Direction::Ingress, protocol, host, rest)
}

fn network(
    direction: Direction,
    protocol: Protocol,
    host: HostPattern,
    rest: &mut Rest<'_>,
) -> Option<NetworkEntry> {
    let ranges: Option<Vec<_>> = rest.all().split(',').map(Ports::parse_range).collect();
    Some(NetworkEntry {
        at: AT,
        direction,
        protocol: Some(protocol),
        hosts: Some(vec![host]),
        ports: Ports::from_ranges(ranges?),
    })
}

fn exec(rest: &mut Rest<'_>) -> Option<ExecEntry> {
    let command = PathTemplate::parse(&rest.word()?).ok()?;
    rest.take(" [").then_some(())?;
    let mut args = Vec::new();
    while !rest.take("]") {
        if !args.is_empty() {
            rest.take(", ").then_some(())?;
        }
        args.push(rest.word()?);
    }
    let args = ArgPattern::new(&args);
    Some(ExecEntry {
        at: AT,
        command,
        args,
    })
}

fn limit(resources: &mut Resources, rest: &mut Rest<'_>) -> Option<()> {
    let key = rest.until(":");
    rest.take(": ").then_some(())?;
    let first = resources.text(key).is_none();
    resources.set(key, rest.all()).filter(|()| first)
}

/// The value that a word names.
fn known<W: Words + Copy>(word: &str) -> Option<W> {
    let mut known = W::WORDS.iter();
    known
        .find(|(text, _)| *text == word)
        .map(|(_, value)| *value)
}

/// What is left of a line.
struct Rest<'l>(&'l str);

impl<'l> Rest<'l> {
    /// Whether it goes on like this, which is taken then.
    fn take(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// What stands before this text, or all.
    fn until(&mut self, end: &str) -> &'l str {
        let at = self.0.find(end).unwrap_or(self.0.len());
        let (before, rest) = self.0.split_at(at);
        self.0 = rest;
        before
    }

    fn all(&mut self) -> &'l str {
        std::mem::take(&mut self.0)
    }

    fn host(&mut self, end: &str) -> Option<HostPattern> {
        let text = if self.take("[") {
            let inner = self.until("]");
            self.take("]").then_some(inner)?
        } else {
            self.until(end)
        };
        HostPattern::parse(text).ok()
    }

    /// A word that [`written`] wrote.
    fn word(&mut self) -> Option<String> {
        if self.0.starts_with('"') {
            let mut words = serde_json::Deserializer::from_str(self.0).into_iter::<String>();
            let word = words.next()?.ok()?;
            self.0 = self.0.get(words.byte_offset()..)?;
            return Some(word);
        }
        let at = self.0.find(|c| !plain(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }
}
