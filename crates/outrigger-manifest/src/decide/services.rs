//! Decides about services: the host's, and the application's own.

use std::sync::Arc;

use super::Decider;
use super::decision::{Because, Reason};
use crate::choices::HostService;
use crate::grants::ServiceGrants;
use crate::policy::Allow;
use crate::services::ServiceName;

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
        for name in self.requests.application_services() {
            match self.application_service(name) {
                Ok(policy) => {
                    let rule = self.grant_by(REQUEST, policy, name.to_string());
                    grants.application.push((name.clone(), rule));
                }
                Err(reason) => {
                    let at = self.requests.positions.services;
                    self.refuse(at, REQUEST, name.to_string(), &reason, None);
                    let reason = reason.against(REQUEST);
                    grants.application_refused.push((name.clone(), reason));
                }
            }
        }
        grants
    }

    /// No rule allows a service of the application's own without its name, but the word that
    /// allows everything.
    fn application_service(&self, name: &ServiceName) -> Result<Arc<str>, Reason> {
        let rule = self.rule_naming(REQUEST, |rules| {
            let services = rules.services.as_ref();
            services.is_some_and(|services| services.application.contains(name))
        })?;
        match self.offered {
            Some(offered) if !offered.contains(name) => Err(Reason::not_offered(offered)),
            _ => Ok(rule),
        }
    }

    /// A policy that names no services allows those of the capabilities it has any rule for, and
    /// the two that carry no authority.
    fn service(&self, service: HostService) -> Result<Arc<str>, Reason> {
        let verdict = self.rule_naming(REQUEST, |rules| {
            let services = rules.services.as_ref();
            services.is_some_and(|services| services.host.contains(&service))
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
