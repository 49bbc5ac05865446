//! A plugin's own configuration, as plugins in Rust, Go and Python get it.
#![allow(clippy::print_stderr)] // What is skipped is said.

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use outrigger::{Coded, Configure, Policy, RunningPlugin, Settings};
use outrigger_examples::netrpc::Animal;
use support::{example, go_peer, python, stops_cleanly};
use tempfile::TempDir;

const MANIFEST: &str = "
plugin: {name: parrot, type: animal, format: grpc, entrypoint: parrot}
handshake: {protocol_version: 1, magic_cookie_key: PARROT_PLUGIN, magic_cookie_value: outrigger-parrot-netrpc}
services: []
";

/// A parrot's folder, and that of the configurations.
struct Cage(TempDir);

impl Cage {
    fn new(program: &Path) -> Self {
        let cage = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["parrot", "configs"] {
            std::fs::create_dir(cage.path(folder)).expect("a folder");
        }
        symlink(program, cage.path("parrot/parrot")).expect("a program");
        cage.write("parrot/manifest.yaml", MANIFEST);
        cage.write(
            "parrot/config.schema.json",
            r#"{"properties": {"quiet": {"type": "string"}}, "required": ["quiet"], "additionalProperties": false}"#,
        );
        cage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .policy(Policy::allow_requested())
            .config_dir(self.path("configs"))
    }

    async fn start(&self) -> RunningPlugin {
        let plugin = self.settings().open_plugin(self.path("parrot"));
        plugin.expect("a plugin").start().await.expect("started")
    }
}

async fn says(plugin: &RunningPlugin) -> String {
    let animal = plugin.client::<Animal>().await.expect("a client");
    animal.speak(false).await.expect("it says something")
}

/// The file that the plugin was handed.
fn handed(plugin: &RunningPlugin) -> PathBuf {
    let socket = Path::new(&plugin.address().text);
    socket.parent().expect("a folder").join("config.json")
}

/// Starts a parrot with a configuration, and gives it another one, after one that it cannot take.
async fn is_handed_over_and_renewed(program: &Path) {
    let cage = Cage::new(program);
    cage.write("configs/parrot.yaml", "# What it says.\nquiet: Polly!\n");
    let plugin = cage.start().await;
    assert_eq!(says(&plugin).await, "Polly!");

    let file = handed(&plugin);
    assert_eq!(
        std::fs::metadata(&file).expect("there").mode() & 0o777,
        0o400
    );
    let pid = plugin.pid().expect("a pid");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("read");
    let environment = String::from_utf8_lossy(&environment);
    assert!(
        environment.contains("OUTRIGGER_PLUGIN_CONFIG=/"),
        "{environment}"
    );
    assert!(!environment.contains("Polly"), "{environment}");

    // What is not sound changes nothing, and does not keep away what comes after it.
    cage.write("configs/parrot.yaml", "quiet: 7\n");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(says(&plugin).await, "Polly!");
    cage.write("configs/parrot.yaml", "quiet: Who is a pretty bird?\n");
    let deadline = tokio::time::Instant::now() + support::SOON;
    while says(&plugin).await != "Who is a pretty bird?" {
        assert!(tokio::time::Instant::now() < deadline, "it was never told");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stops_cleanly(plugin).await;
    assert!(!file.exists(), "{} is left", file.display());
}

#[tokio::test]
async fn a_rust_plugin_is_handed_its_configuration_and_each_change() {
    is_handed_over_and_renewed(Path::new(&example("parrot"))).await;
}

#[tokio::test]
async fn a_go_plugin_is_handed_its_configuration_and_each_change() {
    if let Some(program) = go_peer("parrot") {
        is_handed_over_and_renewed(&program).await;
    }
}

#[tokio::test]
async fn a_python_plugin_is_handed_its_configuration_and_each_change() {
    let Some(python) = python() else {
        eprintln!("skipped: OUTRIGGER_PYTHON is not set");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("parrot");
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/python/parrot.py"
    );
    let text = format!("#!/bin/sh\nexec '{}' '{script}'\n", python.display());
    std::fs::write(&program, text).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("executable");
    is_handed_over_and_renewed(&program).await;
}

#[tokio::test]
async fn a_configuration_that_the_plugin_does_not_take_keeps_it_from_starting() {
    let cage = Cage::new(Path::new(&example("parrot")));
    let plugin = || {
        cage.settings()
            .open_plugin(cage.path("parrot"))
            .expect("a plugin")
    };
    // Its schema wants a key, and there is no file.
    let error = plugin().launch().expect_err("nothing is configured");
    assert_eq!(error.code(), "plugin-config-invalid");
    cage.write("configs/parrot.yaml", "\nquiet: s3cret\nloud: s3cret\n");
    let error = plugin().launch().expect_err("too much is configured");
    let details = error.details().join("\n");
    assert!(
        details.contains("parrot.yaml:2:1: ") && details.contains("loud"),
        "{details}"
    );
    assert!(!details.contains("s3cret"), "{details}");

    // The folder is a key of the application's configuration, too.
    cage.write("configs/parrot.yaml", "quiet: Polly!\n");
    cage.write(
        "config.yaml",
        "directories: {plugin_configs_dir: configs}\n",
    );
    let configuration = Configure::new().file(cage.path("config.yaml")).read();
    let settings = Settings::new().configured(&configuration.expect("it is sound"));
    let plugin = settings.expect("settings").open_plugin(cage.path("parrot"));
    let config = plugin.expect("a plugin").config().expect("it is sound");
    assert_eq!(config.as_deref(), Some(r#"{"quiet":"Polly!"}"#));

    // Without a folder of configurations it is handed none.
    let settings = Settings::new().policy(Policy::allow_requested());
    let plugin = settings.open_plugin(cage.path("parrot")).expect("a plugin");
    assert_eq!(plugin.config().expect("none"), None);
    let plugin = plugin.start().await.expect("started");
    assert!(!handed(&plugin).exists());
    stops_cleanly(plugin).await;
}
