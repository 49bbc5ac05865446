//! `outrigger new`: what it makes is built, tested by its own test, and called by the command.
#![allow(clippy::disallowed_methods)] // Cargo, Go and Python are no plugins.
#![allow(clippy::print_stderr)] // What is left out must be said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace")
}

fn outrigger(folder: &Path, args: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(args)
        .current_dir(folder)
        .output();
    command.expect("the command runs")
}

/// What a program that succeeded printed.
fn success(output: Output) -> String {
    let shown = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{shown}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(folder: &Path, args: &[&str], says: &str) {
    let output = outrigger(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(says), "no {says:?} in {stderr}");
}

/// Makes a scaffold in `folder` from this checkout.
fn scaffold(folder: &Path, args: &[&str]) -> PathBuf {
    let checkout = root().display().to_string();
    let made = outrigger(
        folder,
        &[&["new"], args, &["--path", &checkout, "--json"]].concat(),
    );
    let made: Value = serde_json::from_str(&success(made)).expect("JSON");
    let scaffold = folder.join(made["folder"].as_str().expect("a folder"));
    for file in made["files"].as_array().expect("files") {
        let path = scaffold.join(file.as_str().expect("a path"));
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
        for place in ["{{name", "{{crate", "{{cookie", "{{outrigger"] {
            assert!(!text.contains(place), "{} has {place}", path.display());
        }
    }
    scaffold
}

/// A folder in which crates have our versions and profiles, so that what was compiled for the
/// tests is found again.
fn crates(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join(".cargo")).expect("an empty folder");
    let ours = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let profiles = ours.find("[profile.dev]").expect("profiles");
    fs::write(folder.join(".cargo/config.toml"), &ours[profiles..]).expect("written");
    folder
}

fn cargo(scaffold: &Path, args: &[&str]) -> Output {
    fs::copy(root().join("Cargo.lock"), scaffold.join("Cargo.lock")).expect("Cargo.lock");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a target directory");
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--offline", "--quiet", "--target-dir"])
        .arg(target)
        .current_dir(scaffold)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("warning"), "{said}");
    output
}

#[test]
fn a_rust_plugin_builds_passes_its_test_and_is_called() {
    let scaffold = scaffold(
        &crates("new-plugin"),
        &["plugin", "new-greeter", "--language", "rust"],
    );
    let formatted = Command::new(env!("CARGO"))
        .args(["fmt", "--check"])
        .current_dir(&scaffold)
        .output();
    success(formatted.expect("cargo runs"));
    success(cargo(&scaffold, &["test"]));
    // Where its own `cargo build` would have put it.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("debug")
        .join("new-greeter");
    fs::create_dir_all(scaffold.join("target/debug")).expect("made");
    fs::copy(built, scaffold.join("target/debug/new-greeter")).expect("a program");
    let called = outrigger(
        &scaffold,
        &[
            "call",
            "--manifest",
            ".",
            "--method",
            "greeter.v1.Greeter/SayHello",
            "--data",
            r#"{"name":"Ada"}"#,
        ],
    );
    assert!(success(called).contains("hello, Ada"));
}

#[test]
fn a_rust_host_builds_and_passes_its_test() {
    let scaffold = scaffold(
        &crates("new-host"),
        &["host", "new-host", "--language", "rust"],
    );
    let formatted = Command::new(env!("CARGO"))
        .args(["fmt", "--check"])
        .current_dir(&scaffold)
        .output();
    success(formatted.expect("cargo runs"));
    success(cargo(&scaffold, &["test"]));
}

/// Whether a program can be run; under CI it must be there.
fn found(program: &str, argument: &str) -> bool {
    let found = Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success());
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !strict, "{program} cannot be run");
    if !found {
        eprintln!("left out: {program} cannot be run");
    }
    found
}

#[test]
fn a_go_plugin_builds_passes_its_test_and_is_called() {
    if !found("go", "version") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let scaffold = scaffold(folder.path(), &["plugin", "greeter", "--language", "go"]);
    for args in [&["vet", "./..."][..], &["test", "./..."], &["build"]] {
        let ran = Command::new("go")
            .args(args)
            .current_dir(&scaffold)
            .output();
        success(ran.expect("go runs"));
    }
    let formatted = Command::new("gofmt")
        .args(["-l", "."])
        .current_dir(&scaffold)
        .output();
    assert_eq!(success(formatted.expect("gofmt runs")), "");
    let called = outrigger(
        &scaffold,
        &[
            "call",
            "--manifest",
            ".",
            "--plugin",
            "greeter",
            "--method",
            "Plugin.SayHello",
            "--data",
            r#""Ada""#,
        ],
    );
    assert!(success(called).contains("hello, Ada"));
}

