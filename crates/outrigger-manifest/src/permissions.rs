//! What one may do to a file.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::shapes::{Word, Words, filled_list};
use crate::tree::Node;

/// A set of permissions on files and directories.
///
/// ```
/// use outrigger_manifest::Permissions;
///
/// let wanted = Permissions::READ | Permissions::LIST;
/// assert!(wanted.contains(Permissions::READ));
/// assert_eq!(wanted.to_string(), "read, list");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permissions(u8);

impl Permissions {
    /// No permission.
    pub const NONE: Permissions = Permissions(0);
    /// Read the bytes and the metadata of a file.
    pub const READ: Permissions = Permissions(1);
    /// Change or cut the bytes of a file that exists.
    pub const WRITE: Permissions = Permissions(2);
    /// Read the entries of a directory.
    pub const LIST: Permissions = Permissions(4);
    /// Make a file or directory that does not exist.
    pub const CREATE: Permissions = Permissions(8);
    /// Remove a file or directory.
    pub const DELETE: Permissions = Permissions(16);
    /// All of them.
    pub const ALL: Permissions = Permissions(31);

    /// Whether every one of `needs` is in the set.
    #[must_use]
    pub const fn contains(self, needs: Permissions) -> bool {
        self.0 & needs.0 == needs.0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words of the set, in the order of the documentation.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS
            .iter()
            .filter(move |(_, one)| self.contains(*one))
            .map(|(word, _)| *word)
    }
}

impl Words for Permissions {
    const WHAT: &'static str = "a permission";
    const WORDS: &'static [(&'static str, Permissions)] = &[
        ("read", Permissions::READ),
        ("write", Permissions::WRITE),
        ("list", Permissions::LIST),
        ("create", Permissions::CREATE),
        ("delete", Permissions::DELETE),
    ];
}

impl Shape for Permissions {
    type Value = Permissions;

    fn kind(_: Side) -> String {
        format!("list of {}", Permissions::listed())
    }

    fn schema(side: Side) -> Value {
        filled_list(Word::<Permissions>::schema(side))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Permissions> {
        let words = check.words(node, location, Permissions::WHAT, Permissions::WORDS)?;
        Some(words.into_iter().collect())
    }
}

impl BitOr for Permissions {
    type Output = Permissions;
    fn bitor(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

impl BitOrAssign for Permissions {
    fn bitor_assign(&mut self, other: Permissions) {
        self.0 |= other.0;
    }
}

impl BitAnd for Permissions {
    type Output = Permissions;
    fn bitand(self, other: Permissions) -> Permissions {
        Permissions(self.0 & other.0)
    }
}

/// The permissions of the first that are not in the second.
impl Sub for Permissions {
    type Output = Permissions;
    fn sub(self, other: Permissions) -> Permissions {
        Permissions(self.0 & !other.0)
    }
}

impl FromIterator<Permissions> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permissions>>(all: I) -> Permissions {
        all.into_iter().fold(Permissions::NONE, BitOr::bitor)
    }
}

/// `read, list`.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permissions({self})")
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}
