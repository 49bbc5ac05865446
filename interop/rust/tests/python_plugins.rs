//! Our host with plugins on Python's own gRPC library, without an SDK of ours.
#![allow(clippy::disallowed_methods)] // Plugins that no host of ours starts.
#![allow(clippy::print_stderr)] // What is skipped is said.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outrigger_host::{ExitStatus, KillReason, Launch, MagicCookie, PluginSet};

/// How long what is known at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A launch of the plugin that ends in this way, with temporary files in `dir`.
fn launch(dir: &Path, ending: &str) -> Option<Launch> {
    let Some(python) = std::env::var_os("OUTRIGGER_PYTHON") else {
        eprintln!("skipped: OUTRIGGER_PYTHON is not set");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ending.py");
    let cookie = MagicCookie::new("COOKIE", "value");
    let launch = Launch::new(python, cookie)
        .arg(script)
        .arg(ending)
        .arg(dir.join("ended"))
        .env("TMPDIR", temporary(dir))
        .skip_host_env()
        .offer(1, PluginSet::new());
    Some(launch)
}

fn temporary(dir: &Path) -> PathBuf {
    let temporary = dir.join("tmp");
    std::fs::create_dir_all(&temporary).expect("made");
    temporary
}

#[tokio::test]
async fn a_python_plugin_with_a_grace_of_its_own_ends_by_itself() {
    for (ending, at_least) in [
        ("late", Duration::from_millis(2100)),
        ("graceful", Duration::ZERO),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(launch) = launch(dir.path(), ending) else {
            return;
        };
        let plugin = launch.start().await.expect("started");
        plugin.ping().await.expect("an answer");
        let began = Instant::now();
        let report = plugin.stop().await;
        let took = began.elapsed();
        assert_eq!(report.kill_reason, None, "{ending}: {report:?}");
        assert_eq!(report.status, ExitStatus::Code(0), "{ending}");
        // Its own 30 s do not pass: its calls end when the host hangs up.
        assert!(took >= at_least && took < SOON, "{ending}: {took:?}");
        assert!(dir.path().join("ended").exists(), "{ending}");
        let left = std::fs::read_dir(temporary(dir.path())).expect("listed");
        assert_eq!(left.count(), 0, "{ending}: it cleaned up");
    }
}

#[tokio::test]
async fn a_python_plugin_without_a_controller_is_killed_at_once_and_leaves_no_socket() {
    for drops in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(launch) = launch(dir.path(), "nothing") else {
            return;
        };
        let plugin = launch.start().await.expect("started");
        plugin.ping().await.expect("an answer");
        let listed = || {
            std::fs::read_dir(temporary(dir.path()))
                .expect("listed")
                .count()
        };
        assert_eq!(listed(), 1, "a directory of its own");
        let began = Instant::now();
        if drops {
            drop(plugin);
        } else {
            let report = plugin.stop().await;
            assert_eq!(report.kill_reason, Some(KillReason::NoController));
            assert!(began.elapsed() < Duration::from_secs(2));
            assert_eq!(listed(), 0, "it goes with the plugin");
        }
        while listed() > 0 {
            assert!(began.elapsed() < SOON, "its socket is left");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(!dir.path().join("ended").exists());
    }
}
