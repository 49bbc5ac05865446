//! Reading values out of the tree of a file, collecting every problem on the way.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::lines::{inside, lines};
use crate::message::{alternatives, escaped, nearest, quoted, with_colon, without_leading_zeros};
use crate::problem::{MAX_PROBLEMS, Position, Problem, ProblemCode, Problems};
use crate::tree::{BROKEN, Key, Kind, Node, Scalar, is_null, scalar};

/// Largest file that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// Most entries of one list.
pub(crate) const MAX_ENTRIES: usize = 256;

/// Longest text of a single line, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// Collects the problems of one file.
#[derive(Debug, Default)]
pub(crate) struct Check {
    problems: Vec<Problem>,
    hidden: usize,
    /// The file could not be read to its end: nothing may be called missing.
    pub(crate) incomplete: bool,
    spare: Option<Problem>,
    /// Keys whose values are read in place of others that mean the same.
    instead: Vec<Position>,
    /// Keys whose values were not read, as another one means the same.
    aside: Vec<Position>,
    /// Where known keys belong that stand elsewhere.
    homes: &'static [Home],
    misplaced: Vec<Misplaced>,
    /// What is read is a part that stands in the wrong place: nothing may be called missing.
    partial: bool,
    pub(crate) side: Side,
}

/// Who speaks in the part of a file that is read. What an entry leaves out means the narrowest to
/// the one who asks or allows, and the widest to the one who denies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// A manifest, asking.
    #[default]
    Request,
    /// A policy, allowing.
    Allow,
    /// A policy, denying.
    Deny,
}

/// A section of a file, where its keys belong if they stand elsewhere.
#[derive(Debug)]
pub(crate) struct Home {
    /// The path of keys that leads there, or several behind `|`; empty for the top level.
    pub(crate) place: &'static str,
    /// Whether a key belongs there.
    pub(crate) has: fn(&str) -> bool,
    /// Reads such keys where they stand in the wrong place.
    pub(crate) read: fn(&mut Check, &Fields<'_>),
}

/// A known key in the wrong place.
#[derive(Clone, Debug)]
struct Misplaced {
    key: Position,
    home: &'static Home,
    /// Location of the map in which it stands.
    location: String,
}

/// Most times that a file is read anew for what a key written twice hides.
const MAX_ANEW: usize = 32;

/// The text of a file, or the problem that it is none.
pub(crate) fn utf8<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Problems> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let (good, bad) = bytes.split_at(error.valid_up_to());
    let text = String::from_utf8_lossy(good);
    let mut check = Check::default();
    let count = lines(&text).count();
    let last = lines(&text).last().unwrap_or_default();
    let position = Position {
        line: u32::try_from(count).unwrap_or(u32::MAX),
        column: u32::try_from(last.chars().count()).unwrap_or(u32::MAX - 1) + 1,
    };
    let message = format!("the byte 0x{:02x} is not UTF-8", bad.first().unwrap_or(&0));
    check
        .report(position, ProblemCode::NotUtf8, "", message)
        .help("save the file as UTF-8");
    check.finish(file, &text, None)
}

/// Adds to the problem just reported.
pub(crate) struct Reported<'c>(&'c mut Problem);

impl Reported<'_> {
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(crate) fn near(self, near: Option<impl Into<String>>) -> Self {
        self.0.near_miss = near.map(Into::into);
        self
    }
}

