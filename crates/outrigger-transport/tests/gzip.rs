//! Messages compressed with gzip, both ways, and what bounds them.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::proto::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use outrigger_transport::{
    Channel, ChannelOptions, OwnedTask, SendGzip, ServeLimits, ServiceSet, health, serve_connection,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::plugin::StdioData;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(20);

/// Sends three messages, compressed where the request says so.
struct Streams;

fn messages() -> Vec<StdioData> {
    let texts: [Bytes; 3] = [
        Bytes::from_static(b"short"),
        b"all work and no play ".repeat(20_000).into(),
        Bytes::new(),
    ];
    let message = |data| StdioData { channel: 1, data };
    texts.map(message).into()
}

#[tonic::async_trait]
impl GrpcStdio for Streams {
    type StreamStdioStream = BoxStream<'static, Result<StdioData, Status>>;

    async fn stream_stdio(
        &self,
        request: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        let messages = tokio_stream::iter(messages().into_iter().map(Ok));
        let mut reply = Response::new(Box::pin(messages) as Self::StreamStdioStream);
        if request.metadata().contains_key("compress") {
            reply.extensions_mut().insert(SendGzip);
        }
        Ok(reply)
    }
}

fn serve(stream: DuplexStream) -> OwnedTask {
    let services = ServiceSet::new()
        .with(health::service())
        .with(GrpcStdioServer::new(Streams));
    let limits = ServeLimits::default();
    let stop = CancellationToken::new();
    OwnedTask::spawn(serve_connection(Box::new(stream), services, limits, stop))
}

type RawClient = h2::client::SendRequest<Bytes>;

async fn raw_client() -> (RawClient, [OwnedTask; 2]) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = serve(far);
    let (client, connection) = h2::client::handshake(near).await.expect("begun");
    let connection = OwnedTask::spawn(async move { drop(connection.await) });
    (client.ready().await.expect("ready"), [server, connection])
}

fn message(flag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a length");
    [&[flag], &length.to_be_bytes()[..], content].concat()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("compressed");
    encoder.finish().expect("compressed")
}

/// One call of a client that is not ours: the head of the reply, all data, the status.
async fn call(
    client: &RawClient,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (http::HeaderMap, Vec<u8>, Status) {
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let call = async {
        let request = request.body(()).expect("a request");
        let sent = client.clone().send_request(request, false);
        let (reply, mut stream) = sent.expect("sent");
        stream.send_data(body.into(), true).expect("sent");
        let (head, mut reply) = reply.await.expect("a reply").into_parts();
        let mut data = Vec::new();
        while let Some(piece) = reply.data().await {
            let piece = piece.expect("data");
            let released = reply.flow_control().release_capacity(piece.len());
            released.expect("released");
            data.extend(piece);
        }
        let trailers = reply.trailers().await.expect("trailers");
        let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers));
        (head.headers, data, status.expect("a status"))
    };
    tokio::time::timeout(LIMIT, call).await.expect("in time")
}

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A health check of the service `plugin`, after `padding` bytes that it ignores.
fn check(padding: usize) -> Vec<u8> {
    let mut content = Vec::new();
    if padding > 0 {
        content.push(15 << 3 | 2);
        prost::encoding::encode_varint(padding as u64, &mut content);
        content.extend(vec![0; padding]);
    }
    content.extend(b"\x0a\x06plugin");
    content
}

#[tokio::test]
async fn a_service_takes_compressed_messages_and_says_so() {
    let (client, _tasks) = raw_client().await;
    let gzipped = [("grpc-encoding", "gzip")];
    for padding in [0, 10, 1_000_000] {
        let body = message(1, &gzip(&check(padding)));
        let (head, data, status) = call(&client, CHECK, &gzipped, body).await;
        assert_eq!(status.code(), Code::Ok, "{status}");
        assert_eq!(data, message(0, &[8, 1]));
        assert_eq!(head["grpc-accept-encoding"], "gzip,identity");
        // It need not be compressed because it may be.
        let body = message(0, &check(padding));
        let (_, _, status) = call(&client, CHECK, &gzipped, body).await;
        assert_eq!(status.code(), Code::Ok, "{status}");
    }
}

