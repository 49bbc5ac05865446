//! Header lists of every size, both ways: one call's excess is that call's alone.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::plugin::grpc_stdio_client::GrpcStdioClient;
use outrigger_transport::proto::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use outrigger_transport::{
    Channel, ChannelOptions, OwnedTask, ServeLimits, ServiceSet, health, serve_connection,
};
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::plugin::StdioData;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// What the caller asks for in its metadata: how the call ends, and with how much.
struct Large;

fn asked(metadata: &MetadataMap, name: &str) -> usize {
    let value = metadata.get(name).and_then(|value| value.to_str().ok());
    value.map_or(0, |value| value.parse().expect("a number"))
}

fn filler(size: usize) -> MetadataValue<tonic::metadata::Ascii> {
    "m".repeat(size).parse().expect("a value")
}

#[tonic::async_trait]
impl GrpcStdio for Large {
    type StreamStdioStream = futures_util::stream::BoxStream<'static, Result<StdioData, Status>>;

    async fn stream_stdio(
        &self,
        request: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        let ask = request.metadata();
        let fails = |text: usize, details: usize| {
            let details = Bytes::from(vec![7; details]);
            Status::with_details(Code::FailedPrecondition, "x".repeat(text), details)
        };
        let (text, details) = (asked(ask, "text"), asked(ask, "details"));
        if text + details > 0 {
            return Err(fails(text, details));
        }
        let late = asked(ask, "late-text");
        let messages = tokio_stream::iter([Ok(StdioData::default()), Err(fails(late, 0))]);
        let mut reply = Response::new(Box::pin(messages) as Self::StreamStdioStream);
        let head = asked(ask, "head");
        if head > 0 {
            reply.metadata_mut().insert("head", filler(head));
        }
        for number in 0..asked(ask, "many") {
            reply
                .metadata_mut()
                .append("many", MetadataValue::from(number));
        }
        Ok(reply)
    }
}

fn services() -> ServiceSet {
    ServiceSet::new()
        .with(health::service())
        .with(GrpcStdioServer::new(Large))
}

fn serve(stream: DuplexStream) -> OwnedTask {
    let limits = ServeLimits::default();
    let stop = CancellationToken::new();
    OwnedTask::spawn(serve_connection(Box::new(stream), services(), limits, stop))
}

async fn connected() -> (Channel, OwnedTask) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = serve(far);
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    (channel.expect("connected"), server)
}

async fn is_well(channel: &Channel) -> Result<(), Status> {
    let mut client = HealthClient::new(channel.clone());
    let service = health::SERVICE_NAME.into();
    let answer = client.check(HealthCheckRequest { service });
    let answer = tokio::time::timeout(LIMIT, answer).await;
    answer.expect("in time").map(|_| ())
}

/// Calls with metadata, reads to the end and returns the reply's own metadata.
async fn ask(channel: &Channel, metadata: &[(&'static str, usize)]) -> (MetadataMap, Status) {
    let mut request = Request::new(());
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, (*value).into());
    }
    let call = async {
        let mut client = GrpcStdioClient::new(channel.clone());
        let mut reply = match client.stream_stdio(request).await {
            Ok(reply) => reply,
            Err(status) => return (MetadataMap::new(), status),
        };
        let head = reply.metadata().clone();
        loop {
            match reply.get_mut().message().await {
                Ok(Some(_)) => {}
                Ok(None) => return (head, Status::ok("")),
                Err(status) => return (head, status),
            }
        }
    };
    tokio::time::timeout(LIMIT, call).await.expect("in time")
}

#[tokio::test]
async fn large_header_lists_arrive_beside_other_calls() {
    let (channel, _server) = connected().await;
    let others = async {
        for _ in 0..100 {
            is_well(&channel).await.expect("well");
        }
    };
    let large = async {
        for size in [1000, 70_000, 400_000, 1_000_000] {
            for name in ["text", "late-text"] {
                let (_, status) = ask(&channel, &[(name, size)]).await;
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                assert!(status.message() == "x".repeat(size), "{name} {size}");
            }
            let (head, status) = ask(&channel, &[("head", size)]).await;
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            assert_eq!(head.get("head").expect("it").len(), size);
            let (_, status) = ask(&channel, &[("details", size)]).await;
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            assert_eq!(status.details().len(), size);
            let mut request = Request::new(());
            request.metadata_mut().insert("much", filler(size));
            let mut client = GrpcStdioClient::new(channel.clone());
            client.stream_stdio(request).await.expect("accepted");
        }
        let (head, status) = ask(&channel, &[("many", 20_000)]).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert_eq!(head.get_all("many").iter().count(), 20_000);
    };
    tokio::join!(others, large);
}

