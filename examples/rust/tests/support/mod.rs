//! What the tests with Go peers share.
#![allow(clippy::disallowed_methods)] // Programs that are not plugins, or are no plugins of a host.
#![allow(dead_code)] // Each test program uses its part.
#![allow(clippy::print_stderr)] // What is skipped is said.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a state may take to come about.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A Go peer, or nothing where they were not built: `cargo xtask interop` builds
/// them, and `OUTRIGGER_GO_PEERS` says where they are.
///
/// # Panics
/// Under `CI=true`, where they must be there.
pub(crate) fn go_peer(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("OUTRIGGER_GO_PEERS").map(|dir| PathBuf::from(dir).join(name));
    if found.is_none() {
        let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(
            !strict,
            "OUTRIGGER_GO_PEERS is not set, and CI=true asks for every peer"
        );
        // The test harness shows this for each test that it hides nothing of.
        eprintln!("skipped: OUTRIGGER_GO_PEERS is not set");
    }
    found
}

/// Waits until `holds`.
///
/// # Panics
/// When that takes longer than [`SOON`].
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about within {} s",
            SOON.as_secs()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// [`wait_until`] that lets other tasks go on.
///
/// # Panics
/// When that takes longer than [`SOON`].
pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about within {} s",
            SOON.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process runs; one that ended and waits for its parent does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.expect("kill runs").success(), "could not signal {pid}");
}

/// The files in a directory and those beneath it.
pub(crate) fn files_beneath(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_beneath(&path));
        } else {
            files.push(path);
        }
    }
    files
}
