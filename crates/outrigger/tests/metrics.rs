//! The numbers of a host with real plugins, as real readers get them.
#![allow(clippy::disallowed_methods)] // The reader of the numbers is no plugin.
#![allow(clippy::print_stderr)] // What is skipped is said.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outrigger::{
    Coded, ExpositionPlace, Host, Metrics, MetricsFormat, Policy, Settings, Supervision,
};
use outrigger_examples::FileLister;
use outrigger_examples::proto::filelister::FileListRequest;
use outrigger_testing::program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A folder with a lister that may list `docs` and nothing else.
fn folder_with_a_lister() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let lister = folder.path().join("lister");
    std::fs::create_dir_all(lister.join("docs")).expect("documents");
    std::fs::write(lister.join("docs/a.txt"), "text").expect("a document");
    let manifest = "plugin: {name: lister, format: grpc, entrypoint: granted-lister}
handshake: {protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}
services: [filesystem]
capabilities: {filesystem: [{path: \"${plugin_dir}/docs\", permissions: [read, list], recursive: true}]}
";
    std::fs::write(lister.join("manifest.yaml"), manifest).expect("a manifest");
    symlink(program("granted-lister"), lister.join("granted-lister")).expect("a program");
    folder
}

async fn list(host: &Host, path: &Path) -> Option<String> {
    let mut lister = host.client::<FileLister>("lister").await.expect("a client");
    let mut request = tonic::Request::new(FileListRequest {
        path: path.display().to_string(),
        ..FileListRequest::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", TRACE.parse().expect("a value"));
    let reply = lister.list(request).await.expect("an answer");
    reply.into_inner().error
}

/// The reply to a request over HTTP, head and all.
async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    let request = format!("{request}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    // A peer that is turned away is told nothing.
    let _ = stream.read_to_string(&mut reply).await;
    reply
}

/// What Prometheus's own parser for Python makes of a text: each sample with its value.
fn parsed(text: &str, module: &str) -> Option<BTreeMap<String, f64>> {
    let Some(python) = std::env::var_os("OUTRIGGER_PYTHON") else {
        eprintln!("skipped: OUTRIGGER_PYTHON is not set");
        return None;
    };
    let script = format!(
        "import json, sys\n\
         from prometheus_client.{module} import text_string_to_metric_families as families\n\
         samples = [s for family in families(sys.stdin.read()) for s in family.samples]\n\
         shown = lambda s: s.name + json.dumps(s.labels, sort_keys=True)\n\
         print(json.dumps({{shown(s): s.value for s in samples}}))\n"
    );
    let mut reader = Command::new(python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Python");
    let mut stdin = reader.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = reader.wait_with_output().expect("it ends");
    assert!(output.status.success(), "not understood:\n{text}");
    Some(serde_json::from_slice(&output.stdout).expect("an object"))
}

async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !state() {
        assert!(Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_reader_finds_the_calls_decisions_state_and_process_of_a_plugin() {
    let folder = folder_with_a_lister();
    let settings = Settings::new().policy(Policy::allow_requested());
    let settings = settings.supervision(Supervision::default());
    let host = settings.host(folder.path()).await.expect("a host");
    let docs = folder.path().join("lister/docs");
    assert_eq!(list(&host, &docs).await, None);
    let refused = list(&host, Path::new("/etc")).await;
    assert!(refused.is_some(), "it may not");
    // Events are counted a moment later than they happen.
    let counted = "outrigger_plugin_start_duration_seconds_count{plugin=\"lister\"} 1";
    let text = || host.metrics().text(MetricsFormat::Prometheus);
    until("its start is counted", || text().contains(counted)).await;

    let socket = folder.path().join("metrics.sock");
    let place = ExpositionPlace::Socket(socket.clone());
    let _shown = host.metrics().serve(place).await.expect("shown");
    let get = |accept: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}");
        let socket = socket.clone();
        async move {
            ask(
                UnixStream::connect(socket).await.expect("it listens"),
                &request,
            )
            .await
        }
    };
    for (accept, content_type, module) in [
        ("*/*", "text/plain; version=0.0.4", "parser"),
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text",
            "openmetrics.parser",
        ),
    ] {
        let reply = get(accept).await;
        let (head, text) = reply.split_once("\r\n\r\n").expect("a reply");
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains(content_type),
            "{head}"
        );
        let is_open = module != "parser";
        assert_eq!(
            text.contains("4bf92f3577b34da6a3ce929d0e0e4736"),
            is_open,
            "{text}"
        );
        let Some(samples) = parsed(text, module) else {
            return;
        };
        let value = |sample: &str| samples.get(sample).copied();
        let list = r#"{"plugin": "lister", "rpc_method": "filelister.v1.FileLister/List", "rpc_status_code": "OK"}"#;
        let calls = format!("rpc_client_call_duration_seconds_count{list}");
        assert_eq!(value(&calls), Some(2.0), "{samples:#?}");
        let served = samples.iter().find(|(name, count)| {
            name.starts_with("rpc_server_call_duration_seconds_count{")
                && name.contains("\"outrigger.host.v1.")
                && **count >= 1.0
        });
        assert!(served.is_some(), "{samples:#?}");
        let decided = |verdict: &str| {
            value(&format!(
                r#"outrigger_grants_decisions_total{{"capability": "filesystem", "plugin": "lister", "verdict": "{verdict}"}}"#
            ))
        };
        assert!(decided("allowed") >= Some(1.0), "{samples:#?}");
        assert!(decided("refused") >= Some(1.0), "{samples:#?}");
        for (sample, expected) in [
            (
                r#"outrigger_plugin_state{"plugin": "lister", "state": "running"}"#,
                1.0,
            ),
            (
                r#"outrigger_plugin_state{"plugin": "lister", "state": "failed"}"#,
                0.0,
            ),
            (r#"outrigger_plugin_starts_total{"plugin": "lister"}"#, 1.0),
            (r#"outrigger_plugin_generation{"plugin": "lister"}"#, 1.0),
            (
                r#"outrigger_plugin_start_duration_seconds_count{"plugin": "lister"}"#,
                1.0,
            ),
            (r#"outrigger_calls_in_flight{"plugin": "lister"}"#, 0.0),
        ] {
            assert_eq!(value(sample), Some(expected), "{sample} in {samples:#?}");
        }
        let resident = value(r#"process_resident_memory_bytes{"plugin": "lister"}"#);
        assert!(resident > Some(1e6), "{resident:?}");
    }
    let traffic = host.metrics().traffic("lister").expect("counted");
    assert_eq!(
        (traffic.calls, traffic.failed, traffic.in_flight),
        (2, 0, 0)
    );
    assert!(traffic.p99 >= traffic.p50 && traffic.p50 > Some(Duration::ZERO));
    host.shutdown(SOON).await;
    let text = host.metrics().text(MetricsFormat::Prometheus);
    assert!(
        !text.contains("process_threads{"),
        "it has no process:\n{text}"
    );
}

#[tokio::test]
async fn metrics_are_shown_on_loopback_addresses_only_and_to_who_asks_for_them_there() {
    let metrics = Metrics::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464"] {
        let place = ExpositionPlace::Address(address.parse().expect("an address"));
        let error = metrics.serve(place).await.expect_err("not loopback");
        assert_eq!(error.code(), "metrics-not-loopback");
        assert!(error.hint().is_some_and(|hint| hint.contains("127.0.0.1")));
        assert!(error.to_string().contains("no loopback address"), "{error}");
    }
    let any = ExpositionPlace::Address("127.0.0.1:0".parse().expect("an address"));
    let shown = metrics.serve(any).await.expect("shown");
    let address = shown.address().expect("an address");
    let taken = metrics.serve(ExpositionPlace::Address(address)).await;
    assert_eq!(taken.expect_err("taken").code(), "metrics-place-taken");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(64 << 10));
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: localhost:9464", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: [::1]", "200"),
        ("HEAD /metrics HTTP/1.1\r\nHost: 127.0.0.1", "200"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: 127.0.0.1", "405"),
        ("GET /metrics HTTP/1.1\r\nHost: plugins.example", "403"),
        (&long, "431"),
    ] {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let reply = ask(stream, request).await;
        let wanted = format!("HTTP/1.1 {status}");
        // One whose head is too long may be cut off before it has read that.
        let is_cut = status == "431" && reply.is_empty();
        assert!(
            reply.starts_with(&wanted) || is_cut,
            "{request:.60}: {reply}"
        );
    }
    drop(shown);
    until("nobody listens", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}

#[tokio::test]
async fn more_readers_than_there_may_be_are_turned_away_and_others_are_answered_later() {
    let any = ExpositionPlace::Address("127.0.0.1:0".parse().expect("an address"));
    let shown = Metrics::new().serve(any).await.expect("shown");
    let address = shown.address().expect("an address");
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    let get = || async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        ask(stream, "GET /metrics HTTP/1.1\r\nHost: localhost").await
    };
    assert_eq!(get().await, "");
    silent.truncate(15);
    let deadline = Instant::now() + SOON;
    while !get().await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "there is a place again");
    }
}

#[tokio::test]
async fn a_socket_is_private_replaces_one_that_nobody_listens_at_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metrics.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let metrics = Metrics::new();
    let place = ExpositionPlace::Socket(path.clone());
    let shown = metrics.serve(place.clone()).await.expect("shown");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = metrics.serve(place).await.expect_err("taken");
    assert_eq!(error.code(), "metrics-place-taken");
    assert_eq!(
        error.to_string(),
        format!("metrics cannot be shown at {path:?}, which is taken")
    );
    drop(shown);
    assert!(!path.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, "kept").expect("a file");
    let error = metrics.serve(ExpositionPlace::Socket(file.clone())).await;
    assert_eq!(error.expect_err("taken").code(), "metrics-place-taken");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "kept");
}

#[tokio::test]
async fn a_file_is_whole_for_everybody_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outrigger.prom");
    let metrics = Metrics::new();
    let place = ExpositionPlace::File(path.clone());
    let shown = metrics.serve(place).await.expect("shown");
    let text = std::fs::read_to_string(&path).expect("written at once");
    assert!(text.contains("outrigger_build_info{version="), "{text}");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    drop(shown);
    assert!(!path.exists());
    let nowhere = ExpositionPlace::File(dir.path().join("none/outrigger.prom"));
    let error = metrics.serve(nowhere).await.expect_err("no such folder");
    assert_eq!(error.code(), "metrics-place-unusable");
    assert!(
        error.to_string().starts_with("metrics cannot be shown at "),
        "{error}"
    );
}
