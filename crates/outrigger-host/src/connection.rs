//! The main connection to a plugin, whichever protocol it speaks.

#[cfg(feature = "netrpc")]
mod netrpc;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "netrpc")]
use outrigger_transport::netrpc::SessionError;
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_controller_client::GrpcControllerClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::yamux::{self, YamuxError};
use outrigger_transport::{
    Broker, BrokerOptions, Channel, ChannelOptions, ConnectError, Connection, Fate, GrpcBroker,
    OwnedTask, Stream, connect, health,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::health::health_check_response::ServingStatus;
use outrigger_wire::proto::plugin::{Empty, stdio_data};
use outrigger_wire::{Address, Transport};
use tonic::{Code, Status};

/// How a plugin is reached.
pub(crate) struct Dial {
    pub(crate) address: Address,
    pub(crate) transport: Transport,
    /// Brokered connections are streams of the main one.
    pub(crate) mux: bool,
    /// How long connecting may take.
    pub(crate) limit: Duration,
    /// The largest net/rpc value.
    #[cfg_attr(not(feature = "netrpc"), expect(dead_code))]
    pub(crate) max_value: usize,
    /// What protects all connections, and how brokered ones are made.
    pub(crate) broker: BrokerOptions,
}

impl Dial {
    /// Connects, and returns with the connection the tasks that serve it.
    pub(crate) async fn connect(
        self,
        mirror: Mirror,
    ) -> Result<(Arc<Link>, Vec<OwnedTask>), ConnectError> {
        let limit = self.limit;
        let connecting = async {
            let socket = connect(&self.address).await.map_err(|source| {
                let address = self.address.to_string();
                ConnectError::Socket { address, source }
            })?;
            match self.transport {
                Transport::Grpc => self.grpc(socket, mirror).await,
                #[cfg(feature = "netrpc")]
                Transport::NetRpc => self.netrpc(socket, mirror).await,
                #[cfg(not(feature = "netrpc"))]
                Transport::NetRpc => Err(ConnectError::NoNetRpc),
            }
        };
        let connected = tokio::time::timeout(limit, connecting).await;
        let (link, tasks) = connected.unwrap_or(Err(ConnectError::TimedOut(limit)))?;
        Ok((Arc::new(link), tasks))
    }

    async fn grpc(
        &self,
        socket: Stream,
        mirror: Mirror,
    ) -> Result<(Link, Vec<OwnedTask>), ConnectError> {
        let (channel, mux) = match self.mux {
            false => (self.call_over(socket).await?, None),
            true => {
                let (channel, session) = self.call_within(socket).await?;
                (channel, Some(session))
            }
        };
        let options = BrokerOptions {
            fate: channel.fate().clone(),
            ..self.broker.clone()
        };
        let broker = Arc::new(match mux.clone() {
            Some(session) => GrpcBroker::multiplexed(options, session),
            None => GrpcBroker::plain(options),
        });
        let tasks = vec![
            broker.open_control(channel.clone()),
            OwnedTask::spawn(mirror_chunks(channel.clone(), mirror)),
        ];
        let link = Link {
            fate: channel.fate().clone(),
            connection: Connection::Grpc(channel),
            broker,
            mux,
        };
        Ok((link, tasks))
    }

    async fn call_over(&self, stream: Stream) -> Result<Channel, ConnectError> {
        let stream = self.broker.security.connect(stream).await?;
        let options = ChannelOptions {
            connect_timeout: self.limit,
            ..ChannelOptions::default()
        };
        Channel::connect(stream, options).await
    }

    /// Calls over the first stream of a yamux session, which carries the brokered
    /// connections too.
    async fn call_within(&self, socket: Stream) -> Result<(Channel, yamux::Session), ConnectError> {
        let session = yamux::Session::new(socket, yamux::Role::Client, yamux::Config::default());
        let connected = match session.open().await {
            Ok(stream) => self.call_over(Box::new(stream)).await,
            Err(error) => Err(ConnectError::Mux(error)),
        };
        match connected {
            Ok(channel) => Ok((channel, session)),
            // What ended the session is what everything above it suffers from.
            Err(_) if session.is_closed() => {
                let reason = session.closed().await;
                Err(ConnectError::Mux(YamuxError::SessionClosed(reason)))
            }
            Err(error) => Err(error),
        }
    }
}

/// A connection with its broker.
pub(crate) struct Link {
    connection: Connection,
    broker: Arc<dyn Broker>,
    /// What carries a multiplexed gRPC connection.
    mux: Option<yamux::Session>,
    fate: Fate,
}

/// What came of asking a plugin to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It knows; whatever it answered says no more than that.
    Heard,
    /// It has no controller that could be asked.
    Unable,
}

/// What a plugin that answered says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes calls.
    Serving,
    /// It takes none now.
    NotServing,
    /// It does not say: it has no health service, or that does not know the name
    /// `plugin`.
    Unknown,
}

