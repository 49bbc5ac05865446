//! `cargo xtask cost`: what each combination of cargo features costs to compile.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::tools;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only count crates, and build nothing
    #[arg(long)]
    crates: bool,
    /// Only measure the demo: clone this repository, and see its plugins answer
    #[arg(long, conflicts_with = "crates")]
    demo: bool,
}

/// One crate with some of its cargo features.
pub(crate) struct Combination {
    package: &'static str,
    /// Separated by commas; those that are on by default if absent.
    features: Option<&'static str>,
}

const fn only(package: &'static str, features: &'static str) -> Combination {
    Combination {
        package,
        features: Some(features),
    }
}

const fn default(package: &'static str) -> Combination {
    Combination {
        package,
        features: None,
    }
}

/// Every combination that makes sense to somebody. `docs/features.md` has the same.
pub(crate) const COMBINATIONS: &[Combination] = &[
    only("outrigger-plugin", ""),
    only("outrigger-plugin", "logs"),
    only("outrigger-plugin", "netrpc"),
    only("outrigger-plugin", "tls"),
    only("outrigger-plugin", "gzip,interface,logs,netrpc,reflection"),
    default("outrigger-plugin"),
    only("outrigger-host", ""),
    default("outrigger-host"),
];

impl Combination {
    /// What cargo is told of it.
    pub(crate) fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--package", self.package];
        if let Some(features) = self.features {
            arguments.extend(["--no-default-features", "--features", features]);
        }
        arguments
    }

    /// How many crates cargo compiles for it on this machine, its own and those of
    /// build scripts among them.
    fn crates(&self, root: &Path) -> Result<usize> {
        let list = [
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ];
        let output = tools::cargo_command(root, &list)
            .args(["--format", "{p}"])
            .args(self.arguments())
            .output()?;
        ensure!(output.status.success(), "cargo cannot list {self}");
        let text = String::from_utf8_lossy(&output.stdout);
        // What is listed a second time is marked so.
        let crates = text.lines().map(|line| line.trim_end_matches(" (*)"));
        Ok(crates.collect::<BTreeSet<_>>().len())
    }

    /// How much of the processors it takes to compile it from nothing.
    fn time(&self, root: &Path, into: &Path) -> Result<Duration> {
        let mut build = tools::cargo_command(root, &["build", "--locked", "--quiet"]);
        build.args(self.arguments()).arg("--target-dir").arg(into);
        let took = processor_time_of(&mut build)?;
        fs::remove_dir_all(into)?;
        Ok(took)
    }
}

/// The first two columns of its row in the docs.
impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = match self.features {
            None => "default",
            Some("") => "none",
            Some(features) => &features.replace(',', ", "),
        };
        write!(f, "| `{}` | {features} |", self.package)
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let places = std::path::absolute(tools::target(root))?.join("cost");
    if options.demo {
        return demo(root, &places);
    }
    println!("| crate | features | crates compiled | processor time |");
    println!("|---|---|---:|---:|");
    for combination in COMBINATIONS {
        let crates = combination.crates(root)?;
        let time = match options.crates {
            true => "not measured".to_owned(),
            false => format!("{:.0} s", combination.time(root, &places)?.as_secs_f64()),
        };
        println!("{combination} {crates} | {time} |");
    }
    Ok(())
}

/// Measures what a newcomer waits for: the repository is cloned, and the demo is
/// built and shown.
fn demo(root: &Path, places: &Path) -> Result<()> {
    if places.exists() {
        fs::remove_dir_all(places)?;
    }
    let clone = places.join("clone");
    let mut git = tools::command("git");
    git.args(["clone", "--quiet"]).arg(root).arg(&clone);
    let mut took = processor_time_of(&mut git)?;
    let mut demo = tools::cargo_command(&clone, &["xtask", "demo"]);
    demo.env("CARGO_TARGET_DIR", places.join("target"));
    took += processor_time_of(&mut demo)?;
    fs::remove_dir_all(places)?;
    println!(
        "from the clone to the end of the demo: {:.0} s of processor time",
        took.as_secs_f64()
    );
    Ok(())
}

/// Runs a command to its end, and says how long processors worked on it and on
/// what it started.
fn processor_time_of(command: &mut Command) -> Result<Duration> {
    // A cache of compiled crates would make all of this cheap and meaningless.
    command.env_remove("RUSTC_WRAPPER");
    let before = processor_time_of_children()?;
    tools::run(command)?;
    Ok(processor_time_of_children()? - before)
}

/// What Linux has counted for the processes that this one has waited for, and for
/// those that they have waited for: the 16th and 17th field of `stat`.
fn processor_time_of_children() -> Result<Duration> {
    /// In which the kernel tells times, on every machine that this runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("a line of fields")?;
    let times = fields.split(' ').skip(13).take(2);
    let ticks: u32 = times.map(|ticks| ticks.parse().unwrap_or(0)).sum();
    Ok(Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_has_the_crates_that_cargo_counts() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let docs = fs::read_to_string(root.join("docs/features.md")).expect("the page");
        let mut rows = docs.lines().filter(|line| line.starts_with("| `outrigger"));
        for combination in COMBINATIONS {
            let crates = combination.crates(&root).expect("cargo tree");
            let row = rows.next().unwrap_or_default();
            let expected = format!("{combination} {crates} |");
            assert!(
                row.starts_with(&expected),
                "{row:?} is to begin {expected:?}"
            );
        }
        assert_eq!(rows.next(), None, "there is no such combination");
    }

    #[test]
    fn a_plugin_author_without_tls_compiles_at_most_60_crates() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let least = COMBINATIONS[0].crates(&root).expect("cargo tree");
        assert!(least <= 60, "{least}");
    }

    #[test]
    fn the_time_that_children_took_is_seen() {
        let mut work = Command::new("sh");
        work.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"]);
        let took = processor_time_of(&mut work).expect("run");
        assert!(took >= Duration::from_millis(10), "{took:?}");
    }
}
