//! One connection, many calls: what one of them does must not hurt the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::proto::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use outrigger_transport::{
    Broker, BrokerId, BrokerOptions, Channel, ChannelOptions, GrpcBroker, OwnedTask, ServeLimits,
    ServiceSet, Side, Stream, health, serve_connection, yamux,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::plugin::StdioData;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(10);

/// A stream of messages of `size` bytes without an end; an empty one panics.
struct Endless {
    size: usize,
}

#[tonic::async_trait]
impl GrpcStdio for Endless {
    type StreamStdioStream = BoxStream<'static, Result<StdioData, Status>>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        let data = Bytes::from(vec![7; self.size]);
        let messages = stream::repeat_with(move || {
            assert!(!data.is_empty(), "this body panics on purpose");
            Ok(StdioData {
                channel: 1,
                data: data.clone(),
            })
        });
        Ok(Response::new(messages.boxed()))
    }
}

fn serve(stream: Stream, services: ServiceSet) -> OwnedTask {
    let limits = ServeLimits::default();
    OwnedTask::spawn(serve_connection(
        stream,
        services,
        limits,
        CancellationToken::new(),
    ))
}

async fn connected(services: ServiceSet) -> (Channel, OwnedTask) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = serve(Box::new(far), services);
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    (channel.expect("connected"), server)
}

async fn is_well(channel: &Channel) -> Result<(), Status> {
    let mut client = HealthClient::new(channel.clone());
    let request = HealthCheckRequest {
        service: health::SERVICE_NAME.into(),
    };
    let answer = tokio::time::timeout(LIMIT, client.check(request)).await;
    answer
        .map_err(|_| Status::deadline_exceeded("no answer"))?
        .map(|_| ())
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_hold_up_other_calls() {
    for size in [1, 1000, 100_000] {
        let endless = GrpcStdioServer::new(Endless { size });
        let services = ServiceSet::new().with(health::service()).with(endless);
        let (channel, _server) = connected(services).await;
        let mut unread = Vec::new();
        for _ in 0..8 {
            let mut client = GrpcStdioClient::new(channel.clone());
            let mut stream = client.stream_stdio(()).await.expect("begun").into_inner();
            stream
                .message()
                .await
                .expect("a message")
                .expect("a message");
            unread.push(stream);
        }
        // Each answer gives the streams another turn to fill their windows.
        for _ in 0..500 {
            is_well(&channel).await.expect("well");
        }
    }
}

#[tokio::test]
async fn a_panic_in_the_body_of_a_reply_ends_that_call_alone() {
    let endless = GrpcStdioServer::new(Endless { size: 0 });
    let services = ServiceSet::new().with(health::service()).with(endless);
    let (channel, _server) = connected(services).await;
    let mut client = GrpcStdioClient::new(channel.clone());
    let call = async { client.stream_stdio(()).await?.into_inner().message().await };
    let failed = tokio::time::timeout(LIMIT, call).await.expect("in time");
    assert!(failed.is_err(), "{failed:?}");
    is_well(&channel).await.expect("well");
}

/// A service set that tells which id was dialled: by the length of its messages.
fn numbered(size: usize) -> ServiceSet {
    ServiceSet::new().with(GrpcStdioServer::new(Endless { size }))
}

async fn number_behind(channel: Channel) -> usize {
    let mut client = GrpcStdioClient::new(channel);
    let mut stream = client.stream_stdio(()).await.expect("begun").into_inner();
    let message = stream.message().await.expect("a message");
    message.expect("a message").data.len()
}

struct Pair {
    host: GrpcBroker,
    plugin: Arc<GrpcBroker>,
    _tasks: Vec<OwnedTask>,
}

/// A host's and a plugin's multiplexed broker, with their control stream.
async fn multiplexed() -> Pair {
    let (near, far) = tokio::io::duplex(1 << 16);
    let near = yamux::Session::new(near, yamux::Role::Client, yamux::Config::default());
    let far = yamux::Session::new(far, yamux::Role::Server, yamux::Config::default());
    let plugin = GrpcBroker::multiplexed(BrokerOptions::new(Side::Plugin), far);
    let plugin = Arc::new(plugin);
    let services = ServiceSet::new()
        .with(health::service())
        .with(plugin.service());
    let main = plugin.clone();
    let serving = OwnedTask::spawn(async move {
        let mut connections = Vec::new();
        while let Ok(stream) = main.next_unclaimed().await {
            connections.push(serve(stream, services.clone()));
        }
    });
    let stream = near.open().await.expect("a stream");
    let channel = Channel::connect(Box::new(stream), ChannelOptions::default()).await;
    let host = GrpcBroker::multiplexed(BrokerOptions::new(Side::Host), near);
    let control = host.open_control(channel.expect("connected"));
    Pair {
        host,
        plugin,
        _tasks: vec![serving, control],
    }
}

#[tokio::test]
async fn a_dial_that_is_given_up_does_not_shift_the_next_ones() {
    let pair = multiplexed().await;
    for (from, to) in [
        (&pair.host as &dyn Broker, &*pair.plugin as &dyn Broker),
        (&*pair.plugin as &dyn Broker, &pair.host as &dyn Broker),
    ] {
        for round in 0..20_usize {
            let (first, second) = (to.next_id(), to.next_id());
            to.serve(first, numbered(1)).await.expect("served").detach();
            to.serve(second, numbered(2))
                .await
                .expect("served")
                .detach();
            // Given up at a different step in each round.
            let mut given_up = Box::pin(from.dial(first));
            for _ in 0..round {
                if (&mut given_up).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(given_up);
            let channel = from.connect(second).await.expect("connected");
            assert_eq!(number_behind(channel).await, 2, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_stream_without_a_knock_is_not_taken_for_a_later_one() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let near = yamux::Session::new(near, yamux::Role::Client, yamux::Config::default());
    let far = yamux::Session::new(far, yamux::Role::Server, yamux::Config::default());
    let host = GrpcBroker::multiplexed(BrokerOptions::new(Side::Host), near);
    let mut uninvited = far.open().await.expect("opened");
    let _listener = host.accept(BrokerId(1)).await.expect("accepted");
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut uninvited, &mut byte);
    let read = tokio::time::timeout(LIMIT, read).await.expect("in time");
    assert!(!matches!(read, Ok(1..)), "{read:?}");
}
