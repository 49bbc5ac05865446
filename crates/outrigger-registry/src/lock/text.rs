//! The lock file as text: read, and written so that the same content is always the same bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use outrigger_manifest::{PluginName, Requests};
use outrigger_wire::ExpectedDigest;
use semver::Version;
use toml_edit::{Array, ArrayOfTables, Document, Item, Table, Value, value};

use super::entry::{Locked, PlatformDigest, digest_of};
use super::error::LockErrorKind;
use crate::shown::quoted;

/// The form of the file that is read and written here.
const VERSION: i64 = 1;

/// What a new file begins with.
const HEADER: &str = "\
# Which plugins may run here, and what each may ask for. Keep it under version control.
# `outrigger lock` and `outrigger approve` change it.
";

const PLUGIN: &str = "plugin";
const FORM: &str = "version";
const NAME: &str = "name";
const PLUGIN_VERSION: &str = "version";
const DIGESTS: &str = "digests";
const APPROVED: &str = "approved";
const REQUESTED: &str = "requested_digest";
const PINNED: &str = "pinned";

/// What was approved: the content of a lock file, sorted by name and version.
///
/// # Examples
/// ```
/// use outrigger_registry::Lock;
///
/// let lock = Lock::parse(r#"
/// version = 1
///
/// [[plugin]]
/// name = "cat"
/// version = "1.0.0"
/// digests = []
/// approved = ["filesystem /data: read, list"]
/// requested_digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
/// "#).unwrap();
/// let cat = lock.plugins().next().unwrap();
/// assert_eq!(cat.name().as_str(), "cat");
/// assert_eq!(cat.approved().lines(), ["filesystem /data: read, list"]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Lock {
    plugins: BTreeMap<(PluginName, Option<Version>), Locked>,
    /// The rest of the file as it was read, with keys that only newer programs know.
    rest: Option<(Table, String)>,
}

impl Lock {
    /// Reads the text of a lock file.
    ///
    /// # Errors
    /// The first thing that is wrong: [`LockErrorKind::Newer`], [`LockErrorKind::Conflict`] and
    /// [`LockErrorKind::Invalid`].
    pub fn parse(text: &str) -> Result<Self, LockErrorKind> {
        if let Some(at) = text.lines().position(|line| line.starts_with(OURS)) {
            return Err(LockErrorKind::Conflict { line: at + 1 });
        }
        let reading = Reading(text);
        let document = Document::parse(text)
            .map_err(|error| reading.wrong(error.span(), first_line(error.message())))?;
        let root = document.as_table();
        reading.form(root)?;
        let mut spans = Vec::new();
        for table in reading.tables(root)? {
            spans.push((reading.entry(table)?, table.span()));
        }
        let mut document = document.clone().into_mut();
        let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
        let mut tables = match document.as_table_mut().remove(PLUGIN) {
            Some(Item::ArrayOfTables(tables)) => tables.into_iter().collect(),
            _ => Vec::new(),
        }
        .into_iter();
        let mut lock = Lock {
            plugins: BTreeMap::new(),
            rest: Some((document.as_table().clone(), trailing)),
        };
        for (mut entry, span) in spans {
            entry.table = tables.next().unwrap_or_default();
            let key = (entry.name.clone(), entry.version.clone());
            if let Some(twice) = lock.plugins.insert(key, entry) {
                let name = quoted(twice.name.as_str());
                return Err(reading.wrong(span, format!("this version of {name} is locked twice")));
            }
        }
        Ok(lock)
    }

