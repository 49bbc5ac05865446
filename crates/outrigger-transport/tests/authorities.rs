//! What clients of other languages write into `:authority` keeps nobody from
//! answering them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::Authority;
use http::{Request, Response, Uri};
use outrigger_transport::{
    IncomingBody, OwnedTask, ServeLimits, ServiceSet, health, serve_connection,
};
use outrigger_wire::AuthorityFilter;
use outrigger_wire::fuzzing::huffman_coded;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

const LIMIT: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for all that one side sends.
const ROOM: usize = 1 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A server at one end of a pipe that holds `room` bytes.
fn served(services: ServiceSet, room: usize) -> (DuplexStream, OwnedTask) {
    let (near, far) = duplex(room);
    let (limits, stop) = (ServeLimits::default(), CancellationToken::new());
    let server = OwnedTask::spawn(serve_connection(Box::new(far), services, limits, stop));
    (near, server)
}

/// What a recorded client sent.
fn recorded(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/recordings");
    let text = std::fs::read_to_string(dir.join(name)).expect("a recording");
    let sent = text.lines().filter_map(|line| line.strip_prefix("H>P "));
    let digits: Vec<u8> = sent.flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// The frames of a server until it has sent as many with data.
async fn answers(mut from: impl AsyncReadExt + Unpin, wanted: usize) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    while answers.len() < wanted {
        let mut header = [0; 9];
        from.read_exact(&mut header).await.expect("a frame");
        let mut payload =
            vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        from.read_exact(&mut payload).await.expect("a frame");
        match header[3] {
            DATA => answers.push(payload),
            RST_STREAM | GOAWAY => panic!("the server refuses: {header:?} {payload:?}"),
            _ => {}
        }
    }
    answers
}

#[tokio::test]
async fn clients_of_other_languages_that_were_recorded_are_answered() {
    for name in ["grpc-python.txt", "grpc-java.txt", "grpc-node-huffman.txt"] {
        let sent = recorded(name);
        let mut filtered = sent.clone();
        AuthorityFilter::new().pass(&mut filtered);
        assert_ne!(filtered, sent, "{name} has no odd authority");

        for room in [1, 40, ROOM] {
            let (near, _server) = served(ServiceSet::new().with(health::service()), room);
            let (from, mut to) = tokio::io::split(near);
            let exchange = async { tokio::join!(to.write_all(&sent), answers(from, 3)).1 };
            let answers = tokio::time::timeout(LIMIT, exchange)
                .await
                .expect("in time");
            // A message of two bytes: serving.
            assert_eq!(answers, vec![[0, 0, 0, 0, 2, 8, 1]; 3], "{name}");
        }
    }
}

#[tokio::test]
async fn what_our_own_clients_send_stays_as_it_is() {
    let (near, mut far) = duplex(ROOM);
    let (mut send, mut connection) = h2::client::handshake(near).await.expect("begun");
    for (uri, metadata) in [
        ("http://localhost/test.Seen/A", "a"),
        ("http://localhost:80/test.Seen/B", "%2Ftmp%2Fplugin"),
        ("https://[::1]:443/test.Seen/C", "/tmp/plugin"),
        ("http://localhost/test.Seen/A", "a"),
    ] {
        let mut request = Request::post(uri)
            .header("x-path", metadata)
            .body(())
            .expect("a request");
        request
            .headers_mut()
            .insert("x-authority", metadata.parse().expect("a value"));
        let (_, mut body) = send.send_request(request, false).expect("sent");
        body.send_data(Bytes::from_static(b"\x41\x06%2Ftmp"), true)
            .expect("sent");
        // Writes all that there is to write.
        assert!((&mut connection).now_or_never().is_none());
    }
    drop((send, connection));
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.expect("all of it");
    assert!(sent.len() > 300, "{}", sent.len());
    let mut filtered = sent.clone();
    assert_eq!(AuthorityFilter::new().pass(&mut filtered), sent.len());
    assert_eq!(filtered, sent);
}

