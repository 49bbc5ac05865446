//! `cargo xtask codegen`: Rust and Go from `proto/`. The result is committed.

use std::path::Path;

use anyhow::Result;

use crate::tools;

/// Writes all generated code, or with `check` fails when what is committed differs.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let mut rust = tools::cargo_command(root, &["run", "--quiet", "--package", "xtask-codegen"]);
    rust.arg("--").args(check.then_some("--check"));
    tools::run(&mut rust)?;
    go(root, check)
}

/// Go's generators are programs in Go: without Go there is nobody to ask.
fn go(root: &Path, check: bool) -> Result<()> {
    if tools::go_version().is_none() {
        let done = if check { "compared" } else { "written" };
        println!("skipped: the code in Go is not {done} without Go 1.25 or newer");
        return Ok(());
    }
    let mut generator = tools::command("go");
    generator.args(["run", "./internal/gen"]);
    generator.args(check.then_some("-check"));
    tools::run(generator.current_dir(root.join("interop/go")))
}
