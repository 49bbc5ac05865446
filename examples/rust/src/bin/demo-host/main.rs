//! The host of the demo: it starts the plugins of a folder, offers them its
//! services, lets each do its work, and stops them all.
//!
//! `demo-host [--dir DIR] [--write] [--scratch DIR] [--label NAME=TEXT]… --plugins FOLDER`
//!
//! A plugin is a folder `FOLDER/NAME`. If it has a `manifest.yaml`, that names
//! the program and its cookie, and the program is checked where there is a
//! `plugin.sha256` or `PROGRAM.sha256`; otherwise `NAME/NAME` is the program and
//! `TEST_KEY=TEST_VALUE` the cookie. It serves `filelister.v1.FileLister`,
//! `hostdemo.v1.HostDemo` or an animal. Exit status 0: everything worked; 1: something did
//! not and the report says what; 2: the command line was wrong.

mod animal;
mod options;
mod screen;
mod visit;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use futures_util::future::join_all;
use outrigger::{
    AuditLog, Files, GrantedServices, Manifest, Permissions, Policy, RunningPlugin, Settings,
    Transport,
};
use outrigger_examples::hosted::chain;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use screen::{Screen, count, took};
use visit::{Found, Guests, Offered};

/// What the host demo reads in pieces.
const TEXT: &str = include_str!("../../../../frankenstein.txt");
/// The variables of the host that plugins may read.
const VARIABLES: [&str; 8] = [
    "HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "USER",
];

fn main() -> ExitCode {
    let screen = Screen::new();
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.problem("runtime", &error.to_string(), []);
            return ExitCode::FAILURE;
        }
    };
    // Outlives the runtime, whose end drops the last of what plugins held.
    let scratch = Scratch::make(options.scratch.as_deref());
    let outcome = match &scratch {
        Ok(scratch) => runtime.block_on(run(&screen, &options, scratch)),
        Err(error) => Err(anyhow::anyhow!(
            "could not make a place to write in: {error}"
        )),
    };
    drop(runtime);
    drop(scratch);
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            screen.problem("demo-failed", &chain(error.as_ref()), []);
            ExitCode::FAILURE
        }
    }
}

/// A directory that goes with its owner: what the host demo may change, and
/// where the plugins' temporary files are.
struct Scratch(TempDir);

impl Scratch {
    fn make(parent: Option<&Path>) -> io::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let scratch = Self(TempDir::with_prefix_in(
            "outrigger-demo-",
            std::path::absolute(parent)?,
        )?);
        fs::create_dir(scratch.granted())?;
        fs::create_dir(scratch.temporary())?;
        fs::write(scratch.granted().join("frankenstein.txt"), TEXT)?;
        Ok(scratch)
    }

    fn granted(&self) -> PathBuf {
        self.0.path().join("granted")
    }

    fn temporary(&self) -> PathBuf {
        self.0.path().join("temporary")
    }
}

/// Runs the demo and says how many plugins failed.
async fn run(screen: &Screen, options: &Options, scratch: &Scratch) -> Result<usize> {
    let began = Instant::now();
    // A parent that ignores this signal has its children ignore it, and then the
    // system forgets how plugins ended. To wait for it is to have it back.
    let _ended = signal(SignalKind::child())?;
    let permissions = if options.write {
        Permissions::ALL
    } else {
        Permissions::READ | Permissions::LIST
    };
    let listed = services(&options.dir, permissions)?.temp_root(scratch.temporary());
    let (audit, records) = AuditLog::channel(1024);
    let shown = services(&scratch.granted(), Permissions::ALL)?
        .temp_root(scratch.temporary())
        .audit(audit);
    let root = fs::canonicalize(&options.dir)?
        .into_os_string()
        .into_string();
    let offered = Offered {
        root: root.map_err(|_| anyhow::anyhow!("the directory's name is not UTF-8"))?,
        granted: scratch.granted(),
        listed,
        shown,
        audit: Mutex::new(records),
    };
    let found = visit::find(&options.plugins)?;

    let rights = if options.write {
        "plugins may read and change it"
    } else {
        "plugins may only read it"
    };
    screen.line(&format!(
        "Directory  {} ({rights})",
        screen::printable(&offered.root)
    ));
    screen.line(&format!(
        "Plugins    {}",
        screen::printable(&options.plugins.to_string_lossy())
    ));

    let mut guests = Guests::new(screen, &offered, options.labels.iter().cloned().collect());
    for plugin in &found {
        guests.visit(plugin).await;
    }
    let visited = guests.leave();
    let mut failed = visited.failed;
    failed.extend(stop(screen, visited.running).await);
    let after = took(began.elapsed());
    let summary = match (failed.len(), found.len()) {
        (0, 1) => screen.good(&format!("It did its work and stopped, {after} altogether.")),
        (0, n) => screen.good(&format!(
            "All {n} did their work and stopped, {after} altogether."
        )),
        (bad, n) => screen.bad(&format!(
            "{bad} of {} failed: see above.",
            count(n, "plugin")
        )),
    };
    screen.blank();
    screen.line(&summary);
    Ok(failed.len())
}

/// Services for a guest that asks for the directory `dir` and for some variables of
/// the host, and gets what it asks for.
fn services(dir: &Path, permissions: Permissions) -> Result<GrantedServices> {
    let dir = std::path::absolute(dir)?;
    let manifest = Manifest::builder("guest", Transport::Grpc, "guest")
        .handshake(1, "TEST_KEY", "TEST_VALUE")
        .files(Files::new(&dir, permissions).recursive(true));
    let manifest = VARIABLES
        .into_iter()
        .fold(manifest, |manifest, name| manifest.read_variable(name));
    let settings = Settings::new().policy(Policy::allow_requested());
    let services = settings.plugin(manifest.build()?, &dir)?.services();
    let unusable = services.unusable().next().cloned();
    unusable.map_or(Ok(services), |unusable| Err(unusable.into()))
}

/// Stops all plugins at the same time, says how each ended, and names those
/// that did not end well.
async fn stop(screen: &Screen, running: Vec<(Found, RunningPlugin)>) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    if running.is_empty() {
        return failed;
    }
    let stops = running.iter().map(|(found, plugin)| async move {
        let gone = plugin.exited().is_some();
        let asked = Instant::now();
        (found, gone, plugin.stop().await, asked.elapsed())
    });
    let stops = join_all(stops).await;
    let width = running
        .iter()
        .map(|(found, _)| screen::width(&found.name))
        .max()
        .unwrap_or(0);
    screen.blank();
    screen.line(&screen.heading("Stopping"));
    for (found, gone, report, after) in stops {
        let after = took(after);
        let (clean, how) = match (report.kill_reason, gone) {
            (Some(reason), _) => (false, format!("was killed after {after}: {reason}")),
            (None, true) => (false, format!("had ended before: it {}", report.status)),
            (None, false) => (
                report.status.is_success(),
                format!("{} after {after}", report.status),
            ),
        };
        let name = screen::printable(&found.name);
        let line = format!("  {name:width$}  {how}");
        screen.line(&if clean { line } else { screen.bad(&line) });
        if !clean {
            failed.insert(found.name.clone());
        }
    }
    failed
}
