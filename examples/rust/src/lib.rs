//! What the example plugins and their hosts share: the generated services, and
//! how a host makes clients of them.

pub mod hosted;
pub mod netrpc;
pub mod proto;
pub mod test_mode;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_host::{
    Broker, Channel, Interface, MagicCookie, ServiceSet, UnsupportedTransport, grpc_interface,
};

use proto::bench::bench_client::BenchClient;
use proto::counter::counter_client::CounterClient;
use proto::filelister::file_lister_client::FileListerClient;
use proto::grpctest::ping_pong_server::{PingPong, PingPongServer};
use proto::grpctest::test_client::TestClient;
use proto::grpctest::{PingRequest, PongResponse};
use proto::hostdemo::host_demo_client::HostDemoClient;
use proto::kv::kv_client::KvClient;
use proto::streaming::streamer_service_client::StreamerServiceClient;
use tonic::{Request, Response, Status};

/// The cookie of go-plugin's own examples.
pub fn basic_cookie() -> MagicCookie {
    MagicCookie::new("BASIC_PLUGIN", "hello")
}

/// The cookie of the host-services examples.
pub fn host_services_cookie() -> MagicCookie {
    MagicCookie::new("TEST_KEY", "TEST_VALUE")
}

/// The cookie of the benchmark plugin.
pub fn bench_cookie() -> MagicCookie {
    MagicCookie::new("OUTRIGGER_BENCH", "bench")
}

/// The cookie of the interop peer.
pub fn peer_cookie() -> MagicCookie {
    MagicCookie::new("TEST_MAGIC_COOKIE", "test")
}

/// The file in which the key/value store keeps a value.
///
/// # Errors
/// A key is a part of a file name, never a path.
pub fn kv_file(key: &str) -> Result<PathBuf, &'static str> {
    let name = format!("kv_{key}");
    match Path::new(&name).file_name() {
        Some(only) if only == name.as_str() && !key.is_empty() && !key.contains('\0') => {
            Ok(name.into())
        }
        _ => Err("a key is not empty and has no slash"),
    }
}

grpc_interface! {
    /// The key/value store.
    pub Kv => KvClient, "kv"
}
grpc_interface! {
    /// The streaming example.
    pub Streamer => StreamerServiceClient, "streamer"
}
grpc_interface! {
    /// A plugin that lists directories.
    pub FileLister => FileListerClient
}
grpc_interface! {
    /// A plugin that shows the host services at work.
    pub HostDemo => HostDemoClient
}
grpc_interface! {
    /// The interop peer.
    pub Test => TestClient, "test"
}
grpc_interface! {
    /// The benchmark plugin.
    pub Bench => BenchClient, "bench"
}

/// The counter, which calls its host back to add.
pub struct Counter;

/// A client of the counter with the broker that its calls need.
pub struct CounterWithBroker {
    /// The generated client.
    pub client: CounterClient<Channel>,
    /// Where the host offers its adder.
    pub broker: Arc<dyn Broker>,
}

impl Interface for Counter {
    type Client = CounterWithBroker;

    fn grpc(
        connection: Channel,
        broker: Arc<dyn Broker>,
    ) -> Result<Self::Client, UnsupportedTransport> {
        Ok(CounterWithBroker {
            client: CounterClient::new(connection),
            broker,
        })
    }
}

struct Pong;

#[tonic::async_trait]
impl PingPong for Pong {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        Ok(Response::new(PongResponse { msg: "pong".into() }))
    }
}

/// `grpctest.PingPong`, which both sides of the interop peer serve to each other.
pub fn ping_pong() -> ServiceSet {
    ServiceSet::new().with(PingPongServer::new(Pong))
}