    /// Reads a text in which a merge left what both sides wrote, and joins the two: what either
    /// side locked is locked. Of one version of a plugin that both locked, programs of either are
    /// known, and what both approved is approved.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), of either side.
    pub fn parse_merged(text: &str) -> Result<Self, LockErrorKind> {
        let [ours, theirs] = sides(text);
        let mut lock = Self::parse(&ours)?;
        for (key, other) in Self::parse(&theirs)?.plugins {
            let Some(mine) = lock.plugins.get_mut(&key) else {
                lock.plugins.insert(key, other);
                continue;
            };
            mine.digests.extend(other.digests);
            mine.pinned &= other.pinned;
            if mine.requested_digest != other.requested_digest {
                // Which of the two is installed shows when it is looked at.
                mine.requested_digest = digest_of(&mine.approved);
            }
            let other = other.approved.lines();
            let mut both = mine.approved.lines();
            both.retain(|line| other.contains(line));
            if let Ok(both) = Requests::from_lines(both) {
                mine.approved = both;
            }
        }
        Ok(lock)
    }

    /// The text of the file. The same content gives the same bytes, in whatever order it was
    /// found out; comments and unknown keys that were read are kept.
    pub fn to_text(&self) -> String {
        let mut document = toml_edit::DocumentMut::new();
        let (mut root, trailing) = match &self.rest {
            Some((root, trailing)) => (root.clone(), trailing.as_str()),
            None => (Table::new(), ""),
        };
        if root.get(FORM).is_none() {
            root.insert(FORM, value(VERSION));
            if let Some(mut key) = root.key_mut(FORM) {
                key.leaf_decor_mut().set_prefix(HEADER);
            }
        }
        let mut tables = ArrayOfTables::new();
        for entry in self.plugins.values() {
            tables.push(entry.to_table());
        }
        forget_positions(&mut root);
        if !tables.is_empty() {
            root.insert(PLUGIN, Item::ArrayOfTables(tables));
        }
        *document.as_table_mut() = root;
        document.set_trailing(trailing);
        document.to_string()
    }

    /// Every version of every plugin, by name and then by version.
    pub fn plugins(&self) -> impl Iterator<Item = &Locked> {
        self.plugins.values()
    }

    /// What is locked of one version of a plugin.
    pub fn get(&self, name: &PluginName, version: Option<&Version>) -> Option<&Locked> {
        self.plugins.get(&(name.clone(), version.cloned()))
    }

    /// The highest version of a plugin that is locked.
    pub fn newest(&self, name: &PluginName) -> Option<&Locked> {
        self.plugins.values().rfind(|entry| entry.name == *name)
    }

    /// The version of a plugin that is to be used, whatever others there are.
    pub fn pinned(&self, name: &PluginName) -> Option<&Locked> {
        let mut plugins = self.plugins.values();
        plugins.find(|entry| entry.name == *name && entry.pinned)
    }

    /// Pins a locked version of a plugin instead of whichever is pinned; `None` pins none.
    /// Returns whether there is such a version.
    pub fn pin(&mut self, name: &PluginName, version: Option<&Version>) -> bool {
        let wanted = |entry: &Locked| version.is_some() && entry.version.as_ref() == version;
        let mut named = self.plugins.values().filter(|entry| entry.name == *name);
        let found = version.is_none() || named.any(wanted);
        if found {
            for entry in self
                .plugins
                .values_mut()
                .filter(|entry| entry.name == *name)
            {
                entry.pinned = wanted(entry);
            }
        }
        found
    }

    /// Forgets one version of a plugin. Returns whether it was there.
    pub fn remove(&mut self, name: &PluginName, version: Option<&Version>) -> bool {
        self.plugins
            .remove(&(name.clone(), version.cloned()))
            .is_some()
    }

    /// Records that a program that hashes to `digest` on this kind of machine asks for `requested`.
    /// Its digest takes the place of one for the same kind of machine. With `approved`, what it
    /// asks for is what is approved from now on; else what was approved stays, and for a new
    /// version is that.
    pub(super) fn record(
        &mut self,
        name: &PluginName,
        version: Option<&Version>,
        digest: &ExpectedDigest,
        requested: &Requests,
        approved: bool,
    ) {
        let here = PlatformDigest::here(digest);
        let key = (name.clone(), version.cloned());
        let entry = self.plugins.entry(key).or_insert_with(|| Locked {
            name: name.clone(),
            version: version.cloned(),
            digests: Default::default(),
            approved: requested.clone(),
            requested_digest: digest_of(requested),
            pinned: false,
            table: Table::new(),
        });
        entry
            .digests
            .retain(|known| known.platform() != here.platform());
        entry.digests.insert(here);
        entry.requested_digest = digest_of(requested);
        if approved {
            entry.approved = requested.clone();
        }
    }
}

