//! Each call leaves one record, whatever becomes of it, and the record says how
//! it was judged.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_services::{AuditLog, AuditRecord, GrantedServices, Limits, Verdict};
use outrigger_wire::proto::host::*;
use outrigger_wire::proto::hostserve::{
    FileWriteResponse, GetEnvRequest, GetEnvResponse, GetuidRequest, GetuidResponse,
};
use support::grants_with;
use support::peer::Peer;
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Records = Arc<Mutex<Vec<AuditRecord>>>;

async fn peer(limits: Limits) -> (Peer, Records, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let entry = support::peer::entry(dir.path(), support::peer::EVERYTHING, true);
    let sections = format!(
        "services: [clock, log, filesystem, environment]\n\
         capabilities: {{filesystem: [{entry}], environment: {{read: [PATH], set: {{MODE: fast}}}}}}"
    );
    let records = Records::default();
    let kept = records.clone();
    let services = GrantedServices::new(grants_with(&sections))
        .limits(limits)
        .audit(AuditLog::callback(move |record| {
            kept.lock().expect("not poisoned").push(record.clone());
        }));
    (Peer::new(&services, "caller").await, records, dir)
}

/// The records so far, once there are as many.
async fn take(records: &Records, count: usize) -> Vec<AuditRecord> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while records.lock().expect("not poisoned").len() < count {
        assert!(Instant::now() < deadline, "{records:?}");
        tokio::task::yield_now().await;
    }
    let told = std::mem::take(&mut *records.lock().expect("not poisoned"));
    assert_eq!(told.len(), count, "{told:?}");
    told
}

fn name(record: &AuditRecord) -> (String, &str, Verdict) {
    let name = format!("{}.{}", record.capability, record.operation);
    (name, record.code, record.verdict)
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.expect("details").reason
}

