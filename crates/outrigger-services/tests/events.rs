//! What the operator's log shows of a plugin's calls. One test in a process of
//! its own: which events are wanted is remembered for the whole process.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use outrigger_wire::proto::hostserve::*;
use support::peer::{EVERYTHING, Peer, services};
use tonic::Request;

/// Collects what a subscriber prints.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl io::Write for Printed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_call_is_one_event_whose_identity_is_the_connection() {
    let printed = Printed::default();
    let sink = printed.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || sink.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "x").expect("a file");
    let services = services(dir.path(), EVERYTHING);
    let peer = Peer::new(&services, "honest").await;
    let mut request = Request::new(ReadFileRequest {
        root_dir: String::new(),
        path: "../\u{1b}[2J\nx".into(),
    });
    request
        .metadata_mut()
        .insert("client", "someone-else".parse().expect("a value"));
    request
        .metadata_mut()
        .insert("request", "r-1".parse().expect("a value"));
    let reply: ReadFileResponse = peer.call_with("ReadFile", request).await.expect("a reply");
    reply.error.expect("refused");
    peer.read("", "missing").await.expect_err("no such file");
    peer.read("", "file").await.expect("there");
    peer.close().await;
    let printed = printed.0.lock().expect("not poisoned").clone();
    let printed = String::from_utf8(printed).expect("UTF-8");
    let ours = |line: &&str| line.contains("outrigger_services::audit");
    let lines: Vec<&str> = printed.lines().filter(ours).collect();
    let [refused, failed, done] = lines.as_slice() else {
        panic!("three events: {printed}")
    };
    for part in [
        "WARN",
        r#"plugin="honest""#,
        r#"instance="honest-1""#,
        "operation=filesystem.ReadFile",
        "client=someone-else",
        "request=r-1",
        r#"path="../\u{1b}[2J\nx""#,
        r#"verdict="refused""#,
        r#"code="outside-grant""#,
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert!(
        failed.contains("INFO") && failed.contains("no such file or directory"),
        "{failed}"
    );
    assert!(
        done.contains("DEBUG") && done.contains(r#"code="ok""#),
        "{done}"
    );
}
