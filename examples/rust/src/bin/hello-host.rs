//! The host of README.md: it starts the plugin in the folder `plugins/hello`, in
//! whatever language that is written, and prints its greeting.
#![allow(clippy::print_stdout)] // The program's result.

use std::error::Error;
use std::sync::Arc;

use outrigger::netrpc::{CallError, Client};
use outrigger::{Broker, Interface, Plugins, UnsupportedTransport};

/// Calls a plugin that greets.
struct Greeter(Client);

impl Interface for Greeter {
    type Client = Self;
    const NAME: Option<&'static str> = Some("greeter");

    fn netrpc(object: Client, _: Arc<dyn Broker>) -> Result<Self, UnsupportedTransport> {
        Ok(Self(object))
    }
}

impl Greeter {
    async fn say_hello(&self, name: &str) -> Result<String, CallError> {
        self.0.call("Plugin.SayHello", name).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let plugins = Plugins::open("plugins")?;
    let plugin = plugins.get("hello")?.start().await?;
    let greeter = plugin.client::<Greeter>().await?;
    println!("{}", greeter.say_hello("world").await?);
    plugin.stop().await;
    Ok(())
}
