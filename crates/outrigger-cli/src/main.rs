#![doc = include_str!("../docs/command.md")]

mod args;
mod audit;
mod call;
mod canned;
mod check;
mod codec;
mod contracts;
mod cookies;
mod descriptors;
mod establish;
mod explain;
mod failure;
mod files;
mod fill;
mod foreign;
mod fromgob;
mod gotext;
mod gotype;
mod granting;
mod grpc;
mod input;
mod inspect;
mod json;
mod launch;
mod memory;
mod metadata;
mod netrpc;
mod output;
mod printer;
mod probe;
mod reattach;
mod requests;
mod shell;
mod snippet;
mod status;
mod stderr;
mod steps;
mod terminal;
mod texts;
mod togob;
mod witness;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use args::{Cli, Command};
use failure::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbose = match &cli.command {
        Command::Inspect(inspect) => inspect.plugin.verbose,
        Command::Call(call) => call.calling.plugin.verbose,
        Command::Shell(shell) => shell.calling.plugin.verbose,
        Command::Check(_) => false,
    };
    if verbose {
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
        // On a terminal, the shell itself knows what an interrupt means.
        let interrupts = !matches!(command, Command::Shell(_)) || !std::io::stdin().is_terminal();
        let work = async {
            match command {
                Command::Inspect(args) => inspect::run(args).await.map(|()| 0),
                Command::Call(args) => call::run(args).await,
                Command::Shell(args) => shell::run(args).await,
                Command::Check(args) => check::run(args).map(|()| 0),
            }
        };
        // Dropping the work ends the plugin as well.
        tokio::select! {
            result = work => result,
            _ = interrupt.recv(), if interrupts => Ok(130),
            _ = end.recv() => Ok(143),
        }
    })
}

/// Logs the plugin's lines at any level, ours down to debug, those of libraries from warnings on.
fn log_to_stderr() {
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("outrigger", LevelFilter::DEBUG)
        .with_target("outrigger::plugin", LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
}