impl Check {
    pub(crate) fn report(
        &mut self,
        position: Position,
        code: ProblemCode,
        location: &str,
        message: impl Into<String>,
    ) -> Reported<'_> {
        let problem = Problem {
            position,
            code,
            location: location.to_owned(),
            message: message.into(),
            near_miss: None,
            help: None,
        };
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
            let last = self.problems.len() - 1;
            Reported(&mut self.problems[last])
        } else {
            self.hidden += 1;
            Reported(self.spare.insert(problem))
        }
    }

    /// How many problems there are by now.
    pub(crate) fn count(&self) -> usize {
        self.problems.len() + self.hidden
    }

    /// The value if nothing was reported; the problems otherwise.
    pub(crate) fn finish<T>(
        mut self,
        file: &str,
        text: &str,
        value: Option<T>,
    ) -> Result<T, Problems> {
        if self.incomplete {
            let cut = |problem: &Problem| {
                matches!(
                    problem.code,
                    ProblemCode::MissingKey | ProblemCode::EmptyList
                )
            };
            self.problems.retain(|problem| !cut(problem));
        }
        match value {
            Some(value) if self.problems.is_empty() => return Ok(value),
            None if self.problems.is_empty() => {
                // A value is only left out where something was reported.
                self.report(
                    Position::START,
                    ProblemCode::EmptyFile,
                    "",
                    "the file could not be read",
                );
            }
            _ => {}
        }
        for problem in &mut self.problems {
            // What stands in no file has no line.
            if problem.position.line != Position::IN_CODE.line {
                problem.position = inside(problem.position, text);
            }
        }
        self.problems.sort_by_key(|problem| problem.position);
        if self.hidden > 0
            && let Some(last) = self.problems.last().map(|problem| problem.position)
        {
            let hidden = self.hidden;
            self.problems.push(Problem {
                position: last,
                code: ProblemCode::TooManyProblems,
                location: String::new(),
                message: format!("{hidden} more are not listed"),
                near_miss: None,
                help: None,
            });
        }
        Err(Problems {
            file: file.to_owned(),
            list: self.problems,
        })
    }

    /// The value made in code if nothing was reported and its file could be read; the problems
    /// otherwise.
    pub(crate) fn finish_built<T>(
        mut self,
        what: &str,
        value: Option<T>,
        print: impl Fn(&T) -> String,
    ) -> Result<T, Problems> {
        if let Some(value) = &value {
            self.fits_a_file(print(value).len(), Position::IN_CODE);
        }
        self.finish(what, "", value)
    }

    /// Reports a file that is larger than those that are read.
    pub(crate) fn fits_a_file(&mut self, bytes: usize, at: Position) -> bool {
        if bytes > MAX_BYTES {
            self.report(
                at,
                ProblemCode::FileTooLarge,
                "",
                format!("the file is {bytes} bytes long; at most {MAX_BYTES} are read"),
            );
        }
        bytes <= MAX_BYTES
    }

    /// Checks of a file in which this side speaks, and which know where keys belong.
    pub(crate) fn of(side: Side, homes: &'static [Home]) -> Check {
        Check {
            side,
            homes,
            ..Check::default()
        }
    }

    /// Reads a file, and then what the first reading passed over: the values of keys that are
    /// written twice or misspelt beside the right one, and of keys in the wrong place.
    pub(crate) fn read_all<T>(
        &mut self,
        root: &Node,
        read: impl Fn(&mut Check, &Node) -> Option<T>,
    ) -> Option<T> {
        let value = read(self, root);
        let mut chosen: VecDeque<Vec<Position>> =
            self.aside.drain(..).map(|key| vec![key]).collect();
        let mut left = MAX_ANEW;
        while let Some(instead) = chosen.pop_front().filter(|_| left > 0) {
            left -= 1;
            let entry = instead.last().and_then(|key| root.entry(*key));
            let Some((_, node)) = entry else { continue };
            let mut other = self.anew();
            other.instead.clone_from(&instead);
            read(&mut other, root);
            let within = node.positions();
            let nested = other.aside.iter().filter(|key| within.contains(key));
            for key in nested {
                chosen.push_back(instead.iter().chain([key]).copied().collect());
            }
            let lost = other.misplaced.drain(..);
            self.misplaced
                .extend(lost.filter(|lost| within.contains(&lost.key)));
            // Keys may be spread over both.
            let other = other.problems.into_iter().filter(|problem| {
                problem.code != ProblemCode::MissingKey || problem.position != node.at
            });
            self.adopt(other, &within);
        }
        for lost in std::mem::take(&mut self.misplaced) {
            let Some((key, node)) = root.entry(lost.key) else {
                continue;
            };
            let mut other = self.anew();
            other.partial = true;
            let fields = Fields {
                at: lost.key,
                location: lost.location,
                entries: vec![(key.text.as_str(), key, node)],
            };
            (lost.home.read)(&mut other, &fields);
            self.adopt(other.problems, &node.positions());
        }
        value
    }

    fn anew(&self) -> Check {
        Check {
            incomplete: self.incomplete,
            homes: self.homes,
            side: self.side,
            ..Check::default()
        }
    }

    fn adopt(&mut self, problems: impl IntoIterator<Item = Problem>, within: &HashSet<Position>) {
        for problem in problems {
            if !within.contains(&problem.position) || self.problems.contains(&problem) {
                continue;
            }
            if self.problems.len() < MAX_PROBLEMS {
                self.problems.push(problem);
            } else {
                self.hidden += 1;
            }
        }
    }

    /// The entries of a map, its keys checked against those that are known.
    pub(crate) fn map<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
        known: &[&'static str],
    ) -> Option<Fields<'n>> {
        let entries = self.entries(node, location)?;
        let mut fields = Fields {
            at: node.at,
            location: location.to_owned(),
            entries: Vec::new(),
        };
        let mut misspelt = Vec::new();
        for (key, value) in entries {
            if known.contains(&key.text.as_str()) {
                fields.entries.push((key.text.as_str(), key, value));
            } else if let Some(meant) = without_colon(&key.text, known) {
                self.report(
                    key.at,
                    ProblemCode::UnknownKey,
                    &join(location, &key.text),
                    format!(
                        "{} is no key with a `:` and a space behind it",
                        quoted(&key.text)
                    ),
                )
                .near(Some(with_colon(&key.text)));
                misspelt.push((meant, key, &BROKEN));
            } else if let Some(meant) = self.unknown_key(key, location, known) {
                misspelt.push((meant, key, value));
            }
        }
        for entry in misspelt {
            let (meant, key, _) = entry;
            let taken = fields
                .entries
                .iter()
                .position(|(known, ..)| *known == meant);
            match taken {
                None => fields.entries.push(entry),
                Some(index) if self.instead.contains(&key.at) => fields.entries[index] = entry,
                Some(_) => self.aside.push(key.at),
            }
        }
        Some(fields)
    }

    /// The entries of a map with keys of the author's own choosing; repeated ones are reported.
    pub(crate) fn entries<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
    ) -> Option<Vec<(&'n Key, &'n Node)>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, location, "a map");
            return None;
        };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut kept: Vec<(&Key, &Node)> = Vec::new();
        for (key, value) in entries {
            let Some(first) = seen.get(key.text.as_str()) else {
                seen.insert(&key.text, kept.len());
                kept.push((key, value));
                continue;
            };
            let line = entries
                .iter()
                .find(|(other, _)| other.text == key.text)
                .map_or(key.at.line, |(other, _)| other.at.line);
            self.report(
                key.at,
                ProblemCode::DuplicateKey,
                &join(location, &key.text),
                format!(
                    "the key {} is written twice; it is first on line {line}",
                    quoted(&key.text),
                ),
            )
            .help("keep one of them");
            if self.instead.contains(&key.at) {
                kept[*first] = (key, value);
            } else {
                self.aside.push(key.at);
            }
        }
        Some(kept)
    }

    /// Returns the key that was probably meant.
    fn unknown_key(
        &mut self,
        key: &Key,
        location: &str,
        known: &[&'static str],
    ) -> Option<&'static str> {
        let near = nearest(&key.text, known);
        // Entries of lists have words of their own.
        let homes = if location.contains('[') {
            &[]
        } else {
            self.homes
        };
        let home = homes.iter().find(|home| (home.has)(&key.text));
        let problem = self.report(
            key.at,
            ProblemCode::UnknownKey,
            &join(location, &key.text),
            format!("the key {} has no meaning here", quoted(&key.text)),
        );
        match (near, home) {
            (Some(near), _) => {
                problem.near(Some(near));
            }
            (None, Some(home)) => {
                let place = if home.place.is_empty() {
                    "the top level".to_owned()
                } else {
                    alternatives(&home.place.split('|').collect::<Vec<_>>())
                };
                problem.help(format!("it belongs under {place}"));
                self.misplaced.push(Misplaced {
                    key: key.at,
                    home,
                    location: location.to_owned(),
                });
            }
            (None, None) => {
                problem.help(format!("possible here: {}", known.join(", ")));
            }
        }
        near
    }

    /// The entries of a list, each with its location.
    pub(crate) fn list<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
    ) -> Option<Vec<(String, &'n Node)>> {
        let Kind::List(items) = &node.kind else {
            let near = match &node.kind {
                Kind::Plain(text) | Kind::Text(text) if !is_null(&node.kind) => {
                    let entries = text.trim_matches(['[', ']']).trim();
                    Some(format!("[{}]", escaped(entries)))
                }
                _ => None,
            };
            if let Some(problem) = self.wrong_type(node, location, "a list") {
                let problem = problem.near(near);
                if let Kind::Map(_) = &node.kind {
                    problem.help("begin each entry of the list with `- `");
                }
            }
            return None;
        };
        if items.len() > MAX_ENTRIES {
            self.report(
                node.at,
                ProblemCode::TooManyEntries,
                location,
                format!(
                    "the list has {} entries; at most {MAX_ENTRIES} are read",
                    items.len()
                ),
            );
        }
        Some(
            items
                .iter()
                .take(MAX_ENTRIES)
                .enumerate()
                .map(|(index, item)| (format!("{location}[{index}]"), item))
                .collect(),
        )
    }

    /// The entries of a list of maps, each with its location. A single entry may stand there
    /// without a list around it.
    pub(crate) fn maps<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
    ) -> Option<Vec<(String, &'n Node)>> {
        match &node.kind {
            Kind::Map(_) => Some(vec![(location.to_owned(), node)]),
            _ => self.list(node, location),
        }
    }

    /// The entries of a list of maps with one key each: the first of each key as one map, and
    /// each repeated one by itself.
    pub(crate) fn single_keys<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
        known: &[&'static str],
    ) -> Option<(Fields<'n>, Vec<Fields<'n>>)> {
        let of = |entries| Fields {
            at: node.at,
            location: location.to_owned(),
            entries,
        };
        let mut first: Vec<(&str, &Key, &Node)> = Vec::new();
        let mut repeated = Vec::new();
        for (item_location, item) in self.list(node, location)? {
            self.one_key(item, &item_location, location);
            let Some(fields) = self.map(item, &item_location, known) else {
                continue;
            };
            for entry in fields.entries {
                let (known, key, _) = entry;
                if !first.iter().any(|(other, ..)| *other == known) {
                    first.push(entry);
                    continue;
                }
                repeated.push(of(vec![entry]));
                if key.text == known {
                    let message = format!("the key {} is written twice", quoted(known));
                    let location = join(location, known);
                    self.report(key.at, ProblemCode::DuplicateKey, &location, message)
                        .help("put all its entries under one key");
                }
            }
        }
        Some((of(first), repeated))
    }

    /// Reports an entry of such a list with more than one key, or none.
    fn one_key(&mut self, item: &Node, location: &str, list: &str) {
        if let Kind::Map(entries) = &item.kind
            && entries.len() != 1
        {
            let message = format!("an entry of this list has one key, not {}", entries.len());
            self.report(item.at, ProblemCode::OneKeyPerEntry, location, message)
                .help(format!("write {} as a map instead of a list", quoted(list)));
        }
    }

    /// A list with at least one entry.
    pub(crate) fn filled_list<'n>(
        &mut self,
        node: &'n Node,
        location: &str,
    ) -> Option<Vec<(String, &'n Node)>> {
        let items = self.list(node, location)?;
        if items.is_empty() {
            self.report(
                node.at,
                ProblemCode::EmptyList,
                location,
                "the list is empty, so this says nothing",
            )
            .help("name at least one, or leave the entry out");
            return None;
        }
        Some(items)
    }

    /// A text that must look like one: a plain number, truth value or nothing is refused.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, location: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => self.plain_line(text, node.at, location),
            Kind::Plain(text) if scalar(text) == Scalar::Text => {
                self.plain_line(text, node.at, location)
            }
            Kind::Plain(text) => {
                let near = (scalar(text) != Scalar::Null).then(|| format!("\"{text}\""));
                if let Some(problem) = self.wrong_type(node, location, "a text") {
                    problem.near(near);
                }
                None
            }
            _ => {
                self.wrong_type(node, location, "a text");
                None
            }
        }
    }

    /// A text as its letters are written, be it `8080` or `true`; only nothing is refused.
    pub(crate) fn literal<'n>(&mut self, node: &'n Node, location: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => self.plain_line(text, node.at, location),
            Kind::Plain(text) if scalar(text) != Scalar::Null => {
                self.plain_line(text, node.at, location)
            }
            _ => {
                self.wrong_type(node, location, "a text");
                None
            }
        }
    }

    /// A text that may span lines.
    pub(crate) fn prose<'n>(&mut self, node: &'n Node, location: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => self.prose_text(text, node.at, location),
            Kind::Plain(text) if scalar(text) != Scalar::Null => {
                self.prose_text(text, node.at, location)
            }
            _ => {
                self.wrong_type(node, location, "a text");
                None
            }
        }
    }

    fn prose_text<'n>(&mut self, text: &'n str, at: Position, location: &str) -> Option<&'n str> {
        let visible: String = text.chars().filter(|c| !matches!(c, '\n' | '\t')).collect();
        self.bounded(text, &visible, at, location)
    }

    fn plain_line<'n>(&mut self, text: &'n str, at: Position, location: &str) -> Option<&'n str> {
        self.bounded(text, text, at, location)
    }

    fn bounded<'n>(
        &mut self,
        text: &'n str,
        visible: &str,
        at: Position,
        location: &str,
    ) -> Option<&'n str> {
        if text.len() > MAX_TEXT {
            self.report(
                at,
                ProblemCode::TextTooLong,
                location,
                format!(
                    "the text is {} bytes long; at most {MAX_TEXT} are possible",
                    text.len()
                ),
            );
            return None;
        }
        if visible.chars().any(char::is_control) {
            self.report(
                at,
                ProblemCode::ControlCharacter,
                location,
                format!("{} contains a control character", quoted(text)),
            );
            return None;
        }
        Some(text)
    }

    pub(crate) fn boolean(&mut self, node: &Node, location: &str) -> Option<bool> {
        match &node.kind {
            Kind::Plain(text) if text == "true" => Some(true),
            Kind::Plain(text) if text == "false" => Some(false),
            Kind::Broken => None,
            _ => {
                let near = match &node.kind {
                    Kind::Plain(text) | Kind::Text(text) => truth(text),
                    _ => None,
                };
                if let Some(problem) = self.wrong_type(node, location, "`true` or `false`") {
                    problem.near(near);
                }
                None
            }
        }
    }

    /// A whole number within the range, both ends included.
    pub(crate) fn integer(
        &mut self,
        node: &Node,
        location: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let text = match &node.kind {
            Kind::Plain(text) if scalar(text) == Scalar::Number => text,
            Kind::Broken => return None,
            kind => {
                let near = match kind {
                    Kind::Text(text) | Kind::Plain(text) => text
                        .trim()
                        .parse::<u64>()
                        .ok()
                        .map(|number| number.to_string()),
                    _ => None,
                };
                if let Some(problem) = self.wrong_type(node, location, "a whole number") {
                    problem.near(near);
                }
                return None;
            }
        };
        if let Some(decimal) = without_leading_zeros(text) {
            self.report(
                node.at,
                ProblemCode::WrongType,
                location,
                format!(
                    "{} begins with a zero, as octal numbers do; a whole number is wanted here",
                    quoted(text)
                ),
            )
            .near(Some(decimal));
            return None;
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX));
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let (low, high) = (range.start(), range.end());
                self.report(
                    node.at,
                    ProblemCode::OutOfRange,
                    location,
                    format!(
                        "{} is not a whole number from {low} to {high}",
                        quoted(text)
                    ),
                );
                None
            }
        }
    }

    /// One of the known words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        node: &Node,
        location: &str,
        what: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = match &node.kind {
            // `off` and its like are texts here; YAML 1.1 would have made them truth values.
            Kind::Text(text) => text,
            Kind::Plain(text) if scalar(text) == Scalar::Text => text,
            _ => {
                self.wrong_type(node, location, what);
                return None;
            }
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let known: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let near = nearest(text, &known);
        self.report(
            node.at,
            ProblemCode::UnknownWord,
            location,
            format!("{} is not {what}", quoted(text)),
        )
        .near(near)
        .help(format!("possible: {}", known.join(", ")));
        None
    }

    /// Words, each at most once.
    pub(crate) fn words<T: Copy + PartialEq>(
        &mut self,
        node: &Node,
        location: &str,
        what: &str,
        words: &[(&'static str, T)],
    ) -> Option<Vec<T>> {
        let items = self.filled_list(node, location)?;
        let mut found: Vec<T> = Vec::new();
        for (location, item) in items {
            if let Some(value) = self.word(item, &location, what, words) {
                if found.contains(&value) {
                    let name = words
                        .iter()
                        .find(|(_, known)| *known == value)
                        .map_or("", |(name, _)| name);
                    self.repeated(item.at, &location, name);
                } else {
                    found.push(value);
                }
            }
        }
        Some(found)
    }

    pub(crate) fn repeated(&mut self, at: Position, location: &str, what: &str) {
        self.report(
            at,
            ProblemCode::DuplicateEntry,
            location,
            format!("{} is in the list already", quoted(what)),
        );
    }

    /// Reports a value of the wrong kind, or one that is not there. Says nothing about a value
    /// that is reported already.
    pub(crate) fn wrong_type(
        &mut self,
        node: &Node,
        location: &str,
        expected: &str,
    ) -> Option<Reported<'_>> {
        let found = match &node.kind {
            Kind::Broken => return None,
            Kind::NotUtf8(shown) => {
                let message = format!("{} is not UTF-8", quoted(shown));
                return Some(self.report(node.at, ProblemCode::NotUtf8, location, message));
            }
            kind if is_null(kind) => {
                return Some(self.report(
                    node.at,
                    ProblemCode::EmptyValue,
                    location,
                    format!("there is no value; {expected} is wanted here"),
                ));
            }
            Kind::Map(_) => "a map".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Text(text) => format!("the text {}", quoted(text)),
            Kind::Plain(text) => match scalar(text) {
                Scalar::Number => format!("the number {}", quoted(text)),
                Scalar::Bool => format!("the truth value {}", quoted(text)),
                Scalar::Null | Scalar::Text => format!("the text {}", quoted(text)),
            },
        };
        Some(self.report(
            node.at,
            ProblemCode::WrongType,
            location,
            format!("{found} stands where {expected} is wanted"),
        ))
    }
}

