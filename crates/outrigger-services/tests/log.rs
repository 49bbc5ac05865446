//! `outrigger.host.v1.Log`: a plugin's records in the host's log.

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_wire::proto::host::*;
use serde_json::Value;
use support::plugin::{Plugin, failure};
use tonic::{Code, Status};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    /// The events so far, which are taken.
    fn events(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|event: &Value| event["target"] == "outrigger::plugin")
            .collect()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn record(level: LogLevel, message: &str) -> LogRecord {
    LogRecord {
        level: level.into(),
        message: message.into(),
        ..LogRecord::default()
    }
}

async fn write(plugin: &Plugin, records: Vec<LogRecord>) -> Result<WriteLogResponse, Status> {
    plugin.call("Log/Write", WriteLogRequest { records }).await
}

/// One test: the subscriber is the thread's.
#[tokio::test]
async fn records_become_events_of_the_plugin_within_bounds() {
    let shared = Shared::default();
    let writer = shared.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let plugin = Plugin::new("services: [log]").await;

    let reply: LevelResponse = plugin
        .call("Log/Level", LevelRequest {})
        .await
        .expect("a level");
    assert_eq!(reply.level(), LogLevel::Info);

    let full = LogRecord {
        module: "store".into(),
        fields: HashMap::from([
            ("b".to_owned(), "2\x1b[2J".to_owned()),
            ("a".to_owned(), "1".to_owned()),
        ]),
        time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 500_000_000,
        }),
        ..record(LogLevel::Warn, "two\nlines")
    };
    let records = vec![
        full,
        record(LogLevel::Debug, "quiet"),
        record(LogLevel::Unspecified, "x"),
    ];
    let counts = write(&plugin, records).await.expect("written");
    assert_eq!((counts.written, counts.filtered), (2, 1));
    let events = shared.events();
    assert_eq!(events.len(), 2);
    let (event, fields) = (&events[0], &events[0]["fields"]);
    assert_eq!(event["level"], "WARN");
    assert_eq!(fields["plugin"], "tester");
    assert_eq!(fields["message"], "two\\nlines");
    assert_eq!(fields["module"], "store");
    assert_eq!(fields["fields"], "a=1 b=2\\u{1b}[2J");
    assert_eq!(fields["time"], "2023-11-14T22:13:20.5Z");
    assert_eq!(events[1]["level"], "INFO");

    let long = "x".repeat(100_000);
    write(&plugin, vec![record(LogLevel::Error, &long)])
        .await
        .expect("written");
    let events = shared.events();
    let message = events[0]["fields"]["message"].as_str().expect("a text");
    assert!(message.ends_with("x… (+34464 bytes)"));
    assert_eq!(message.len(), 65_536 + "… (+34464 bytes)".len());

    let many = vec![record(LogLevel::Trace, ""); 1025];
    assert_eq!(failure(write(&plugin, many).await).0, Code::InvalidArgument);
    // A flood is slowed down, not taken.
    let flood = vec![record(LogLevel::Trace, ""); 1024];
    let refused = loop {
        match write(&plugin, flood.clone()).await {
            Ok(counts) => assert_eq!(counts.filtered, 1024),
            Err(status) => break status,
        }
    };
    assert_eq!(failure::<()>(Err(refused)).1, "rate-limited");

    let parts = (0..3).map(|n| WriteLogRequest {
        records: vec![record(LogLevel::Info, &format!("part {n}"))],
    });
    let parts = futures_util::stream::iter(parts.collect::<Vec<_>>());
    let counts: WriteLogResponse = plugin
        .upload("Log/WriteStream", parts)
        .await
        .expect("written");
    assert_eq!((counts.written, counts.filtered), (3, 0));
    let texts: Vec<Value> = shared
        .events()
        .iter()
        .map(|event| event["fields"]["message"].clone())
        .collect();
    assert_eq!(texts, ["part 0", "part 1", "part 2"]);
    plugin.close().await;
}
