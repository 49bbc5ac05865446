//! `cargo xtask test --coverage`: how many of each crate's lines the tests run.
//!
//! cargo-llvm-cov says how programs are built that count, and reads what they
//! leave. Plugins and hosts that a test starts count too; one that is killed does
//! not leave anything. What stands in a file beside its tests is counted with them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tools;

/// What nobody wrote by hand, and files that only tests compile.
const LEFT_OUT: &str = r"/generated/|/tests\.rs$|/testing\.rs$";

/// The variables that make cargo build programs that count.
pub(crate) struct Coverage(Vec<(String, String)>);

impl Coverage {
    /// Installs what is missing, and forgets what earlier programs left.
    pub(crate) fn prepare(root: &Path) -> Result<Self> {
        if tools::output("cargo", &["llvm-cov", "--version"]).is_none() {
            println!("installing cargo-llvm-cov");
            let install = ["install", "--locked", "--quiet", "cargo-llvm-cov"];
            tools::cargo(root, &install)?;
        }
        let target = std::path::absolute(tools::target(root))?.join("coverage");
        let mut coverage = Self(vec![
            ("CARGO_TARGET_DIR".into(), target.display().to_string()),
            // It is a second copy of all that is built, and needs no more than lines.
            ("CARGO_INCREMENTAL".into(), "0".into()),
            ("CARGO_PROFILE_DEV_DEBUG".into(), "false".into()),
            // The component of rustup that it needs is installed without a question.
            ("CARGO_LLVM_COV_SETUP".into(), "yes".into()),
        ]);
        let printed = coverage.ask(root, &["show-env"])?;
        let variables = printed.lines().filter_map(|line| {
            let word = shlex::split(line)?.into_iter().next()?;
            let (name, value) = word.split_once('=')?;
            // One file for each program, not for each of the thousands of processes.
            Some((name.to_owned(), value.replace("-%p-", "-")))
        });
        coverage.0.extend(variables);
        coverage.ask(root, &["clean", "--profraw-only"])?;
        Ok(coverage)
    }

    /// Lets what `command` builds count.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.envs(self.0.iter().map(|(name, value)| (name, value)));
    }

    /// Prints the lines of each crate that were run.
    pub(crate) fn report(&self, root: &Path) -> Result<()> {
        let report = self.ask(
            root,
            &[
                "report",
                "--json",
                "--summary-only",
                // A program that was killed while it wrote leaves half a file.
                "--failure-mode=all",
                "--ignore-filename-regex",
                LEFT_OUT,
            ],
        )?;
        let root = std::path::absolute(root)?;
        print!(
            "{}",
            table(&crates(&serde_json::from_str(&report)?, &root)?)
        );
        Ok(())
    }

    fn ask(&self, root: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = tools::cargo_command(root, &["llvm-cov"]);
        self.apply(command.args(arguments));
        let output = command.output().context("running cargo llvm-cov")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} failed: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Lines that there are, and of them those that were run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lines {
    all: u64,
    run: u64,
}

/// The lines of each crate: of all files beneath the folder that has its `src`.
fn crates(report: &Value, root: &Path) -> Result<BTreeMap<String, Lines>> {
    let files = report["data"][0]["files"].as_array().context("files")?;
    let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
    for file in files {
        let path = Path::new(file["filename"].as_str().context("filename")?);
        let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
        let Some((name, _)) = path.split_once("/src/") else {
            continue;
        };
        let lines = &file["summary"]["lines"];
        let sum = crates.entry(name.to_owned()).or_default();
        sum.all += lines["count"].as_u64().context("count")?;
        sum.run += lines["covered"].as_u64().context("covered")?;
    }
    Ok(crates)
}

fn table(crates: &BTreeMap<String, Lines>) -> String {
    let mut table = format!("{:<32} {:>7} {:>7} {:>6}\n", "crate", "lines", "run", "%");
    let mut total = Lines::default();
    let mut row = |name: &str, lines: Lines| {
        let share = 100.0 * lines.run as f64 / lines.all.max(1) as f64;
        table += &format!(
            "{name:<32} {:>7} {:>7} {share:>6.1}\n",
            lines.all, lines.run
        );
    };
    for (name, lines) in crates {
        row(name, *lines);
        total.all += lines.all;
        total.run += lines.run;
    }
    row("all", total);
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_those_of_the_crate_that_a_file_is_in() {
        let file = |path: &str, count: u64, covered: u64| json!({"filename": path, "summary": {"lines": {"count": count, "covered": covered}}});
        let report = json!({"data": [{"files": [
            file("/here/crates/wire/src/lib.rs", 10, 9),
            file("/here/crates/wire/src/logs/split.rs", 30, 21),
            file("/here/xtask/src/main.rs", 5, 0),
            file("/here/crates/wire/build.rs", 7, 7),
        ]}]});
        let crates = crates(&report, Path::new("/here")).expect("crates");
        let wire = Lines { all: 40, run: 30 };
        let xtask = Lines { all: 5, run: 0 };
        assert_eq!(
            crates,
            BTreeMap::from([("crates/wire".into(), wire), ("xtask".into(), xtask)])
        );
        let table = table(&crates);
        let last = table.lines().last().expect("a line");
        assert_eq!(
            last.split_whitespace().collect::<Vec<_>>(),
            ["all", "45", "30", "66.7"]
        );
    }
}
