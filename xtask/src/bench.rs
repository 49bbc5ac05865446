//! `cargo xtask bench`: our numbers beside Go's and the kernel's, interleaved in one run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::tools;

/// What is measured, against which floor, and whether less is better.
struct Measure {
    name: &'static str,
    floor: Option<&'static str>,
    /// What this project aims at: our value over Go's, or over the floor where
    /// Go has nothing to compare with.
    aim: Option<f64>,
    has_go: bool,
}

const fn measure(name: &'static str, floor: Option<&'static str>, aim: Option<f64>) -> Measure {
    Measure {
        name,
        floor,
        aim,
        has_go: true,
    }
}

/// What only we do, beside its floor.
const fn alone(name: &'static str, floor: &'static str, aim: f64) -> Measure {
    Measure {
        name,
        floor: Some(floor),
        aim: Some(aim),
        has_go: false,
    }
}

const MEASURES: &[Measure] = &[
    measure("grpc.unary.p50", Some("floor.unary.p50"), Some(0.55)),
    measure("grpc.unary.p99", Some("floor.unary.p99"), None),
    measure("grpc.calls64", None, Some(1.6)),
    measure("grpc.stream.down", Some("floor.stream"), Some(2.0)),
    measure("grpc.stream.up", Some("floor.stream"), Some(2.0)),
    measure("grpc.mtls.unary.p50", Some("floor.unary.p50"), None),
    measure("grpc.start", Some("floor.start"), Some(0.4)),
    measure("grpc.mtls.start", Some("floor.start"), Some(0.15)),
    measure("netrpc.unary.p50", Some("floor.unary.p50"), Some(0.4)),
    measure("netrpc.unary.p99", Some("floor.unary.p99"), None),
    measure("netrpc.calls64", None, Some(2.0)),
    measure("netrpc.stream", Some("floor.stream"), Some(1.5)),
    measure("netrpc.start", Some("floor.start"), Some(0.35)),
    measure("netrpc.rss.plugin", None, None),
    measure("callback.read4k", Some("floor.read4k"), Some(0.55)),
    measure("callback.stream", Some("floor.stream"), Some(2.5)),
    alone("routed.unary.p50", "direct.unary.p50", 1.05),
    alone("metrics.overhead", "uncounted.unary.p50", 1.01),
    alone("reload.gap", "floor.reload.gap", 3.0),
    alone("fd.open", "floor.fd.open", 2.5),
    alone("fd.read4k", "floor.fd.read4k", 1.1),
    alone("fd.cat", "floor.fd.cat", 0.9),
    alone("list.1000", "floor.list.1000", 10.0),
    measure("rss.plugin", None, Some(0.4)),
    measure("rss.host.per_plugin", None, Some(0.7)),
];

/// What the pairs of unlike peers are measured for.
const MIXED: &[&str] = &[
    "grpc.unary.p50",
    "grpc.calls64",
    "grpc.stream.down",
    "grpc.stream.up",
    "grpc.start",
    "netrpc.unary.p50",
    "netrpc.calls64",
    "netrpc.stream",
    "netrpc.start",
];

#[derive(Serialize)]
struct Row {
    measure: String,
    unit: String,
    ours: f64,
    go: Option<f64>,
    floor: Option<f64>,
    /// Ours over Go's, or over the floor where Go has no such thing.
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<f64>,
}

pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) only: Option<String>,
    pub(crate) quick: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    tools::cargo(
        root,
        &[
            "build",
            "--release",
            "-p",
            "outrigger-interop",
            "--bin",
            "bench-host",
            "--bin",
            "bench-plugin",
            "--bin",
            "bench-empty",
        ],
    )?;
    let release = tools::target(root).join("release");
    let (our_host, our_plugin) = (release.join("bench-host"), release.join("bench-plugin"));
    let go = tools::go_version()
        .map(|_| tools::build_go_peers(root))
        .transpose()?;
    if go.is_none() {
        eprintln!("no Go: its numbers and the mixed pairs are left out");
    }
    let start = |host: &Path, plugin: &Path, is_go: bool| Peer::start(host, plugin, is_go);
    let mut peers = BTreeMap::from([("ours", start(&our_host, &our_plugin, false)?)]);
    if let Some(go) = &go {
        let (go_host, go_plugin) = (go.join("bench-host"), go.join("bench-plugin"));
        peers.insert("go", start(&go_host, &go_plugin, true)?);
        peers.insert("rust_go", start(&our_host, &go_plugin, false)?);
        peers.insert("go_rust", start(&go_host, &our_plugin, true)?);
    }

    let rounds = if options.quick { 1 } else { 5 };
    let wanted = |name: &str| {
        options
            .only
            .as_ref()
            .is_none_or(|only| name.starts_with(only))
    };
    let mut values: BTreeMap<(String, &str), (Vec<f64>, String)> = BTreeMap::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let mut take = |row: String, peer: &'static str, measure: &str| -> Result<()> {
            let Some(asked) = peers.get_mut(peer) else {
                return Ok(());
            };
            let (value, unit) = asked.ask(measure, options.quick)?;
            let column = match peer {
                "rust_go" | "go_rust" => "ours",
                other => other,
            };
            let taken = values.entry((row, column)).or_default();
            taken.0.push(value);
            taken.1 = unit;
            Ok(())
        };
        for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
            take(measure.name.into(), "ours", measure.name)?;
            if measure.has_go {
                take(measure.name.into(), "go", measure.name)?;
            }
        }
        let floors: std::collections::BTreeSet<_> = MEASURES
            .iter()
            .filter(|measure| wanted(measure.name))
            .filter_map(|measure| measure.floor)
            .collect();
        for floor in floors {
            take(floor.to_owned(), "ours", floor)?;
        }
        for pair in ["rust_go", "go_rust"] {
            for name in MIXED {
                let row = format!("{pair}.{}", name.trim_start_matches("grpc."));
                if wanted(&row) {
                    take(row, pair, name)?;
                }
            }
        }
    }
    for (_, peer) in peers {
        peer.end()?;
    }
    report(root, options, &values, rounds)
}

