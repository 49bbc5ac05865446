//! The interfaces with real peers: plugins and hosts of the Go library, a client of
//! grpcio that is made from the printed `.proto`, and our own at both ends.
#![allow(clippy::disallowed_methods)] // Hosts that are no plugins.
#![allow(clippy::print_stderr)] // What is left out is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use outrigger_example_interface::{Greeter, GreeterClient, KeyValue, KeyValueClient};
use outrigger_host::interface::{Code, InterfaceDescription};
use outrigger_host::{Launch, MagicCookie, PluginSet, RunningPlugin, Transport};
use prost::Message;
use serde_json::Value;

/// What the environment names: `cargo xtask interop` makes it.
///
/// # Panics
/// Under `CI=true`, where it must be there.
fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(path.is_some() || !strict, "{variable} is not set");
    if path.is_none() {
        eprintln!("left out: {variable} is not set");
    }
    path
}

fn go_peer(name: &str) -> Option<PathBuf> {
    named("OUTRIGGER_GO_PEERS").map(|dir| dir.join(name))
}

fn kv_cookie() -> MagicCookie {
    MagicCookie::new("BASIC_PLUGIN", "hello")
}

/// Starts a greeter; app version 1 is net/rpc, and 2 gRPC.
async fn greeter(program: &Path, version: u32) -> (RunningPlugin, GreeterClient) {
    let plugin = Launch::new(program, MagicCookie::new("HELLO_PLUGIN", "hello"))
        .offer(version, PluginSet::new().with::<GreeterClient>("greeter"))
        .start()
        .await
        .expect("it starts");
    let client = plugin
        .dispense::<GreeterClient>("greeter")
        .await
        .expect("a client");
    (plugin, client)
}

async fn ends_by_itself(plugin: RunningPlugin) {
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
}

/// The report of the Go or Python host that calls the plugin `kv-store`.
fn stores_and_finds(host: &mut Command) {
    let host = host.args(["--service", "kv", "--"]);
    let output = host.arg(env!("CARGO_BIN_EXE_kv-store")).output();
    let output = output.expect("the host runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["ok"], true, "{report:#}");
}

#[test]
fn a_go_host_stores_and_finds_values_in_a_plugin_that_implements_the_trait() {
    let Some(host) = go_peer("host") else {
        return;
    };
    stores_and_finds(&mut Command::new(host));
}

#[test]
fn a_python_host_stores_and_finds_values_in_a_plugin_that_implements_the_trait() {
    let Some(python) = named("OUTRIGGER_PYTHON") else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../interop/python/host.py");
    stores_and_finds(Command::new(python).arg(script));
}

#[tokio::test]
async fn the_client_stores_and_finds_values_in_a_go_plugin_over_grpc() {
    let Some(program) = go_peer("kv") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let plugin = Launch::new(program, kv_cookie())
        .current_dir(dir.path())
        .offer(1, PluginSet::new().with::<KeyValueClient>("kv"))
        .start()
        .await
        .expect("it starts");
    let store = plugin.client::<KeyValueClient>().await.expect("a client");
    let store = store.with_timeout(Duration::from_secs(10));
    store.put("a".into(), vec![0, 255]).await.expect("stored");
    assert_eq!(store.get("a".into()).await.expect("found"), [0, 255]);
    let error = store.get("b".into()).await.expect_err("nothing is there");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("\"b\""), "{error}");
    ends_by_itself(plugin).await;
}

#[tokio::test]
async fn the_client_is_greeted_by_a_go_plugin_over_netrpc() {
    let Some(program) = go_peer("hello") else {
        return;
    };
    let (plugin, client) = greeter(&program, 1).await;
    assert_eq!(plugin.transport(), Transport::NetRpc);
    let greeting = client.say_hello("Ada".into()).await.expect("a greeting");
    assert_eq!(greeting, "hello, Ada");
    ends_by_itself(plugin).await;
}

#[test]
fn a_go_host_is_greeted_by_a_plugin_that_implements_the_trait_over_netrpc() {
    let Some(host) = go_peer("hello-host") else {
        return;
    };
    let greet = |name: &str| {
        let output = Command::new(&host)
            .args([env!("CARGO_BIN_EXE_greeter"), name])
            .output()
            .expect("the host runs");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).expect("text")
    };
    assert_eq!(greet("Ada"), "hello, Ada\n");
    assert_eq!(greet(""), "nobody is named\n");
}

