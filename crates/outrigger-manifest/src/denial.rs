//! Why an operation is not let through.

use std::fmt;

use thiserror::Error;

use crate::choices::Capability;
use crate::message::quoted;

/// What kind of denial it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialKind {
    /// The manifest did not ask for it.
    NotGranted,
    /// The manifest asked for it, and the policy refused.
    RefusedByPolicy,
    /// What was given cannot be judged: a path that is not absolute, a host in an unusual form.
    BadArgument,
    /// The name is granted, but not the address it leads to.
    BadAddress,
}

/// An operation that the grants do not let through.
///
/// [`Denial::public`] is what the plugin may learn; `Display` is for the host's log and audit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Denial {
    pub(crate) kind: DenialKind,
    pub(crate) capability: Capability,
    pub(crate) operation: String,
    pub(crate) argument: String,
    pub(crate) rule: String,
    pub(crate) missing: Option<String>,
}

const NO_GRANT: &str = "no grant covers it";

impl Denial {
    pub(crate) fn new(
        kind: DenialKind,
        capability: Capability,
        operation: &str,
        argument: &str,
        rule: String,
    ) -> Denial {
        Denial {
            kind,
            capability,
            operation: operation.to_owned(),
            argument: argument.to_owned(),
            rule,
            missing: None,
        }
    }

    /// The denial of what no grant covers: `refused` is the rule of the policy that refused the
    /// request for it, and `missing` the grant that it would need.
    pub(crate) fn not_granted(
        capability: Capability,
        operation: &str,
        argument: &str,
        refused: Option<&str>,
        missing: String,
    ) -> Denial {
        let (kind, rule) = match refused {
            Some(rule) => (DenialKind::RefusedByPolicy, rule.to_owned()),
            None => (DenialKind::NotGranted, NO_GRANT.to_owned()),
        };
        Denial {
            missing: Some(missing),
            ..Denial::new(kind, capability, operation, argument, rule)
        }
    }

    /// What kind of denial it is.
    #[must_use]
    pub fn kind(&self) -> DenialKind {
        self.kind
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind {
            DenialKind::NotGranted => "not-granted",
            DenialKind::RefusedByPolicy => "refused-by-policy",
            DenialKind::BadArgument => "bad-argument",
            DenialKind::BadAddress => "bad-address",
        }
    }

    /// The capability the operation belongs to.
    #[must_use]
    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// The operation, such as `read` or `egress`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// What it was tried on, escaped and cut at 120 bytes.
    #[must_use]
    pub fn argument(&self) -> String {
        crate::message::escaped(&self.argument)
    }

    /// Which rule said no, or that no grant covers it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The grant that would be needed, as a manifest would ask for it.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// What the plugin is told: which operation was refused, not why.
    #[must_use]
    pub fn public(&self) -> String {
        match self.kind {
            DenialKind::BadArgument => {
                format!(
                    "{} {} of {} is not possible",
                    self.capability,
                    self.operation,
                    quoted(&self.argument)
                )
            }
            DenialKind::NotGranted | DenialKind::RefusedByPolicy | DenialKind::BadAddress => {
                format!(
                    "{} {} of {} is not granted",
                    self.capability,
                    self.operation,
                    quoted(&self.argument)
                )
            }
        }
    }
}

/// What the host's operator is told.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.public(), self.rule)?;
        if let Some(missing) = &self.missing {
            write!(f, "; it would need {missing}")?;
        }
        Ok(())
    }
}
