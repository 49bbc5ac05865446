#![doc = include_str!("../docs/command.md")]

mod approve;
mod args;
mod audit;
mod call;
mod canned;
mod check;
mod codec;
mod codes;
mod config;
mod contracts;
mod cookies;
mod descriptors;
mod doctor;
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
mod lock;
mod manual;
mod memory;
mod metadata;
mod netrpc;
mod new;
mod offer;
mod output;
mod printer;
mod probe;
mod proto;
mod reattach;
mod reflection;
mod requests;
mod seen;
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
use std::time::Duration;

use clap::Parser as _;
use outrigger_transport::plugin_log::PLUGIN_LOG;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use args::{Cli, Command};
use failure::{Exit, Failure};

/// How long the command waits in the end for what it removes.
const REMOVAL: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread is started: a process of several cannot try these.
    if let Command::Doctor(args) = &cli.command
        && let Some(probe) = args.probe
    {
        return doctor::probe(probe);
    }
    let verbose = match &cli.command {
        Command::Inspect(inspect) => inspect.plugin.verbose,
        Command::Proto(proto) => proto.plugin.verbose,
        Command::Call(call) => call.calling.plugin.verbose,
        Command::Shell(shell) => shell.calling.plugin.verbose,
        Command::Check(_)
        | Command::Lock(_)
        | Command::Approve(_)
        | Command::Config(_)
        | Command::Explain(_)
        | Command::New(_)
        | Command::Doctor(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    };
    if verbose {
        log_to_stderr();
    }
    let code = match run(&cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    };
    // What plugins had is removed when the command has ended, however much it is.
    outrigger_host::nothing_left(REMOVAL);
    code
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
        let hang_up = hang_up().map_err(internal)?;
        // A parent that ignores this one has its children ignore it, and then the
        // system forgets how plugins ended. To wait for it is to have it back.
        let _ended = signal(SignalKind::child()).map_err(internal)?;
        // On a terminal, the shell itself knows what an interrupt means.
        let interrupts = !matches!(command, Command::Shell(_)) || !std::io::stdin().is_terminal();
        let work = async {
            match command {
                Command::Inspect(args) => inspect::run(args).await.map(|()| 0),
                Command::Proto(args) => proto::run(args).await.map(|()| 0),
                Command::Call(args) => call::run(args).await,
                Command::Shell(args) => shell::run(args).await,
                Command::Check(args) => check::run(args).map(|()| 0),
                Command::Lock(args) => lock::run(args).map(|()| 0),
                Command::Approve(args) => approve::run(args).await.map(|()| 0),
                Command::Config(args) => config::run(args).map(|()| 0),
                Command::Explain(args) => codes::run(args).map(|()| 0),
                Command::New(args) => new::run(args).map(|()| 0),
                Command::Doctor(args) => doctor::run(args).map(|()| 0),
                Command::Completions(args) => manual::completions(args).map(|()| 0),
                Command::Man(args) => manual::run(args).map(|()| 0),
            }
        };
        // Dropping the work ends the plugin as well.
        tokio::select! {
            result = work => result,
            _ = interrupt.recv(), if interrupts => Ok(130),
            _ = end.recv() => Ok(143),
            () = hang_up => Ok(129),
        }
    })
}

/// The end of the terminal; never, where that is ignored, as `nohup` has it.
fn hang_up() -> std::io::Result<impl Future<Output = ()>> {
    let hang_up = match ignores(SignalKind::hangup()) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    Ok(async move {
        match hang_up {
            Some(mut hang_up) => {
                hang_up.recv().await;
            }
            None => std::future::pending().await,
        }
    })
}

/// Whether this process was started with a signal ignored.
fn ignores(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = signal.as_raw_value() - 1;
    mask.is_some_and(|mask| mask >> bit & 1 == 1)
}

/// Logs the plugin's lines at any level, ours down to debug, those of libraries from warnings on.
fn log_to_stderr() {
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("outrigger", LevelFilter::DEBUG)
        .with_target(PLUGIN_LOG, LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
}
