//! A plugin whose connection is lost while its process runs is ended, and says
//! so; one that was only joined is left alone.
#![allow(clippy::disallowed_methods)] // A plugin that no host of ours starts.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_host::{
    Address, AddressTranslator, AllowedTransports, AppProtocolVersion, Attach, Connection,
    Deadlines, ExitStatus, KillReason, Launch, Network, PluginExited, PluginSet, Reattach,
    Transport,
};
use outrigger_interop::{Test, peer_cookie};
use support::{SOON, go_peer, runs};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const NETRPC_PEER: &str = env!("CARGO_BIN_EXE_netrpc-peer");
const GRACE: Duration = Duration::from_millis(500);

/// Puts a place in the middle of the main connection where it can be cut.
#[derive(Clone, Debug)]
struct Cuttable {
    dir: PathBuf,
    ends: Arc<Mutex<Vec<UnixStream>>>,
}

impl Cuttable {
    fn new(dir: &tempfile::TempDir) -> Self {
        Self {
            dir: dir.path().to_owned(),
            ends: Arc::default(),
        }
    }

    fn cut(&self) {
        let ends = self.ends.lock().expect("lock");
        assert!(!ends.is_empty(), "there was no connection");
        for end in ends.iter() {
            // The other half may have gone with it.
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    }

    fn lead(&self, to: PathBuf) -> std::io::Result<PathBuf> {
        let here = self.dir.join("middle");
        if here.exists() {
            return Ok(to);
        }
        let listener = UnixListener::bind(&here)?;
        let ends = self.ends.clone();
        std::thread::spawn(move || {
            let (mut near, _) = listener.accept().expect("the host dials");
            let mut far = UnixStream::connect(to).expect("the plugin listens");
            let copy = |end: &UnixStream| end.try_clone().expect("a descriptor");
            let (mut from_near, mut from_far) = (copy(&near), copy(&far));
            ends.lock().expect("lock").extend([copy(&near), copy(&far)]);
            std::thread::spawn(move || std::io::copy(&mut from_near, &mut far));
            std::io::copy(&mut from_far, &mut near)
        });
        Ok(here)
    }
}

impl AddressTranslator for Cuttable {
    fn plugin_to_host(&self, address: Address) -> Result<Address, String> {
        let led = self.lead(PathBuf::from(&address.text));
        let led = led.map_err(|error| error.to_string())?;
        let text = led.display().to_string();
        Ok(Address { text, ..address })
    }

    fn host_to_plugin(&self, address: Address) -> Result<Address, String> {
        Ok(address)
    }
}

/// Starts it, cuts its connection and returns how it ended.
async fn cut_off(launch: Launch) -> outrigger_host::ExitReport {
    let dir = tempfile::tempdir().expect("a directory");
    let middle = Cuttable::new(&dir);
    let plugin = launch
        .translate(middle.clone())
        .deadlines(Deadlines {
            lost_grace: GRACE,
            ..Deadlines::default()
        })
        .start()
        .await
        .expect("a plugin");
    plugin.ping().await.expect("well");
    let pid = plugin.pid().expect("a pid");
    middle.cut();
    let report = tokio::time::timeout(SOON, plugin.wait()).await;
    let report = report.expect("it ends");
    assert!(!runs(pid));
    let error = plugin.ping().await.expect_err("it is gone");
    let exited = PluginExited::behind(&error).expect("the end is the source");
    assert_eq!(exited.report.connection_lost, report.connection_lost);
    report
}

fn launch(program: impl Into<PathBuf>) -> Launch {
    Launch::new(program, peer_cookie()).offer(1, PluginSet::new().with::<Test>("test"))
}

#[tokio::test]
async fn a_plugin_whose_connection_is_lost_is_ended_with_that_reason() {
    let mut launches = vec![launch(PEER), launch(PEER).auto_mtls()];
    if let Some(helper) = go_peer("helper") {
        launches.push(launch(helper).arg("test-grpc"));
    }
    for launch in launches {
        let report = cut_off(launch).await;
        assert_eq!(report.status, ExitStatus::Signal(9), "{report:?}");
        let reason = KillReason::ConnectionLost(GRACE);
        assert_eq!(report.kill_reason, Some(reason), "{report:?}");
        assert!(report.connection_lost.is_some(), "{report:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_ends_with_its_one_connection_is_not_said_to_be_killed() {
    let cookie = outrigger_examples::basic_cookie();
    let netrpc = |program: PathBuf| {
        Launch::new(program, cookie.clone())
            .offer(1, PluginSet::new())
            .allow(AllowedTransports::NETRPC)
    };
    let mut launches = vec![launch(PEER).mux_broker(), netrpc(NETRPC_PEER.into())];
    if let Some(helper) = go_peer("helper") {
        launches.push(launch(helper).arg("test-grpc").mux_broker());
    }
    launches.extend(go_peer("netrpc").map(netrpc));
    for launch in launches {
        let report = cut_off(launch).await;
        // Either it ends by itself, or it is told as for any other.
        assert_eq!(
            report.forced,
            report.connection_lost.is_some(),
            "{report:?}"
        );
        let killed = report.kill_reason.is_some();
        assert_eq!(report.forced, killed, "{report:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_was_joined_outlives_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Command::new(PEER)
        .env("TEST_MAGIC_COOKIE", "test")
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    let reattach = || Reattach {
        transport: Transport::Grpc,
        version: AppProtocolVersion(1),
        address: Address {
            network: Network::Unix,
            text: line.split('|').nth(3).expect("an address").to_owned(),
        },
        pid: Some(process.id()),
        started: None,
        test: false,
    };
    let middle = Cuttable::new(&dir);
    let join = || Attach::new(reattach()).offer(1, PluginSet::new());
    let first = join()
        .translate(middle.clone())
        .deadlines(Deadlines {
            lost_grace: Duration::ZERO,
            ..Deadlines::default()
        })
        .connect()
        .await
        .expect("joined");
    middle.cut();
    let Connection::Grpc(channel) = first.connection() else {
        panic!("gRPC");
    };
    channel.closed().await;
    // It is there for others, and for whoever comes again.
    let second = join().connect().await.expect("joined again");
    second.ping().await.expect("well");
    assert!(first.exited().is_none());
    second.stop().await;
    assert_eq!(first.wait().await.kill_reason, None);
    process.wait().expect("reaped");
}
