//! Granted connections, and verdicts on single ones.

use std::net::IpAddr;

use serde::Serialize;

use crate::choices::{Capability, Direction, Protocol};
use crate::denial::{Denial, DenialKind};
use crate::entries::network_text;
use crate::flow::word_text;
use crate::host::{AddressClass, Host, HostName, HostPattern, classify};
use crate::ports::Ports;
use crate::rule::Rule;

/// Granted connections with one host, network or wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkGrant {
    pub(crate) protocol: Protocol,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: Rule,
}

impl NetworkGrant {
    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who may be connected to; for ingress, who may connect.
    #[must_use]
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// The ports; for ingress, those listened on.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Which request and rule it comes from.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    fn fits(&self, protocol: Protocol, host: &Host, port: u16) -> bool {
        self.protocol == protocol && self.ports.contains(port) && self.host.matches(host)
    }
}

/// Addresses that a policy denies whatever name leads to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeniedAddresses {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: String,
}

/// A refused part of a network request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedNetwork {
    pub(crate) protocol: Protocol,
    pub(crate) host: HostPattern,
    pub(crate) ports: Ports,
    pub(crate) rule: String,
}

/// Granted connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkGrants {
    pub(crate) egress: Vec<NetworkGrant>,
    pub(crate) ingress: Vec<NetworkGrant>,
    pub(crate) denied: Vec<DeniedAddresses>,
    pub(crate) refused_egress: Vec<RefusedNetwork>,
    pub(crate) refused_ingress: Vec<RefusedNetwork>,
}

impl NetworkGrants {
    /// Connections that the plugin may open.
    #[must_use]
    pub fn egress_grants(&self) -> &[NetworkGrant] {
        &self.egress
    }

    /// Connections that may reach the plugin.
    #[must_use]
    pub fn ingress_grants(&self) -> &[NetworkGrant] {
        &self.ingress
    }

    /// Whether the plugin may connect to a host. Ask this before a name is resolved; then ask
    /// [`NetworkGrants::resolved`] about each address, and connect to one that passed.
    ///
    /// A name matches grants by name and wildcard only; an address only grants of that address
    /// or of a network it lies in.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the host with this protocol and port.
    pub fn egress(
        &self,
        protocol: Protocol,
        host: &Host,
        port: u16,
    ) -> Result<&NetworkGrant, Denial> {
        self.egress
            .iter()
            .find(|grant| grant.fits(protocol, host, port))
            .ok_or_else(|| {
                let refused = refused_network(&self.refused_egress, protocol, Some(host), port);
                egress_denial(protocol, host, port, refused)
            })
    }

    /// Whether the plugin may connect to an address that a granted name was resolved to, or to a
    /// granted address itself.
    ///
    /// A name may only lead to global addresses. To any other it may lead where a grant names
    /// that address or its network, with this protocol and port. Addresses that the policy denies
    /// are refused whatever name leads to them, and so is an IPv6 address that carries a denied
    /// IPv4 address inside (mapped, NAT64, 6to4, Teredo, ISATAP), also when it was asked for itself.
    ///
    /// # Errors
    ///
    /// The denial, when the host or the address is not granted.
    pub fn resolved(
        &self,
        protocol: Protocol,
        host: &Host,
        port: u16,
        address: IpAddr,
    ) -> Result<&NetworkGrant, Denial> {
        let by_host = self.egress(protocol, host, port)?;
        let address = address.to_canonical();
        let target = Host::Address(address);
        let argument = format!("{protocol} {host} at {address} port {port}");
        let bad = |rule: String, missing: Option<String>| Denial {
            kind: DenialKind::BadAddress,
            capability: Capability::Network,
            operation: Direction::Egress.as_str().to_owned(),
            argument: argument.clone(),
            rule,
            missing,
        };
        if let Host::Address(asked) = host
            && asked.to_canonical() != address
        {
            return Err(bad(
                "it is not the address that was asked for".to_owned(),
                None,
            ));
        }
        for denied in &self.denied {
            let speaks = denied.protocol.is_none_or(|mine| mine == protocol);
            if speaks && denied.ports.contains(port) && denied.host.denies(address) {
                return Err(bad(denied.rule.clone(), None));
            }
        }
        let class = classify(address);
        if class == AddressClass::Global {
            return Ok(by_host);
        }
        let by_address = self
            .egress
            .iter()
            .find(|grant| grant.fits(protocol, &target, port));
        by_address.ok_or_else(|| {
            let ports = Ports::from_ranges(vec![(port, port)]);
            let named = word_text(&address.to_string());
            let needed = network_text(Direction::Egress, protocol, &named, &ports);
            bad(
                format!("a name may only lead to global addresses, and this one is {class}"),
                Some(format!("capabilities.network.egress: {needed}")),
            )
        })
    }

