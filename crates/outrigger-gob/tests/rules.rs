//! Which types can be read as which, by Go's rules, and what is said when
//! they cannot.

use outrigger_gob::Coded as _;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use outrigger_gob::{
    Decoder, Encode, Encoded, Encoder, GoString, Gob, Interface, Limits, List, Map, Named, Opaque,
    OpaqueKind, Struct, Time, Type, Value,
};

/// A value as the other side receives it.
#[track_caller]
fn sent<T: Encode + ?Sized>(value: &T) -> Encoded {
    let mut bytes = BytesMut::new();
    Encoder::new().encode(value, &mut bytes).expect("encodable");
    let received = Decoder::new(Limits::default()).next(&mut bytes);
    assert!(bytes.is_empty());
    received.expect("a stream").expect("a value")
}

#[track_caller]
fn reads<T: Encode, U: Gob + Debug + PartialEq>(value: T, expected: U) {
    assert_eq!(sent(&value).decode::<U>(), Ok(expected));
}

#[track_caller]
fn refuses<T: Encode, U: Gob + Debug>(value: T, code: &str, message: &str) {
    let error = sent(&value).decode::<U>().expect_err("no such value");
    assert_eq!((error.code(), &*error.to_string()), (code, message));
}

#[derive(Gob, Debug, PartialEq, Default)]
struct Reply {
    code: i32,
    text: String,
    inner: Option<Box<Inner>>,
    list: Vec<Inner>,
}

#[derive(Gob, Debug, PartialEq, Default)]
struct Inner {
    message: String,
    level: u8,
}

#[test]
fn integers_of_any_width_are_read_as_any_that_they_fit() {
    reads(200_u8, 200_u64);
    reads(200_u64, 200_u8);
    reads(-1_i64, -1_i8);
    reads(i64::MIN, i64::MIN);
    reads(u64::MAX, usize::MAX);
    refuses::<_, u8>(
        256_u64,
        "gob-out-of-range",
        "256 does not fit uint8 (at byte 0)",
    );
    refuses::<_, i8>(
        -129_i64,
        "gob-out-of-range",
        "-129 does not fit int8 (at byte 0)",
    );
    refuses::<_, u32>(1_i64, "gob-type-mismatch", "expected uint32, received int");
    refuses::<_, i32>(1_u64, "gob-type-mismatch", "expected int32, received uint");
    refuses::<_, bool>(1_u64, "gob-type-mismatch", "expected bool, received uint");
    refuses::<_, f64>(1_i64, "gob-type-mismatch", "expected float64, received int");
}

#[test]
fn floats_are_read_as_float32_if_they_are_not_too_large() {
    reads(1.5_f64, 1.5_f32);
    reads(1.5_f32, 1.5_f64);
    reads(f64::INFINITY, f32::INFINITY);
    reads(1e-60_f64, 0.0_f32);
    refuses::<_, f32>(
        1e39_f64,
        "gob-out-of-range",
        "1e39 does not fit float32 (at byte 0)",
    );
    let nan = sent(&f64::NAN).decode::<f32>().expect("a float");
    assert!(nan.is_nan());
}

#[test]
fn fields_are_matched_by_name() {
    #[derive(Gob, Debug, PartialEq)]
    struct Newer {
        text: String,
        added: Vec<u64>,
        other: BTreeMap<String, [bool; 2]>,
        when: Time,
    }

    let reply = Reply {
        code: -3,
        text: "hello".into(),
        inner: Some(Box::new(Inner {
            message: "m".into(),
            level: 1,
        })),
        list: vec![Inner::default(), Inner::default()],
    };
    let received = sent(&reply);
    let newer = Newer {
        text: "hello".into(),
        added: Vec::new(),
        other: BTreeMap::new(),
        when: Time::ZERO,
    };
    assert_eq!(received.decode::<Newer>(), Ok(newer));
    assert_eq!(received.decode::<Reply>(), Ok(reply), "and again as itself");
    assert_eq!(received.decode::<()>(), Ok(()));
}

