//! Who may reach the plugin at a port: addresses and networks as they are, names
//! by the addresses that they lead to now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_manifest::{Grants, HostName, Protocol};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::egress::{Allowance, Egress, Lookups};
use super::rules;
use crate::fault::Fault;

/// The origins that are allowed at one port.
#[derive(Debug)]
pub(crate) struct Origins {
    protocol: Protocol,
    port: u16,
    /// The names among them.
    names: Vec<HostName>,
    found: Found,
    refreshed: Instant,
    /// Looks the names up again; empty when their addresses are not in question.
    lookup: JoinSet<Found>,
}

/// The addresses that names stand for.
type Found = HashMap<IpAddr, Vec<HostName>>;

impl Origins {
    /// Looks up what is named in the grants for a port.
    pub(crate) async fn of(
        egress: &Egress,
        grants: &Grants,
        lookups: &Lookups,
        protocol: Protocol,
        port: u16,
    ) -> Self {
        let names = rules::named_origins(grants, protocol, port);
        Self {
            protocol,
            port,
            found: look_up(egress, lookups, &names).await,
            names,
            refreshed: Instant::now(),
            lookup: JoinSet::new(),
        }
    }

    /// Whether what comes from `origin` may reach the plugin, and which grant says
    /// so; nothing where that depends on names that are being looked up.
    pub(crate) fn judge(
        &mut self,
        egress: &Arc<Egress>,
        grants: &Grants,
        lookups: &Lookups,
        origin: IpAddr,
    ) -> Option<Result<String, Fault>> {
        let by_address = rules::origin(grants, self.protocol, self.port, origin, &[]);
        if by_address.is_ok() || self.names.is_empty() {
            return Some(by_address);
        }
        let stale = self.refreshed.elapsed() >= egress.limits.origin_refresh;
        if stale && !self.is_looking_up() {
            let (egress, lookups) = (egress.clone(), lookups.clone());
            let names = self.names.clone();
            self.lookup
                .spawn(async move { look_up(&egress, &lookups, &names).await });
        }
        (!self.is_looking_up()).then(|| self.judge_now(grants, origin))
    }

    /// As [`judge`](Self::judge), by what is known now.
    pub(crate) fn judge_now(&self, grants: &Grants, origin: IpAddr) -> Result<String, Fault> {
        let names = self.found.get(&origin).map_or(&[][..], Vec::as_slice);
        rules::origin(grants, self.protocol, self.port, origin, names)
    }

    /// Whether names are being looked up.
    pub(crate) fn is_looking_up(&self) -> bool {
        !self.lookup.is_empty()
    }

    /// Waits until the names that are being looked up are known: for ever where
    /// none are.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn looked_up(&mut self) {
        match self.lookup.join_next().await {
            None => std::future::pending().await,
            Some(found) => {
                self.found = found.unwrap_or_default();
                self.refreshed = Instant::now();
            }
        }
    }
}

/// Looks the names among the origins up, all together within
/// `resolve_timeout`. One that does not resolve now lets nobody in until it does.
async fn look_up(egress: &Egress, lookups: &Lookups, names: &[HostName]) -> Found {
    let limit = egress.limits.resolve_timeout;
    let allowed = Allowance::new(0, limit, "resolve_timeout", limit);
    let answers = names
        .iter()
        .map(|name| egress.resolve(lookups, name.as_str(), allowed));
    let answers = futures_util::future::join_all(answers).await;
    let mut found = Found::new();
    for (name, answer) in names.iter().zip(answers) {
        match answer {
            Ok(addresses) => {
                for address in addresses {
                    let names = found.entry(address.to_canonical()).or_default();
                    names.push(name.clone());
                }
            }
            Err(why) => {
                tracing::warn!(%name, why = %why.reason(), "an allowed origin does not resolve");
            }
        }
    }
    found
}
