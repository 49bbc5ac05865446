//! Long error texts and large metadata between our host and plugins and those of
//! other libraries: they cost their own call alone.
#![allow(clippy::disallowed_methods)] // A client that is no host, and a plugin without one.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use outrigger_host::{Channel, Launch, PluginSet, RunningPlugin, SendGzip, ServiceSet};
use outrigger_interop::proto::grpctest::ping_pong_server::{PingPong, PingPongServer};
use outrigger_interop::proto::grpctest::test_client::TestClient;
use outrigger_interop::proto::grpctest::{
    BidirectionalRequest, PingRequest, PongResponse, TestRequest, TestResponse,
};
use outrigger_interop::{Test, peer_cookie};
use support::{SOON, go_peer, python, stops_cleanly};
use tonic::{Code, Request, Response, Status};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const LARGE_PY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../python/large.py");
/// Below and above what was once the limit, and what it takes to lose a connection.
const LENGTHS: [usize; 4] = [1000, 100_000, 400_000, 1_000_000];

fn launch(program: impl Into<PathBuf>) -> Launch {
    Launch::new(program, peer_cookie()).offer(1, PluginSet::new().with::<Test>("test"))
}

/// Ways to connect to a plugin.
fn ways(launch: impl Fn() -> Launch) -> [Launch; 4] {
    [
        launch(),
        launch().auto_mtls(),
        launch().mux_broker(),
        launch().auto_mtls().mux_broker(),
    ]
}

async fn client(plugin: &RunningPlugin) -> TestClient<Channel> {
    plugin.dispense::<Test>("test").await.expect("a client")
}

/// Calls with one item of metadata.
async fn ask(
    client: &TestClient<Channel>,
    name: &'static str,
    value: String,
) -> Result<Response<TestResponse>, Status> {
    let mut request = Request::new(TestRequest { input: 0 });
    let value = value.parse().expect("a value");
    request.metadata_mut().insert(name, value);
    let call = tokio::time::timeout(3 * SOON, client.clone().double(request)).await;
    call.expect("in time")
}

/// Makes plain calls as long as `work` takes; each has to succeed.
async fn beside<T>(client: &TestClient<Channel>, work: impl Future<Output = T>) -> T {
    let calls = async {
        loop {
            let request = TestRequest { input: 0 };
            let reply = client.clone().double(request).await;
            reply.expect("a call beside the large one succeeds");
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        never = calls => never,
    }
}

/// Asks for everything large, and that a call works afterwards.
async fn takes_large_answers(client: &TestClient<Channel>) {
    for length in LENGTHS {
        let failed = beside(client, ask(client, "fail-text", length.to_string())).await;
        let status = failed.expect_err("it fails");
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{length}: {status}"
        );
        assert!(status.message() == "x".repeat(length), "{length}");
        let failed = beside(client, ask(client, "fail-details", length.to_string())).await;
        let status = failed.expect_err("it fails");
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{length}: {status}"
        );
        assert!(status.details().len() >= length, "{length}");
        let reply = beside(client, ask(client, "reply-head", length.to_string())).await;
        let reply = reply.expect("a reply");
        let large = reply.metadata().get("large").expect("it");
        assert_eq!(large.len(), length);
        let reply = beside(client, ask(client, "reply-trailer", length.to_string())).await;
        reply.expect("a reply");
    }
    ask(client, "none", String::new()).await.expect("a reply");
}

/// Sends everything large.
async fn hears_large_metadata(client: &TestClient<Channel>) {
    for length in LENGTHS {
        let reply = beside(client, ask(client, "much", "m".repeat(length))).await;
        let reply = reply.expect("a reply");
        let heard = reply.metadata().get("heard").expect("a number");
        assert_eq!(heard.as_bytes(), length.to_string().as_bytes());
    }
}

