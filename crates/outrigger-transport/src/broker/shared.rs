//! What all parts of one broker share.

use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_wire::proto::plugin::ConnInfo;
use outrigger_wire::{BrokerId, BrokerMessage};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::listener::{Listener, Source};
use super::mux::Mux;
use super::{BrokerError, BrokerErrorKind, BrokerOptions};
#[cfg(feature = "netrpc")]
use crate::netrpc;
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

    pub(super) fn listener(&self, id: BrokerId, source: Source) -> Listener {
        let options = &self.options;
        let security = options.security.clone();
        Listener::new(id, options.side, self.closed.clone(), security, source)
    }
}
