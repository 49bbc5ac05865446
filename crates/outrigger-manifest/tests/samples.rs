//! Every file under `samples/` is read: valid ones must parse and print, invalid ones must have
//! exactly the problems written beside them.
//!
//! `UPDATE_EXPECTED=1 cargo test -p outrigger-manifest` rewrites what is written beside them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use outrigger_manifest::{
    Configuration, Layers, MAX_PROBLEMS, Manifest, Policy, ProblemCode, Problems,
};

fn samples(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("samples")
        .join(folder);
    let mut samples: Vec<(String, String)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    samples.sort();
    samples
}

fn is_policy(name: &str) -> bool {
    name.starts_with("policy-")
}

fn is_configuration(name: &str) -> bool {
    name.starts_with("configuration-")
}

fn configuration(text: &str) -> Result<Configuration, Problems> {
    let read = Layers::new()
        .file("outrigger.yaml", "", text.as_bytes())
        .read();
    read.map_err(|mut problems| problems.remove(0))
}

fn problems(name: &str, text: &str) -> Option<Problems> {
    if is_configuration(name) {
        configuration(text).err()
    } else if is_policy(name) {
        Policy::parse(text).err()
    } else {
        Manifest::parse(text).err()
    }
}

#[test]
fn valid_samples_parse_and_print_as_what_they_are() {
    let samples = samples("valid");
    assert!(samples.len() >= 15);
    for (name, text) in samples {
        if is_configuration(&name) {
            configuration(&text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        } else if is_policy(&name) {
            let policy =
                Policy::parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
            let printed = policy.to_yaml();
            let again = Policy::parse(&printed)
                .unwrap_or_else(|problems| panic!("{name}: {problems}\n{printed}"));
            assert_eq!(policy, again, "{name}\n{printed}");
        } else {
            let manifest =
                Manifest::parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
            let printed = manifest.to_yaml();
            let again = Manifest::parse(&printed)
                .unwrap_or_else(|problems| panic!("{name}: {problems}\n{printed}"));
            assert_eq!(manifest, again, "{name}\n{printed}");
        }
    }
}

#[test]
fn invalid_samples_have_exactly_the_problems_written_beside_them() {
    let samples = samples("invalid");
    assert!(samples.len() >= 40);
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for (name, text) in &samples {
        let expected = expected_file(name);
        let found = match problems(name, text) {
            Some(problems) => format!("{}\n", problems.in_file(format!("{name}.yaml"))),
            None => "no problem\n".to_owned(),
        };
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{name}:\n{found}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "these samples have other problems than written (UPDATE_EXPECTED=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_expected_file_lacks_its_sample() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/invalid");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "expected")
        {
            assert!(path.with_extension("yaml").exists(), "{}", path.display());
        }
    }
}

fn expected_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("samples/invalid")
        .join(format!("{name}.expected"))
}

const HEAD: &str = "plugin: {name: cat, format: rpc, entrypoint: cat}
handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}
";

const NOT_TEXT: &[u8] = b"plugin:\n  name: c\xffat\n";

#[test]
fn bytes_that_are_no_text_are_a_problem_at_their_place() {
    let problems = Manifest::parse_bytes(NOT_TEXT).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "manifest.yaml:2:10: the byte 0xff is not UTF-8 [not-utf8]; help: save the file as UTF-8"
    );
    assert!(Manifest::parse_bytes(HEAD.as_bytes()).is_ok());
}

/// Samples too large to keep as files.
fn large_samples() -> Vec<(&'static str, String)> {
    vec![
        (
            "file-too-large",
            format!("{HEAD}# {}", "x".repeat(256 * 1024)),
        ),
        (
            "text-too-long",
            format!("{HEAD}about: {{description: {}}}", "x".repeat(5000)),
        ),
        (
            "too-many-entries",
            format!("{HEAD}services: [{}]", "log, ".repeat(1025)),
        ),
        (
            "too-many-problems",
            format!("{HEAD}services: [{}]", "x, ".repeat(1000)),
        ),
    ]
}

#[test]
fn large_files_are_bounded() {
    for (code, text) in large_samples() {
        let problems = Manifest::parse(&text).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.code() == code),
            "{code}: {problems}"
        );
        assert!(problems.len() <= MAX_PROBLEMS + 1);
    }
}

#[test]
fn every_code_has_a_sample() {
    let mut seen: BTreeSet<ProblemCode> = BTreeSet::new();
    for (name, text) in samples("invalid") {
        seen.extend(
            problems(&name, &text)
                .iter()
                .flatten()
                .map(|problem| problem.kind()),
        );
    }
    for (_, text) in large_samples() {
        seen.extend(
            Manifest::parse(&text)
                .unwrap_err()
                .iter()
                .map(|problem| problem.kind()),
        );
    }
    let not_text = Manifest::parse_bytes(NOT_TEXT).unwrap_err();
    seen.extend(not_text.iter().map(|problem| problem.kind()));
    // Only somebody else's schema makes this one.
    let document = outrigger_manifest::Document::empty();
    let forbidden = document.problems([(String::new(), "it is forbidden".to_owned())]);
    seen.extend(forbidden.iter().map(|problem| problem.kind()));
    let unseen: Vec<&str> = ProblemCode::ALL
        .iter()
        .filter(|code| !seen.contains(code))
        .map(|code| code.as_str())
        .collect();
    assert!(unseen.is_empty(), "no sample shows {unseen:?}");
}

#[test]
fn problems_are_sorted_and_inside_the_file() {
    for (name, text) in samples("invalid") {
        let Some(problems) = problems(&name, &text) else {
            continue;
        };
        let positions: Vec<_> = problems.iter().map(|problem| problem.position()).collect();
        assert!(positions.is_sorted(), "{name}");
        let lines: Vec<&str> = text.split('\n').collect();
        for position in positions {
            let line = lines[position.line as usize - 1];
            assert!(
                position.column as usize <= line.chars().count() + 1,
                "{name}: {position}"
            );
        }
    }
}
