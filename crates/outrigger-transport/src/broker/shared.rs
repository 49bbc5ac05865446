//! What all parts of one broker share, and the plain mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{Stream as Incoming, StreamExt};
use outrigger_wire::proto::plugin::ConnInfo;
use outrigger_wire::{BrokerId, BrokerMessage, RawConnInfo};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::inbox::{Arrival, Inbox};
use super::listener::{Listener, Source};
use super::mux::{self, Mux};
use super::{BrokerError, BrokerErrorKind, BrokerOptions, Side};
#[cfg(feature = "netrpc")]
use crate::netrpc;
use crate::stream::{self, Stream};
use crate::yamux;

/// The state of the control stream.
#[derive(Clone, Debug)]
pub(super) enum Control {
    /// The host has not opened it yet.
    Waiting,
    /// Messages go here.
    Open(mpsc::Sender<ConnInfo>),
    /// The peer has no broker: it hears of no id, and accepts none.
    Missing,
    /// It ended for good.
    Closed,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: BrokerOptions,
    pub(super) control: watch::Sender<Control>,
    pub(super) inbox: Inbox,
    pub(super) mux: Option<Mux>,
    pub(super) closed: CancellationToken,
    #[cfg(feature = "netrpc")]
    pub(super) budget: netrpc::Budget,
    next: AtomicU32,
}

impl Shared {
    pub(super) fn new(options: BrokerOptions, session: Option<yamux::Session>) -> Self {
        Self {
            options,
            control: watch::Sender::new(Control::Waiting),
            inbox: Inbox::default(),
            mux: session.map(Mux::new),
            closed: CancellationToken::new(),
            #[cfg(feature = "netrpc")]
            budget: netrpc::Budget::default(),
            next: AtomicU32::new(0),
        }
    }