#[test]
fn unknown_fields_of_every_kind_are_passed_over() {
    #[derive(Gob)]
    struct All {
        a: bool,
        b: Vec<Vec<String>>,
        c: HashMap<u8, Inner>,
        d: Interface,
        e: Time,
        f: [Option<Box<Inner>>; 1],
        g: outrigger_gob::Complex,
        h: Bytes,
        last: i64,
    }

    #[derive(Gob, Debug, PartialEq)]
    struct Last {
        last: i64,
    }

    let all = All {
        a: true,
        b: vec![vec!["x".into()], vec![]],
        c: HashMap::from([(1, Inner::default())]),
        d: Interface::from("text"),
        e: Time::from_unix(1, 2, Some(60)).expect("a time"),
        f: [Some(Box::default())],
        g: outrigger_gob::Complex {
            real: 1.0,
            imaginary: 0.0,
        },
        h: Bytes::from_static(b"bytes"),
        last: 7,
    };
    reads(all, Last { last: 7 });
}

#[test]
fn structs_without_a_common_field_are_a_mistake() {
    #[derive(Gob, Debug, PartialEq)]
    struct Other {
        id: u64,
    }

    #[derive(Gob, Debug, PartialEq)]
    struct Holder {
        inner: Option<Other>,
    }

    let error = sent(&Inner::default()).decode::<Other>().expect_err("no");
    assert_eq!(error.code(), "gob-no-common-field");
    let message = error.to_string();
    assert!(message.starts_with(r#"none of the fields received ("Message, Level") is one of "#));
    // Within another struct it is none, as in Go.
    let outer = Reply {
        inner: Some(Box::default()),
        ..Reply::default()
    };
    let inner = Some(Other { id: 0 });
    reads(outer, Holder { inner });
    reads((), Other { id: 0 });
    reads(Other { id: 1 }, ());
}

#[test]
fn the_error_says_where_the_types_differ() {
    #[derive(Gob, Debug)]
    struct Reply {
        #[allow(dead_code)]
        list: Vec<Inner>,
    }

    #[derive(Gob, Debug)]
    struct Inner {
        #[allow(dead_code)]
        message: Vec<u8>,
    }

    refuses::<_, Reply>(
        self::Reply::default(),
        "gob-type-mismatch",
        "Reply.List.Message: expected []uint8, received string",
    );
    refuses::<_, self::Inner>(
        "text",
        "gob-type-mismatch",
        "expected struct Inner, received string",
    );
    refuses::<_, String>(
        self::Inner::default(),
        "gob-type-mismatch",
        "expected string, received struct \"Inner\"",
    );
    refuses::<_, Vec<u8>>(
        [1_u8],
        "gob-type-mismatch",
        "expected []uint8, received [1]uint",
    );
    refuses::<_, [u8; 2]>(
        [1_u8],
        "gob-type-mismatch",
        "expected an array of 2, received [1]uint",
    );
    refuses::<_, Vec<bool>>(
        [true],
        "gob-type-mismatch",
        "expected a slice, received [1]bool",
    );
    refuses::<_, HashMap<String, String>>(
        vec![true],
        "gob-type-mismatch",
        "expected a map, received []bool",
    );
    refuses::<_, Interface>(
        "a",
        "gob-type-mismatch",
        "expected interface {}, received string",
    );
    refuses::<_, String>(
        Interface::from("a"),
        "gob-type-mismatch",
        "expected string, received interface {}",
    );
    refuses::<_, String>(
        Time::ZERO,
        "gob-type-mismatch",
        "expected string, received \"Time\", which encodes itself",
    );
}

#[test]
fn the_error_says_which_value_is_wrong() {
    #[derive(Gob, Debug)]
    struct Narrow {
        #[allow(dead_code)]
        list: Vec<Item>,
    }

    #[derive(Gob, Debug)]
    struct Item {
        #[allow(dead_code)]
        by_name: BTreeMap<String, i8>,
    }

    #[derive(Gob, Debug)]
    struct Wide {
        list: Vec<WideItem>,
    }

    #[derive(Gob, Debug)]
    struct WideItem {
        by_name: BTreeMap<String, i64>,
    }

    let item = |value| WideItem {
        by_name: BTreeMap::from([("k".into(), value)]),
    };
    let wide = Wide {
        list: vec![item(1), item(1000)],
    };
    let error = sent(&wide).decode::<Narrow>().expect_err("too wide");
    assert_eq!(error.path(), "Narrow.List[1].ByName[value]");
    assert_eq!(
        error.to_string(),
        "Narrow.List[1].ByName[value]: 1000 does not fit int8 (at byte 12)"
    );
    assert_eq!(error.offset(), Some(12));
}

#[test]
fn strings_need_not_be_utf8() {
    let text = GoString::new(&b"\xffabc"[..]);
    reads(text.clone(), text.clone());
    reads("text", GoString::from("text"));
    refuses::<_, String>(
        text,
        "gob-not-utf8",
        "\"\\xffabc\" is not UTF-8 (at byte 0)",
    );
}

#[test]
fn a_nil_pointer_can_only_be_a_field() {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::from(&b"kept"[..]);
    let error = encoder.encode(&None::<Inner>, &mut out).expect_err("nil");
    assert_eq!(error.code(), "gob-nil");
    let list = vec![Some(Inner::default()), None];
    let error = encoder.encode(&list, &mut out).expect_err("nil");
    assert_eq!(
        error.to_string(),
        "[1]: a nil pointer cannot be sent here; only a field can be nil"
    );
    assert_eq!(&out[..], b"kept", "nothing was appended");
    // The definitions that were not sent are forgotten.
    encoder
        .encode(&Inner::default(), &mut out)
        .expect("encodable");
    let mut bytes = out.split_off(4);
    let received = Decoder::default().next(&mut bytes).expect("a stream");
    assert_eq!(received.expect("a value").decode(), Ok(Inner::default()));
}

#[test]
fn a_pair_is_sent_whole_or_not_at_all() {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    let nil = vec![None::<Inner>];
    assert!(
        encoder
            .encode_pair(&Reply::default(), &nil, &mut out)
            .is_err()
    );
    assert!(out.is_empty());
    let body = vec![Some(Inner::default())];
    encoder
        .encode_pair(&Reply::default(), &body, &mut out)
        .expect("encodable");
    let mut decoder = Decoder::default();
    let mut next = || decoder.next(&mut out).expect("a stream").expect("a value");
    assert_eq!(next().decode(), Ok(Reply::default()));
    assert_eq!(next().decode(), Ok(vec![Inner::default()]));
}

#[test]
fn a_pointer_to_zero_is_left_out_as_in_go() {
    #[derive(Gob, Debug, PartialEq)]
    struct Pointers {
        a: Option<u64>,
        b: Option<Inner>,
        c: Option<Time>,
        d: Option<HashMap<String, u8>>,
    }

    let value = Pointers {
        a: Some(0),
        b: Some(Inner::default()),
        c: Some(Time::ZERO),
        d: Some(HashMap::new()),
    };
    let read = Pointers {
        a: None,
        b: Some(Inner::default()),
        c: Some(Time::ZERO),
        d: Some(HashMap::new()),
    };
    reads(value, read);
}

#[derive(Gob, Debug, PartialEq, Clone)]
struct Node {
    value: i64,
    next: Option<Box<Node>>,
    kids: Vec<Node>,
    by_name: BTreeMap<String, Node>,
}

#[test]
fn types_that_contain_themselves() {
    let leaf = |value| Node {
        value,
        next: None,
        kids: Vec::new(),
        by_name: BTreeMap::new(),
    };
    let tree = Node {
        value: 1,
        next: Some(Box::new(leaf(2))),
        kids: vec![leaf(3), leaf(4)],
        by_name: BTreeMap::from([("five".into(), leaf(5))]),
    };
    let received = sent(&tree);
    assert_eq!(received.decode(), Ok(tree));
    assert_eq!(
        received.ty().expanded().to_string(),
        "struct { Value int; Next Node; Kids []Node; ByName map[string]Node }"
    );
}

#[test]
fn generics_newtypes_and_attributes() {
    #[derive(Gob, Debug, PartialEq)]
    struct Page<T> {
        items: Vec<T>,
        #[gob(rename = "ID")]
        id: Id,
        #[gob(skip)]
        cached: Option<std::time::Instant>,
        r#type: String,
        _private: bool,
    }

    #[derive(Gob, Debug, PartialEq, Clone, Copy)]
    struct Id(u64);

    #[derive(Gob, Debug, PartialEq)]
    struct Unit;

    #[derive(Gob, Debug, PartialEq)]
    #[gob(type_name = "Other", name = "*example.com/pkg.Other")]
    struct Registered {
        unit: Option<Unit>,
    }

    let page = Page {
        items: vec![Id(1), Id(2)],
        id: Id(7),
        cached: Some(std::time::Instant::now()),
        r#type: "t".into(),
        _private: true,
    };
    let received = sent(&page);
    assert_eq!(
        received.ty().expanded().to_string(),
        "struct { Items []uint; ID uint; Type string; Private bool }"
    );
    let expected = Page {
        cached: None,
        ..page
    };
    assert_eq!(received.decode(), Ok(expected));
    assert_eq!(sent(&Id(5)).decode(), Ok(5_u64));
    assert_eq!(sent(&Unit).decode(), Ok(Unit));
    assert_eq!(Registered::NAME, "*example.com/pkg.Other");
    let received = sent(&Registered { unit: Some(Unit) });
    assert_eq!(received.type_name(), "Other");
}

#[derive(Gob, Debug, PartialEq)]
#[gob(opaque)]
struct Even(u8);

impl Opaque for Even {
    const TYPE_NAME: &'static str = "Even";
    const KIND: OpaqueKind = OpaqueKind::BinaryMarshaler;

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        if self.0 % 2 == 1 {
            return Err("it is odd".into());
        }
        Ok(vec![self.0])
    }

    fn from_bytes(bytes: &[u8]) -> Result<Even, String> {
        match bytes {
            [byte] if byte % 2 == 0 => Ok(Even(*byte)),
            _ => Err("it is odd".into()),
        }
    }

    fn zero() -> Even {
        Even(0)
    }
}

#[test]
fn types_that_encode_themselves_can_refuse() {
    reads(Even(2), Even(2));
    let mut out = BytesMut::new();
    let error = Encoder::new().encode(&Even(1), &mut out).expect_err("odd");
    assert_eq!(
        (error.code(), &*error.to_string()),
        ("gob-refused", "a Even refused to be encoded: it is odd")
    );
    let Value::Opaque(mut value) = sent(&Even(2)).to_value().expect("a value") else {
        panic!("it is opaque");
    };
    value.bytes = Bytes::from_static(&[1]);
    refuses::<_, Even>(
        Value::Opaque(value),
        "gob-refused",
        "the bytes of a Even are refused: it is odd (at byte 0)",
    );
    // The other kind of self-encoding is another type.
    refuses::<_, Even>(
        Time::ZERO,
        "gob-type-mismatch",
        "expected Even, received \"Time\", which encodes itself",
    );
}

#[test]
fn interfaces_carry_the_names_go_registers_by_itself() {
    let names = [
        Interface::from(true),
        Interface::from(1_i8),
        Interface::from(1_isize),
        Interface::from(1_usize),
        Interface::from(1.0_f32),
        Interface::from(vec![1_u8]),
        Interface::from(vec![1_i32]),
        Interface::from(vec!["a".to_owned()]),
        Interface::from(vec![Interface::nil()]),
        Interface::of(&HashMap::from([("a".to_owned(), Interface::nil())])).expect("encodable"),
        Interface::of(&Time::ZERO).expect("encodable"),
    ]
    .map(|interface| interface.name().unwrap_or("nil").to_owned());
    let expected = [
        "bool",
        "int8",
        "int",
        "uint",
        "float32",
        "[]uint8",
        "[]int32",
        "[]string",
        "[]interface {}",
        "map[string]interface {}",
        "time.Time",
    ];
    assert_eq!(names, expected);
    for name in ["", &"x".repeat(1025)] {
        let interface = Interface::named(name.to_owned(), Value::Int(1));
        let mut out = BytesMut::new();
        let error = Encoder::new()
            .encode(&interface, &mut out)
            .expect_err("a bad name");
        assert_eq!(error.code(), "gob-type-name");
    }
}

#[test]
fn what_was_received_can_be_sent_on() {
    let shape = Interface::of(&BTreeMap::from([
        ("list".to_owned(), Interface::from(vec![1_i64, 2])),
        ("text".to_owned(), Interface::from("t")),
    ]))
    .expect("encodable");
    for received in [sent(&Reply::default()), sent(&shape)] {
        let on = sent(&received);
        assert_eq!(on.to_value(), received.to_value());
    }
    let received: Interface = sent(&shape).decode().expect("an interface");
    assert_eq!(sent(&received).decode::<Interface>(), Ok(received));
}

#[test]
fn a_dynamic_value_must_be_of_its_type() {
    let ty: Type = "[]struct { Name string; Tags [2]uint8 }"
        .parse()
        .expect("a type");
    let list = |items| {
        Value::Slice(List {
            ty: ty.clone(),
            items,
        })
    };
    let mut out = BytesMut::new();
    let error = Encoder::new()
        .encode_value(&list(vec![Value::Int(1)]), &mut out)
        .expect_err("another type");
    assert_eq!(
        error.to_string(),
        "[0]: expected struct { Name string; Tags [2]uint8 }, found int"
    );
    assert!(out.is_empty());

    let ty: Type = "[2]uint8".parse().expect("a type");
    let array = |items: Vec<Value>| {
        let array = List {
            ty: ty.clone(),
            items,
        };
        Encoder::new().encode_value(&array.into(), &mut BytesMut::new())
    };
    let error = array(vec![Value::Uint(1), Value::Uint(256)]).expect_err("too large");
    assert_eq!(error.to_string(), "[1]: 256 does not fit uint8");
    let error = array(vec![Value::Uint(1)]).expect_err("too few");
    assert_eq!(
        error.to_string(),
        "expected [2]uint8, found [2]uint8 with 1 elements"
    );
    assert!(array(vec![Value::Uint(1), Value::Uint(255)]).is_ok());
}

#[test]
fn a_dynamic_value_has_no_static_type() {
    #[derive(Gob, Debug, PartialEq)]
    struct Holder {
        any: Value,
    }

    #[derive(Gob)]
    struct Sender {
        any: Vec<String>,
    }

    let any = Value::Int(1);
    let error = Encoder::new()
        .encode(&Holder { any }, &mut BytesMut::new())
        .expect_err("no type");
    assert_eq!(error.code(), "gob-no-static-type");
    // But it can be received as one.
    let any = vec!["a".to_owned()];
    let holder: Holder = sent(&Sender { any }).decode().expect("anything");
    let Value::Slice(list) = holder.any else {
        panic!("it is a slice");
    };
    assert_eq!(list.items, [Value::from("a")]);
}

#[test]
fn times_keep_their_zone() {
    for (bytes, time) in [
        (15, Time::from_unix(1_700_000_000, 123_456_789, None)),
        (15, Time::from_unix(-1, 999_999_999, Some(0))),
        (15, Time::from_unix(0, 0, Some(-330))),
        (16, Time::from_unix_with_seconds(0, 0, Some(1172))),
        (16, Time::from_unix_with_seconds(0, 0, Some(-17_762))),
    ] {
        let time = time.expect("a time");
        assert_eq!(Opaque::to_bytes(&time).map(|bytes| bytes.len()), Ok(bytes));
        reads(time, time);
        let value = sent(&time).to_value().expect("a value");
        let Value::Opaque(opaque) = &value else {
            panic!("a time is opaque");
        };
        assert_eq!(opaque.to_time(), Some(time));
        assert_eq!(Value::try_from(time), Ok(value));
    }
    assert_eq!(Time::from_unix(0, 0, Some(-1)), None, "it means UTC in Go");
    assert_eq!(Time::from_unix(0, 1_000_000_000, None), None);
    assert_eq!(Time::from_unix(i64::MAX, 0, None), None);
    for bytes in [
        &b""[..],
        &[1; 14],
        &[1; 16],
        &[2; 15],
        &[3; 15],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
    ] {
        assert!(<Time as Opaque>::from_bytes(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn everything_can_go_to_another_thread() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Encoder>();
    shared::<Decoder>();
    shared::<Encoded>();
    shared::<Interface>();
    shared::<Value>();
    shared::<Type>();
    shared::<outrigger_gob::DecodeError>();
    shared::<outrigger_gob::EncodeError>();
}

#[test]
fn system_times_become_times_and_back() {
    use std::time::{Duration, UNIX_EPOCH};
    for instant in [
        UNIX_EPOCH,
        UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        UNIX_EPOCH - Duration::from_nanos(1),
        UNIX_EPOCH - Duration::from_secs(7),
    ] {
        assert_eq!(Time::from(instant).to_system_time(), Some(instant));
    }
    let before = Time::from(UNIX_EPOCH - Duration::from_nanos(1));
    assert_eq!(
        (before.unix_seconds(), before.nanoseconds()),
        (-1, 999_999_999)
    );
}

#[test]
fn a_type_that_is_made_again_is_not_defined_again() {
    let made = || -> Vec<Value> {
        let ty = |text: &str| text.parse::<Type>().expect("a type");
        let map = ty("map[string]any");
        let key = Value::from("a");
        let point = Type::structure("main.Point", [("X", &ty("[]int"))]);
        vec![
            Value::Map(Map {
                ty: map,
                entries: vec![(
                    key,
                    Interface::named(
                        "[][]string",
                        Value::Slice(List {
                            ty: ty("[][]string"),
                            items: Vec::new(),
                        }),
                    )
                    .into(),
                )],
            }),
            Value::Struct(Struct::new(&point).expect("a struct")),
            Value::Slice(List {
                ty: ty("[]struct{A, B map[string][4]int8}"),
                items: Vec::new(),
            }),
        ]
    };
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::default();
    let mut send = |value: &Value| {
        let mut out = BytesMut::new();
        encoder.encode(value, &mut out).expect("encodable");
        let size = out.len();
        let received = decoder.next(&mut out).expect("a stream");
        assert_eq!(received.expect("a value").ty(), value.ty());
        size
    };
    let mut round = || made().iter().map(&mut send).collect::<Vec<_>>();
    let (first, second) = (round(), round());
    assert!(first.iter().zip(&second).all(|(a, b)| a > b));
    // More rounds than a stream may have types.
    for _ in 0..1100 {
        assert_eq!(round(), second);
    }
    // Another name is another type.
    let other = Type::structure("main.Other", [("X", &"[]int".parse().expect("a type"))]);
    let other = Value::Struct(Struct::new(&other).expect("a struct"));
    assert!(send(&other) > second[1], "it is defined");
}
