//! `cargo xtask plugins`: the animals as a host finds them, one folder each
//! with a manifest, the program and its checksum.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::tools;

/// Where the manifests are.
pub(crate) const MANIFESTS: &str = "examples/animals";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder of the plugins; target/plugins by default
    dir: Option<PathBuf>,
    /// Build with optimisations
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => tools::target(root).join("plugins"),
    };
    let names = names(&root.join(MANIFESTS))?;
    let mut arguments = vec!["build", "--quiet", "--package", "outrigger-examples"];
    for name in &names {
        arguments.extend(["--bin", name]);
    }
    arguments.extend(options.release.then_some("--release"));
    tools::cargo(root, &arguments)?;
    let profile = if options.release { "release" } else { "debug" };
    let built = tools::target(root).join(profile);
    for name in &names {
        lay_out(root, &built, name, &dir.join(name))?;
    }
    println!("{} plugins in {}", names.len(), dir.display());
    Ok(())
}

/// An animal's folder, its manifest and its program have one name.
pub(crate) fn names(manifests: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(manifests)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "no folder in {}", manifests.display());
    Ok(names)
}

/// Writes the folder of one animal whose program was built.
pub(crate) fn lay_out(root: &Path, built: &Path, name: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let manifest = root.join(MANIFESTS).join(name).join("manifest.yaml");
    fs::copy(&manifest, into.join("manifest.yaml"))
        .with_context(|| format!("copying {}", manifest.display()))?;
    let (from, program) = (built.join(name), into.join(name));
    // The old one may be running, and is not to be overwritten then.
    let fresh = into.join(format!(".{name}.new"));
    fs::copy(&from, &fresh).with_context(|| format!("copying {}", from.display()))?;
    fs::rename(&fresh, &program)?;
    fs::write(into.join("plugin.sha256"), checksum(&program, name)?)?;
    Ok(())
}

/// One line as `sha256sum` writes it.
fn checksum(program: &Path, name: &str) -> Result<String> {
    let digest = HEXLOWER.encode(&Sha256::digest(fs::read(program)?));
    Ok(format!("{digest}  {name}\n"))
}
