//! From what is asked and what is allowed to what is granted.
//!
//! The rules, for each request:
//!
//! 1. It meets every rule that allows, of the defaults and of the plugin's own section. What
//!    request and rule share becomes a grant, where the shared part can be written as one.
//! 2. From each grant, everything is taken that a denial touches even in part. A denial never
//!    leaves a hole in a grant: the permission or port goes as a whole.
//! 3. What of the request is not granted in full is listed as refused, with the rule.

mod decision;
mod environment;
mod filesystem;
mod limits;
mod network;
mod process;
mod services;

use std::collections::BTreeSet;
use std::sync::Arc;

use decision::Reason;
pub use decision::{Decision, Granted, Refusal};

use crate::entries::At;
use crate::grants::{Grants, Inner};
use crate::manifest::Manifest;
use crate::name::PluginName;
use crate::path::{PathTemplate, Places};
use crate::policy::{Allow, Policy, PolicyEntries, Section};
use crate::requests::Requests;
use crate::rule::{Allowing, Named, Rule, Rules};
use crate::services::ServiceName;

impl Policy {
    /// Decides what a manifest's plugin gets, its placeholders standing for `places`.
    ///
    /// Nothing is granted that the manifest does not ask for, nothing that no rule allows, and
    /// nothing that a denial touches. The limits are the smaller of those asked for and the
    /// policy's; the sandbox the stricter; where the plugin's own section gives a limit, a
    /// sandbox or `jit`, that of the defaults does not count.
    ///
    /// Services of an application's own are granted by their names, whichever the application
    /// has: [`decide_offering`](Self::decide_offering) knows that, too.
    #[must_use]
    pub fn decide(&self, manifest: &Manifest, places: &Places) -> Decision {
        self.decide_requests(manifest.name(), manifest.requests(), places)
    }

    /// As [`decide`](Self::decide), for an application that has just these services of its own:
    /// a request for another one is refused, whatever the policy allows.
    #[must_use]
    pub fn decide_offering(
        &self,
        manifest: &Manifest,
        places: &Places,
        offered: &BTreeSet<ServiceName>,
    ) -> Decision {
        self.decided(manifest.name(), manifest.requests(), places, Some(offered))
    }

    /// Decides what a plugin of this name gets of these requests.
    pub(crate) fn decide_requests(
        &self,
        plugin: &PluginName,
        requests: &Requests,
        places: &Places,
    ) -> Decision {
        self.decided(plugin, requests, places, None)
    }

    fn decided(
        &self,
        plugin: &PluginName,
        requests: &Requests,
        places: &Places,
        offered: Option<&BTreeSet<ServiceName>>,
    ) -> Decision {
        let mut sections = vec![("policy default".to_owned(), &self.default)];
        if let Some(own) = self.plugins.get(plugin) {
            sections.push((format!("policy plugins.{plugin}"), own));
        }
        Decider {
            plugin,
            requests,
            places,
            offered,
            sections,
            granted: Vec::new(),
            refused: Vec::new(),
        }
        .decide()
    }
}

struct Decider<'d> {
    plugin: &'d PluginName,
    requests: &'d Requests,
    places: &'d Places,
    /// The services that the application has of its own, where that is known.
    offered: Option<&'d BTreeSet<ServiceName>>,
    /// The defaults, and the plugin's own section if there is one, each with its name.
    sections: Vec<(String, &'d Section)>,
    granted: Vec<Granted>,
    refused: Vec<Refusal>,
}

impl<'d> Decider<'d> {
    fn decide(mut self) -> Decision {
        let grants = Grants::new(Inner {
            plugin: self.plugin.clone(),
            filesystem: self.filesystem(),
            network: self.networks(),
            process: self.process(),
            environment: self.environment(),
            services: self.services(),
            resources: self.resources(),
            sandbox: self.sandbox(),
            jit: self.jit(),
        });
        Decision {
            grants,
            granted: self.granted,
            refused: self.refused,
        }
    }

    /// The rules of one list, those of the defaults first.
    fn rules<T>(&self, list: &str, entries: impl Fn(&'d PolicyEntries) -> &'d [T]) -> Rules<&'d T> {
        let named = |side: String, all: &'d PolicyEntries| {
            let entries = entries(all).iter().enumerate();
            entries.map(move |(index, entry)| Named {
                name: format!("{side}[{index}]"),
                entry,
            })
        };
        let mut rules = Rules::default();
        for (name, section) in &self.sections {
            match &section.allow {
                Allow::Requested => rules
                    .allow
                    .push(Allowing::Anything(format!("{name}.allow"))),
                Allow::Rules(allow) => {
                    let allow = named(format!("{name}.allow.{list}"), allow);
                    rules.allow.extend(allow.map(Allowing::Entry));
                }
            }
            let deny = named(format!("{name}.deny.{list}"), &section.deny);
            rules.deny.extend(deny);
        }
        rules
    }

    /// The rule that allows something that a policy either names or does not, unless one denies
    /// it.
    fn rule_naming(
        &self,
        list: &str,
        names: impl Fn(&PolicyEntries) -> bool,
    ) -> Result<Arc<str>, Reason> {
        let denies = |(_, section): &&(String, &Section)| names(&section.deny);
        if let Some((name, _)) = self.sections.iter().find(denies) {
            return Err(Reason::denied(format!("{name}.deny.{list}")));
        }
        self.sections
            .iter()
            .find_map(|(name, section)| match &section.allow {
                Allow::Requested => Some(format!("{name}.allow").into()),
                Allow::Rules(rules) => names(rules).then(|| format!("{name}.allow.{list}").into()),
            })
            .ok_or_else(Reason::no_rule)
    }

    /// What the sections say of one setting, the plugin's own section before the defaults.
    fn setting<T>(&self, value: impl Fn(&Section) -> Option<T>) -> Option<(&str, T)> {
        let mut sections = self.sections.iter().rev();
        sections.find_map(|(name, section)| Some((name.as_str(), value(section)?)))
    }

    /// The first denial whose path begins at a place that this host does not know, as the reason
    /// to refuse whatever it may touch.
    fn unknown_denial<T>(
        &self,
        denials: &[Named<&'d T>],
        path: impl Fn(&T) -> &PathTemplate,
    ) -> Option<Reason> {
        let unknown = |denial: &&Named<&T>| path(denial.entry).expand(self.places).is_none();
        let denial = denials.iter().find(unknown)?;
        Some(Reason::unknown_denial(&denial.name, path(denial.entry)))
    }

    /// Grants a request as a whole. Returns which request and rule it was.
    fn grant_by(&mut self, request: &str, policy: impl Into<Arc<str>>, text: String) -> Rule {
        let rule = Rule {
            request: request.into(),
            policy: policy.into(),
        };
        self.grant(&rule, text);
        rule
    }

    fn grant(&mut self, rule: &Rule, text: String) {
        self.granted.push(Granted {
            request: rule.request.to_string(),
            text,
            rule: rule.policy.to_string(),
        });
    }

    fn refuse(
        &mut self,
        at: At,
        request: &str,
        text: String,
        reason: &Reason,
        narrowed_to: Option<String>,
    ) {
        self.refused.push(Refusal {
            position: at.0,
            request: request.to_owned(),
            text,
            rule: reason.rule.clone(),
            narrowed_to,
            because: reason.because,
        });
    }
}
