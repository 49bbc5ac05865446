//! Our yamux against hashicorp's, in both roles.
//!
//! The peer is `interop/go/yamuxpeer`; `OUTRIGGER_GO_PEERS` names the folder of
//! its program. Without it these tests say that they are skipped, and fail
//! where `CI=true`.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use outrigger_transport::yamux::{CloseReason, Config, Role, Session, Stream, YamuxError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const MIB: usize = 1024 * 1024;

/// A running Go peer and our session with it.
struct Go {
    session: Session,
    child: Child,
    _folder: tempfile::TempDir,
}

/// The Go program, if there is one.
fn peer_program() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("OUTRIGGER_GO_PEERS") else {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "OUTRIGGER_GO_PEERS is not set, and this is CI");
        skipped();
        return None;
    };
    Some(PathBuf::from(folder).join("yamuxpeer"))
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped() {
    eprintln!("skipped: OUTRIGGER_GO_PEERS does not name a folder with `yamuxpeer`");
}

impl Go {
    /// Starts the peer; our role is the opposite of `role`, the peer's.
    async fn start(role: &str, arguments: &[&str], config: Config) -> Option<Go> {
        let program = peer_program()?;
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        #[expect(clippy::disallowed_methods, reason = "this is not a plugin")]
        let child = Command::new(program)
            .arg("-socket")
            .arg(&socket)
            .args(["-role", role])
            .args(arguments)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the peer starts");
        let accepted = timeout(PATIENCE, listener.accept())
            .await
            .expect("the peer dials");
        let (io, _) = accepted.expect("a connection");
        let ours = match role {
            "client" => Role::Server,
            _ => Role::Client,
        };
        Some(Go {
            session: Session::new(io, ours, config),
            child,
            _folder: folder,
        })
    }

    /// Waits for the peer's exit, which must be a success.
    async fn succeeds(mut self) {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("the peer exits");
        assert!(status.expect("a status").success(), "{:?}", self.session);
    }

    async fn ended(&self) -> CloseReason {
        timeout(PATIENCE, self.session.closed())
            .await
            .expect("the session ends")
    }
}

/// Bytes that differ from seed to seed and from place to place.
fn pattern(seed: u32, length: usize) -> Vec<u8> {
    let mut value = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        value ^= value << 13;
        value ^= value >> 17;
        value ^= value << 5;
        (value >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Sends `length` bytes and expects them back.
async fn converse(stream: Stream, seed: u32, length: usize) {
    let sent = pattern(seed, length);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        writer.write_all(&sent).await.expect("written");
        writer.shutdown().await.expect("shut down");
    };
    let reading = async {
        let mut got = Vec::with_capacity(length);
        reader.read_to_end(&mut got).await.expect("read");
        got
    };
    let both = async { tokio::join!(writing, reading).1 };
    let got = timeout(PATIENCE, both)
        .await
        .expect("everything comes back");
    assert_eq!(got.len(), sent.len());
    assert!(got == sent, "what comes back is what was sent");
}

/// Echoes every stream until the session ends.
async fn echo(session: Session) {
    let mut tasks = JoinSet::new();
    while let Ok(stream) = session.accept().await {
        tasks.spawn(echo_one(stream));
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
}

async fn echo_one(mut stream: Stream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).await.expect("read");
        if length == 0 {
            break;
        }
        stream
            .write_all(buffer.get(..length).unwrap_or_default())
            .await
            .expect("written");
    }
    stream.shutdown().await.expect("shut down");
}

async fn open(session: &Session) -> Stream {
    let opened = timeout(PATIENCE, session.open())
        .await
        .expect("room for a stream");
    opened.expect("a stream")
}

async fn accept(session: &Session) -> Stream {
    let accepted = timeout(PATIENCE, session.accept())
        .await
        .expect("the peer opens a stream");
    accepted.expect("a stream")
}

fn yamux_error(error: &io::Error) -> Option<&YamuxError> {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<YamuxError>())
}

async fn we_send_64_mib_to(role: &str) {
    let Some(go) = Go::start(role, &["-mode", "echo"], Config::default()).await else {
        return;
    };
    converse(open(&go.session).await, 1, 64 * MIB).await;
    go.session.close();
    go.succeeds().await;
}