#[test]
fn a_python_plugin_passes_its_test_and_is_called() {
    let Some(python) = std::env::var_os("OUTRIGGER_PYTHON").map(PathBuf::from) else {
        assert!(!found("OUTRIGGER_PYTHON", ""), "never");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let scaffold = scaffold(
        folder.path(),
        &["plugin", "my-greeter", "--language", "python"],
    );
    // In place of what pip installs: grpcio as the tests have it, and the package as it is.
    let package = root().join("bindings/python");
    let made = Command::new(&python)
        .args(["-m", "venv", "--without-pip", ".venv"])
        .current_dir(&scaffold)
        .output();
    success(made.expect("python runs"));
    let where_is = |python: &Path| {
        let asked = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let told = Command::new(python).args(["-c", asked]).output();
        success(told.expect("python runs")).trim().to_owned()
    };
    let program = scaffold.join(".venv/bin/python");
    let paths = format!("{}\n{}\n", where_is(&python), package.display());
    let installed = Path::new(&where_is(&program)).join("installed.pth");
    fs::write(installed, paths).expect("written");
    let required = fs::read_to_string(scaffold.join("requirements.txt")).expect("text");
    assert!(required.contains(&format!("outrigger @ file://{}\n", package.display())));

    let tested = Command::new(&program)
        .args(["-m", "unittest"])
        .current_dir(&scaffold)
        .output();
    success(tested.expect("python runs"));
    let called = outrigger(
        &scaffold,
        &[
            "call",
            "--manifest",
            ".",
            "--descriptors",
            "greeter.binpb",
            "--method",
            "greeter.v1.Greeter/SayHello",
            "--data",
            r#"{"name":"Ada"}"#,
        ],
    );
    assert!(success(called).contains("hello, Ada"));
}

#[test]
fn nothing_is_overwritten_and_names_are_checked() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("taken")).expect("made");
    fs::write(folder.join("taken/a"), "mine").expect("written");
    let new = ["new", "plugin", "taken", "--language", "go"];
    refused(
        folder,
        &new,
        "error[folder-not-empty]: the folder `taken` is not empty",
    );
    assert_eq!(
        fs::read_dir(folder.join("taken")).expect("there").count(),
        1
    );
    for name in [
        "Greeter", "9lives", "a--b", "-a", "a_b", "../x", "a/b", "", "ü",
    ] {
        let new = ["new", "plugin", "--language", "go", "--", name];
        refused(folder, &new, "error[name-invalid]");
    }
    for name in ["async", "test", "std"] {
        let new = ["new", "plugin", name, "--language", "rust"];
        refused(folder, &new, "Rust needs this word for itself");
    }
    let new = ["new", "host", "h", "--language", "go"];
    refused(folder, &new, "error[new-unsupported]");
    let new = ["new", "host", "h", "--language", "rust", "--path", "taken"];
    refused(
        folder,
        &new,
        "error[sources-not-found]: `taken` is no checkout of Outrigger",
    );
    assert_eq!(fs::read_dir(folder).expect("there").count(), 1);
}

#[test]
fn crates_come_from_git_unless_a_path_is_given() {
    let folder = TempDir::new().expect("a folder");
    let url = "https://example.com/outrigger";
    let new = [
        "new",
        "plugin",
        "a",
        "--language",
        "rust",
        "--git",
        url,
        "--rev",
        "abc123",
    ];
    let made = success(outrigger(folder.path(), &new));
    assert!(
        made.starts_with("made a\n  Cargo.toml\n  src/lib.rs\n"),
        "{made}"
    );
    assert!(
        made.contains("\nnext\n  cd a\n  cargo test && cargo build\n"),
        "{made}"
    );
    let manifest = fs::read_to_string(folder.path().join("a/Cargo.toml")).expect("text");
    let line = format!("outrigger-plugin = {{ git = \"{url}\", rev = \"abc123\" }}\n");
    assert!(manifest.contains(&line), "{manifest}");
    let new = [
        "new",
        "plugin",
        "b",
        "--language",
        "python",
        "--into",
        "deep/folder",
    ];
    success(outrigger(folder.path(), &new));
    let required = fs::read_to_string(folder.path().join("deep/folder/requirements.txt"));
    let required = required.expect("text");
    assert!(required.contains("git+https://"), "{required}");
    assert!(
        required.contains("#subdirectory=bindings/python"),
        "{required}"
    );
}
