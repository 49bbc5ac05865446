//! Streams that a peer would only send by mistake or on purpose.

use outrigger_gob::Coded as _;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use outrigger_gob::{
    DecodeError, DecodeErrorKind, Decoder, Encode, Encoded, Encoder, Gob, Interface, Limits, Named,
    Value,
};

/// An unsigned integer as gob writes it.
fn uint(value: u64) -> Vec<u8> {
    if value < 0x80 {
        return vec![value as u8];
    }
    let bytes = value.to_be_bytes();
    let digits = &bytes[(value.leading_zeros() / 8) as usize..];
    [&[(digits.len() as u8).wrapping_neg()], digits].concat()
}

fn int(value: i64) -> Vec<u8> {
    uint(if value < 0 {
        (!value as u64) << 1 | 1
    } else {
        (value as u64) << 1
    })
}

fn message(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [uint(body.len() as u64), body].concat()
}

/// The definition of `id` as `field` of the type that describes types.
fn definition(id: i64, field: u8, rest: &[&[u8]]) -> Vec<u8> {
    let common = [&[1_u8, 2][..], &int(id), &[0]].concat();
    message(&[&int(-id), &[field + 1], &common, &rest.concat(), &[0, 0]])
}

fn slice_of(id: i64, elem: i64) -> Vec<u8> {
    definition(id, 1, &[&[1], &int(elem)])
}

fn array_of(id: i64, elem: i64, len: i64) -> Vec<u8> {
    definition(id, 0, &[&[1], &int(elem), &[1], &int(len)])
}

fn map_of(id: i64, key: i64, elem: i64) -> Vec<u8> {
    definition(id, 3, &[&[1], &int(key), &[1], &int(elem)])
}

fn struct_of(id: i64, fields: &[(&str, i64)]) -> Vec<u8> {
    let mut list = uint(fields.len() as u64);
    for (name, ty) in fields {
        list.push(1);
        list.extend(uint(name.len() as u64));
        list.extend(name.bytes());
        list.push(1);
        list.extend(int(*ty));
        list.push(0);
    }
    definition(id, 2, &[&[1], &list])
}

fn value(id: i64, bytes: &[u8]) -> Vec<u8> {
    message(&[&int(id), bytes])
}

/// The bytes of an interface that holds a value of a type that is known.
fn held(name: &str, id: i64, bytes: &[u8]) -> Vec<u8> {
    [
        &uint(name.len() as u64)[..],
        name.as_bytes(),
        &int(id),
        &uint(bytes.len() as u64),
        bytes,
    ]
    .concat()
}

const SMALL: Limits = Limits {
    message: 64 * 1024,
    memory: 256 * 1024,
    types: 16,
    definitions: 4096,
    depth: 32,
};

/// The values of a stream and the error that ends it.
fn read(limits: Limits, stream: &[&[u8]]) -> (Vec<Encoded>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::from(&stream.concat()[..]);
    let mut values = Vec::new();
    loop {
        match decoder.next(&mut input) {
            Ok(Some(value)) => values.push(value),
            Ok(None) => return (values, None),
            Err(error) => return (values, Some(error)),
        }
    }
}

#[track_caller]
fn ends(stream: &[&[u8]], code: &str, message: &str) {
    let (values, error) = read(SMALL, stream);
    assert_eq!(values.len(), 0);
    let error = error.expect("the stream ends");
    assert_eq!((error.code(), &*without_offset(&error)), (code, message));
    let length = stream.iter().map(|part| part.len()).sum::<usize>() as u64;
    assert!(error.offset().is_some_and(|offset| offset <= length));
}

fn without_offset(error: &DecodeError) -> String {
    let message = error.to_string();
    match message.rsplit_once(" (at byte ") {
        Some((message, _)) => message.to_owned(),
        None => message,
    }
}

/// The value is there, and is none.
#[track_caller]
fn is_no_value(stream: &[&[u8]], code: &str, message: &str) {
    let (values, error) = read(SMALL, stream);
    assert_eq!(error, None);
    let [received] = &values[..] else {
        panic!("{} values", values.len());
    };
    let error = received.to_value().expect_err("no value");
    assert_eq!((error.code(), &*without_offset(&error)), (code, message));
    assert!(
        error
            .offset()
            .is_some_and(|offset| offset <= received.len() as u64)
    );
    let error = received.decode::<()>().expect_err("no value");
    assert!(
        ["gob-type-mismatch", code].contains(&error.code()),
        "{error}"
    );
}

