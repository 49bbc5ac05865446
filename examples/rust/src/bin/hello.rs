//! The plugin of README.md: it greets whoever is named, over net/rpc. Any
//! go-plugin host with the cookie `HELLO_PLUGIN=hello` calls it.

use std::process::ExitCode;

use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{MagicCookie, PluginSet, Serve};

async fn say_hello(name: String) -> Result<String, String> {
    Ok(format!("hello, {name}"))
}

fn main() -> ExitCode {
    let greeter = |_: &_| Methods::new().method("SayHello", say_hello);
    let set = PluginSet::new().netrpc("greeter", greeter);
    outrigger_plugin::serve(Serve::new(MagicCookie::new("HELLO_PLUGIN", "hello")).offer(1, set))
}
