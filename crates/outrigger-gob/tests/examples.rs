//! Bytes that Go's encoder printed, in both directions.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use outrigger_gob::{
    Complex, Decoder, Encode, Encoded, Encoder, Gob, Interface, Limits, Opaque, OpaqueKind, Time,
    Value,
};

/// Bytes written as in the protocol's description.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| (byte as char).to_digit(16).expect("a digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn shown(bytes: &[u8]) -> String {
    let words: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

/// Both directions of one stream.
struct Stream {
    encoder: Encoder,
    decoder: Decoder,
    again: Encoder,
}

impl Stream {
    fn new() -> Stream {
        Stream {
            encoder: Encoder::new(),
            decoder: Decoder::new(Limits::default()),
            again: Encoder::new(),
        }
    }

    /// The value gives these bytes, they give the value, and what is read
    /// dynamically gives the same bytes once more.
    #[track_caller]
    fn both<T: Gob + Debug + PartialEq>(&mut self, value: &T, bytes: &str) -> Encoded {
        self.sends(value, bytes);
        let received = self.receives(bytes);
        assert_eq!(&received.decode::<T>().expect("a value"), value);
        received
    }

    #[track_caller]
    fn sends<T: Encode + ?Sized>(&mut self, value: &T, bytes: &str) {
        let mut out = BytesMut::from(&b"before"[..]);
        self.encoder.encode(value, &mut out).expect("encodable");
        assert_eq!(shown(&out[6..]), shown(&hex(bytes)));
    }

    #[track_caller]
    fn receives(&mut self, bytes: &str) -> Encoded {
        let bytes = hex(bytes);
        // However the bytes arrive, the value is there with the last one.
        let mut input = BytesMut::new();
        let mut received = None;
        for (at, byte) in bytes.iter().enumerate() {
            input.extend_from_slice(&[*byte]);
            received = self.decoder.next(&mut input).expect("a stream");
            assert_eq!(received.is_some(), at + 1 == bytes.len(), "byte {at}");
        }
        let received = received.expect("a value");
        let value = received.to_value().expect("a value");
        let mut out = BytesMut::new();
        self.again
            .encode_value(&value, &mut out)
            .expect("encodable");
        assert_eq!(shown(&out), shown(&bytes), "{value:?}");
        received
    }
}

#[track_caller]
fn both<T: Gob + Debug + PartialEq>(value: T, bytes: &str) {
    Stream::new().both(&value, bytes);
}

#[test]
fn numbers_and_strings() {
    both(3_isize, "03 04 00 06");
    both(true, "03 02 00 01");
    both(1_u32, "03 06 00 01");
    both("greeter".to_owned(), "0a 0c 00 07 67 72 65 65 74 65 72");
    Stream::new().sends("greeter", "0a 0c 00 07 67 72 65 65 74 65 72");
    both(-129_isize, "05 04 00 fe 01 01");
    both(256_usize, "05 06 00 fe 01 00");
    both(17.0_f64, "05 08 00 fe 31 40");
    both(1.1_f32, "08 08 00 fb a0 99 99 f1 3f");
    both(i64::MIN, "0b 04 00 f8 ff ff ff ff ff ff ff ff");
    both(63_isize, "03 04 00 7e");
    both(64_isize, "04 04 00 ff 80");
    both(-64_isize, "03 04 00 7f");
    both(-65_isize, "04 04 00 ff 81");
    both(-1_isize, "03 04 00 01");
    both(vec![1_u8, 2, 3], "06 0a 00 03 01 02 03");
    both(Bytes::from_static(&[1, 2, 3]), "06 0a 00 03 01 02 03");
    both(Bytes::new(), "03 0a 00 00");
    let complex = Complex {
        real: 1.0,
        imaginary: 2.0,
    };
    both(complex, "06 0e 00 fe f0 3f 40");
}

