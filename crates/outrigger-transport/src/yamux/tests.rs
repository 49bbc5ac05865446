//! One test for each behaviour of the protocol, against a peer written frame by
//! frame, and tests of two sessions against each other.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::frame::{Flags, HEADER_LEN, Header, HeaderError, Kind, go_away};
use super::state::State;
use super::{CloseReason, Config, INITIAL_WINDOW, Role, Session, Stream, Violation, YamuxError};

/// Larger than anything a test leaves unread.
const ROOMY: usize = 4 * 1024 * 1024;

/// Longer than any test takes; virtual time mostly.
const PATIENCE: Duration = Duration::from_secs(1000);

const WINDOW: usize = INITIAL_WINDOW as usize;

/// A peer made of bare frames.
struct Peer {
    io: DuplexStream,
}

impl Peer {
    /// A session and its peer.
    fn with(role: Role, config: Config, buffer: usize) -> (Session, Peer) {
        let (ours, theirs) = duplex(buffer);
        (Session::new(ours, role, config), Peer { io: theirs })
    }

    fn of(role: Role) -> (Session, Peer) {
        Peer::with(role, Config::default(), ROOMY)
    }

    async fn send(&mut self, header: Header) {
        self.io
            .write_all(&header.encode())
            .await
            .expect("the session reads");
    }

    async fn send_data(&mut self, flags: Flags, stream: u32, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("small");
        self.send(Header {
            kind: Kind::Data,
            flags,
            stream,
            length,
        })
        .await;
        self.io.write_all(body).await.expect("the session reads");
    }

    async fn control(&mut self, flags: Flags, stream: u32) {
        self.send(Header::window_update(flags, stream, 0)).await;
    }

    /// The next header, or `None` at the end of the connection.
    async fn next(&mut self) -> Option<Header> {
        let mut bytes = [0; HEADER_LEN];
        match timeout(PATIENCE, self.io.read_exact(&mut bytes))
            .await
            .expect("a frame or the end")
        {
            Ok(_) => Some(Header::decode(bytes).expect("a valid header")),
            Err(_) => None,
        }
    }

    async fn expect(&mut self, header: Header) {
        assert_eq!(self.next().await, Some(header));
    }

    async fn expect_data(&mut self, stream: u32) -> Vec<u8> {
        let header = self.next().await.expect("a frame");
        assert_eq!((header.kind, header.stream), (Kind::Data, stream));
        let mut body = vec![0; header.length as usize];
        self.io.read_exact(&mut body).await.expect("the payload");
        body
    }

    /// Reads data frames until `length` bytes of `stream` have come.
    async fn expect_bytes(&mut self, stream: u32, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < length {
            body.extend(self.expect_data(stream).await);
        }
        assert_eq!(body.len(), length);
        body
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Whether the session has said everything it has to say for now: it
    /// answers this ping and nothing else.
    async fn expect_quiet(&mut self) {
        self.send(Header::ping(Flags::SYN, 0xfeed)).await;
        self.expect(Header::ping(Flags::ACK, 0xfeed)).await;
    }

    async fn accepted(session: &Session, peer: &mut Peer, id: u32) -> Stream {
        peer.control(Flags::SYN, id).await;
        let stream = session.accept().await.expect("a stream");
        peer.expect(ack(id)).await;
        stream
    }

    async fn opened(session: &Session, peer: &mut Peer) -> Stream {
        let stream = session.open().await.expect("a stream");
        peer.expect(syn(stream.id())).await;
        peer.control(Flags::ACK, stream.id()).await;
        stream
    }
}

fn syn(id: u32) -> Header {
    Header::window_update(Flags::SYN, id, 0)
}

fn ack(id: u32) -> Header {
    Header::window_update(Flags::ACK, id, 0)
}

fn fin(id: u32) -> Header {
    Header::window_update(Flags::FIN, id, 0)
}

fn rst(id: u32) -> Header {
    Header::window_update(Flags::RST, id, 0)
}

/// The error of this module within an I/O error.
fn yamux_error(error: &io::Error) -> YamuxError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<YamuxError>());
    inner.cloned().expect("an error of this module")
}

async fn ended(session: &Session) -> CloseReason {
    timeout(PATIENCE, session.closed())
        .await
        .expect("the session ends")
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// Lets the other tasks of a current-thread runtime run until they all wait.
async fn let_others_run() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn pair(buffer: usize) -> (Session, Session) {
    let (a, b) = duplex(buffer);
    (
        Session::new(a, Role::Client, Config::default()),
        Session::new(b, Role::Server, Config::default()),
    )
}

/// Bytes that differ from stream to stream and from place to place.
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

// --- Frames ------------------------------------------------------------------

#[test]
fn recorded_frames_are_written_and_read_as_recorded() {
    let recorded = [
        ("000100010000000100000000", syn(1)),
        ("000100020000000100000000", ack(1)),
        ("00000000000000010000004e", Header::data(1, 0x4e)),
        ("000100010000000200000000", syn(2)),
        ("000100040000000200000000", fin(2)),
        ("000100080000000300000000", rst(3)),
        ("000200010000000000000007", Header::ping(Flags::SYN, 7)),
        ("000200020000000000000007", Header::ping(Flags::ACK, 7)),
        ("000300000000000000000001", Header::go_away(1)),
    ];
    for (hex, header) in recorded {
        let mut bytes = [0; HEADER_LEN];
        for (place, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).expect("ascii");
            *place = u8::from_str_radix(pair, 16).expect("hex");
        }
        assert_eq!(header.encode(), bytes, "{hex}");
        assert_eq!(Header::decode(bytes), Ok(header), "{hex}");
    }
}

#[test]
fn headers_of_another_version_or_type_are_refused() {
    let mut bytes = Header::data(1, 0).encode();
    bytes[0] = 1;
    assert_eq!(Header::decode(bytes), Err(HeaderError::Version(1)));
    bytes[0] = 0;
    bytes[1] = 4;
    assert_eq!(Header::decode(bytes), Err(HeaderError::Kind(4)));
}

// --- Opening and accepting ---------------------------------------------------

