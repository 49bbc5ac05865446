//! `cargo xtask dist`: the command as it is shipped, in the profile `dist`.

use std::path::Path;

use anyhow::Result;

use crate::tools;

pub(crate) fn run(root: &Path) -> Result<()> {
    let build = [
        "build",
        "--locked",
        "--profile",
        "dist",
        "--bin",
        "outrigger",
    ];
    tools::cargo(root, &build)?;
    let built = tools::target(root).join("dist/outrigger");
    let bytes = std::fs::metadata(&built)?.len();
    println!("{}: {:.1} MB", built.display(), bytes as f64 / 1e6);
    Ok(())
}
