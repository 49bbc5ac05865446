//! The pig of the plugin playground, over net/rpc.

use std::process::ExitCode;

use outrigger_examples::netrpc::animal_program;

fn main() -> ExitCode {
    animal_program("pig")
}