#[tokio::test]
async fn an_opened_stream_is_announced_at_once_and_data_does_not_wait() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut first = session.open().await.expect("a stream");
    peer.expect(syn(1)).await;
    first.write_all(b"early").await.expect("written");
    assert_eq!(peer.expect_data(1).await, b"early");
    let second = session.open().await.expect("a stream");
    peer.expect(syn(3)).await;
    assert_eq!((first.id(), second.id(), session.streams()), (1, 3, 2));
}

#[tokio::test]
async fn a_server_opens_even_ids() {
    let (session, mut peer) = Peer::of(Role::Server);
    let _first = session.open().await.expect("a stream");
    peer.expect(syn(2)).await;
    let _second = session.open().await.expect("a stream");
    peer.expect(syn(4)).await;
}

#[tokio::test]
async fn a_stream_is_acknowledged_when_the_application_accepts_it() {
    let (session, mut peer) = Peer::of(Role::Server);
    peer.control(Flags::SYN, 1).await;
    peer.expect_quiet().await;
    let stream = session.accept().await.expect("a stream");
    peer.expect(ack(1)).await;
    assert_eq!(stream.id(), 1);
}

#[tokio::test]
async fn a_data_frame_may_open_and_acknowledge() {
    let (session, mut peer) = Peer::of(Role::Server);
    peer.send_data(Flags::SYN, 1, b"hello").await;
    let mut theirs = session.accept().await.expect("a stream");
    peer.expect(ack(1)).await;
    let mut text = [0; 5];
    theirs.read_exact(&mut text).await.expect("data");
    assert_eq!(&text, b"hello");

    let mut ours = session.open().await.expect("a stream");
    peer.expect(syn(2)).await;
    peer.send_data(Flags::ACK.with(Flags::FIN), 2, b"bye").await;
    let mut all = Vec::new();
    ours.read_to_end(&mut all)
        .await
        .expect("data, then the end");
    assert_eq!(all, b"bye");
}

#[tokio::test]
async fn streams_are_accepted_in_the_order_of_their_opening() {
    let (session, mut peer) = Peer::of(Role::Server);
    for id in [5, 1, 3] {
        peer.control(Flags::SYN, id).await;
    }
    for id in [5, 1, 3] {
        assert_eq!(session.accept().await.expect("a stream").id(), id);
    }
}

