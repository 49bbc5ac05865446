//! Many plugins at once, such that hang, such that fail again and again, and such
//! that nobody calls.

use std::time::{Duration, Instant};

use outrigger::{PluginState, StopReason, Supervision};
use outrigger_examples::Kv;
use outrigger_examples::proto::kv::GetRequest;

use crate::stage::{SOON, Stage, becomes, pid, states, until};

/// A store beneath a shell, which is the plugin's process: when the store is
/// paused, the plugin hangs, and is not paused itself.
const BENEATH: &str = "$K & wait";

fn asked_often(ping_misses: u32) -> Supervision {
    Supervision {
        ping_every: Some(Duration::from_millis(20)),
        ping_timeout: Duration::from_millis(100),
        ping_misses,
        restart_delay: Duration::from_millis(10),
        ..Supervision::default()
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it is there");
}

/// The store beneath the shell.
fn beneath(stage: &Stage, shell: u32) -> u32 {
    let mut processes = stage.processes().into_iter();
    processes.find(|pid| *pid != shell).expect("a store")
}

// ---- plugins that hang ---------------------------------------------------

#[tokio::test]
async fn a_plugin_that_leaves_its_pings_unanswered_is_killed_and_started_again() {
    let stage = Stage::new();
    stage.add("store", BENEATH);
    let host = stage.host(asked_often(3)).await;
    host.start("store").await.expect("started");
    let shell = pid(&host, "store");
    let mut events = host.events();
    signal(beneath(&stage, shell), rustix::process::Signal::STOP);
    let seen = states(&mut events, "store", |state| {
        matches!(state, PluginState::Running)
    })
    .await;
    assert_eq!(
        seen[..2],
        [
            "degraded because it left 1 pings in a row unanswered",
            "degraded because it left 2 pings in a row unanswered"
        ]
    );
    let failed = "backoff because it left 3 pings in a row unanswered";
    assert!(seen[2].starts_with(failed), "{seen:?}");
    assert_ne!(pid(&host, "store"), shell);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_plugin_that_answers_again_is_well_again() {
    let stage = Stage::new();
    stage.add("store", BENEATH);
    let host = stage.host(asked_often(1_000_000)).await;
    host.start("store").await.expect("started");
    let shell = pid(&host, "store");
    let store = beneath(&stage, shell);
    signal(store, rustix::process::Signal::STOP);
    becomes(&host, "store", "degraded").await;
    signal(store, rustix::process::Signal::CONT);
    becomes(&host, "store", "running").await;
    assert_eq!(pid(&host, "store"), shell);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_plugin_that_is_paused_is_left_alone() {
    let stage = Stage::new();
    stage.add("store", "exec $K");
    let host = stage.host(asked_often(1)).await;
    host.start("store").await.expect("started");
    let store = pid(&host, "store");
    let mut events = host.events();
    signal(store, rustix::process::Signal::STOP);
    // Long enough for many pings; what is waited for must not happen.
    let changed = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(changed.is_err(), "{changed:?}");
    signal(store, rustix::process::Signal::CONT);
    let mut kv = host.client::<Kv>("store").await.expect("a client");
    let key = "none".to_owned();
    kv.get(GetRequest { key }).await.expect_err("no such value");
    assert_eq!(pid(&host, "store"), store);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

// ---- plugins that nobody calls -------------------------------------------

#[tokio::test]
async fn a_plugin_that_nobody_calls_is_stopped_and_started_by_the_next_call() {
    let stage = Stage::new();
    stage.add("store", "exec $K");
    let rules = Supervision {
        idle_stop: Some(Duration::from_millis(300)),
        ..Supervision::default()
    };
    let host = stage.host(rules).await;
    let mut kv = host.client::<Kv>("store").await.expect("a client");
    let began = Instant::now();
    let mut call = async || {
        let key = "none".to_owned();
        let status = kv.get(GetRequest { key }).await.expect_err("no such value");
        assert!(outrigger::RouteError::behind(&status).is_none(), "{status}");
    };
    while began.elapsed() < Duration::from_secs(1) {
        call().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.status("store").expect("a plugin").generation, 1);
    becomes(&host, "store", "stopped").await;
    let state = host.status("store").expect("a plugin").state;
    let why = StopReason::Idle;
    assert!(matches!(state, PluginState::Stopped { why: was } if was == why));
    stage.nothing_left().await;
    call().await;
    assert_eq!(host.status("store").expect("a plugin").generation, 2);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_plugin_that_is_started_when_it_is_called_is_not_started_with_the_others() {
    let stage = Stage::new();
    stage.add("early", "exec $K");
    stage.add("late", "exec $K");
    let lazy = Supervision {
        lazy: true,
        ..Supervision::default()
    };
    let settings = stage.settings().supervision_for("late", lazy);
    let host = settings.host(stage.path()).await.expect("a folder");
    let started = host.start_all().await;
    let names: Vec<&str> = started.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["early"]);
    becomes(&host, "late", "installed").await;
    host.client::<Kv>("late").await.expect("a client");
    becomes(&host, "late", "running").await;
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

// ---- many ----------------------------------------------------------------

#[allow(clippy::print_stderr)] // Read by whoever runs it with `--nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_goes_on_answering_beside_a_hundred_that_crash_in_a_loop() {
    const BROKEN: usize = 100;
    let stage = Stage::new();
    stage.add("well", "exec $K");
    for number in 0..BROKEN {
        stage.add(&format!("broken-{number}"), "exit 3");
    }
    let host = stage.host(Supervision::default()).await;
    host.start("well").await.expect("started");
    let well = pid(&host, "well");
    let kv = host.client::<Kv>("well").await.expect("a client");
    let latency = async |until: Instant| {
        let mut took = Vec::new();
        while Instant::now() < until {
            let (mut kv, key) = (kv.clone(), "none".to_owned());
            let began = Instant::now();
            kv.get(GetRequest { key }).await.expect_err("no such value");
            took.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.sort();
        (took[took.len() / 2], took[took.len() * 99 / 100])
    };
    let idle = latency(Instant::now() + Duration::from_secs(1)).await;
    let starts = {
        let host = host.clone();
        tokio::spawn(async move { host.start_all().await })
    };
    let beside = latency(Instant::now() + Duration::from_secs(5)).await;
    starts.await.expect("no panic");
    eprintln!("median and p99: {idle:?} alone, {beside:?} beside {BROKEN} crash loops");
    until("all are parked", || {
        let failed = |state: &PluginState| matches!(state, PluginState::Failed { .. });
        host.list()
            .iter()
            .filter(|status| failed(&status.state))
            .count()
            == BROKEN
    })
    .await;
    let status = host.status("well").expect("a plugin");
    assert_eq!((status.pid, status.generation), (Some(well), 1));
    // How long it took is the machine's affair too; that it was never stuck is ours.
    assert!(beside.1 < SOON, "{beside:?}");
    assert_eq!(stage.processes(), [well]);
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}
