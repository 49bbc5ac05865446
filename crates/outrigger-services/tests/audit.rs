//! What is kept of decisions in a file: bounded, complete or counted, and never
//! in the way.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outrigger_services::AuditLog;
use serde_json::Value;
use support::peer::{Peer, services};

const SECOND: Duration = Duration::from_secs(1);

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("readable");
    let parse = |line| serde_json::from_str(line).expect("a JSON object");
    text.lines().map(parse).collect()
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// Makes `count` decisions in order, told apart by the path that is asked for.
async fn decide(audit: &AuditLog, count: usize) {
    decide_as("busy", audit, count).await;
}

async fn decide_as(plugin: &str, audit: &AuditLog, count: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let services = services(dir.path(), "read").audit(audit.clone());
    let peer = Peer::new(&services, plugin).await;
    for number in 0..count {
        peer.read("", &format!("missing-{number}"))
            .await
            .expect_err("no such file");
    }
    peer.close().await;
}

#[tokio::test]
async fn every_decision_is_a_line_with_its_fields() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    let audit = AuditLog::open(&path, 1 << 20).expect("a file");
    decide(&audit, 50).await;
    assert!(audit.flush(20 * SECOND));
    let records = lines(&path);
    assert_eq!(records.len(), 50);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["plugin"], "busy");
        assert_eq!(record["instance"], "busy-1");
        assert_eq!(record["capability"], "filesystem");
        assert_eq!(record["operation"], "ReadFile");
        assert_eq!(record["argument"], format!("path=\"missing-{number}\""));
        assert_eq!(record["verdict"], "allowed");
        assert_eq!(record["code"], "not-found");
        assert!(record["micros"].is_u64() && record["bytes"] == 0);
        let time = record["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // What is there already stays.
    drop(audit);
    let audit = AuditLog::open(&path, 1 << 20).expect("a file");
    decide(&audit, 1).await;
    // The end of the log waits for its last records.
    drop(audit);
    assert_eq!(lines(&path).len(), 51);
}

#[tokio::test]
async fn a_file_is_rotated_by_size_and_loses_the_oldest_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    let most = 16 << 10;
    let audit = AuditLog::open_keeping(&path, most, 2).expect("a file");
    decide(&audit, 400).await;
    assert!(audit.flush(20 * SECOND));
    let mut all = Vec::new();
    for file in [numbered(&path, 2), numbered(&path, 1), path.clone()] {
        assert!(std::fs::metadata(&file).expect("there").len() <= most);
        all.extend(lines(&file));
    }
    assert!(!numbered(&path, 3).exists());
    let first = 400 - all.len();
    for (number, record) in all.iter().enumerate() {
        let expected = format!("path=\"missing-{}\"", first + number);
        assert_eq!(record["argument"], expected);
    }
    assert_eq!(audit.dropped(), 0);
}

#[tokio::test]
async fn what_could_not_be_written_is_counted_and_told_when_it_can_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).expect("a directory");
    let path = folder.join("audit.jsonl");
    let audit = AuditLog::open_keeping(&path, 16 << 10, 1).expect("a file");
    // The folder is gone when the file is full.
    std::fs::rename(&folder, dir.path().join("elsewhere")).expect("moved");
    decide(&audit, 300).await;
    assert!(audit.flush(20 * SECOND));
    let lost = audit.dropped();
    assert!(lost > 0);
    std::fs::create_dir(&folder).expect("a directory");
    decide(&audit, 1).await;
    assert!(audit.flush(20 * SECOND));
    let told = lines(&path);
    let event = told.iter().find(|line| line["event"] == "records-dropped");
    let event = event.expect("it is told");
    assert_eq!(event["total"], audit.dropped());
    assert_eq!(event["plugins"]["busy"], audit.dropped());
    assert!(audit.dropped() >= lost);
}

