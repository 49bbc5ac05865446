//! `outrigger config`.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::{Ran, command};

/// A folder in which the command runs, without the variables of whoever runs the test.
struct Folder(TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            fs::write(folder.0.path().join(name), text).expect("written");
        }
        folder
    }

    fn config(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = command(&["config"]);
        command.args(args).current_dir(self.0.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTRIGGER_") {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        command.output().expect("the command runs").into()
    }
}

#[test]
fn every_value_is_printed_with_where_it_comes_from() {
    let folder = Folder::with(&[(
        "outrigger.yaml",
        "directories: {plugins_dir: p}\nplugins: {cat: {restart: never}}\n",
    )]);
    let ran = folder.config(
        &["--set", "supervision.ping=false"],
        &[("OUTRIGGER_APP_NAME", "Ada's")],
    );
    let ran = ran.expect(0);
    for line in [
        "  app_name                    Ada's              variable OUTRIGGER_APP_NAME, no effect yet",
        "  plugins_dir                 p                  outrigger.yaml:1:28",
        "  data_dir                    none               default",
        "  log_level                   info               default, no effect yet",
        "  restart                     never              outrigger.yaml:2:26",
    ] {
        assert!(
            ran.stdout.lines().any(|shown| shown == line),
            "no {line:?} in {ran:?}"
        );
    }
    assert!(ran.stdout.contains("\nplugins.cat\n"), "{ran:?}");

    let values = folder.config(&["--json"], &[]).expect(0).json();
    assert_eq!(values["file"], "outrigger.yaml");
    let of = |key: &str| {
        let settings = values["settings"].as_array().expect("settings");
        settings
            .iter()
            .find(|setting| setting["key"] == key)
            .cloned()
    };
    assert_eq!(
        of("directories.plugins_dir"),
        Some(json!({
            "key": "directories.plugins_dir",
            "value": "p",
            "source": {"kind": "file", "file": "outrigger.yaml", "line": 1, "column": 28},
            "takes_effect": true,
            "variable": "OUTRIGGER_PLUGINS_DIR",
        }))
    );
}

#[test]
fn another_file_is_named_by_flag_or_variable() {
    let folder = Folder::with(&[
        ("outrigger.yaml", "application: {app_name: usual}\n"),
        ("config.yaml", "application: {app_name: named}\n"),
    ]);
    let by_flag = folder.config(
        &["--config", "config.yaml"],
        &[("OUTRIGGER_CONFIG", "outrigger.yaml")],
    );
    let by_variable = folder.config(&[], &[("OUTRIGGER_CONFIG", "config.yaml")]);
    for ran in [by_flag, by_variable] {
        assert!(
            ran.stdout.contains("named              config.yaml:1:25"),
            "{ran:?}"
        );
    }
    let ran = folder.config(&["--config", "missing.yaml"], &[]).expect(2);
    ran.says("error[configuration-unreadable]: the configuration `missing.yaml` could not be read");
    let nothing = Folder::with(&[]).config(&["--json"], &[]).expect(0).json();
    assert_eq!(nothing["file"], json!(null));
}

#[test]
fn all_problems_are_shown_in_their_places() {
    let folder = Folder::with(&[(
        "outrigger.yaml",
        "supervison: {}\nlogging:\n  log_level: loud\n",
    )]);
    let run = |args: &[&str]| {
        folder.config(
            &[args, &["--set", "ping=false"]].concat(),
            &[("OUTRIGGER_FW_ENABLED", "maybe")],
        )
    };
    let ran = run(&[]).expect(1);
    assert_eq!(
        ran.stderr,
        "\
error[unknown-key]: the key `supervison` has no meaning here
 --> outrigger.yaml:1:1
  |
1 | supervison: {}
  | ^^^^^^^^^^ did you mean `supervision`?
  |
  = at: supervison

error[unknown-word]: `loud` is not a level
 --> outrigger.yaml:3:14
  |
3 |   log_level: loud
  |              ^^^^
  |
  = at: logging.log_level
  = help: possible: trace, debug, info, warn, error

error[wrong-type]: the text `maybe` stands where `true` or `false` is wanted
  at: OUTRIGGER_FW_ENABLED

error[unknown-key]: there is no key `ping`
  at: --set
  help: did you mean `supervision.ping`?

error[configuration-invalid]: the configuration has 4 problems
"
    );
    let object = run(&["--json"]).expect(1).json();
    let problems = object["problems"].as_array().expect("problems");
    let files: Vec<_> = problems
        .iter()
        .map(|problem| problem["file"].as_str())
        .collect();
    let expected = [
        "outrigger.yaml",
        "outrigger.yaml",
        "environment",
        "command line",
    ];
    assert_eq!(files, expected.map(Some));
    assert_eq!(object["error"]["code"], "configuration-invalid");
}