#[tokio::test]
async fn an_unknown_encoding_is_unimplemented_and_the_reply_names_the_known_ones() {
    let (client, _tasks) = raw_client().await;
    for encoding in ["deflate", "snappy", "zstd", "GZIP", ""] {
        let body = message(1, &check(0));
        let (head, _, status) = call(&client, CHECK, &[("grpc-encoding", encoding)], body).await;
        assert_eq!(status.code(), Code::Unimplemented, "{encoding}: {status}");
        let accepted = head["grpc-accept-encoding"].to_str().expect("text");
        assert!(accepted.split(',').any(|name| name == "gzip"), "{accepted}");
    }
    let identity = [("grpc-encoding", "identity")];
    let (_, _, status) = call(&client, CHECK, &identity, message(0, &check(0))).await;
    assert_eq!(status.code(), Code::Ok, "{status}");
    let (_, _, status) = call(&client, CHECK, &[], message(1, &gzip(&check(0)))).await;
    assert_eq!(status.code(), Code::Internal, "{status}");
}

#[tokio::test]
async fn a_message_that_unpacks_to_more_than_the_service_decodes_fails_its_call_alone() {
    let (client, _tasks) = raw_client().await;
    let gzipped = [("grpc-encoding", "gzip")];
    let bomb = gzip(&check(100 << 20));
    assert!(bomb.len() < 110_000, "{} bytes", bomb.len());
    let (_, _, status) = call(&client, CHECK, &gzipped, message(1, &bomb)).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("limit is: 4194304"), "{status}");
    // The same, which says of itself that it is small.
    let mut lying = bomb;
    let end = lying.len() - 4;
    lying[end..].copy_from_slice(&1000_u32.to_le_bytes());
    let (_, _, status) = call(&client, CHECK, &gzipped, message(1, &lying)).await;
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(status.message().contains("longer than it says"), "{status}");
    let body = message(1, &gzip(&check(0)));
    let (_, _, status) = call(&client, CHECK, &gzipped, body).await;
    assert_eq!(status.code(), Code::Ok, "{status}");
}

#[tokio::test]
async fn what_is_sent_is_compressed_where_a_call_asks_for_it() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let _server = serve(far);
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    let channel = channel.expect("connected");
    for compress in [false, true] {
        let mut request = Request::new(HealthCheckRequest {
            service: health::SERVICE_NAME.into(),
        });
        if compress {
            request.extensions_mut().insert(SendGzip);
        }
        let answer = HealthClient::new(channel.clone()).check(request).await;
        answer.expect("well");
        let mut request = Request::new(());
        if compress {
            request.metadata_mut().insert("compress", 1.into());
        }
        let stream = GrpcStdioClient::new(channel.clone())
            .stream_stdio(request)
            .await;
        let mut stream = stream.expect("begun").into_inner();
        let mut received = Vec::new();
        while let Some(message) = stream.message().await.expect("a message") {
            received.push(message);
        }
        assert!(received == messages());
    }
    let (client, _tasks) = raw_client().await;
    let path = "/plugin.GRPCStdio/StreamStdio";
    for (accepted, packed) in [("", false), ("identity", false), ("deflate, gzip", true)] {
        let headers = [("compress", "1"), ("grpc-accept-encoding", accepted)];
        let (head, data, status) = call(&client, path, &headers, message(0, &[])).await;
        assert_eq!(status.code(), Code::Ok, "{status}");
        assert_eq!(head.contains_key("grpc-encoding"), packed, "{accepted}");
        assert_eq!(data.len() < 10_000, packed, "{} bytes", data.len());
    }
}