#[tokio::test]
async fn a_refusal_is_short_whatever_was_asked_for() {
    let (peer, records, _dir) = peer(Limits::default()).await;
    let name = "A".repeat(4_000_000);
    let refused = peer.call::<_, GetResponse>("Environment/Get", GetRequest { name });
    let status = refused.await.expect_err("not granted");
    assert_eq!(status.code(), Code::PermissionDenied);
    // What gRPC libraries take of headers without being asked, in bytes.
    let most = 8 << 10;
    assert!(status.message().len() * 3 + status.details().len() * 4 / 3 < most);
    let info = status.get_details_error_info().expect("details");
    assert!(info.metadata["missing"].ends_with(" bytes)"), "{info:?}");
    let told = take(&records, 1).await;
    let line = serde_json::to_string(&told[0]).expect("JSON");
    assert!(line.len() < most, "{} bytes", line.len());
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_refused_in_one_record() {
    let (peer, records, _dir) = peer(Limits::default()).await;
    let long = "x".repeat(5 << 20);
    let stat = StatRequest { path: long.clone() };
    let status = peer.call::<_, StatResponse>("Filesystem/Stat", stat).await;
    let too_long = status.expect_err("too long");
    // A number where the path belongs.
    let number = DescriptorRequest {
        id: 7,
        ..DescriptorRequest::default()
    };
    let status = peer
        .call::<_, StatResponse>("Filesystem/Stat", number)
        .await;
    let senseless = status.expect_err("not a path");
    let nothing = LevelRequest {};
    let unknown = peer
        .call::<_, LevelResponse>("Filesystem/Nothing", nothing)
        .await;
    let unknown = unknown.expect_err("no such method");
    assert_eq!(
        unknown.message(),
        "session.call: \"outrigger.host.v1.Filesystem\" has no method \"Nothing\""
    );
    assert_eq!(
        [&too_long, &senseless, &unknown].map(reason),
        ["malformed-request", "malformed-request", "unsupported"]
    );
    assert_eq!(
        [&too_long, &senseless, &unknown].map(Status::code),
        [Code::OutOfRange, Code::Internal, Code::Unimplemented]
    );
    let told = take(&records, 3).await;
    for (record, code) in told
        .iter()
        .zip(["malformed-request", "malformed-request", "unsupported"])
    {
        assert_eq!(
            name(record),
            ("session.call".into(), code, Verdict::Refused)
        );
        assert!(
            record.argument.contains("/outrigger.host.v1.Filesystem/"),
            "{record}"
        );
    }

    let part = WriteStreamRequest {
        data: long.into_bytes().into(),
        ..WriteStreamRequest::default()
    };
    let parts = futures_util::stream::iter([part]);
    let written = peer.upload::<_, WriteStreamResponse>("Filesystem/WriteStream", parts);
    let status = written.await.expect_err("too long");
    assert_eq!(reason(&status), "malformed-request");
    let told = take(&records, 1).await;
    assert_eq!(
        name(&told[0]),
        (
            "filesystem.write_stream".into(),
            "malformed-request",
            Verdict::Refused
        )
    );
    peer.close().await;
    assert!(records.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_call_without_a_place_leaves_a_record_as_does_one_that_is_given_up() {
    let limits = Limits {
        calls: 1,
        call_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let (peer, records, _dir) = peer(limits).await;
    let ticks = TicksRequest {
        period_ms: 3_600_000,
    };
    let holding = peer.start::<_, TicksResponse>("Clock/Ticks", ticks).await;
    let now = peer
        .call::<_, NowResponse>("Clock/Now", NowRequest {})
        .await;
    let status = now.expect_err("no place");
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::ResourceExhausted, "too-many-calls")
    );
    let told = take(&records, 1).await;
    assert_eq!(
        name(&told[0]),
        ("session.call".into(), "too-many-calls", Verdict::Refused)
    );
    assert!(told[0].argument.contains("Clock/Now"), "{}", told[0]);
    // It is given up before it has a place.
    let now = peer.call::<_, NowResponse>("Clock/Now", NowRequest {});
    let given_up = tokio::time::timeout(Duration::from_millis(500), now).await;
    given_up.expect_err("it waits");
    let told = take(&records, 1).await;
    assert_eq!(
        name(&told[0]),
        ("session.call".into(), "cancelled", Verdict::Undecided)
    );
    drop(holding);
    let told = take(&records, 1).await;
    assert_eq!(
        name(&told[0]),
        ("clock.ticks".into(), "cancelled", Verdict::Allowed)
    );
    peer.close().await;
}

#[tokio::test]
async fn a_call_to_a_service_that_is_not_there_is_named_and_leaves_a_record() {
    let (peer, records, _dir) = peer(Limits::default()).await;
    let long = format!("Nobody{}/Ever", "y".repeat(4000));
    for (method, named) in [
        ("Nobody/Ever", "\"outrigger.host.v1.Nobody\""),
        // A name is shown up to a length.
        (long.as_str(), "yyy\"… (+3904 bytes)"),
    ] {
        let reply = peer.call::<_, LevelResponse>(method, LevelRequest {}).await;
        let status = reply.expect_err("no such service");
        assert_eq!(
            (status.code(), &*reason(&status)),
            (Code::Unimplemented, "unsupported")
        );
        let text = status.message();
        assert!(
            text.starts_with("session.call: the host has no service \""),
            "{text}"
        );
        assert!(text.ends_with(named) && text.len() < 200, "{text}");
        let told = take(&records, 1).await;
        assert_eq!(
            name(&told[0]),
            ("session.call".into(), "unsupported", Verdict::Refused)
        );
        let argument = &told[0].argument;
        assert!(
            argument.starts_with("method=\"/outrigger.host.v1.Nobody"),
            "{argument}"
        );
        assert!(argument.len() < 200, "{argument}");
    }
    peer.close().await;
    assert!(records.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn of_a_flood_of_senseless_calls_each_is_in_the_records_or_counted_there() {
    const CALLS: u64 = 100;
    let (peer, records, _dir) = peer(Limits::default()).await;
    for call in 0..CALLS {
        let method = ["Log/Nothing", "Nobody/Ever"][usize::from(call % 2 == 0)];
        let reply = peer.call::<_, LevelResponse>(method, LevelRequest {}).await;
        reply.expect_err("no such method");
    }
    let used: UsageResponse = peer
        .call("Session/Usage", UsageRequest {})
        .await
        .expect("known");
    assert_eq!((used.operations, used.refused), (1, 0), "none began");
    peer.close().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let told = records.lock().expect("not poisoned").clone();
        let kept = told
            .iter()
            .filter(|record| record.operation == "call")
            .count() as u64;
        let more = told
            .iter()
            .filter_map(|record| record.argument.split("more=").nth(1));
        let more: u64 = more
            .map(|more| more.parse::<u64>().expect("a number"))
            .sum();
        // The last ones are told when nothing of the connection is left.
        if kept + more == CALLS {
            assert!(more > 0, "{kept} records");
            return;
        }
        assert!(Instant::now() < deadline, "{kept} records, {more} more");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_ended_before_it_was_judged_is_neither_allowed_nor_refused() {
    // Nothing that may have to wait gets a thread.
    let limits = Limits {
        blocking: 0,
        call_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let (peer, records, _dir) = peer(limits).await;
    let lstat = LstatRequest {
        path: "file".into(),
    };
    let status = peer
        .call::<_, StatResponse>("Filesystem/Lstat", lstat)
        .await;
    assert_eq!(status.expect_err("late").code(), Code::DeadlineExceeded);
    let told = take(&records, 1).await;
    assert_eq!(
        name(&told[0]),
        (
            "filesystem.lstat".into(),
            "call-timeout",
            Verdict::Undecided
        )
    );
    assert_eq!(
        (told[0].rule.as_str(), told[0].verdict.as_str()),
        ("", "undecided")
    );
    peer.close().await;
}

#[tokio::test]
async fn what_is_allowed_by_its_service_names_that_as_its_rule() {
    let (peer, records, _dir) = peer(Limits::default()).await;
    peer.call::<_, NowResponse>("Clock/Now", NowRequest {})
        .await
        .expect("granted");
    peer.call::<_, LevelResponse>("Log/Level", LevelRequest {})
        .await
        .expect("granted");
    peer.call::<_, NamesResponse>("Environment/Names", NamesRequest {})
        .await
        .expect("granted");
    peer.call::<_, GetuidResponse>("Getuid", GetuidRequest {})
        .await
        .expect("granted");
    peer.call::<_, UsageResponse>("Session/Usage", UsageRequest {})
        .await
        .expect("granted");
    let key = "MODE".to_owned();
    let mode = peer
        .call::<_, GetEnvResponse>("GetEnv", GetEnvRequest { key })
        .await;
    assert_eq!(mode.expect("granted").val, "fast");
    let told = take(&records, 6).await;
    let rules: Vec<&str> = told.iter().map(|record| record.rule.as_str()).collect();
    for rule in &rules[..4] {
        assert!(rule.starts_with("services by policy "), "{rules:?}");
    }
    assert_eq!(rules[4], "every plugin may");
    assert_eq!(rules[5], "capabilities.environment.set");
    assert!(told.iter().all(|record| record.verdict == Verdict::Allowed));
    peer.close().await;
}

#[tokio::test]
async fn a_stream_of_a_service_that_is_not_granted_is_refused_before_it_says_a_word() {
    let records = Records::default();
    let kept = records.clone();
    let services = GrantedServices::new(grants_with("services: [clock]")).audit(
        AuditLog::callback(move |record| kept.lock().expect("not poisoned").push(record.clone())),
    );
    let peer = Peer::new(&services, "silent").await;
    let limit = Duration::from_secs(20);
    let silence = || futures_util::stream::pending::<WriteStreamRequest>();
    for method in [
        "Filesystem/WriteStream",
        "Network/Connect",
        "Network/Accept",
    ] {
        let reply = peer.upload::<_, WriteStreamResponse>(method, silence());
        let reply = tokio::time::timeout(limit, reply).await.expect("at once");
        let status = reply.expect_err("not granted");
        assert_eq!(status.code(), Code::PermissionDenied, "{method}");
    }
    let reply = peer.upload::<_, FileWriteResponse>("FileWriter", silence());
    let reply = tokio::time::timeout(limit, reply).await.expect("at once");
    assert!(reply.expect("a reply").error.is_some());
    for record in take(&records, 4).await {
        assert_eq!(record.verdict, Verdict::Refused, "{record}");
    }
    peer.close().await;
}