/// A service that tells where each call went.
#[derive(Clone)]
struct Seen(mpsc::UnboundedSender<(Uri, Option<Bytes>)>);

impl tonic::server::NamedService for Seen {
    const NAME: &'static str = "test.Seen";
}

impl tower_service::Service<Request<IncomingBody>> for Seen {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> Self::Future {
        let mark = request.headers().get("x-mark");
        let mark = mark.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let _ = self.0.send((request.uri().clone(), mark));
        ready(Ok(Response::default()))
    }
}

/// How a header is written.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// With indexing, without it, never.
    kind: u8,
    /// Takes the name from a table where it is there, the whole header too.
    indexed: bool,
    whole: bool,
    coded_name: bool,
    coded_value: bool,
}

fn form() -> impl Strategy<Value = Form> {
    let kind = prop_oneof![3 => Just(0), 1 => 1..3_u8];
    (kind, any::<[bool; 4]>()).prop_map(|(kind, [indexed, whole, coded_name, coded_value])| Form {
        kind,
        indexed,
        whole,
        coded_name,
        coded_value,
    })
}

/// The sending end of HPACK, with its table.
#[derive(Default)]
struct Encoder {
    table: VecDeque<(String, String)>,
    most: usize,
}

impl Encoder {
    fn evict(&mut self) {
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.most {
            self.table.pop_back();
        }
    }

    fn resize(&mut self, most: usize, block: &mut Vec<u8>) {
        self.most = most;
        integer(block, 0x20, 5, most);
        self.evict();
    }

    fn header(&mut self, block: &mut Vec<u8>, name: &str, value: &str, form: Form) {
        let entry = (name.to_owned(), value.to_owned());
        let place = |found: Option<usize>| found.map(|place| place + 62);
        let whole = place(self.table.iter().position(|known| *known == entry));
        if let (Some(index), true) = (whole, form.whole) {
            return integer(block, 0x80, 7, index);
        }
        let dynamic = place(self.table.iter().position(|(known, _)| known == name));
        let fixed = [":authority", "", ":method", ":path", "", ":scheme"];
        let index = dynamic.or_else(|| Some(fixed.iter().position(|known| *known == name)? + 1));
        let (first, bits) = [(0x40, 6), (0x00, 4), (0x10, 4)][usize::from(form.kind)];
        match index {
            Some(index) if form.indexed => integer(block, first, bits, index),
            _ => {
                block.push(first);
                string(block, name, form.coded_name);
            }
        }
        string(block, value, form.coded_value);
        if form.kind == 0 {
            self.table.push_front(entry);
            self.evict();
        }
    }
}

