//! What an operator says of an application and its plugins: a file, variables of the environment
//! over it, flags over these.

mod sections;
mod setting;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

pub use sections::{
    AppVersion, Application, AuditSettings, ControlSettings, Directories, FileWatcher,
    LockSettings, LogQueue, Logging, MetricsSettings, PolicySettings, SupervisionSettings,
    WorkerPool,
};
pub(crate) use sections::{CONFIGURATION, HOMES, Values};
pub use setting::{Setting, SettingChanged, Source};

use crate::check::{Check, Side, utf8};
use crate::configuration::sections::TAKES_EFFECT;
use crate::configuration::tree::{child, find, leaves, over, put, rename, variable};
use crate::keys::Shape;
use crate::message::{nearest, quoted};
use crate::name::PluginName;
use crate::problem::{Position, Problem, ProblemCode, Problems};
use crate::tree::{Kind, Node};
use crate::yaml;

/// Name under which problems of a configuration are shown unless another is given.
const FILE: &str = "outrigger.yaml";

/// Every setting of an application and its plugins, each with where it came from. One that exists
/// is valid.
///
/// ```
/// use outrigger_manifest::{Layers, Source};
///
/// let configuration = Layers::new()
///     .file("config.yaml", "/srv/app", b"
/// application: {app_name: Plugin Manager}
/// directories: {plugins_dir: ./plugins}
/// plugins: {cat: {restart: never}}
/// ")
///     .variable("OUTRIGGER_APP_NAME", "Another")
///     .read()
///     .unwrap();
/// assert_eq!(configuration.application().app_name, "Another");
/// assert_eq!(configuration.directories().plugins_dir.to_str(), Some("/srv/app/./plugins"));
/// assert_eq!(
///     configuration.source("application.app_name").map(ToString::to_string),
///     Some("variable OUTRIGGER_APP_NAME".to_owned()),
/// );
/// assert_eq!(configuration.source("audit.file"), Some(&Source::Default));
/// assert_eq!(configuration.supervision("cat").restart.as_str(), "never");
/// assert_eq!(configuration.supervision("dog").restart.as_str(), "on-failure");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    values: Values,
    plugins: BTreeMap<PluginName, SupervisionSettings>,
    settings: Vec<Setting>,
}

impl Default for Configuration {
    /// What holds when nobody says anything.
    fn default() -> Configuration {
        let read = Layers::new().read();
        read.expect("nothing is wrong with what nobody said")
    }
}

impl Configuration {
    /// Who the application is.
    #[must_use]
    pub fn application(&self) -> &Application {
        &self.values.application
    }

    /// Where things are. Paths from the file begin at its folder, others where the process runs.
    #[must_use]
    pub fn directories(&self) -> &Directories {
        &self.values.directories
    }

    /// What is logged, and where; without effect yet.
    #[must_use]
    pub fn logging(&self) -> &Logging {
        &self.values.logging
    }

    /// Whether changes on disk are noticed.
    #[must_use]
    pub fn file_watcher(&self) -> &FileWatcher {
        &self.values.file_watcher
    }

    /// How many jobs run at one time; without effect yet.
    #[must_use]
    pub fn worker_pool(&self) -> &WorkerPool {
        &self.values.worker_pool
    }

    /// What plugins may have at most.
    #[must_use]
    pub fn policy(&self) -> &PolicySettings {
        &self.values.policy
    }

    /// What was approved.
    #[must_use]
    pub fn lock(&self) -> &LockSettings {
        &self.values.lock
    }

    /// Where decisions are written down.
    #[must_use]
    pub fn audit(&self) -> &AuditSettings {
        &self.values.audit
    }

    /// Where a running host is spoken to.
    #[must_use]
    pub fn control(&self) -> &ControlSettings {
        &self.values.control
    }

    /// Where a running host shows its numbers; without effect yet.
    #[must_use]
    pub fn metrics(&self) -> &MetricsSettings {
        &self.values.metrics
    }

    /// How the plugin of this name is started, looked after and replaced: what `plugins.NAME`
    /// says, over what `supervision` says.
    #[must_use]
    pub fn supervision(&self, plugin: &str) -> &SupervisionSettings {
        let own = self
            .plugins
            .iter()
            .find(|(name, _)| name.as_str() == plugin);
        own.map_or(&self.values.supervision, |(_, supervision)| supervision)
    }

