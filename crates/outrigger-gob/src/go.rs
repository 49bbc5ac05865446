//! Our gob against Go's, value by value.
//!
//! The peer is `interop/go/cmd/gob`; `OUTRIGGER_GO_PEERS` names the folder of
//! its program. Without it these tests say that they are skipped, and fail
//! where `CI=true`.
//!
//! Go makes streams of random values. We read them without knowing their
//! types, and write them again twice: with the ids that Go gave to the types,
//! which must result in exactly Go's bytes, and with our own ids, which Go
//! reads and compares with what it sent.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::{
    Complex, Decoder, Encoded, Encoder, GoString, Gob, Interface, Limits, Opaque, OpaqueKind, Time,
};

struct Go {
    child: Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
}

/// The Go program, if there is one.
fn peer() -> Option<Go> {
    let Some(folder) = std::env::var_os("OUTRIGGER_GO_PEERS") else {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "OUTRIGGER_GO_PEERS is not set, and this is CI");
        say("skipped: OUTRIGGER_GO_PEERS does not name a folder with `gob`");
        return None;
    };
    #[expect(clippy::disallowed_methods, reason = "this is not a plugin")]
    let mut child = Command::new(PathBuf::from(folder).join("gob"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    Some(Go {
        to: child.stdin.take(),
        from: child.stdout.take().expect("a pipe"),
        child,
    })
}

#[expect(clippy::print_stderr, reason = "a test says what it did not do")]
fn say(text: &str) {
    eprintln!("{text}");
}

impl Go {
    /// Asks for streams; returns them.
    fn ask(&mut self, kind: u8, seed: u64, streams: u32) -> Vec<Vec<u8>> {
        let mut request = vec![kind];
        request.extend(seed.to_be_bytes());
        request.extend(streams.to_be_bytes());
        self.send(&request);
        (0..streams).map(|_| self.frame()).collect()
    }

    /// Sends streams back, which must be the same to Go.
    fn answer(&mut self, streams: &[BytesMut]) {
        let mut all = Vec::new();
        for stream in streams {
            all.extend((stream.len() as u32).to_be_bytes());
            all.extend_from_slice(stream);
        }
        self.send(&all);
        let differing = self.number();
        let first = self.frame();
        let first = String::from_utf8_lossy(&first);
        assert_eq!(
            differing,
            0,
            "of {} streams; the first: {first}",
            streams.len()
        );
    }

    fn send(&mut self, bytes: &[u8]) {
        let to = self.to.as_mut().expect("a pipe");
        to.write_all(bytes).expect("the peer reads");
    }

    fn number(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes).expect("the peer writes");
        u32::from_be_bytes(bytes)
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; self.number() as usize];
        self.from.read_exact(&mut frame).expect("the peer writes");
        frame
    }

    fn finish(mut self) {
        drop(self.to.take());
        assert!(self.child.wait().expect("a status").success());
    }
}

/// Reads a stream in pieces of `step` bytes.
fn read(stream: &[u8], step: usize) -> Vec<Encoded> {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::new();
    let mut values = Vec::new();
    for piece in stream.chunks(step) {
        input.extend_from_slice(piece);
        while let Some(value) = decoder.next(&mut input).expect("a stream") {
            values.push(value);
        }
    }
    assert!(input.is_empty() && decoder.is_between_values());
    values
}

/// The order in which Go gave ids to the types that it had not met before.
#[derive(Default)]
struct Ids {
    highest: i32,
}

impl Ids {
    /// Ours must rise with Go's.
    fn compare(&mut self, ours: &Encoder, received: &Encoded) {
        let theirs: HashMap<u64, i32> = received.ids().collect();
        let new: BTreeMap<i32, i32> = ours
            .types()
            .filter_map(|(id, key, _)| Some((*theirs.get(&key)?, id)))
            .filter(|(theirs, _)| *theirs > self.highest)
            .collect();
        assert!(new.values().is_sorted(), "{new:?}");
        self.highest = self.highest.max(new.keys().last().copied().unwrap_or(0));
    }
}