impl Locked {
    fn to_table(&self) -> Table {
        let mut table = self.table.clone();
        forget_positions(&mut table);
        if table.is_empty() {
            table.insert(NAME, value(self.name.as_str()));
            if let Some(version) = &self.version {
                table.insert(PLUGIN_VERSION, value(version.to_string()));
            }
        }
        put_list(
            &mut table,
            DIGESTS,
            self.digests.iter().map(ToString::to_string).collect(),
        );
        put_list(&mut table, APPROVED, self.approved.lines());
        if text_of(table.get(REQUESTED)) != Some(&self.requested_digest) {
            table.insert(REQUESTED, value(&self.requested_digest));
        }
        if self.pinned {
            if table.get(PINNED).and_then(Item::as_bool) != Some(true) {
                table.insert(PINNED, value(true));
            }
        } else {
            table.remove(PINNED);
        }
        table
    }
}

/// Puts a list with one text on each line, unless the list there says just that.
fn put_list(table: &mut Table, key: &str, texts: Vec<String>) {
    let before = table.get(key).and_then(Item::as_array);
    let before = before.map(|list| list.iter().map(|item| item.as_str()).collect::<Vec<_>>());
    let same = before.is_some_and(|before| {
        before
            .iter()
            .copied()
            .eq(texts.iter().map(|t| Some(t.as_str())))
    });
    if same {
        return;
    }
    let mut list = Array::new();
    for text in &texts {
        let mut item = Value::from(text.as_str());
        item.decor_mut().set_prefix("\n  ");
        list.push_formatted(item);
    }
    if !texts.is_empty() {
        list.set_trailing_comma(true);
        list.set_trailing("\n");
    }
    table.insert(key, value(list));
}

/// Tables are printed in the order that they have now, not in that of the file they came from.
fn forget_positions(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(table) => forget_positions(table),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(forget_positions),
            Item::Value(_) | Item::None => {}
        }
    }
}

/// How git marks what a merge left to a person: our side, its origin, their side, the end.
const OURS: &str = "<<<<<<<";
const ORIGIN: &str = "|||||||";
const THEIRS: &str = "=======";
const END: &str = ">>>>>>>";

/// The text as either side has it.
fn sides(text: &str) -> [String; 2] {
    let mut sides = [String::new(), String::new()];
    let mut takes = [true, true];
    for line in text.split_inclusive('\n') {
        let marked = [
            (OURS, [true, false]),
            (ORIGIN, [false, false]),
            (THEIRS, [false, true]),
            (END, [true, true]),
        ];
        match marked.iter().find(|(mark, _)| line.starts_with(mark)) {
            Some((_, after)) => takes = *after,
            None => {
                for (side, takes) in sides.iter_mut().zip(takes) {
                    side.push_str(if takes { line } else { "" });
                }
            }
        }
    }
    sides
}

fn text_of(item: Option<&Item>) -> Option<&str> {
    item.and_then(Item::as_str)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A text that is being read.
struct Reading<'t>(&'t str);

type Read<T> = Result<T, LockErrorKind>;

/// A text of the file, and where it stands.
type Placed<'d> = (&'d str, Option<Range<usize>>);

