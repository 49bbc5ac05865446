//! The dog of the plugin playground, over gRPC.

use std::process::ExitCode;

use outrigger_examples::netrpc::animal_program;

fn main() -> ExitCode {
    animal_program("dog-grpc")
}
