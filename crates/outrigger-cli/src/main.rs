#![doc = include_str!("../docs/command.md")]

mod args;
mod call;
mod codec;
mod cookies;
mod descriptors;
mod failure;
mod inspect;
mod json;
mod launch;
mod memory;
mod output;
mod status;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use args::{Cli, Command};
use failure::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let plugin = match &cli.command {
        Command::Inspect(plugin) => plugin,
        Command::Call(call) => &call.plugin,
    };
    if plugin.verbose {
        log_to_stderr();
    }
    match run(&cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: &Command) -> Result<u8, Failure> {
    let internal = |error: std::io::Error| {
        Failure::new(
            Exit::Internal,
            "runtime-failed",
            "the runtime could not be started",
        )
        .note(error.to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(internal)?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
        let mut end = signal(SignalKind::terminate()).map_err(internal)?;
        let work = async {
            match command {
                Command::Inspect(args) => inspect::run(args).await,
                Command::Call(args) => call::run(args).await,
            }
        };
        // Dropping the work ends the plugin as well.
        tokio::select! {
            result = work => result.map(|()| 0),
            _ = interrupt.recv() => Ok(130),
            _ = end.recv() => Ok(143),
        }
    })
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(LevelFilter::DEBUG)
        .init();
}