#[tokio::test]
async fn large_answers_of_a_go_plugin_arrive_beside_other_calls() {
    let Some(program) = go_peer("helper") else {
        return;
    };
    for launch in ways(|| launch(&program).arg("test-grpc")) {
        let plugin = launch.start().await.expect("a plugin");
        let client = client(&plugin).await;
        takes_large_answers(&client).await;
        hears_large_metadata(&client).await;
        plugin.ping().await.expect("well");
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn large_answers_of_a_rust_plugin_arrive_beside_other_calls() {
    for launch in ways(|| launch(PEER)) {
        let plugin = launch.start().await.expect("a plugin");
        let client = client(&plugin).await;
        takes_large_answers(&client).await;
        hears_large_metadata(&client).await;
        plugin.ping().await.expect("well");
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn large_answers_of_a_python_plugin_arrive_beside_other_calls() {
    let Some(python) = python() else { return };
    let launch = launch(python).arg(LARGE_PY).arg("plugin");
    let plugin = launch.start().await.expect("a plugin");
    let client = client(&plugin).await;
    takes_large_answers(&client).await;
    // What the C core accepts by default is told, and more is not sent.
    for length in LENGTHS.into_iter().filter(|length| *length > 16_384) {
        let status = ask(&client, "much", "m".repeat(length)).await;
        let status = status.expect_err("too much");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let part = "the peer accepts 16384 (SETTINGS_MAX_HEADER_LIST_SIZE)";
        assert!(status.message().contains(part), "{status}");
    }
    plugin.ping().await.expect("well");
    stops_cleanly(plugin).await;
}

/// A host's service that fails with a text of this length.
struct Failing(usize);

#[tonic::async_trait]
impl PingPong for Failing {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        Err(Status::failed_precondition("x".repeat(self.0)))
    }
}

#[tokio::test]
async fn a_large_error_crosses_a_brokered_connection_and_comes_back() {
    let go = go_peer("helper").map(|program| launch(program).arg("test-grpc"));
    let rust = || launch(PEER);
    let launches = go
        .into_iter()
        .chain([rust(), rust().auto_mtls().mux_broker()]);
    for launch in launches {
        let plugin = launch.start().await.expect("a plugin");
        let mut client = client(&plugin).await;
        let broker = plugin.broker();
        for length in LENGTHS {
            let services = ServiceSet::new().with(PingPongServer::new(Failing(length)));
            let id = broker.next_id();
            let serving = broker.serve(id, services).await.expect("served");
            let request = BidirectionalRequest { id: id.0 };
            let called = tokio::time::timeout(3 * SOON, client.bidirectional(request)).await;
            let status = called.expect("in time").expect_err("it fails");
            assert_eq!(status.code(), Code::FailedPrecondition, "{length}");
            assert!(status.message() == "x".repeat(length), "{length}");
            drop(serving);
        }
        stops_cleanly(plugin).await;
    }
}

#[tokio::test]
async fn messages_of_a_go_plugin_are_compressed_both_ways_where_a_call_asks_for_it() {
    let go = go_peer("helper").map(|program| launch(program).arg("test-grpc"));
    for launch in go.into_iter().chain([launch(PEER)]) {
        let plugin = launch.start().await.expect("a plugin");
        let mut client = client(&plugin).await;
        for (send, receive) in [(false, true), (true, false), (true, true)] {
            let asked = || {
                let messages = (1..200).map(|input| TestRequest { input });
                let mut request = Request::new(tokio_stream::iter(messages));
                if receive {
                    request.metadata_mut().insert("reply-gzip", 1.into());
                }
                if send {
                    request.extensions_mut().insert(SendGzip);
                }
                request
            };
            let mut stream = client.stream(asked()).await.expect("begun").into_inner();
            let mut received = 0;
            while let Some(message) = stream.message().await.expect("a message") {
                received += 1;
                assert_eq!(message.output, received);
            }
            assert_eq!(received, 199);
            let request = asked().map(|_| TestRequest { input: 21 });
            let reply = client.double(request).await.expect("a reply");
            assert_eq!(reply.into_inner().output, 42);
        }
        stops_cleanly(plugin).await;
    }
}

#[test]
fn a_go_host_takes_large_answers_of_a_rust_plugin_and_sends_large_metadata() {
    let Some(host) = go_peer("host") else { return };
    for way in [
        &[][..],
        &["--auto-mtls"],
        &["--mux"],
        &["--mux", "--auto-mtls"],
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Command::new(&host)
            .args(["--service", "grpctest", "--scenario", "large,compressed"])
            .args(way)
            .args(["--", PEER])
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("the host runs");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{way:?}: {report}");
    }
}

#[test]
fn a_client_on_the_c_core_gets_the_code_and_as_much_text_as_it_takes() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let mut plugin = Command::new(PEER)
        .arg("--tcp")
        .env("TEST_MAGIC_COOKIE", "test")
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stdout = plugin.stdout.take().expect("a pipe");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut line).expect("a line");
    let address = line.split('|').nth(3).expect("an address");
    let mut calls = Command::new(python)
        .args([LARGE_PY, "call", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut asking = calls.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(calls.stdout.take().expect("a pipe"));
    let mut ask = |what: &str| -> serde_json::Value {
        writeln!(asking, "{what}").expect("asked");
        let mut line = String::new();
        answers.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    };
    for length in LENGTHS {
        // The C core turns some lists away at random; what we send it never does.
        for _ in 0..5 {
            let answer = ask(&format!("fail-text {length}"));
            assert_eq!(answer["code"], "FAILED_PRECONDITION", "{length}: {answer}");
            let text = answer["text"].as_str().expect("a text");
            let (text, mark) = text.split_once(" [").unwrap_or((text, ""));
            assert!(text.bytes().all(|byte| byte == b'x'), "{text}");
            match length {
                1000 => assert_eq!(text.len(), 1000),
                _ => assert_eq!(mark, format!("shortened from {length} bytes]")),
            }
        }
        let answer = ask(&format!("fail-details {length}"));
        assert_eq!(answer["code"], "FAILED_PRECONDITION", "{length}: {answer}");
        let answer = ask(&format!("much {length}"));
        assert_eq!(answer["code"], "OK", "{answer}");
        assert_eq!(answer["heard"], length.to_string());
    }
    let answer = ask("reply-head 100000");
    assert_eq!(answer["code"], "RESOURCE_EXHAUSTED", "{answer}");
    let answer = ask("none 0");
    assert_eq!(answer["code"], "OK", "{answer}");
    drop(asking);
    assert!(calls.wait().expect("it ends").success());
    plugin.kill().expect("killed");
    plugin.wait().expect("reaped");
}
