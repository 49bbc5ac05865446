//! `cargo xtask test`: everything that must hold, on a machine with Rust, Go and Python.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{codegen, cost, interop, tidy, tools};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Keep this many threads busy beside the tests and the matrix, and run nothing else: what
    /// fails then was left to chance
    #[arg(long, value_name = "THREADS")]
    load: Option<usize>,
}

/// Threads that compute for nothing until this is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start(threads: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What later steps learn from earlier ones.
struct Run<'a> {
    root: &'a Path,
    skipped: Vec<String>,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut run = Run {
        root,
        skipped: Vec::new(),
    };
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let peers = run.peers(strict)?;
    if let Some(threads) = options.load {
        run.build()?;
        let _load = Load::start(threads);
        step("tests under load", || run.tests(peers.as_deref()))?;
        return step("interop under load", || {
            interop::run(root, &interop::Options::default())
        });
    }
    step("tidy", || tidy::run(root))?;
    step("formatting", || {
        tools::cargo(root, &["fmt", "--all", "--check"])
    })?;
    step("generated code", || codegen::run(root, true))?;
    step("clippy", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ];
        tools::cargo(root, &arguments)
    })?;
    step("fuzz targets", || {
        let arguments = [
            "check",
            "--package",
            "outrigger-fuzz",
            "--features",
            "libfuzzer",
            "--quiet",
        ];
        // What the fuzzer itself is made of is C++, and nobody links it here.
        let mut check = tools::cargo_command(root, &arguments);
        tools::run(check.env("CUSTOM_LIBFUZZER_PATH", "/not/linked/libfuzzer.a"))
    })?;
    step("cargo features", || features(root))?;
    step("docs", || {
        let arguments = ["doc", "--workspace", "--no-deps", "--quiet"];
        tools::run(tools::cargo_command(root, &arguments).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("tests", || run.tests(peers.as_deref()))?;
    step("interop", || {
        interop::run(root, &interop::Options::default())
    })?;
    step("cargo-deny", || run.deny(strict))?;
    for skipped in &run.skipped {
        println!("skipped: {skipped}");
    }
    println!("all steps passed");
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("── {name}");
    let begun = Instant::now();
    work()?;
    println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Checks each combination of cargo features by itself: in the workspace as a whole
/// all are on. A plugin without TLS is run as well, since only there it has none.
fn features(root: &Path) -> Result<()> {
    for combination in cost::COMBINATIONS {
        let mut check = tools::cargo_command(root, &["clippy", "--quiet"]);
        check.args(combination.arguments());
        tools::run(check.args(["--", "-D", "warnings"]))?;
    }
    let without = [
        "test",
        "--package",
        "outrigger-example-bare",
        "--features",
        "alone",
        "--quiet",
    ];
    tools::cargo(root, &without)
}

impl Run<'_> {
    /// Builds the Go peers. A missing language is said, and fails where it must not be missing.
    fn peers(&mut self, strict: bool) -> Result<Option<PathBuf>> {
        let go = tools::go_version();
        for (missing, language) in [
            (go.is_none(), "Go 1.25 or newer"),
            (tools::python_version().is_none(), "Python 3.10 or newer"),
        ] {
            if missing && strict {
                bail!("{language} is missing, and CI=true asks for every peer");
            }
            if missing {
                self.skipped
                    .push(format!("every test with a peer that needs {language}"));
            }
        }
        go.map(|_| tools::build_go_peers(self.root)).transpose()
    }

    /// Builds all that the tests start and are.
    fn build(&self) -> Result<()> {
        tools::cargo(self.root, &["build", "--workspace", "--quiet"])?;
        tools::cargo(self.root, &["test", "--workspace", "--quiet", "--no-run"])
    }

    fn tests(&self, peers: Option<&Path>) -> Result<()> {
        // Tests start programs of other packages, which testing alone does not build.
        tools::cargo(self.root, &["build", "--workspace", "--quiet"])?;
        let arguments = ["test", "--workspace", "--quiet", "--no-fail-fast"];
        let mut command = tools::cargo_command(self.root, &arguments);
        command.env("INSTA_UPDATE", "no");
        if let Some(peers) = peers {
            command.env("OUTRIGGER_GO_PEERS", peers);
        }
        if tools::python_version().is_some() {
            command.env("OUTRIGGER_PYTHON", tools::python_environment(self.root)?);
        }
        tools::run(&mut command)
    }

    fn deny(&mut self, strict: bool) -> Result<()> {
        if tools::output("cargo", &["deny", "--version"]).is_none() {
            println!("installing cargo-deny");
            if let Err(error) =
                tools::cargo(self.root, &["install", "--locked", "--quiet", "cargo-deny"])
            {
                if strict {
                    return Err(error);
                }
                self.skipped
                    .push(format!("cargo-deny, which could not be installed: {error}"));
                return Ok(());
            }
        }
        // The list of advisories is on a server of its own that not every machine reaches.
        let offline = [
            "deny",
            "--all-features",
            "check",
            "bans",
            "licenses",
            "sources",
        ];
        tools::cargo(self.root, &offline)?;
        let fetch = tools::command("cargo")
            .args(["deny", "fetch", "db"])
            .current_dir(self.root)
            .output()
            .is_ok_and(|output| output.status.success());
        if !fetch {
            self.skipped
                .push("advisories: their list could not be fetched".into());
            return Ok(());
        }
        tools::cargo(
            self.root,
            &["deny", "--all-features", "check", "advisories"],
        )
    }
}