#[test]
fn interfaces() {
    both(Interface::nil(), "03 10 00 00");
    both(
        Interface::from("hi"),
        "0f 10 00 06 73 74 72 69 6e 67 0c 04 00 02 68 69",
    );
    both(Interface::from(7_isize), "0a 10 00 03 69 6e 74 04 02 00 0e");
    both(
        Interface::from(Bytes::from_static(b"ab")),
        "10 10 00 07 5b 5d 75 69 6e 74 38 0a 04 00 02 61 62",
    );
    let list = vec![
        Interface::nil(),
        Interface::from("a"),
        Interface::from(-1_i64),
        Interface::from(200_u8),
        Interface::from(true),
        Interface::from(1.5_f64),
        Interface::from(0.5_f32),
    ];
    both(
        list,
        "0c ff 81 02 01 02 ff 82 00 01 10 00 00
         4b ff 82 00 07 00 06 73 74 72 69 6e 67 0c 03 00 01 61 05 69 6e 74 36 34 04 02 00 01
         05 75 69 6e 74 38 06 03 00 ff c8 04 62 6f 6f 6c 02 02 00 01
         07 66 6c 6f 61 74 36 34 08 04 00 fe f8 3f 07 66 6c 6f 61 74 33 32 08 04 00 fe e0 3f",
    );
    let map = BTreeMap::from([
        ("key".to_owned(), Interface::from("k")),
        ("value".to_owned(), Interface::from(b"hi".to_vec())),
    ]);
    both(
        map,
        "0e ff 81 04 01 02 ff 82 00 01 0c 01 10 00 00
         28 ff 82 00 02 03 6b 65 79 06 73 74 72 69 6e 67 0c 03 00 01 6b
         05 76 61 6c 75 65 07 5b 5d 75 69 6e 74 38 0a 04 00 02 68 69",
    );
}

#[test]
fn an_empty_struct_is_defined_once() {
    let mut stream = Stream::new();
    stream.both(&(), "0a ff 81 03 01 02 ff 82 00 00 00 03 ff 82 00");
    stream.both(&(), "03 ff 82 00");
}

#[test]
fn lists_and_maps() {
    both(
        vec!["a".to_owned(), "bc".to_owned()],
        "0c ff 81 02 01 02 ff 82 00 01 0c 00 00 09 ff 82 00 02 01 61 02 62 63",
    );
    both(
        BTreeMap::from([("k".to_owned(), 5_isize)]),
        "0e ff 81 04 01 02 ff 82 00 01 0c 01 04 00 00 07 ff 82 00 01 01 6b 0a",
    );
    both(
        [0_isize, 9],
        "0e ff 81 01 01 02 ff 82 00 01 04 01 04 00 00 06 ff 82 00 02 00 12",
    );
    both(
        [1_u8, 0, 255, 0],
        "0e ff 81 01 01 02 ff 82 00 01 06 01 08 00 00 09 ff 82 00 04 01 00 ff ff 00",
    );
}

#[derive(Gob, Debug, PartialEq)]
struct Point {
    x: isize,
    y: isize,
}

#[test]
fn structs() {
    both(
        Point { x: 22, y: 33 },
        "1f ff 81 03 01 01 05 50 6f 69 6e 74 01 ff 82 00 01 02 01 01 58 01 04 00 01 01 59 01 04 00 00 00
         07 ff 82 01 2c 01 42 00",
    );
}

#[derive(Gob, Debug, PartialEq)]
struct Resp {
    val: isize,
    err: Option<BasicError>,
}

#[derive(Gob, Debug, PartialEq)]
struct BasicError {
    message: String,
}

#[test]
fn a_pointer_that_is_nil_is_left_out() {
    let mut stream = Stream::new();
    let with = Resp {
        val: 7,
        err: Some(BasicError {
            message: "boom".into(),
        }),
    };
    stream.both(
        &with,
        "23 ff 81 03 01 01 04 52 65 73 70 01 ff 82 00 01 02 01 03 56 61 6c 01 04 00 01 03 45 72 72 01 ff 84 00 00 00
         24 ff 83 03 01 01 0a 42 61 73 69 63 45 72 72 6f 72 01 ff 84 00 01 01 01 07 4d 65 73 73 61 67 65 01 0c 00 00 00
         0d ff 82 01 0e 01 01 04 62 6f 6f 6d 00 00",
    );
    stream.both(&Resp { val: 7, err: None }, "05 ff 82 01 0e 00");
}

mod x {
    use super::*;

    #[derive(Gob, Debug, PartialEq)]
    #[gob(name = "x.Inner")]
    pub(super) struct Inner {
        pub(super) a: isize,
        pub(super) b: String,
    }

    #[derive(Gob, Debug, PartialEq)]
    #[gob(name = "x.Nested")]
    pub(super) struct Nested {
        pub(super) i: Interface,
    }
}

