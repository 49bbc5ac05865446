//! What the tests of real plugins share.
#![allow(dead_code)] // Each test program uses a part of it.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_host::{Deadlines, ExpectedDigest, Launch, MagicCookie, PluginSet};
use outrigger_testing::{Fault, TestDir, processes_with, program};

/// How long a busy machine may take for what usually takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// The key/value store, with its sockets in `dir`.
pub(crate) fn kv(dir: &TestDir) -> Launch {
    Launch::new(program("kv"), MagicCookie::new("BASIC_PLUGIN", "hello"))
        .temp_dir(dir.path())
        .current_dir(dir.path())
        .offer(1, PluginSet::new())
}

/// What the program at `path` hashes to now.
pub(crate) fn digest_of(path: &Path) -> ExpectedDigest {
    ExpectedDigest::of(File::open(path).expect("opened")).expect("readable")
}

/// A plugin that misbehaves, with its sockets in `dir`.
pub(crate) fn misbehaving(fault: Fault, dir: &TestDir) -> Launch {
    let cookie = MagicCookie::new("COOKIE", "value");
    Launch::new(program("misbehaving-plugin"), cookie)
        .arg(fault.as_str())
        .temp_dir(dir.path())
        .offer(1, PluginSet::new())
        .deadlines(Deadlines {
            stop_reply: Duration::from_millis(300),
            stop_grace: Duration::from_millis(300),
            ..Deadlines::default()
        })
}

/// A shell script in place of a plugin, with its sockets in `dir`.
pub(crate) fn shell(script: &str, dir: &TestDir) -> Launch {
    Launch::new("/bin/sh", MagicCookie::new("COOKIE", "value"))
        .args(["-c", script, "sh"])
        .named("script")
        .temp_dir(dir.path())
        .offer(1, PluginSet::new())
}

/// Waits until `state` holds.
pub(crate) async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !state() {
        assert!(Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until no plugin with its sockets in `dir` runs, and asserts that it is empty.
pub(crate) async fn nothing_left(dir: &TestDir) {
    let marker = dir.path().display().to_string();
    until("no process is left", || processes_with(&marker).is_empty()).await;
    until("no socket directory is left", || {
        let is_one = |path: &std::path::PathBuf| path.to_string_lossy().contains("plugin-dir");
        !dir.entries().iter().any(is_one)
    })
    .await;
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic").clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error and its causes, one a line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!("\n{error}");
        source = error.source();
    }
    text
}
