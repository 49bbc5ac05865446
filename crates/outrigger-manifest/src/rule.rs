//! The rules of a policy by their names.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// How a refusal reads where nothing in the policy allows what is asked for.
pub(crate) const NO_RULE: &str = "no rule of the policy allows it";

/// Which request was granted, and the rule of the policy that allowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) request: Arc<str>,
    pub(crate) policy: Arc<str>,
}

impl Rule {
    /// Key path of the request in the manifest, such as `capabilities.filesystem[0]`.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The policy's rule, such as `policy default.allow.filesystem[1]`.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.request, self.policy)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An entry of a policy and its name, such as `policy default.deny.filesystem[0]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<T> {
    pub(crate) name: String,
    pub(crate) entry: T,
}

impl<T> Named<T> {
    fn filter_map<U>(self, change: impl Fn(T) -> Option<U>) -> Option<Named<U>> {
        Some(Named {
            name: self.name,
            entry: change(self.entry)?,
        })
    }
}

/// What allows a request: an entry, or a section of the policy that allows whatever is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowing<T> {
    Anything(String),
    Entry(Named<T>),
}

/// Everything that a policy says about one kind of request of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules<T> {
    pub(crate) allow: Vec<Allowing<T>>,
    pub(crate) deny: Vec<Named<T>>,
}

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Rules {
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }
}

impl<T> Rules<T> {
    /// The rules with their entries changed, without those for which `change` gives `None`.
    pub(crate) fn filter_map<U>(self, change: impl Fn(T) -> Option<U>) -> Rules<U> {
        let allow = self
            .allow
            .into_iter()
            .filter_map(|allowing| match allowing {
                Allowing::Anything(name) => Some(Allowing::Anything(name)),
                Allowing::Entry(entry) => entry.filter_map(&change).map(Allowing::Entry),
            });
        let deny = self.deny.into_iter();
        Rules {
            allow: allow.collect(),
            deny: deny.filter_map(|entry| entry.filter_map(&change)).collect(),
        }
    }

    /// Whether some section allows whatever is requested.
    pub(crate) fn allow_anything(&self) -> bool {
        let anything = |allowing: &Allowing<T>| matches!(allowing, Allowing::Anything(_));
        self.allow.iter().any(anything)
    }

    /// The entries that allow.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = &T> {
        self.allow.iter().filter_map(|allowing| match allowing {
            Allowing::Anything(_) => None,
            Allowing::Entry(named) => Some(&named.entry),
        })
    }
}
