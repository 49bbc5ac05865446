//! `outrigger doctor`, `completions` and `man`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{Ran, command, run};

/// Runs a program that may not be installed; nothing if it is not.
fn installed(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("left out: {program} is not installed");
            None
        }
    }
}

fn finding(object: &Value, name: &str) -> Value {
    let findings = object["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {object}"))
        .clone()
}

#[test]
fn the_doctor_finds_what_other_programs_find() {
    let object = run(&["doctor", "--json"]).expect(0).json();
    let kernel = object["kernel"].as_str().expect("a text");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    assert!(kernel.contains(release.trim()), "{kernel}");
    assert_eq!(finding(&object, "sandbox")["verdict"], "no");
    assert_eq!(finding(&object, "lifeline")["verdict"], "yes");
    let all = [
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
    ];
    if let Some(other) = installed("unshare", &[&all[..], &["true"]].concat()) {
        let verdict = if other.status.success() { "yes" } else { "no" };
        assert_eq!(finding(&object, "namespaces")["verdict"], verdict);
    }
    if let Some(other) = installed("unshare", &[&all[..], &["--mount-proc", "true"]].concat()) {
        let verdict = if other.status.success() { "yes" } else { "no" };
        assert_eq!(finding(&object, "proc")["verdict"], verdict);
    }
    let status = fs::read_to_string("/proc/self/limits").expect("Linux");
    let files = status
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let current = files.split_whitespace().nth(3).expect("a number");
    let limits = object["limits"].as_array().expect("limits");
    let files = limits
        .iter()
        .find(|limit| limit[0] == "open files")
        .expect("there");
    assert!(
        files[1]
            .as_str()
            .is_some_and(|text| text.starts_with(current)),
        "{files}"
    );
    // Nothing is left of what was tried.
    let groups = fs::read_to_string("/proc/self/mounts").expect("Linux");
    assert!(!groups.contains("doctor"), "{groups}");
}

#[test]
fn the_doctor_says_what_is_missing_and_what_would_help() {
    let mut without = command(&["doctor"]);
    let ran: Ran = without
        .env("PATH", "/nonexistent")
        .output()
        .expect("it runs")
        .into();
    let ran = ran.expect(1);
    assert!(
        ran.stdout
            .contains("no     lifeline    missing: cat, grep, find, chmod, rm\n"),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("every plugin runs unsandboxed"),
        "{ran:?}"
    );
    ran.says("error[machine-unfit]: plugins cannot be run well here without lifeline");

    let outrigger = env!("CARGO_BIN_EXE_outrigger");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" doctor --json";
    let args = ["--user", "--map-root-user", "sh", "-c", script, outrigger];
    if let Some(inside) = installed("unshare", &args)
        && inside.status.success()
    {
        let namespaces = finding(&Ran::from(inside).json(), "namespaces");
        assert_eq!(namespaces["verdict"], "no");
        let detail = namespaces["detail"].as_str().expect("a text");
        assert!(
            detail.starts_with("unshare of a user namespace: "),
            "{detail}"
        );
        let help = namespaces["help"].as_str().expect("a text");
        assert!(
            help.starts_with("`user.max_user_namespaces` is 0"),
            "{help}"
        );
    }
}

/// The completions for a shell, in a file.
fn completions(folder: &Path, shell: &str) -> String {
    let script = folder.join(shell);
    fs::write(&script, run(&["completions", shell]).expect(0).stdout).expect("written");
    script.display().to_string()
}

#[test]
fn shells_take_their_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = completions(folder.path(), "bash");
    let complete = "source \"$0\"; COMP_WORDS=(outrigger insp); COMP_CWORD=1; \
                    _outrigger outrigger insp outrigger; echo \"${COMPREPLY[*]}\"";
    if let Some(output) = installed("bash", &["--norc", "-c", complete, &script]) {
        let ran = Ran::from(output).expect(0);
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            ("inspect\n", "")
        );
    }
    for shell in ["zsh", "fish"] {
        let script = completions(folder.path(), shell);
        if let Some(output) = installed(shell, &["-n", &script]) {
            let ran = Ran::from(output).expect(0);
            assert_eq!(ran.stderr, "");
        }
    }
    run(&["completions", "tcl"])
        .expect(2)
        .says("possible values: bash");
}

#[test]
fn manual_pages_are_read_by_man_without_a_complaint() {
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("man1").display().to_string();
    run(&["man", "--into", &into]).expect(0);
    let mut names = Vec::new();
    for entry in fs::read_dir(&into).expect("a folder") {
        let path = entry.expect("a page").path();
        let page = path.display().to_string();
        if let Some(output) = installed("man", &["--warnings=all", "-l", &page]) {
            let ran = Ran::from(output).expect(0);
            assert_eq!(ran.stderr, "", "{page}");
            assert!(ran.stdout.contains("SYNOPSIS"), "{page}: {ran:?}");
        }
        if let Some(output) = installed("mandoc", &["-T", "lint", "-W", "error", &page]) {
            Ran::from(output).expect(0);
        }
        names.push(
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
        );
    }
    assert!(names.contains(&"outrigger.1".to_owned()), "{names:?}");
    assert!(names.contains(&"outrigger-call.1".to_owned()), "{names:?}");
    let one = run(&["man", "call"]).expect(0);
    assert_eq!(
        one.stdout,
        fs::read_to_string(folder.path().join("man1/outrigger-call.1")).expect("a page")
    );
    run(&["man", "cal"])
        .expect(2)
        .says("help: did you mean `call`");
}
