//! One mistake each, in the names and numbers on the wire.

use outrigger_macros::interface;

pub struct GreetRequest;

#[interface(package = "greeter.v1")]
pub trait SameNumber {
    async fn greet(&self, name: String, #[tag = 1] times: u32) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait ReservedNumber {
    async fn greet(&self, #[tag = 19_500] name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait NoNumber {
    async fn greet(&self, #[tag("1")] name: String) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait SameMethod {
    async fn greet(&self, name: String) -> Result<String, String>;
    #[method(name = "Greet")]
    async fn greet_all(&self, names: Vec<String>) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait SameMessage {
    async fn greet(&self, name: String) -> Result<String, String>;
    async fn greet_again(&self, request: GreetRequest) -> Result<String, String>;
}

#[interface(package = "greeter.v1")]
pub trait NameWithoutUse {
    #[method(request = "Asked")]
    async fn greet(&self, request: GreetRequest) -> Result<String, String>;
}

fn main() {}
