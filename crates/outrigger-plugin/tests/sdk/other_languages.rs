//! Plugins in other languages, which are held to the same.

#![allow(clippy::print_stderr)] // What is skipped is said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use outrigger_host::{Launch, MagicCookie, PluginSet};
use outrigger_services::{Limits, NetworkLimits, NetworkSettings};

use crate::interface::Lister;
use crate::side::{Side, all_arrives, check, granting, side};
use crate::trials;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        a_plugin_in_python_uses_its_host_by_descriptor_and_by_call,
        all_of_the_sdk_in_python_works_by_descriptor_and_by_call,
        a_plugin_in_go_uses_its_host_by_the_published_proto,
    ]
}

/// The cookie of the plugins that list files.
fn cookie() -> MagicCookie {
    MagicCookie::new("TEST_KEY", "TEST_VALUE")
}

/// What `variable` names; nothing where it is not set, which skips a test.
///
/// # Panics
/// Under `CI=true`, where every peer must be there.
fn peer(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(
            !strict,
            "{variable} is not set, and CI=true asks for every peer"
        );
        eprintln!("skipped: {variable} is not set");
    }
    found
}

/// A directory in the granted one, with a file and a directory.
fn listed(side: &Side) -> String {
    let data = side.dir.path().join("data");
    std::fs::create_dir_all(data.join("below")).expect("a directory");
    std::fs::write(data.join("note"), b"hello").expect("a file");
    data.to_str().expect("text").to_owned()
}

fn python(script: &str, side: &Side) -> Option<Launch> {
    let python = peer("OUTRIGGER_PYTHON")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let launch = Launch::new(python, cookie())
        .arg(root.join(script))
        .offer(1, PluginSet::new().with::<Lister>("client"));
    Some(granting(launch, side))
}

async fn a_plugin_in_python_uses_its_host_by_descriptor_and_by_call() {
    let side = side();
    let Some(launch) = python("examples/python/granted_lister.py", &side) else {
        return;
    };
    let plugin = launch.start().await.expect("it starts");
    let lister = plugin.dispense::<Lister>("client").await.expect("a client");
    let reply = lister.list(&listed(&side)).await.expect("an answer");
    assert_eq!(reply.error.unwrap_or_default(), "");
    assert_eq!(
        reply.entry,
        [
            "d below/",
            "- note 5 b'hello' by descriptor",
            "d below/",
            "- note 5 b'hello' by call",
        ]
    );
    let reply = lister.list("/etc").await.expect("an answer");
    assert!(reply.entry.is_empty());
    let error = reply.error.unwrap_or_default();
    assert!(
        error.starts_with("outside-grant") || error.starts_with("not-granted"),
        "{error}"
    );
    plugin.stop().await;
}

async fn all_of_the_sdk_in_python_works_by_descriptor_and_by_call() {
    let mut side = side();
    let limits = NetworkLimits {
        unclaimed_timeout: Duration::from_millis(100),
        ..NetworkLimits::default()
    };
    side.services = side
        .services
        .network(&NetworkSettings::new().limits(limits));
    let Some(launch) = python("bindings/python/tests/hostclient.py", &side) else {
        return;
    };
    let plugin = launch.start().await.expect("it starts");
    for kind in [
        "files",
        "tree",
        "large",
        "refused",
        "small",
        "commands",
        "network",
        "slow",
        "dropped",
        "calls-listen",
        "datagrams",
        "http",
        "leases",
    ] {
        check(&plugin, kind).await;
    }
    // So slow that much of it is still with the plugin when it is closed.
    let slow = side.services.clone().limits(Limits {
        bytes_per_second: 1 << 20,
        ..Limits::default()
    });
    let serving = plugin.serve(&slow).await.expect("it is served");
    check(&plugin, &format!("calls-dropped@{}", serving.id().0)).await;
    all_arrives(&side).await;
    plugin.stop().await;
}

async fn a_plugin_in_go_uses_its_host_by_the_published_proto() {
    let Some(programs) = peer("OUTRIGGER_GO_PEERS") else {
        return;
    };
    let side = side();
    let data = listed(&side);
    std::fs::remove_dir(Path::new(&data).join("below")).expect("it is empty");
    let launch = || {
        let launch = Launch::new(programs.join("hostclient"), cookie());
        granting(
            launch.offer(1, PluginSet::new().with::<Lister>("client")),
            &side,
        )
    };
    for launch in [launch(), launch().auto_mtls(), launch().mux_broker()] {
        let plugin = launch.start().await.expect("it starts");
        let lister = plugin.dispense::<Lister>("client").await.expect("a client");
        let reply = lister.list(&data).await.expect("an answer");
        assert_eq!(reply.entry, ["- note \"hello\""]);
        assert_eq!(reply.error.unwrap_or_default(), "");
        let reply = lister.list("/etc").await.expect("an answer");
        assert!(reply.entry.is_empty());
        let error = reply.error.unwrap_or_default();
        assert!(error.contains("outside the granted directory"), "{error}");
        plugin.stop().await;
    }
}