#[tokio::test]
async fn an_accept_that_is_dropped_loses_no_stream() {
    let (session, mut peer) = Peer::of(Role::Server);
    for id in [1, 3] {
        let mut dropped = Box::pin(session.accept());
        assert!(poll_once(&mut dropped).await.is_pending());
        peer.control(Flags::SYN, id).await;
        peer.expect_quiet().await;
        drop(dropped);
        assert_eq!(session.accept().await.expect("a stream").id(), id);
        peer.expect(ack(id)).await;
        peer.expect(fin(id)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_not_accepted_within_75_seconds_ends_the_session() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    let began = Instant::now();
    let mut stream = session.open().await.expect("a stream");
    let reason = ended(&session).await;
    assert_eq!(began.elapsed().as_secs(), 75);
    assert_eq!(reason.code(), "stream-open-timeout");
    assert!(stream.read(&mut [0; 1]).await.is_err());
    peer.expect(syn(1)).await;
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ack_or_a_fin_stops_the_clock_of_an_open() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    let _first = session.open().await.expect("a stream");
    let _second = session.open().await.expect("a stream");
    peer.control(Flags::ACK, 1).await;
    peer.control(Flags::FIN, 3).await;
    assert!(
        timeout(Duration::from_secs(200), session.closed())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_257th_open_waits_for_an_ack() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut streams = Vec::new();
    for _ in 0..256 {
        streams.push(session.open().await.expect("a stream"));
    }
    let mut waiting = Box::pin(session.open());
    assert!(poll_once(&mut waiting).await.is_pending());
    peer.control(Flags::ACK, 7).await;
    assert_eq!(waiting.await.expect("a stream").id(), 513);
    // One that the peer resets makes room as well.
    let mut waiting = Box::pin(session.open());
    assert!(poll_once(&mut waiting).await.is_pending());
    peer.control(Flags::RST, 9).await;
    assert_eq!(waiting.await.expect("a stream").id(), 515);
}

#[tokio::test]
async fn an_open_that_waits_fails_when_the_session_ends() {
    let (session, peer) = Peer::of(Role::Client);
    let mut streams = Vec::new();
    for _ in 0..256 {
        streams.push(session.open().await.expect("a stream"));
    }
    let mut waiting = Box::pin(session.open());
    assert!(poll_once(&mut waiting).await.is_pending());
    drop(peer);
    let error = waiting.await.expect_err("no stream");
    assert_eq!(error, YamuxError::SessionClosed(CloseReason::Peer));
}

#[tokio::test]
async fn streams_beyond_the_backlog_are_reset() {
    let (session, mut peer) = Peer::of(Role::Server);
    for number in 0..257 {
        peer.control(Flags::SYN, 1 + 2 * number).await;
    }
    peer.expect(rst(513)).await;
    // What the peer still sends on it does no harm.
    peer.send_data(Flags::NONE, 513, b"late").await;
    peer.expect_quiet().await;
    assert_eq!(session.streams(), 256);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_reset() {
    let config = Config {
        max_streams: 2,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Server, config, ROOMY);
    let first = Peer::accepted(&session, &mut peer, 1).await;
    let _second = Peer::accepted(&session, &mut peer, 3).await;
    peer.control(Flags::SYN, 5).await;
    peer.expect(rst(5)).await;
    drop(first);
    peer.expect(fin(1)).await;
    peer.control(Flags::FIN, 1).await;
    Peer::accepted(&session, &mut peer, 5).await;
}

#[test]
fn a_stream_whose_opening_was_read_as_the_session_ended_is_not_kept() {
    let now = Instant::now();
    let opening = [
        Header::window_update(Flags::SYN, 1, 0),
        Header {
            flags: Flags::SYN,
            ..Header::data(1, 5)
        },
    ];
    for header in opening {
        let mut state = State::new(Role::Server, Config::default(), now);
        state.end(CloseReason::Local);
        let payload = state.on_header(header, now).expect("no violation");
        // What follows is still skipped.
        assert_eq!(payload.rest, if header.kind == Kind::Data { 5 } else { 0 });
        assert_eq!(state.streams(), 0);
    }
}

#[test]
fn ids_run_out_near_the_end_of_their_range() {
    let now = Instant::now();
    let mut state = State::new(Role::Client, Config::default(), now);
    state.set_next_id(u32::MAX - 2);
    assert_eq!(state.open(now).map(|(_, id)| id), Ok(u32::MAX - 2));
    assert_eq!(state.open(now), Err(YamuxError::StreamsExhausted));
}

// --- Windows -----------------------------------------------------------------

#[tokio::test]
async fn a_writer_stops_at_the_window_and_goes_on_with_credit() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    let sent = pattern(1, WINDOW + 1000);
    let mut writing = Box::pin(async {
        stream.write_all(&sent).await.expect("written");
        stream
    });
    assert!(poll_once(&mut writing).await.is_pending());
    assert_eq!(peer.expect_bytes(1, WINDOW).await, sent[..WINDOW]);
    peer.expect_quiet().await;
    assert!(poll_once(&mut writing).await.is_pending());
    peer.send(Header::window_update(Flags::NONE, 1, 400)).await;
    assert!(poll_once(&mut writing).await.is_pending());
    peer.expect_quiet().await;
    assert!(poll_once(&mut writing).await.is_pending());
    assert_eq!(peer.expect_bytes(1, 400).await, sent[WINDOW..WINDOW + 400]);
    peer.send(Header::window_update(Flags::NONE, 1, 600)).await;
    let _stream = writing.await;
    assert_eq!(peer.expect_bytes(1, 600).await, sent[WINDOW + 400..]);
}

#[tokio::test]
async fn credit_beyond_the_range_of_numbers_does_no_harm() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    peer.send(Header::window_update(Flags::NONE, 1, u32::MAX))
        .await;
    peer.send(Header::window_update(Flags::NONE, 1, u32::MAX))
        .await;
    peer.expect_quiet().await;
    let sent = pattern(1, 2 * WINDOW);
    stream.write_all(&sent).await.expect("written");
    assert_eq!(peer.expect_bytes(1, 2 * WINDOW).await, sent);
}

#[tokio::test]
async fn a_large_write_is_few_large_frames() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    stream
        .write_all(&pattern(1, WINDOW))
        .await
        .expect("written");
    let first = peer.expect_data(1).await.len();
    assert!(first >= 128 * 1024, "{first}");
    peer.expect_bytes(1, WINDOW - first).await;
}

#[tokio::test]
async fn credit_is_given_when_half_the_window_has_been_read() {
    let (session, mut peer) = Peer::of(Role::Server);
    let mut stream = Peer::accepted(&session, &mut peer, 1).await;
    let sent = pattern(3, WINDOW);
    peer.send_data(Flags::NONE, 1, &sent).await;
    let mut half = vec![0; WINDOW / 2 - 1];
    stream.read_exact(&mut half).await.expect("data");
    peer.expect_quiet().await;
    stream.read_exact(&mut [0; 1]).await.expect("data");
    peer.expect(Header::window_update(Flags::NONE, 1, INITIAL_WINDOW / 2))
        .await;
    let mut rest = vec![0; WINDOW / 2];
    stream.read_exact(&mut rest).await.expect("data");
    assert_eq!(rest, sent[WINDOW / 2..]);
    peer.expect(Header::window_update(Flags::NONE, 1, INITIAL_WINDOW / 2))
        .await;
}

#[tokio::test]
async fn a_larger_window_is_announced_with_the_stream() {
    let config = Config {
        window: INITIAL_WINDOW + 5,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    let _ours = session.open().await.expect("a stream");
    peer.expect(Header::window_update(Flags::SYN, 1, 5)).await;
    peer.control(Flags::SYN, 2).await;
    let _theirs = session.accept().await.expect("a stream");
    peer.expect(Header::window_update(Flags::ACK, 2, 5)).await;
    peer.send_data(Flags::NONE, 2, &pattern(1, WINDOW + 5))
        .await;
    peer.expect_quiet().await;
}

#[tokio::test]
async fn a_peer_that_exceeds_the_window_loses_the_session() {
    let (session, mut peer) = Peer::of(Role::Server);
    let mut stream = Peer::accepted(&session, &mut peer, 1).await;
    peer.send_data(Flags::NONE, 1, &pattern(1, WINDOW)).await;
    peer.expect_quiet().await;
    peer.send(Header::data(1, 1)).await;
    peer.expect(Header::go_away(go_away::PROTOCOL_ERROR)).await;
    peer.expect_end().await;
    let violation = Violation::WindowExceeded {
        stream: 1,
        sent: 1,
        window: 0,
    };
    assert_eq!(ended(&session).await, CloseReason::Violation(violation));
    // What was received before can still be read.
    let mut all = vec![0; WINDOW];
    stream.read_exact(&mut all).await.expect("data");
    let error = stream
        .read(&mut [0; 1])
        .await
        .expect_err("not an orderly end");
    assert_eq!(yamux_error(&error).code(), "yamux-session-closed");
}

#[tokio::test]
async fn a_stream_nobody_reads_does_not_stop_the_others() {
    let (session, mut peer) = Peer::with(Role::Server, Config::default(), 1024);
    let _slow = Peer::accepted(&session, &mut peer, 1).await;
    let mut fast = Peer::accepted(&session, &mut peer, 3).await;
    peer.send_data(Flags::NONE, 1, &pattern(1, WINDOW)).await;
    peer.send_data(Flags::NONE, 3, b"still here").await;
    let mut text = [0; 10];
    fast.read_exact(&mut text).await.expect("data");
    assert_eq!(&text, b"still here");
}

#[tokio::test]
async fn data_that_arrives_in_crumbs_is_put_together() {
    let (session, mut peer) = Peer::of(Role::Server);
    let mut stream = Peer::accepted(&session, &mut peer, 1).await;
    let sent = pattern(9, 40_000);
    // One large frame in crumbs, then crumbs of frames.
    peer.send(Header::data(1, 20_000)).await;
    for crumb in sent[..20_000].chunks(7) {
        peer.io.write_all(crumb).await.expect("the session reads");
        tokio::task::yield_now().await;
    }
    for crumb in sent[20_000..].chunks(11) {
        peer.send_data(Flags::NONE, 1, crumb).await;
    }
    let mut got = vec![0; sent.len()];
    stream.read_exact(&mut got).await.expect("data");
    assert!(got == sent);
}

// --- Closing streams ---------------------------------------------------------

#[tokio::test]
async fn a_half_closed_stream_still_reads() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    stream.write_all(b"question").await.expect("written");
    stream.shutdown().await.expect("shut down");
    assert_eq!(peer.expect_data(1).await, b"question");
    peer.expect(fin(1)).await;
    let error = stream.write(b"more").await.expect_err("shut down");
    assert_eq!(yamux_error(&error), YamuxError::StreamClosed);
    peer.send_data(Flags::FIN, 1, b"answer").await;
    let mut all = String::new();
    stream
        .read_to_string(&mut all)
        .await
        .expect("data, then the end");
    assert_eq!(all, "answer");
    assert_eq!(session.streams(), 0);
    stream.shutdown().await.expect("a second time is nothing");
    drop(stream);
    peer.expect_quiet().await;
}

#[tokio::test]
async fn a_stream_the_peer_half_closed_still_writes() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    peer.control(Flags::FIN, 1).await;
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
    stream.write_all(b"answer").await.expect("written");
    assert_eq!(peer.expect_data(1).await, b"answer");
    drop(stream);
    peer.expect(fin(1)).await;
    peer.expect_quiet().await;
    assert_eq!(session.streams(), 0);
}

