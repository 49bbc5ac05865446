//! What is wrong with a file: all of it, with positions.

use std::fmt;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::message::counted;

/// The largest number of problems that are listed for one file.
pub const MAX_PROBLEMS: usize = 200;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl Position {
    /// The first character of a file.
    pub const START: Position = Position { line: 1, column: 1 };

    /// Of what was made in code and stands in no file: `0:0`, which messages leave out.
    pub const IN_CODE: Position = Position { line: 0, column: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// What kind of problem it is; the words are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$variant,)*];

            /// The stable word, in kebab case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ProblemCode::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// The file is not YAML.
    YamlSyntax => "yaml-syntax",
    /// A line is indented with a tab.
    TabIndentation => "tab-indentation",
    /// The file is not UTF-8.
    NotUtf8 => "not-utf8",
    /// The file is larger than the bound.
    FileTooLarge => "file-too-large",
    /// Lists or maps lie in one another deeper than the bound.
    NestingTooDeep => "nesting-too-deep",
    /// The file says nothing.
    EmptyFile => "empty-file",
    /// The file holds several documents.
    SeveralDocuments => "several-documents",
    /// An alias (`*name`) is used.
    AliasNotAllowed => "alias-not-allowed",
    /// A tag (`!name`) is used.
    TagNotAllowed => "tag-not-allowed",
    /// The key of a map is not a text.
    KeyNotText => "key-not-text",
    /// A key is written twice.
    DuplicateKey => "duplicate-key",
    /// A key that has no meaning here.
    UnknownKey => "unknown-key",
    /// A key that must be there is not.
    MissingKey => "missing-key",
    /// A value of another kind is wanted here.
    WrongType => "wrong-type",
    /// A key without a value.
    EmptyValue => "empty-value",
    /// A list that needs at least one entry has none.
    EmptyList => "empty-list",
    /// An entry of a list of single-key maps has more or fewer keys.
    OneKeyPerEntry => "one-key-per-entry",
    /// A list has more entries than the bound.
    TooManyEntries => "too-many-entries",
    /// A word that is not among the possible ones.
    UnknownWord => "unknown-word",
    /// A number outside its range.
    OutOfRange => "out-of-range",
    /// The schema that belongs to the file forbids it.
    AgainstSchema => "against-schema",
    /// A text longer than its bound.
    TextTooLong => "text-too-long",
    /// A text with characters that must not be in it.
    ControlCharacter => "control-character",
    /// The name of a plugin breaks the rule for names.
    InvalidName => "invalid-name",
    /// A version is not a semantic version.
    InvalidVersion => "invalid-version",
    /// The entrypoint is not a path inside the plugin's folder.
    InvalidEntrypoint => "invalid-entrypoint",
    /// Not the name of an environment variable.
    InvalidVariable => "invalid-variable",
    /// An environment variable that the protocol needs for itself.
    ReservedVariable => "reserved-variable",
    /// A path is not absolute.
    PathNotAbsolute => "path-not-absolute",
    /// A path contains `..`.
    PathClimbs => "path-climbs",
    /// A path begins with a placeholder that nobody knows, or has one further on.
    PathPlaceholder => "path-placeholder",
    /// A grant on a file asks for what only directories have.
    NotADirectory => "not-a-directory",
    /// Direct access is asked for without `recursive: true`.
    DirectNotRecursive => "direct-not-recursive",
    /// Not a size with a unit.
    InvalidSize => "invalid-size",
    /// Not a time with a unit.
    InvalidTime => "invalid-time",
    /// A path that cannot be one.
    InvalidPath => "invalid-path",
    /// Not an address of this machine's own.
    NotLoopback => "not-loopback",
    /// Not a port, nor a range of ports.
    InvalidPort => "invalid-port",
    /// Not a host name, address, network or wildcard.
    InvalidHost => "invalid-host",
    /// A host that is not written the one way it is compared.
    HostNotCanonical => "host-not-canonical",
    /// A wildcard that stands for too much, or where none may be.
    WildcardNotAllowed => "wildcard-not-allowed",
    /// An entry that repeats or overlaps an earlier one.
    DuplicateEntry => "duplicate-entry",
    /// Two entries that cannot both be meant.
    Contradiction => "contradiction",
    /// The file is written for a later version of its schema.
    UnsupportedSchema => "unsupported-schema",
    /// There are more problems than are listed.
    TooManyProblems => "too-many-problems",
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(crate) position: Position,
    pub(crate) code: ProblemCode,
    pub(crate) location: String,
    pub(crate) message: String,
    pub(crate) near_miss: Option<String>,
    pub(crate) help: Option<String>,
}

impl Problem {
    /// Where in the file it is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Line, counted from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.position.line
    }

    /// Column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.position.column
    }

    /// The stable code in kebab case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.as_str()
    }

    /// What kind of problem it is.
    #[must_use]
    pub fn kind(&self) -> ProblemCode {
        self.code
    }

    /// The path of keys that leads to it, such as `capabilities.filesystem[0].permissions[2]`;
    /// empty for the file as a whole.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What was seen and what is wanted, as one phrase.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What was probably meant, as one would write it.
    #[must_use]
    pub fn near_miss(&self) -> Option<&str> {
        self.near_miss.as_deref()
    }

    /// One thing to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("Problem", 7)?;
        state.serialize_field("line", &self.position.line)?;
        state.serialize_field("column", &self.position.column)?;
        state.serialize_field("code", self.code())?;
        state.serialize_field("location", &self.location)?;
        state.serialize_field("message", &self.message)?;
        state.serialize_field("near_miss", &self.near_miss)?;
        state.serialize_field("help", &self.help)?;
        state.end()
    }
}

/// `7:12: capabilities.network: … [unknown-key]; did you mean …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position != Position::IN_CODE {
            write!(f, "{}: ", self.position)?;
        }
        if !self.location.is_empty() {
            write!(f, "{}: ", crate::message::escaped(&self.location))?;
        }
        write!(f, "{}", self.message)?;
        if let Some(near) = &self.near_miss {
            write!(f, "; did you mean {}?", crate::message::quoted(near))?;
        }
        write!(f, " [{}]", self.code)?;
        if let Some(help) = &self.help {
            write!(f, "; help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(crate) file: String,
    pub(crate) list: Vec<Problem>,
}

impl Problems {
    /// The same problems, shown under this name of the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Problems {
        self.file = file.into();
        self
    }

    /// Name under which the file is shown.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems, sorted by position; there is at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.list
    }

    /// The problems, sorted by position.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The stable code of the error as a whole.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "file-invalid"
    }

    /// One line: which file, and how many problems.
    #[must_use]
    pub fn headline(&self) -> String {
        format!(
            "{} has {}",
            crate::message::escaped(&self.file),
            counted(self.list.len(), "problem")
        )
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// One problem a line, each beginning with `file:line:column:`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = crate::message::escaped(&self.file);
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let space = if problem.position == Position::IN_CODE {
                " "
            } else {
                ""
            };
            write!(f, "{file}:{space}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