#[test]
fn a_length_is_refused_before_its_bytes_arrive() {
    for declared in [64 * 1024 + 1, 1 << 30, u64::MAX] {
        ends(
            &[&uint(declared)],
            "gob-limit",
            &format!("a message of {declared} is more than the 65536 allowed by `message`"),
        );
    }
    ends(
        &[&[0xf7; 1]],
        "gob-long-integer",
        "an integer of 9 bytes; 8 is the most there can be",
    );
    ends(&[&[0]], "gob-malformed", "malformed data: an empty message");
    // A length that is allowed allocates nothing.
    let mut input = BytesMut::from(&uint(64 * 1024)[..]);
    let capacity = input.capacity();
    assert!(
        Decoder::new(SMALL)
            .next(&mut input)
            .expect("a stream")
            .is_none()
    );
    assert_eq!(input.capacity(), capacity);
}

#[test]
fn a_stream_that_has_ended_stays_so() {
    let mut decoder = Decoder::new(SMALL);
    let mut input = BytesMut::from(&[&[0][..], &value(6, b"\x00\x01a")].concat()[..]);
    assert!(decoder.next(&mut input).is_err());
    let error = decoder.next(&mut input).expect_err("it ended");
    assert_eq!(error.kind(), &DecodeErrorKind::Ended);
    assert_eq!(error.code(), "gob-stream-ended");
}

#[test]
fn lengths_within_a_value_are_bounded_by_what_is_there() {
    is_no_value(
        &[&value(6, &[&[0][..], &uint(1 << 40), b"abc"].concat())],
        "gob-impossible-length",
        "a string of 1099511627776, of which at most 3 can be there",
    );
    is_no_value(
        &[
            &slice_of(65, 2),
            &value(65, &[&[0][..], &uint(1 << 40), &[2, 2]].concat()),
        ],
        "gob-impossible-length",
        "a count of 1099511627776, of which at most 2 can be there",
    );
    is_no_value(
        &[&map_of(65, 2, 2), &value(65, &[0, 2, 2, 2, 2])],
        "gob-impossible-length",
        "a count of 2, of which at most 1 can be there",
    );
    is_no_value(
        &[&value(2, &[0])],
        "gob-truncated",
        "the value ends too early, within an integer",
    );
    is_no_value(
        &[&value(3, &[0, 0xf0, 1])],
        "gob-long-integer",
        "an integer of 16 bytes; 8 is the most there can be",
    );
    is_no_value(
        &[&value(3, &[0, 1, 2, 3])],
        "gob-trailing-bytes",
        "2 bytes follow the value within its message",
    );
    is_no_value(
        &[&struct_of(65, &[("A", 2)]), &value(65, &[1, 2, 1, 2, 0])],
        "gob-malformed",
        "malformed data: a step of 1 from field 1 of a struct with 1 fields",
    );
    is_no_value(
        &[&struct_of(65, &[("A", 2)]), &value(65, &uint(u64::MAX))],
        "gob-malformed",
        "malformed data: a step of 18446744073709551615 from field 0 of a struct with 1 fields",
    );
    is_no_value(
        &[&struct_of(65, &[("A", 2)]), &value(65, &[1, 2])],
        "gob-truncated",
        "the value ends too early, within an integer",
    );
    is_no_value(
        &[&array_of(65, 2, 3), &value(65, &[0, 2, 0, 0])],
        "gob-malformed",
        "malformed data: 2 elements in an array of 3",
    );
}

#[test]
fn elements_that_take_no_memory_on_the_wire_are_counted_too() {
    let nothing = struct_of(65, &[]);
    let array = array_of(66, 65, 1 << 40);
    is_no_value(
        &[
            &nothing,
            &array,
            &value(66, &[&[0][..], &uint(1 << 40), &[0; 100]].concat()),
        ],
        "gob-impossible-length",
        "a count of 1099511627776, of which at most 100 can be there",
    );
    ends(
        &[&array_of(65, 2, -1)],
        "gob-malformed",
        "malformed data: an array of -1 elements",
    );
}