    pub(super) fn next_id(&self) -> BrokerId {
        BrokerId(self.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    pub(super) fn error(&self, id: BrokerId, kind: BrokerErrorKind) -> BrokerError {
        BrokerError::new(self.options.side, id, kind)
    }

    /// Sends through `sender` from now on.
    pub(super) fn attach(&self, sender: mpsc::Sender<ConnInfo>) -> Result<(), ()> {
        let attached = self.control.send_if_modified(|control| {
            let open = !matches!(control, Control::Closed);
            if open {
                *control = Control::Open(sender);
            }
            open
        });
        if attached { Ok(()) } else { Err(()) }
    }

    /// Notes that the peer has no broker, unless this side closed it meanwhile.
    pub(super) fn missing(&self) {
        self.control.send_if_modified(|control| {
            let open = !matches!(control, Control::Closed);
            if open {
                *control = Control::Missing;
            }
            open
        });
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.control.borrow(), Control::Missing)
    }

    /// Waits until it is known that the peer has no broker.
    pub(super) async fn known_missing(&self) -> BrokerErrorKind {
        let mut control = self.control.subscribe();
        let missing = control.wait_for(|control| matches!(control, Control::Missing));
        match missing.await {
            Ok(_) => BrokerErrorKind::Missing,
            Err(_) => BrokerErrorKind::Closed,
        }
    }

    pub(super) fn close(&self) {
        self.control.send_replace(Control::Closed);
        self.closed.cancel();
    }

    /// Sends one message to the peer, waiting for the control stream if need be.
    pub(super) async fn send(&self, message: BrokerMessage) -> Result<(), BrokerErrorKind> {
        let message = ConnInfo::from(message.to_raw());
        let mut control = self.control.subscribe();
        let sending = async {
            let ready = control
                .wait_for(|control| !matches!(control, Control::Waiting))
                .await
                .map_err(|_| BrokerErrorKind::Closed)?
                .clone();
            match ready {
                Control::Open(sender) => sender
                    .send(message)
                    .await
                    .map_err(|_| BrokerErrorKind::Closed),
                Control::Missing => Err(BrokerErrorKind::Missing),
                Control::Waiting | Control::Closed => Err(BrokerErrorKind::Closed),
            }
        };
        tokio::time::timeout(self.options.wait, sending)
            .await
            .unwrap_or(Err(BrokerErrorKind::NotConnected(self.options.wait)))
    }

    /// Takes the peer's messages until the control stream ends; gives the status
    /// that it ended with, if that was no good one.
    pub(super) async fn receive(
        self: Arc<Self>,
        incoming: impl Incoming<Item = Result<ConnInfo, Status>> + Send,
    ) -> Result<(), Status> {
        let mut incoming = std::pin::pin!(incoming);
        loop {
            let message = tokio::select! {
                () = self.closed.cancelled() => return Ok(()),
                message = incoming.next() => message,
            };
            match message {
                Some(Ok(message)) => {
                    self.route(BrokerMessage::from(RawConnInfo::from(message)))
                        .await
                }
                Some(Err(status)) => return Err(status),
                None => return Ok(()),
            }
        }
    }

    async fn route(self: &Arc<Self>, message: BrokerMessage) {
        match message {
            BrokerMessage::ConnInfo { id, address } => {
                self.inbox.put(id, Arrival::Address(address));
            }
            BrokerMessage::KnockAck { id, error } => {
                let armed = error.is_none();
                if !self.inbox.answer(id, Arrival::Ack(error))
                    && armed
                    && let Some(mux) = &self.mux
                {
                    mux::acknowledged_too_late(mux).await;
                }
            }
            BrokerMessage::Knock { id } => match &self.mux {
                Some(mux) => mux::knocked(self, mux, id).await,
                None => tracing::debug!(id = id.0, "knock on a broker without multiplexing"),
            },
        }
    }

    pub(super) async fn accept_plain(
        self: &Arc<Self>,
        id: BrokerId,
    ) -> Result<Listener, BrokerError> {
        if self.closed.is_cancelled() {
            return Err(self.error(id, BrokerErrorKind::Closed));
        }
        let bound = self.options.sockets.bind().await;
        let bound = bound.map_err(|error| self.error(id, BrokerErrorKind::Listen(error)))?;
        let address = bound.address().clone();
        let address = match self.options.side {
            Side::Host => self.options.translator.host_to_plugin(address),
            Side::Plugin | Side::This => Ok(address),
        };
        let address =
            address.map_err(|text| self.error(id, BrokerErrorKind::Untranslatable(text)))?;
        let announced = self.send(BrokerMessage::ConnInfo {
            id,
            address: Ok(address),
        });
        match announced.await {
            // As in go-plugin, what is accepted is no less offered: who cannot
            // dial it may well not want to.
            Ok(()) | Err(BrokerErrorKind::Missing) => {}
            Err(kind) => return Err(self.error(id, kind)),
        }
        Ok(self.listener(id, Source::Socket(bound)))
    }

    pub(super) fn listener(&self, id: BrokerId, source: Source) -> Listener {
        let options = &self.options;
        let security = options.security.clone();
        Listener::new(id, options.side, self.closed.clone(), security, source)
    }

    pub(super) async fn dial_plain(&self, id: BrokerId) -> Result<Stream, BrokerError> {
        let arrival = tokio::select! {
            () = self.closed.cancelled() => Err(BrokerErrorKind::Closed),
            missing = self.known_missing() => Err(missing),
            arrival = self.inbox.take(id, self.options.wait) => arrival,
        };
        let address = match arrival.map_err(|kind| self.error(id, kind))? {
            Arrival::Address(address) => address,
            Arrival::Ack(_) => {
                let text = "it knocks, but this connection is not multiplexed".to_owned();
                return Err(self.error(id, BrokerErrorKind::Refused(text)));
            }
        };
        let address = address.map_err(|error| self.error(id, BrokerErrorKind::Address(error)))?;
        let address = match self.options.side {
            Side::Host => self.options.translator.plugin_to_host(address),
            Side::Plugin | Side::This => Ok(address),
        };
        let address =
            address.map_err(|text| self.error(id, BrokerErrorKind::Untranslatable(text)))?;
        let connecting = tokio::time::timeout(self.options.wait, stream::connect(&address));
        let connected = connecting.await.unwrap_or_else(|late| Err(late.into()));
        connected.map_err(|source| {
            let address = address.to_string();
            self.error(id, BrokerErrorKind::Unreachable { address, source })
        })
    }
}
