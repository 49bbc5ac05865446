//! Decides about variables of the environment.

use super::Decider;
use super::decision::Reason;
use crate::entries::At;
use crate::flow::word_text;
use crate::grants::EnvironmentGrants;
use crate::name::VariablePattern;
use crate::policy::PolicyEntries;
use crate::rule::Allowing;

impl<'d> Decider<'d> {
    pub(super) fn environment(&mut self) -> EnvironmentGrants {
        let mut grants = EnvironmentGrants::default();
        let asked = &self.requests.capabilities.environment;
        for (index, (name, at)) in asked.read.iter().enumerate() {
            let request = format!("capabilities.environment.read[{index}]");
            match self.variable("environment.read", name, |rules| &rules.environment.read) {
                Ok(policy) => {
                    let rule = self.grant_by(&request, policy, name.clone());
                    grants.read.push((name.clone(), rule));
                }
                Err(reason) => {
                    self.refuse(*at, &request, name.clone(), &reason, None);
                    let why = reason.against(&request);
                    grants.refused.push((name.clone(), why));
                }
            }
        }
        for (name, value, at) in &asked.set {
            let request = format!("capabilities.environment.set.{name}");
            match self.variable("environment.set", name, |rules| &rules.environment.set) {
                Ok(policy) => {
                    self.grant_by(&request, policy, word_text(value));
                    grants.set.push((name.clone(), value.clone()));
                }
                Err(reason) => self.refuse(*at, &request, word_text(value), &reason, None),
            }
        }
        grants
    }

    /// The rule that allows a variable, unless one denies it.
    fn variable(
        &self,
        list: &str,
        name: &str,
        patterns: impl Fn(&'d PolicyEntries) -> &'d [(VariablePattern, At)],
    ) -> Result<String, Reason> {
        let rules = self.rules(list, patterns);
        for denial in rules.deny {
            if denial.entry.0.matches(name) {
                return Err(Reason::denied(denial.name));
            }
        }
        for allowing in rules.allow {
            match allowing {
                Allowing::Anything(rule) => return Ok(rule),
                Allowing::Entry(rule) if rule.entry.0.matches(name) => return Ok(rule.name),
                Allowing::Entry(_) => {}
            }
        }
        Err(Reason::no_rule())
    }
}
