//! Ports that plugins listen on, and the connections that arrive there.

use std::time::Instant;

use outrigger_manifest::HostService;
use outrigger_transport::OwnedTask;
use outrigger_wire::proto::host::Incoming;
use tonic::Status;

use super::account::Account;
use super::egress::Egress;
use super::listen::{self, Arrival, Arrivals, Bound, Waiting};
use crate::fault::Fault;
use crate::operation::Operation;
use crate::rate::Sampler;
use crate::running::Caller;

/// A connection that arrives at a port.
pub(super) const INCOMING: Operation = Operation::new(HostService::Network, "incoming").on_lease();

/// Connections turned away at one port that leave a record each, per second;
/// the next record counts the others: a stranger must not be able to fill the
/// audit log.
const TURNED_AWAY_RECORDS: u64 = 10;

/// A port that a plugin listens on: closed when this is dropped.
pub(super) struct Listening {
    egress: Egress,
    port: u16,
    arrivals: Arrivals,
    /// Ends, as cancelled, with the call: that is how listening ends.
    account: Account,
    turned_away: Sampler,
}

impl Listening {
    pub(super) fn new(egress: Egress, bound: Bound, account: Account) -> Self {
        Self {
            egress,
            port: bound.address.port(),
            arrivals: Arrivals::new(bound),
            account,
            turned_away: Sampler::new(TURNED_AWAY_RECORDS, Instant::now()),
        }
    }

    /// The next connection that the plugin may take.
    pub(super) async fn next(&mut self) -> Incoming {
        loop {
            let arrival = self.arrivals.next(&self.egress).await;
            let more = match arrival {
                Arrival::TurnedAway { .. } => self.turned_away.sample(Instant::now()),
                Arrival::Named { .. } | Arrival::Expired { .. } => Some(0),
            };
            let Some(more) = more else {
                tracing::debug!(port = self.port, ?arrival, "a connection is turned away");
                continue;
            };
            let recorded = record_arrival(&self.egress, self.port, &arrival, more);
            let Arrival::Named { lease, remote, .. } = arrival else {
                continue;
            };
            if recorded.is_err() {
                // Too many operations per second: no connection comes in unrecorded.
                drop(self.egress.session().give_back::<Waiting>(&lease));
                continue;
            }
            self.expire(lease.clone());
            return Incoming {
                connection: lease,
                remote_address: remote.to_string(),
            };
        }
    }

    /// Sees to it that a connection does not wait for ever, also while the plugin
    /// takes no names.
    fn expire(&mut self, lease: String) {
        let (egress, port, named) = (self.egress.clone(), self.port, lease.clone());
        let expiry = OwnedTask::spawn(async move {
            if let Some(remote) = listen::unclaimed(&egress, &named).await {
                let _ = record_arrival(&egress, port, &Arrival::Expired { remote }, 0);
            }
        });
        self.arrivals.wait(lease, expiry);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let session = self.egress.session();
        let more = self.turned_away.rest() + self.arrivals.close(session);
        session.recorder().left_out(INCOMING, more, |shown| {
            shown.number("port", self.port);
        });
        // The plugin ends listening by giving the call up: nothing went wrong.
        self.account.end();
    }
}

/// The record of a connection that arrived at a port, and of as many `more`
/// that were turned away without one.
fn record_arrival(egress: &Egress, port: u16, arrival: &Arrival, more: u64) -> Result<(), Status> {
    let (remote, why, rule) = match arrival {
        Arrival::Named { remote, rule, .. } => (remote, None, Some(rule)),
        Arrival::TurnedAway { remote, why } => (remote, Some(why), None),
        Arrival::Expired { remote } => (remote, None, None),
    };
    let caller = Caller::default();
    let running = egress.session().begin_call(INCOMING, &caller, |shown| {
        shown.number("port", port).shown("from", remote);
        shown.number("more", more);
    })?;
    match (why, rule) {
        (Some(why), _) => running.end(Some(why)),
        (None, Some(rule)) => {
            running.allowed_by(rule);
            running.end(None);
        }
        (None, None) => {
            let text = "the plugin did not take it in time (`unclaimed_timeout`)";
            let fault = Fault::failed_as("unclaimed", tonic::Code::DeadlineExceeded, text);
            running.end(Some(&fault));
        }
    }
    Ok(())
}
