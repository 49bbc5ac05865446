//! Values that cross, and what plugins call them.

use anyhow::Result;
use outrigger_examples::netrpc::{Any, AnyMap};
use outrigger_host::gob::{Complex, Named, Time, Value};
use outrigger_interop::netrpc::Shape;

fn of<T: Named>(value: &T) -> Result<Any> {
    Ok(Any::of(value)?)
}

/// UTC.
fn moment(seconds: i64, nanoseconds: u32) -> Time {
    Time::from_unix(seconds, nanoseconds, None).unwrap_or(Time::ZERO)
}

fn some_shape() -> Shape {
    Shape {
        name: "square".into(),
        sides: 4,
        tags: vec!["flat".into(), "even".into()],
        inner: Some(Box::new(Shape {
            name: "dot".into(),
            at: moment(-1, 0),
            ..Shape::default()
        })),
        at: moment(1_770_091_506, 789_000_000),
        extra: Some(AnyMap::from([
            ("area".to_owned(), Any::from(2.25)),
            ("count".to_owned(), Any::from(7_isize)),
            ("on".to_owned(), Any::from(true)),
        ])),
    }
}

/// A value and its description.
pub(crate) fn described() -> Result<Vec<(Any, &'static str)>> {
    let map = AnyMap::from([
        ("b".to_owned(), Any::from(true)),
        ("a".to_owned(), Any::from(1_isize)),
        ("c".to_owned(), Any::nil()),
    ]);
    let list = vec![
        Any::from("x"),
        Any::from(1_isize),
        Any::from(vec!["y".to_owned()]),
    ];
    Ok(vec![
        (Any::nil(), "<nil> <nil>"),
        (true.into(), "bool true"),
        (7_isize.into(), "int 7"),
        (i64::MIN.into(), "int64 -9223372036854775808"),
        (200_u8.into(), "uint8 200"),
        (1.5.into(), "float64 1.5"),
        ("hi there".into(), "string hi there"),
        (vec![1_u8, 2, 255].into(), "[]uint8 [1 2 255]"),
        (
            vec!["a".to_owned(), "b".to_owned()].into(),
            "[]string [a b]",
        ),
        (of(&map)?, "map[string]interface {} map[a:1 b:true c:<nil>]"),
        (list.into(), "[]interface {} [x 1 [y]]"),
        (
            of(&moment(1_770_091_506, 0))?,
            "time.Time 2026-02-03T04:05:06Z",
        ),
        (
            of(&Shape::default())?,
            "main.Shape { 0 [] <nil> 0001-01-01T00:00:00Z map[]}",
        ),
        (
            of(&some_shape())?,
            "main.Shape {square 4 [flat even] &{dot 0 [] <nil> 1969-12-31T23:59:59Z map[]} \
             2026-02-03T04:05:06.789Z map[area:2.25 count:7 on:true]}",
        ),
    ])
}

/// Values that come back as they are.
pub(crate) fn echoed() -> Result<Vec<Any>> {
    let mixed = vec![1_isize.into(), "two".into(), of(&some_shape())?];
    let deep = AnyMap::from([("er".to_owned(), Any::from(mixed))]);
    let triangle = Shape {
        sides: 3,
        ..Shape::default()
    };
    let nested = Shape {
        extra: Some(AnyMap::from([
            ("inner".to_owned(), of(&some_shape())?),
            ("list".to_owned(), vec![of(&triangle)?].into()),
        ])),
        ..Shape::default()
    };
    Ok(vec![
        Any::nil(),
        false.into(),
        0_isize.into(),
        (-8_i8).into(),
        (-300_i16).into(),
        (1_i32 << 20).into(),
        i64::MAX.into(),
        1_usize.into(),
        0_u8.into(),
        65_535_u16.into(),
        u32::MAX.into(),
        u64::MAX.into(),
        0.5_f32.into(),
        (-1.25e300).into(),
        f64::INFINITY.into(),
        Complex {
            real: 1.0,
            imaginary: -2.0,
        }
        .into(),
        "".into(),
        "snow ☃".into(),
        vec![0_u8].into(),
        vec![0xA5_u8; 1 << 20].into(),
        vec![-1_isize, 0, 1].into(),
        vec![1.5, 0.0].into(),
        vec![String::new(), "x".to_owned()].into(),
        vec![true, false].into(),
        of(&AnyMap::new())?,
        of(&AnyMap::from([("deep".to_owned(), of(&deep)?)]))?,
        vec![Any::nil(), vec![Any::from(vec![Any::from("three")])].into()].into(),
        of(&moment(1_770_091_506, 7))?,
        of(&Shape::default())?,
        of(&some_shape())?,
        of(&nested)?,
    ])
}

/// The value with its maps in the order of their keys; Go sends them in any.
pub(crate) fn in_order(value: &Any) -> Result<Any> {
    Ok(match (value.name(), value.value()?) {
        (Some(name), Some(value)) => Any::named(name.to_owned(), ordered(value)?),
        _ => Any::nil(),
    })
}

fn ordered(value: Value) -> Result<Value> {
    Ok(match value {
        Value::Map(mut map) => {
            for (_, value) in &mut map.entries {
                *value = ordered(value.clone())?;
            }
            map.entries
                .sort_by_key(|(key, _)| key.as_str().map(str::to_owned));
            Value::Map(map)
        }
        Value::Slice(mut list) => {
            for item in &mut list.items {
                *item = ordered(item.clone())?;
            }
            Value::Slice(list)
        }
        Value::Struct(mut fields) => {
            for field in fields.fields.iter_mut().flatten() {
                *field = ordered(field.clone())?;
            }
            Value::Struct(fields)
        }
        Value::Interface(value) => Value::Interface(in_order(&value)?),
        other => other,
    })
}