#[test]
fn definitions_are_checked() {
    ends(
        &[&definition(63, 1, &[&[1], &int(2)])],
        "gob-type-redefined",
        "type id 63 is defined again or reserved",
    );
    ends(
        &[&slice_of(65, 2), &slice_of(65, 2)],
        "gob-type-redefined",
        "type id 65 is defined again or reserved",
    );
    ends(
        &[&slice_of(65, 0)],
        "gob-type-undefined",
        "type id 0 is not defined",
    );
    ends(
        &[&slice_of(65, 9)],
        "gob-type-undefined",
        "type id 9 is not defined",
    );
    ends(
        &[&slice_of(65, 70), &value(65, &[0, 0])],
        "gob-type-undefined",
        "type id 70 is not defined",
    );
    ends(
        &[&value(99, &[0, 0])],
        "gob-type-undefined",
        "type id 99 is not defined",
    );
    ends(
        &[&message(&[&int(i64::MIN)])],
        "gob-type-undefined",
        "type id 9223372036854775807 is not defined",
    );
    ends(
        &[&struct_of(65, &[("", 2)])],
        "gob-malformed",
        "malformed data: a field without a name",
    );
    ends(
        &[&message(&[&int(-65), &[0]])],
        "gob-malformed",
        "malformed data: a type definition must describe exactly one type",
    );
    ends(
        &[&message(&[&int(-65), &[2, 1, 0, 1, 4, 0, 1, 0, 0]])],
        "gob-malformed",
        "malformed data: a type definition must describe exactly one type",
    );
    ends(
        &[&message(&[&int(-65), &[9]])],
        "gob-malformed",
        "malformed data: a type definition with an unknown field",
    );
    ends(
        &[&message(&[&int(-65), &[2, 0, 0, 7, 7]])],
        "gob-type-undefined",
        "type id 0 is not defined",
    );
    let slice = message(&[&int(-65), &[2, 2, 4, 0, 0, 7, 7]]);
    ends(
        &[&slice],
        "gob-trailing-bytes",
        "2 bytes follow the value within the message of a type definition",
    );
    ends(
        &[&message(&[&int(-65), &[3, 2, 0xfc, 1, 0, 0, 0]])],
        "gob-impossible-length",
        "a number of fields of 16777216, of which at most 0 can be there",
    );
}

#[test]
fn the_number_and_size_of_types_is_bounded() {
    let many: Vec<Vec<u8>> = (0..17).map(|n| slice_of(65 + n, 2)).collect();
    let many: Vec<&[u8]> = many.iter().map(|bytes| &bytes[..]).collect();
    let (_, error) = read(SMALL, &many);
    let error = error.expect("too many");
    assert_eq!(
        without_offset(&error),
        "a number of types of 17 is more than the 16 allowed by `types`"
    );
    // Types that are only mentioned count.
    let fields: Vec<(String, i64)> = (0..20).map(|n| (format!("F{n}"), 100 + n)).collect();
    let fields: Vec<(&str, i64)> = fields.iter().map(|(name, ty)| (&**name, *ty)).collect();
    let (_, error) = read(SMALL, &[&struct_of(65, &fields)]);
    assert_eq!(error.map(|error| error.code()), Some("gob-limit"));
    // So do their names.
    let name = "N".repeat(3000);
    let (_, error) = read(
        SMALL,
        &[&struct_of(65, &[(&name, 2)]), &struct_of(66, &[(&name, 2)])],
    );
    let message = without_offset(&error.expect("too large"));
    assert!(
        message.ends_with("is more than the 4096 allowed by `definitions`"),
        "{message}"
    );
}