fn integer(block: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let full = (1 << bits) - 1;
    if value < full {
        return block.push(first | value as u8);
    }
    block.push(first | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

fn string(block: &mut Vec<u8>, text: &str, coded: bool) {
    let (first, bytes) = match coded {
        true => (0x80, huffman_coded(text.as_bytes())),
        false => (0, text.as_bytes().to_vec()),
    };
    integer(block, first, 7, bytes.len());
    block.extend(bytes);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One request: its authority, other headers, and how all of it is sent.
#[derive(Clone, Debug)]
struct Sent {
    authority: String,
    forms: [Form; 5],
    others: Vec<(u8, String, Form)>,
    resized: Option<usize>,
    padding: Option<u8>,
    priority: bool,
    cuts: Vec<usize>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let authority = prop_oneof![
        Just("localhost".to_owned()),
        Just("[::1]:50051".to_owned()),
        Just("%2Ftmp%2Fplugin1664012345".to_owned()),
        "/tmp/[a-z0-9]{1,20}",
        "[%/ :?#@a-z0-9.-]{1,40}",
        "/home/j\u{fc}rgen/[a-z]{1,20}",
    ];
    let forms = [form(), form(), form(), form(), form()];
    let other = (0..4_u8, "[a-z%/]{0,900}", form());
    (
        authority,
        forms,
        proptest::collection::vec(other, 0..4),
        proptest::option::weighted(0.2, prop_oneof![Just(4096_usize), 0..4096_usize]),
        proptest::option::of(any::<u8>()),
        any::<bool>(),
        proptest::collection::vec(0..200_usize, 0..4),
    )
        .prop_map(
            |(authority, forms, others, resized, padding, priority, cuts)| Sent {
                authority,
                forms,
                others,
                resized,
                padding,
                priority,
                cuts,
            },
        )
}

fn frames(encoder: &mut Encoder, number: usize, sent: &Sent) -> Vec<u8> {
    let mut block = Vec::new();
    if let Some(most) = sent.resized {
        encoder.resize(most, &mut block);
    }
    let path = format!("/test.Seen/{number}");
    let mark = format!("mark {}", number / 2);
    let [a, b, c, d, e] = sent.forms;
    encoder.header(&mut block, ":path", &path, a);
    encoder.header(&mut block, ":authority", &sent.authority, b);
    encoder.header(&mut block, ":method", "POST", c);
    encoder.header(&mut block, ":scheme", "http", d);
    for (name, value, form) in &sent.others {
        encoder.header(&mut block, &format!("x-other-{name}"), value, *form);
    }
    encoder.header(&mut block, "x-mark", &mark, e);

    let stream = number as u32 * 2 + 1;
    let mut cuts: Vec<_> = sent.cuts.iter().map(|cut| *cut.min(&block.len())).collect();
    cuts.sort_unstable();
    cuts.push(block.len());
    let mut frames = Vec::new();
    let mut begin = 0;
    for (place, end) in cuts.iter().enumerate() {
        let (mut flags, mut payload) = (0, Vec::new());
        if place == 0 {
            flags |= END_STREAM;
            if let Some(padding) = sent.padding {
                flags |= PADDED;
                payload.push(padding);
            }
            if sent.priority {
                flags |= PRIORITY;
                payload.extend([0, 0, 0, 0, 7]);
            }
        }
        payload.extend_from_slice(&block[begin..*end]);
        if let (0, Some(padding)) = (place, sent.padding) {
            payload.resize(payload.len() + usize::from(padding), 0);
        }
        if place + 1 == cuts.len() {
            flags |= END_HEADERS;
        }
        let kind = if place == 0 { HEADERS } else { CONTINUATION };
        frames.extend(frame(kind, flags, stream, &payload));
        begin = *end;
    }
    frames
}

/// Sends the requests in pieces of `room` bytes; each must arrive as it was meant.
async fn arrive(requests: &[Sent], room: usize) {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let (near, _server) = served(ServiceSet::new().with(Seen(sender)), room);
    let mut encoder = Encoder {
        most: 4096,
        ..Encoder::default()
    };
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (number, sent) in requests.iter().enumerate() {
        bytes.extend(frames(&mut encoder, number, sent));
    }
    let (from, mut to) = tokio::io::split(near);
    let check = async {
        for (number, sent) in requests.iter().enumerate() {
            let (uri, mark) = seen.recv().await.expect("a call");
            assert_eq!(uri.path(), format!("/test.Seen/{number}"));
            assert_eq!(mark, Some(format!("mark {}", number / 2).into()));
            let authority = uri.authority().expect("an authority").as_str();
            if Authority::try_from(sent.authority.as_str()).is_ok() {
                assert_eq!(authority, sent.authority);
            } else {
                assert_eq!(authority.len(), sent.authority.len());
            }
        }
    };
    tokio::select! {
        () = check => {}
        // Panics where the server refuses something.
        (_, refused) = async { tokio::join!(to.write_all(&bytes), answers(from, usize::MAX)) } => {
            unreachable!("{refused:?}")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Our own reading of headers, and our own tables, agree with HTTP/2's library
    /// on whatever a client may send.
    #[test]
    fn a_request_arrives_whatever_its_authority_and_however_it_is_written(
        requests in proptest::collection::vec(sent(), 1..12),
        room in prop_oneof![1..64_usize, Just(ROOM)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let arrive = arrive(&requests, room);
            tokio::time::timeout(LIMIT, arrive).await.expect("in time");
        });
    }
}
