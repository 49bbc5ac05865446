use super::*;
use crate::logs::Level;
use proptest::prelude::*;
use serde_json::json;

fn with_time(time: &str) -> Result<LogRecord, Rejected> {
    let line = json!({"@level": "info", "@message": "m", "@timestamp": time});
    LogRecord::parse(&line.to_string())
}

fn record() -> LogRecord {
    LogRecord::new(LogSource::Hclog, Level::Warn, "m")
}

#[test]
fn h21_every_part_of_a_record_is_read() {
    let parsed = LogRecord::parse(
        r#"{"@caller":"main.go:7","@level":"WARN","@message":"m","@module":"a.b","@timestamp":"2026-11-21T10:30:00.123456+02:00","k":"v"}"#,
    );
    assert_eq!(
        parsed,
        Ok(LogRecord {
            module: Some("a.b".to_owned()),
            caller: Some("main.go:7".to_owned()),
            time: Some("2026-11-21T08:30:00.123456Z".parse().unwrap()),
            fields: vec![("k".to_owned(), json!("v"))],
            ..record()
        })
    );
}

#[test]
fn what_a_record_leaves_out_is_empty() {
    let parsed = LogRecord::parse(r#"{"@level":" warn\t"}"#).unwrap();
    assert_eq!(
        parsed,
        LogRecord {
            message: String::new(),
            ..record()
        }
    );
}

#[test]
fn of_a_key_that_occurs_twice_the_last_one_counts() {
    let parsed = LogRecord::parse(r#"{"@level":"x","@level":"warn","a":1,"@message":"m","a":2}"#);
    assert_eq!(parsed.unwrap().fields, [("a".to_owned(), json!(2))]);
}

#[test]
fn an_odd_value_does_not_cost_the_level_and_the_message() {
    for (written, name, value) in [
        (r#""m":"caf\udce9""#, "m", json!("caf\u{fffd}")),
        (r#""\ud83d":1"#, "\u{fffd}", json!(1)),
        (r#""m":NaN"#, "m", json!("NaN")),
        (
            r#""m":[-Infinity,{"x":1e999}]"#,
            "m",
            json!(["-Infinity", {"x": "1e999"}]),
        ),
    ] {
        let line = format!(r#"{{"@level":"warn","@message":"m",{written}}}"#);
        for line in [line.clone(), format!("\u{feff}{line}")] {
            let parsed =
                LogRecord::parse(&line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
            assert_eq!(parsed.fields, [(name.to_owned(), value.clone())]);
            assert_eq!((parsed.level, parsed.message.as_str()), (Level::Warn, "m"));
        }
    }
    let message = LogRecord::parse(r#"{"@level":"error","@message":"caf\udce9"}"#).unwrap();
    assert_eq!(message.message, "caf\u{fffd}");
    let message = LogRecord::parse(r#"{"@level":"warn","@message":NaN}"#).unwrap();
    assert_eq!(message.message, "NaN");
    for line in [r#"{"@level":NaN}"#, r#"{"@level":"warn""#] {
        assert!(LogRecord::parse(line).is_err(), "{line}");
    }
}

#[test]
fn a_module_or_caller_that_is_no_string_stays_a_field() {
    let parsed = LogRecord::parse(r#"{"@level":"warn","@message":"m","@module":1,"@caller":null}"#);
    assert_eq!(
        parsed,
        Ok(LogRecord {
            fields: vec![
                ("@caller".to_owned(), Value::Null),
                ("@module".to_owned(), json!(1))
            ],
            ..record()
        })
    );
}

#[test]
fn t15_only_one_form_of_time_is_read() {
    for (time, expected) in [
        ("2026-11-21T10:30:00.000001Z", "2026-11-21T10:30:00.000001Z"),
        ("2026-11-21T10:30:00.100000+00:00", "2026-11-21T10:30:00.1Z"),
        ("2026-11-21T10:30:00.100000-05:30", "2026-11-21T16:00:00.1Z"),
        ("2024-02-29T00:00:00.000000Z", "2024-02-29T00:00:00Z"),
        ("0001-01-01T00:00:00.000000Z", "0001-01-01T00:00:00Z"),
    ] {
        assert_eq!(
            with_time(time).unwrap().time,
            Some(expected.parse().unwrap()),
            "{time}"
        );
    }
    for time in [
        "",
        "2026-11-21T10:30:00Z",
        "2026-11-21T10:30:00.123Z",
        "2026-11-21T10:30:00.123456789Z",
        "2026-11-21T10:30:00.123456",
        "2026-11-21T10:30:00.123456z",
        "2026-11-21T10:30:00.123456 Z",
        "2026-11-21T10:30:00.123456+0200",
        "2026-11-21T10:30:00.123456+02",
        "2026-11-21T10:30:00.123456+99:00",
        "2026-11-21T10:30:00.123456Z ",
        "2026-11-21 10:30:00.123456Z",
        "2026-13-21T10:30:00.123456Z",
        "2026-02-30T10:30:00.123456Z",
        "2026-11-21T24:00:00.123456Z",
        "2026-11-21T10:30:60.123456Z",
        "2026-11-21T10:30:00.12345éZ",
        "2026-11-21T10:30:00.123456Z[Europe/Vienna]",
    ] {
        assert_eq!(with_time(time), Err(Rejected::NotARecord), "{time}");
    }
}

#[test]
fn p16_times_have_six_digits_and_strings_stay_strings() {
    let record = LogRecord {
        time: Some("2026-11-21T10:30:00.1234569Z".parse().unwrap()),
        caller: Some("src/main.rs:7".to_owned()),
        module: Some("a".to_owned()),
        fields: vec![("n".to_owned(), json!(12)), ("s".to_owned(), json!("12"))],
        ..record()
    };
    insta::assert_snapshot!(
        write_hclog(&record),
        @r#"{"@caller":"src/main.rs:7","@level":"warn","@message":"m","@module":"a","@timestamp":"2026-11-21T10:30:00.123456Z","n":12,"s":"12"}"#
    );
}

#[test]
fn a_line_never_contains_a_newline() {
    let record = LogRecord {
        message: "a\nb\r\nc\"\\\u{1b}".to_owned(),
        fields: vec![("k\n".to_owned(), json!("v\n"))],
        ..record()
    };
    insta::assert_snapshot!(
        write_hclog(&record),
        @r#"{"@level":"warn","@message":"a\nb\r\nc\"\\\u001b","k\n":"v\n"}"#
    );
}

#[test]
fn t40_a_field_cannot_take_the_place_of_a_part() {
    let names = ["@level", "@message", "@timestamp", "@module", "@caller"];
    let record = LogRecord {
        fields: names.map(|name| (name.to_owned(), json!(1))).into(),
        ..record()
    };
    insta::assert_snapshot!(
        write_hclog(&record),
        @r#"{"@level":"warn","@message":"m","_@level":1,"_@message":1,"_@timestamp":1,"_@module":1,"_@caller":1}"#
    );
}

#[test]
fn a_time_without_four_digits_in_its_year_is_left_out() {
    for time in [Some(Timestamp::MIN), None] {
        let line = write_hclog(&LogRecord { time, ..record() });
        assert_eq!(line, r#"{"@level":"warn","@message":"m"}"#);
    }
    let line = write_hclog(&LogRecord {
        time: Some(Timestamp::MAX),
        ..record()
    });
    assert!(
        line.contains(r#""@timestamp":"9999-12-30T22:00:00.999999Z""#),
        "{line}"
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_written_record_reads_back_as_itself(
        level in prop_oneof![Just(Level::Trace), Just(Level::Info), Just(Level::Error)],
        message in ".{0,40}",
        micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000,
        module in proptest::option::of(".{0,10}"),
        caller in proptest::option::of(".{0,10}"),
        fields in proptest::collection::btree_map("[^@].{0,10}", any_value(), 0..5),
    ) {
        let record = LogRecord {
            time: Some(Timestamp::from_microsecond(micros).unwrap()),
            module,
            caller,
            fields: fields.into_iter().collect(),
            ..LogRecord::new(LogSource::Hclog, level, message)
        };
        let line = write_hclog(&record);
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(LogRecord::parse(&line), Ok(record));
    }
}
