//! Real plugins of a folder, started, watched over, started again and stopped.

mod many;
mod reload;
mod stage;

use std::time::Duration;

use outrigger::{
    Coded, ErrorKind, ExitStatus, LockMode, PluginState, Restart, StopReason, Supervision,
};
use outrigger_examples::Kv;
use outrigger_examples::proto::kv::{GetRequest, PutRequest};

use stage::{SOON, Stage, becomes, kill, pid, states, until};

/// The key/value store, which forgets nothing between its starts.
const STORE: &str = "exec $K";

/// A plugin that fails is started again after a moment, as often as it takes.
fn hasty() -> Supervision {
    Supervision {
        restart_delay: Duration::from_millis(10),
        restarts: 1000,
        ..Supervision::default()
    }
}

async fn put(host: &outrigger::Host, name: &str, value: &str) {
    let mut kv = host.client::<Kv>(name).await.expect("a client");
    let (key, value) = (name.to_owned(), value.to_owned().into());
    kv.put(PutRequest { key, value }).await.expect("put");
}

async fn get(host: &outrigger::Host, name: &str) -> String {
    let mut kv = host.client::<Kv>(name).await.expect("a client");
    let key = name.to_owned();
    let got = kv.get(GetRequest { key }).await.expect("an answer");
    String::from_utf8_lossy(&got.into_inner().value).into_owned()
}

// ---- start and stop ------------------------------------------------------

