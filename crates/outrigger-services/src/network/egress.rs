//! The one way to a foreign address, in an order that may not change: read the
//! name strictly, match it, only then resolve it, judge every address, dial one
//! that was judged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrigger_manifest::{Grants, Host, Protocol};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::deadline::after;
use super::dial::{self, Dialer};
use super::failure;
use super::resolve::Resolver;
use super::rules;
use super::settings::{NetworkLimits, NetworkSettings};
use super::tls::Tls;
use crate::fault::Fault;
use crate::progress::Progress;

/// What all plugins of one host share on their way out.
#[derive(Debug)]
pub(crate) struct Egress {
    resolver: Arc<dyn Resolver>,
    dialer: Arc<dyn Dialer>,
    pub(crate) tls: Tls,
    pub(crate) limits: NetworkLimits,
}

/// Where a plugin wants to, in its own words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) host: &'a str,
    pub(crate) port: u32,
}

/// A name or address that may be dialled, and where.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) host: Host,
    /// Every one was judged; never empty.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A connection to an address that was judged.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) host: Host,
    /// The address that was judged and dialled.
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What one plugin may use of the egress at a time.
#[derive(Clone, Debug)]
pub(crate) struct Lookups(Arc<Semaphore>);

impl Lookups {
    pub(crate) fn new(limits: &NetworkLimits) -> Self {
        Self(Arc::new(Semaphore::new(limits.lookups.max(1))))
    }
}

impl Egress {
    pub(crate) fn new(settings: &NetworkSettings) -> Self {
        Self {
            resolver: settings.resolver.clone(),
            dialer: settings.dialer.clone(),
            tls: Tls::new(settings.roots.clone()),
            limits: settings.limits.clone(),
        }
    }

    /// Whether a place may be dialled, and at which addresses. No query leaves
    /// unless a grant covers the name, as `progress` then say.
    pub(crate) async fn judge(
        &self,
        grants: &Grants,
        lookups: &Lookups,
        wanted: Destination<'_>,
        allowed: Allowance,
        progress: &Progress,
    ) -> Result<Judged, Fault> {
        let host = rules::host(wanted.host)?;
        let (protocol, port) = (wanted.protocol, rules::port(wanted.port)?);
        progress.allowed_by(&rules::egress(grants, protocol, &host, port)?);
        let found = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolve(lookups, name.as_str(), allowed).await?,
        };
        let mut addresses = Vec::new();
        let mut dropped = Vec::new();
        for address in found {
            match rules::dialable(grants, protocol, &host, address, port) {
                Ok(address) => {
                    let address = SocketAddr::new(address, port);
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Err(denial) => dropped.push(denial),
            }
        }
        match (addresses.is_empty(), dropped.into_iter().next()) {
            (true, Some(denial)) => return Err(denial.into()),
            (false, Some(denial)) => {
                tracing::info!(%denial, "an address of a granted name is left out");
            }
            (_, None) => {}
        }
        Ok(Judged { host, addresses })
    }

    /// A connection to `host` at `port`, if the grants cover it; `progress` say so.
    ///
    /// # Cancel safety
    /// Dropping the future gives everything up, except that a query in hand
    /// keeps its place among this plugin's until the resolver is done with it.
    pub(crate) async fn connect(
        &self,
        grants: &Grants,
        lookups: &Lookups,
        host: &str,
        port: u32,
        allowed: Allowance,
        progress: &Progress,
    ) -> Result<Dialled, Fault> {
        let allowed = allowed.or_sooner("connect_timeout", self.limits.connect_timeout);
        let protocol = Protocol::Tcp;
        let wanted = Destination {
            protocol,
            host,
            port,
        };
        let judged = self
            .judge(grants, lookups, wanted, allowed, progress)
            .await?;
        let dialling = async {
            let dialled = dial::first(&*self.dialer, &judged.addresses).await;
            dialled.map_err(|error| failure::io(&error))
        };
        let (stream, remote) = allowed.within(dialling).await?;
        progress.allowed_by(&format!("dialled {remote}"));
        Ok(Dialled {
            local: stream.local_addr().map_err(|error| failure::io(&error))?,
            stream,
            host: judged.host,
            remote,
        })
    }

    /// A socket for datagrams to and from `host` at `port`, and the address it
    /// leads to, if the grants cover it; `progress` say so.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_udp(
        &self,
        grants: &Grants,
        lookups: &Lookups,
        host: &str,
        port: u32,
        allowed: Allowance,
        progress: &Progress,
    ) -> Result<(UdpSocket, SocketAddr), Fault> {
        let allowed = allowed.or_sooner("connect_timeout", self.limits.connect_timeout);
        let protocol = Protocol::Udp;
        let wanted = Destination {
            protocol,
            host,
            port,
        };
        let judged = self
            .judge(grants, lookups, wanted, allowed, progress)
            .await?;
        let dialling = dial::first_udp(&*self.dialer, &judged.addresses);
        let (socket, remote) = allowed.within(dialling).await?;
        progress.allowed_by(&format!("dialled {remote}"));
        Ok((socket, remote))
    }

    /// The addresses of a name that was matched already.
    pub(crate) async fn resolve(
        &self,
        lookups: &Lookups,
        name: &str,
        allowed: Allowance,
    ) -> Result<Vec<IpAddr>, Fault> {
        let allowed = allowed.or_sooner("resolve_timeout", self.limits.resolve_timeout);
        let place = async {
            let place = lookups.0.clone().acquire_owned().await;
            place.map_err(|_| failure::broken("the host is closing"))
        };
        let place = allowed.within(place).await?;
        let (resolver, asked) = (self.resolver.clone(), name.to_owned());
        // Nobody can stop the system's resolver: the task ends when it does, and
        // its place, of which a plugin has few, bounds how many there are.
        let lookup = tokio::spawn(async move {
            let _place = place;
            resolver.resolve(&asked).await
        });
        let found = async {
            match lookup.await {
                Ok(Ok(found)) if !found.is_empty() => Ok(found),
                Ok(Ok(_)) => Err(failure::unresolved(name)),
                Ok(Err(error)) => {
                    tracing::debug!(%name, %error, "a name does not resolve");
                    Err(failure::unresolved(name))
                }
                Err(_) => Err(failure::broken("the resolver failed")),
            }
        };
        let mut found = allowed.within(found).await?;
        found.truncate(self.limits.answers.max(1));
        Ok(found)
    }
}

/// How long something may take as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) until: Instant,
    limit: Duration,
    setting: &'static str,
}

impl Allowance {
    /// From now on: what the plugin asked for, in milliseconds, or else the
    /// host's `setting`; never more than `most`.
    pub(crate) fn new(asked: u64, usual: Duration, setting: &'static str, most: Duration) -> Self {
        let (wanted, setting) = match asked {
            0 => (usual, setting),
            asked => (Duration::from_millis(asked), "timeout_ms"),
        };
        let limit = wanted.min(most);
        Self {
            until: after(Instant::now(), limit),
            limit,
            setting,
        }
    }

    /// What to say when it was not enough.
    pub(crate) fn late(&self) -> Fault {
        failure::late(self.setting, self.limit)
    }

    /// This one, or `setting` where that ends sooner.
    fn or_sooner(self, setting: &'static str, limit: Duration) -> Self {
        let until = after(Instant::now(), limit);
        match until < self.until {
            true => Self {
                until,
                limit,
                setting,
            },
            false => self,
        }
    }

    /// The outcome of `work`, in time.
    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match timeout_at(self.until, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.late()),
        }
    }
}
