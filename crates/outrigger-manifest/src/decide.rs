//! From what is asked and what is allowed to what is granted.
//!
//! The rules, for each request:
//!
//! 1. It meets every rule that allows, of the defaults and of the plugin's own section. What
//!    request and rule share becomes a grant, where the shared part can be written as one.
//! 2. From each grant, everything is taken that a denial touches even in part. A denial never
//!    leaves a hole in a grant: the permission or port goes as a whole.
//! 3. What of the request is not granted in full is listed as refused, with the rule.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::args::word_text;
use crate::ceiling::{Ceiling, ExecRule, FilesystemRule, NO_RULE, Sides};
use crate::entries::{
    At, Entries, ExecEntry, FilesystemEntry, NetworkEntry, exec_text, filesystem_text, network_text,
};
use crate::grants::{
    DeniedAddresses, EnvironmentGrants, ExecGrant, FilesystemGrant, Grants, Inner, NetworkGrant,
    NetworkGrants, ProcessGrants, RefusedNetwork, Rule,
};
use crate::host::HostPattern;
use crate::manifest::Manifest;
use crate::name::VariablePattern;
use crate::path::{Area, PathTemplate, Places};
use crate::permissions::Permissions;
use crate::policy::{Allow, Policy, Rules, Section};
use crate::ports::Ports;
use crate::problem::Position;
use crate::resources::Resources;
use crate::words::{Access, Direction, HostService, ProcessControl, Protocol, SandboxMode};

/// What a policy made of a manifest.
#[derive(Clone, Debug)]
pub struct Decision {
    grants: Grants,
    granted: Vec<Granted>,
    refused: Vec<Refusal>,
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
pub struct Granted {
    request: String,
    text: String,
    rule: String,
}

impl Granted {
    /// Key path of the request in the manifest.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// What was granted, as a manifest would ask for it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that allowed it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// One thing that was asked for and not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    position: Position,
    request: String,
    text: String,
    reason: Reason,
    narrowed: Option<String>,
}

impl Refusal {
    /// Where the request stands in the manifest.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Key path of the request in the manifest.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// What was refused, as a manifest would ask for it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that refused it, or that there is none that allows it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.reason.rule
    }

    /// What was granted in its place, where part of the request was.
    #[must_use]
    pub fn narrowed_to(&self) -> Option<&str> {
        self.narrowed.as_deref()
    }

    /// The stable code: `narrowed`, `denied`, `not-allowed`, `limited` or `place-unknown`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match (&self.narrowed, self.reason.because) {
            (Some(_), _) => "narrowed",
            (None, Because::NoRule) => "not-allowed",
            (None, Because::Denied) => "denied",
            (None, Because::Limited) => "limited",
            (None, Because::NoPlace) => "place-unknown",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.reason.because {
            Because::NoRule => {
                "review the request, then add an `allow` rule that covers it, or run without it"
            }
            Because::Denied => {
                "review the request, then remove or narrow that denial, or run without it"
            }
            Because::Limited => "ask for no more than that, or change it in the policy",
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
        state.serialize_field("rule", &self.reason.rule)?;
        state.serialize_field("code", self.code())?;
        state.serialize_field("narrowed_to", &self.narrowed)?;
        state.serialize_field("help", self.help())?;
        state.end()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.request, self.text, self.reason.rule)?;
        if let Some(narrowed) = &self.narrowed {
            write!(f, "; granted instead: {narrowed}")?;
        }
        Ok(())
    }
}

