//! The body of the fuzz target, as a plain function so that tests call it
//! too. It takes arbitrary bytes and panics if a promise is broken.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::{
    Coded, Complex, DecodeError, Decoder, Encoded, Encoder, GoString, Gob, Interface, Limits, Time,
    Value,
};

/// Small enough that a fuzzer reaches all of them.
const LIMITS: Limits = Limits {
    message: 4096,
    memory: 64 * 1024,
    types: 24,
    definitions: 2048,
    depth: 24,
};

/// No error may print more than this, whatever a peer wrote.
const LONGEST_ERROR: usize = 8 * 1024;

/// A stream is cut into the same values however its bytes arrive; whatever is
/// read stays within the limits, and survives being written and read again.
pub fn gob_stream(bytes: &[u8]) {
    let (values, error) = read(bytes, usize::MAX);
    for step in [1, 5] {
        let (again, other) = read(bytes, step);
        assert_eq!(values.len(), again.len(), "{step} at a time");
        assert_eq!(error, other, "{step} at a time");
    }
    for received in &values {
        check_value(received);
        check_types(received);
    }
    check_written_again(&values);
}

fn read(bytes: &[u8], step: usize) -> (Vec<Encoded>, Option<DecodeError>) {
    let mut decoder = Decoder::new(LIMITS);
    let mut input = BytesMut::new();
    let mut values = Vec::new();
    for piece in bytes.chunks(step.min(bytes.len().max(1))) {
        input.extend_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(error) => {
                    check_error(&error);
                    assert!(decoder.next(&mut input).is_err(), "the stream has ended");
                    return (values, Some(error));
                }
            }
        }
    }
    (values, None)
}

fn check_error(error: &DecodeError) {
    let message = error.to_string();
    assert!(message.len() <= LONGEST_ERROR, "{message}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(error.code().starts_with("gob-"));
}

fn check_value(received: &Encoded) {
    let printed = received.ty().to_string();
    assert!(printed.len() <= 64 * 1024, "{} bytes", printed.len());
    let _ = received.ty().expanded().to_string();
    let _ = received.type_name();
    match received.to_value() {
        Ok(value) => {
            let memory = footprint(&value);
            assert!(memory <= LIMITS.memory, "{memory} bytes: {value:?}");
        }
        Err(error) => check_error(&error),
    }
}

/// The memory that a value takes, with what is in its interfaces left out.
fn footprint(value: &Value) -> usize {
    match value {
        Value::Array(list) | Value::Slice(list) => {
            let items = list.items.iter();
            items.map(|item| size_of::<Value>() + footprint(item)).sum()
        }
        Value::Map(map) => {
            let entries = map.entries.iter();
            let sizes = entries.map(|(k, v)| 2 * size_of::<Value>() + footprint(k) + footprint(v));
            sizes.sum()
        }
        Value::Struct(fields) => {
            let values = fields.fields.iter();
            let sizes = values.map(|v| size_of::<Value>() + v.as_ref().map_or(0, footprint));
            sizes.sum()
        }
        _ => 0,
    }
}

#[derive(Gob)]
#[gob(crate = "crate")]
#[allow(dead_code, reason = "only reading them is of interest")]
struct Sample {
    a: i8,
    b: Option<Box<Sample>>,
    c: Vec<Sample>,
    d: HashMap<GoString, Sample>,
    e: Interface,
    f: [f32; 2],
    g: Vec<u16>,
    h: Time,
    i: Bytes,
    #[gob(rename = "X")]
    j: Value,
    #[gob(rename = "Message")]
    k: String,
    #[gob(rename = "Seq")]
    l: u64,
    #[gob(rename = "Val")]
    m: isize,
    #[gob(rename = "Err")]
    n: Option<Box<Sample>>,
}

fn check_types(received: &Encoded) {
    check_type::<Sample>(received);
    check_type::<()>(received);
    check_type::<Vec<Sample>>(received);
    check_type::<Vec<Vec<String>>>(received);
    check_type::<HashMap<GoString, Interface>>(received);
    check_type::<[isize; 2]>(received);
    check_type::<[u8; 4]>(received);
    check_type::<Complex>(received);
    check_type::<Bytes>(received);
    check_type::<Time>(received);
    check_type::<bool>(received);
    check_type::<f32>(received);
    check_type::<u8>(received);
    if let Ok(interface) = received.decode::<Interface>() {
        let _ = interface.get::<Sample>();
        let _ = interface.value();
    }
}

fn check_type<T: Gob>(received: &Encoded) {
    if let Err(error) = received.decode::<T>() {
        check_error(&error);
    }
}

fn check_written_again(values: &[Encoded]) {
    let mut encoder = Encoder::new();
    let mut once = BytesMut::new();
    let mut written = 0;
    for value in values.iter().filter_map(|value| value.to_value().ok()) {
        match encoder.encode_value(&value, &mut once) {
            Ok(()) => written += 1,
            Err(error) => assert_eq!(error.code(), "gob-received", "{error}"),
        }
    }
    let mut decoder = Decoder::new(Limits::default());
    let mut encoder = Encoder::new();
    let mut input = once.clone();
    let mut twice = BytesMut::new();
    for _ in 0..written {
        let received = decoder.next(&mut input).expect("our own stream");
        let received = received.expect("as many values as were written");
        let value = received.to_value().expect("our own value");
        encoder
            .encode_value(&value, &mut twice)
            .expect("our own value");
    }
    assert!(input.is_empty(), "nothing but values was written");
    assert_eq!(once, twice);
}
