//! The table of results, for people and for README.md.

use std::fmt;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::case::{COLUMNS, Case, Place};
use super::execute::Outcome;
use super::peers::Peers;

const BEGIN: &str = "<!-- interop:begin -->";
const END: &str = "<!-- interop:end -->";

/// How many cases ended how.
#[derive(Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Counts {
    pub(super) fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }

    /// What stands in one cell. What was not run is never shown as passed.
    fn cell(self) -> String {
        match self {
            Self {
                passed: 0,
                failed: 0,
                ..
            } => "–".to_owned(),
            Self {
                passed, failed: 0, ..
            } => format!("{passed} passed"),
            Self { passed, failed, .. } => format!("{passed} passed, **{failed} failed**"),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

pub(super) fn of(cases: &[Case], outcomes: &[Outcome]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    for case in cases {
        if !rows.contains(&case.row.as_str()) {
            rows.push(&case.row);
        }
    }
    let mut lines = vec![vec!["Host, plugin".to_owned()]];
    lines[0].extend(COLUMNS.iter().map(|column| column.title().to_owned()));
    for row in rows {
        let cell = |place: Place| {
            let there = |(case, _): &(&Case, _)| case.row == row && case.place == place;
            let found = cases
                .iter()
                .zip(outcomes)
                .filter(there)
                .map(|(_, outcome)| outcome);
            Counts::of(found).cell()
        };
        let mut line = vec![row.to_owned()];
        line.extend(COLUMNS.iter().map(|column| cell(*column)));
        lines.push(line);
    }
    markdown(&lines)
}

fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

pub(super) fn update_readme(root: &Path, table: &str, peers: &Peers) -> Result<()> {
    let path = root.join("README.md");
    let readme = std::fs::read_to_string(&path)?;
    let (before, rest) = readme
        .split_once(BEGIN)
        .context("README.md lacks interop:begin")?;
    let (_, after) = rest
        .split_once(END)
        .context("README.md lacks interop:end")?;
    let text = format!(
        "{before}{BEGIN}\n{table}\nOver gRPC each pair runs kv, counter (callbacks), streaming, version negotiation and the\n\
         test service of go-plugin's own tests; over net/rpc greeter, kv, the animals, callbacks both\n\
         ways, byte streams and HTTP through the broker, values of all types, the standard streams,\n\
         joining, ending and both protocols in one plugin. –: not applicable; net/rpc is always\n\
         multiplexed and has no columns for it, Go plugins listen on unix sockets only, and Python has\n\
         neither TLS nor a multiplexed broker. Python hosts run kv, counter and the test service with\n\
         grpcio's blocking interface and with its asyncio one. The last column holds the cases of one\n\
         behaviour each: [`interop/CHECKLIST.md`](interop/CHECKLIST.md) names the test of every\n\
         requirement. Made with {}.\n{END}{after}",
        peers.versions()
    );
    std::fs::write(path, text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interop::{case::Work, cases};

    #[test]
    fn readme_shows_the_table_of_the_cases_that_there_are() {
        let cases = cases::all(&Peers::nowhere());
        let outcome = |case: &Case| match &case.work {
            Work::Run(_) => Outcome::Passed,
            Work::NotApplicable(reason) => Outcome::Skipped((*reason).to_owned()),
            Work::Missing(peer) => Outcome::Skipped(peer.clone()),
        };
        let table = of(&cases, &cases.iter().map(outcome).collect::<Vec<_>>());
        let readme = include_str!("../../../README.md");
        let shown = readme.split_once(BEGIN).map(|(_, rest)| rest.trim_start());
        assert!(
            shown.is_some_and(|shown| shown.starts_with(table.trim())),
            "README.md does not show this; run `cargo xtask interop --update-readme`:\n{table}"
        );
    }
}