#[test]
fn memory_is_bounded_however_small_the_bytes_are() {
    // One byte for each element, of which each takes much more in memory.
    let count = 60_000;
    let list = |elem: &[u8]| [&[0][..], &uint(count), &elem.repeat(count as usize)].concat();
    let bools = [slice_of(65, 1), value(65, &list(&[1]))].concat();
    let (values, _) = read(SMALL, &[&bools]);
    assert!(values[0].decode::<Vec<bool>>().is_ok());
    let error = values[0].to_value().expect_err("too much");
    assert_eq!(error.code(), "gob-limit");
    assert!(
        without_offset(&error).ends_with("allowed by `memory`"),
        "{error}"
    );

    #[derive(Gob)]
    struct Large {
        #[allow(dead_code)]
        a: [u64; 100],
    }
    let larges = [
        struct_of(65, &[("A", 3)]),
        slice_of(66, 65),
        value(66, &list(&[0])),
    ]
    .concat();
    let (values, _) = read(SMALL, &[&larges]);
    assert_eq!(
        values[0].decode::<Vec<()>>().map(|v| v.len()),
        Ok(count as usize)
    );
    assert!(
        values[0].decode::<Vec<Large>>().is_err(),
        "the types differ"
    );
    let empty = [struct_of(65, &[]), slice_of(66, 65), value(66, &list(&[0]))].concat();
    let (values, _) = read(SMALL, &[&empty]);
    let error = values[0].decode::<Vec<Large>>().err().expect("too much");
    assert_eq!(error.code(), "gob-limit");
    let error = values[0]
        .decode::<Vec<Option<Box<Large>>>>()
        .err()
        .expect("too much");
    assert_eq!(error.code(), "gob-limit");
    let map = [
        struct_of(65, &[]),
        map_of(66, 1, 65),
        value(66, &{
            let count = 30_000;
            [&[0][..], &uint(count), &[0, 0].repeat(count as usize)].concat()
        }),
    ]
    .concat();
    let (values, _) = read(SMALL, &[&map]);
    let error = values[0]
        .decode::<HashMap<bool, Large>>()
        .err()
        .expect("too much");
    assert_eq!(error.code(), "gob-limit");

    // Many fields that are left out again and again.
    let fields: Vec<(String, i64)> = (0..400).map(|n| (format!("F{n}"), 2)).collect();
    let fields: Vec<(&str, i64)> = fields.iter().map(|(name, ty)| (&**name, *ty)).collect();
    let wide = [
        struct_of(65, &fields),
        slice_of(66, 65),
        value(66, &list(&[0])),
    ]
    .concat();
    let (values, error) = read(SMALL, &[&wide]);
    assert_eq!(error, None);
    assert_eq!(
        values[0].to_value().map_err(|error| error.code()),
        Err("gob-limit")
    );
}

#[test]
fn nesting_is_bounded() {
    // type T []T
    let nested = |depth: usize| [&[0][..], &vec![1; depth], &[0]].concat();
    let deep = [slice_of(65, 65), value(65, &nested(31))].concat();
    let (values, _) = read(SMALL, &[&deep]);
    assert!(values[0].to_value().is_ok());
    let deeper = [slice_of(65, 65), value(65, &nested(60_000))].concat();
    let (values, _) = read(SMALL, &[&deeper]);
    let error = values[0].to_value().expect_err("too deep");
    assert_eq!(error.code(), "gob-limit");
    assert!(error.to_string().len() < 1000, "{error}");

    // The same as a struct that points to itself, in every way to read it.
    #[derive(Gob, Debug)]
    struct Node {
        #[allow(dead_code)]
        next: Option<Box<Node>>,
    }
    #[derive(Gob, Debug)]
    struct Other {}
    let node = struct_of(65, &[("Next", 65)]);
    let chain = [&vec![1; 60_000][..], &vec![0; 60_001]].concat();
    let limits = Limits {
        message: 200_000,
        ..Limits::default()
    };
    let (values, error) = read(limits, &[&node, &value(65, &chain)]);
    assert_eq!(error, None);
    for error in [
        values[0].to_value().map(|_| ()).expect_err("too deep"),
        values[0]
            .decode::<Node>()
            .map(|_| ())
            .expect_err("too deep"),
        values[0]
            .decode::<Other>()
            .map(|_| ())
            .expect_err("too deep"),
    ] {
        assert_eq!(error.code(), "gob-limit");
    }
    let chain = [&[1; 255][..], &[0; 256]].concat();
    let (values, _) = read(limits, &[&node, &value(65, &chain)]);
    assert!(values[0].to_value().is_ok());
    assert!(values[0].decode::<Node>().is_ok());

    // And as interfaces, which are looked through at once.
    let mut bytes = vec![0];
    for _ in 0..40 {
        bytes = [&[1][..], &held("N", 65, &[&bytes[..], &[0]].concat())].concat();
    }
    let holder = struct_of(65, &[("Any", 8)]);
    let (values, error) = read(SMALL, &[&holder, &value(65, &bytes)]);
    assert!(values.is_empty());
    let message = error.expect("too deep").to_string();
    assert!(
        message.starts_with("a nesting of 33 is more than the 32 allowed by `depth`"),
        "{message}"
    );
}

