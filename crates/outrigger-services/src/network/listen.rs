//! A port that a plugin listens on: the host binds it, turns away whoever no
//! grant lets in, and names the others to the plugin, which takes them or not.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_manifest::{Grants, HostName};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::door::{Allowance, Door, Lookups};
use super::rules;
use super::trouble;
use crate::fault::Fault;
use crate::session::{Notes, Session};

/// How long accepting pauses when the system has nothing left to accept with.
const BREATH: Duration = Duration::from_millis(100);

/// The code of a plugin that does not keep up.
const CODE: &str = "backlog-full";

/// A port that was granted and bound.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    /// The names among the origins.
    names: Vec<HostName>,
    /// The addresses that these stand for.
    found: HashMap<IpAddr, Vec<HostName>>,
    refreshed: Instant,
}

/// A connection from a granted origin that waits for the plugin.
#[derive(Debug)]
pub(crate) struct Waiting {
    stream: Mutex<Option<TcpStream>>,
    pub(crate) remote: SocketAddr,
    /// The grant that let it in, for the audit.
    pub(crate) rule: String,
}

impl Waiting {
    /// The connection, for whoever comes first.
    pub(crate) fn take(&self) -> Result<TcpStream, Fault> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.take().ok_or(Fault::UnknownLease)
    }
}

/// What happened at a port.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// From a granted origin: it waits under this name.
    Named {
        lease: String,
        remote: SocketAddr,
        rule: String,
    },
    /// Turned away, and why.
    TurnedAway { remote: SocketAddr, why: Fault },
    /// The plugin did not take it in time.
    Expired { remote: SocketAddr },
}

/// Binds `port` at `address`, if the grants cover it.
pub(crate) async fn bind(
    door: &Door,
    grants: &Grants,
    lookups: &Lookups,
    address: &str,
    port: u32,
    notes: &Notes,
) -> Result<Bound, Fault> {
    let port = rules::port(port)?;
    let address = match address {
        "" => IpAddr::from([127, 0, 0, 1]),
        text => text
            .parse::<IpAddr>()
            .map_err(|_| Fault::abuse("the address to listen on is not an IP address"))?,
    };
    notes.allowed_by(&rules::ingress(grants, port)?);
    let listener = TcpListener::bind((address, port)).await;
    let listener = listener.map_err(|error| trouble::io(&error))?;
    let address = listener.local_addr().map_err(|error| trouble::io(&error))?;
    let mut bound = Bound {
        listener,
        address,
        names: rules::named_origins(grants, port),
        found: HashMap::new(),
        refreshed: Instant::now(),
    };
    bound.refresh(door, lookups).await;
    Ok(bound)
}

impl Bound {
    /// Looks the names among the origins up. One that does not resolve now lets
    /// nobody in until it does.
    async fn refresh(&mut self, door: &Door, lookups: &Lookups) {
        let mut found: HashMap<IpAddr, Vec<HostName>> = HashMap::new();
        for name in &self.names {
            let limit = door.limits.resolve_timeout;
            let allowed = Allowance::new(0, limit, "resolve_timeout", limit);
            match door.resolve(lookups, name.as_str(), allowed).await {
                Ok(addresses) => {
                    for address in addresses {
                        found
                            .entry(address.to_canonical())
                            .or_default()
                            .push(name.clone());
                    }
                }
                Err(why) => {
                    tracing::warn!(%name, why = %why.reason(), "an allowed origin does not resolve");
                }
            }
        }
        self.found = found;
        self.refreshed = Instant::now();
    }
}

/// The connections of one port, and those that wait.
pub(crate) struct Arrivals {
    bound: Bound,
    waiting: VecDeque<(Instant, String)>,
}

impl Arrivals {
    pub(crate) fn new(bound: Bound) -> Self {
        Self {
            bound,
            waiting: VecDeque::new(),
        }
    }

    /// What happens next.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped, except a connection that just
    /// arrived, which is closed.
    pub(crate) async fn next(
        &mut self,
        door: &Door,
        grants: &Grants,
        lookups: &Lookups,
        session: &Arc<Session>,
    ) -> Arrival {
        loop {
            let oldest = self.waiting.front().map(|(expires, _)| *expires);
            tokio::select! {
                accepted = self.bound.listener.accept() => match accepted {
                    Ok((stream, remote)) => {
                        return self.arrived(door, grants, lookups, session, stream, remote).await;
                    }
                    // A connection that broke before it was taken is none; when
                    // descriptors run out, others need a moment to give some back.
                    Err(error) => {
                        tracing::debug!(%error, "accepting a connection failed");
                        tokio::time::sleep(BREATH).await;
                    }
                },
                () = sleep_until(oldest) => {
                    if let Some((_, lease)) = self.waiting.pop_front()
                        && let Ok(unclaimed) = session.give_back::<Waiting>(&lease)
                    {
                        return Arrival::Expired { remote: unclaimed.remote };
                    }
                }
            }
        }
    }

    async fn arrived(
        &mut self,
        door: &Door,
        grants: &Grants,
        lookups: &Lookups,
        session: &Arc<Session>,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Arrival {
        let origin = remote.ip().to_canonical();
        let remote = SocketAddr::new(origin, remote.port());
        let stale = self.bound.refreshed.elapsed() >= door.limits.origin_refresh;
        if stale && !self.bound.names.is_empty() {
            self.bound.refresh(door, lookups).await;
        }
        let port = self.bound.address.port();
        let turned_away = |why| Arrival::TurnedAway { remote, why };
        let names = self.bound.found.get(&origin).map_or(&[][..], Vec::as_slice);
        let rule = match rules::origin(grants, port, origin, names) {
            Ok(rule) => rule,
            Err(why) => return turned_away(why),
        };
        self.waiting
            .retain(|(_, lease)| session.lease::<Waiting>(lease).is_ok());
        if self.waiting.len() >= door.limits.backlog {
            let text = "the plugin takes no connections (`backlog`)";
            return turned_away(Fault::exhausted(CODE, text));
        }
        let slot = match session.slot() {
            Ok(slot) => slot,
            Err(fault) => return turned_away(fault),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return turned_away(trouble::io(&error));
        }
        let waiting = Waiting {
            stream: Mutex::new(Some(stream)),
            remote,
            rule: rule.clone(),
        };
        let (lease, _) = session.lend(slot, waiting);
        let expires = Instant::now() + door.limits.unclaimed_timeout;
        self.waiting.push_back((expires, lease.clone()));
        Arrival::Named {
            lease,
            remote,
            rule,
        }
    }

    /// Closes the connections that nobody took.
    pub(crate) fn close(&mut self, session: &Session) {
        for (_, lease) in self.waiting.drain(..) {
            // Those that were taken have another owner now.
            drop(session.give_back::<Waiting>(&lease));
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