/// A plugin that is not well, or did not say so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The health call failed.
    #[error("the plugin did not answer a ping")]
    Grpc(#[source] Status),
    /// The control call failed.
    #[cfg(feature = "netrpc")]
    #[error("the plugin did not answer a ping")]
    NetRpc(#[source] SessionError),
}

impl PingError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "ping-failed",
            #[cfg(feature = "netrpc")]
            Self::NetRpc(error) => error.code(),
        }
    }
}

outrigger_wire::coded!(PingError);

impl Link {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.fate
    }

    /// Waits until the connection is over, and returns why.
    pub(crate) async fn closed(&self) -> String {
        match &self.connection {
            Connection::Grpc(channel) => {
                channel.closed().await;
                channel.end().unwrap_or("it ended").to_owned()
            }
            #[cfg(feature = "netrpc")]
            Connection::NetRpc(session) => session.closed().await.to_string(),
        }
    }

    pub(crate) async fn ping(&self, limit: Duration) -> Result<(), PingError> {
        self.status(limit).await.map(|_| ())
    }

    /// A plugin without a health service has answered all the same.
    pub(crate) async fn health(&self, limit: Duration) -> Result<Health, PingError> {
        match self.status(limit).await {
            Ok(ServingStatus::Serving) => Ok(Health::Serving),
            Ok(ServingStatus::NotServing) => Ok(Health::NotServing),
            Ok(ServingStatus::Unknown | ServingStatus::ServiceUnknown) => Ok(Health::Unknown),
            Err(PingError::Grpc(status))
                if matches!(status.code(), Code::Unimplemented | Code::NotFound) =>
            {
                Ok(Health::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    async fn status(&self, limit: Duration) -> Result<ServingStatus, PingError> {
        match &self.connection {
            Connection::Grpc(channel) => {
                let mut request = tonic::Request::new(HealthCheckRequest {
                    service: health::SERVICE_NAME.to_owned(),
                });
                request.set_timeout(limit);
                let answer = HealthClient::new(channel.clone()).check(request).await;
                let answer = answer.map_err(PingError::Grpc)?;
                Ok(answer.get_ref().status())
            }
            #[cfg(feature = "netrpc")]
            Connection::NetRpc(session) => {
                let answer = session.ping(limit).await;
                answer.map_err(PingError::NetRpc)?;
                Ok(ServingStatus::Serving)
            }
        }
    }

    /// Asks the plugin to end, and waits for its answer or the end of the
    /// connection: Go's plugins hang up before their reply has left.
    pub(crate) async fn ask_to_end(&self) -> Asked {
        let able = match &self.connection {
            Connection::Grpc(channel) => {
                self.broker.close();
                let mut controller = GrpcControllerClient::new(channel.clone());
                let answer = controller.shutdown(Empty {}).await;
                !matches!(answer, Err(status) if status.code() == Code::Unimplemented)
            }
            #[cfg(feature = "netrpc")]
            Connection::NetRpc(session) => netrpc::hears_quit(session).await,
        };
        match able {
            true => Asked::Heard,
            false => Asked::Unable,
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        match &self.connection {
            Connection::Grpc(channel) => channel.close(),
            #[cfg(feature = "netrpc")]
            Connection::NetRpc(session) => session.close(),
        }
        if let Some(session) = &self.mux {
            session.close();
        }
    }
}

/// Where mirrored output goes.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) stdout: Option<Box<dyn Write + Send>>,
    pub(crate) stderr: Option<Box<dyn Write + Send>>,
}

/// Copies what a gRPC plugin prints, until it is gone.
async fn mirror_chunks(channel: Channel, mut mirror: Mirror) {
    let mut client = GrpcStdioClient::new(channel);
    let mut chunks = match client.stream_stdio(()).await {
        Ok(chunks) => chunks.into_inner(),
        Err(status) => return end_of_mirror(&status),
    };
    loop {
        match chunks.message().await {
            Ok(Some(chunk)) => {
                let copy = match chunk.channel() {
                    stdio_data::Channel::Stdout => &mut mirror.stdout,
                    stdio_data::Channel::Stderr => &mut mirror.stderr,
                    stdio_data::Channel::Invalid => {
                        tracing::warn!(channel = chunk.channel, "output for an unknown channel");
                        continue;
                    }
                };
                copy_to(copy, &chunk.data);
            }
            Ok(None) => return,
            Err(status) => return end_of_mirror(&status),
        }
    }
}

fn copy_to(copy: &mut Option<Box<dyn Write + Send>>, bytes: &[u8]) {
    if let Some(copy) = copy
        && let Err(error) = copy.write_all(bytes).and_then(|()| copy.flush())
    {
        tracing::error!(%error, "could not copy what a plugin printed");
    }
}

fn end_of_mirror(status: &Status) {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unimplemented => {
            tracing::debug!(code = ?status.code(), "the plugin's output ended");
        }
        code => tracing::error!(?code, "the plugin's output failed"),
    }
}
