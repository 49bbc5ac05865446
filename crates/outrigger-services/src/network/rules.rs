//! The questions of this service to the grants, which alone have the answers.

use std::net::{IpAddr, Ipv4Addr};

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
pub(crate) fn egress(grants: &Grants, host: &Host, port: u16) -> Result<String, Fault> {
    let grant = grants.network().egress(Protocol::Tcp, host, port)?;
    Ok(grant.rule().to_string())
}

/// Whether one of the addresses of `host`, which is granted, may be dialled, and
/// as which.
pub(crate) fn dialable(
    grants: &Grants,
    host: &Host,
    address: IpAddr,
    port: u16,
) -> Result<IpAddr, Denial> {
    let address = address.to_canonical();
    let network = grants.network();
    network.resolved(Protocol::Tcp, host, port, address)?;
    // What the policy says about an IPv4 address counts however it is reached.
    if let (Host::Name(_), Some(inner)) = (host, carried(address)) {
        network.resolved(Protocol::Tcp, host, port, inner.into())?;
    }
    Ok(address)
}

/// The IPv4 address that an IPv6 address leads to: by NAT64, 6to4 or Teredo.
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        _ => None,
    }
}

/// Whether the plugin may listen on `port`, and which grant says so.
pub(crate) fn ingress(grants: &Grants, port: u16) -> Result<String, Fault> {
    let grant = grants.network().ingress(Protocol::Tcp, port)?;
    Ok(grant.rule().to_string())
}

/// Whether a connection from `address` may reach the plugin at `port`; `names`
/// are those that lead to that address.
pub(crate) fn origin(
    grants: &Grants,
    port: u16,
    address: IpAddr,
    names: &[HostName],
) -> Result<String, Fault> {
    let network = grants.network();
    let grant = network.ingress_origin(Protocol::Tcp, port, address, names)?;
    Ok(grant.rule().to_string())
}

/// Who may reach the plugin at `port`, as far as they are names.
pub(crate) fn named_origins(grants: &Grants, port: u16) -> Vec<HostName> {
    let origins = grants.network().origins(Protocol::Tcp, port);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_inside_an_address_is_found() {
        for (outer, inner) in [
            ("64:ff9b::808:404", Some("8.8.4.4")),
            ("2002:808:404::1", Some("8.8.4.4")),
            ("2001:0:1:2:3:4:f7f7:fbfb", Some("8.8.4.4")),
            ("2600::1", None),
            ("8.8.8.8", None),
        ] {
            let inner = inner.map(|inner| inner.parse().unwrap());
            assert_eq!(carried(outer.parse().unwrap()), inner, "{outer}");
        }
    }
}