#[test]
fn a_chain_of_types_is_no_deeper_than_values_may_be() {
    #[derive(Gob, Debug)]
    struct Node {
        #[allow(dead_code)]
        next: Option<Box<Node>>,
    }
    let limits = Limits {
        types: 100_000,
        definitions: 10_000_000,
        ..Limits::default()
    };
    let mut stream = Vec::new();
    for id in 65..20_000 {
        stream.extend(struct_of(id, &[("Next", id + 1)]));
    }
    stream.extend(struct_of(20_000, &[]));
    stream.extend(value(65, &[0]));
    let (values, error) = read(limits, &[&stream]);
    assert_eq!(error, None);
    let error = values[0].decode::<Node>().expect_err("too deep");
    assert_eq!(error.code(), "gob-limit");
    // To look at the type, and to send it on, is no problem.
    assert!(values[0].ty().to_string().len() < 100_000);
    assert!(values[0].ty().expanded().to_string().len() < 100_000);
    let mut out = BytesMut::new();
    let value = values[0].to_value().expect("a value");
    Encoder::new()
        .encode_value(&value, &mut out)
        .expect("encodable");
    assert!(values[0].ty() == value.ty());
}

#[test]
fn types_that_use_each_other_twice_print_shortly() {
    let mut stream = Vec::new();
    for id in 65..80 {
        stream.extend(struct_of(
            id,
            &[("A", id + 1), ("B", id + 1), ("C", id + 1)],
        ));
    }
    stream.extend(struct_of(80, &[]));
    stream.extend(value(65, &[0]));
    let (values, error) = read(SMALL, &[&stream]);
    assert_eq!(error, None);
    let printed = values[0].ty().to_string();
    assert!(printed.len() < 16_000, "{} bytes", printed.len());
    assert!(printed.contains('…'));
}

#[test]
fn names_from_a_peer_are_printed_harmlessly() {
    let evil = "\u{1b}[2J\n".repeat(100);
    let (values, _) = read(
        SMALL,
        &[&struct_of(65, &[(&evil, 2)]), &value(65, &[1, 2, 0])],
    );
    let printed = values[0].ty().to_string();
    assert!(
        !printed.contains(char::is_control) && printed.len() < 1500,
        "{printed:?}"
    );
    #[derive(Gob, Debug)]
    struct Asked {
        #[allow(dead_code)]
        a: i64,
    }
    let error = values[0].decode::<Asked>().expect_err("no common field");
    assert!(!error.to_string().contains(char::is_control));
    let (values, _) = read(
        SMALL,
        &[&struct_of(65, &[(&evil, 2)]), &value(65, &[1, 0xf8, 0])],
    );
    let error = values[0].to_value().expect_err("truncated");
    assert!(!error.to_string().contains(char::is_control));
    assert!(error.to_string().len() < 2000);
}

#[test]
fn interfaces_are_checked_before_they_are_handed_out() {
    ends(
        &[&value(
            8,
            &[&[0][..], &held(&"n".repeat(1025), 2, &[0, 2])].concat(),
        )],
        "gob-malformed",
        &format!(
            "malformed data: a type name of 1025 bytes: \"{}\"… (+905 bytes)",
            "n".repeat(120)
        ),
    );
    ends(
        &[&value(8, &[&[0][..], &held("int", 8, &[0, 0])].concat())],
        "gob-malformed",
        "malformed data: an interface directly within an interface",
    );
    ends(
        &[&value(8, &[&[0][..], &held("int", 2, &[0, 2, 2])].concat())],
        "gob-trailing-bytes",
        "1 bytes follow the value within the value of an interface",
    );
    ends(
        &[&value(8, &[&[0][..], &held("int", 2, &[1, 2])].concat())],
        "gob-malformed",
        "malformed data: a value that is no struct is not preceded by 0",
    );
    ends(
        &[&value(8, b"\x00\x03int\x04\x09\x00\x02")],
        "gob-impossible-length",
        "an interface value of 9, of which at most 2 can be there",
    );
    ends(
        &[&value(8, b"\x00\x03int\xff\x8c\x01\x00")],
        "gob-type-undefined",
        "type id 70 is not defined",
    );
    ends(
        &[&value(8, b"\x00\x02\xff\xfe\x04\x02\x00\x02")],
        "gob-not-utf8",
        "\"\\xff\\xfe\" is not UTF-8",
    );
    ends(
        &[&value(8, b"\x00\x03int")],
        "gob-truncated",
        "the value ends too early, within an integer",
    );
    ends(
        &[
            &slice_of(65, 8),
            &value(65, &[&[0][..], &uint(1 << 20)].concat()),
        ],
        "gob-impossible-length",
        "a count of 1048576, of which at most 65536 can be there",
    );
}

