//! Further connections between a host and its plugin, in both directions.
//!
//! One side *accepts* a [`BrokerId`], tells the other side the number in one of
//! its calls, and the other side *dials* it. How the connection comes about is
//! the broker's business: [`GrpcBroker`] announces sockets (plain) or opens
//! streams of the one connection that exists already (multiplexed), and net/rpc's
//! `MuxBroker` always does the latter.

mod control;
mod error;
mod inbox;
mod knock;
pub(crate) mod listener;
mod mux;
mod plain;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use outrigger_wire::proto::plugin::ConnInfo;
use outrigger_wire::{Address, BrokerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

pub use self::error::{BrokerError, BrokerErrorKind, Side};
pub use self::listener::{Listener, Serving};
use self::shared::{Control, Shared};
use crate::channel::{Channel, ChannelOptions};
use crate::fate::Fate;
#[cfg(feature = "netrpc")]
use crate::netrpc;
use crate::proto::plugin::grpc_broker_client::GrpcBrokerClient;
use crate::proto::plugin::grpc_broker_server::{GrpcBroker as BrokerService, GrpcBrokerServer};
use crate::server::{MAX_VALUE, ServeLimits, ServiceSet};
use crate::sockets::Sockets;
use crate::stream::Stream;
use crate::task::OwnedTask;
use crate::tls::Security;
use crate::yamux;

/// Broker messages that wait to be sent.
const CONTROL_QUEUE: usize = 32;

/// What one brokered connection may ask for; its other end is less trusted than
/// the one that launched it.
pub(crate) const SERVED_LIMITS: ServeLimits = ServeLimits {
    concurrent_calls: 128,
    handshake: Duration::from_secs(20),
    drain: Duration::from_millis(200),
    max_value: MAX_VALUE,
};

/// Opens further connections to the peer, in both directions.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use outrigger_transport::{Broker, BrokerError, ServiceSet, health};
///
/// // The accepting side picks the id and sends it to its peer in a call.
/// async fn offer(broker: Arc<dyn Broker>) -> Result<u32, BrokerError> {
///     let id = broker.next_id();
///     broker.serve(id, ServiceSet::new().with(health::service())).await?.detach();
///     Ok(id.0)
/// }
/// ```
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug {
    /// A number that this side has not used before.
    fn next_id(&self) -> BrokerId;

    /// Starts to accept connections for `id`. A peer [without a
    /// broker](Self::is_missing) hears nothing of it, which is no error: it may
    /// not need what is offered.
    ///
    /// # Errors
    /// The broker is closed, `id` is accepted already, or no listener could be made.
    ///
    /// # Cancel safety
    /// When the future is dropped nothing is accepted.
    async fn accept(&self, id: BrokerId) -> Result<Listener, BrokerError>;

    /// Opens one connection to what the peer accepts under `id`.
    ///
    /// # Errors
    /// The peer does not accept `id` within the broker's wait, refuses it, cannot
    /// be reached, or has no broker; the broker is closed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt; dial a new id afterwards.
    async fn dial(&self, id: BrokerId) -> Result<Stream, BrokerError>;

    /// Where the end of the peer is explained.
    fn fate(&self) -> Fate;

    /// Whether the peer has said that it has no broker: then it reaches nothing
    /// that is accepted here. A gRPC plugin says so soon after it was connected.
    fn is_missing(&self) -> bool {
        false
    }

    /// What net/rpc values on this broker's connections may take, all together.
    #[cfg(feature = "netrpc")]
    fn budget(&self) -> netrpc::Budget {
        netrpc::Budget::default()
    }

    /// Ends every listener and refuses further work.
    fn close(&self);
}

impl dyn Broker + '_ {
    /// Serves `services` on every connection that the peer makes to `id`, until
    /// the returned value is dropped or the broker closes.
    ///
    /// # Errors
    /// As [`Broker::accept`].
    pub async fn serve(&self, id: BrokerId, services: ServiceSet) -> Result<Serving, BrokerError> {
        let listener = self.accept(id).await?;
        Ok(Serving::start(listener, services, SERVED_LIMITS))
    }

    /// Dials `id` and starts gRPC on the connection.
    ///
    /// # Errors
    /// As [`Broker::dial`], and when the peer does not speak HTTP/2.
    pub async fn connect(&self, id: BrokerId) -> Result<Channel, BrokerError> {
        let stream = self.dial(id).await?;
        let options = ChannelOptions {
            fate: self.fate(),
            await_peer: false,
            ..ChannelOptions::default()
        };
        Channel::connect(stream, options)
            .await
            .map_err(|error| BrokerError::new(Side::This, id, BrokerErrorKind::Connect(error)))
    }
}

/// Rewrites addresses between the places where host and plugin live, such as
/// the inside and outside of a container.
pub trait AddressTranslator: Send + Sync + fmt::Debug {
    /// An address that the plugin gave, as the host must dial it.
    ///
    /// # Errors
    /// A text for the log when the host cannot reach the address.
    fn plugin_to_host(&self, address: Address) -> Result<Address, String>;

    /// An address where the host listens, as the plugin must dial it.
    ///
    /// # Errors
    /// A text for the log when the plugin cannot reach the address.
    fn host_to_plugin(&self, address: Address) -> Result<Address, String>;
}

/// Host and plugin see the same addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameAddress;

impl AddressTranslator for SameAddress {
    fn plugin_to_host(&self, address: Address) -> Result<Address, String> {
        Ok(address)
    }

    fn host_to_plugin(&self, address: Address) -> Result<Address, String> {
        Ok(address)
    }
}