    /// How plugins are started, looked after and replaced of which nothing else is said.
    #[must_use]
    pub fn supervision_of_all(&self) -> &SupervisionSettings {
        &self.values.supervision
    }

    /// The plugins of which something is said that does not hold for all.
    pub fn supervised(&self) -> impl Iterator<Item = &PluginName> {
        self.plugins.keys()
    }

    /// Every value with its source, in the order of the reference page; those for single plugins
    /// last.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Where a value came from; `None` for a key that there is not.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&Source> {
        let mut settings = self.settings.iter();
        settings
            .find(|setting| setting.key == key)
            .map(|setting| &setting.source)
    }

    /// What is different in a newer configuration, in the order of the reference page. Only where
    /// a value comes from may differ without being named.
    ///
    /// ```
    /// use outrigger_manifest::{Configuration, Layers};
    ///
    /// let newer = Layers::new().flag("--set", "policy.start_with_less", "true").read().unwrap();
    /// let changes = Configuration::default().changes(&newer);
    /// assert_eq!(changes[0].to_string(), "policy.start_with_less: false → true (flag --set)");
    /// ```
    #[must_use]
    pub fn changes(&self, newer: &Configuration) -> Vec<SettingChanged> {
        fn of<'s>(settings: &'s [Setting], key: &str) -> Option<&'s Setting> {
            settings.iter().find(|setting| setting.key == key)
        }
        let gone = self
            .settings
            .iter()
            .filter(|setting| of(&newer.settings, &setting.key).is_none());
        let mut changes = Vec::new();
        for setting in newer.settings.iter().chain(gone) {
            let key = &setting.key;
            let (before, after) = (of(&self.settings, key), of(&newer.settings, key));
            let value =
                |setting: Option<&Setting>| setting.map_or(Value::Null, |s| s.value.clone());
            let change = SettingChanged {
                key: key.clone(),
                before: value(before),
                after: value(after),
                source: after.map_or(Source::Default, |after| after.source.clone()),
                takes_effect: setting.takes_effect,
            };
            if change.before != change.after {
                changes.push(change);
            }
        }
        changes
    }
}

/// What a configuration is read from: at most one file, variables over it, flags over these.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    file: Option<File>,
    given: Vec<Given>,
    misspelt: Vec<Problem>,
}

#[derive(Clone, Debug)]
struct File {
    name: Arc<str>,
    folder: PathBuf,
    bytes: Vec<u8>,
}

/// A value that stands in no file.
#[derive(Clone, Debug)]
struct Given {
    source: Source,
    key: String,
    text: String,
}

impl Layers {
    /// Nothing: every default holds.
    #[must_use]
    pub fn new() -> Layers {
        Layers::default()
    }

    /// Reads the bytes of a file, shown by `name`. Relative paths in it begin at `folder`.
    #[must_use]
    pub fn file(mut self, name: &str, folder: impl Into<PathBuf>, bytes: &[u8]) -> Layers {
        self.file = Some(File {
            name: name.into(),
            folder: folder.into(),
            bytes: bytes.to_vec(),
        });
        self
    }

    /// Takes a variable of the environment into account. One that sets no key is not looked at,
    /// unless its name is nearly that of one that does, which is a problem. An empty one counts as
    /// not set.
    #[must_use]
    pub fn variable(mut self, name: &str, text: &str) -> Layers {
        if text.is_empty() || !name.starts_with("OUTRIGGER_") {
            return self;
        }
        let variables: Vec<(String, String)> = leaves()
            .into_iter()
            .filter_map(|key| Some((variable(&key)?, key)))
            .collect();
        if let Some((_, key)) = variables.iter().find(|(known, _)| known == name) {
            return self.given(Source::Variable(name.into()), key, text);
        }
        let known: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(near) = nearest(name, &known) {
            let message = format!("no variable {} is read", quoted(name));
            self.misspelt.push(of_variable(message, near));
        }
        self
    }

