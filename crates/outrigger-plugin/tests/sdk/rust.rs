//! Plugins in Rust.

use std::net::UdpSocket;
use std::time::Duration;

use libtest_mimic::Trial;
use outrigger_host::{AllowedTransports, Connection, Launch, PluginSet};
use outrigger_services::{AuditLog, Limits, NetworkLimits, NetworkSettings, Verdict};

use crate::interface::Lister;
use crate::side::{Side, all_arrives, ask, check, check_with, launch, side, side_with, wait_for};
use crate::{plugin, trials};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        a_plugin_uses_its_host_over_plain_grpc_and_leaves_nothing_behind,
        a_plugin_uses_its_host_over_certificates_and_over_one_connection,
        a_plugin_uses_its_host_over_netrpc,
        counted_bytes_stay_with_the_host_and_services_can_come_with_a_call,
        a_plugin_uses_the_services_of_hostserve_v1,
        a_plugin_that_is_too_fast_learns_when_to_try_again,
        a_plugin_sets_an_owner_where_its_host_lets_it,
        a_dropped_child_ends_without_a_grant_to_kill_and_one_that_was_waited_for_is_left_alone,
        what_was_written_to_a_dropped_connection_arrives_by_descriptor_and_by_call,
        listening_goes_on_after_a_connection_that_was_not_taken_in_time,
        datagrams_of_a_plugin_come_and_go_by_descriptor_and_by_call,
        a_port_of_a_plugin_that_died_is_free_again,
        a_request_too_long_for_the_descriptor_socket_is_made_as_a_call,
        a_plugin_without_services_is_told_what_its_host_must_do,
    ]
}

/// The checks that every way of connecting is held to.
const KINDS: [&str; 9] = [
    "files", "tree", "large", "refused", "facts", "commands", "network", "http", "leases",
];

/// What a process has open.
fn open_files(pid: u32) -> usize {
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd"));
    listed.map_or(0, Iterator::count)
}

async fn a_plugin_uses_its_host_over_plain_grpc_and_leaves_nothing_behind() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    for kind in KINDS {
        check(&plugin, kind).await;
    }
    let pid = plugin.pid().expect("a pid");
    let before = open_files(pid);
    for _ in 0..3 {
        check(&plugin, "files").await;
        check(&plugin, "commands").await;
    }
    wait_for("the plugin to close its files", || {
        open_files(pid) <= before + 4
    })
    .await;
    let report = plugin.stop().await;
    assert!(report.status.is_success(), "{:?}", report.stderr);
}

async fn a_plugin_uses_its_host_over_certificates_and_over_one_connection() {
    let side = side();
    for launch in [
        launch(&side).auto_mtls(),
        launch(&side).auto_mtls().mux_broker(),
    ] {
        let plugin = launch.start().await.expect("it starts");
        for kind in KINDS {
            check(&plugin, kind).await;
        }
        plugin.stop().await;
    }
}

async fn a_plugin_uses_its_host_over_netrpc() {
    let side = side();
    let launch = launch(&side)
        .arg("netrpc")
        .allow(AllowedTransports::ALL)
        .auto_mtls();
    let plugin = launch.start().await.expect("it starts");
    let Connection::NetRpc(session) = plugin.connection() else {
        panic!("net/rpc");
    };
    let client = session
        .dispense("client", Duration::from_secs(5))
        .await
        .expect("an object");
    for kind in ["files", "tree", "commands", "network", "refused"] {
        let done: Result<bool, _> = client.call("Plugin.Run", &kind.to_owned()).await;
        assert!(done.expect(kind));
    }
    plugin.stop().await;
}

async fn counted_bytes_stay_with_the_host_and_services_can_come_with_a_call() {
    let side = side();
    let counting = side.services.clone().limits(Limits {
        written_bytes: 1 << 20,
        ..Limits::default()
    });
    let plugin = launch(&side).start().await.expect("it starts");
    check_with(&plugin, "quota", &counting).await;
    check_with(&plugin, "files", &side.services).await;
    // A rate of bytes holds for everything, so that nothing is handed over.
    let slow = side.services.clone().limits(Limits {
        bytes_per_second: 1 << 30,
        ..Limits::default()
    });
    check_with(&plugin, "calls-files", &slow).await;
    let serving = plugin.serve(&slow).await.expect("it is served");
    let asked = ask(&plugin, &format!("files@{}", serving.id().0)).await;
    let error = asked.expect_err("no descriptors");
    assert!(error.contains("hands over no"), "{error}");
    plugin.stop().await;
}

