//! Decides about host services.

use std::sync::Arc;

use super::Decider;
use super::decision::{Because, Reason};
use crate::choices::HostService;
use crate::grants::ServiceGrants;
use crate::policy::Allow;

const REQUEST: &str = "services";

impl Decider<'_> {
    pub(super) fn services(&mut self) -> ServiceGrants {
        let mut grants = ServiceGrants::default();
        for service in self.requests.services() {
            match self.service(service) {
                Ok(policy) => {
                    let rule = self.grant_by(REQUEST, policy, service.to_string());
                    grants.granted.push((service, rule));
                }
                Err(reason) => {
                    // A service that the manifest does not name comes with a capability, and the
                    // refusal of that capability already tells the reason.
                    if self.requests.named_services.is_some() || reason.because == Because::Denied {
                        let at = self.requests.positions.services;
                        self.refuse(at, REQUEST, service.to_string(), &reason, None);
                    }
                    grants.refused.push((service, reason.against(REQUEST)));
                }
            }
        }
        grants
    }

    /// A policy that names no services allows those of the capabilities it has any rule for, and
    /// the two that carry no authority.
    fn service(&self, service: HostService) -> Result<Arc<str>, Reason> {
        let verdict = self.rule_naming(REQUEST, |rules| {
            let services = rules.services.as_ref();
            services.is_some_and(|services| services.contains(&service))
        });
        let named = self
            .sections
            .iter()
            .any(|(_, section)| match &section.allow {
                Allow::Requested => false,
                Allow::Rules(rules) => rules.services.is_some(),
            });
        match verdict {
            Err(reason) if reason.because == Because::NoRule && !named => {}
            verdict => return verdict,
        }
        let allows = |allow: &Allow| match allow {
            Allow::Requested => true,
            Allow::Rules(rules) => rules
                .lists
                .go_with(service, !rules.environment.read.is_empty()),
        };
        let section = self
            .sections
            .iter()
            .find(|(_, section)| allows(&section.allow));
        section
            .map(|(name, _)| format!("{name}.allow").into())
            .ok_or_else(Reason::no_rule)
    }
}
