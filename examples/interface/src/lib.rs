//! Two interfaces, each written once as a Rust trait. The plugins in `src/bin`
//! implement the traits; a host calls the clients, which implement them too.

use outrigger_plugin::interface;
use outrigger_plugin::interface::{MethodError, Streaming};

/// Greets people.
///
/// It is served over gRPC as `greeter.v1.Greeter`, and over net/rpc, where hosts
/// written in Go call `Plugin.SayHello`.
#[interface(package = "greeter.v1", netrpc)]
pub trait Greeter {
    /// A greeting of whoever is named.
    async fn say_hello(&self, name: String) -> Result<String, MethodError>;

    /// A greeting for each name, one after the other. Over gRPC only.
    async fn say_hello_to_all(&self, names: Vec<String>) -> Result<Streaming<String>, MethodError>;
}

/// The key/value store of go-plugin's own examples. It was first written as a
/// `.proto`, so the names on the wire are given here.
#[interface(package = "proto", name = "KV", dispense = "kv")]
pub trait KeyValue {
    /// The value that is stored under `key`.
    async fn get(&self, key: String) -> Result<Vec<u8>, MethodError>;

    /// Stores `value` under `key`.
    #[method(reply = "Empty")]
    async fn put(&self, key: String, value: Vec<u8>) -> Result<(), MethodError>;
}
