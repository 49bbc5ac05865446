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

/// Runs a command that has nothing to say unless it fails, and then its last words count.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("it said nothing").trim();
    bail!("{command:?} failed: {last}")
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

/// A Python that has what our plugins and hosts in Python need. It is made anew when
/// that changes, when Python does, and when the folder was moved.
pub(crate) fn python_environment(root: &Path) -> Result<PathBuf> {
    let needed = root.join("bindings/python/requirements.txt");
    // What the tests need besides.
    let requirements = root.join("interop/python/requirements.txt");
    let environment = std::path::absolute(target(root))?.join("interop/venv");
    let (python, made_for) = (environment.join("bin/python"), environment.join("made-for"));
    let wanted = format!(
        "{} at {}\n{}{}",
        python_version().context("Python 3.10 or newer is missing")?,
        environment.display(),
        std::fs::read_to_string(&needed)?,
        std::fs::read_to_string(&requirements)?
    );
    if python.exists() && std::fs::read_to_string(&made_for).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    let make = ["-m", "venv", "--clear"];
    run_quietly(command("python3").args(make).arg(&environment))?;
    let install = ["-m", "pip", "install", "--disable-pip-version-check", "-r"];
    run_quietly(command(&python).args(install).arg(&requirements))?;
    std::fs::write(made_for, wanted)?;
    Ok(python)
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
    for example in ["hostclient", "lister", "parrot"] {
        run(command("go")
            .arg("build")
            .arg("-o")
            .arg(std::path::absolute(into.join(example))?)
            .arg(".")
            .current_dir(root.join("examples/go").join(example)))?;
    }
    Ok(into)
}
