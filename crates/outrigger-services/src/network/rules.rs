//! The questions of this service to the grants, which alone have the answers.

use std::net::IpAddr;

use outrigger_manifest::{Denial, Grants, Host, HostName, HostPattern, Protocol};

use crate::fault::Fault;

/// What a plugin calls a host, in its canonical form.
pub(crate) fn host(text: &str) -> Result<Host, Fault> {
    text.parse::<Host>()
        .map_err(|error| Fault::abuse(error.to_string()))
}

/// A port that can be named.
pub(crate) fn port(port: u32) -> Result<u16, Fault> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::abuse(format!("{port} is not a port (1–65535)"))),
    }
}

/// Whether `host` may be dialled at `port`, and which grant says so.
pub(crate) fn egress(
    grants: &Grants,
    protocol: Protocol,
    host: &Host,
    port: u16,
) -> Result<String, Fault> {
    let grant = grants.network().egress(protocol, host, port)?;
    Ok(grant.rule().to_string())
}

/// Whether one of the addresses of `host`, which is granted, may be dialled, and
/// as which.
pub(crate) fn dialable(
    grants: &Grants,
    protocol: Protocol,
    host: &Host,
    address: IpAddr,
    port: u16,
) -> Result<IpAddr, Denial> {
    let address = address.to_canonical();
    grants.network().resolved(protocol, host, port, address)?;
    Ok(address)
}

/// Whether the plugin may listen on `port`, and which grant says so.
pub(crate) fn ingress(grants: &Grants, protocol: Protocol, port: u16) -> Result<String, Fault> {
    let grant = grants.network().ingress(protocol, port)?;
    Ok(grant.rule().to_string())
}

/// Whether what comes from `address` may reach the plugin at `port`; `names` are
/// those that lead to that address.
pub(crate) fn origin(
    grants: &Grants,
    protocol: Protocol,
    port: u16,
    address: IpAddr,
    names: &[HostName],
) -> Result<String, Fault> {
    let network = grants.network();
    let grant = network.ingress_origin(protocol, port, address, names)?;
    Ok(grant.rule().to_string())
}

/// Who may reach the plugin at `port`, as far as they are names.
pub(crate) fn named_origins(grants: &Grants, protocol: Protocol, port: u16) -> Vec<HostName> {
    let origins = grants.network().origins(protocol, port);
    let mut names: Vec<HostName> = origins
        .filter_map(|origin| match origin {
            HostPattern::Name(name) => Some(name.clone()),
            // A wildcard has no addresses of its own.
            HostPattern::Wildcard(_) | HostPattern::Address(_) | HostPattern::Network(_) => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
