//! One mistake each, in what a method takes or answers with.

use outrigger_macros::interface;

pub struct Streaming<T>(T);

#[interface(package = "greeter.v1")]
pub trait Borrowed {
    async fn greet(&self, name: &str) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait NoSuchNumber {
    async fn greet(&self, times: usize) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait Pair {
    async fn greet(&self) -> Result<(String, String), String>;
}

#[interface(package = "greeter.v1")]
pub trait Nested {
    async fn greet(&self, names: Vec<Vec<String>>) -> Result<String, String>;
}

#[interface(netrpc)]
pub trait StreamOverNetRpc {
    async fn watch(&self) -> Result<Streaming<String>, String>;
}

#[interface(netrpc)]
pub trait LoneOption {
    async fn greet(&self, name: Option<String>) -> Result<String, String>;
}

fn main() {}
