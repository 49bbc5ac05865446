//! The plain mode: every brokered connection has a socket of its own.

use outrigger_wire::{BrokerId, BrokerMessage};

use super::inbox::Arrival;
use super::listener::{Listener, Source};
use super::shared::Shared;
use super::{BrokerError, BrokerErrorKind, Side};
use crate::stream::{self, Stream};

/// Listens at a socket of its own and tells the peer where.
pub(super) async fn accept(shared: &Shared, id: BrokerId) -> Result<Listener, BrokerError> {
    if shared.closed.is_cancelled() {
        return Err(shared.error(id, BrokerErrorKind::Closed));
    }
    let bound = shared.options.sockets.bind().await;
    let bound = bound.map_err(|error| shared.error(id, BrokerErrorKind::Listen(error)))?;
    let address = bound.address().clone();
    let address = match shared.options.side {
        Side::Host => shared.options.translator.host_to_plugin(address),
        Side::Plugin | Side::This => Ok(address),
    };
    let address =
        address.map_err(|text| shared.error(id, BrokerErrorKind::Untranslatable(text)))?;
    let announced = shared.send(BrokerMessage::ConnInfo {
        id,
        address: Ok(address),
    });
    match announced.await {
        // As in go-plugin, what is accepted is no less offered: who cannot
        // dial it may well not want to.
        Ok(()) | Err(BrokerErrorKind::Missing) => {}
        Err(kind) => return Err(shared.error(id, kind)),
    }
    Ok(shared.listener(id, Source::Socket(bound)))
}

/// Connects to the socket that the peer told of.
pub(super) async fn dial(shared: &Shared, id: BrokerId) -> Result<Stream, BrokerError> {
    let arrival = tokio::select! {
        () = shared.closed.cancelled() => Err(BrokerErrorKind::Closed),
        missing = shared.known_missing() => Err(missing),
        arrival = shared.inbox.take(id, shared.options.wait) => arrival,
    };
    let address = match arrival.map_err(|kind| shared.error(id, kind))? {
        Arrival::Address(address) => address,
        Arrival::Ack(_) => {
            let text = "it knocks, but this connection is not multiplexed".to_owned();
            return Err(shared.error(id, BrokerErrorKind::Refused(text)));
        }
    };
    let address = address.map_err(|error| shared.error(id, BrokerErrorKind::Address(error)))?;
    let address = match shared.options.side {
        Side::Host => shared.options.translator.plugin_to_host(address),
        Side::Plugin | Side::This => Ok(address),
    };
    let address =
        address.map_err(|text| shared.error(id, BrokerErrorKind::Untranslatable(text)))?;
    let connecting = tokio::time::timeout(shared.options.wait, stream::connect(&address));
    let connected = connecting.await.unwrap_or_else(|late| Err(late.into()));
    connected.map_err(|source| {
        let address = address.to_string();
        shared.error(id, BrokerErrorKind::Unreachable { address, source })
    })
}