#[tokio::test]
async fn both_protocols_carry_the_same_greeting_and_the_same_error() {
    let program = Path::new(env!("CARGO_BIN_EXE_greeter"));
    for (version, transport, code) in [
        (1, Transport::NetRpc, Code::Unknown),
        (2, Transport::Grpc, Code::InvalidArgument),
    ] {
        let (plugin, client) = greeter(program, version).await;
        assert_eq!(plugin.transport(), transport);
        let greeting = client.say_hello("Ada".into()).await.expect("a greeting");
        assert_eq!(greeting, "hello, Ada");
        let error = client.say_hello("".into()).await.expect_err("nobody");
        assert_eq!((error.code(), error.message()), (code, "nobody is named"));
        ends_by_itself(plugin).await;
    }
}

#[tokio::test]
async fn a_stream_of_greetings_arrives_in_order() {
    let program = Path::new(env!("CARGO_BIN_EXE_greeter"));
    let (plugin, client) = greeter(program, 2).await;
    let names = vec!["Ada".into(), "Bo".into()];
    let greetings = client.say_hello_to_all(names).await.expect("a stream");
    let greetings: Vec<_> = greetings
        .map(|greeting| greeting.expect("a greeting"))
        .collect()
        .await;
    assert_eq!(greetings, ["hello, Ada", "hello, Bo"]);
    ends_by_itself(plugin).await;
}

/// What a compiler makes of the printed `.proto`.
fn compiled(description: &InterfaceDescription) -> prost_types::FileDescriptorSet {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join(description.file_name());
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, description.proto()).expect("written");
    protox::compile([path], [root.path()]).expect("it compiles")
}

#[tokio::test]
async fn a_python_client_made_from_the_printed_proto_is_greeted_and_sees_the_error() {
    let Some(python) = named("OUTRIGGER_PYTHON") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let descriptors = dir.path().join("greeter.bin");
    let set = compiled(GreeterClient::description());
    std::fs::write(&descriptors, set.encode_to_vec()).expect("written");
    let (plugin, _client) = greeter(Path::new(env!("CARGO_BIN_EXE_greeter")), 2).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/greeted.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&descriptors)
        .arg(&plugin.address().text)
        .output()
        .expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello, Ada\nhello, Bo\nhello, Cy\nINVALID_ARGUMENT nobody is named\n",
    );
    ends_by_itself(plugin).await;
}

#[test]
fn the_printed_proto_of_the_store_is_the_one_that_go_plugin_examples_use() {
    let without_source = |mut set: prost_types::FileDescriptorSet| {
        for file in &mut set.file {
            file.source_code_info = None;
            file.name = None;
            file.message_type
                .sort_by_key(|message| message.name.clone());
        }
        set
    };
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let known = protox::compile(["kv.proto"], [proto]).expect("it compiles");
    let printed = compiled(KeyValueClient::description());
    assert_eq!(without_source(printed), without_source(known));
}

/// As `docs/interfaces.md` shows it.
mod documented {
    #![allow(dead_code, unreachable_pub)] // It is not called.

    use outrigger_plugin::interface;
    use outrigger_plugin::interface::MethodError;

    /// Greets people.
    #[interface(package = "greeter.v1", netrpc)]
    pub trait Greeter {
        /// A greeting of whoever is named.
        async fn say_hello(&self, name: String) -> Result<String, MethodError>;
    }
}

#[test]
fn the_proto_in_the_docs_is_what_the_trait_in_the_docs_prints() {
    let docs = include_str!("../../../docs/interfaces.md");
    let block = |start: &str| {
        let (_, rest) = docs.split_once(start).expect("a block");
        rest.split_once("```").expect("its end").0
    };
    let proto = documented::GreeterClient::description().proto();
    assert_eq!(proto, block("```proto\n"));
    // The trait is the one above.
    let this = include_str!("peers.rs").replace("\n    ", "\n");
    assert!(this.contains(block("```rust\n")), "the trait differs");
}
