//! The programs that tasks call, and where their results go.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A command in the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Cargo in the workspace.
pub(crate) fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = command(cargo);
    cargo.args(arguments).current_dir(root);
    cargo
}

/// Runs cargo in the workspace.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    run(&mut cargo_command(root, arguments))
}

/// What a program prints, if it runs.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = command(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of Go, if there is one that builds the peers.
pub(crate) fn go_version() -> Option<String> {
    let version = output("go", &["env", "GOVERSION"])?;
    let minor: u32 = version
        .strip_prefix("go1.")?
        .split('.')
        .next()?
        .parse()
        .ok()?;
    (minor >= 25).then_some(version)
}

/// The version of Python, if there is one that runs the peers.
pub(crate) fn python_version() -> Option<String> {
    let version = output("python3", &["--version"])?;
    let minor: u32 = version
        .strip_prefix("Python 3.")?
        .split('.')
        .next()?
        .parse()
        .ok()?;
    (minor >= 10).then_some(version)
}

/// Builds all Go peers and says where they are.
pub(crate) fn build_go_peers(root: &Path) -> Result<PathBuf> {
    let into = target(root).join("interop/go");
    std::fs::create_dir_all(&into)?;
    let source = root.join("interop/go");
    run(command("go")
        .arg("build")
        .arg("-o")
        .arg(&into)
        .arg("./...")
        .current_dir(source))?;
    // Plugins that our own tests launch as well.
    for example in ["hostclient", "lister"] {
        run(command("go")
            .arg("build")
            .arg("-o")
            .arg(std::path::absolute(into.join(example))?)
            .arg(".")
            .current_dir(root.join("examples/go").join(example)))?;
    }
    Ok(into)
}
