//! What can go wrong, with the place where it did.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use outrigger_wire::{Coded, EXCERPT_LIMIT, Excerpt};

use crate::number::BadUint;
use crate::types::Builtin;

/// Quotes the beginning of a text that a peer chose.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    Excerpt::new(bytes).to_string()
}

/// Where in a value something is: `Resp.Err.Message`, `[]string[3]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Path {
    /// From the inside out.
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field {
        of: Cow<'static, str>,
        name: Cow<'static, str>,
    },
    Index(usize),
    Key,
    Element,
    Content(String),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A deep value has a long path; both ends say the most.
        const SHOWN: usize = 6;
        let count = self.steps.len();
        for (at, step) in self.steps.iter().rev().enumerate() {
            if count > 2 * SHOWN && (SHOWN..count - SHOWN).contains(&at) {
                if at == SHOWN {
                    f.write_char('…')?;
                }
                continue;
            }
            match step {
                Step::Field { of, name } => {
                    if at == 0 {
                        f.write_str(&plain(of))?;
                    }
                    write!(f, ".{}", plain(name))?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key => f.write_str("[key]")?,
                Step::Element => f.write_str("[value]")?,
                Step::Content(name) => write!(f, ".({})", plain(name))?,
            }
        }
        Ok(())
    }
}

/// A name as it is if it looks like one, quoted otherwise.
fn plain(name: &str) -> Cow<'_, str> {
    let harmless = |c: char| c.is_alphanumeric() || "_.*/[]{} -".contains(c);
    if name.len() <= EXCERPT_LIMIT && name.chars().all(harmless) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(excerpt(name.as_bytes()))
    }
}

macro_rules! steps {
    () => {
        /// Says that it happened in a field.
        #[doc(hidden)]
        #[must_use]
        pub fn within(
            mut self,
            of: impl Into<Cow<'static, str>>,
            name: impl Into<Cow<'static, str>>,
        ) -> Self {
            let step = Step::Field {
                of: of.into(),
                name: name.into(),
            };
            self.0.path.steps.push(step);
            self
        }

        pub(crate) fn at_index(mut self, index: usize) -> Self {
            self.0.path.steps.push(Step::Index(index));
            self
        }

        pub(crate) fn at_key(mut self) -> Self {
            self.0.path.steps.push(Step::Key);
            self
        }

        pub(crate) fn at_element(mut self) -> Self {
            self.0.path.steps.push(Step::Element);
            self
        }

        pub(crate) fn in_content(mut self, name: &str) -> Self {
            self.0.path.steps.push(Step::Content(name.into()));
            self
        }

        /// Where in the value it happened, such as `Resp.Err.Message`; empty
        /// if it concerns the whole value or stream.
        pub fn path(&self) -> String {
            self.0.path.to_string()
        }
    };
}

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<DecodeFailure>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct DecodeFailure {
    kind: DecodeErrorKind,
    path: Path,
    offset: Option<u64>,
}

