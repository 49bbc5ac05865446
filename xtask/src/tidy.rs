//! `cargo xtask tidy`: what no compiler checks: who may know whom, which files
//! may use each other, and what may stand in the tree.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{circles, tools};

/// The crates of ours that each crate may depend on; the direction is
/// front doors → roles → mechanisms → data.
const EDGES: &[(&str, &[&str])] = &[
    ("outrigger-wire", &[]),
    ("outrigger-gob-derive", &[]),
    ("outrigger-gob", &["outrigger-gob-derive", "outrigger-wire"]),
    ("outrigger-macros", &[]),
    ("outrigger-build", &[]),
    ("outrigger-manifest", &["outrigger-wire"]),
    ("outrigger-transport", &["outrigger-gob", "outrigger-wire"]),
    (
        "outrigger-services",
        &[
            "outrigger-manifest",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    (
        "outrigger-plugin",
        &[
            "outrigger-gob",
            "outrigger-macros",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    (
        "outrigger-host",
        &[
            "outrigger-gob",
            "outrigger-macros",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    (
        "outrigger-registry",
        &["outrigger-manifest", "outrigger-wire"],
    ),
    ("outrigger-testing", &[]),
    (
        "outrigger",
        &[
            "outrigger-host",
            "outrigger-macros",
            "outrigger-manifest",
            "outrigger-registry",
            "outrigger-services",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    (
        "outrigger-cli",
        &[
            "outrigger",
            "outrigger-gob",
            "outrigger-host",
            "outrigger-manifest",
            "outrigger-services",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    (
        "outrigger-examples",
        &[
            "outrigger",
            "outrigger-gob",
            "outrigger-manifest",
            "outrigger-host",
            "outrigger-plugin",
            "outrigger-services",
            "outrigger-transport",
            "outrigger-wire",
        ],
    ),
    ("outrigger-example-bare", &["outrigger-plugin"]),
    (
        "outrigger-interop",
        &[
            "outrigger",
            "outrigger-examples",
            "outrigger-gob",
            "outrigger-host",
            "outrigger-plugin",
        ],
    ),
    (
        "outrigger-example-interface",
        &["outrigger-host", "outrigger-plugin"],
    ),
    (
        "outrigger-example-proto",
        &["outrigger-build", "outrigger-plugin"],
    ),
    (
        "outrigger-fuzz",
        &[
            "outrigger-gob",
            "outrigger-manifest",
            "outrigger-registry",
            "outrigger-wire",
        ],
    ),
    ("xtask", &[]),
    ("xtask-codegen", &["outrigger-build"]),
];

/// Crates without unsafe code that only move data, and so have no I/O.
const PURE: &[&str] = &["outrigger-wire", "outrigger-gob", "outrigger-manifest"];
const IO_CRATES: &[&str] = &["tokio", "rustix", "hyper", "mio", "socket2"];

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut problems = edges(root)?;
    problems.extend(texts(root)?);
    problems.extend(circles::find(root)?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn edges(root: &Path) -> Result<Vec<String>> {
    let output = tools::command("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            problems.push(format!(
                "{name} is not in the table of crate edges (xtask/src/tidy.rs)"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let other = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            if other.starts_with("outrigger") && !for_tests && !allowed.contains(&other) {
                problems.push(format!("{name} must not depend on {other}"));
            }
            if PURE.contains(&name) && !for_tests && IO_CRATES.contains(&other) {
                problems.push(format!(
                    "{name} is pure data and must not depend on {other}"
                ));
            }
        }
    }
    Ok(problems)
}

/// The place of this checkout is known to one machine only.
fn texts(root: &Path) -> Result<Vec<String>> {
    let own = std::path::absolute(root)?.display().to_string();
    let files = tools::command("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()?;
    let mut problems = Vec::new();
    for name in String::from_utf8_lossy(&files.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        // Deleted and binary files have no lines.
        let Ok(text) = std::fs::read_to_string(root.join(name)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if line.contains(&own) {
                problems.push(format!("{name}:{}: names {own}", number + 1));
            }
        }
    }
    Ok(problems)
}