async fn a_plugin_uses_the_services_of_hostserve_v1() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    check_with(&plugin, "hostserve", &side.services).await;
    plugin.stop().await;
}

async fn a_plugin_that_is_too_fast_learns_when_to_try_again() {
    let side = side();
    let limited = side.services.clone().limits(Limits {
        operations_per_second: 20,
        ..Limits::default()
    });
    let plugin = launch(&side).start().await.expect("it starts");
    check_with(&plugin, "rate", &limited).await;
    plugin.stop().await;
}

async fn a_plugin_sets_an_owner_where_its_host_lets_it() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    let asked = ask(&plugin, "owner").await;
    let error = asked.expect_err("the host does not let it");
    assert!(error.contains("chown"), "{error}");
    let lets = side.services.clone().allow_ownership_changes();
    check_with(&plugin, "owner", &lets).await;
    plugin.stop().await;
}

async fn a_dropped_child_ends_without_a_grant_to_kill_and_one_that_was_waited_for_is_left_alone() {
    let side = side_with("list: [children]\n");
    let (audit, mut records) = AuditLog::channel(10_000);
    let side = Side {
        services: side.services.clone().audit(audit),
        ..side
    };
    let plugin = launch(&side).start().await.expect("it starts");
    check(&plugin, "children").await;
    plugin.stop().await;
    let mut ends = Vec::new();
    while let Some(record) = records.try_recv() {
        assert_eq!(record.verdict, Verdict::Allowed, "{record}");
        if ["close", "kill", "wait"].contains(&record.operation) {
            ends.push((record.operation, record.code));
        }
    }
    let once = [("wait", "ok"), ("close", "ok")];
    assert_eq!(ends, [once, once].concat());
}

async fn what_was_written_to_a_dropped_connection_arrives_by_descriptor_and_by_call() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    check(&plugin, "dropped").await;
    // So slow that most of it is still with the plugin when it is dropped.
    let slow = side.services.clone().limits(Limits {
        bytes_per_second: 1 << 20,
        ..Limits::default()
    });
    let serving = plugin.serve(&slow).await.expect("it is served");
    check(&plugin, &format!("calls-dropped@{}", serving.id().0)).await;
    all_arrives(&side).await;
    plugin.stop().await;
}

async fn listening_goes_on_after_a_connection_that_was_not_taken_in_time() {
    let mut side = side();
    let limits = NetworkLimits {
        unclaimed_timeout: Duration::from_millis(100),
        ..NetworkLimits::default()
    };
    side.services = side
        .services
        .network(&NetworkSettings::new().limits(limits));
    let plugin = launch(&side).start().await.expect("it starts");
    check(&plugin, "calls-listen").await;
    plugin.stop().await;
}

async fn datagrams_of_a_plugin_come_and_go_by_descriptor_and_by_call() {
    let side = side();
    for launch in [launch(&side), launch(&side).auto_mtls().mux_broker()] {
        let plugin = launch.start().await.expect("it starts");
        check(&plugin, "datagrams").await;
        plugin.stop().await;
    }
}

async fn a_port_of_a_plugin_that_died_is_free_again() {
    let side = side();
    for kind in ["held", "calls-held"] {
        let plugin = launch(&side).start().await.expect("it starts");
        check(&plugin, kind).await;
        let at = ("127.0.0.1", side.bind);
        UdpSocket::bind(at).expect_err("it is the plugin's");
        plugin.kill().await;
        wait_for("the port to be free", || UdpSocket::bind(at).is_ok()).await;
    }
}

async fn a_request_too_long_for_the_descriptor_socket_is_made_as_a_call() {
    let side = side();
    let plugin = launch(&side).start().await.expect("it starts");
    check(&plugin, "long").await;
    plugin.stop().await;
}

async fn a_plugin_without_services_is_told_what_its_host_must_do() {
    let own = std::env::current_exe().expect("this program");
    let plugin = Launch::new(own, plugin::cookie())
        .offer(1, PluginSet::new().with::<Lister>("client"))
        .start()
        .await
        .expect("it starts");
    let error = ask(&plugin, "files").await.expect_err("no services");
    assert!(error.contains("Launch::host_services"), "{error}");
    plugin.stop().await;
}
