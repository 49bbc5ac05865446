//! A plugin without any cargo feature of `outrigger-plugin`: it serves gRPC, and
//! nothing that it does not name. `docs/features.md` says what each feature adds.

use std::process::ExitCode;

use outrigger_plugin::{MagicCookie, PluginSet, Serve, ServiceSet};

fn main() -> ExitCode {
    // Your own services stand here: `.with(GreeterServer::new(Greeter))`.
    let set = PluginSet::new().grpc("bare", |_context| ServiceSet::new());
    outrigger_plugin::serve(Serve::new(MagicCookie::new("BARE", "hello")).offer(1, set))
}
