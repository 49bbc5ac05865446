//! Every interface of the net/rpc tests in one plugin, for the interop matrix.
//!
//! `--tls` uses the certificates in `OUTRIGGER_TLS_DIR`, `--tcp` listens on TCP,
//! and `--test-mode` serves in go-plugin's test mode, says where as a line of
//! JSON and ends with stdin.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use outrigger_examples::basic_cookie;
use outrigger_interop::netrpc::serve;
use outrigger_interop::test_mode::serve_until_stdin_ends;
use outrigger_interop::tls::{TLS_DIR, static_tls};
use outrigger_plugin::Serve;

fn run() -> Result<ExitCode> {
    let mut plugin = Serve::new(basic_cookie()).offer(1, serve::all());
    let mut test_mode = false;
    for argument in std::env::args().skip(1) {
        plugin = match argument.as_str() {
            "--tcp" => plugin.tcp(),
            "--test-mode" => {
                test_mode = true;
                plugin
            }
            "--tls" | "-tls" => {
                let dir = std::env::var_os(TLS_DIR);
                let dir = dir.with_context(|| format!("{TLS_DIR} is not set"))?;
                plugin.tls(static_tls(Path::new(&dir))?)
            }
            other => bail!("unknown argument `{other}`"),
        };
    }
    if test_mode {
        return serve_until_stdin_ends(plugin).map(|()| ExitCode::SUCCESS);
    }
    Ok(outrigger_plugin::serve(plugin))
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // Nobody listens to a plugin that could not even read its arguments, except here.
            let _ = writeln!(std::io::stderr(), "netrpc-peer: {error:#}");
            ExitCode::from(2)
        }
    }
}
