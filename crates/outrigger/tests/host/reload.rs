//! Clients that go on, while the process behind them is another one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outrigger::{
    Coded, Deadlines, EventKind, Host, PluginState, Reload, ReloadStep, RouteError, Supervision,
};
use outrigger_examples::Kv;
use outrigger_examples::proto::kv::kv_client::KvClient;
use outrigger_examples::proto::kv::{GetRequest, PutRequest};

use crate::stage::{SOON, Stage, becomes, kill, next, pid, until};

type Client = KvClient<outrigger::Channel>;

/// A key/value store that keeps the values of one version of it.
fn version(stage: &Stage, version: &str) -> String {
    let values = stage.path().join(format!(".values-{version}"));
    std::fs::create_dir_all(&values).expect("a folder");
    std::fs::write(values.join("kv_version"), version).expect("a value");
    format!("cd {}; exec $K", values.display())
}

async fn version_of(client: &Client) -> String {
    let key = "version".to_owned();
    let got = client.clone().get(GetRequest { key }).await;
    String::from_utf8_lossy(&got.expect("an answer").into_inner().value).into_owned()
}

async fn client(host: &Host, name: &str) -> Client {
    host.client::<Kv>(name).await.expect("a client")
}

fn quick() -> Supervision {
    Supervision {
        restart_delay: Duration::from_millis(10),
        restarts: 1000,
        rollback_within: Duration::ZERO,
        deadlines: Deadlines {
            start: Duration::from_secs(20),
            ..Deadlines::default()
        },
        ..Supervision::default()
    }
}

/// A call that is in flight until it is let go: the store reads a pipe.
struct LongCall {
    pipe: std::path::PathBuf,
    call: tokio::task::JoinHandle<Result<String, Failed>>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl LongCall {
    async fn begin(stage: &Stage, version: &str, client: &Client) -> Self {
        let pipe = stage.path().join(format!(".values-{version}/kv_long"));
        let _ = std::fs::remove_file(&pipe);
        make_pipe(&pipe);
        let mut client = client.clone();
        let call = tokio::spawn(async move {
            let key = "long".to_owned();
            let got = client.get(GetRequest { key }).await?;
            Ok(String::from_utf8_lossy(&got.into_inner().value).into_owned())
        });
        Self { pipe, call }
    }

    /// Lets the store answer with `text`.
    async fn answer(self, text: &str) -> Result<String, Failed> {
        let (pipe, text) = (self.pipe, text.to_owned());
        // Opening it waits for the store.
        let written = tokio::task::spawn_blocking(move || std::fs::write(pipe, text));
        written.await.expect("no panic").expect("written");
        self.call.await.expect("no panic")
    }
}

#[allow(clippy::disallowed_methods)] // The program is no plugin.
fn make_pipe(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("it runs").success());
}

// ---- restarts ------------------------------------------------------------

#[tokio::test]
async fn a_client_goes_on_when_its_plugin_is_started_again() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let host = stage.host(quick()).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    kill(pid(&host, "store")).await;
    // It may be called before the host knows of the death, and while it starts.
    assert_eq!(version_of(&store).await, "1");
    host.restart("store").await.expect("restarted");
    assert_eq!(version_of(&store).await, "1");
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_call_of_a_plugin_that_does_not_run_starts_it_or_says_why_not() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let host = stage
        .host(Supervision {
            restart_delay: Duration::from_millis(1),
            ..quick()
        })
        .await;
    let store = client(&host, "store").await;
    let code = async |store: &Client| {
        let key = "version".to_owned();
        let status = store.clone().get(GetRequest { key }).await;
        let status = status.expect_err("it does not run");
        RouteError::behind(&status).map(Coded::code)
    };
    host.stop("store").await.expect("stopped");
    assert_eq!(code(&store).await, Some("plugin-stopped"));
    host.start("store").await.expect("started");
    assert_eq!(version_of(&store).await, "1");

    // It ends by itself when another host asks it to.
    let joined = host.status("store").expect("a plugin").reattach;
    let joined = crate::join(joined.expect("it runs")).await;
    joined.stop().await;
    becomes(&host, "store", "stopped").await;
    assert_eq!(version_of(&store).await, "1");

    std::fs::remove_file(stage.path().join("store/run")).expect("removed");
    kill(pid(&host, "store")).await;
    becomes(&host, "store", "failed").await;
    assert_eq!(code(&store).await, Some("plugin-failed"));
    drop(host);
    stage.nothing_left().await;
}

