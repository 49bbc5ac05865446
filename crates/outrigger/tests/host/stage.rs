//! A folder of plugins, and the host that watches over them.

use std::path::Path;
use std::time::{Duration, Instant};

use outrigger::{Event, EventKind, Events, Host, PluginState, Policy, Settings, Supervision};
use outrigger_testing::{is_gone, processes_with, program, write_script};
use tempfile::TempDir;

/// How long a busy machine may take for what usually takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A folder with the folders of plugins, and a place for what they leave.
pub(crate) struct Stage {
    folder: TempDir,
    sockets: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            // Short, so that sockets fit beneath it.
            sockets: tempfile::tempdir_in("/tmp").expect("a folder"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a plugin whose program is a shell script, in which `$K` is the
    /// key/value store and `$M` the plugin that misbehaves.
    pub(crate) fn add(&self, name: &str, script: &str) {
        self.add_with(name, "", script);
    }

    /// [`add`](Self::add), with further keys of the manifest.
    pub(crate) fn add_with(&self, name: &str, keys: &str, script: &str) {
        let folder = self.path().join(name);
        std::fs::create_dir(&folder).expect("a plugin's folder");
        let manifest = format!(
            "plugin: {{name: {name}, format: grpc, entrypoint: run, version: 1.0.0}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: BASIC_PLUGIN, magic_cookie_value: hello}}\n\
             {keys}\n"
        );
        std::fs::write(folder.join("manifest.yaml"), manifest).expect("a manifest");
        self.program(name, script);
    }

    /// Puts another program in the place of a plugin's.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let (kv, misbehaving) = (program("kv"), program("misbehaving-plugin"));
        let (kv, misbehaving) = (kv.display(), misbehaving.display());
        let text = format!("#!/bin/sh\nK={kv}\nM={misbehaving}\n{script}\n");
        let folder = self.path().join(name);
        write_script(&folder.join("next"), &text);
        std::fs::rename(folder.join("next"), folder.join("run")).expect("a program");
    }

    /// Settings whose plugins have their sockets where [`nothing_left`] looks.
    ///
    /// [`nothing_left`]: Self::nothing_left
    pub(crate) fn settings(&self) -> Settings {
        let sockets = self.sockets.path().to_owned();
        Settings::new()
            .policy(Policy::allow_requested())
            .launches(move |_, launch| launch.temp_dir(&sockets).current_dir(&sockets))
    }

    pub(crate) async fn host(&self, supervision: Supervision) -> Host {
        let host = self.settings().supervision(supervision).host(self.path());
        host.await.expect("a folder of plugins")
    }

    /// What the environment of every plugin holds, and of what it started.
    pub(crate) fn marker(&self) -> String {
        self.sockets.path().display().to_string()
    }

    /// The processes of the plugins, and what they started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_with(&self.marker())
    }

    /// Waits until no plugin runs, and no socket is left.
    pub(crate) async fn nothing_left(&self) {
        until("no process is left", || self.processes().is_empty()).await;
        until("no socket is left", || {
            let listing = std::fs::read_dir(self.sockets.path()).expect("a folder");
            let mut names = listing.flatten().map(|entry| entry.file_name());
            !names.any(|name| name.to_string_lossy().contains("plugin"))
        })
        .await;
    }
}

/// Waits until `state` holds.
pub(crate) async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !state() {
        assert!(Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a plugin is in a state.
pub(crate) async fn becomes(host: &Host, name: &str, state: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = host.status(name).expect("a plugin").state;
        if now.as_str() == state {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {now}, not {state}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The process of a plugin that runs.
pub(crate) fn pid(host: &Host, name: &str) -> u32 {
    let status = host.status(name).expect("a plugin");
    status.pid.unwrap_or_else(|| panic!("{name} does not run"))
}

/// Kills a plugin's process from outside, and waits until it is gone.
pub(crate) async fn kill(pid: u32) {
    outrigger_testing::kill(pid);
    until("it is gone", || is_gone(pid)).await;
}

/// The states of a plugin, in their order, up to the first that `is_last`.
pub(crate) async fn states(
    events: &mut Events,
    plugin: &str,
    is_last: impl Fn(&PluginState) -> bool,
) -> Vec<String> {
    let mut states = Vec::new();
    loop {
        let Event {
            kind, plugin: of, ..
        } = next(events).await;
        let EventKind::State { state, cause, .. } = kind else {
            continue;
        };
        if of != plugin {
            continue;
        }
        states.push(format!("{} because {cause}", state.as_str()));
        if is_last(&state) {
            return states;
        }
    }
}

pub(crate) async fn next(events: &mut Events) -> Event {
    let event = tokio::time::timeout(SOON, events.next()).await;
    let event = event.expect("an event in time").expect("the host is there");
    event.expect("none was missed")
}
