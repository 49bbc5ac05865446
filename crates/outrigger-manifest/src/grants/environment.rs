//! Granted variables of the environment.

use crate::choices::Capability;
use crate::denial::Denial;
use crate::flow::word_text;
use crate::rule::Rule;

/// Granted variables of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentGrants {
    pub(crate) read: Vec<(String, Rule)>,
    pub(crate) set: Vec<(String, String)>,
    pub(crate) refused: Vec<(String, String)>,
}

impl EnvironmentGrants {
    /// Whether the plugin may read a variable of the host's environment.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn read(&self, name: &str) -> Result<&Rule, Denial> {
        if let Some((_, rule)) = self.read.iter().find(|(granted, _)| granted == name) {
            return Ok(rule);
        }
        let refused = self.refused.iter().find(|(refused, _)| refused == name);
        let needed = word_text(name);
        Err(Denial::not_granted(
            Capability::Environment,
            "read",
            name,
            refused.map(|(_, rule)| rule.as_str()),
            format!("capabilities.environment.read: [{needed}]"),
        ))
    }

    /// Names of the variables that may be read, in the manifest's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.read.iter().map(|(name, _)| name.as_str())
    }

    /// Variables to put into the plugin's own environment, in the manifest's order.
    pub fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
