//! Hundreds of plugins and of starts leave nothing. Alone in its program, because
//! it counts what the whole process has.

#[path = "host/stage.rs"]
#[allow(dead_code)] // Other tests use the rest of it.
mod stage;

use std::time::Duration;

use outrigger::Supervision;

use stage::{SOON, Stage, until};

fn descriptors() -> usize {
    let listing = std::fs::read_dir("/proc/self/fd").expect("a listing");
    listing.count()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_plugins_at_once_and_a_thousand_starts_leave_nothing() {
    const PLUGINS: usize = 200;
    const ROUNDS: usize = 5;
    let stage = Stage::new();
    for number in 0..PLUGINS {
        stage.add(&format!("store-{number}"), "exec $K");
    }
    // What is made once and kept, such as the lifeline, is there after the first.
    let first = stage.host(Supervision::default()).await;
    first.start("store-0").await.expect("started");
    first.shutdown(SOON).await;
    drop(first);
    stage.nothing_left().await;
    let before = (descriptors(), tasks());

    let host = stage.host(Supervision::default()).await;
    for round in 0..ROUNDS {
        for (name, started) in host.start_all().await {
            started.unwrap_or_else(|error| panic!("{round}, {name}: {error}"));
        }
        assert_eq!(stage.processes().len(), PLUGINS);
        let stops = host.list().into_iter().map(|status| {
            let host = host.clone();
            tokio::spawn(async move { host.stop(&status.name).await })
        });
        for stop in stops.collect::<Vec<_>>() {
            let report = stop.await.expect("no panic").expect("a plugin");
            assert!(report.is_some_and(|report| !report.forced));
        }
        stage.nothing_left().await;
    }
    host.shutdown(Duration::ZERO).await;
    drop(host);
    until("no task is left", || tasks() <= before.1).await;
    until("no descriptor is left", || descriptors() <= before.0).await;
}
