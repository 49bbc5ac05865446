//! `outrigger.host.v1.Environment`: what was granted, and nothing else.

mod support;

use std::collections::HashMap;

use outrigger_wire::proto::host::*;
use support::plugin::{Plugin, failure};
use tonic::{Code, Status};

/// Cargo sets the first two for tests.
const SECTIONS: &str = "
capabilities:
  environment:
    read: [CARGO_PKG_NAME, CARGO_MANIFEST_DIR, OUTRIGGER_NOT_SET]
    set: {MODE: 'fast lane', EMPTY: ''}
services: [environment]
";

async fn get(plugin: &Plugin, name: &str) -> Result<GetResponse, Status> {
    let name = name.to_owned();
    plugin.call("Environment/Get", GetRequest { name }).await
}

#[tokio::test]
async fn only_granted_names_are_answered() {
    let plugin = Plugin::new(SECTIONS).await;
    let value = |value: &str, set| GetResponse {
        value: value.into(),
        set,
    };
    for (name, expected) in [
        ("CARGO_PKG_NAME", value("outrigger-services", true)),
        ("OUTRIGGER_NOT_SET", value("", false)),
        ("MODE", value("fast lane", true)),
        ("EMPTY", value("", true)),
    ] {
        assert_eq!(get(&plugin, name).await.expect("granted"), expected);
    }
    for name in ["PATH", "HOME", "cargo_pkg_name", "CARGO_*", "*", " MODE"] {
        let denied = (Code::PermissionDenied, "not-granted".to_owned());
        assert_eq!(failure(get(&plugin, name).await), denied, "{name}");
    }
    for name in ["", "A=B", "MODE\0"] {
        let outcome = get(&plugin, name).await;
        assert_eq!(failure(outcome).0, Code::InvalidArgument, "{name:?}");
    }
    let records = plugin.records_of("get").await;
    assert_eq!(records.len(), 4 + 6 + 3);
    // Values are nobody's business but the plugin's.
    assert!(
        records
            .iter()
            .all(|record| !record.to_json().contains("fast lane"))
    );
    plugin.close().await;
}

#[tokio::test]
async fn names_and_values_of_what_was_granted_are_listed() {
    let plugin = Plugin::new(SECTIONS).await;
    let reply: NamesResponse = plugin
        .call("Environment/Names", NamesRequest {})
        .await
        .expect("names");
    let names = [
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
        "EMPTY",
        "MODE",
        "OUTRIGGER_NOT_SET",
    ];
    assert_eq!(reply.names, names);
    let reply: ListVariablesResponse = plugin
        .call("Environment/List", ListVariablesRequest {})
        .await
        .expect("variables");
    let expected = [
        ("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")),
        ("CARGO_PKG_NAME", "outrigger-services"),
        ("EMPTY", ""),
        ("MODE", "fast lane"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(reply.variables, HashMap::from(expected));
    plugin.close().await;
}

#[tokio::test]
async fn facts_about_the_host_are_those_of_this_process() {
    let plugin = Plugin::new(SECTIONS).await;
    let ids: IdsResponse = plugin
        .call("Environment/Ids", IdsRequest {})
        .await
        .expect("ids");
    assert_eq!(u32::try_from(ids.pid), Ok(std::process::id()));
    assert_eq!(ids.uid, rustix::process::getuid().as_raw());
    let dirs: DirsResponse = plugin
        .call("Environment/Dirs", DirsRequest {})
        .await
        .expect("dirs");
    assert!(dirs.temp.starts_with('/'), "{dirs:?}");
    let info: HostInfoResponse = plugin
        .call("Environment/HostInfo", HostInfoRequest {})
        .await
        .expect("info");
    assert_eq!(
        (info.os.as_str(), info.version.as_str()),
        ("linux", env!("CARGO_PKG_VERSION"))
    );
    assert!(info.cpus >= 1);
    plugin.close().await;

    let plugin = Plugin::new("services: [clock]").await;
    let outcome = plugin
        .call::<_, IdsResponse>("Environment/Ids", IdsRequest {})
        .await;
    assert_eq!(failure(outcome).0, Code::PermissionDenied);
    plugin.close().await;
}
