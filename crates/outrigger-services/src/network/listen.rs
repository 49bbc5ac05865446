//! A port that a plugin listens on: the host binds it, turns away whoever no
//! grant lets in, and names the others to the plugin, which takes them or not.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_manifest::{Grants, Protocol};
use outrigger_transport::OwnedTask;
use tokio::net::{TcpListener, TcpStream};

use super::egress::{Egress, Lookups};
use super::failure;
use super::origins::Origins;
use super::rules;
use crate::fault::Fault;
use crate::leases::Lease;
use crate::progress::Progress;
use crate::session::Session;

/// How long accepting pauses when the system has nothing left to accept with.
const BREATH: Duration = Duration::from_millis(100);

/// The code of a plugin that does not keep up.
const CODE: &str = "backlog-full";

/// A port that was granted and bound.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
    origins: Origins,
}

/// A connection from a granted origin that waits for the plugin.
#[derive(Debug)]
pub(crate) struct Waiting {
    stream: Mutex<Option<TcpStream>>,
    pub(crate) remote: SocketAddr,
    /// The grant that let it in, for the audit.
    pub(crate) rule: String,
}

impl Lease for Waiting {}

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
    egress: &Egress,
    grants: &Grants,
    lookups: &Lookups,
    address: &str,
    port: u32,
    progress: &Progress,
) -> Result<Bound, Fault> {
    let address = asked(grants, Protocol::Tcp, address, port, progress)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| failure::io(&error))?;
    let origins = Origins::of(egress, grants, lookups, Protocol::Tcp, address.port()).await;
    Ok(Bound {
        address: listener.local_addr().map_err(|error| failure::io(&error))?,
        listener,
        origins,
    })
}

/// Where a plugin wants to be reached, if the grants cover it.
pub(crate) fn asked(
    grants: &Grants,
    protocol: Protocol,
    address: &str,
    port: u32,
    progress: &Progress,
) -> Result<SocketAddr, Fault> {
    let port = rules::port(port)?;
    let address = match address {
        "" => IpAddr::from([127, 0, 0, 1]),
        text => text
            .parse::<IpAddr>()
            .map_err(|_| Fault::abuse("the address to listen on is not an IP address"))?,
    };
    progress.allowed_by(&rules::ingress(grants, protocol, port)?);
    Ok(SocketAddr::new(address, port))
}

/// The connections of one port, and those that wait.
pub(crate) struct Arrivals {
    bound: Bound,
    /// Those who can only be let in by what is being looked up.
    asking: VecDeque<(TcpStream, SocketAddr)>,
    /// Those who wait for the plugin, and what gives them up.
    waiting: Vec<(String, OwnedTask)>,
}

impl Arrivals {
    pub(crate) fn new(bound: Bound) -> Self {
        Self {
            bound,
            asking: VecDeque::new(),
            waiting: Vec::new(),
        }
    }

    /// What happens next.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped, except a connection that just
    /// arrived, which is closed.
    pub(crate) async fn next(
        &mut self,
        egress: &Arc<Egress>,
        grants: &Grants,
        lookups: &Lookups,
        session: &Arc<Session>,
    ) -> Arrival {
        loop {
            if !self.bound.origins.is_looking_up()
                && let Some((stream, remote)) = self.asking.pop_front()
            {
                let rule = self.bound.origins.judge_now(grants, remote.ip());
                return self.judged(rule, egress, session, stream, remote);
            }
            tokio::select! {
                accepted = self.bound.listener.accept() => match accepted {
                    Ok((stream, remote)) => {
                        let arrival = self.arrived(egress, grants, lookups, session, stream, remote);
                        if let Some(arrival) = arrival {
                            return arrival;
                        }
                    }
                    // A connection that broke before it was taken is none; when
                    // descriptors run out, others need a moment to give some back.
                    Err(error) => {
                        tracing::debug!(%error, "accepting a connection failed");
                        tokio::time::sleep(BREATH).await;
                    }
                },
                () = self.bound.origins.looked_up() => {}
            }
        }
    }

    /// What becomes of a connection, unless that depends on names that are being
    /// looked up. Nobody else waits for these.
    fn arrived(
        &mut self,
        egress: &Arc<Egress>,
        grants: &Grants,
        lookups: &Lookups,
        session: &Arc<Session>,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Option<Arrival> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let rule = self
            .bound
            .origins
            .judge(egress, grants, lookups, remote.ip());
        if let Some(rule) = rule {
            return Some(self.judged(rule, egress, session, stream, remote));
        }
        if self.asking.len() >= egress.limits.backlog {
            let text = "too many wait for the allowed origins to resolve (`backlog`)";
            let why = Fault::exhausted(CODE, text);
            return Some(Arrival::TurnedAway { remote, why });
        }
        self.asking.push_back((stream, remote));
        None
    }

    /// Names a connection to the plugin where `rule` lets it in.
    fn judged(
        &mut self,
        rule: Result<String, Fault>,
        egress: &Egress,
        session: &Arc<Session>,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Arrival {
        let turned_away = |why| Arrival::TurnedAway { remote, why };
        let rule = match rule {
            Ok(rule) => rule,
            Err(why) => return turned_away(why),
        };
        self.waiting
            .retain(|(lease, _)| session.lease::<Waiting>(lease).is_ok());
        if self.waiting.len() >= egress.limits.backlog {
            let text = "the plugin takes no connections (`backlog`)";
            return turned_away(Fault::exhausted(CODE, text));
        }
        let slot = match session.slot() {
            Ok(slot) => slot,
            Err(fault) => return turned_away(fault),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return turned_away(failure::io(&error));
        }
        let waiting = Waiting {
            stream: Mutex::new(Some(stream)),
            remote,
            rule: rule.clone(),
        };
        let (lease, _) = session.lend(slot, waiting);
        Arrival::Named {
            lease,
            remote,
            rule,
        }
    }

    /// Progress that a connection waits for the plugin until `expiry` gives it up.
    pub(crate) fn wait(&mut self, lease: String, expiry: OwnedTask) {
        self.waiting.push((lease, expiry));
    }

    /// Closes the connections that nobody took, and says how many of them no
    /// record tells of: those that were not judged yet.
    pub(crate) fn close(&mut self, session: &Session) -> u64 {
        for (lease, _) in self.waiting.drain(..) {
            // Those that were taken have another owner now.
            drop(session.give_back::<Waiting>(&lease));
        }
        self.asking.drain(..).count() as u64
    }
}

/// Gives a connection up that the plugin has not taken in time, and says whose
/// it was.
pub(crate) async fn unclaimed(
    egress: &Egress,
    session: &Session,
    lease: &str,
) -> Option<SocketAddr> {
    tokio::time::sleep(egress.limits.unclaimed_timeout).await;
    let unclaimed = session.give_back::<Waiting>(lease).ok()?;
    Some(unclaimed.remote)
}