/// Calls our server as a client that accepts header lists of `limit` bytes.
async fn ask_with_limit(limit: u32, metadata: &[(&'static str, usize)]) -> Status {
    let (near, far) = tokio::io::duplex(1 << 16);
    let _server = serve(far);
    let mut client = h2::client::Builder::new();
    client.max_header_list_size(limit);
    let (client, connection) = client.handshake::<_, Bytes>(near).await.expect("begun");
    let _connection = OwnedTask::spawn(async move { drop(connection.await) });
    let mut request = http::Request::post("http://localhost/plugin.GRPCStdio/StreamStdio")
        .header("content-type", "application/grpc");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let call = async {
        let mut client = client.ready().await.expect("ready");
        let request = request.body(()).expect("a request");
        let (reply, mut body) = client.send_request(request, false).expect("sent");
        body.send_data(Bytes::from_static(&[0; 5]), true)
            .expect("sent");
        let reply = reply.await.expect("a reply");
        if let Some(status) = Status::from_header_map(reply.headers()) {
            return status;
        }
        let mut body = reply.into_body();
        while let Some(data) = body.data().await {
            data.expect("data");
        }
        let trailers = body.trailers().await.expect("trailers").expect("trailers");
        Status::from_header_map(&trailers).expect("a status")
    };
    tokio::time::timeout(LIMIT, call).await.expect("in time")
}

#[tokio::test]
async fn a_reply_never_holds_more_than_its_caller_accepts() {
    for limit in [8 << 10, 16 << 10, 100_000] {
        for name in ["text", "late-text"] {
            let status = ask_with_limit(limit, &[(name, 400_000)]).await;
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            let mark = " [shortened from 400000 bytes]";
            assert!(status.message().ends_with(mark), "{status}");
        }
        let status = ask_with_limit(limit, &[("text", 3), ("details", 400_000)]).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        let mark = "xxx [left out: details of 533334 bytes]";
        assert_eq!(status.message(), mark);
        for name in ["head", "many"] {
            let status = ask_with_limit(limit, &[(name, 100_000)]).await;
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            let part = format!("the peer accepts {limit} (SETTINGS_MAX_HEADER_LIST_SIZE)");
            assert!(status.message().contains(&part), "{status}");
        }
    }
}

#[tokio::test]
async fn a_call_whose_metadata_the_peer_does_not_accept_fails_and_is_not_sent() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let _server = OwnedTask::spawn(async move {
        let mut server = h2::server::Builder::new();
        server.max_header_list_size(16 << 10);
        let mut server = server.handshake::<_, Bytes>(far).await.expect("begun");
        while let Some(Ok((_, mut respond))) = server.accept().await {
            let mut reply = http::Response::new(());
            let seven = HeaderValue::from_static("7");
            reply.headers_mut().insert("grpc-status", seven);
            respond.send_response(reply, true).expect("sent");
        }
    });
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    let mut client = GrpcStdioClient::new(channel.expect("connected"));
    let mut call = async |size: usize| {
        let mut request = Request::new(());
        request.metadata_mut().insert("much", filler(size));
        let call = tokio::time::timeout(LIMIT, client.stream_stdio(request)).await;
        call.expect("in time").expect_err("refused")
    };
    assert_eq!(call(15_000).await.code(), Code::PermissionDenied);
    let status = call(17_000).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let part = "the peer accepts 16384 (SETTINGS_MAX_HEADER_LIST_SIZE)";
    assert!(status.message().contains(part), "{status}");
    assert_eq!(call(15_000).await.code(), Code::PermissionDenied);
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length");
    let mut frame = length.to_be_bytes().get(1..).expect("bytes").to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field as it is written without a table and without Huffman's code.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name.as_bytes(), value] {
        match text.len().checked_sub(127) {
            None => field.push(text.len() as u8),
            Some(mut more) => {
                field.push(127);
                while more >= 0x80 {
                    field.push((more % 0x80) as u8 | 0x80);
                    more /= 0x80;
                }
                field.push(more as u8);
            }
        }
        field.extend(text);
    }
    field
}

