//! `cargo xtask test`: everything that must hold, on a machine with Rust, Go and Python.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::coverage::Coverage;
use crate::{codegen, cost, interop, tidy, tools};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Keep this many threads busy beside the tests and the matrix, and run nothing else: what
    /// fails then was left to chance
    #[arg(long, value_name = "THREADS")]
    load: Option<usize>,
    /// Run the tests alone, and print how many of each crate's lines they run
    #[arg(long, conflicts_with = "load")]
    coverage: bool,
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
        step("tests under load", || run.tests(peers.as_deref(), None))?;
        return step("interop under load", || {
            interop::run(root, &interop::Options::default())
        });
    }
    if options.coverage {
        let coverage = Coverage::prepare(root)?;
        let tests = step("tests", || run.tests(peers.as_deref(), Some(&coverage)));
        // Tests that failed ran lines as well.
        step("coverage", || coverage.report(root))?;
        return tests;
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
    step("tests", || run.tests(peers.as_deref(), None))?;
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

    fn tests(&self, peers: Option<&Path>, coverage: Option<&Coverage>) -> Result<()> {
        let cargo = |arguments: &[&str]| {
            let mut command = tools::cargo_command(self.root, arguments);
            if let Some(coverage) = coverage {
                coverage.apply(&mut command);
            }
            command
        };
        let python = match tools::python_version() {
            Some(_) => Some(tools::python_environment(self.root)?),
            None => None,
        };
        let test = |arguments: &[&str]| {
            let mut command = cargo(&["test", "--quiet", "--no-fail-fast"]);
            command.args(arguments).env("INSTA_UPDATE", "no");
            if let Some(peers) = peers {
                command.env("OUTRIGGER_GO_PEERS", peers);
            }
            if let Some(python) = &python {
                command.env("OUTRIGGER_PYTHON", python);
            }
            command
        };
        // Tests start programs of other packages, which testing alone does not build.
        tools::run(&mut cargo(&["build", "--workspace", "--quiet"]))?;
        tools::run(&mut test(&["--workspace", "--no-run"]))?;
        // This one waits for 85 s and computes nothing.
        let idle = ["a_connection_that_was_idle", "--", "--ignored"];
        let mut idle = test(&[&["--workspace", "--test", "netrpc"], &idle[..]].concat());
        std::thread::scope(|scope| {
            let idle = scope.spawn(|| tools::run(&mut idle));
            let tests = tools::run(&mut test(&["--workspace"]));
            tests.and(idle.join().expect("the idle test does not panic here"))
        })
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