/// How a [`GrpcBroker`] listens, dials and waits.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Which side of the plugin connection this process is.
    pub side: Side,
    /// What protects brokered connections.
    pub security: Security,
    /// Where the plain broker listens.
    pub sockets: Sockets,
    /// Rewrites addresses; only a host has one that does something.
    pub translator: Arc<dyn AddressTranslator>,
    /// How long a dialler waits for the accepting side: 5 s in go-plugin.
    pub wait: Duration,
    /// Where the end of the peer is explained.
    pub fate: Fate,
}

impl BrokerOptions {
    /// go-plugin's defaults for one side.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            security: Security::None,
            sockets: Sockets::unix(None),
            translator: Arc::new(SameAddress),
            wait: Duration::from_secs(5),
            fate: Fate::new(),
        }
    }
}

/// go-plugin's gRPC broker, plain or multiplexed. Dropping it closes it.
#[derive(Debug)]
pub struct GrpcBroker {
    shared: Arc<Shared>,
    _acceptor: Option<OwnedTask>,
}

impl GrpcBroker {
    /// A broker that announces a socket for each accepted id.
    pub fn plain(options: BrokerOptions) -> Self {
        Self {
            shared: Arc::new(Shared::new(options, None)),
            _acceptor: None,
        }
    }

    /// A broker whose connections are streams of `session`.
    ///
    /// On the plugin's side somebody must keep calling
    /// [`next_unclaimed`](Self::next_unclaimed); it also hands brokered streams
    /// to their listeners.
    pub fn multiplexed(options: BrokerOptions, session: yamux::Session) -> Self {
        let side = options.side;
        let shared = Arc::new(Shared::new(options, Some(session)));
        let acceptor = matches!(side, Side::Host)
            .then(|| OwnedTask::spawn(knock::accept_armed(shared.clone())));
        Self {
            shared,
            _acceptor: acceptor,
        }
    }

    /// Opens the control stream to the plugin. The stream's headers are not
    /// awaited: Go servers send them with their first message.
    ///
    /// The returned task is the control stream; when it ends, the broker is
    /// closed for good, unless the plugin has none: then there is nothing to close.
    pub fn open_control(&self, channel: Channel) -> OwnedTask {
        let (sender, receiver) = control_channel();
        self.shared.control.send_replace(Control::Open(sender));
        let shared = self.shared.clone();
        OwnedTask::spawn(async move {
            let mut client = GrpcBrokerClient::new(channel);
            let ended = match client.start_stream(ReceiverStream::new(receiver)).await {
                Ok(incoming) => control::receive(shared.clone(), incoming.into_inner()).await,
                Err(status) => Err(status),
            };
            match ended {
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::debug!("the plugin has no broker");
                    shared.missing();
                }
                Err(status) => {
                    tracing::debug!(code = ?status.code(), "the broker stream ended");
                    shared.close();
                }
                Ok(()) => shared.close(),
            }
        })
    }

    /// The service that a plugin answers its host's control stream with. Each
    /// new stream replaces the one before, so that a host can attach again.
    pub fn service(self: &Arc<Self>) -> GrpcBrokerServer<impl BrokerService> {
        GrpcBrokerServer::new(ControlService(self.clone()))
    }

    /// The next stream that belongs to no listener: a connection to the
    /// plugin's own services. Only for a multiplexed broker.
    ///
    /// # Errors
    /// The session is over.
    ///
    /// # Cancel safety
    /// No stream is lost when the future is dropped.
    pub async fn next_unclaimed(&self) -> Result<Stream, yamux::YamuxError> {
        knock::next_unclaimed(&self.shared).await
    }
}

impl Drop for GrpcBroker {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[async_trait]
impl Broker for GrpcBroker {
    fn next_id(&self) -> BrokerId {
        self.shared.next_id()
    }

    async fn accept(&self, id: BrokerId) -> Result<Listener, BrokerError> {
        match &self.shared.mux {
            None => plain::accept(&self.shared, id).await,
            Some(mux) => knock::accept(&self.shared, mux, id).await,
        }
    }

    async fn dial(&self, id: BrokerId) -> Result<Stream, BrokerError> {
        let raw = match &self.shared.mux {
            None => plain::dial(&self.shared, id).await?,
            Some(_) => knock::dial(&self.shared, id).await?,
        };
        let options = &self.shared.options;
        options
            .security
            .connect(raw)
            .await
            .map_err(|error| self.shared.error(id, BrokerErrorKind::Tls(error)))
    }

    fn fate(&self) -> Fate {
        self.shared.options.fate.clone()
    }

    fn is_missing(&self) -> bool {
        self.shared.is_missing()
    }

    #[cfg(feature = "netrpc")]
    fn budget(&self) -> netrpc::Budget {
        self.shared.budget.clone()
    }

    fn close(&self) {
        self.shared.close();
    }
}

/// A bounded queue for broker messages to the peer.
fn control_channel() -> (mpsc::Sender<ConnInfo>, mpsc::Receiver<ConnInfo>) {
    mpsc::channel(CONTROL_QUEUE)
}

struct ControlService(Arc<GrpcBroker>);

#[async_trait]
impl BrokerService for ControlService {
    type StartStreamStream = futures_util::stream::BoxStream<'static, Result<ConnInfo, Status>>;

    async fn start_stream(
        &self,
        request: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        let (sender, receiver) = control_channel();
        let shared = self.0.shared.clone();
        shared
            .attach(sender)
            .map_err(|()| Status::unavailable("the broker is closed"))?;
        let incoming = control::receive(shared.clone(), request.into_inner());
        let receiving = OwnedTask::spawn(async move {
            if let Err(status) = incoming.await {
                tracing::debug!(code = ?status.code(), "the broker stream ended");
            }
        });
        let outgoing = ReceiverStream::new(receiver).map(move |message| {
            // The receiving half lives as long as the sending one.
            let _receiving = &receiving;
            Ok(message)
        });
        Ok(Response::new(outgoing.boxed()))
    }
}