#[tokio::test]
async fn a_second_fin_ends_the_session() {
    let (session, mut peer) = Peer::of(Role::Client);
    let _stream = Peer::opened(&session, &mut peer).await;
    peer.control(Flags::FIN, 1).await;
    peer.control(Flags::FIN, 1).await;
    peer.expect(Header::go_away(1)).await;
    peer.expect_end().await;
    assert_eq!(
        ended(&session).await,
        CloseReason::Violation(Violation::DuplicateFin(1))
    );
}

#[tokio::test]
async fn a_dropped_stream_drains_the_peer_without_new_credit() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    stream.write_all(b"last").await.expect("written");
    drop(stream);
    assert_eq!(peer.expect_data(1).await, b"last");
    peer.expect(fin(1)).await;
    assert_eq!(session.streams(), 1);
    peer.send_data(Flags::NONE, 1, &pattern(1, WINDOW)).await;
    peer.expect_quiet().await;
    peer.control(Flags::FIN, 1).await;
    peer.expect_quiet().await;
    assert_eq!(session.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_within_5_minutes_is_reset() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    let mut kept = Peer::opened(&session, &mut peer).await;
    let dropped = Peer::opened(&session, &mut peer).await;
    let began = Instant::now();
    kept.shutdown().await.expect("shut down");
    drop(dropped);
    peer.expect(fin(1)).await;
    peer.expect(fin(3)).await;
    peer.expect(rst(1)).await;
    peer.expect(rst(3)).await;
    assert_eq!(began.elapsed().as_secs(), 300);
    assert_eq!(session.streams(), 0);
    let error = kept
        .read(&mut [0; 1])
        .await
        .expect_err("not an orderly end");
    assert_eq!(yamux_error(&error).code(), "yamux-close-timeout");
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_closed_before_the_peer_accepts_it_does_not_end_the_session() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    drop(session.open().await.expect("a stream"));
    peer.expect(syn(1)).await;
    peer.expect(fin(1)).await;
    peer.expect(rst(1)).await;
    assert!(!session.is_closed());
}

