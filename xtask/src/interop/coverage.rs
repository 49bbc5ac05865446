//! `interop/CHECKLIST.md`: every requirement names the tests that prove it, and
//! those tests exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};

use super::cases;
use super::peers::Peers;
use crate::tools;

const CHECKLIST: &str = "interop/CHECKLIST.md";
/// How many requirements there are for hosts (H) and for plugins (P).
const REQUIREMENTS: [(char, usize); 2] = [('H', 64), ('P', 43)];
/// What a row says instead of a test.
const LEFT_OUT: &str = "left out:";

pub(super) fn check(root: &Path) -> Result<()> {
    let problems = problems(
        &std::fs::read_to_string(root.join(CHECKLIST))?,
        &known(root)?,
    );
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{CHECKLIST}:\n{}", problems.join("\n"))
}

/// The names of all tests of the tree, and of the cases.
fn known(root: &Path) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = cases::all(&Peers::nowhere())
        .into_iter()
        .map(|case| case.name)
        .collect();
    let files = tools::command("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(root)
        .output()?;
    for file in String::from_utf8_lossy(&files.stdout)
        .split('\0')
        .filter(|file| !file.is_empty())
    {
        // A file that was deleted and not committed is listed, too.
        let Ok(text) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        names.extend(tests_of(&text));
    }
    Ok(names)
}

/// Functions that stand under a `#[test]` or `#[tokio::test]` attribute and are run:
/// what is ignored proves nothing.
fn tests_of(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let (mut marked, mut ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        let function = line.trim_start_matches("async ").strip_prefix("fn ");
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if line.starts_with("#[ignore") {
            ignored = true;
        } else if line.starts_with("#[") || line.starts_with("//") {
        } else {
            if let Some(rest) = function
                && marked
                && !ignored
            {
                tests.extend(rest.split(['(', '<']).next().map(String::from));
            }
            (marked, ignored) = (false, false);
        }
    }
    tests
}

fn problems(checklist: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    let mut problems = Vec::new();
    for line in checklist.lines() {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        if let (Some(id), Some(_), Some(tests)) = (cells.next(), cells.next(), cells.next())
            && is_requirement(id)
            && rows.insert(id, tests).is_some()
        {
            problems.push(format!("{id} stands there twice"));
        }
    }
    for (letter, count) in REQUIREMENTS {
        for number in 1..=count {
            let id = format!("{letter}{number}");
            let Some(tests) = rows.get(id.as_str()) else {
                problems.push(format!("{id} is missing"));
                continue;
            };
            let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
            if named.is_empty() && !tests.starts_with(LEFT_OUT) {
                problems.push(format!(
                    "{id} names no test and does not say `{LEFT_OUT} …`"
                ));
            }
            let absent = named.iter().filter(|name| !known.contains(**name));
            problems.extend(absent.map(|name| format!("{id} names {name}, which does not exist")));
        }
    }
    problems
}

fn is_requirement(id: &str) -> bool {
    let mut letters = id.chars();
    letters
        .next()
        .is_some_and(|letter| REQUIREMENTS.iter().any(|(known, _)| *known == letter))
        && id.len() > 1
        && letters.all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_their_attribute_unless_they_are_ignored() {
        let source = "#[test]\nfn one() {}\nfn helper() {}\n    #[tokio::test(flavor = \"x\")]\n    \
                      // Why.\n    async fn two() {}\n#[test]\n#[ignore = \"slow\"]\nfn three() {}\n";
        assert_eq!(tests_of(source), ["one", "two"]);
    }

    #[test]
    fn a_row_that_names_nothing_or_something_absent_is_a_problem() {
        let mut checklist: String = (1..=64)
            .map(|n| format!("| H{n} | x | `there` |\n"))
            .collect();
        checklist.extend((1..=43).map(|n| format!("| P{n} | x | `there` |\n")));
        let known = BTreeSet::from(["there".to_owned()]);
        assert_eq!(problems(&checklist, &known), [""; 0]);
        let broken = checklist
            .replace("| H3 | x | `there` |", "| H3 | x | |")
            .replace("| P2 | x | `there` |", "| P2 | x | `there`, `gone` |")
            .replace("| P9 | x | `there` |\n", "")
            .replace("| H4 | x | `there` |", "| H4 | x | left out: net/rpc |");
        let found = problems(&broken, &known);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[1].contains("gone") && found[2].contains("P9"),
            "{found:?}"
        );
    }
}