/// The known key of `key:value` or `key value`, which YAML takes for a key as a whole.
fn without_colon(text: &str, known: &[&'static str]) -> Option<&'static str> {
    let (key, _) = text.split_once([':', ' '])?;
    known.iter().find(|known| **known == key).copied()
}

/// The entries of a map with known keys.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    at: Position,
    location: String,
    /// Each with the known key that it is, or was probably meant to be.
    entries: Vec<(&'n str, &'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// A map that says nothing.
    pub(crate) fn none() -> Fields<'n> {
        Fields {
            at: Position::IN_CODE,
            location: String::new(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// Location of the map.
    pub(crate) fn place(&self) -> &str {
        &self.location
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, key: &str) -> Option<(&'n Key, &'n Node)> {
        self.entries
            .iter()
            .find(|(known, ..)| *known == key)
            .map(|(_, key, node)| (*key, *node))
    }

    /// Where a key of this map is, or would be.
    pub(crate) fn location(&self, key: &str) -> String {
        let written = self.find(key).map_or(key, |(key, _)| &key.text);
        join(&self.location, written)
    }

    pub(crate) fn get(&self, key: &str) -> Option<(String, &'n Node)> {
        self.find(key)
            .map(|(key, node)| (join(&self.location, &key.text), node))
    }

    /// A section that may be absent, or named without a value.
    pub(crate) fn section(&self, key: &str) -> Option<(String, &'n Node)> {
        self.get(key).filter(|(_, node)| !is_null(&node.kind))
    }

    pub(crate) fn require(&self, check: &mut Check, key: &str) -> Option<(String, &'n Node)> {
        let found = self.get(key);
        if found.is_none() && !check.partial {
            check.report(
                self.at,
                ProblemCode::MissingKey,
                &self.location(key),
                format!("the key {} is missing", quoted(key)),
            );
        }
        found
    }

    /// Position of a key's value, or of the map when the key is absent.
    pub(crate) fn position(&self, key: &str) -> Position {
        self.get(key).map_or(self.at, |(_, node)| node.at)
    }
}

fn truth(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some("true"),
        "false" | "no" | "off" | "n" | "0" => Some("false"),
        _ => None,
    }
}

/// `a.b`; keys that are not plain words are quoted.
pub(crate) fn join(location: &str, key: &str) -> String {
    let word = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let key = if word {
        key.to_owned()
    } else {
        format!("\"{}\"", escaped(key))
    };
    if location.is_empty() {
        key
    } else {
        format!("{location}.{key}")
    }
}