/// A header block in frames of 16 KiB, as Go's library sends them.
fn block(stream: u32, flags: u8, fields: &[u8]) -> Vec<u8> {
    let last = fields.len().div_ceil(16 << 10) - 1;
    let fragments = fields.chunks(16 << 10).enumerate().map(|(number, part)| {
        let ended = if number == last { END_HEADERS } else { 0 };
        match number {
            0 => frame(HEADERS, flags | ended, stream, part),
            _ => frame(CONTINUATION, ended, stream, part),
        }
    });
    fragments.collect::<Vec<_>>().concat()
}

/// The next frame: kind, flags, stream.
async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes([s0, s1, s2, s3])))
}

const STATUS_OK: u8 = 0x88;

/// A server that answers every second call with an error of `size` bytes, and
/// the others well.
async fn careless_server(mut stream: DuplexStream, size: usize) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.expect("a preface");
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[]))
        .await
        .expect("sent");
    let mut calls = 0;
    while let Some((kind, flags, id)) = next_frame(&mut stream).await {
        let answer = match kind {
            SETTINGS if flags == 0 => frame(SETTINGS, 1, 0, &[]),
            HEADERS => {
                calls += 1;
                let mut head = vec![STATUS_OK];
                head.extend(literal("content-type", b"application/grpc"));
                if calls % 2 == 1 {
                    head.extend(literal("grpc-status", b"9"));
                    head.extend(literal("grpc-message", &vec![b'x'; size]));
                    block(id, END_STREAM, &head)
                } else {
                    let serving = frame(DATA, 0, id, &[0, 0, 0, 0, 2, 8, 1]);
                    let end = block(id, END_STREAM, &literal("grpc-status", b"0"));
                    [block(id, 0, &head), serving, end].concat()
                }
            }
            _ => continue,
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_reply_with_more_than_is_accepted_fails_its_call_alone() {
    for (size, code) in [
        (15 * MIB, Code::FailedPrecondition),
        (17 * MIB, Code::Internal),
        (19 * MIB, Code::Internal),
    ] {
        let (near, far) = tokio::io::duplex(1 << 20);
        let _server = OwnedTask::spawn(careless_server(far, size));
        let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
        let channel = channel.expect("connected");
        for _ in 0..2 {
            let (_, status) = ask(&channel, &[]).await;
            assert_eq!(status.code(), code, "{size}");
            is_well(&channel).await.expect("well");
        }
    }
}

#[tokio::test]
async fn calls_that_hold_large_metadata_are_refused_when_there_are_too_many() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let _server = serve(far);
    let (mut read, mut write) = tokio::io::split(near);
    let calls = 12;
    let sent = OwnedTask::spawn(async move {
        let mut fields = vec![0x83, 0x86];
        fields.extend(literal(":path", b"/plugin.GRPCStdio/StreamStdio"));
        fields.extend(literal("content-type", b"application/grpc"));
        fields.extend(literal("much", &vec![b'x'; 8 * MIB]));
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        write.write_all(preface).await.expect("sent");
        write
            .write_all(&frame(SETTINGS, 0, 0, &[]))
            .await
            .expect("sent");
        // The calls go on: their messages are still to come.
        for number in 0..calls {
            let call = block(2 * number + 1, 0, &fields);
            write.write_all(&call).await.expect("sent");
        }
        // The first one gets its message.
        let message = frame(DATA, END_STREAM, 1, &[0; 5]);
        write.write_all(&message).await.expect("sent");
        std::future::pending::<()>().await;
    });
    let mut refused = Vec::new();
    let answers = async {
        loop {
            let (kind, flags, id) = next_frame(&mut read).await.expect("a frame");
            match (kind, id) {
                (HEADERS, 1) => return,
                (HEADERS, id) => {
                    assert_eq!(flags & END_STREAM, END_STREAM, "call {id} goes on");
                    refused.push(id);
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, answers).await.expect("in time");
    drop(sent);
    // Three of them take less than half of what a connection may hold.
    assert_eq!(
        refused,
        (3..calls).map(|number| 2 * number + 1).collect::<Vec<_>>()
    );
}
