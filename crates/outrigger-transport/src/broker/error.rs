//! What can go wrong between two sides of a broker.

use std::fmt;
use std::time::Duration;

use outrigger_wire::{AddressError, BrokerId};

use crate::connect_error::ConnectError;
use crate::sockets::SocketError;
use crate::tls::TlsError;
use crate::yamux::YamuxError;

/// One side of a plugin connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process that launched the plugin.
    Host,
    /// The plugin.
    Plugin,
    /// Whichever side this process is.
    This,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host",
            Self::Plugin => "the plugin",
            Self::This => "this side",
        })
    }
}

/// A brokered connection that did not come about: who wanted which id, and why not.
#[derive(Debug, thiserror::Error)]
#[error("{side} could not open broker id {id}", id = id.0)]
pub struct BrokerError {
    side: Side,
    id: BrokerId,
    #[source]
    kind: BrokerErrorKind,
}

impl BrokerError {
    pub(crate) fn new(side: Side, id: BrokerId, kind: BrokerErrorKind) -> Self {
        Self { side, id, kind }
    }

    /// The side that reports the error.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The id that was accepted or dialled.
    pub fn id(&self) -> BrokerId {
        self.id
    }

    /// What happened.
    pub fn kind(&self) -> &BrokerErrorKind {
        &self.kind
    }

    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match &self.kind {
            BrokerErrorKind::Closed => "broker-closed",
            BrokerErrorKind::Missing => "broker-missing",
            BrokerErrorKind::NotConnected(_) => "broker-not-connected",
            BrokerErrorKind::NeverAccepted(_) => "broker-id-never-accepted",
            BrokerErrorKind::Expired { .. } => "broker-id-expired",
            BrokerErrorKind::AlreadyDialled => "broker-id-already-dialled",
            BrokerErrorKind::AlreadyAccepted => "broker-id-already-accepted",
            BrokerErrorKind::TooManyListeners(_) => "broker-too-many-listeners",
            BrokerErrorKind::Refused(_) => "broker-id-refused",
            BrokerErrorKind::Unacknowledged => "broker-id-unacknowledged",
            BrokerErrorKind::WrongAck { .. } => "broker-wrong-acknowledgement",
            BrokerErrorKind::Address(_) | BrokerErrorKind::Untranslatable(_) => {
                "broker-address-unusable"
            }
            BrokerErrorKind::Unreachable { .. } => "broker-peer-unreachable",
            BrokerErrorKind::Listen(error) => error.code(),
            BrokerErrorKind::Accept(_) => "broker-accept-failed",
            BrokerErrorKind::Tls(error) => error.code(),
            BrokerErrorKind::Session(error) => error.code(),
            BrokerErrorKind::Connect(error) => error.code(),
        }
    }
}

outrigger_wire::coded!(BrokerError);

impl From<BrokerError> for tonic::Status {
    fn from(error: BrokerError) -> Self {
        let mut status = tonic::Status::unavailable(format!("{error}: {}", error.kind));
        status.set_source(std::sync::Arc::new(error));
        status
    }
}

/// Why a brokered connection did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// The control stream or the whole connection is over.
    #[error("the broker is closed")]
    Closed,
    /// The peer is a plugin without a broker.
    #[error("the other side has no broker: it does not serve `plugin.GRPCBroker`")]
    Missing,
    /// The peer has not opened the control stream.
    #[error("the peer did not open its broker stream within {} s", .0.as_secs_f64())]
    NotConnected(Duration),
    /// The accepting side never announced the id.
    #[error("waited {} s and the other side did not accept it; no listener was announced", .0.as_secs_f64())]
    NeverAccepted(Duration),
    /// The announcement came, but too long before the dial.
    #[error("the other side accepted it, but more than {} s before it was dialled", .kept.as_secs_f64())]
    Expired {
        /// How long announcements are kept.
        kept: Duration,
    },
    /// One announcement serves one dial.
    #[error("it was dialled before; an id serves one connection")]
    AlreadyDialled,
    /// This side accepts the id already.
    #[error("this side accepts it already")]
    AlreadyAccepted,
    /// Too many ids are accepted at the same time.
    #[error("{0} ids are accepted already")]
    TooManyListeners(usize),
    /// The accepting side answered that it does not accept the id.
    #[error("the other side refused it: {0}")]
    Refused(String),
    /// The accepting side closed the stream instead of acknowledging the id.
    #[error(
        "the other side closed the stream without acknowledging the id; it accepted it too late or not at all"
    )]
    Unacknowledged,
    /// The accepting side acknowledged another id.
    #[error("the other side acknowledged id {got} instead")]
    WrongAck {
        /// What it acknowledged.
        got: u32,
    },
    /// The announced address is unusable.
    #[error("the announced address is unusable")]
    Address(#[source] AddressError),
    /// The runner could not translate the address.
    #[error("the address could not be translated: {0}")]
    Untranslatable(String),
    /// Nothing listens at the announced address.
    #[error("could not connect to the announced address {address}")]
    Unreachable {
        /// Where the other side said that it listens.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// This side could not listen.
    #[error("could not listen")]
    Listen(#[source] SocketError),
    /// The listening socket failed.
    #[error("could not accept a connection")]
    Accept(#[source] std::io::Error),
    /// TLS failed.
    #[error("could not agree on TLS")]
    Tls(#[source] TlsError),
    /// The multiplexed connection failed.
    #[error("the multiplexed connection failed")]
    Session(#[source] YamuxError),
    /// gRPC could not be started.
    #[error("could not start gRPC")]
    Connect(#[source] ConnectError),
}