/// What a [`DecodeError`] is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end before the value does. *Cause:* a peer that is not one,
    /// or a defect in it.
    #[error("the value ends too early, within {0}")]
    Truncated(&'static str),
    /// A value is followed by bytes that are not part of it.
    #[error("{0} bytes follow the value within {1}")]
    Trailing(u64, &'static str),
    /// An integer says that it has more than the eight bytes it can have.
    #[error("an integer of {0} bytes; 8 is the most there can be")]
    LongInteger(u8),
    /// A length or count that what follows cannot hold.
    #[error("{what} of {declared}, of which at most {possible} can be there")]
    Length {
        /// What has the length.
        what: &'static str,
        /// What the bytes say.
        declared: u64,
        /// How much there can be at most.
        possible: u64,
    },
    /// Something that only a defect or an attack produces.
    #[error("malformed data: {0}")]
    Malformed(Cow<'static, str>),
    /// A type id was defined twice or is not one that can be defined.
    #[error("type id {0} is defined again or reserved")]
    Redefined(i64),
    /// A value or definition refers to a type that nobody defined.
    #[error("type id {0} is not defined")]
    Undefined(i64),
    /// More than the limits of this decoder allow. *Resolution:* raise the
    /// setting it names if the peer is right.
    #[error("{what} of {found} is more than the {limit} allowed by `{setting}`")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much is allowed.
        limit: u64,
        /// The field of [`Limits`](crate::Limits).
        setting: &'static str,
    },
    /// The peer sent another type than the one asked for.
    #[error("expected {expected}, received {found}")]
    Mismatch {
        /// What was asked for.
        expected: String,
        /// What was received.
        found: String,
    },
    /// Both are structs with fields, but none of the fields has a common name.
    #[error("none of the fields received ({found}) is one of {expected}")]
    NoCommonField {
        /// The struct asked for.
        expected: &'static str,
        /// The names received.
        found: String,
    },
    /// A number does not fit the type asked for.
    #[error("{found} does not fit {expected}")]
    Range {
        /// The type asked for.
        expected: &'static str,
        /// The number received.
        found: String,
    },
    /// A string that must be UTF-8 is not.
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    /// A type that decodes itself refused its bytes.
    #[error("the bytes of a {name} are refused: {reason}")]
    Refused {
        /// The type.
        name: &'static str,
        /// What it said.
        reason: String,
    },
    /// An earlier error ended this stream.
    #[error("the stream ended with an earlier error")]
    Ended,
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind) -> DecodeError {
        DecodeError(Box::new(DecodeFailure {
            kind,
            path: Path::default(),
            offset: None,
        }))
    }

    pub(crate) fn malformed(what: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Malformed(what.into()))
    }

    pub(crate) fn mismatch(expected: impl Into<String>, found: impl Into<String>) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Mismatch {
            expected: expected.into(),
            found: found.into(),
        })
    }

    pub(crate) fn at(mut self, offset: u64) -> DecodeError {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// What it is about.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// How many bytes into the value it was noticed, or into the stream if
    /// [`Decoder::next`](crate::Decoder::next) returned it.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    steps!();
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DecodeFailure { kind, path, offset } = &*self.0;
        if !path.steps.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{kind}")?;
        match offset {
            Some(offset) => write!(f, " (at byte {offset})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Coded for DecodeError {
    fn code(&self) -> &'static str {
        match self.0.kind {
            DecodeErrorKind::Truncated(_) => "gob-truncated",
            DecodeErrorKind::Trailing(..) => "gob-trailing-bytes",
            DecodeErrorKind::LongInteger(_) => "gob-long-integer",
            DecodeErrorKind::Length { .. } => "gob-impossible-length",
            DecodeErrorKind::Malformed(_) => "gob-malformed",
            DecodeErrorKind::Redefined(_) => "gob-type-redefined",
            DecodeErrorKind::Undefined(_) => "gob-type-undefined",
            DecodeErrorKind::Limit { .. } => "gob-limit",
            DecodeErrorKind::Mismatch { .. } => "gob-type-mismatch",
            DecodeErrorKind::NoCommonField { .. } => "gob-no-common-field",
            DecodeErrorKind::Range { .. } => "gob-out-of-range",
            DecodeErrorKind::NotUtf8(_) => "gob-not-utf8",
            DecodeErrorKind::Refused { .. } => "gob-refused",
            DecodeErrorKind::Ended => "gob-stream-ended",
        }
    }
}

/// Why a value cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError(Box<EncodeFailure>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct EncodeFailure {
    kind: EncodeErrorKind,
    path: Path,
}

