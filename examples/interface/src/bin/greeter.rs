//! A plugin that greets: app version 1 over net/rpc, version 2 over gRPC.

use std::process::ExitCode;

use outrigger_example_interface::{Greeter, GreeterServer};
use outrigger_plugin::interface::{Code, MethodError, Streaming};
use outrigger_plugin::{MagicCookie, PluginSet, Serve};

struct Polite;

impl Greeter for Polite {
    async fn say_hello(&self, name: String) -> Result<String, MethodError> {
        match name.as_str() {
            "" => Err(MethodError::new(Code::InvalidArgument, "nobody is named")),
            name => Ok(format!("hello, {name}")),
        }
    }

    async fn say_hello_to_all(&self, names: Vec<String>) -> Result<Streaming<String>, MethodError> {
        let greetings = names.into_iter().map(|name| Ok(format!("hello, {name}")));
        Ok(Box::pin(futures_util::stream::iter(greetings)))
    }
}

fn main() -> ExitCode {
    let netrpc = PluginSet::new().netrpc("greeter", |_| GreeterServer::new(Polite).netrpc());
    let grpc = PluginSet::new().grpc("greeter", |_| GreeterServer::new(Polite).grpc());
    let plugin = Serve::new(MagicCookie::new("HELLO_PLUGIN", "hello"));
    outrigger_plugin::serve(plugin.offer(1, netrpc).offer(2, grpc))
}
