//! What a configuration is made of: a file, variables over it, flags over these; each value knows
//! where it came from, and everything that is wrong is told at once.

use std::collections::BTreeSet;
use std::path::Path;

use outrigger_manifest::{
    Configuration, Layers, Position, Problems, RestartWhen, Source, TimeSpan,
};

const PLAYGROUND: &[u8] = include_bytes!("../samples/valid/configuration-playground.yaml");
const EVERYTHING: &[u8] = include_bytes!("../samples/valid/configuration-everything.yaml");

fn texts(problems: &[Problems]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn value(configuration: &Configuration, key: &str) -> String {
    let mut settings = configuration.settings().iter();
    let setting = settings.find(|setting| setting.key == key);
    setting.unwrap_or_else(|| panic!("no {key}")).shown()
}

#[test]
fn the_playgrounds_own_file_is_read_as_it_is() {
    let layers = Layers::new().file("config.yaml", "/srv/app", PLAYGROUND);
    let read = layers.read().expect("a valid file");
    let application = read.application();
    assert_eq!(application.app_name, "Plugin Manager");
    assert_eq!(application.app_mode.as_deref(), Some("dev"));
    assert_eq!(application.app_version.shown(), "0.1.0");
    assert_eq!(application.app_version.codename.as_deref(), Some("pluggy"));
    let directories = read.directories();
    assert_eq!(directories.plugins_dir, Path::new("/srv/app/plugins"));
    let configs = directories.plugin_configs_dir.as_deref();
    assert_eq!(configs, Some(Path::new("/srv/app/plugins.d")));
    assert_eq!(read.logging().log_max_backups, 25);
    assert!(read.logging().log_mq.log_enable_persistent_queue);
    assert!(read.file_watcher().fw_watch_plugins);
    assert_eq!(read.worker_pool().wp_max_workers, 1000);
    // Ours have their defaults beside it.
    assert_eq!(
        read.supervision("cat"),
        Configuration::default().supervision("cat")
    );
}

#[test]
fn every_key_can_be_changed_by_the_file_and_by_its_variable() {
    let default = Configuration::default();
    let by_file = Layers::new()
        .file("f.yaml", "", EVERYTHING)
        .read()
        .expect("valid");
    let mut variables = BTreeSet::new();
    let mut by_variables = Layers::new();
    for setting in default.settings() {
        let changed = value(&by_file, &setting.key);
        assert_ne!(
            changed,
            setting.shown(),
            "{} is not in the sample",
            setting.key
        );
        let Some(Source::File { at, .. }) = by_file.source(&setting.key) else {
            panic!("{} does not come from the file", setting.key);
        };
        assert!(at.line > 1, "{}", setting.key);
        let variable = setting.variable.as_deref().expect("a variable");
        assert!(variables.insert(variable), "{variable} sets two keys");
        by_variables = by_variables.variable(variable, &changed);
    }
    let by_variables = by_variables.read().expect("valid");
    for setting in by_variables.settings() {
        assert_eq!(
            setting.shown(),
            value(&by_file, &setting.key),
            "{}",
            setting.key
        );
        assert!(
            matches!(setting.source, Source::Variable(_)),
            "{}",
            setting.key
        );
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let key = "file_watcher.fw_enabled";
    let layers = Layers::new().file("config.yaml", "", PLAYGROUND);
    let at = Position {
        line: 29,
        column: 15,
    };
    let file = "config.yaml".into();
    assert_eq!(
        layers.read().unwrap().source(key),
        Some(&Source::File { file, at })
    );
    let flagged = layers.clone().flag("--set", key, "true");
    let layers = layers.variable("OUTRIGGER_FW_ENABLED", "false");
    let read = layers.read().unwrap();
    assert!(!read.file_watcher().fw_enabled);
    let variable = Source::Variable("OUTRIGGER_FW_ENABLED".into());
    assert_eq!(read.source(key), Some(&variable));
    // In whatever order they are given.
    for layers in [
        layers.flag("--set", key, "true"),
        flagged.variable("OUTRIGGER_FW_ENABLED", "false"),
    ] {
        let read = layers.read().unwrap();
        assert!(read.file_watcher().fw_enabled);
        assert_eq!(read.source(key), Some(&Source::Flag("--set".into())));
    }
}

#[test]
fn paths_of_the_file_begin_at_its_folder_and_others_where_they_are_given() {
    let layers = Layers::new()
        .file(
            "config.yaml",
            "/srv/app",
            b"directories: {plugins_dir: p, data_dir: /d}\n",
        )
        .variable("OUTRIGGER_LOGS_DIR", "l")
        .flag("--policy", "policy.file", "p.yaml");
    let read = layers.read().unwrap();
    let directories = read.directories();
    assert_eq!(directories.plugins_dir, Path::new("/srv/app/p"));
    assert_eq!(directories.data_dir.as_deref(), Some(Path::new("/d")));
    assert_eq!(directories.logs_dir, Path::new("l"));
    assert_eq!(read.policy().file.as_deref(), Some(Path::new("p.yaml")));
    assert_eq!(value(&read, "directories.plugins_dir"), "/srv/app/p");
}

#[test]
fn what_is_said_of_one_plugin_holds_over_what_is_said_of_all() {
    let text =
        b"supervision: {restart: always, ping_every: 1m}\nplugins:\n  cat: {restart: never}\n";
    let layers = Layers::new().file("f.yaml", "", text);
    let read = layers
        .variable("OUTRIGGER_PING_MISSES", "7")
        .read()
        .unwrap();
    let (cat, dog) = (read.supervision("cat"), read.supervision("dog"));
    assert_eq!(
        (cat.restart, dog.restart),
        (RestartWhen::Never, RestartWhen::Always)
    );
    assert_eq!(cat.ping_every, "1m".parse::<TimeSpan>().unwrap());
    assert_eq!((cat.ping_misses, dog.ping_misses), (7, 7));
    let own = read.settings().last().expect("settings");
    assert_eq!(
        (own.key.as_str(), own.shown().as_str()),
        ("plugins.cat.restart", "never")
    );
    assert_eq!(own.source.to_string(), "f.yaml:3:18");
}

#[test]
fn everything_that_is_wrong_anywhere_is_told_at_once() {
    let layers = Layers::new()
        .file("f.yaml", "", b"supervision: {restart: sometimes}\n")
        .variable("OUTRIGGER_FW_ENABLED", "maybe")
        .variable("OUTRIGGER_PLUGIN_DIR", "x")
        .variable("OUTRIGGER_SOMETHING_ELSE", "x")
        .variable("PATH", "x")
        .flag("--set", "ping_every", "1s")
        .flag("--set", "no.such", "1s")
        .flag("--set", "supervision.ping_every", "soon");
    assert_eq!(
        texts(&layers.read().unwrap_err()),
        [
            "f.yaml:1:24: supervision.restart: `sometimes` is not a rule for restarts [unknown-word]; help: possible: on-failure, always, never",
            "environment: no variable `OUTRIGGER_PLUGIN_DIR` is read; did you mean `OUTRIGGER_PLUGINS_DIR`? [unknown-key]\n\
             environment: OUTRIGGER_FW_ENABLED: the text `maybe` stands where `true` or `false` is wanted [wrong-type]",
            "command line: --set: there is no key `ping_every`; did you mean `supervision.ping_every`? [unknown-key]\n\
             command line: --set: there is no key `no.such` [unknown-key]; help: `outrigger config` lists all keys\n\
             command line: --set supervision.ping_every: `soon` is not a time of at most a year [invalid-time]; help: a time is a number and a unit, such as `500ms`, `10s`, `2m` or `1h30m`",
        ]
    );
}

#[test]
fn a_value_of_the_file_is_checked_even_where_another_replaces_it() {
    let layers = Layers::new().file("f.yaml", "", b"file_watcher: {fw_enabled: 3}\n");
    let problems = layers
        .variable("OUTRIGGER_FW_ENABLED", "true")
        .read()
        .unwrap_err();
    assert_eq!(
        texts(&problems),
        [
            "f.yaml:1:28: file_watcher.fw_enabled: the number `3` stands where `true` or `false` is wanted [wrong-type]"
        ]
    );
}

#[test]
fn a_file_that_says_nothing_leaves_everything_to_the_defaults() {
    for text in ["", "# application: {app_name: x}\n", "{}\n"] {
        let layers = Layers::new().file("f.yaml", "", text.as_bytes());
        assert_eq!(
            layers.read().as_ref(),
            Ok(&Configuration::default()),
            "{text:?}"
        );
    }
    let layers = Layers::new().variable("OUTRIGGER_APP_NAME", "");
    assert_eq!(layers.read(), Ok(Configuration::default()));
}

#[test]
fn changes_name_what_is_different_and_nothing_else() {
    let of = |text: &str| {
        let layers = Layers::new().file("f.yaml", "", text.as_bytes());
        layers.read().expect("valid")
    };
    let before = of("supervision: {ping_every: 60s}\nplugins: {cat: {restart: never}}\n");
    let after = of(
        "\nsupervision: {ping_every: 1m}\nlogging: {log_level: warn}\ndirectories: {data_dir: a}\n",
    );
    let changes = before.changes(&after);
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "directories.data_dir: none → a (f.yaml:4:25)",
            "logging.log_level: info → warn (f.yaml:3:22), without effect yet",
            "plugins.cat.restart: never → none (default)",
        ]
    );
    assert_eq!(after.changes(&after), []);
}
