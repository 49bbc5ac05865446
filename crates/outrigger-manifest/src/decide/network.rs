//! Decides about connections.

use std::sync::Arc;

use super::Decider;
use super::decision::Reason;
use crate::choices::Direction;
use crate::entries::{NetworkEntry, network_text};
use crate::flow::word_text;
use crate::grants::{DeniedAddresses, NetworkGrant, NetworkGrants, RefusedNetwork};
use crate::host::HostPattern;
use crate::ports::Ports;
use crate::rule::{Allowing, Rule, Rules};

impl Decider<'_> {
    pub(super) fn networks(&mut self) -> NetworkGrants {
        let (egress, refused_egress) = self.network(Direction::Egress);
        let (ingress, refused_ingress) = self.network(Direction::Ingress);
        NetworkGrants {
            egress,
            ingress,
            denied: self.denied_addresses(),
            refused_egress,
            refused_ingress,
        }
    }

    fn network(&mut self, direction: Direction) -> (Vec<NetworkGrant>, Vec<RefusedNetwork>) {
        let list = format!("network.{direction}");
        let rules = self.rules(&list, |rules| rules.lists.network(direction));
        let mut grants = Vec::new();
        let mut refused = Vec::new();
        for (index, entry) in self
            .requests
            .capabilities
            .lists
            .network(direction)
            .iter()
            .enumerate()
        {
            let request: Arc<str> = format!("capabilities.{list}[{index}]").into();
            let Some(protocol) = entry.protocol else {
                continue;
            };
            let text = |host: &HostPattern, ports: &Ports| {
                network_text(direction, protocol, &word_text(&host.to_string()), ports)
            };
            for host in entry.patterns() {
                let wanted = NetworkGrant {
                    protocol,
                    host: host.clone(),
                    ports: entry.ports.clone(),
                    rule: Rule {
                        request: request.clone(),
                        policy: "".into(),
                    },
                };
                let judged = Judged::new(&wanted, &rules);
                for grant in &judged.grants {
                    self.grant(&grant.rule, text(&grant.host, &grant.ports));
                }
                for (ports, reason) in judged.refused(&wanted) {
                    let mut shares = judged.grants.iter();
                    let narrowed =
                        shares.find(|grant| !grant.ports.intersection(&ports).is_empty());
                    let narrowed = narrowed.map(|grant| text(&grant.host, &grant.ports));
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

    /// Denied addresses and networks, which hold for every name that leads there. Names are
    /// denied before they are resolved.
    fn denied_addresses(&self) -> Vec<DeniedAddresses> {
        let denials = self
            .rules("network.egress", |rules| &rules.lists.network.egress)
            .deny;
        let mut denied = Vec::new();
        for denial in denials {
            let hosts = denial.entry.patterns().iter();
            let addresses = hosts.filter(|host| match host {
                HostPattern::Address(_) | HostPattern::Network(_) => true,
                HostPattern::Name(_) | HostPattern::Wildcard(_) => false,
            });
            denied.extend(addresses.map(|host| DeniedAddresses {
                protocol: denial.entry.protocol,
                host: host.clone(),
                ports: denial.entry.ports.clone(),
                rule: denial.name.clone(),
            }));
        }
        denied
    }
}

/// What the rules make of the request for one host.
#[derive(Default)]
struct Judged {
    grants: Vec<NetworkGrant>,
    /// Ports that denials took, each time with the rule.
    denied: Vec<(Ports, String)>,
}

impl Judged {
    fn new(wanted: &NetworkGrant, rules: &Rules<&NetworkEntry>) -> Judged {
        let mut judged = Judged::default();
        for allowing in &rules.allow {
            for mut grant in shared(wanted, allowing) {
                judged.apply_denials(&mut grant, rules);
                let repeats =
                    |other: &NetworkGrant| other.host == grant.host && other.ports == grant.ports;
                if !grant.ports.is_empty() && !judged.grants.iter().any(repeats) {
                    judged.grants.push(grant);
                }
            }
        }
        judged
    }

    /// Takes from a grant the ports that denials touch.
    fn apply_denials(&mut self, grant: &mut NetworkGrant, rules: &Rules<&NetworkEntry>) {
        for denial in &rules.deny {
            let hosts = denial.entry.hosts.as_ref();
            let touches =
                |hosts: &Vec<HostPattern>| hosts.iter().any(|other| grant.host.touched_by(other));
            if !denial.entry.speaks(grant.protocol) || !hosts.is_none_or(touches) {
                continue;
            }
            let taken = grant.ports.intersection(&denial.entry.ports);
            if !taken.is_empty() {
                grant.ports = grant.ports.without(&taken);
                self.denied.push((taken, denial.name.clone()));
            }
        }
    }

    /// The ports that are not granted on the whole host or network, and why.
    fn refused(&self, wanted: &NetworkGrant) -> Vec<(Ports, Reason)> {
        let whole = self.grants.iter().filter(|grant| grant.host == wanted.host);
        let full = whole.fold(Ports::default(), |full, grant| full.union(&grant.ports));
        let mut missing = wanted.ports.without(&full);
        let mut refused = Vec::new();
        for (taken, rule) in &self.denied {
            let taken = taken.intersection(&missing);
            if !taken.is_empty() {
                missing = missing.without(&taken);
                refused.push((taken, Reason::denied(rule)));
            }
        }
        if !missing.is_empty() {
            refused.push((missing, Reason::no_rule()));
        }
        refused
    }
}

/// The parts of a request that something allows.
fn shared(wanted: &NetworkGrant, allowing: &Allowing<&NetworkEntry>) -> Vec<NetworkGrant> {
    let grant = |policy: &str, host, ports| {
        let mut grant = NetworkGrant {
            host,
            ports,
            ..wanted.clone()
        };
        grant.rule.policy = policy.into();
        grant
    };
    match allowing {
        Allowing::Anything(name) => vec![grant(name, wanted.host.clone(), wanted.ports.clone())],
        Allowing::Entry(rule) if rule.entry.speaks(wanted.protocol) => {
            let ports = wanted.ports.intersection(&rule.entry.ports);
            let hosts = rule.entry.patterns().iter();
            let shared = hosts.filter_map(|other| wanted.host.intersection(other));
            shared
                .map(|host| grant(&rule.name, host, ports.clone()))
                .collect()
        }
        Allowing::Entry(_) => Vec::new(),
    }
}
