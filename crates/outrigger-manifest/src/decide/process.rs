//! Decides about commands, and about control over what was started.

use std::path::PathBuf;

use super::Decider;
use super::decision::Reason;
use crate::choices::ProcessControl;
use crate::entries::{At, ExecEntry};
use crate::grants::{ExecGrant, ExecRule, ProcessGrants};
use crate::rule::{Allowing, Named, Rule, Rules};

impl Decider<'_> {
    pub(super) fn process(&mut self) -> ProcessGrants {
        let rules = self.rules("process.exec", |rules| &rules.lists.process.exec);
        let unknown_denial = self.unknown_denial(&rules.deny, |entry| &entry.command);
        let places = self.places;
        let mut grants = ProcessGrants {
            rules: rules.filter_map(|entry| ExecRule::new(entry, places)),
            ..ProcessGrants::default()
        };
        for (index, entry) in self
            .requests
            .capabilities
            .lists
            .process
            .exec
            .iter()
            .enumerate()
        {
            let request = format!("capabilities.process.exec[{index}]");
            let Some(command) = entry.command.expand(places) else {
                let reason = Reason::unknown_place(&entry.command);
                self.refuse(entry.at, &request, entry.text(), &reason, None);
                continue;
            };
            let (granted, refused) = match &unknown_denial {
                Some(reason) => (Vec::new(), Some(reason.clone())),
                None => judge(&wanted(entry, command.clone(), &request), &grants.rules),
            };
            for grant in &granted {
                self.grant(&grant.rule, grant.text());
            }
            if let Some(reason) = refused {
                let narrowed = granted.first().map(ExecGrant::text);
                self.refuse(entry.at, &request, entry.text(), &reason, narrowed);
                let why = reason.against(&request);
                grants.refused_exec.push((command, entry.args.clone(), why));
            }
            grants.exec.extend(granted);
        }
        for control in ProcessControl::ALL {
            if let Some(at) = self.requests.capabilities.lists.controls(*control) {
                self.control(*control, at, &mut grants);
            }
        }
        grants
    }

    fn control(&mut self, control: ProcessControl, at: At, grants: &mut ProcessGrants) {
        let request = format!("capabilities.process.{control}");
        let list = format!("process.{control}");
        match self.rule_naming(&list, |rules| rules.lists.controls(control).is_some()) {
            Ok(policy) => {
                let rule = self.grant_by(&request, policy, "[children]".to_owned());
                grants.control.push((control, rule));
            }
            Err(reason) => {
                self.refuse(at, &request, "[children]".to_owned(), &reason, None);
                let why = reason.against(&request);
                grants.refused_control.push((control, why));
            }
        }
    }
}

/// What is granted if a request is granted in full.
fn wanted(entry: &ExecEntry, command: PathBuf, request: &str) -> ExecGrant {
    ExecGrant {
        command,
        args: entry.args.clone(),
        rule: Rule {
            request: request.into(),
            policy: "".into(),
        },
    }
}

/// What the rules grant of one request, and why not all of it if they do not.
fn judge(wanted: &ExecGrant, rules: &Rules<ExecRule>) -> (Vec<ExecGrant>, Option<Reason>) {
    let mut grants: Vec<ExecGrant> = Vec::new();
    let mut denied = None;
    for grant in rules
        .allow
        .iter()
        .filter_map(|allowing| shared(wanted, allowing))
    {
        let touches = |denial: &&Named<ExecRule>| {
            denial.entry.command == grant.command && grant.args.touched_by(&denial.entry.args)
        };
        match rules.deny.iter().find(touches) {
            Some(denial) => {
                denied.get_or_insert_with(|| Reason::denied(&denial.name));
            }
            None if grants.iter().any(|other| other.args == grant.args) => {}
            None => grants.push(grant),
        }
    }
    let whole = grants.iter().any(|grant| grant.args == wanted.args);
    let refused = (!whole).then(|| denied.unwrap_or_else(Reason::no_rule));
    (grants, refused)
}

/// The part of a request that something allows.
fn shared(wanted: &ExecGrant, allowing: &Allowing<ExecRule>) -> Option<ExecGrant> {
    let mut grant = wanted.clone();
    match allowing {
        Allowing::Anything(name) => grant.rule.policy = name.as_str().into(),
        Allowing::Entry(rule) if rule.entry.command == wanted.command => {
            grant.args = wanted.args.intersection(&rule.entry.args)?;
            grant.rule.policy = rule.name.as_str().into();
        }
        Allowing::Entry(_) => return None,
    }
    Some(grant)
}