/// The first message of a value that holds an interface whose type follows.
fn begin_with_definition(id: i64) -> Vec<u8> {
    let body = slice_of(id, 2);
    message(&[&int(65), &[0, 0xfd, 1, 0, 0], b"\x01T", &body[1..]])
}

#[test]
fn messages_that_continue_a_value_are_bounded() {
    // A slice of 65536 interfaces, each of which defines another type.
    let list = slice_of(65, 8);
    let mut stream = [list.clone(), begin_with_definition(66)].concat();
    let mut id = 66;
    loop {
        let next = slice_of(id + 1, 2);
        let rest = [&int(id)[..], &[2, 0, 0], b"\x01T", &next[1..]].concat();
        stream.extend(message(&[&rest]));
        id += 1;
        if id > 200 {
            break;
        }
    }
    let (values, error) = read(SMALL, &[&stream]);
    assert!(values.is_empty());
    assert_eq!(error.map(|error| error.code()), Some("gob-limit"));

    // Nothing but definitions.
    let mut stream = [list.clone(), begin_with_definition(66)].concat();
    for id in 67..200 {
        stream.extend(slice_of(id, 2));
    }
    let (values, error) = read(SMALL, &[&stream]);
    assert!(values.is_empty());
    assert_eq!(error.map(|error| error.code()), Some("gob-limit"));

    // Something else after a definition, or within its message.
    let begin = [list.clone(), begin_with_definition(66)].concat();
    let (_, error) = read(SMALL, &[&begin, &[0]]);
    assert_eq!(error.map(|error| error.code()), Some("gob-malformed"));
    let (_, error) = read(SMALL, &[&begin, &message(&[&int(99)])]);
    assert_eq!(error.map(|error| error.code()), Some("gob-type-undefined"));
    let inside = message(&[
        &int(65),
        &[0, 1],
        b"\x01T",
        &slice_of(66, 2)[1..],
        &int(66),
        &[2, 0, 0],
    ]);
    let (_, error) = read(SMALL, &[&list, &inside]);
    assert_eq!(error.map(|error| error.code()), Some("gob-trailing-bytes"));

    // A value never gets larger than one message may be.
    let filler = |id: i64| {
        let text = [&[0][..], &uint(30_000), &vec![b'x'; 30_000]].concat();
        let next = slice_of(id + 1, 2);
        let known = [&int(id)[..], &[2, 0, 0], &held("string", 6, &text)].concat();
        message(&[&known, b"\x01T", &next[1..]])
    };
    let stream: Vec<u8> = (66..70).flat_map(filler).collect();
    let (values, error) = read(SMALL, &[&begin, &stream]);
    assert!(values.is_empty());
    let message = error.expect("too large").to_string();
    assert!(message.contains("allowed by `message`"), "{message}");
}

#[derive(Gob, Debug, PartialEq)]
#[gob(name = "T")]
struct Held {
    text: String,
    more: Vec<Interface>,
}

#[test]
fn every_prefix_of_a_stream_needs_more_and_every_other_way_to_cut_it_is_the_same() {
    let deep = |depth: usize| {
        (0..depth).fold(Interface::from(1.5), |inner, _| {
            Interface::of(&Held {
                text: "x".repeat(200),
                more: vec![inner, Interface::from(vec![1_u32, 2])],
            })
            .expect("encodable")
        })
    };
    let mut stream = BytesMut::new();
    let mut encoder = Encoder::new();
    let sent = [deep(3), Interface::nil(), deep(2)];
    for value in &sent {
        encoder.encode(value, &mut stream).expect("encodable");
    }
    for cut in 1..stream.len() {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::new();
        let mut values = Vec::new();
        for part in [&stream[..cut], &stream[cut..]] {
            input.put_slice(part);
            while let Some(value) = decoder.next(&mut input).expect("a stream") {
                values.push(value.decode::<Interface>().expect("an interface"));
            }
        }
        assert!(
            values.len() == sent.len() && values[1].is_nil(),
            "cut at {cut}"
        );
        assert_eq!(values[2], sent[2], "cut at {cut}");
        assert!(decoder.is_between_values());
    }
    assert_eq!(Held::NAME, "T");
}