#[tokio::test]
async fn a_reset_stream_fails_in_both_directions() {
    let (session, mut peer) = Peer::of(Role::Client);
    let stream = Peer::opened(&session, &mut peer).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = tokio::spawn(async move { reader.read(&mut [0; 1]).await });
    peer.control(Flags::RST, 1).await;
    let error = reading.await.expect("no panic").expect_err("reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(yamux_error(&error), YamuxError::StreamReset);
    let error = writer.write(b"x").await.expect_err("reset");
    assert_eq!(yamux_error(&error), YamuxError::StreamReset);
    assert_eq!(session.streams(), 0);
    drop(writer);
    peer.expect_quiet().await;
}

#[tokio::test]
async fn a_stream_reset_before_it_is_accepted_is_still_returned() {
    let (session, mut peer) = Peer::of(Role::Server);
    peer.control(Flags::SYN, 1).await;
    peer.control(Flags::RST, 1).await;
    peer.control(Flags::SYN, 3).await;
    peer.expect_quiet().await;
    let mut first = session.accept().await.expect("a stream");
    assert_eq!(first.id(), 1);
    assert!(first.read(&mut [0; 1]).await.is_err());
    assert_eq!(session.accept().await.expect("a stream").id(), 3);
    peer.expect(ack(3)).await;
}

#[tokio::test]
async fn an_id_can_be_used_again_once_its_stream_is_closed() {
    let (session, mut peer) = Peer::of(Role::Server);
    let mut first = Peer::accepted(&session, &mut peer, 1).await;
    peer.send_data(Flags::FIN, 1, b"first").await;
    first.shutdown().await.expect("shut down");
    peer.expect(fin(1)).await;
    let mut second = Peer::accepted(&session, &mut peer, 1).await;
    peer.send_data(Flags::FIN, 1, b"second").await;
    let mut text = String::new();
    second.read_to_string(&mut text).await.expect("data");
    assert_eq!(text, "second");
    text.clear();
    first.read_to_string(&mut text).await.expect("data");
    assert_eq!(text, "first");
}

#[tokio::test]
async fn frames_for_unknown_streams_are_passed_over() {
    let (session, mut peer) = Peer::with(Role::Server, Config::default(), 1024);
    peer.send_data(Flags::NONE, 77, &pattern(1, 2 * WINDOW))
        .await;
    peer.send(Header::window_update(Flags::NONE, 77, 5)).await;
    peer.control(Flags::FIN, 79).await;
    peer.control(Flags::RST, 81).await;
    peer.expect_quiet().await;
    assert_eq!(session.streams(), 0);
}

// --- Violations --------------------------------------------------------------

async fn violation_of(frames: &[Header], role: Role) -> CloseReason {
    let (session, mut peer) = Peer::of(role);
    for frame in frames {
        peer.send(*frame).await;
    }
    peer.expect(Header::go_away(1)).await;
    peer.expect_end().await;
    ended(&session).await
}

#[tokio::test]
async fn a_stream_opened_twice_ends_the_session() {
    let reason = violation_of(&[syn(1), syn(1)], Role::Server).await;
    assert_eq!(
        reason,
        CloseReason::Violation(Violation::DuplicateStream(1))
    );
}

#[tokio::test]
async fn a_stream_opened_with_this_sides_id_ends_the_session() {
    let foreign = |id| CloseReason::Violation(Violation::ForeignStream(id));
    assert_eq!(violation_of(&[syn(2)], Role::Server).await, foreign(2));
    assert_eq!(violation_of(&[syn(0)], Role::Server).await, foreign(0));
    assert_eq!(violation_of(&[syn(1)], Role::Client).await, foreign(1));
    assert_eq!(violation_of(&[syn(0)], Role::Client).await, foreign(0));
}

#[tokio::test]
async fn a_bad_version_or_type_ends_the_session() {
    for (place, violation) in [(0, Violation::Version(9)), (1, Violation::FrameType(9))] {
        let (session, mut peer) = Peer::of(Role::Server);
        let mut bytes = Header::ping(Flags::SYN, 1).encode();
        bytes[place] = 9;
        peer.io.write_all(&bytes).await.expect("the session reads");
        assert_eq!(ended(&session).await, CloseReason::Violation(violation));
    }
}

#[tokio::test]
async fn no_bytes_whatever_make_a_session_panic_or_hang() {
    for seed in 0..300 {
        let (session, mut peer) = Peer::with(Role::Server, Config::default(), 64 * 1024);
        let mut bytes = pattern(seed, 600);
        for header in bytes.chunks_mut(HEADER_LEN) {
            // Mostly well-formed headers with small numbers.
            if let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, ..] = header {
                (*version, *f0, *s0, *s1, *s2, *l0, *l1) = (0, 0, 0, 0, 0, 0, 0);
                *kind %= 4;
                *f1 %= 16;
                *s3 %= 8;
            }
        }
        let accepting = tokio::spawn({
            let session = session.clone();
            async move { while session.accept().await.is_ok() {} }
        });
        // The session may end before it has read everything.
        let _ = peer.io.write_all(&bytes).await;
        drop(peer);
        ended(&session).await;
        accepting.await.expect("no panic");
    }
}

// --- Pings and time ----------------------------------------------------------

#[tokio::test]
async fn every_ping_is_answered_with_its_number() {
    let (_session, mut peer) = Peer::of(Role::Client);
    for number in [0, 7, u32::MAX, 7] {
        peer.send(Header::ping(Flags::SYN, number)).await;
        peer.expect(Header::ping(Flags::ACK, number)).await;
    }
    // An answer to nothing is nothing.
    peer.send(Header::ping(Flags::ACK, 3)).await;
    peer.expect_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_tells_the_time_it_took() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, ROOMY);
    let answering = tokio::spawn(async move {
        peer.expect(Header::ping(Flags::SYN, 0)).await;
        tokio::time::advance(Duration::from_secs(3)).await;
        peer.send(Header::ping(Flags::ACK, 0)).await;
        peer
    });
    assert_eq!(session.ping().await.expect("an answer").as_secs(), 3);
    let mut peer = answering.await.expect("no panic");
    let began = Instant::now();
    let error = session.ping().await.expect_err("no answer");
    assert_eq!(
        (error.code(), began.elapsed().as_secs()),
        ("yamux-ping-timeout", 10)
    );
    peer.expect(Header::ping(Flags::SYN, 1)).await;
    drop(peer);
    ended(&session).await;
    assert_eq!(
        session.ping().await.expect_err("ended").code(),
        "yamux-session-closed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_every_30_seconds() {
    let (session, mut peer) = Peer::of(Role::Client);
    let began = Instant::now();
    for number in 0..5 {
        peer.expect(Header::ping(Flags::SYN, number)).await;
        assert_eq!(began.elapsed().as_secs(), 30 * (u64::from(number) + 1));
        peer.send(Header::ping(Flags::ACK, number)).await;
    }
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_within_10_seconds_loses_the_session() {
    let (session, mut peer) = Peer::of(Role::Client);
    let began = Instant::now();
    let reason = ended(&session).await;
    assert_eq!(began.elapsed().as_secs(), 40);
    assert_eq!(
        reason,
        CloseReason::KeepAliveTimeout(Duration::from_secs(10))
    );
    peer.expect(Header::ping(Flags::SYN, 0)).await;
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn writers_fail_while_the_connection_takes_nothing_for_10_seconds() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, 256);
    let mut stream = Peer::opened(&session, &mut peer).await;
    let began = Instant::now();
    let sent = pattern(1, WINDOW - 1);
    let error = stream
        .write_all(&sent)
        .await
        .expect_err("the connection is full");
    assert_eq!(
        (error.kind(), began.elapsed().as_secs()),
        (io::ErrorKind::TimedOut, 10)
    );
    assert_eq!(yamux_error(&error).code(), "yamux-write-timeout");
    let error = stream.flush().await.expect_err("the connection is full");
    assert_eq!(yamux_error(&error).code(), "yamux-write-timeout");
    // Nothing is lost: what was taken arrives once the peer reads again.
    assert_eq!(peer.expect_data(1).await, sent[..128 * 1024]);
    let second = peer.expect_data(1).await;
    assert_eq!(second, sent[128 * 1024..][..second.len()]);
    stream.flush().await.expect("flushed");
    stream.write_all(b"again").await.expect("written");
    assert_eq!(peer.expect_data(1).await, b"again");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_wants_answers_and_reads_none_loses_the_session() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, 1024);
    let flood = async {
        loop {
            let ping = Header::ping(Flags::SYN, 1).encode();
            if peer.io.write_all(&ping).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, flood)
        .await
        .expect("the session stops reading and ends");
    assert_eq!(ended(&session).await.code(), "connection-write-timeout");
}