// ---- reloads -------------------------------------------------------------

#[tokio::test]
async fn a_reload_lets_calls_in_flight_end_where_they_began_and_new_ones_go_to_the_new() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let host = stage.host(quick()).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let long = LongCall::begin(&stage, "1", &store).await;
    let old = pid(&host, "store");

    stage.program("store", &version(&stage, "2"));
    assert_eq!(version_of(&store).await, "1", "nobody asked for a reload");
    let reloaded = host.reload("store").await.expect("reloaded");
    assert_eq!(reloaded.generation, Some(2));
    assert_eq!(version_of(&store).await, "2");
    let new = pid(&host, "store");
    assert_ne!(old, new);
    assert_eq!(long.answer("late").await.expect("an answer"), "late");
    until("the old one is gone", || outrigger_testing::is_gone(old)).await;
    assert_eq!(version_of(&store).await, "2");
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn what_is_in_flight_for_too_long_is_ended_with_its_own_code() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let drain = Duration::from_millis(50);
    let host = stage.host(Supervision { drain, ..quick() }).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let long = LongCall::begin(&stage, "1", &store).await;
    let mut events = host.events();
    host.reload("store").await.expect("reloaded");
    let error = long.call.await.expect("no panic").expect_err("cut");
    let route = RouteError::behind(error.as_ref()).expect("a reason");
    assert_eq!(route.code(), "plugin-replaced");
    loop {
        if let EventKind::Reload(ReloadStep::Cut { generation, calls }) =
            next(&mut events).await.kind
        {
            assert_eq!((generation, calls), (1, 1));
            break;
        }
    }
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_new_version_that_is_not_fit_leaves_the_old_one_in_place() {
    let stage = Stage::new();
    let good = version(&stage, "1");
    stage.add("store", &good);
    let rules = Supervision {
        deadlines: Deadlines {
            start: Duration::from_secs(3),
            ..Deadlines::default()
        },
        ..quick()
    };
    let unfit = Arc::new(AtomicUsize::new(0));
    let tries = unfit.clone();
    let settings = stage.settings().supervision(rules).prepare(move |_| {
        let fails = tries.load(Ordering::Relaxed) == 1;
        async move {
            match fails {
                true => Err("it answers nonsense".into()),
                false => Ok(()),
            }
        }
    });
    let host = settings.host(stage.path()).await.expect("a folder");
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let old = pid(&host, "store");
    for (script, code) in [
        ("echo no >&2; exit 3", "exited-early"),
        ("exec $M silence", "handshake-timeout"),
        ("unset BASIC_PLUGIN; exec $K", "exited-early"),
        ("exec $M resets-calls", "plugin-not-serving"),
        ("exec $M wrong-app-version", "app-version-mismatch"),
        (good.as_str(), "self-test-failed"),
        (good.as_str(), "digest-mismatch"),
    ] {
        stage.program("store", script);
        unfit.store(usize::from(code == "self-test-failed"), Ordering::Relaxed);
        let digest = stage.path().join("store/plugin.sha256");
        if code == "digest-mismatch" {
            std::fs::write(&digest, "0".repeat(64)).expect("a checksum");
        }
        let error = host.reload("store").await.expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(
            (pid(&host, "store"), version_of(&store).await),
            (old, "1".into())
        );
        until("nothing of it is left", || stage.processes() == [old]).await;
        let _ = std::fs::remove_file(digest);
    }
    std::fs::write(stage.path().join("store/manifest.yaml"), "plugin: {}").expect("written");
    let error = host.reload("store").await.expect_err("no manifest");
    assert_eq!(error.code(), "manifest-invalid");
    assert_eq!(version_of(&store).await, "1");
    let status = host.status("store").expect("a plugin");
    assert_eq!((status.restarts, status.pid), (0, Some(old)));
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_new_version_that_dies_soon_is_replaced_by_the_old_one_again() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let rollback_within = Duration::from_secs(600);
    let rules = Supervision {
        rollback_within,
        ..quick()
    };
    let host = stage.host(rules).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let old = pid(&host, "store");
    stage.program("store", &version(&stage, "2"));
    host.reload("store").await.expect("reloaded");
    assert_eq!(version_of(&store).await, "2");
    let mut events = host.events();
    kill(pid(&host, "store")).await;
    loop {
        if let EventKind::Reload(ReloadStep::RolledBack { generation, .. }) =
            next(&mut events).await.kind
        {
            assert_eq!(generation, 1);
            break;
        }
    }
    assert_eq!(
        (pid(&host, "store"), version_of(&store).await),
        (old, "1".into())
    );
    let status = host.status("store").expect("a plugin");
    assert_eq!((status.generation, status.restarts), (1, 0));
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_third_generation_waits_until_the_first_has_ended_its_calls() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let host = stage.host(quick()).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let long = LongCall::begin(&stage, "1", &store).await;
    host.reload("store").await.expect("reloaded");
    let reloading: Vec<_> = (0..3)
        .map(|_| {
            let host = host.clone();
            tokio::spawn(async move { host.reload("store").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(reloading.iter().all(|reload| !reload.is_finished()));
    assert_eq!(stage.processes().len(), 2);
    assert_eq!(long.answer("late").await.expect("an answer"), "late");
    let mut generations = BTreeSet::new();
    for reload in reloading {
        let reloaded = reload.await.expect("no panic").expect("reloaded");
        generations.insert(reloaded.generation);
    }
    // Those that waited are one.
    assert_eq!(generations, BTreeSet::from([Some(3)]));
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

#[tokio::test]
async fn a_plugin_that_can_be_there_once_only_is_stopped_first_while_calls_wait() {
    let stage = Stage::new();
    // It fails if another one holds the lock.
    let alone = |stage: &Stage, number: &str| {
        let store = version(stage, number).replace("exec $K", "");
        let lock = stage.path().join(".lock");
        format!(
            "{store} exec 9>{}; flock -n 9 || exit 4; exec $K",
            lock.display()
        )
    };
    stage.add("store", &alone(&stage, "1"));
    let rules = Supervision {
        reload: Reload::Replace,
        ..quick()
    };
    let host = stage.host(rules).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    stage.program("store", &alone(&stage, "2"));
    let calls = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|last| last == "1") {
                seen.push(version_of(&store).await);
            }
            seen
        })
    };
    let reloaded = host.reload("store").await.expect("reloaded");
    assert_eq!(reloaded.generation, Some(2));
    let seen = calls.await.expect("every call was answered");
    assert_eq!(seen.last().map(String::as_str), Some("2"));

    // What ran before is started again; its program is the one that is there.
    stage.program("store", "exit 3");
    let error = host.reload("store").await.expect_err("it exits");
    assert_eq!(error.code(), "exited-early");
    stage.program("store", &alone(&stage, "2"));
    assert_eq!(version_of(&store).await, "2");
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

// ---- deaths at each step -------------------------------------------------

/// Reloads again and again; at one of the steps, the old or the new process is
/// killed, or both are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_process_dies_at_whichever_step_of_a_reload_calls_are_answered_again() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let steps = ["began", "ready", "swapped", "drained"];
    let rounds: Vec<(&str, bool, bool)> = steps
        .into_iter()
        .flat_map(|step| [(step, true, false), (step, false, true), (step, true, true)])
        .collect();
    let round = Arc::new(AtomicUsize::new(usize::MAX));
    let settings = stage.settings().supervision(Supervision {
        rollback_within: Duration::from_secs(1),
        ..quick()
    });
    let (now, plan) = (round.clone(), rounds.clone());
    let processes: Arc<std::sync::Mutex<Vec<u32>>> = Arc::default();
    let found = processes.clone();
    let marker = stage.marker();
    let settings = settings.at_reload_step(move |_, step| {
        let name = match step {
            ReloadStep::Began { .. } => "began",
            ReloadStep::Ready { .. } => "ready",
            ReloadStep::Swapped { .. } => "swapped",
            ReloadStep::Drained { .. } => "drained",
            _ => return,
        };
        let Some((at, old, new)) = plan.get(now.load(Ordering::SeqCst)) else {
            return;
        };
        if *at != name {
            return;
        }
        let known = found.lock().expect("no panic").clone();
        for process in outrigger_testing::processes_with(&marker) {
            let is_old = known.contains(&process);
            if (is_old && *old) || (!is_old && *new) {
                outrigger_testing::kill(process);
            }
        }
    });
    let host = settings.host(stage.path()).await.expect("a folder");
    let store = client(&host, "store").await;
    for number in 0..rounds.len() * 2 {
        becomes(&host, "store", "running").await;
        answers_again(&store).await;
        *processes.lock().expect("no panic") = stage.processes();
        round.store(number % rounds.len(), Ordering::SeqCst);
        let _ = host.reload("store").await;
        answers_again(&store).await;
        round.store(usize::MAX, Ordering::SeqCst);
        assert!(stage.processes().len() <= 2, "{:?}", stage.processes());
    }
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

/// A call may be lost with the process that had it, but not for ever.
async fn answers_again(store: &Client) {
    let deadline = Instant::now() + SOON;
    loop {
        let key = "version".to_owned();
        match store.clone().get(GetRequest { key }).await {
            Ok(_) => return,
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
    }
}

// ---- no call is lost -----------------------------------------------------

#[allow(clippy::print_stderr)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_fifty_reloads_every_call_is_answered_and_each_was_carried_out() {
    const RELOADS: u32 = 50;
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    let host = stage.host(quick()).await;
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "1");
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = {
        let (store, over) = (store.clone(), over.clone());
        tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            let mut clock = tokio::time::interval(Duration::from_millis(10));
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                clock.tick().await;
                number += 1;
                let mut store = store.clone();
                calls.spawn(async move {
                    let (key, value) = (format!("id-{number}"), b"done".to_vec().into());
                    let began = Instant::now();
                    let put = store.put(PutRequest { key, value }).await;
                    (number, put.map(drop), began.elapsed())
                });
            }
            calls.join_all().await
        })
    };
    for _ in 0..RELOADS {
        host.reload("store").await.expect("reloaded");
    }
    over.store(true, Ordering::Relaxed);
    let calls = load.await.expect("no panic");
    let mut took: Vec<Duration> = calls.iter().map(|(_, _, took)| *took).collect();
    took.sort();
    let numbers: BTreeSet<u32> = calls.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers.len(), calls.len(), "one answer each");
    for (number, outcome, _) in &calls {
        outcome
            .as_ref()
            .unwrap_or_else(|status| panic!("{number}: {status}"));
        let value = stage.path().join(format!(".values-1/kv_id-{number}"));
        assert_eq!(std::fs::read(value).expect("carried out"), b"done");
    }
    let status = host.status("store").expect("a plugin");
    assert_eq!(status.generation, u64::from(RELOADS) + 1);
    let p99 = took[took.len() * 99 / 100];
    let worst = took[took.len() - 1];
    // Read by whoever runs it with `--nocapture`.
    eprintln!("{} calls, p99 {p99:?}, worst {worst:?}", calls.len());
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}

