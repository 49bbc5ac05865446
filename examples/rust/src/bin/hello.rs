//! A plugin over net/rpc that greets whoever is named: `Plugin.SayHello` of the
//! object `a`. `hello-host` calls it, and so does any go-plugin host with the
//! cookie `HASHI=hola`.

use std::process::ExitCode;

use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{MagicCookie, PluginSet, Serve};

fn main() -> ExitCode {
    let set = PluginSet::new().netrpc("a", |_| {
        Methods::new().method("SayHello", |name: String| async move {
            Ok::<_, String>(format!("hello, {name}"))
        })
    });
    outrigger_plugin::serve(Serve::new(MagicCookie::new("HASHI", "hola")).offer(1, set))
}