#[tokio::test]
async fn a_plugin_is_started_when_a_client_is_wanted_and_stopped_with_its_host() {
    let stage = Stage::new();
    stage.add("store", STORE);
    stage.add("other", STORE);
    let host = stage.host(Supervision::default()).await;
    assert_eq!(stage.processes(), [0; 0], "nothing runs yet");
    put(&host, "store", "kept").await;
    assert_eq!(get(&host, "store").await, "kept");

    let status = host.status("store").expect("a plugin");
    assert!(status.state.is_serving(), "{status:?}");
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    assert_eq!((status.generation, status.restarts), (1, 0));
    assert_eq!(stage.processes(), [status.pid.expect("a process")]);
    let other = host.status("other").expect("a plugin");
    assert!(matches!(other.state, PluginState::Installed), "{other:?}");

    let report = host.shutdown(SOON).await;
    assert_eq!(report.exits["store"].status, ExitStatus::Code(0));
    assert_eq!((report.exits.len(), report.killed().count()), (1, 0));
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_plugin_that_nobody_approved_waits_for_that_and_the_next_call_starts_it() {
    let stage = Stage::new();
    stage.add("store", STORE);
    let settings = stage
        .settings()
        .lock_file(stage.path().join("outrigger.lock"))
        .lock_mode(LockMode::Strict);
    let host = settings.clone().host(stage.path()).await.expect("a folder");
    let error = host.start("store").await.expect_err("nobody approved it");
    assert_eq!(error.code(), "needs-approval");
    becomes(&host, "store", "needs-approval").await;
    assert_eq!(stage.processes(), [0; 0]);

    let store = settings.open_plugin(stage.path().join("store"));
    store
        .and_then(|store| store.approve(None))
        .expect("approved");
    put(&host, "store", "kept").await;
    assert_eq!(get(&host, "store").await, "kept");
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn every_change_of_state_is_an_event_with_its_cause() {
    let stage = Stage::new();
    stage.add("store", STORE);
    let host = stage.host(Supervision::default()).await;
    let mut events = host.events();
    host.start("store").await.expect("started");
    host.start("store").await.expect("it runs");
    host.stop("store").await.expect("stopped");
    let seen = states(&mut events, "store", |state| {
        matches!(state, PluginState::Stopped { .. })
    });
    let expected = [
        "starting because that was asked for",
        "running because it answers",
        "stopping because that was asked for",
        "stopped because nothing is left of it",
    ];
    assert_eq!(seen.await, expected);
    drop(host);
    assert!(events.next().await.is_none(), "the host is gone");
}

#[tokio::test]
async fn a_plugin_that_somebody_stopped_is_started_by_no_call() {
    let stage = Stage::new();
    stage.add("store", STORE);
    let host = stage.host(Supervision::default()).await;
    put(&host, "store", "1").await;
    let report = host.stop("store").await.expect("a plugin").expect("it ran");
    assert_eq!(report.status, ExitStatus::Code(0));
    let again = host.stop("store").await.expect("a plugin");
    assert!(again.is_some(), "how it ended is known");

    let error = host.client::<Kv>("store").await.expect_err("stopped");
    assert_eq!(error.code(), "plugin-stopped");
    assert_eq!(stage.processes(), [0; 0]);
    host.start("store").await.expect("started");
    assert_eq!(get(&host, "store").await, "1");
    assert_eq!(host.status("store").expect("a plugin").generation, 2);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_stop_overtakes_a_start_and_whoever_waited_learns_it() {
    let stage = Stage::new();
    stage.add("slow", "exec $M silence");
    let host = stage.host(Supervision::default()).await;
    let starting = tokio::spawn({
        let host = host.clone();
        async move { host.start("slow").await }
    });
    becomes(&host, "slow", "starting").await;
    until("its process is there", || !stage.processes().is_empty()).await;
    host.stop("slow").await.expect("a plugin");
    let error = starting.await.expect("no panic").expect_err("stopped");
    assert!(matches!(error.kind(), ErrorKind::Stopped { .. }), "{error}");
    becomes(&host, "slow", "stopped").await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn dropping_the_host_leaves_no_plugin() {
    let stage = Stage::new();
    for name in ["one", "two", "three"] {
        stage.add(name, STORE);
    }
    let host = stage.host(Supervision::default()).await;
    for (name, started) in host.start_all().await {
        started.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(stage.processes().len(), 3);
    drop(host);
    stage.nothing_left().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_killed_and_a_second_shutdown_hurries_the_first() {
    let stage = Stage::new();
    stage.add("stays", "exec $M agrees-and-stays");
    stage.add("store", STORE);
    let host = stage.host(Supervision::default()).await;
    for (name, started) in host.start_all().await {
        started.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let patient = tokio::spawn({
        let host = host.clone();
        async move { host.shutdown(Duration::from_secs(600)).await }
    });
    becomes(&host, "stays", "stopping").await;
    becomes(&host, "store", "stopped").await;
    host.shutdown(Duration::ZERO).await;
    let report = patient.await.expect("no panic");
    assert_eq!(report.killed().collect::<Vec<_>>(), ["stays"]);
    assert_eq!(report.exits["store"].status, ExitStatus::Code(0));
    let error = host.start("store").await.expect_err("too late");
    assert_eq!(error.code(), "host-shut-down");
    stage.nothing_left().await;
}

// ---- failures ------------------------------------------------------------

#[tokio::test]
async fn a_plugin_that_is_killed_is_started_again() {
    let stage = Stage::new();
    stage.add("store", STORE);
    let host = stage.host(hasty()).await;
    put(&host, "store", "kept").await;
    let mut events = host.events();
    kill(pid(&host, "store")).await;
    let seen = states(&mut events, "store", |state| {
        matches!(state, PluginState::Running)
    })
    .await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(
        seen[0].starts_with("backoff because it was killed by signal 9 (SIGKILL) after "),
        "{seen:?}"
    );
    assert_eq!(
        seen[1..],
        [
            "starting because the wait after its failure is over",
            "running because it answers"
        ]
    );
    assert_eq!(get(&host, "store").await, "kept");
    let status = host.status("store").expect("a plugin");
    assert_eq!((status.generation, status.restarts), (2, 1));
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_crash_loop_is_parked_with_its_last_words_until_somebody_restarts_it() {
    let stage = Stage::new();
    stage.add("broken", "echo no database >&2; exit 3");
    let rules = Supervision {
        restart_delay: Duration::from_millis(1),
        ..Supervision::default()
    };
    let host = stage.host(rules).await;
    let first = host.start("broken").await.expect_err("it exits");
    assert_eq!(first.code(), "exited-early");
    becomes(&host, "broken", "failed").await;
    let status = host.status("broken").expect("a plugin");
    assert_eq!((status.generation, status.restarts), (6, 5));
    let error = host.client::<Kv>("broken").await.expect_err("it failed");
    assert_eq!(error.code(), "plugin-failed");
    let details = error.details().join("\n");
    assert!(details.contains("no database"), "{details}");

    stage.program("broken", STORE);
    host.restart("broken").await.expect("mended");
    put(&host, "broken", "1").await;
    assert_eq!(host.status("broken").expect("a plugin").generation, 7);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn what_no_second_start_can_mend_is_not_tried_again() {
    let stage = Stage::new();
    stage.add("store", STORE);
    let digest = stage.path().join("store/plugin.sha256");
    std::fs::write(digest, "0".repeat(64)).expect("a checksum");
    stage.add_with(
        "greedy",
        "capabilities: {environment: {read: [HOME]}}",
        STORE,
    );
    let host = stage.settings().policy(outrigger::Policy::allow_nothing());
    let host = host.host(stage.path()).await.expect("a folder");
    for (name, code) in [
        ("store", "digest-mismatch"),
        ("greedy", "capability-refused"),
    ] {
        let error = host.start(name).await.expect_err("refused");
        assert_eq!(error.code(), code);
        becomes(&host, name, "failed").await;
        assert_eq!(host.status(name).expect("a plugin").restarts, 0);
    }
}

#[tokio::test]
async fn whether_a_plugin_that_ended_is_started_again_is_a_setting() {
    let stage = Stage::new();
    for name in ["on-failure", "always", "never", "never-killed"] {
        stage.add(name, STORE);
    }
    let rule = |restart| Supervision { restart, ..hasty() };
    let settings = stage
        .settings()
        .supervision(hasty())
        .supervision_for("always", rule(Restart::Always))
        .supervision_for("never", rule(Restart::Never))
        .supervision_for("never-killed", rule(Restart::Never));
    let host = settings.host(stage.path()).await.expect("a folder");
    for (name, started) in host.start_all().await {
        started.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // They end by themselves as soon as another host asks them to.
    for name in ["on-failure", "always", "never"] {
        let joined = host.status(name).expect("a plugin").reattach;
        let joined = join(joined.expect("it runs")).await;
        joined.stop().await;
    }
    kill(pid(&host, "never-killed")).await;
    becomes(&host, "on-failure", "stopped").await;
    becomes(&host, "never", "stopped").await;
    becomes(&host, "never-killed", "failed").await;
    until("it runs again", || {
        let status = host.status("always").expect("a plugin");
        status.state.is_serving() && status.generation == 2
    })
    .await;
    let status = host.status("on-failure").expect("a plugin");
    let why = StopReason::Ended;
    assert!(matches!(status.state, PluginState::Stopped { why: w } if w == why));
    // A call starts it again.
    put(&host, "on-failure", "1").await;
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

pub(crate) async fn join(reattach: outrigger::Reattach) -> outrigger::RunningPlugin {
    outrigger::Attach::new(reattach)
        .offer(1, outrigger::PluginSet::new())
        .connect()
        .await
        .expect("joined")
}
