//! A host that does nothing but hold plugins, so that a test can kill it.
//!
//! `holder [--times N] PROGRAM [ARG…]` starts the program N times as a plugin
//! of go-plugin's own examples, prints `held PID` for each, and waits.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use outrigger_examples::basic_cookie;
use outrigger_host::{Launch, PluginSet};

#[derive(Parser)]
struct Options {
    /// How many plugins to hold.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let (program, arguments) = options.command.split_first().context("no program")?;
    let mut held = Vec::new();
    for _ in 0..options.times {
        let plugin = Launch::new(program, basic_cookie())
            .args(arguments)
            .offer(1, PluginSet::new())
            .start()
            .await?;
        writeln!(std::io::stdout(), "held {}", plugin.id())?;
        held.push(plugin);
    }
    // A test that forgets its host does not leave it for ever.
    tokio::time::sleep(Duration::from_secs(120)).await;
    Ok(())
}
