//! `cargo xtask tsan`: the parts that several threads use at once, under
//! ThreadSanitizer, which sees two accesses to one place that nothing orders.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::tools;

/// The compiler that has sanitizers, and builds a standard library that it watches.
const TOOLCHAIN: &str = "nightly";

/// Races that are none, each with its reason.
const SUPPRESSIONS: &str = "xtask/tsan.suppressions";

/// Tests that are run: of which package, in which programs, and what is in their names;
/// no name is all of them.
type Part = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const PARTS: &[Part] = &[
    (
        "outrigger-transport",
        &["--lib"],
        &["yamux", "broker", "channel", "netrpc"],
    ),
    // Calls while one plugin replaces another.
    (
        "outrigger-transport",
        &["--test", "router", "--test", "router_netrpc"],
        &[],
    ),
    (
        "outrigger-services",
        &["--lib"],
        &["leases", "descriptors", "process"],
    ),
    // Sessions with all that they hold, over real sockets.
    (
        "outrigger-services",
        &["--test", "descriptors", "--test", "process"],
        &[],
    ),
    ("outrigger-host", &["--lib"], &["logs"]),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    installed()?;
    let root = std::path::absolute(root)?;
    let host = tools::output(
        "rustup",
        &["run", TOOLCHAIN, "rustc", "--print", "host-tuple"],
    );
    let suppressions = root.join(SUPPRESSIONS);
    for (package, programs, names) in PARTS {
        println!("── {package} {} {}", programs.join(" "), names.join(" "));
        let mut cargo = tools::command("rustup");
        cargo
            .args(["run", TOOLCHAIN, "cargo", "test", "-Zbuild-std"])
            // With a target of their own, build scripts and macros are not watched.
            .args(["--target", host.as_deref().unwrap_or_default()])
            .args(["--quiet", "--package", package])
            .args(*programs)
            .arg("--")
            .args(*names)
            .env("CARGO_TARGET_DIR", tools::target(&root).join("tsan"))
            .env("RUSTFLAGS", "-Zsanitizer=thread")
            // Watched code is ten times slower, and some of it has deadlines.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .env("PROPTEST_CASES", "32")
            .env(
                "TSAN_OPTIONS",
                format!("suppressions={}", suppressions.display()),
            )
            .current_dir(&root);
        tools::run(&mut cargo)?;
    }
    println!("ThreadSanitizer saw no race");
    Ok(())
}

/// # Errors
/// The toolchain is missing, or the source of its standard library.
fn installed() -> Result<()> {
    let sysroot = tools::output("rustup", &["run", TOOLCHAIN, "rustc", "--print", "sysroot"]);
    let source = sysroot.map(|path| PathBuf::from(path).join("lib/rustlib/src/rust/library"));
    if source.is_some_and(|source| source.is_dir()) {
        return Ok(());
    }
    bail!(
        "the {TOOLCHAIN} toolchain with the source of its standard library is missing; \
         `rustup toolchain install {TOOLCHAIN} --component rust-src` installs it"
    )
}