    /// Sets a key by a flag, which problems name.
    #[must_use]
    pub fn flag(self, flag: &str, key: &str, text: &str) -> Layers {
        self.given(Source::Flag(flag.into()), key, text)
    }

    fn given(mut self, source: Source, key: &str, text: &str) -> Layers {
        let (key, text) = (key.to_owned(), text.to_owned());
        self.given.push(Given { source, key, text });
        self
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// Every problem of the file, of the variables and of the flags, each of the three that has any
    /// by itself: those that stand in no file name the variable or the flag as their location.
    pub fn read(&self) -> Result<Configuration, Vec<Problems>> {
        let (root, mut problems) = self.file_alone();
        let leaves = leaves();
        let mut merged = root;
        // Variables first, so that a flag for the same key replaces one.
        let ordered = self.ordered();
        let mut unknown = Vec::new();
        for (index, given) in ordered.iter().enumerate() {
            if leaves.contains(&given.key) {
                put(&mut merged, &given.key, given.node(index));
            } else {
                unknown.push(given.unknown_key(&leaves));
            }
        }
        let mut check = Check::of(Side::Request, HOMES);
        let values = <Values as Shape>::read(&mut check, &merged, "");
        let (values, found) = match check.finish(FILE, "", values) {
            Ok(values) => (Some(values), Vec::new()),
            Err(problems) => (None, problems.list),
        };
        problems.extend(self.elsewhere(&ordered, unknown, found));
        match values {
            Some(values) if problems.is_empty() => {
                Ok(self.configuration(values, &merged, &ordered))
            }
            _ => Err(problems),
        }
    }

    /// The tree of the file, and its problems.
    fn file_alone(&self) -> (Node, Vec<Problems>) {
        let nothing = Node {
            at: Position::IN_CODE,
            kind: Kind::Map(Vec::new()),
        };
        let Some(file) = &self.file else {
            return (nothing, Vec::new());
        };
        let text = match utf8(&file.name, &file.bytes) {
            Ok(text) => text,
            Err(problems) => return (nothing, vec![problems]),
        };
        let mut check = Check::of(Side::Request, HOMES);
        let root = yaml::parse(text, &mut check).map(|mut root| {
            rename(&mut root, "logging", "mq", "log_mq");
            root
        });
        let values = match &root {
            Some(root) => {
                check.read_all(root, |check, root| <Values as Shape>::read(check, root, ""))
            }
            None => None,
        };
        let problems = match check.finish(&file.name, text, values) {
            Ok(_) => Vec::new(),
            // A file in which everything stands behind `#` leaves everything to the defaults.
            Err(problems) if problems.list.iter().all(says_nothing) => Vec::new(),
            Err(problems) => vec![problems],
        };
        (root.unwrap_or(nothing), problems)
    }

    fn ordered(&self) -> Vec<&Given> {
        let (mut variables, flags): (Vec<&Given>, Vec<&Given>) = self
            .given
            .iter()
            .partition(|given| matches!(given.source, Source::Variable(_)));
        variables.extend(flags);
        variables
    }

    /// The problems of what stands in no file, those of variables and those of flags apart.
    fn elsewhere(
        &self,
        ordered: &[&Given],
        unknown: Vec<Problem>,
        found: Vec<Problem>,
    ) -> Vec<Problems> {
        let mut variables = self.misspelt.clone();
        let mut flags = unknown;
        for problem in found {
            let given = index_of(problem.position).and_then(|index| ordered.get(index));
            let Some(given) = given else { continue };
            let (list, location) = match &given.source {
                Source::Variable(name) => (&mut variables, name.to_string()),
                _ => (&mut flags, format!("{} {}", given.source_name(), given.key)),
            };
            list.push(Problem {
                position: Position::IN_CODE,
                location,
                ..problem
            });
        }
        [("environment", variables), ("command line", flags)]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(file, list)| Problems {
                file: file.to_owned(),
                list,
            })
            .collect()
    }

