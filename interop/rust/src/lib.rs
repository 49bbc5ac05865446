//! What the peers of the interop matrix and of the benchmarks share. What is an example
//! for a reader, too, they have from `outrigger-examples`.

pub mod netrpc;
pub mod proto;
pub mod test_mode;
pub mod tls;

use outrigger_host::{MagicCookie, ServiceSet, grpc_interface};
use tonic::{Request, Response, Status};

use proto::bench::bench_client::BenchClient;
use proto::grpctest::ping_pong_server::{PingPong, PingPongServer};
use proto::grpctest::test_client::TestClient;
use proto::grpctest::{PingRequest, PongResponse};

/// The cookie of the benchmark plugin.
pub fn bench_cookie() -> MagicCookie {
    MagicCookie::new("OUTRIGGER_BENCH", "bench")
}

/// The cookie of the interop peer.
pub fn peer_cookie() -> MagicCookie {
    MagicCookie::new("TEST_MAGIC_COOKIE", "test")
}

grpc_interface! {
    /// The interop peer.
    pub Test => TestClient, "test"
}
grpc_interface! {
    /// The benchmark plugin.
    pub Bench => BenchClient, "bench"
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