#[test]
fn the_outer_definition_comes_first() {
    both(
        vec![x::Inner {
            a: 1,
            b: "a".into(),
        }],
        "0d ff 83 02 01 02 ff 84 00 01 ff 82 00 00
         1f ff 81 03 01 01 05 49 6e 6e 65 72 01 ff 82 00 01 02 01 01 41 01 04 00 01 01 42 01 0c 00 00 00
         0a ff 84 00 01 01 02 01 01 61 00",
    );
}

#[derive(Gob, Debug, PartialEq)]
#[gob(opaque)]
struct G(Vec<u8>);

impl Opaque for G {
    const TYPE_NAME: &'static str = "G";
    const KIND: OpaqueKind = OpaqueKind::GobEncoder;

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: &[u8]) -> Result<G, String> {
        Ok(G(bytes.to_vec()))
    }

    fn zero() -> G {
        G(Vec::new())
    }
}

#[test]
fn types_that_encode_themselves() {
    both(
        G(vec![0xaa, 1]),
        "0d ff 81 05 01 01 01 47 01 ff 82 00 00 00 06 ff 82 00 02 aa 01",
    );
    both(
        Time::from_unix(0, 0, None).expect("a time"),
        "10 ff 81 05 01 01 04 54 69 6d 65 01 ff 82 00 00 00
         13 ff 82 00 0f 01 00 00 00 0e 77 91 f7 00 00 00 00 00 ff ff",
    );
}

#[derive(Gob, Debug, PartialEq)]
#[gob(type_name = "HI")]
struct Hi {
    i: Interface,
    after: isize,
}

const HI: &str = "20 ff 81 03 01 01 02 48 49 01 ff 82 00 01 02 01 01 49 01 10 00 01 05 41 66 74 65 72 01 04 00 00 00";

fn inner(a: isize, b: &str) -> Interface {
    Interface::of(&x::Inner { a, b: b.into() }).expect("encodable")
}

#[test]
fn a_definition_in_the_middle_of_a_value_ends_the_message() {
    let mut stream = Stream::new();
    let value = Hi {
        i: inner(5, "q"),
        after: 9,
    };
    let received = stream.both(
        &value,
        &format!(
            "{HI}
             2a ff 82 01 07 78 2e 49 6e 6e 65 72 ff 83 03 01 01 05 49 6e 6e 65 72 01 ff 84 00 01 02 01 01 41 01 04 00 01 01 42 01 0c 00 00 00
             0c ff 84 06 01 0a 01 01 71 00 01 12 00"
        ),
    );
    let hi: Hi = received.decode().expect("a value");
    assert_eq!(hi.i.name(), Some("x.Inner"));
    let found: Option<x::Inner> = hi.i.get().expect("an Inner");
    assert_eq!(
        found,
        Some(x::Inner {
            a: 5,
            b: "q".into()
        })
    );
    let again = Hi {
        i: inner(6, ""),
        after: 1,
    };
    stream.both(
        &again,
        "14 ff 82 01 07 78 2e 49 6e 6e 65 72 ff 84 03 01 0c 00 01 02 00",
    );
}

#[test]
fn a_definition_within_an_interface_splits_its_value() {
    let mut stream = Stream::new();
    let nested = x::Nested { i: inner(5, "q") };
    let value = Hi {
        i: Interface::of(&nested).expect("encodable"),
        after: 9,
    };
    let received = stream.both(
        &value,
        &format!(
            "{HI}
             26 ff 82 01 08 78 2e 4e 65 73 74 65 64 ff 83 03 01 01 06 4e 65 73 74 65 64 01 ff 84 00 01 01 01 01 49 01 10 00 00 00
             39 ff 84 28 01 07 78 2e 49 6e 6e 65 72 ff 85 03 01 01 05 49 6e 6e 65 72 01 ff 86 00 01 02 01 01 41 01 04 00 01 01 42 01 0c 00 00 00
             0a ff 86 06 01 0a 01 01 71 00 00 01 12 00"
        ),
    );
    let hi: Hi = received.decode().expect("a value");
    assert_eq!(hi.i.get::<x::Nested>().expect("a Nested"), Some(nested));
}

#[derive(Gob, Debug, PartialEq)]
struct Ten {
    a: i64,
    b: String,
    c: bool,
    d: Vec<i64>,
    e: f64,
    f: [isize; 2],
    g: Point,
    h: Option<Point>,
    i: Interface,
    j: Vec<u8>,
}

