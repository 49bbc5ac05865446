//! Which arguments a command may be run with.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::check::{Check, Side};
use crate::flow::list_text;
use crate::keys::Shape;
use crate::shapes::list;
use crate::tree::Node;

/// A pattern for the arguments of a command, matched one by one, never through a shell.
///
/// Each entry stands for itself, letter by letter, except a lone `*`:
///
/// - as the last entry it stands for any number of arguments, none included;
/// - anywhere else it stands for exactly one argument.
///
/// An argument that `*` stands for must not begin with `-` and must not contain control
/// characters: options have to be written out. No argument contains a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArgPattern {
    fixed: Vec<Arg>,
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Arg {
    Literal(String),
    One,
}

/// Whether a lone `*` may stand for the argument.
fn operand(argument: &str) -> bool {
    !argument.starts_with('-') && !argument.chars().any(char::is_control)
}

impl ArgPattern {
    pub(crate) fn new<S: AsRef<str>>(entries: &[S]) -> ArgPattern {
        let mut fixed: Vec<Arg> = entries
            .iter()
            .map(|entry| match entry.as_ref() {
                "*" => Arg::One,
                literal => Arg::Literal(literal.to_owned()),
            })
            .collect();
        let rest = fixed.last() == Some(&Arg::One);
        if rest {
            fixed.pop();
        }
        ArgPattern { fixed, rest }
    }

    /// A pattern that no argument list escapes; only a rule that denies uses it.
    pub(crate) fn anything() -> ArgPattern {
        ArgPattern {
            fixed: Vec::new(),
            rest: true,
        }
    }

    /// Whether a command may be run with these arguments.
    pub fn matches<S: AsRef<str>>(&self, arguments: &[S]) -> bool {
        if arguments.len() < self.fixed.len()
            || (!self.rest && arguments.len() > self.fixed.len())
            || arguments
                .iter()
                .any(|argument| argument.as_ref().contains('\0'))
        {
            return false;
        }
        let (head, tail) = arguments.split_at(self.fixed.len());
        let fixed = self.fixed.iter().zip(head).all(|(arg, given)| match arg {
            Arg::Literal(literal) => literal == given.as_ref(),
            Arg::One => operand(given.as_ref()),
        });
        fixed && tail.iter().all(|given| operand(given.as_ref()))
    }

    /// The argument lists that both let through.
    pub(crate) fn intersection(&self, other: &ArgPattern) -> Option<ArgPattern> {
        let length = self.fixed.len().max(other.fixed.len());
        let mut fixed = Vec::with_capacity(length);
        for index in 0..length {
            fixed.push(match (self.at(index)?, other.at(index)?) {
                (Arg::Literal(a), Arg::Literal(b)) => (a == b).then(|| Arg::Literal(a.clone()))?,
                (Arg::Literal(literal), Arg::One) | (Arg::One, Arg::Literal(literal)) => {
                    operand(literal).then(|| Arg::Literal(literal.clone()))?
                }
                (Arg::One, Arg::One) => Arg::One,
            });
        }
        Some(ArgPattern {
            fixed,
            rest: self.rest && other.rest,
        })
    }

    /// Whether any argument list that this grants is one that the other, a denial, means. There
    /// `*` stands for options too: what denies is read widely, what grants narrowly.
    pub(crate) fn touched_by(&self, denial: &ArgPattern) -> bool {
        let length = self.fixed.len().max(denial.fixed.len());
        (0..length).all(|index| match (self.at(index), denial.at(index)) {
            (Some(Arg::Literal(mine)), Some(Arg::Literal(theirs))) => mine == theirs,
            (Some(Arg::One), Some(Arg::Literal(theirs))) => operand(theirs),
            (Some(_), Some(Arg::One)) => true,
            (None, _) | (_, None) => false,
        })
    }

    fn at(&self, index: usize) -> Option<&Arg> {
        self.fixed.get(index).or(self.rest.then_some(&Arg::One))
    }

    /// The entries, as a manifest spells them.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.fixed
            .iter()
            .map(|arg| match arg {
                Arg::Literal(literal) => literal.as_str(),
                Arg::One => "*",
            })
            .chain(self.rest.then_some("*"))
    }
}

/// `[pull, "*"]`.
impl fmt::Display for ArgPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list_text(self.entries()))
    }
}

impl Shape for ArgPattern {
    type Value = ArgPattern;

    fn kind(_: Side) -> String {
        "list of texts".to_owned()
    }

    fn schema(_: Side) -> Value {
        list(json!({"type": ["string", "number", "boolean"]}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<ArgPattern> {
        let mut args: Vec<&str> = Vec::new();
        let mut good = true;
        for (location, item) in check.list(node, location)? {
            match check.literal(item, &location) {
                Some(text) => args.push(text),
                None => good = false,
            }
        }
        good.then(|| ArgPattern::new(&args))
    }
}

impl Serialize for ArgPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.entries())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(entries: &[&str]) -> ArgPattern {
        ArgPattern::new(entries)
    }

    #[test]
    fn arguments_are_matched_one_by_one() {
        let pull = pattern(&["pull"]);
        assert!(pull.matches(&["pull"]));
        assert!(!pull.matches(&["pull", "--force"]));
        assert!(!pull.matches::<&str>(&[]));
        assert!(!pull.matches(&["pull\n"]));
        assert!(pattern(&[]).matches::<&str>(&[]));
        assert!(!pattern(&[]).matches(&["x"]));
    }

    #[test]
    fn a_star_stands_for_operands_only() {
        let rsync = pattern(&["-a", "--delete", "*"]);
        assert!(rsync.matches(&["-a", "--delete"]));
        assert!(rsync.matches(&["-a", "--delete", "src/", "dst/"]));
        assert!(!rsync.matches(&["-a", "--delete", "--rsh=sh -c id", "x"]));
        assert!(!rsync.matches(&["-a", "--delete", "a\nb"]));
        assert!(!rsync.matches(&["-a", "--delete", "a\0b"]));
        let middle = pattern(&["*", "end"]);
        assert!(middle.matches(&["x", "end"]));
        assert!(!middle.matches(&["x", "y", "end"]));
        assert!(!middle.matches(&["end"]));
        assert!(pattern(&["*.txt"]).matches(&["*.txt"]));
        assert!(!pattern(&["*.txt"]).matches(&["a.txt"]));
    }

    #[test]
    fn a_denial_is_read_widely() {
        let denied = pattern(&["push", "*"]);
        assert!(pattern(&["push", "--force"]).touched_by(&denied));
        assert!(pattern(&["*"]).touched_by(&denied));
        assert!(!pattern(&["pull"]).touched_by(&denied));
        assert!(pattern(&[]).touched_by(&ArgPattern::anything()));
        assert!(pattern(&["-x", "y"]).touched_by(&ArgPattern::anything()));
        assert!(!pattern(&["*"]).touched_by(&pattern(&["--force"])));
    }
}