/// What an [`EncodeError`] is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// `None` where gob has no way to say so: it is a nil pointer, which only
    /// a field of a struct can be.
    #[error("a nil pointer cannot be sent here; only a field can be nil")]
    Nil,
    /// A dynamic value does not have the type it is sent as.
    #[error("expected {expected}, found {found}")]
    Mismatch {
        /// The type it is sent as.
        expected: String,
        /// What the value is.
        found: String,
    },
    /// A number does not fit the type it is sent as.
    #[error("{found} does not fit {expected}")]
    Range {
        /// The type it is sent as.
        expected: &'static str,
        /// The number.
        found: String,
    },
    /// The registered name of an interface's type is empty or longer than Go
    /// reads.
    #[error("the type name {0} must have 1 to 1024 bytes")]
    Name(String),
    /// Nothing says which type this would be for the receiver.
    #[error("{0} has no type of its own here; use `Interface` or a typed field")]
    NoStaticType(&'static str),
    /// The type refers to one that does not exist.
    #[error("the type is incomplete")]
    Incomplete,
    /// A value nested deeper than can be sent.
    #[error("nested deeper than {0}")]
    Depth(usize),
    /// A type that encodes itself refused.
    #[error("a {name} refused to be encoded: {reason}")]
    Refused {
        /// The type.
        name: &'static str,
        /// What it said.
        reason: String,
    },
    /// It takes more bytes than [`Encoder::limited`](crate::Encoder::limited) allows.
    #[error("{found} bytes are more than the limit of {limit}")]
    Limit {
        /// How many it takes.
        found: usize,
        /// How many it may take.
        limit: usize,
    },
    /// Received bytes that are sent on turned out not to be a value.
    #[error("what was received cannot be sent on: {0}")]
    Received(DecodeError),
}

impl EncodeError {
    pub(crate) fn new(kind: EncodeErrorKind) -> EncodeError {
        EncodeError(Box::new(EncodeFailure {
            kind,
            path: Path::default(),
        }))
    }

    /// What it is about.
    pub fn kind(&self) -> &EncodeErrorKind {
        &self.0.kind
    }

    steps!();
}

impl From<DecodeError> for EncodeError {
    fn from(error: DecodeError) -> EncodeError {
        EncodeError::new(EncodeErrorKind::Received(error))
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodeFailure { kind, path } = &*self.0;
        if !path.steps.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{kind}")
    }
}

impl std::error::Error for EncodeError {}

impl Coded for EncodeError {
    fn code(&self) -> &'static str {
        match self.0.kind {
            EncodeErrorKind::Nil => "gob-nil",
            EncodeErrorKind::Mismatch { .. } => "gob-type-mismatch",
            EncodeErrorKind::Range { .. } => "gob-out-of-range",
            EncodeErrorKind::Name(_) => "gob-type-name",
            EncodeErrorKind::NoStaticType(_) => "gob-no-static-type",
            EncodeErrorKind::Incomplete => "gob-type-incomplete",
            EncodeErrorKind::Depth(_) => "gob-too-deep",
            EncodeErrorKind::Refused { .. } => "gob-refused",
            EncodeErrorKind::Limit { .. } => "gob-limit",
            EncodeErrorKind::Received(_) => "gob-received",
        }
    }
}

pub(crate) fn bad_uint(bad: BadUint) -> DecodeError {
    DecodeError::new(match bad {
        BadUint::Short => DecodeErrorKind::Truncated("an integer"),
        BadUint::Long(count) => DecodeErrorKind::LongInteger(count),
    })
}

pub(crate) fn out_of_range(expected: Builtin, found: impl ToString) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Range {
        expected: expected.go_name(),
        found: found.to_string(),
    })
}

pub(crate) fn no_such_field(delta: u64, next: usize, fields: usize) -> DecodeError {
    DecodeError::malformed(format!(
        "a step of {delta} from field {next} of a struct with {fields} fields"
    ))
}

pub(crate) fn array_length(found: u64, expected: u64) -> DecodeError {
    DecodeError::malformed(format!("{found} elements in an array of {expected}"))
}

/// Reading without a check before it. It cannot happen through the public
/// interface, and would be an error as any other.
pub(crate) fn unchecked() -> DecodeError {
    DecodeError::malformed("the type was not compared with what it is read as")
}