#[tokio::test]
async fn a_full_file_that_cannot_be_put_aside_grows_no_further() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.jsonl");
    let most = 16 << 10;
    let audit = AuditLog::open_keeping(&path, most, 1).expect("a file");
    // Nothing can be renamed to what is a directory.
    let in_the_way = numbered(&path, 1);
    std::fs::create_dir(&in_the_way).expect("a directory");
    for _ in 0..3 {
        decide(&audit, 100).await;
        assert!(audit.flush(20 * SECOND));
        assert!(std::fs::metadata(&path).expect("there").len() <= most);
    }
    let lost = audit.dropped();
    assert!(lost > 0);
    std::fs::remove_dir(&in_the_way).expect("removed");
    decide(&audit, 1).await;
    assert!(audit.flush(20 * SECOND));
    assert_eq!(audit.dropped(), lost);
    let told = [lines(&in_the_way), lines(&path)].concat();
    let kept = told.iter().filter(|line| line["plugin"] == "busy").count() as u64;
    assert_eq!(kept + lost, 301);
    let dropped = told.iter().filter_map(|line| line["dropped"].as_u64());
    assert_eq!(dropped.sum::<u64>(), lost);
}

#[tokio::test]
async fn a_sink_that_does_not_keep_up_holds_no_one_up() {
    let (audit, mut records) = AuditLog::channel(10);
    decide(&audit, 100).await;
    assert_eq!(audit.dropped(), 90);
    // Who floods it has its own places only.
    decide_as("quiet", &audit, 5).await;
    let mut kept = Vec::new();
    while let Some(record) = records.try_recv() {
        kept.push(record.plugin.to_string());
    }
    let (busy, quiet) = kept.split_at(10);
    assert!(busy.iter().all(|plugin| plugin == "busy"), "{kept:?}");
    assert_eq!(quiet, ["quiet"; 5]);
    let lost = audit.dropped_by_plugin();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), [("busy".into(), 90)]);
    // What was taken has given its places back.
    decide(&audit, 10).await;
    assert_eq!(audit.dropped(), 90);

    // A FIFO that nobody reads: writing to it never ends.
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RWXU, 0).expect("a fifo");
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("open at both ends");
    let audit = AuditLog::open(&fifo, u64::MAX).expect("a file");
    let started = Instant::now();
    decide(&audit, 4700).await;
    assert!(!audit.flush(Duration::from_millis(1)));
    let lost = audit.dropped();
    assert!(lost > 0);
    decide_as("quiet", &audit, 5).await;
    assert_eq!(audit.dropped(), lost);
    assert!(started.elapsed() < 40 * SECOND, "{:?}", started.elapsed());
    // Whoever reads it lets the writer end.
    let drain = std::thread::spawn(move || {
        use std::io::BufRead;
        let lines = std::io::BufReader::new(reader)
            .lines()
            .map_while(Result::ok);
        lines
            .take_while(|line| line != "the end")
            .collect::<Vec<_>>()
    });
    drop(audit);
    std::fs::write(&fifo, "the end\n").expect("written");
    let told = drain.join().expect("it ended");
    let told = told
        .iter()
        .map(|line| serde_json::from_str(line).expect("a JSON object"));
    let told: Vec<Value> = told.collect();
    let of = |plugin| told.iter().filter(|line| line["plugin"] == plugin).count() as u64;
    assert_eq!((of("busy"), of("quiet")), (4700 - lost, 5));
    let event = told.iter().find(|line| line["event"] == "records-dropped");
    let plugins = &event.expect("it is told")["plugins"];
    assert_eq!(*plugins, serde_json::json!({"busy": lost}));
}

#[tokio::test]
async fn several_places_get_every_record() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let called = AuditLog::callback(move |record| {
        assert_eq!(record.code, "not-found");
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let (channel, mut records) = AuditLog::channel(100);
    let audit = called.and(channel);
    decide(&audit, 20).await;
    assert_eq!(count.load(Ordering::Relaxed), 20);
    for number in 0..20 {
        let record = records.try_recv().expect("a record");
        assert!(
            record.to_string().contains(&format!("missing-{number}")),
            "{record}"
        );
    }
    assert_eq!(audit.dropped(), 0);
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_with_its_name() {
    let error = AuditLog::open("/nowhere/audit\n.jsonl", 1 << 20).expect_err("no such folder");
    assert_eq!(error.code(), "audit-file-unusable");
    assert_eq!(
        error.to_string(),
        r#"could not open "/nowhere/audit\n.jsonl" for audit records"#
    );
}
