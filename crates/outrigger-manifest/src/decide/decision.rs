//! What a decision says: each thing granted, and each thing refused with its reason.

use std::collections::BTreeSet;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::grants::Grants;
use crate::message::alternatives;
use crate::path::PathTemplate;
use crate::problem::Position;
use crate::rule::NO_RULE;
use crate::services::ServiceName;

/// How many services a refusal names of those that there are.
const LISTED: usize = 8;

/// What a policy made of a manifest.
#[derive(Clone, Debug)]
pub struct Decision {
    pub(super) grants: Grants,
    pub(super) granted: Vec<Granted>,
    pub(super) refused: Vec<Refusal>,
}

impl Decision {
    /// What the plugin gets.
    #[must_use]
    pub fn grants(&self) -> Grants {
        self.grants.clone()
    }

    /// Each thing that was granted, in the order of the manifest's sections.
    #[must_use]
    pub fn granted(&self) -> &[Granted] {
        &self.granted
    }

    /// Each thing that was asked for and not granted, in the order of the manifest's sections.
    #[must_use]
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// Whether everything that was asked for is granted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty()
    }
}

/// One thing that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Granted {
    /// Key path of the request in the manifest.
    pub request: String,
    /// What was granted, as a manifest would ask for it.
    pub text: String,
    /// The rule that allowed it.
    pub rule: String,
}

/// One thing that was asked for and not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Where the request stands in the manifest.
    pub position: Position,
    /// Key path of the request in the manifest.
    pub request: String,
    /// What was refused, as a manifest would ask for it.
    pub text: String,
    /// The rule that refused it, or that there is none that allows it.
    pub rule: String,
    /// What was granted in its place, where part of the request was.
    pub narrowed_to: Option<String>,
    pub(super) because: Because,
}

impl Refusal {
    /// The stable code: `narrowed`, `denied`, `not-allowed`, `limited`, `not-offered`
    /// or `place-unknown`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match (&self.narrowed_to, self.because) {
            (Some(_), _) => "narrowed",
            (None, Because::NoRule) => "not-allowed",
            (None, Because::NotOffered) => "not-offered",
            (None, Because::Denied) => "denied",
            (None, Because::Limited) => "limited",
            (None, Because::NoPlace) => "place-unknown",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.because {
            Because::NoRule => {
                "review the request, then add an `allow` rule that covers it, or run without it"
            }
            Because::Denied => {
                "review the request, then remove or narrow that denial, or run without it"
            }
            Because::Limited => "ask for no more than that, or change it in the policy",
            Because::NotOffered => {
                "run it in an application that has such a service, or without it"
            }
            Because::NoPlace => "run it on a host that has such a place, or write the path out",
        }
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("Refusal", 8)?;
        state.serialize_field("line", &self.position.line)?;
        state.serialize_field("column", &self.position.column)?;
        state.serialize_field("request", &self.request)?;
        state.serialize_field("text", &self.text)?;
        state.serialize_field("rule", &self.rule)?;
        state.serialize_field("code", self.code())?;
        state.serialize_field("narrowed_to", &self.narrowed_to)?;
        state.serialize_field("help", self.help())?;
        state.end()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.request, self.text, self.rule)?;
        if let Some(narrowed) = &self.narrowed_to {
            write!(f, "; granted instead: {narrowed}")?;
        }
        Ok(())
    }
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) rule: String,
    pub(super) because: Because,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// No rule allows it.
    NoRule,
    /// A rule denies it.
    Denied,
    /// A limit of the policy is smaller, or its sandbox stricter.
    Limited,
    /// The application has no such service.
    NotOffered,
    /// A placeholder stands for nothing on this host.
    NoPlace,
}

impl Reason {
    fn new(because: Because, rule: impl Into<String>) -> Reason {
        let rule = rule.into();
        Reason { rule, because }
    }

    pub(super) fn no_rule() -> Reason {
        Reason::new(Because::NoRule, NO_RULE)
    }

    pub(super) fn denied(rule: impl Into<String>) -> Reason {
        Reason::new(Because::Denied, rule)
    }

    pub(super) fn limited(rule: impl Into<String>) -> Reason {
        Reason::new(Because::Limited, rule)
    }

    /// The application has `known`, and not what is asked for.
    pub(super) fn not_offered(known: &BTreeSet<ServiceName>) -> Reason {
        let names: Vec<&ServiceName> = known.iter().take(LISTED).collect();
        let text = match names.is_empty() {
            true => "this application has no services of its own".to_owned(),
            false => format!(
                "this application has no such service; it has {}",
                alternatives(&names)
            ),
        };
        Reason::new(Because::NotOffered, text)
    }

    pub(super) fn unknown_place(path: &PathTemplate) -> Reason {
        Reason::new(Because::NoPlace, format!("this host does not know {path}"))
    }

    /// The place of a denial is unknown, so nobody can tell whether it touches the request.
    pub(super) fn unknown_denial(rule: &str, path: &PathTemplate) -> Reason {
        let text = format!("{rule} names {path}, which this host does not know");
        Reason::new(Because::NoPlace, text)
    }

    /// The words with which a later denial names this refusal.
    pub(super) fn against(&self, request: &str) -> String {
        let rule = &self.rule;
        match self.because {
            Because::Denied | Because::Limited => format!("{rule} refused {request}"),
            Because::NoRule | Because::NotOffered | Because::NoPlace => {
                format!("{rule}, though {request} asks for it")
            }
        }
    }
}
