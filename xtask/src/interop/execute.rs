//! One case: a host process, what it reports, and that nothing outlives it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::case::{Expect, Run};
use crate::tools;

/// How long a case may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a process may outlive the host that it belongs to.
const GONE: Duration = Duration::from_secs(2);
/// What is kept of a host's output, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// Marks every process of a case.
const MARK: &str = "OUTRIGGER_INTEROP_CASE";

#[derive(Debug)]
pub(super) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

pub(super) fn run(index: usize, run: &Run) -> Outcome {
    let name = format!("oi{}-{index}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let done = std::fs::create_dir(&dir)
        .map_err(Into::into)
        .and_then(|()| in_dir(run, &dir));
    let _ = std::fs::remove_dir_all(&dir);
    match done {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

fn in_dir(run: &Run, dir: &Path) -> Result<()> {
    let reported = host(run, dir);
    let outlived = outlived(dir);
    let report = reported?;
    ensure!(
        outlived.is_empty(),
        "processes outlived their host: {}",
        outlived.join(", ")
    );
    judge(run, &report)?;
    let left: Vec<_> = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    ensure!(
        left.is_empty(),
        "left behind in TMPDIR: {}",
        left.join(", ")
    );
    Ok(())
}

/// Runs the host and reads the one object that it prints.
fn host(run: &Run, dir: &Path) -> Result<Value> {
    let mut child = tools::command(&run.host)
        .args(&run.flags)
        .arg("--")
        .args(&run.program)
        .env("TMPDIR", dir)
        .env(MARK, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", run.host.display()))?;
    let outputs = [
        child.stdout.take().map(collect),
        child.stderr.take().map(collect),
    ];
    let ended = wait(&mut child);
    let [stdout, stderr] = outputs.map(|reader| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    });
    ended?;
    serde_json::from_str(&stdout)
        .with_context(|| format!("the host printed {stdout:?} and {stderr:?}"))
}

fn collect(from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // A host that fails halfway is judged by what came.
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn wait(child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the host was not done within {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

fn judge(run: &Run, report: &Value) -> Result<()> {
    let failed = || {
        let stderr = report["stderr"].as_str().unwrap_or_default();
        format!(
            "{}\nlog: {}\n{stderr}",
            report["error"].as_str().unwrap_or_default(),
            report["problems"]
        )
    };
    ensure!(report["ok"] == true, "{}", failed());
    let killed = run
        .expect
        .iter()
        .any(|expect| matches!(expect, Expect::Killed));
    let may_race = run
        .expect
        .iter()
        .any(|expect| matches!(expect, Expect::MayRace));
    let raced = may_race && report["quit_error"] != "";
    ensure!(
        killed || raced || report["forced"] == false,
        "the plugin had to be killed: {}",
        report["problems"]
    );
    for expect in &run.expect {
        match expect {
            Expect::Field(name, value) => {
                ensure!(
                    &report[*name] == value,
                    "`{name}` is {}, not {value}",
                    report[*name]
                );
            }
            Expect::Version(version) => {
                let agreed = &report["negotiated_version"];
                ensure!(
                    agreed == version,
                    "they agreed on version {agreed}, not {version}"
                );
            }
            Expect::Killed | Expect::MayRace => {}
            Expect::Quiet => {
                let quiet = report["problems"].as_array().is_none_or(Vec::is_empty);
                ensure!(quiet, "the host logged {}", report["problems"]);
            }
            Expect::PortBetween(min, max) => {
                let address = report["address"].as_str().unwrap_or_default();
                let port: u16 = address.rsplit(':').next().unwrap_or_default().parse()?;
                ensure!((*min..=*max).contains(&port), "it listens on {address}");
            }
        }
    }
    Ok(())
}

/// Processes of the case that do not end by themselves; they are killed.
fn outlived(dir: &Path) -> Vec<String> {
    let deadline = Instant::now() + GONE;
    loop {
        let running = marked(dir);
        if running.is_empty() {
            return running;
        }
        if Instant::now() > deadline {
            for pid in &running {
                let _ = tools::command("kill").args(["-9", pid]).status();
            }
            return running;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn marked(dir: &Path) -> Vec<String> {
    let mark = format!("{MARK}={}", dir.display());
    let carries = |path: &PathBuf| {
        std::fs::read(path.join("environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|pair| pair == mark.as_bytes())
        })
    };
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
        })
        .filter(carries)
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect()
}