// ---- what the folder holds -----------------------------------------------

#[tokio::test]
async fn a_look_at_the_folder_tells_what_is_new_changed_broken_and_gone() {
    let stage = Stage::new();
    stage.add("store", &version(&stage, "1"));
    stage.add("gone", &version(&stage, "1"));
    let host = stage.host(quick()).await;
    client(&host, "gone").await;
    assert!(host.rescan().await.expect("a folder").is_empty());

    stage.add("added", &version(&stage, "1"));
    stage.program("store", &version(&stage, "2"));
    std::fs::remove_dir_all(stage.path().join("gone")).expect("removed");
    std::fs::create_dir(stage.path().join("empty")).expect("a folder");
    let changes = host.rescan().await.expect("a folder");
    let mut seen: Vec<String> = changes
        .iter()
        .map(|change| format!("{} {:?}", change.plugin, change.kind))
        .map(|text| text.split(['(', ' ']).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "added Added",
            "empty Broken",
            "gone Removed",
            "store Changed"
        ]
    );
    assert!(
        host.rescan().await.expect("a folder").is_empty(),
        "told once"
    );
    until("what is gone is stopped", || stage.processes().is_empty()).await;
    let error = host.start("gone").await.expect_err("it is gone");
    assert_eq!(error.code(), "plugin-not-found");
    let empty = host.status("empty").expect("a folder");
    assert!(matches!(empty.state, PluginState::Broken(_)), "{empty:?}");
    let store = client(&host, "store").await;
    assert_eq!(version_of(&store).await, "2");
    host.shutdown(SOON).await;
    stage.nothing_left().await;
}