    fn configuration(&self, mut values: Values, root: &Node, ordered: &[&Given]) -> Configuration {
        for (key, path) in values.paths() {
            let place = find(root, key).map_or(Position::IN_CODE, |node| node.at);
            if let (Source::File { .. }, Some(file)) = (self.source(place, ordered), &self.file) {
                *path = file.folder.join(&*path);
            }
        }
        let mut plugins = BTreeMap::new();
        let mut own = Vec::new();
        for (name, said) in entries(child(root, "plugins")) {
            let Ok(plugin) = name.parse::<PluginName>() else {
                continue;
            };
            let said = over(child(root, "supervision"), said);
            let supervision = SupervisionSettings::read(&mut Check::default(), &said, "");
            let supervision = supervision.unwrap_or_default();
            let json = serde_json::to_value(&supervision).unwrap_or_default();
            for (key, node) in
                entries(child(root, "plugins").and_then(|plugins| child(plugins, name)))
            {
                own.push(Setting {
                    key: format!("plugins.{name}.{key}"),
                    value: json.get(key).cloned().unwrap_or_default(),
                    source: self.source(node.at, ordered),
                    takes_effect: takes_effect(&format!("supervision.{key}")),
                    variable: None,
                });
            }
            plugins.insert(plugin, supervision);
        }
        let json = serde_json::to_value(&values).unwrap_or_default();
        let mut settings: Vec<Setting> = leaves()
            .into_iter()
            .map(|key| Setting {
                value: json
                    .pointer(&format!("/{}", key.replace('.', "/")))
                    .cloned()
                    .unwrap_or_default(),
                source: find(root, &key)
                    .map_or(Source::Default, |node| self.source(node.at, ordered)),
                takes_effect: takes_effect(&key),
                variable: variable(&key),
                key,
            })
            .collect();
        settings.extend(own);
        Configuration {
            values,
            plugins,
            settings,
        }
    }

    fn source(&self, at: Position, ordered: &[&Given]) -> Source {
        if let Some(given) = index_of(at).and_then(|index| ordered.get(index)) {
            return given.source.clone();
        }
        match &self.file {
            Some(file) if at != Position::IN_CODE => Source::File {
                file: file.name.clone(),
                at,
            },
            _ => Source::Default,
        }
    }
}

impl Given {
    /// The value as if it stood in a file: on line 0, in the column of its index.
    fn node(&self, index: usize) -> Node {
        Node {
            at: Position {
                line: Position::IN_CODE.line,
                column: u32::try_from(index + 1).unwrap_or(u32::MAX),
            },
            kind: Kind::Plain(self.text.clone()),
        }
    }

    fn source_name(&self) -> &str {
        match &self.source {
            Source::Flag(name) | Source::Variable(name) => name,
            Source::File { .. } | Source::Default => "",
        }
    }

    fn unknown_key(&self, leaves: &[String]) -> Problem {
        let known: Vec<&str> = leaves.iter().map(String::as_str).collect();
        let name = |key: &&str| key.rsplit('.').next().is_some_and(|name| name == self.key);
        let mut named = known.iter().copied().filter(|key| name(key));
        let near = named.next().or_else(|| nearest(&self.key, &known));
        let message = format!("there is no key {}", quoted(&self.key));
        Problem {
            position: Position::IN_CODE,
            code: ProblemCode::UnknownKey,
            location: self.source_name().to_owned(),
            message,
            near_miss: near.map(str::to_owned),
            help: near
                .is_none()
                .then(|| "`outrigger config` lists all keys".to_owned()),
        }
    }
}

/// Which of the values that stand in no file has this position.
fn index_of(at: Position) -> Option<usize> {
    let index = usize::try_from(at.column).ok()?.checked_sub(1)?;
    (at.line == Position::IN_CODE.line).then_some(index)
}

fn of_variable(message: String, near: &str) -> Problem {
    Problem {
        position: Position::IN_CODE,
        code: ProblemCode::UnknownKey,
        location: String::new(),
        message,
        near_miss: Some(near.to_owned()),
        help: None,
    }
}

fn says_nothing(problem: &Problem) -> bool {
    problem.code == ProblemCode::EmptyFile
}

/// The entries of a map; none of anything else.
fn entries(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match node.map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().map(|(key, node)| (key.text.as_str(), node))
}

fn takes_effect(key: &str) -> bool {
    let path = key.replace('.', "/");
    let of = |known: &&str| Path::new(&path).starts_with(known.replace('.', "/"));
    TAKES_EFFECT.iter().any(of)
}