#[test]
fn random_values_of_go_are_read_and_written_as_go_does() {
    const VALUES: usize = 100_000;
    const STREAMS: u32 = 1_000;
    let Some(mut go) = peer() else { return };
    let started = Instant::now();
    let (mut values, mut bytes, mut interfaces) = (0, 0, 0);
    let mut ids = Ids::default();
    for seed in 1.. {
        let streams = go.ask(b'R', seed, STREAMS);
        let mut answers = Vec::new();
        for (at, stream) in streams.iter().enumerate() {
            let mut repeated = Encoder::new();
            let mut same = BytesMut::new();
            let mut ours = Encoder::new();
            let mut answer = BytesMut::new();
            let received = read(stream, [usize::MAX, 7][at % 16 / 15]);
            for received in &received {
                let value = received.to_value().expect("a value");
                repeated.repeat_ids(received);
                repeated.encode_value(&value, &mut same).expect("encodable");
                ours.encode_value(&value, &mut answer).expect("encodable");
                interfaces += usize::from(received.holds_interfaces());
            }
            assert!(
                same == stream[..],
                "seed {seed}, stream {at}: sent {stream:02x?}, made {same:02x?}"
            );
            if let Some(last) = received.last() {
                ids.compare(&ours, last);
            }
            values += received.len();
            bytes += stream.len();
            answers.push(answer);
        }
        go.answer(&answers);
        if values >= VALUES {
            break;
        }
    }
    go.finish();
    say(&format!(
        "{values} values in {bytes} bytes, {interfaces} with interfaces, {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    assert!(interfaces > VALUES / 10);
}

#[derive(Gob, Debug, PartialEq)]
#[gob(crate = "crate", type_name = "everything")]
struct Everything {
    bool: bool,
    int: isize,
    int8: i8,
    int16: i16,
    int32: i32,
    int64: i64,
    uint: usize,
    uint8: u8,
    uint16: u16,
    uint32: u32,
    uint64: u64,
    float32: f32,
    float64: f64,
    complex: Complex,
    string: GoString,
    bytes: Bytes,
    array: [u8; 4],
    strings: Vec<GoString>,
    map: Option<HashMap<GoString, i64>>,
    #[gob(rename = "ByID")]
    by_id: Option<BTreeMap<u16, Inner>>,
    inner: Inner,
    pointer: Option<Box<Inner>>,
    list: Vec<Inner>,
    lists: Vec<Vec<i32>>,
    node: Option<Box<Chain>>,
    any: Interface,
    anys: Vec<Interface>,
    time: Time,
    times: Vec<Time>,
    later: Option<Time>,
    coded: Coded,
    empty: (),
}

#[derive(Gob, Debug, PartialEq)]
#[gob(crate = "crate", type_name = "inner")]
struct Inner {
    a: isize,
    b: GoString,
}

#[derive(Gob, Debug, PartialEq)]
#[gob(crate = "crate", type_name = "chain")]
struct Chain {
    value: GoString,
    next: Option<Box<Chain>>,
    kids: Vec<Chain>,
}

#[derive(Gob, Debug, PartialEq)]
#[gob(crate = "crate", opaque)]
struct Coded(Option<GoString>);

impl Opaque for Coded {
    const TYPE_NAME: &'static str = "coded";
    const KIND: OpaqueKind = OpaqueKind::GobEncoder;

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let payload = self.0.as_ref().map_or(&b""[..], GoString::as_bytes);
        Ok([b"<", payload, b">"].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Coded, String> {
        let payload = bytes.strip_prefix(b"<").and_then(|b| b.strip_suffix(b">"));
        let payload = payload.ok_or("not what GobEncode returns")?.to_vec();
        Ok(Coded(Some(GoString::new(payload))))
    }

    fn zero() -> Coded {
        Coded(None)
    }

    fn is_zero(&self) -> bool {
        self.0.is_none()
    }
}

#[test]
fn random_values_of_go_are_read_and_written_as_rust_types() {
    const STREAMS: u32 = 300;
    let Some(mut go) = peer() else { return };
    for seed in 1..4 {
        let streams = go.ask(b'E', seed, STREAMS);
        let mut answers = Vec::new();
        for stream in &streams {
            let mut encoder = Encoder::new();
            let mut answer = BytesMut::new();
            for received in read(stream, usize::MAX) {
                let value: Everything = received.decode().expect("a value");
                encoder.encode(&value, &mut answer).expect("encodable");
            }
            answers.push(answer);
        }
        go.answer(&answers);
    }
    go.finish();
}
