//! Everything the project does to itself: demo, test, interop, bench, codegen, tidy.

#![allow(clippy::print_stdout, clippy::print_stderr)] // Tasks talk to a person.
#![allow(clippy::disallowed_methods)] // None of the programs they run is a plugin.

mod bench;
mod circles;
mod codegen;
mod cost;
mod demo;
mod dist;
mod interop;
mod plugins;
mod test;
mod tidy;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Outrigger workspace")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// See the host start plugins in Rust, Go and Python that list a directory through it
    Demo(demo::Options),
    /// Prove everything: what CI runs
    Test(test::Options),
    /// Pair our hosts and plugins with those of Go and Python
    Interop(interop::Options),
    /// Build the animals and lay them out as a host finds them: manifest, program, checksum
    Plugins(plugins::Options),
    /// Check crate edges, and what may stand in the tree
    Tidy,
    /// Measure our speed beside Go's and the kernel's
    Bench {
        /// Write the run to a file
        #[arg(long)]
        json: Option<PathBuf>,
        /// Only measures whose name begins so
        #[arg(long)]
        only: Option<String>,
        /// One short round
        #[arg(long)]
        quick: bool,
    },
    /// Measure what cargo features, and the demo, cost to compile
    Cost(cost::Options),
    /// Build the command as it is shipped
    Dist,
    /// Write the code that comes from `proto/`
    Codegen {
        /// Only compare with what is committed
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default();
    let done = match Args::parse().task {
        Task::Demo(options) => demo::run(&root, &options),
        Task::Test(options) => test::run(&root, &options),
        Task::Interop(options) => interop::run(&root, &options),
        Task::Plugins(options) => plugins::run(&root, &options),
        Task::Tidy => tidy::run(&root),
        Task::Bench { json, only, quick } => {
            bench::run(&root, &bench::Options { json, only, quick })
        }
        Task::Cost(options) => cost::run(&root, &options),
        Task::Dist => dist::run(&root),
        Task::Codegen { check } => codegen::run(&root, check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