fn report(
    root: &Path,
    options: &Options,
    values: &BTreeMap<(String, &str), (Vec<f64>, String)>,
    rounds: u32,
) -> Result<()> {
    let median = |row: &str, column: &'static str| -> Option<f64> {
        let mut taken = values.get(&(row.to_owned(), column))?.0.clone();
        taken.sort_by(f64::total_cmp);
        taken.get(taken.len() / 2).copied()
    };
    let mut rows = Vec::new();
    let mut add = |name: &str, floor: Option<&str>, aim: Option<f64>, base: &str| {
        let Some(ours) = median(name, "ours") else {
            return;
        };
        let go = median(base, "go");
        let floor = floor.and_then(|floor| median(floor, "ours"));
        let alone = MEASURES
            .iter()
            .any(|measure| measure.name == name && !measure.has_go);
        let compared = if alone { floor } else { go };
        rows.push(Row {
            measure: name.to_owned(),
            unit: values[&(name.to_owned(), "ours")].1.clone(),
            ours,
            go,
            floor,
            ratio: compared.map(|compared| ours / compared),
            aim,
        });
    };
    for measure in MEASURES {
        add(measure.name, measure.floor, measure.aim, measure.name);
    }
    for pair in ["rust_go", "go_rust"] {
        for name in MIXED {
            add(
                &format!("{pair}.{}", name.trim_start_matches("grpc.")),
                None,
                None,
                name,
            );
        }
    }
    println!(
        "{:<26} {:>12} {:>12} {:>12} {:>7} {:>6}  unit",
        "measure", "ours", "go", "floor", "ratio", "aim"
    );
    for row in &rows {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        println!(
            "{:<26} {:>12} {:>12} {:>12} {:>7} {:>6}  {}",
            row.measure,
            number(Some(row.ours)),
            number(row.go),
            number(row.floor),
            number(row.ratio),
            number(row.aim),
            row.unit
        );
    }
    if let Some(path) = &options.json {
        let run = json!({
            "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            "rounds": rounds,
            "machine": machine(),
            "versions": {
                "rust": tools::output("rustc", &["--version"]).unwrap_or_default(),
                "go": tools::go_version().unwrap_or_default(),
                "go-plugin": go_plugin_version(root).unwrap_or_default(),
                "commit": tools::output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default(),
            },
            "results": rows,
        });
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&run)? + "\n")?;
    }
    Ok(())
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    json!({
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cores": std::thread::available_parallelism().map_or(0, |cores| cores.get()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn go_plugin_version(root: &Path) -> Option<String> {
    let module = std::fs::read_to_string(root.join("interop/go/go.mod")).ok()?;
    let line = module
        .lines()
        .find(|line| line.contains("hashicorp/go-plugin "))?;
    line.split_whitespace()
        .find(|word| word.starts_with('v'))
        .map(String::from)
}

/// A host that measures, one command at a time.
struct Peer {
    name: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(host: &Path, plugin: &Path, is_go: bool) -> Result<Self> {
        let mut command = tools::command(host);
        if is_go {
            command.arg("-plugin");
        }
        command
            .arg(plugin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", host.display()))?;
        let commands = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self {
            name: host.display().to_string(),
            child,
            commands,
            answers,
        })
    }

    fn ask(&mut self, measure: &str, quick: bool) -> Result<(f64, String)> {
        let mut command = json!({ "measure": measure });
        if quick {
            for (size, value) in [
                ("calls", 1000),
                ("bytes", 64 << 20),
                ("starts", 5),
                ("reads", 1000),
            ] {
                command[size] = value.into();
            }
        }
        writeln!(self.commands, "{command}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("{} answered {measure} with {line:?}", self.name))?;
        if let Some(error) = answer["error"].as_str().filter(|error| !error.is_empty()) {
            bail!("{}: {measure}: {error}", self.name);
        }
        let value = answer["value"].as_f64().context("a value")?;
        Ok((
            value,
            answer["unit"].as_str().unwrap_or_default().to_owned(),
        ))
    }

    fn end(self) -> Result<()> {
        let Self {
            commands,
            mut child,
            ..
        } = self;
        drop(commands);
        child.wait()?;
        Ok(())
    }
}
