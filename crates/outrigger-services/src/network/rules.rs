//! The questions of this service to the grants, which alone have the answers.

use std::net::IpAddr;

use outrigger_manifest::{AddressClass, Grants, Host, Protocol, classify};

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
        _ => Err(Fault::abuse(format!(
            "{port} is not a port (1–65535)"
        ))),
    }
}
