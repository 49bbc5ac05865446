//! What the peer tells a broker on the control stream.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use outrigger_wire::proto::plugin::ConnInfo;
use outrigger_wire::{BrokerMessage, RawConnInfo};
use tonic::Status;

use super::inbox::Arrival;
use super::knock;
use super::shared::Shared;

/// Takes the peer's messages until the control stream ends; gives the status
/// that it ended with, if that was no good one.
pub(super) async fn receive(
    shared: Arc<Shared>,
    incoming: impl Stream<Item = Result<ConnInfo, Status>> + Send,
) -> Result<(), Status> {
    let mut incoming = std::pin::pin!(incoming);
    loop {
        let message = tokio::select! {
            () = shared.closed.cancelled() => return Ok(()),
            message = incoming.next() => message,
        };
        match message {
            Some(Ok(message)) => route(&shared, RawConnInfo::from(message).into()).await,
            Some(Err(status)) => return Err(status),
            None => return Ok(()),
        }
    }
}

async fn route(shared: &Arc<Shared>, message: BrokerMessage) {
    match message {
        BrokerMessage::ConnInfo { id, address } => {
            shared.inbox.put(id, Arrival::Address(address));
        }
        BrokerMessage::KnockAck { id, error } => {
            let armed = error.is_none();
            if !shared.inbox.answer(id, Arrival::Ack(error))
                && armed
                && let Some(mux) = &shared.mux
            {
                mux.acknowledged_too_late().await;
            }
        }
        BrokerMessage::Knock { id } => match &shared.mux {
            Some(mux) => knock::knocked(shared, mux, id).await,
            None => tracing::debug!(id = id.0, "knock on a broker without multiplexing"),
        },
    }
}