#[tokio::test]
async fn a_go_client_returns_64_mib() {
    we_send_64_mib_to("client").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_server_returns_64_mib() {
    we_send_64_mib_to("server").await;
}

async fn we_return_64_mib_to(role: &str) {
    let arguments = ["-mode", "upload", "-count", "2", "-bytes", "33554432"];
    let Some(go) = Go::start(role, &arguments, Config::default()).await else {
        return;
    };
    let serving = tokio::spawn(echo(go.session.clone()));
    go.succeeds().await;
    serving.await.expect("no panic");
}

#[tokio::test]
async fn a_go_client_gets_its_64_mib_back() {
    we_return_64_mib_to("client").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_server_gets_its_64_mib_back() {
    we_return_64_mib_to("server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_send_much_on_many_streams_at_once() {
    for role in ["client", "server"] {
        let Some(go) = Go::start(role, &["-mode", "echo"], Config::default()).await else {
            return;
        };
        let mut tasks = JoinSet::new();
        for seed in 0..16 {
            tasks.spawn(converse(
                open(&go.session).await,
                seed,
                2 * MIB + seed as usize,
            ));
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        go.session.close();
        go.succeeds().await;
    }
}

#[tokio::test]
async fn go_opens_thousands_of_streams() {
    for role in ["client", "server"] {
        let arguments = ["-mode", "open-many", "-count", "3000", "-bytes", "500"];
        let Some(go) = Go::start(role, &arguments, Config::default()).await else {
            return;
        };
        let serving = tokio::spawn(echo(go.session.clone()));
        go.succeeds().await;
        serving.await.expect("no panic");
    }
}

#[tokio::test]
async fn we_open_thousands_of_streams() {
    for role in ["client", "server"] {
        let Some(go) = Go::start(role, &["-mode", "echo"], Config::default()).await else {
            return;
        };
        let mut streams = Vec::new();
        for _ in 0..3000 {
            streams.push(open(&go.session).await);
        }
        assert_eq!(go.session.streams(), 3000);
        let mut tasks = JoinSet::new();
        for (seed, stream) in (0..).zip(streams) {
            tasks.spawn(converse(stream, seed, 500));
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        assert_eq!(go.session.streams(), 0);
        go.session.close();
        go.succeeds().await;
    }
}

#[tokio::test]
async fn a_slow_reader_in_go_stops_its_own_stream_only() {
    let arguments = ["-mode", "slow-reader"];
    let Some(mut go) = Go::start("server", &arguments, Config::default()).await else {
        return;
    };
    let (mut reader, mut writer) = tokio::io::split(open(&go.session).await);
    let sent = pattern(1, 3 * MIB);
    let length = sent.len() as u64;
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.expect("written");
        writer.shutdown().await.expect("shut down");
    });
    for seed in 0..8 {
        converse(open(&go.session).await, seed, MIB).await;
    }
    assert!(!writing.is_finished(), "the window holds the writer back");
    let mut stdin = go.child.stdin.take().expect("a pipe");
    stdin.write_all(b"go on\n").await.expect("the peer reads");
    let mut answer = [0; 12];
    let reading = reader.read_exact(&mut answer);
    timeout(PATIENCE, reading)
        .await
        .expect("an answer")
        .expect("read");
    assert_eq!(answer.first_chunk::<8>(), Some(&length.to_be_bytes()));
    writing.await.expect("no panic");
    go.session.close();
    go.succeeds().await;
}

#[tokio::test]
async fn a_slow_reader_here_stops_its_own_stream_only() {
    let arguments = ["-mode", "upload", "-count", "3", "-bytes", "1048576"];
    let Some(go) = Go::start("client", &arguments, Config::default()).await else {
        return;
    };
    let slow = accept(&go.session).await;
    for _ in 0..2 {
        let fast = accept(&go.session).await;
        timeout(PATIENCE, echo_one(fast))
            .await
            .expect("the other streams go on");
    }
    timeout(PATIENCE, echo_one(slow))
        .await
        .expect("it goes on once it is read");
    go.succeeds().await;
}

#[tokio::test]
async fn a_go_peer_that_dies_ends_the_session() {
    for role in ["client", "server"] {
        let Some(go) = Go::start(role, &["-mode", "die"], Config::default()).await else {
            return;
        };
        let mut stream = open(&go.session).await;
        let other = open(&go.session).await;
        stream.write_all(b"x").await.expect("written");
        assert_eq!(go.ended().await, CloseReason::Peer);
        for mut stream in [stream, other] {
            assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
            assert!(stream.write(b"x").await.is_err());
        }
        assert!(go.session.open().await.is_err());
    }
}

#[tokio::test]
async fn a_go_peer_that_closes_is_read_to_the_end() {
    for role in ["client", "server"] {
        let arguments = ["-mode", "close"];
        let Some(go) = Go::start(role, &arguments, Config::default()).await else {
            return;
        };
        let mut stream = open(&go.session).await;
        stream.write_all(b"x").await.expect("written");
        let mut text = String::new();
        let reading = stream.read_to_string(&mut text);
        timeout(PATIENCE, reading)
            .await
            .expect("the end")
            .expect("read");
        assert_eq!(text, "bye");
        assert_eq!(go.ended().await, CloseReason::Peer);
        go.succeeds().await;
    }
}

#[tokio::test]
async fn a_go_peer_notices_that_we_close_or_vanish() {
    let Some(go) = Go::start("client", &["-mode", "idle"], Config::default()).await else {
        return;
    };
    go.session.close();
    assert_eq!(go.ended().await, CloseReason::Local);
    go.succeeds().await;

    let Some(go) = Go::start("server", &["-mode", "idle"], Config::default()).await else {
        return;
    };
    let Go {
        session,
        mut child,
        _folder,
    } = go;
    drop(session);
    let status = timeout(PATIENCE, child.wait())
        .await
        .expect("the peer exits");
    assert!(status.expect("a status").success());
}

#[tokio::test]
async fn pings_are_answered_in_both_directions() {
    for role in ["client", "server"] {
        let arguments = ["-mode", "ping", "-count", "200", "-keep-alive", "1ms"];
        let config = Config {
            keep_alive: Some(Duration::from_millis(1)),
            ..Config::default()
        };
        let Some(go) = Go::start(role, &arguments, config).await else {
            return;
        };
        while !go.session.is_closed() {
            match go.session.ping().await {
                Ok(_) => {}
                Err(YamuxError::SessionClosed(CloseReason::Peer)) => break,
                Err(error) => panic!("{error}: {:?}", go.session),
            }
        }
        assert_eq!(go.ended().await, CloseReason::Peer);
        go.succeeds().await;
    }
}

#[tokio::test]
async fn a_stream_we_do_not_accept_makes_go_give_the_session_up() {
    let arguments = ["-mode", "unaccepted", "-open-timeout", "200ms"];
    let Some(go) = Go::start("client", &arguments, Config::default()).await else {
        return;
    };
    assert_eq!(go.ended().await, CloseReason::Peer);
    go.succeeds().await;
}

#[tokio::test]
async fn a_stream_we_accept_and_leave_silent_does_not() {
    let arguments = [
        "-mode",
        "open-many",
        "-open-timeout",
        "200ms",
        "-bytes",
        "5",
    ];
    let Some(go) = Go::start("client", &arguments, Config::default()).await else {
        return;
    };
    let stream = accept(&go.session).await;
    let patience = timeout(Duration::from_millis(600), go.session.closed()).await;
    assert!(patience.is_err(), "the session lives on");
    echo_one(stream).await;
    go.succeeds().await;
}

#[tokio::test]
async fn a_stream_go_does_not_accept_makes_us_give_the_session_up() {
    let open_timeout = Duration::from_millis(200);
    let config = Config {
        open_timeout,
        ..Config::default()
    };
    let Some(go) = Go::start("server", &["-mode", "idle"], config).await else {
        return;
    };
    let _stream = open(&go.session).await;
    let expected = CloseReason::OpenTimeout {
        stream: 1,
        timeout: open_timeout,
    };
    assert_eq!(go.ended().await, expected);
    go.succeeds().await;
}

#[tokio::test]
async fn a_go_peer_that_says_go_away_keeps_its_streams() {
    let arguments = ["-mode", "go-away"];
    let Some(go) = Go::start("server", &arguments, Config::default()).await else {
        return;
    };
    let mut stream = open(&go.session).await;
    // The echo shows that the go-away, sent before, has arrived.
    stream.write_all(b"x").await.expect("written");
    stream.read_exact(&mut [0; 1]).await.expect("an echo");
    assert_eq!(
        go.session.open().await.expect_err("refused"),
        YamuxError::RemoteGoAway
    );
    converse(stream, 1, MIB).await;
    go.session.close();
    go.succeeds().await;
}

#[tokio::test]
async fn a_stream_go_has_half_closed_still_takes_data() {
    let arguments = ["-mode", "half-close"];
    let Some(go) = Go::start("client", &arguments, Config::default()).await else {
        return;
    };
    let mut stream = accept(&go.session).await;
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
    stream.write_all(b"after the close").await.expect("written");
    drop(stream);
    go.session.close();
    go.succeeds().await;
}

#[tokio::test]
async fn a_stream_we_never_close_is_reset_by_go() {
    let arguments = ["-mode", "abandon", "-close-timeout", "200ms"];
    let Some(go) = Go::start("client", &arguments, Config::default()).await else {
        return;
    };
    let mut stream = accept(&go.session).await;
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
    // Until the reset comes the writer fills the window and waits.
    let endless = pattern(1, MIB);
    let writing = timeout(PATIENCE, stream.write_all(&endless));
    let error = writing.await.expect("the reset comes").expect_err("reset");
    assert_eq!(yamux_error(&error), Some(&YamuxError::StreamReset));
    assert!(!go.session.is_closed());
    go.session.close();
    go.succeeds().await;
}
