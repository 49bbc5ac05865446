//! What a plugin prints to its stderr, as its host's log and copy have it.

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use outrigger_testing::TestDir;
use support::{Kept, shell};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One event: its level, and its fields by name.
#[derive(Clone, Debug)]
struct Seen {
    level: tracing::Level,
    fields: BTreeMap<&'static str, String>,
}

impl Seen {
    fn message(&self) -> &str {
        self.fields.get("message").map_or("", String::as_str)
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Seen>>>);

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "outrigger::plugin" {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        self.0.lock().expect("no panic").push(Seen {
            level,
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// What the host logs and copies of what a script prints to stderr.
async fn logged(script: &str, buffer: usize) -> (Vec<Seen>, Vec<u8>) {
    let (capture, copy, dir) = (Capture::default(), Kept::default(), TestDir::new());
    // For this thread, which is the only one that the runtime has.
    let subscriber = tracing_subscriber::registry().with(capture.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let launch = shell(script, &dir).stderr(copy.clone()).log_buffer(buffer);
    let error = launch.start().await.expect_err("it is no plugin");
    assert_eq!(error.code(), "exited-early");
    let seen = capture.0.lock().expect("no panic").clone();
    (seen, copy.bytes())
}

fn levels_and_messages(seen: &[Seen]) -> Vec<(&'static str, &str)> {
    seen.iter()
        .map(|seen| (seen.level.as_str(), seen.message()))
        .collect()
}

#[tokio::test]
async fn a_record_keeps_its_level_fields_and_time() {
    let line = r#"{"@level":"warn","@message":"disk is full","@timestamp":"2026-01-02T03:04:05.678901Z","@module":"store","@caller":"store.go:7","path":"/srv","left":12}"#;
    let (seen, _) = logged(&format!("echo '{line}' >&2"), 65536).await;
    let [seen] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(seen.level, tracing::Level::WARN);
    let field = |name: &str| seen.fields.get(name).map(String::as_str);
    assert_eq!(field("message"), Some("disk is full"));
    assert_eq!(field("plugin"), Some("script"));
    assert_eq!(field("time"), Some("2026-01-02T03:04:05.678901Z"));
    assert_eq!(field("module"), Some("store"));
    assert_eq!(field("caller"), Some("store.go:7"));
    assert_eq!(field("fields"), Some("left=12 path=/srv"));
}

#[tokio::test]
async fn text_has_the_level_of_its_prefix_and_a_panic_raises_what_follows() {
    let script = r#"
        echo '[TRACE] a' >&2; echo '[DEBUG] b' >&2; echo '[INFO] c' >&2
        echo '[WARN] d' >&2; echo '[ERROR] e' >&2; echo '[ERR] f' >&2
        echo '["g"]' >&2; echo '{"h":1}' >&2
        echo 'panic: i' >&2; echo 'goroutine 1 [running]:' >&2; echo '[INFO] j' >&2; echo k >&2
    "#;
    let (seen, _) = logged(script, 65536).await;
    assert_eq!(
        levels_and_messages(&seen),
        [
            ("TRACE", "[TRACE] a"),
            ("DEBUG", "[DEBUG] b"),
            ("INFO", "[INFO] c"),
            ("WARN", "[WARN] d"),
            ("ERROR", "[ERROR] e"),
            ("DEBUG", "[ERR] f"),
            ("DEBUG", r#"["g"]"#),
            ("DEBUG", r#"{"h":1}"#),
            ("ERROR", "panic: i"),
            ("ERROR", "goroutine 1 [running]:"),
            ("INFO", "[INFO] j"),
            ("ERROR", "k"),
        ]
    );
}

#[tokio::test]
async fn the_copy_is_exact_and_long_lines_are_logged_in_pieces() {
    let long = "x".repeat(100);
    let record = r#"{"@level":"info","@message":"this is a message"}"#;
    let script = format!("printf '\\n{record}\\r\\nWORLD\\n{long}\\nlast' >&2");
    let (seen, copy) = logged(&script, 64).await;
    let expected = format!("\n{record}\nWORLD\n{long}\nlast\n");
    assert_eq!(String::from_utf8_lossy(&copy), expected);
    let seen = levels_and_messages(&seen);
    let found = |entry: (&str, &str)| seen.contains(&entry);
    assert!(found(("INFO", "this is a message")), "{seen:?}");
    assert!(
        found(("DEBUG", &"x".repeat(64))) && found(("DEBUG", &"x".repeat(36))),
        "{seen:?}"
    );
    assert!(
        found(("DEBUG", "WORLD")) && found(("DEBUG", "last")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_a_plugin_prints_cannot_move_the_cursor_of_a_log() {
    let (seen, copy) = logged(r"printf 'a\033[2Jb\r\001c\n' >&2", 65536).await;
    assert_eq!(copy, b"a\x1b[2Jb\r\x01c\n");
    let [seen] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(seen.message(), r"a\u{1b}[2Jb\r\u{1}c");
}
