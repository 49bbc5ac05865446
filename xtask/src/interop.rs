//! `cargo xtask interop`: {Rust, Go} hosts × {Rust, Go, Python} plugins, each
//! pair over every way of connecting, over gRPC and over net/rpc, Python hosts with
//! Rust and Go plugins, and the single behaviours beside them.

mod case;
mod cases;
mod coverage;
mod execute;
mod netrpc;
mod peers;
mod table;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use case::{Case, Work};
use execute::Outcome;
use peers::Peers;

/// Cases at the same time. They wait for processes more than they compute.
const AT_A_TIME: usize = 4;

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only the cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Put the results into README.md
    #[arg(long, conflicts_with = "only")]
    update_readme: bool,
    /// Only print the names of the cases
    #[arg(long)]
    list: bool,
    /// Only check that every row of interop/CHECKLIST.md names a test that exists
    #[arg(long)]
    check_coverage: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if options.check_coverage {
        return coverage::check(root);
    }
    if options.list {
        for case in cases::all(&Peers::nowhere()) {
            println!("{}", case.name);
        }
        return Ok(());
    }
    let peers = Peers::build(root)?;
    let only = options.only.as_deref().unwrap_or_default();
    let mut cases = cases::all(&peers);
    cases.retain(|case| case.name.contains(only));
    if cases.is_empty() {
        bail!("no case has {only:?} in its name; `--list` shows all of them");
    }
    let begun = Instant::now();
    let outcomes = run_all(&cases);
    let table = table::of(&cases, &outcomes);
    println!("{table}");
    report(&cases, &outcomes, &peers, begun);
    let counts = table::Counts::of(&outcomes);
    println!("{counts}");
    if counts.failed > 0 {
        bail!("{} interop cases failed", counts.failed);
    }
    if options.update_readme {
        if let Some(missing) = peers.missing() {
            bail!("{missing}, so the table would not be whole; README.md was not changed");
        }
        table::update_readme(root, &table, &peers)?;
    }
    if only.is_empty() {
        coverage::check(root)
    } else {
        Ok(())
    }
}

fn run_all(cases: &[Case]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    let outcome = match &case.work {
                        Work::Run(run) => execute::run(index, run),
                        Work::NotApplicable(reason) => Outcome::Skipped((*reason).to_owned()),
                        Work::Missing(peer) => Outcome::Skipped(peer.clone()),
                    };
                    if let Ok(mut slot) = outcomes[index].lock() {
                        *slot = Some(outcome);
                    }
                }
            });
        }
    });
    let lost = || Outcome::Failed("its thread ended early".into());
    let taken = outcomes
        .into_iter()
        .map(|slot| slot.into_inner().ok().flatten());
    taken.map(|outcome| outcome.unwrap_or_else(lost)).collect()
}

fn report(cases: &[Case], outcomes: &[Outcome], peers: &Peers, begun: Instant) {
    for (case, outcome) in cases.iter().zip(outcomes) {
        if let Outcome::Failed(reason) = outcome {
            println!(
                "FAILED {}\n    {}",
                case.name,
                reason.replace('\n', "\n    ")
            );
        }
    }
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for outcome in outcomes {
        let Outcome::Skipped(reason) = outcome else {
            continue;
        };
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    for (reason, count) in reasons {
        println!("skipped {count}: {reason}");
    }
    println!(
        "{:.1} s, with {}",
        begun.elapsed().as_secs_f64(),
        peers.versions()
    );
}
