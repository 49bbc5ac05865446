use super::*;
use crate::logs::LineSplitter;
use serde_json::json;

fn line(text: &str) -> Piece<'_> {
    Piece {
        bytes: text.as_bytes(),
        complete: true,
        long: false,
    }
}

fn text(level: Level, text: &str) -> LogRecord {
    LogRecord::new(LogSource::Text, level, text)
}

#[test]
fn h23_a_prefix_gives_the_level_and_is_kept() {
    let mut classifier = StderrClassifier::new();
    for (observed, level) in [
        ("[TRACE] x", Level::Trace),
        ("[DEBUG] x", Level::Debug),
        ("[INFO] x", Level::Info),
        ("[WARN] x", Level::Warn),
        ("[ERROR]x", Level::Error),
        ("[ERR] x", Level::Debug),
        ("[warn] x", Level::Debug),
        (" [WARN] x", Level::Debug),
        ("2026/11/21 10:00:00 [WARN] x", Level::Debug),
        ("", Level::Debug),
    ] {
        assert_eq!(classifier.classify(&line(observed)), text(level, observed));
    }
}

#[test]
fn h22_json_that_is_no_record_is_kept_verbatim_at_debug() {
    for observed in [
        "[\"HELLO\"]",
        "12345",
        "\"text\"",
        "true",
        "null",
        "{\"a\":1}",
        "{}",
        "{\"@level\":\"off\",\"@message\":\"x\"}",
        "{\"@level\":\"loud\"}",
        "{\"@level\":\"\"}",
        "{\"@level\":\"info\"",
        "{\"@level\":\"info\"} x",
    ] {
        assert_eq!(
            StderrClassifier::new().classify(&line(observed)),
            text(Level::Debug, observed)
        );
    }
}

#[test]
fn t40_a_non_string_where_a_string_belongs_makes_the_line_text() {
    for observed in [
        "{\"@level\":1,\"@message\":\"x\"}",
        "{\"@level\":null,\"@message\":\"x\"}",
        "{\"@level\":\"info\",\"@message\":12}",
        "{\"@level\":\"info\",\"@message\":null}",
        "{\"@level\":\"info\",\"@timestamp\":1700000000}",
    ] {
        assert_eq!(
            StderrClassifier::new().classify(&line(observed)),
            text(Level::Debug, observed)
        );
    }
}

#[test]
fn h24_after_a_panic_plain_lines_are_errors() {
    for start in ["panic: oh no", "fatal error: out of memory"] {
        let mut classifier = StderrClassifier::new();
        let mut level = |observed: &str| classifier.classify(&line(observed)).level;
        assert_eq!(level("before"), Level::Debug);
        assert_eq!(level(start), Level::Error);
        assert_eq!(level(""), Level::Error);
        assert_eq!(level("goroutine 1 [running]:"), Level::Error);
        assert_eq!(level("[\"not an object\"]"), Level::Error);
        assert_eq!(level("[DEBUG] prefixed"), Level::Debug);
        assert_eq!(level("{\"@level\":\"info\"}"), Level::Info);
        assert_eq!(level("{\"no\":\"level\"}"), Level::Debug);
        assert_eq!(level("null"), Level::Debug);
        assert_eq!(level("still"), Level::Error);
    }
}

#[test]
fn h24_only_the_beginning_of_a_line_starts_a_crash_report() {
    let mut classifier = StderrClassifier::new();
    for observed in [
        "a panic: b",
        "panic:",
        "Panic: x",
        "[INFO] panic: x",
        "thread 'main' panicked at src/main.rs:1:1:",
    ] {
        classifier.classify(&line(observed));
        assert_eq!(classifier.classify(&line("x")).level, Level::Debug);
    }
}

#[test]
fn h25_pieces_of_an_over_long_line_are_not_interpreted() {
    let mut classifier = StderrClassifier::new();
    for observed in ["{\"@level\":\"info\"}", "[ERROR] x", "panic: x"] {
        for complete in [false, true] {
            let piece = Piece {
                bytes: observed.as_bytes(),
                complete,
                long: true,
            };
            assert_eq!(classifier.classify(&piece), text(Level::Debug, observed));
        }
    }
    // A `panic: ` that was not interpreted starts nothing.
    assert_eq!(classifier.classify(&line("x")).level, Level::Debug);
}

/// Has the shape of the vector in the Go library's
/// `TestClient_logStderrParseJSON`.
#[test]
fn h25_with_a_buffer_of_64_a_long_record_becomes_two_pieces() {
    let long =
        r#"{"@level": "info", "@message": "this one is cut in two because it has too many bytes"}"#;
    let stream = format!("{{\"@message\": \"this is a message\", \"@level\": \"info\"}}\n{long}");
    let mut entries = Vec::new();
    let mut classifier = StderrClassifier::new();
    let mut splitter = LineSplitter::new(64);
    let mut keep = |piece: Piece<'_>| entries.push(classifier.classify(&piece));
    splitter.push(stream.as_bytes(), &mut keep);
    splitter.finish(&mut keep);
    let [record, rest @ ..] = entries.as_slice() else {
        panic!("expected a record first, found {entries:?}");
    };
    assert_eq!(
        (record.source, record.level),
        (LogSource::Hclog, Level::Info)
    );
    assert_eq!(record.message, "this is a message");
    assert_eq!(
        rest,
        [
            text(Level::Debug, &long[..64]),
            text(Level::Debug, &long[64..])
        ]
    );
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let piece = Piece {
        bytes: b"[WARN] \xff",
        complete: true,
        long: false,
    };
    assert_eq!(
        StderrClassifier::new().classify(&piece),
        text(Level::Warn, "[WARN] \u{fffd}")
    );
    let piece = Piece {
        bytes: b"{\"@level\":\"info\",\"@message\":\"\xff\"}",
        ..piece
    };
    let record = StderrClassifier::new().classify(&piece);
    assert_eq!(record.source, LogSource::Hclog);
    assert_eq!(record.message, "\u{fffd}");
}

#[test]
fn h21_fields_and_numbers_are_kept() {
    let observed = r#" {"z":12345678,"foo":"bar","@level":"info","@message":"m","n":18446744073709551615,"f":0.1,"o":{"a":[null]}} "#;
    let record = StderrClassifier::new().classify(&line(observed));
    assert_eq!(record.source, LogSource::Hclog);
    assert_eq!(
        record.fields,
        [
            ("f".to_owned(), json!(0.1)),
            ("foo".to_owned(), json!("bar")),
            ("n".to_owned(), json!(u64::MAX)),
            ("o".to_owned(), json!({"a": [null]})),
            ("z".to_owned(), json!(12345678)),
        ]
    );
}

#[test]
fn nesting_without_end_is_text() {
    let observed = format!("{{\"@level\":\"info\",\"x\":{}", "[".repeat(60_000));
    assert_eq!(
        StderrClassifier::new().classify(&line(&observed)),
        text(Level::Debug, &observed)
    );
}
