//! The main connection to a plugin, whichever protocol it speaks.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use outrigger_transport::netrpc::{
    Budget, CallError, CallErrorKind, HostSession, MirroredStreams, SessionError,
};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_controller_client::GrpcControllerClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::yamux::{self, YamuxError};
use outrigger_transport::{
    Broker, BrokerOptions, Channel, ChannelOptions, ConnectError, Fate, GrpcBroker, OwnedTask,
    Security, Stream, health,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::plugin::{Empty, stdio_data};
use tokio::io::AsyncReadExt;
use tonic::{Code, Status};

/// Bytes of printed output that are copied at a time.
const COPIED: usize = 8 << 10;

/// A connection that a launch has made, before the plugin runs as such.
pub(crate) enum Link {
    Grpc {
        channel: Channel,
        session: Option<yamux::Session>,
    },
    NetRpc {
        session: HostSession,
        output: MirroredStreams,
        fate: Fate,
    },
}

impl Link {
    pub(crate) async fn grpc(
        socket: Stream,
        mux: bool,
        security: &Security,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        if !mux {
            let channel = call_over(socket, security, limit).await?;
            return Ok(Self::Grpc {
                channel,
                session: None,
            });
        }
        let session = yamux::Session::new(socket, yamux::Role::Client, yamux::Config::default());
        let connected = match session.open().await {
            Ok(stream) => call_over(Box::new(stream), security, limit).await,
            Err(error) => Err(ConnectError::Mux(error)),
        };
        match connected {
            Ok(channel) => Ok(Self::Grpc {
                channel,
                session: Some(session),
            }),
            // What ended the session is what everything above it suffers from.
            Err(_) if session.is_closed() => {
                let reason = session.closed().await;
                Err(ConnectError::Mux(YamuxError::SessionClosed(reason)))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn netrpc(
        socket: Stream,
        security: &Security,
        max_value: usize,
        wait: Duration,
    ) -> Result<Self, ConnectError> {
        let stream = security.connect(socket).await?;
        let fate = Fate::new();
        let (session, output) =
            HostSession::start(stream, fate.clone(), Budget::new(max_value), wait)
                .await
                .map_err(ConnectError::Mux)?;
        Ok(Self::NetRpc {
            session,
            output,
            fate,
        })
    }

    pub(crate) fn fate(&self) -> Fate {
        match self {
            Self::Grpc { channel, .. } => channel.fate().clone(),
            Self::NetRpc { fate, .. } => fate.clone(),
        }
    }

    /// The connection in use, and the tasks that serve it.
    pub(crate) fn run(
        self,
        options: BrokerOptions,
        mirror: Mirror,
    ) -> (Connection, Vec<OwnedTask>) {
        match self {
            Self::Grpc { channel, session } => {
                let broker = Arc::new(match session.clone() {
                    Some(session) => GrpcBroker::multiplexed(options, session),
                    None => GrpcBroker::plain(options),
                });
                let tasks = vec![
                    broker.open_control(channel.clone()),
                    OwnedTask::spawn(mirror_chunks(channel.clone(), mirror)),
                ];
                let connection = Connection::Grpc {
                    channel,
                    broker,
                    session,
                };
                (connection, tasks)
            }
            Self::NetRpc {
                session, output, ..
            } => {
                let tasks = vec![
                    OwnedTask::spawn(mirror_stream(output.stdout, mirror.stdout)),
                    OwnedTask::spawn(mirror_stream(output.stderr, mirror.stderr)),
                ];
                (Connection::NetRpc(session), tasks)
            }
        }
    }
}

async fn call_over(
    stream: Stream,
    security: &Security,
    limit: Duration,
) -> Result<Channel, ConnectError> {
    let stream = security.connect(stream).await?;
    let options = ChannelOptions {
        connect_timeout: limit,
        ..ChannelOptions::default()
    };
    Channel::connect(stream, options).await
}

/// The main connection to a plugin.
#[derive(Clone, Debug)]
pub(crate) enum Connection {
    Grpc {
        channel: Channel,
        broker: Arc<GrpcBroker>,
        session: Option<yamux::Session>,
    },
    NetRpc(HostSession),
}

/// What came of asking a plugin to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It knows; whatever it answered says no more than that.
    Heard,
    /// It has no controller that could be asked.
    Unable,
}

/// A plugin that is not well, or did not say so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The health call failed.
    #[error("the plugin did not answer a ping")]
    Grpc(#[source] Status),
    /// The control call failed.
    #[error("the plugin did not answer a ping")]
    NetRpc(#[source] SessionError),
}

impl PingError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "ping-failed",
            Self::NetRpc(error) => error.code(),
        }
    }
}

impl Connection {
    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Grpc { broker, .. } => broker.clone(),
            Self::NetRpc(session) => session.broker(),
        }
    }

    /// Waits until the connection is over, and returns why.
    pub(crate) async fn closed(&self) -> String {
        match self {
            Self::Grpc { channel, .. } => {
                channel.closed().await;
                channel.end().unwrap_or("it ended").to_owned()
            }
            Self::NetRpc(session) => session.closed().await.to_string(),
        }
    }

    pub(crate) async fn ping(&self, limit: Duration) -> Result<(), PingError> {
        match self {
            Self::Grpc { channel, .. } => {
                let mut request = tonic::Request::new(HealthCheckRequest {
                    service: health::SERVICE_NAME.to_owned(),
                });
                request.set_timeout(limit);
                let answer = HealthClient::new(channel.clone()).check(request).await;
                answer.map(|_| ()).map_err(PingError::Grpc)
            }
            Self::NetRpc(session) => session.ping(limit).await.map_err(PingError::NetRpc),
        }
    }

    /// Asks the plugin to end, and waits for its answer or the end of the
    /// connection: Go's plugins hang up before their reply has left.
    pub(crate) async fn ask_to_end(&self) -> Asked {
        let able = match self {
            Self::Grpc {
                channel, broker, ..
            } => {
                broker.close();
                let mut controller = GrpcControllerClient::new(channel.clone());
                let answer = controller.shutdown(Empty {}).await;
                !matches!(answer, Err(status) if status.code() == Code::Unimplemented)
            }
            Self::NetRpc(session) => match session.quit().await {
                Err(SessionError::Call(error)) => !is_unknown_method(&error),
                _ => true,
            },
        };
        match able {
            true => Asked::Heard,
            false => Asked::Unable,
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        match self {
            Self::Grpc {
                channel, session, ..
            } => {
                channel.close();
                if let Some(session) = session {
                    session.close();
                }
            }
            Self::NetRpc(session) => session.close(),
        }
    }
}

/// Whether the plugin has no such method, in the words of Go's net/rpc.
fn is_unknown_method(error: &CallError) -> bool {
    matches!(error.kind(), CallErrorKind::Failed(text) if text.starts_with("rpc: can't find "))
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

/// Copies what a net/rpc plugin prints, until it is gone.
async fn mirror_stream(mut stream: Stream, mut copy: Option<Box<dyn Write + Send>>) {
    let mut bytes = vec![0; COPIED];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        copy_to(&mut copy, bytes.get(..read).unwrap_or_default());
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