impl Policy {
    /// Decides what a manifest's plugin gets, its placeholders standing for `places`.
    ///
    /// Nothing is granted that the manifest does not ask for, nothing that no rule allows, and
    /// nothing that a denial touches. The limits are the smaller of those asked for and the
    /// policy's; the sandbox the stricter; where the plugin's own section gives a limit, a
    /// sandbox or `jit`, that of the defaults does not count.
    #[must_use]
    pub fn decide(&self, manifest: &Manifest, places: &Places) -> Decision {
        let own = self
            .plugins
            .get(manifest.name())
            .map(|section| (format!("policy plugins.{}", manifest.name()), section));
        let sections: Vec<(String, &Section)> =
            std::iter::once(("policy default".to_owned(), &self.default))
                .chain(own)
                .collect();
        Decider {
            manifest,
            places,
            sections,
            granted: Vec::new(),
            refused: Vec::new(),
        }
        .decide()
    }
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reason {
    rule: String,
    because: Because,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Because {
    /// No rule allows it.
    NoRule,
    /// A rule denies it.
    Denied,
    /// A limit of the policy is smaller, or its sandbox stricter.
    Limited,
    /// A placeholder stands for nothing on this host.
    NoPlace,
}

impl Reason {
    fn no_rule() -> Reason {
        Reason {
            rule: NO_RULE.to_owned(),
            because: Because::NoRule,
        }
    }

    fn denied(rule: impl Into<String>) -> Reason {
        Reason {
            rule: rule.into(),
            because: Because::Denied,
        }
    }

    fn limited(rule: impl Into<String>) -> Reason {
        Reason {
            rule: rule.into(),
            because: Because::Limited,
        }
    }

    fn no_place(what: impl Into<String>) -> Reason {
        Reason {
            rule: what.into(),
            because: Because::NoPlace,
        }
    }

    /// How a later denial names it.
    fn against(&self, request: &str) -> String {
        let rule = &self.rule;
        match self.because {
            Because::Denied | Because::Limited => format!("{rule} refused {request}"),
            Because::NoRule | Because::NoPlace => format!("{rule}, though {request} asks for it"),
        }
    }
}

/// The services that are granted, and those that are refused, each with its reason.
type ServicesJudged = (Vec<(HostService, Rule)>, Vec<(HostService, String)>);

/// What allows: a section's rules, or its permission for whatever is asked.
enum Allowing<'p, T> {
    Anything(String),
    Rule(String, &'p T),
}

struct Decider<'d> {
    manifest: &'d Manifest,
    places: &'d Places,
    /// The defaults, and the plugin's own section if there is one, each with its name.
    sections: Vec<(String, &'d Section)>,
    granted: Vec<Granted>,
    refused: Vec<Refusal>,
}

impl<'d> Decider<'d> {
    fn decide(mut self) -> Decision {
        let (filesystem, refused_filesystem) = self.filesystem();
        let (egress, refused_egress) = self.network(Direction::Egress);
        let (ingress, refused_ingress) = self.network(Direction::Ingress);
        let network = NetworkGrants {
            egress,
            ingress,
            denied: self.denied_addresses(),
            refused_egress,
            refused_ingress,
        };
        let process = self.process();
        let environment = self.environment();
        let (services, refused_services) = self.services();
        let resources = self.resources();
        let sandbox = self.sandbox();
        let jit = self.jit();
        Decision {
            grants: Grants::new(Inner {
                plugin: self.manifest.name().clone(),
                ceiling: self.ceiling(),
                filesystem,
                refused_filesystem,
                network,
                process,
                environment,
                services,
                refused_services,
                resources,
                sandbox,
                jit,
            }),
            granted: self.granted,
            refused: self.refused,
        }
    }

    fn entries(&self) -> &'d Entries {
        &self.manifest.capabilities.entries
    }

    fn allowing<T>(
        &self,
        list: &str,
        rules: impl Fn(&'d Rules) -> &'d [T],
    ) -> Vec<Allowing<'d, T>> {
        let mut all = Vec::new();
        for (name, section) in &self.sections {
            match &section.allow {
                Allow::Requested => all.push(Allowing::Anything(format!("{name}.allow"))),
                Allow::Rules(allow) => {
                    for (index, rule) in rules(allow).iter().enumerate() {
                        all.push(Allowing::Rule(
                            format!("{name}.allow.{list}[{index}]"),
                            rule,
                        ));
                    }
                }
            }
        }
        all
    }

    fn denying<T>(&self, list: &str, rules: impl Fn(&'d Rules) -> &'d [T]) -> Vec<(String, &'d T)> {
        let mut all = Vec::new();
        for (name, section) in &self.sections {
            for (index, rule) in rules(&section.deny).iter().enumerate() {
                all.push((format!("{name}.deny.{list}[{index}]"), rule));
            }
        }
        all
    }

    /// The rules about paths, for where these lead on the machine. Rules whose placeholder
    /// stands for nothing are left out: such a denial has refused everything already.
    fn ceiling(&self) -> Ceiling {
        fn sides<'p, E: 'p, R>(
            allowing: Vec<Allowing<'p, E>>,
            denying: Vec<(String, &'p E)>,
            rule: impl Fn(String, &E) -> Option<R>,
        ) -> Sides<R> {
            let mut sides = Sides::default();
            for allowing in allowing {
                match allowing {
                    Allowing::Anything(_) => sides.anything = true,
                    Allowing::Rule(name, entry) => sides.allow.extend(rule(name, entry)),
                }
            }
            let deny = denying.into_iter();
            sides.deny = deny.filter_map(|(name, entry)| rule(name, entry)).collect();
            sides
        }
        Ceiling {
            filesystem: sides(
                self.allowing("filesystem", |rules| &rules.entries.filesystem),
                self.denying("filesystem", |rules| &rules.entries.filesystem),
                |name, entry| {
                    Some(FilesystemRule {
                        name,
                        path: entry.path.expand(self.places)?,
                        recursive: entry.recursive,
                        permissions: entry.permissions,
                        access: entry.access,
                    })
                },
            ),
            exec: sides(
                self.allowing("process.exec", |rules| &rules.entries.exec),
                self.denying("process.exec", |rules| &rules.entries.exec),
                |name, entry| {
                    Some(ExecRule {
                        name,
                        command: entry.command.expand(self.places)?,
                        args: entry.args.clone(),
                    })
                },
            ),
        }
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
        narrowed: Option<String>,
    ) {
        self.refused.push(Refusal {
            position: at.0,
            request: request.to_owned(),
            text,
            reason: reason.clone(),
            narrowed,
        });
    }

    // Files.

    fn filesystem(&mut self) -> (Vec<FilesystemGrant>, Vec<(FilesystemGrant, String)>) {
        let allowing = self.allowing("filesystem", |rules| &rules.entries.filesystem);
        let denying = self.denying("filesystem", |rules| &rules.entries.filesystem);
        // Where a denied place is unknown, nobody can tell what lies in it.
        let unplaced = denying
            .iter()
            .find(|(_, rule)| rule.path.expand(self.places).is_none())
            .map(|(name, rule)| unjudged_denial(name, &rule.path));
        let expand = |path: &PathTemplate| path.expand(self.places);
        let allowing: Vec<(&str, Option<(PathBuf, &FilesystemEntry)>)> = allowing
            .iter()
            .filter_map(|allowing| match allowing {
                Allowing::Anything(name) => Some((name.as_str(), None)),
                Allowing::Rule(name, rule) => {
                    Some((name.as_str(), Some((expand(&rule.path)?, *rule))))
                }
            })
            .collect();
        let denying: Vec<(&str, PathBuf, &FilesystemEntry)> = denying
            .iter()
            .filter_map(|(name, rule)| Some((name.as_str(), expand(&rule.path)?, *rule)))
            .collect();
        let mut grants: Vec<FilesystemGrant> = Vec::new();
        let mut refused: Vec<(FilesystemGrant, String)> = Vec::new();
        for (index, entry) in self.entries().filesystem.iter().enumerate() {
            let request = format!("capabilities.filesystem[{index}]");
            let Some(path) = entry.path.expand(self.places) else {
                let reason = unknown_place(&entry.path);
                self.refuse(entry.at, &request, entry.text(), &reason, None);
                continue;
            };
            if let Some(reason) = &unplaced {
                self.refuse(entry.at, &request, entry.text(), reason, None);
                let asked = asked_for(entry, &path, &request);
                refused.push((asked, reason.against(&request)));
                continue;
            }
            let judged = judge_filesystem(entry, &path, &request, &allowing, &denying);
            for grant in &judged.grants {
                self.grant(&grant.rule, grant.text());
            }
            for (permissions, reason) in &judged.refused {
                let text = filesystem_text(
                    &entry.path.to_string(),
                    *permissions,
                    entry.recursive,
                    entry.access(),
                );
                let narrowed = judged
                    .grants
                    .iter()
                    .find(|grant| !(grant.permissions & *permissions).is_empty())
                    .map(FilesystemGrant::text);
                self.refuse(entry.at, &request, text, reason, narrowed);
                let whole = asked_for(entry, &path, &request);
                refused.push((
                    FilesystemGrant {
                        permissions: *permissions,
                        ..whole
                    },
                    reason.against(&request),
                ));
            }
            if let Some(reason) = &judged.mediated {
                let [asked, given] = [Access::Direct, Access::Mediated].map(access_text);
                self.refuse(entry.at, &request, asked, reason, Some(given));
            }
            grants.extend(judged.grants);
        }
        (with_inherited(grants), refused)
    }

    // Connections.

    fn network(&mut self, direction: Direction) -> (Vec<NetworkGrant>, Vec<RefusedNetwork>) {
        let list = format!("network.{}", direction.as_str());
        let allowing = self.allowing(&list, |rules| rules.entries.network(direction));
        let denying = self.denying(&list, |rules| rules.entries.network(direction));
        let mut grants = Vec::new();
        let mut refused = Vec::new();
        for (index, entry) in self.entries().network(direction).iter().enumerate() {
            let request: Arc<str> = format!("capabilities.{list}[{index}]").into();
            let Some(protocol) = entry.protocol else {
                continue;
            };
            let text = |host: &HostPattern, ports: &Ports| {
                let host = word_text(&host.to_string());
                network_text(direction, protocol, &host, ports)
            };
            for host in entry.patterns() {
                let judged = judge_network(entry, protocol, host, &request, &allowing, &denying);
                for grant in &judged.grants {
                    self.grant(&grant.rule, text(&grant.host, &grant.ports));
                }
                for (ports, reason) in judged.refused {
                    let narrowed = judged
                        .grants
                        .iter()
                        .find(|grant| !grant.ports.intersection(&ports).is_empty())
                        .map(|grant| text(&grant.host, &grant.ports));
                    self.refuse(entry.at, &request, text(host, &ports), &reason, narrowed);
                    refused.push(RefusedNetwork {
                        protocol,
                        host: host.clone(),
                        ports,
                        rule: reason.against(&request),
                    });
                }
                grants.extend(judged.grants);
            }
        }
        (grants, refused)
    }

    fn denied_addresses(&self) -> Vec<DeniedAddresses> {
        let denying = self.denying("network.egress", |rules| &rules.entries.egress);
        let mut denied = Vec::new();
        for (name, rule) in denying {
            for host in rule.patterns() {
                match host {
                    HostPattern::Address(_) | HostPattern::Network(_) => {
                        denied.push(DeniedAddresses {
                            protocol: rule.protocol,
                            host: host.clone(),
                            ports: rule.ports.clone(),
                            rule: name.clone(),
                        });
                    }
                    // Names are denied before they are resolved.
                    HostPattern::Name(_) | HostPattern::Wildcard(_) => {}
                }
            }
        }
        denied
    }

    // Processes.

    fn process(&mut self) -> ProcessGrants {
        let mut grants = ProcessGrants::default();
        let allowing = self.allowing("process.exec", |rules| &rules.entries.exec);
        let denying = self.denying("process.exec", |rules| &rules.entries.exec);
        let unplaced = denying
            .iter()
            .find(|(_, rule)| rule.command.expand(self.places).is_none())
            .map(|(name, rule)| unjudged_denial(name, &rule.command));
        for (index, entry) in self.entries().exec.iter().enumerate() {
            let request = format!("capabilities.process.exec[{index}]");
            let Some(command) = entry.command.expand(self.places) else {
                let reason = unknown_place(&entry.command);
                self.refuse(entry.at, &request, entry.text(), &reason, None);
                continue;
            };
            let judged = match &unplaced {
                Some(reason) => ExecJudged {
                    grants: Vec::new(),
                    refused: Some(reason.clone()),
                },
                None => judge_exec(entry, &command, &request, &allowing, &denying, self.places),
            };
            let text = |grant: &ExecGrant| {
                exec_text(&grant.command.to_string_lossy(), &grant.args.to_string())
            };
            for grant in &judged.grants {
                self.grant(&grant.rule, text(grant));
            }
            if let Some(reason) = judged.refused {
                let narrowed = judged.grants.first().map(text);
                self.refuse(entry.at, &request, entry.text(), &reason, narrowed);
                let why = reason.against(&request);
                grants.refused_exec.push((command, entry.args.clone(), why));
            }
            grants.exec.extend(judged.grants);
        }
        for control in ProcessControl::ALL {
            if let Some(at) = self.entries().controls(*control) {
                self.control(*control, at, &mut grants);
            }
        }
        grants
    }

    fn control(&mut self, control: ProcessControl, at: At, grants: &mut ProcessGrants) {
        let request = format!("capabilities.process.{control}");
        let list = format!("process.{control}");
        let verdict = self.simple(&list, |rules| rules.entries.controls(control).is_some());
        match verdict {
            Ok(policy) => {
                let rule = Rule {
                    request: request.as_str().into(),
                    policy,
                };
                self.grant(&rule, "[children]".to_owned());
                grants.control.push((control, rule));
            }
            Err(reason) => {
                self.refuse(at, &request, "[children]".to_owned(), &reason, None);
                grants
                    .refused_control
                    .push((control, reason.against(&request)));
            }
        }
    }

    /// The rule that allows something that is there or not, unless one denies it.
    fn simple(&self, list: &str, said: impl Fn(&Rules) -> bool) -> Result<Arc<str>, Reason> {
        if let Some((name, _)) = self
            .sections
            .iter()
            .find(|(_, section)| said(&section.deny))
        {
            return Err(Reason::denied(format!("{name}.deny.{list}")));
        }
        self.sections
            .iter()
            .find_map(|(name, section)| match &section.allow {
                Allow::Requested => Some(format!("{name}.allow").into()),
                Allow::Rules(rules) => said(rules).then(|| format!("{name}.allow.{list}").into()),
            })
            .ok_or_else(Reason::no_rule)
    }

    // Environment.

    fn environment(&mut self) -> EnvironmentGrants {
        let mut grants = EnvironmentGrants::default();
        let asked = &self.manifest.capabilities;
        for (index, (name, at)) in asked.read.iter().enumerate() {
            let request = format!("capabilities.environment.read[{index}]");
            match self.variable("environment.read", name, |rules| &rules.read) {
                Ok(policy) => {
                    let rule = Rule {
                        request: request.as_str().into(),
                        policy: policy.into(),
                    };
                    self.grant(&rule, name.clone());
                    grants.read.push((name.clone(), rule));
                }
                Err(reason) => {
                    self.refuse(*at, &request, name.clone(), &reason, None);
                    grants
                        .refused
                        .push((name.clone(), reason.against(&request)));
                }
            }
        }
        for (name, value, at) in &asked.set {
            let request = format!("capabilities.environment.set.{name}");
            match self.variable("environment.set", name, |rules| &rules.set) {
                Ok(policy) => {
                    let rule = Rule {
                        request: request.as_str().into(),
                        policy: policy.into(),
                    };
                    self.grant(&rule, word_text(value));
                    grants.set.push((name.clone(), value.clone()));
                }
                Err(reason) => self.refuse(*at, &request, word_text(value), &reason, None),
            }
        }
        grants
    }

    fn variable(
        &self,
        list: &str,
        name: &str,
        rules: impl Fn(&'d Rules) -> &'d [(VariablePattern, At)],
    ) -> Result<String, Reason> {
        let denied = self
            .denying(list, &rules)
            .into_iter()
            .find(|(_, (pattern, _))| pattern.matches(name));
        if let Some((rule, _)) = denied {
            return Err(Reason::denied(rule));
        }
        self.allowing(list, &rules)
            .into_iter()
            .find_map(|allowing| match allowing {
                Allowing::Anything(rule) => Some(rule),
                Allowing::Rule(rule, (pattern, _)) => pattern.matches(name).then_some(rule),
            })
            .ok_or_else(Reason::no_rule)
    }

    // Services.

    fn services(&mut self) -> ServicesJudged {
        let mut granted = Vec::new();
        let mut refused = Vec::new();
        for service in self.manifest.services() {
            let request = "services";
            let verdict = self.service(service);
            match verdict {
                Ok(policy) => {
                    let rule = Rule {
                        request: request.into(),
                        policy,
                    };
                    self.grant(&rule, service.to_string());
                    granted.push((service, rule));
                }
                Err(reason) => {
                    // Of services that go with a capability, the refused capability tells more.
                    if self.manifest.names_services() || reason.because == Because::Denied {
                        let at = self.manifest.positions.services;
                        self.refuse(at, request, service.to_string(), &reason, None);
                    }
                    refused.push((service, reason.against(request)));
                }
            }
        }
        (granted, refused)
    }

    /// A policy that names no services allows those of the capabilities it has any rule for, and
    /// the two that carry no authority.
    fn service(&self, service: HostService) -> Result<Arc<str>, Reason> {
        let lists = |rules: &Rules| {
            rules
                .services
                .as_ref()
                .is_some_and(|services| services.contains(&service))
        };
        let verdict = self.simple("services", lists);
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
        let implied = |rules: &Rules| match service {
            HostService::Filesystem => !rules.entries.filesystem.is_empty(),
            HostService::Environment => !rules.read.is_empty(),
            HostService::Process => {
                !rules.entries.exec.is_empty() || !rules.entries.control.is_empty()
            }
            HostService::Network => {
                !rules.entries.egress.is_empty() || !rules.entries.ingress.is_empty()
            }
            HostService::Clock | HostService::Log => true,
        };
        self.sections
            .iter()
            .find_map(|(name, section)| match &section.allow {
                Allow::Requested => Some(format!("{name}.allow").into()),
                Allow::Rules(rules) => implied(rules).then(|| format!("{name}.allow").into()),
            })
            .ok_or_else(Reason::no_rule)
    }

    // Ceilings.

    fn resources(&mut self) -> Resources {
        let ceiling = self
            .sections
            .iter()
            .rev()
            .fold(Resources::default(), |ceiling, (_, section)| {
                ceiling.or(&section.resources)
            });
        let asked = self.manifest.resources;
        let given = asked.within(&ceiling);
        let given_texts = given.texts();
        for (key, text) in asked.texts() {
            let request = format!("resources.{key}");
            let Some((_, given)) = given_texts.iter().find(|(other, _)| *other == key) else {
                continue;
            };
            let setter = self.sections.iter().rev().find(|(_, section)| {
                section
                    .resources
                    .texts()
                    .iter()
                    .any(|(other, _)| *other == key)
            });
            let policy = setter.map_or("policy default".to_owned(), |(name, _)| {
                format!("{name}.resources.{key}")
            });
            if *given == text {
                let rule = Rule {
                    request: request.as_str().into(),
                    policy: policy.into(),
                };
                self.grant(&rule, text);
            } else {
                let at = self.manifest.positions.resources;
                let reason = Reason::limited(policy);
                self.refuse(at, &request, text, &reason, Some(given.clone()));
            }
        }
        given
    }

    fn sandbox(&mut self) -> SandboxMode {
        let asked = self.manifest.sandbox();
        let (policy, least) = self
            .sections
            .iter()
            .rev()
            .find_map(|(name, section)| Some((format!("{name}.sandbox"), section.sandbox?)))
            .unwrap_or_else(|| ("policy default.sandbox".to_owned(), SandboxMode::Require));
        if asked < least {
            let at = self.manifest.positions.sandbox;
            let reason = Reason::limited(policy);
            let least = Some(least.to_string());
            self.refuse(at, "sandbox", asked.to_string(), &reason, least);
        }
        asked.max(least)
    }

    fn jit(&mut self) -> bool {
        if !self.manifest.jit() {
            return false;
        }
        let said = self
            .sections
            .iter()
            .rev()
            .find_map(|(name, section)| Some((format!("{name}.jit"), section.jit?)));
        match said {
            Some((policy, true)) => {
                let rule = Rule {
                    request: "jit".into(),
                    policy: policy.into(),
                };
                self.grant(&rule, "true".to_owned());
                true
            }
            Some((policy, false)) => {
                self.refuse_jit(&Reason::limited(policy));
                false
            }
            None => {
                self.refuse_jit(&Reason::no_rule());
                false
            }
        }
    }

    fn refuse_jit(&mut self, reason: &Reason) {
        let at = self.manifest.positions.jit;
        self.refuse(at, "jit", "true".to_owned(), reason, None);
    }
}

fn access_text(access: Access) -> String {
    format!("access: {access}")
}

fn unknown_place(path: &PathTemplate) -> Reason {
    Reason::no_place(format!("this host does not know {path}"))
}

/// A denial that may mean any path, as nobody knows where it begins.
fn unjudged_denial(name: &str, path: &PathTemplate) -> Reason {
    Reason::no_place(format!(
        "{name} names {path}, which this host does not know"
    ))
}

fn asked_for(entry: &FilesystemEntry, path: &Path, request: &str) -> FilesystemGrant {
    FilesystemGrant {
        index: 0,
        path: path.to_owned(),
        permissions: entry.permissions,
        recursive: entry.recursive,
        access: entry.access(),
        rule: Rule {
            request: request.into(),
            policy: "".into(),
        },
    }
}

struct FilesystemJudged {
    grants: Vec<FilesystemGrant>,
    /// Permissions that are not granted on all that was asked for.
    refused: Vec<(Permissions, Reason)>,
    /// Why direct access became mediated.
    mediated: Option<Reason>,
}

fn judge_filesystem(
    entry: &FilesystemEntry,
    path: &Path,
    request: &str,
    allowing: &[(&str, Option<(PathBuf, &FilesystemEntry)>)],
    denying: &[(&str, PathBuf, &FilesystemEntry)],
) -> FilesystemJudged {
    let wanted = Area {
        path,
        recursive: entry.recursive,
    };
    let mut judged = FilesystemJudged {
        grants: Vec::new(),
        refused: Vec::new(),
        mediated: None,
    };
    let mut denied: Vec<(Permissions, String)> = Vec::new();
    for (name, rule) in allowing {
        let (area, mut permissions, mut access) = match rule {
            None => (Some(wanted), entry.permissions, entry.access()),
            Some((path, rule)) => {
                let area = Area {
                    path,
                    recursive: rule.recursive,
                };
                let access = entry.access().min(rule.access());
                (
                    wanted.intersection(area),
                    entry.permissions & rule.permissions,
                    access,
                )
            }
        };
        let Some(area) = area else { continue };
        let mut weakened = (access != entry.access()).then(|| Reason::limited(*name));
        for (name, path, rule) in denying {
            if !area.touches(Area {
                path,
                recursive: rule.recursive,
            }) {
                continue;
            }
            if rule.access == Some(Access::Direct) {
                if access == Access::Direct && !(permissions & rule.permissions).is_empty() {
                    access = Access::Mediated;
                    weakened = Some(Reason::denied(*name));
                }
            } else {
                let taken = permissions & rule.permissions;
                if !taken.is_empty() {
                    denied.push((taken, (*name).to_owned()));
                    permissions = permissions - taken;
                }
            }
        }
        if permissions.is_empty() {
            continue;
        }
        if let Some(reason) = weakened {
            judged.mediated.get_or_insert(reason);
        }
        judged.grants.push(FilesystemGrant {
            index: 0,
            path: area.path.to_owned(),
            permissions,
            recursive: area.recursive,
            access,
            rule: Rule {
                request: request.into(),
                policy: (*name).into(),
            },
        });
    }
    drop_repeated(&mut judged.grants);
    // Another rule may have allowed all of it directly after all.
    let whole =
        |grant: &&FilesystemGrant| grant.area().contains(wanted) && grant.access == entry.access();
    let direct: Permissions = judged
        .grants
        .iter()
        .filter(whole)
        .map(|grant| grant.permissions)
        .collect();
    if direct.contains(entry.permissions) {
        judged.mediated = None;
    }
    let full: Permissions = judged
        .grants
        .iter()
        .filter(|grant| grant.area().contains(wanted))
        .map(|grant| grant.permissions)
        .collect();
    let mut missing = entry.permissions - full;
    for (taken, rule) in denied {
        let taken = taken & missing;
        if !taken.is_empty() {
            judged.refused.push((taken, Reason::denied(rule)));
            missing = missing - taken;
        }
    }
    if !missing.is_empty() {
        judged.refused.push((missing, Reason::no_rule()));
    }
    judged
}

/// Leaves out grants that say nothing another does not say.
fn drop_repeated(grants: &mut Vec<FilesystemGrant>) {
    let all = std::mem::take(grants);
    for (index, grant) in all.iter().enumerate() {
        let more = |(other_index, other): (usize, &FilesystemGrant)| {
            let covers = other.area().contains(grant.area())
                && other.permissions.contains(grant.permissions)
                && other.access >= grant.access;
            let same = other.area() == grant.area()
                && other.permissions == grant.permissions
                && other.access == grant.access;
            other_index != index && covers && (!same || other_index < index)
        };
        if !all.iter().enumerate().any(more) {
            grants.push(grant.clone());
        }
    }
}

/// Each grant with the permissions of those that contain it, so that one grant answers for a
/// path. A grant by which the plugin reaches files itself takes only from others of its kind.
fn with_inherited(grants: Vec<FilesystemGrant>) -> Vec<FilesystemGrant> {
    let inherited = |grant: &FilesystemGrant| {
        grants
            .iter()
            .filter(|other| other.area().contains(grant.area()))
            .filter(|other| other.access == Access::Direct || grant.access == Access::Mediated)
            .map(|other| other.permissions)
            .collect::<Permissions>()
    };
    grants
        .iter()
        .enumerate()
        .map(|(index, grant)| FilesystemGrant {
            index,
            permissions: grant.permissions | inherited(grant),
            ..grant.clone()
        })
        .collect()
}

struct NetworkJudged {
    grants: Vec<NetworkGrant>,
    refused: Vec<(Ports, Reason)>,
}

fn judge_network(
    entry: &NetworkEntry,
    protocol: Protocol,
    host: &HostPattern,
    request: &Arc<str>,
    allowing: &[Allowing<'_, NetworkEntry>],
    denying: &[(String, &NetworkEntry)],
) -> NetworkJudged {
    let mut grants: Vec<NetworkGrant> = Vec::new();
    let mut denied: Vec<(Ports, String)> = Vec::new();
    let mut offer = |name: &str, host: HostPattern, mut ports: Ports| {
        for (denial, rule) in denying {
            let hit = rule.speaks(protocol)
                && rule
                    .hosts
                    .as_ref()
                    .is_none_or(|hosts| hosts.iter().any(|other| host.touched_by(other)));
            let taken = if hit {
                ports.intersection(&rule.ports)
            } else {
                Ports::default()
            };
            if !taken.is_empty() {
                ports = ports.without(&taken);
                denied.push((taken, denial.clone()));
            }
        }
        let repeated = grants
            .iter()
            .any(|grant| grant.host == host && grant.ports == ports);
        if !ports.is_empty() && !repeated {
            let rule = Rule {
                request: request.clone(),
                policy: name.into(),
            };
            grants.push(NetworkGrant {
                protocol,
                host,
                ports,
                rule,
            });
        }
    };
    for allowing in allowing {
        match allowing {
            Allowing::Anything(name) => offer(name, host.clone(), entry.ports.clone()),
            Allowing::Rule(name, rule) if rule.speaks(protocol) => {
                for other in rule.patterns() {
                    if let Some(shared) = host.intersection(other) {
                        offer(name, shared, entry.ports.intersection(&rule.ports));
                    }
                }
            }
            Allowing::Rule(..) => {}
        }
    }
    let full = grants
        .iter()
        .filter(|grant| grant.host == *host)
        .fold(Ports::default(), |full, grant| full.union(&grant.ports));
    let mut missing = entry.ports.without(&full);
    let mut refused = Vec::new();
    for (taken, rule) in denied {
        let taken = taken.intersection(&missing);
        if !taken.is_empty() {
            missing = missing.without(&taken);
            refused.push((taken, Reason::denied(rule)));
        }
    }
    if !missing.is_empty() {
        refused.push((missing, Reason::no_rule()));
    }
    NetworkJudged { grants, refused }
}

struct ExecJudged {
    grants: Vec<ExecGrant>,
    refused: Option<Reason>,
}

fn judge_exec(
    entry: &ExecEntry,
    command: &Path,
    request: &str,
    allowing: &[Allowing<'_, ExecEntry>],
    denying: &[(String, &ExecEntry)],
    places: &Places,
) -> ExecJudged {
    let mut grants: Vec<ExecGrant> = Vec::new();
    let mut denied = None;
    for allowing in allowing {
        let (name, args) = match allowing {
            Allowing::Anything(name) => (name, Some(entry.args.clone())),
            Allowing::Rule(name, rule) => {
                let same = rule.command.expand(places).as_deref() == Some(command);
                (
                    name,
                    if same {
                        entry.args.intersection(&rule.args)
                    } else {
                        None
                    },
                )
            }
        };
        let Some(args) = args else { continue };
        let denial = denying.iter().find(|(_, rule)| {
            rule.command.expand(places).as_deref() == Some(command) && args.touched_by(&rule.args)
        });
        match denial {
            Some((rule, _)) => {
                denied.get_or_insert_with(|| rule.clone());
            }
            None if grants.iter().any(|grant| grant.args == args) => {}
            None => grants.push(ExecGrant {
                command: command.to_owned(),
                args,
                rule: Rule {
                    request: request.into(),
                    policy: name.as_str().into(),
                },
            }),
        }
    }
    let whole = grants.iter().any(|grant| grant.args == entry.args);
    let refused = (!whole).then(|| match denied {
        Some(rule) => Reason::denied(rule),
        None => Reason::no_rule(),
    });
    ExecJudged { grants, refused }
}