#[tokio::test(start_paused = true)]
async fn answers_wanted_after_the_connection_stalled_end_the_session_too() {
    let config = Config {
        keep_alive: None,
        ..Config::default()
    };
    let (session, mut peer) = Peer::with(Role::Client, config, 16 * 1024);
    let mut stream = Peer::opened(&session, &mut peer).await;
    let error = stream
        .write_all(&pattern(1, WINDOW))
        .await
        .expect_err("the connection is full");
    assert_eq!(yamux_error(&error).code(), "yamux-write-timeout");
    let ping = Header::ping(Flags::SYN, 1).encode();
    while peer.io.write_all(&ping).await.is_ok() {}
    assert_eq!(ended(&session).await.code(), "connection-write-timeout");
}

#[tokio::test]
async fn answers_that_had_to_wait_are_all_given() {
    let (_session, peer) = Peer::with(Role::Client, Config::default(), 1024);
    let (mut reader, mut writer) = tokio::io::split(peer.io);
    const COUNT: u32 = 20_000;
    let asking = tokio::spawn(async move {
        for number in 0..COUNT {
            writer
                .write_all(&Header::ping(Flags::SYN, number).encode())
                .await
                .expect("taken");
        }
        writer
    });
    let_others_run().await;
    assert!(!asking.is_finished(), "the session has stopped reading");
    for number in 0..COUNT {
        let mut bytes = [0; HEADER_LEN];
        reader.read_exact(&mut bytes).await.expect("an answer");
        assert_eq!(Header::decode(bytes), Ok(Header::ping(Flags::ACK, number)));
    }
    asking.await.expect("no panic");
}

// --- The session's end -------------------------------------------------------

#[tokio::test]
async fn go_away_0_stops_new_streams_only() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    peer.send(Header::go_away(0)).await;
    peer.expect_quiet().await;
    assert_eq!(
        session.open().await.expect_err("refused"),
        YamuxError::RemoteGoAway
    );
    stream.write_all(b"still here").await.expect("written");
    assert_eq!(peer.expect_data(1).await, b"still here");
    Peer::accepted(&session, &mut peer, 2).await;
}

#[tokio::test]
async fn any_other_go_away_ends_the_session() {
    for code in [1, 2, 3, u32::MAX] {
        let (session, mut peer) = Peer::of(Role::Client);
        peer.send(Header::go_away(code)).await;
        peer.expect_end().await;
        assert_eq!(ended(&session).await, CloseReason::GoAway(code));
    }
}