impl Reading<'_> {
    /// What is wrong at a place, or at the beginning.
    fn wrong(&self, span: Option<Range<usize>>, what: impl Into<String>) -> LockErrorKind {
        let at = span.map_or(0, |span| span.start).min(self.0.len());
        let before = String::from_utf8_lossy(&self.0.as_bytes()[..at]);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        LockErrorKind::Invalid {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: outrigger_wire::text::printable(&what.into()).into_owned(),
        }
    }

    /// The form of the file must be one that is known.
    fn form(&self, root: &Table) -> Read<()> {
        let form = root.get(FORM);
        match form.and_then(Item::as_integer) {
            Some(VERSION) => Ok(()),
            Some(version) if version > VERSION => Err(LockErrorKind::Newer { version }),
            Some(_) | None => {
                let span = form.and_then(Item::span);
                Err(self.wrong(span, format!("a lock file says `{FORM} = {VERSION}`")))
            }
        }
    }

    fn tables<'d>(&self, root: &'d Table) -> Read<Vec<&'d Table>> {
        match root.get(PLUGIN) {
            None => Ok(Vec::new()),
            Some(Item::ArrayOfTables(tables)) => Ok(tables.iter().collect()),
            Some(other) => {
                let what = format!("plugins are written as `[[{PLUGIN}]]`");
                Err(self.wrong(other.span(), what))
            }
        }
    }

    fn entry(&self, table: &Table) -> Read<Locked> {
        let (name, at) = self.text(table, NAME)?;
        let name: PluginName = name
            .parse()
            .map_err(|_| self.wrong(at, format!("{} is no plugin's name", quoted(name))))?;
        let version = match table.get(PLUGIN_VERSION) {
            None => None,
            Some(_) => {
                let (text, at) = self.text(table, PLUGIN_VERSION)?;
                let version = Version::parse(text)
                    .map_err(|_| self.wrong(at, format!("{} is no version", quoted(text))))?;
                Some(version)
            }
        };
        let mut digests = std::collections::BTreeSet::new();
        for (text, at) in self.texts(table, DIGESTS)? {
            let digest = text.parse().map_err(|()| {
                let what = format!(
                    "{} is no digest with its platform, such as `sha256:… linux-x86_64`",
                    quoted(text)
                );
                self.wrong(at, what)
            })?;
            digests.insert(digest);
        }
        let mut lines = Vec::new();
        for (text, at) in self.texts(table, APPROVED)? {
            Requests::from_lines([text]).map_err(|error| self.wrong(at, error.to_string()))?;
            lines.push(text);
        }
        let approved = Requests::from_lines(&lines).map_err(|error| {
            self.wrong(
                table.get(APPROVED).and_then(Item::span),
                format!("{error}, as another line says otherwise"),
            )
        })?;
        let (text, at) = self.text(table, REQUESTED)?;
        let requested_digest = text
            .parse::<ExpectedDigest>()
            .map_err(|_| self.wrong(at, format!("{} is no digest", quoted(text))))?
            .to_string();
        let pinned = match table.get(PINNED) {
            None => false,
            Some(item) => item
                .as_bool()
                .ok_or_else(|| self.wrong(item.span(), format!("`{PINNED}` is true or false")))?,
        };
        Ok(Locked {
            name,
            version,
            digests,
            approved,
            requested_digest,
            pinned,
            table: Table::new(),
        })
    }

    fn text<'d>(&self, table: &'d Table, key: &str) -> Read<Placed<'d>> {
        let item = table.get(key);
        let at = item.map_or_else(|| table.span(), Item::span);
        match text_of(item) {
            Some(text) => Ok((text, at)),
            None => Err(self.wrong(at, format!("a plugin needs a text as its `{key}`"))),
        }
    }

    fn texts<'d>(&self, table: &'d Table, key: &str) -> Read<Vec<Placed<'d>>> {
        let item = table.get(key);
        let needed = |at| self.wrong(at, format!("a plugin needs a list of texts as its `{key}`"));
        let list = item
            .and_then(Item::as_array)
            .ok_or_else(|| needed(item.map_or_else(|| table.span(), Item::span)))?;
        list.iter()
            .map(|item| {
                let text = item.as_str().ok_or_else(|| needed(item.span()))?;
                Ok((text, item.span()))
            })
            .collect()
    }
}
