//! What the tests with Go peers share.
#![allow(clippy::disallowed_methods)] // Programs that are not plugins, or are no plugins of a host.
#![allow(dead_code)] // Each test program uses its part.
#![allow(clippy::print_stderr)] // What is skipped is said.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use outrigger_host::{ExitStatus, RunningPlugin};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt;

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

/// A program of the examples, which are built beside the peers.
///
/// # Panics
/// When it is not.
pub(crate) fn example(name: &str) -> String {
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_peer")).with_file_name(name);
    let hint = "build it with `cargo build -p outrigger-examples`";
    assert!(built.exists(), "{} is missing; {hint}", built.display());
    built.display().to_string()
}

/// A Python with grpcio, where `OUTRIGGER_PYTHON` names one.
pub(crate) fn python() -> Option<PathBuf> {
    std::env::var_os("OUTRIGGER_PYTHON").map(Into::into)
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

/// Stops a plugin and asserts that it ended by itself and left nothing.
pub(crate) async fn stops_cleanly(plugin: RunningPlugin) {
    let pid = plugin.pid().expect("a pid");
    let socket = PathBuf::from(&plugin.address().text);
    let report = plugin.stop().await;
    assert!(!report.forced, "{report:?}");
    assert_eq!(report.status, ExitStatus::Code(0), "{report:?}");
    assert!(!runs(pid), "{pid} still runs");
    assert!(
        !socket.parent().expect("a directory").exists(),
        "{} is left",
        socket.display()
    );
}

/// Bytes that several tasks write.
#[derive(Clone, Default)]
pub(crate) struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("lock")).into_owned()
    }
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One event that a plugin's log became.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) level: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// The log of all tests of this program; each looks at the plugin that it named.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut line = Line {
            level: event.metadata().level().to_string(),
            ..Line::default()
        };
        event.record(&mut line);
        self.0.lock().expect("lock").push(line);
    }
}

impl Line {
    pub(crate) fn text(&self, name: &str) -> String {
        self.fields.get(name).cloned().unwrap_or_default()
    }
}

/// What `plugin` logged so far.
pub(crate) fn lines_of(plugin: &str) -> Vec<Line> {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
        log
    });
    let lines = log.0.lock().expect("lock");
    let own = lines.iter().filter(|line| line.text("plugin") == plugin);
    own.cloned().collect()
}

/// [`lines_of`] as `LEVEL message`.
pub(crate) fn logged(plugin: &str) -> Vec<String> {
    let lines = lines_of(plugin).into_iter();
    lines
        .map(|line| format!("{} {}", line.level, line.text("message")))
        .collect()
}