    /// Whether the plugin may have a port listened on.
    ///
    /// # Errors
    ///
    /// The denial, when no grant names the port with this protocol.
    pub fn ingress(&self, protocol: Protocol, port: u16) -> Result<&NetworkGrant, Denial> {
        let fits = |grant: &&NetworkGrant| grant.protocol == protocol && grant.ports.contains(port);
        self.ingress.iter().find(fits).ok_or_else(|| {
            let refused = refused_network(&self.refused_ingress, protocol, None, port);
            ingress_denial(protocol, port, None, refused)
        })
    }

    /// The origins that may connect to a port, names included: those the host resolves itself.
    pub fn origins(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &HostPattern> {
        self.ingress
            .iter()
            .filter(move |grant| grant.protocol == protocol && grant.ports.contains(port))
            .map(|grant| &grant.host)
    }

    /// Whether a connection from an address may reach the plugin.
    ///
    /// `names` are granted names that the host's own resolver found to stand for this very
    /// address; names that the peer claims do not belong there.
    ///
    /// # Errors
    ///
    /// The denial, when no grant for this port lets the origin in.
    pub fn ingress_origin(
        &self,
        protocol: Protocol,
        port: u16,
        origin: IpAddr,
        names: &[HostName],
    ) -> Result<&NetworkGrant, Denial> {
        self.ingress(protocol, port)?;
        let origin = Host::Address(origin.to_canonical());
        let named = |grant: &NetworkGrant| {
            names
                .iter()
                .any(|name| grant.fits(protocol, &Host::Name(name.clone()), port))
        };
        self.ingress
            .iter()
            .find(|grant| grant.fits(protocol, &origin, port) || named(grant))
            .ok_or_else(|| {
                let refused = refused_network(&self.refused_ingress, protocol, Some(&origin), port);
                ingress_denial(protocol, port, Some(&origin), refused)
            })
    }
}

fn refused_network<'r>(
    refused: &'r [RefusedNetwork],
    protocol: Protocol,
    host: Option<&Host>,
    port: u16,
) -> Option<&'r str> {
    refused
        .iter()
        .find(|refused| {
            refused.protocol == protocol
                && refused.ports.contains(port)
                && host.is_none_or(|host| refused.host.matches(host))
        })
        .map(|refused| refused.rule.as_str())
}

fn egress_denial(protocol: Protocol, host: &Host, port: u16, refused: Option<&str>) -> Denial {
    let ports = Ports::from_ranges(vec![(port, port)]);
    let named = word_text(&host.to_string());
    let missing = network_text(Direction::Egress, protocol, &named, &ports);
    Denial::not_granted(
        Capability::Network,
        Direction::Egress.as_str(),
        &format!("{protocol} {host} port {port}"),
        refused,
        format!("capabilities.network.egress: {missing}"),
    )
}

fn ingress_denial(
    protocol: Protocol,
    port: u16,
    origin: Option<&Host>,
    refused: Option<&str>,
) -> Denial {
    let ports = Ports::from_ranges(vec![(port, port)]);
    let (argument, hosts) = match origin {
        Some(origin) => (
            format!("{protocol} port {port} from {origin}"),
            word_text(&origin.to_string()),
        ),
        None => (format!("{protocol} port {port}"), "…".to_owned()),
    };
    let missing = network_text(Direction::Ingress, protocol, &hosts, &ports);
    Denial::not_granted(
        Capability::Network,
        Direction::Ingress.as_str(),
        &argument,
        refused,
        format!("capabilities.network.ingress: {missing}"),
    )
}