#[tokio::test]
async fn closing_closes_the_connection_and_says_nothing() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    peer.send_data(Flags::NONE, 1, b"unread").await;
    peer.expect_quiet().await;
    stream.write_all(b"before").await.expect("written");
    session.close();
    assert!(session.is_closed());
    assert_eq!(ended(&session).await, CloseReason::Local);
    assert_eq!(peer.expect_data(1).await, b"before");
    peer.expect_end().await;
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .await
        .expect("data, then the end");
    assert_eq!(rest, b"unread");
    assert!(stream.write(b"after").await.is_err());
    stream.shutdown().await.expect("nothing left to shut down");
    assert_eq!(
        session.open().await.expect_err("ended").code(),
        "yamux-session-closed"
    );
    assert_eq!(
        session.accept().await.expect_err("ended").code(),
        "yamux-session-closed"
    );
    assert_eq!(session.streams(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_a_peer_that_does_not_read() {
    let (session, mut peer) = Peer::with(Role::Client, Config::default(), 256);
    let mut stream = Peer::opened(&session, &mut peer).await;
    let _written = stream.write(&pattern(1, 10_000)).await.expect("written");
    let began = Instant::now();
    session.close();
    ended(&session).await;
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn the_peers_end_ends_every_stream_and_every_wait() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    peer.send_data(Flags::NONE, 1, b"last words").await;
    let accepting = tokio::spawn({
        let session = session.clone();
        async move { session.accept().await.map(|stream| stream.id()) }
    });
    let pinging = tokio::spawn({
        let session = session.clone();
        async move { session.ping().await }
    });
    peer.expect(Header::ping(Flags::SYN, 0)).await;
    drop(peer);
    assert_eq!(ended(&session).await, CloseReason::Peer);
    let closed = YamuxError::SessionClosed(CloseReason::Peer);
    assert_eq!(accepting.await.expect("no panic"), Err(closed.clone()));
    assert_eq!(pinging.await.expect("no panic"), Err(closed));
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .expect("data, then the end");
    assert_eq!(text, "last words");
    assert!(stream.write(b"x").await.is_err());
}

#[tokio::test]
async fn the_last_handle_ends_the_session_after_what_was_written() {
    // The pipe is so narrow that most of the data is still queued at the drop.
    let (session, mut peer) = Peer::with(Role::Client, Config::default(), 256);
    let mut stream = Peer::opened(&session, &mut peer).await;
    let clone = session.clone();
    drop(session);
    let sent = pattern(1, 50_000);
    stream.write_all(&sent).await.expect("taken");
    drop(clone);
    drop(stream);
    assert_eq!(peer.expect_bytes(1, sent.len()).await, sent);
    peer.expect(fin(1)).await;
    peer.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_holds_an_unused_session_for_10_seconds_only() {
    const ON_ITS_WAY: usize = 256;
    let (session, mut peer) = Peer::with(Role::Client, Config::default(), ON_ITS_WAY);
    let mut stream = Peer::opened(&session, &mut peer).await;
    stream.write_all(&pattern(1, 50_000)).await.expect("taken");
    let began = Instant::now();
    drop((session, stream));
    // A peer that takes a byte now and then does not prolong it.
    let trickle = async {
        while peer.io.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, trickle)
        .await
        .expect("the connection is closed");
    // What was on its way when the 10 seconds were over is read a byte a second, too, and
    // the last byte and the end take a second each.
    let longest = Duration::from_secs(10 + ON_ITS_WAY as u64 + 2);
    assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_keeps_its_session() {
    let (session, mut peer) = Peer::of(Role::Client);
    let mut stream = Peer::opened(&session, &mut peer).await;
    drop(session);
    peer.expect_quiet().await;
    peer.send_data(Flags::FIN, 1, b"data").await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("data");
    assert_eq!(text, "data");
    drop(stream);
    peer.expect(fin(1)).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn what_the_peer_wrote_before_it_closed_is_read_after_a_failed_write() {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().expect("a socket pair");
    let session = Session::new(ours, Role::Client, Config::default());
    let mut stream = session.open().await.expect("a stream");
    let mut header = [0; HEADER_LEN];
    theirs.read_exact(&mut header).await.expect("the opening");
    let mut answer = Header::data(1, 4).encode().to_vec();
    answer.extend_from_slice(b"done");
    theirs.write_all(&answer).await.expect("written");
    drop(theirs);
    // Before the session's task runs the write finds a closed socket.
    stream.write_all(b"too late").await.expect("taken");
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .expect("data, then the end");
    assert_eq!(text, "done");
    assert_eq!(ended(&session).await, CloseReason::Peer);
}

#[test]
fn a_session_ends_with_its_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let first = runtime();
    let (session, mut stream) = first.block_on(async {
        let (session, mut peer) = Peer::of(Role::Client);
        let stream = Peer::opened(&session, &mut peer).await;
        tokio::spawn(async move { peer.next().await });
        (session, stream)
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(session.closed().await, CloseReason::RuntimeStopped);
        assert!(stream.read(&mut [0; 1]).await.is_err());
        assert!(stream.write(&[0; 1]).await.is_err());
    });
}

#[test]
fn every_failure_has_a_code_and_says_what_happened() {
    let timeout = Duration::from_secs(10);
    let cases = [
        (
            YamuxError::RemoteGoAway,
            "yamux-remote-go-away",
            "the peer takes no new streams",
        ),
        (
            YamuxError::StreamReset,
            "yamux-stream-reset",
            "the peer reset the stream",
        ),
        (
            YamuxError::WriteTimeout(timeout),
            "yamux-write-timeout",
            "the connection took no bytes for 10s (`write_timeout`)",
        ),
        (
            YamuxError::SessionClosed(CloseReason::GoAway(2)),
            "yamux-session-closed",
            "the yamux session has ended",
        ),
    ];
    for (error, code, text) in cases {
        assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    }
    assert_eq!(
        CloseReason::OpenTimeout { stream: 3, timeout }.to_string(),
        "the peer did not accept stream 3 within 10s (`open_timeout`)"
    );
    let exceeded = Violation::WindowExceeded {
        stream: 1,
        sent: 5,
        window: 4,
    };
    assert_eq!(
        CloseReason::from(exceeded).to_string(),
        "the peer broke the yamux protocol: 5 bytes on stream 1, whose window had 4 left"
    );
}

// --- Writing -----------------------------------------------------------------

/// Counts the writes that reach a connection.
struct Counted {
    io: tokio::net::UnixStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_small_message_is_one_write_and_waits_for_nobody() {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().expect("a socket pair");
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Counted {
        io: ours,
        writes: Arc::clone(&writes),
    };
    let session = Session::new(io, Role::Client, Config::default());
    let mut stream = session.open().await.expect("a stream");
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    for round in 2..20 {
        let pieces = [
            io::IoSlice::new(b"head"),
            io::IoSlice::new(b""),
            io::IoSlice::new(b"tail"),
        ];
        assert_eq!(stream.write_vectored(&pieces).await.expect("written"), 8);
        stream.flush().await.expect("flushed");
        assert_eq!(writes.load(Ordering::Relaxed), round);
    }
    let mut bytes = vec![0; 2 * HEADER_LEN + 8];
    theirs.read_exact(&mut bytes).await.expect("frames");
    assert_eq!(
        bytes[HEADER_LEN..2 * HEADER_LEN],
        Header::data(1, 8).encode()
    );
    assert_eq!(&bytes[2 * HEADER_LEN..], b"headtail");
}

#[tokio::test]
async fn streams_take_turns_on_a_full_connection() {
    let (session, mut peer) = Peer::with(Role::Client, Config::default(), 256);
    let mut greedy = Peer::opened(&session, &mut peer).await;
    let mut modest = Peer::opened(&session, &mut peer).await;
    let writing = tokio::spawn(async move {
        greedy
            .write_all(&pattern(1, WINDOW))
            .await
            .expect("written");
        greedy
    });
    // The greedy stream has filled the connection and its queue.
    let_others_run().await;
    modest.write_all(b"me too").await.expect("taken");
    let mut before = 0;
    loop {
        let header = peer.next().await.expect("a frame");
        let mut body = vec![0; header.length as usize];
        peer.io.read_exact(&mut body).await.expect("the payload");
        if header.stream == modest.id() {
            break;
        }
        before += body.len();
    }
    assert!(before <= 192 * 1024, "{before} bytes went first");
    peer.expect_bytes(1, WINDOW - before).await;
    writing.await.expect("no panic");
}

// --- Two sessions ------------------------------------------------------------

async fn echo(session: Session) {
    let mut tasks = JoinSet::new();
    while let Ok(mut stream) = session.accept().await {
        tasks.spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let length = stream.read(&mut buffer).await.expect("read");
                if length == 0 {
                    break;
                }
                stream.write_all(&buffer[..length]).await.expect("written");
            }
            stream.shutdown().await.expect("shut down");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
}

/// Writes `sent` in pieces while reading everything that comes back.
async fn converse(stream: Stream, sent: Vec<u8>, piece: usize) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async move {
        for part in sent.chunks(piece.max(1)) {
            writer.write_all(part).await.expect("written");
        }
        writer.shutdown().await.expect("shut down");
    };
    let reading = async move {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.expect("read");
        got
    };
    tokio::join!(writing, reading).1
}

async fn random_conversations(seed: u32, buffer: usize) {
    let (client, server) = pair(buffer);
    let servers = [
        tokio::spawn(echo(client.clone())),
        tokio::spawn(echo(server.clone())),
    ];
    let dice: Vec<usize> = pattern(seed, 64).into_iter().map(usize::from).collect();
    let mut tasks = JoinSet::new();
    for (number, dice) in dice.chunks(2).enumerate() {
        let from = if dice[0] % 2 == 0 {
            client.clone()
        } else {
            server.clone()
        };
        let piece = 1 + dice[1] * dice[1];
        let length = (dice[0] * dice[1] * 16).min(piece * 200).min(buffer * 100);
        let seed = seed + number as u32;
        tasks.spawn(async move {
            let stream = from.open().await.expect("a stream");
            let sent = pattern(seed, length);
            let got = converse(stream, sent.clone(), piece).await;
            assert!(got == sent, "{length} bytes in pieces of {piece}");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    client.close();
    assert_eq!(ended(&server).await, CloseReason::Peer);
    for server in servers {
        server.await.expect("no panic");
    }
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[tokio::test]
async fn interleaved_streams_deliver_their_own_bytes() {
    for seed in 0..3 {
        for buffer in [61, 4096, ROOMY] {
            random_conversations(seed * 100, buffer).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn interleaved_streams_deliver_their_own_bytes_on_many_threads() {
    for seed in 0..3 {
        for buffer in [61, 4096, ROOMY] {
            random_conversations(seed * 100 + 7, buffer).await;
        }
    }
}

/// Uses a session until it ends, in ways that are cut short again and again.
async fn misuse(session: Session, seed: u32) {
    let mut dice = pattern(seed, 4096).into_iter().cycle();
    let mut throw = move || usize::from(dice.next().unwrap_or_default());
    loop {
        let opened = match throw() % 2 {
            0 => session.open().await,
            _ => session.accept().await,
        };
        let Ok(mut stream) = opened else { return };
        for _ in 0..throw() % 8 {
            let patience = Duration::from_micros(throw() as u64);
            let bytes = pattern(seed, throw() * throw());
            // Every operation may fail, or be given up half-way.
            let _ = match throw() % 5 {
                0 | 1 => timeout(patience, stream.write_all(&bytes))
                    .await
                    .map(|done| done.is_ok()),
                2 => timeout(patience, stream.read(&mut [0; 3000]))
                    .await
                    .map(|done| done.is_ok()),
                3 => timeout(patience, stream.flush())
                    .await
                    .map(|done| done.is_ok()),
                _ => timeout(patience, session.ping())
                    .await
                    .map(|done| done.is_ok()),
            };
        }
        if throw() % 4 == 0 {
            let _ = timeout(Duration::from_millis(1), stream.shutdown()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_ever_whatever_is_dropped_when() {
    for seed in 0..4 {
        let (a, b) = tokio::net::UnixStream::pair().expect("a socket pair");
        let client = Session::new(a, Role::Client, Config::default());
        let server = Session::new(b, Role::Server, Config::default());
        let mut tasks = JoinSet::new();
        for number in 0..12 {
            let session = if number % 2 == 0 { &client } else { &server };
            tasks.spawn(misuse(session.clone(), seed * 100 + number));
        }
        // Answered in spite of all that, so every lock and queue still moves.
        for _ in 0..20 {
            client.ping().await.expect("an answer");
            server.ping().await.expect("an answer");
        }
        let (first, second) = if seed % 2 == 0 {
            (client, server)
        } else {
            (server, client)
        };
        first.close();
        assert_eq!(ended(&first).await, CloseReason::Local);
        assert_eq!(ended(&second).await, CloseReason::Peer);
        let rest = async { while tasks.join_next().await.is_some_and(|done| done.is_ok()) {} };
        timeout(Duration::from_secs(60), rest)
            .await
            .expect("every task notices the end");
        assert_eq!((first.streams(), second.streams(), tasks.len()), (0, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_over_sockets_carry_both_ways_at_once() {
    let (a, b) = tokio::net::UnixStream::pair().expect("a socket pair");
    let client = Session::new(a, Role::Client, Config::default());
    let server = Session::new(b, Role::Server, Config::default());
    let servers = [
        tokio::spawn(echo(client.clone())),
        tokio::spawn(echo(server.clone())),
    ];
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let from = if number % 2 == 0 {
            client.clone()
        } else {
            server.clone()
        };
        tasks.spawn(async move {
            let sent = pattern(number, 4 * 1024 * 1024);
            let stream = from.open().await.expect("a stream");
            let got = converse(stream, sent.clone(), 60_000).await;
            assert!(got == sent);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    server.close();
    assert_eq!(ended(&client).await, CloseReason::Peer);
    for server in servers {
        server.await.expect("no panic");
    }
}

#[tokio::test]
async fn thousands_of_streams_live_side_by_side() {
    let (client, server) = pair(64 * 1024);
    let serving = tokio::spawn(echo(server));
    let mut streams = HashMap::new();
    for _ in 0..3000 {
        let mut stream = client.open().await.expect("a stream");
        stream
            .write_all(&stream.id().to_be_bytes())
            .await
            .expect("written");
        streams.insert(stream.id(), stream);
    }
    assert_eq!(client.streams(), 3000);
    for (id, stream) in &mut streams {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.expect("an echo");
        assert_eq!(u32::from_be_bytes(bytes), *id);
    }
    for stream in streams.values_mut() {
        stream.shutdown().await.expect("shut down");
        assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
    }
    assert_eq!(client.streams(), 0);
    client.close();
    serving.await.expect("no panic");
}

#[tokio::test]
async fn a_session_can_run_within_a_stream_of_another() {
    let (client, server) = pair(ROOMY);
    let outer = client.open().await.expect("a stream");
    let inner_client = Session::new(outer, Role::Client, Config::default());
    let outer = server.accept().await.expect("a stream");
    let inner_server = Session::new(outer, Role::Server, Config::default());
    let serving = tokio::spawn(echo(inner_server));
    let sent = pattern(5, 1_000_000);
    let stream = inner_client.open().await.expect("a stream");
    assert!(converse(stream, sent.clone(), 10_000).await == sent);
    drop(inner_client);
    timeout(PATIENCE, serving)
        .await
        .expect("the inner session ends")
        .expect("no panic");
}