#[test]
fn arrays_and_structs_are_sent_even_if_zero() {
    let value = Ten::zero();
    let mut out = BytesMut::new();
    Encoder::new().encode(&value, &mut out).expect("encodable");
    let end = hex("09 ff 82 06 02 00 00 01 00 00");
    assert!(out.ends_with(&end), "{}", shown(&out));
    let received = Decoder::default().next(&mut out).expect("a stream");
    assert_eq!(received.expect("a value").decode::<Ten>(), Ok(value));
}

#[derive(Gob, Debug, PartialEq)]
struct Request {
    service_method: String,
    seq: u64,
}

#[derive(Gob, Debug, PartialEq)]
struct Response {
    service_method: String,
    seq: u64,
    error: String,
}

#[test]
fn an_exchange_of_net_rpc() {
    let request = |service_method: &str, seq| Request {
        service_method: service_method.into(),
        seq,
    };
    let response = |service_method: &str, seq, error: &str| Response {
        service_method: service_method.into(),
        seq,
        error: error.into(),
    };
    let mut to_plugin = Stream::new();
    let mut to_host = Stream::new();
    to_plugin.both(
        &request("Dispenser.Dispense", 0),
        "2f ff 81 03 01 01 07 52 65 71 75 65 73 74 01 ff 82 00 01 02 01 0d 53 65 72 76 69 63 65 4d 65 74 68 6f 64 01 0c 00 01 03 53 65 71 01 06 00 00 00
         17 ff 82 01 12 44 69 73 70 65 6e 73 65 72 2e 44 69 73 70 65 6e 73 65 00",
    );
    to_plugin.both(&"kv".to_owned(), "05 0c 00 02 6b 76");
    to_host.both(
        &response("Dispenser.Dispense", 0, ""),
        "3a ff 81 03 01 01 08 52 65 73 70 6f 6e 73 65 01 ff 82 00 01 03 01 0d 53 65 72 76 69 63 65 4d 65 74 68 6f 64 01 0c 00 01 03 53 65 71 01 06 00 01 05 45 72 72 6f 72 01 0c 00 00 00
         17 ff 82 01 12 44 69 73 70 65 6e 73 65 72 2e 44 69 73 70 65 6e 73 65 00",
    );
    to_host.both(&1_u32, "03 06 00 01");
    to_plugin.both(
        &request("Control.Quit", 1),
        "13 ff 82 01 0c 43 6f 6e 74 72 6f 6c 2e 51 75 69 74 01 01 00",
    );
    to_plugin.both(&true, "03 02 00 01");
    to_host.both(
        &response("Control.Quit", 1, ""),
        "13 ff 82 01 0c 43 6f 6e 74 72 6f 6c 2e 51 75 69 74 01 01 00",
    );
    to_host.both(&(), "0a ff 83 03 01 02 ff 84 00 00 00 03 ff 84 00");
    to_host.both(
        &response("Plugin.X", 2, "boom"),
        "15 ff 82 01 08 50 6c 75 67 69 6e 2e 58 01 02 01 04 62 6f 6f 6d 00",
    );
    to_host.both(&(), "03 ff 84 00");
}

#[test]
fn a_dynamic_value_can_be_looked_into() {
    let mut stream = Stream::new();
    let received = stream.receives(
        "23 ff 81 03 01 01 04 52 65 73 70 01 ff 82 00 01 02 01 03 56 61 6c 01 04 00 01 03 45 72 72 01 ff 84 00 00 00
         24 ff 83 03 01 01 0a 42 61 73 69 63 45 72 72 6f 72 01 ff 84 00 01 01 01 07 4d 65 73 73 61 67 65 01 0c 00 00 00
         0d ff 82 01 0e 01 01 04 62 6f 6f 6d 00 00",
    );
    assert_eq!(received.type_name(), "Resp");
    assert_eq!(
        received.ty().expanded().to_string(),
        "struct { Val int; Err struct { Message string } }"
    );
    let Ok(Value::Struct(resp)) = received.to_value() else {
        panic!("no struct");
    };
    assert_eq!(resp.get("Val"), Some(&Value::Int(7)));
    let Some(Value::Struct(error)) = resp.get("Err") else {
        panic!("no struct");
    };
    assert_eq!(error.get("Message").and_then(Value::as_str), Some("boom"));
}
