//! A host that starts the plugin `hello`, in whatever language it is written,
//! and prints its greeting: `hello-host PROGRAM NAME`.

use std::sync::Arc;

use anyhow::{Context, Result};
use outrigger_host::netrpc::Client;
use outrigger_host::{Broker, Interface, Launch, MagicCookie, PluginSet, UnsupportedTransport};

/// Something that greets.
struct Greeter;

/// Calls a [`Greeter`].
struct GreeterClient(Client);

impl Interface for Greeter {
    type Client = GreeterClient;

    fn netrpc(object: Client, _: Arc<dyn Broker>) -> Result<GreeterClient, UnsupportedTransport> {
        Ok(GreeterClient(object))
    }
}

impl GreeterClient {
    async fn say_hello(&self, name: &str) -> Result<String> {
        Ok(self.0.call("Plugin.SayHello", name).await?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("hello-host PROGRAM NAME")?;
    let name = arguments.next().context("hello-host PROGRAM NAME")?;
    let plugin = Launch::new(program, MagicCookie::new("HASHI", "hola"))
        .offer(1, PluginSet::new().with::<Greeter>("a"))
        .start()
        .await?;
    let greeter = plugin.dispense::<Greeter>("a").await?;
    let greeting = greeter.say_hello(&name).await;
    plugin.stop().await;
    print(&greeting?);
    Ok(())
}

#[allow(clippy::print_stdout)] // The program's result.
fn print(greeting: &str) {
    println!("{greeting}");
}
