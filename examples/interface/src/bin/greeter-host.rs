//! A host that starts a greeter, in whatever language it is written and whichever
//! protocol it speaks, and prints its greeting: `greeter-host PROGRAM NAME`.

use anyhow::{Context, Result};
use outrigger_example_interface::{Greeter, GreeterClient};
use outrigger_host::{Launch, MagicCookie, PluginSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("greeter-host PROGRAM NAME")?;
    let name = arguments.next().context("greeter-host PROGRAM NAME")?;
    let interfaces = PluginSet::new().with::<GreeterClient>("greeter");
    let plugin = Launch::new(program, MagicCookie::new("HELLO_PLUGIN", "hello"))
        .offer(1, interfaces.clone())
        .offer(2, interfaces)
        .start()
        .await?;
    let greeter = plugin.dispense::<GreeterClient>("greeter").await?;
    let greeting = greeter.say_hello(name).await;
    plugin.stop().await;
    print(&greeting?);
    Ok(())
}

#[allow(clippy::print_stdout)] // The program's result.
fn print(greeting: &str) {
    println!("{greeting}");
}