#[test]
fn work_grows_with_the_bytes() {
    // Values that arrive byte by byte, definitions between all of them, and
    // a list of interfaces: each of these once took time that grew with the
    // square of something in other decoders.
    let started = Instant::now();
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    let large = value(
        10 / 2,
        &[&[0][..], &uint(300_000), &vec![7; 300_000]].concat(),
    );
    for byte in &large {
        input.put_u8(*byte);
        let _ = decoder.next(&mut input).expect("a stream");
    }
    let mut kept = Vec::new();
    for id in 65..1000 {
        let elem = if id == 65 || id % 7 == 0 { 8 } else { id - 1 };
        input.put_slice(&slice_of(id, elem));
        input.put_slice(&value(id, &[0, 0]));
        kept.extend(decoder.next(&mut input).expect("a stream"));
    }
    let list: Vec<Interface> = (0..50_000_i64).map(Interface::from).collect();
    let mut out = BytesMut::new();
    Encoder::new().encode(&list, &mut out).expect("encodable");
    let received = Decoder::default().next(&mut out).expect("a stream");
    let read: Vec<Interface> = received.expect("a value").decode().expect("a list");
    assert_eq!(read.len(), list.len());
    assert_eq!(kept.len(), 935);
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn work_does_not_grow_with_the_depth() {
    // Every nil is passed over once, however deep it lies.
    const NILS: usize = 8 << 20;
    const LEVELS: i64 = 250;
    let mut input = BytesMut::new();
    for id in 65..65 + LEVELS {
        input.put_slice(&slice_of(id, if id == 65 { 8 } else { id - 1 }));
    }
    let mut lists = vec![1; LEVELS as usize];
    lists[0] = 0;
    let nils = [uint(NILS as u64), vec![0; NILS]].concat();
    input.put_slice(&value(64 + LEVELS, &[&lists[..], &nils].concat()));
    let started = Instant::now();
    let received = Decoder::default().next(&mut input).expect("a stream");
    assert!(received.is_some());
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_few_bytes_that_are_kept_do_not_keep_the_message() {
    let mut out = BytesMut::new();
    let list: Vec<bytes::Bytes> = vec![vec![1; 10].into(), vec![2; 5000].into()];
    Encoder::new().encode(&list, &mut out).expect("encodable");
    let mut decoder = Decoder::default();
    let received = decoder.next(&mut out).expect("a stream").expect("a value");
    let mut read: Vec<bytes::Bytes> = received.decode().expect("a list");
    drop((received, out, decoder));
    let large = read.pop().expect("two");
    let small = read.pop().expect("two");
    assert!(small.is_unique(), "it was copied");
    assert_eq!(large.len(), 5000);

    // Nor does an interface, whose bytes are looked into later.
    let mut out = BytesMut::new();
    let list = vec![Interface::from("small"), Interface::from(vec![2; 5000])];
    Encoder::new().encode(&list, &mut out).expect("encodable");
    let mut decoder = Decoder::default();
    let received = decoder.next(&mut out).expect("a stream").expect("a value");
    let mut read: Vec<Interface> = received.decode().expect("a list");
    drop(read.pop());
    drop((received, decoder));
    assert!(out.try_reclaim(5000), "the message's memory is free again");
    let small: Option<String> = read[0].get().expect("a string");
    assert_eq!(small.as_deref(), Some("small"));
}

#[test]
fn what_we_send_is_bounded_in_depth() {
    let mut value = Value::Int(1);
    let mut ty = value.ty();
    for _ in 0..600 {
        ty = outrigger_gob::Type::slice(&ty);
        value = Value::Slice(outrigger_gob::List {
            ty: ty.clone(),
            items: vec![value],
        });
    }
    let error = Encoder::new()
        .encode_value(&value, &mut BytesMut::new())
        .expect_err("too deep");
    assert_eq!(error.code(), "gob-too-deep");
    assert!(value.dynamic().is_some());
}
