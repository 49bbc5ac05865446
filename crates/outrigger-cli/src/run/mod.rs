//! `outrigger run`: serves a folder of plugins until it is told to stop.

mod notify;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use outrigger::{AuditRecord, Configuration, Events, Host, Settings};
use outrigger_manifest::StartWhen;
use outrigger_transport::OwnedTask;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::audit::{self, LARGEST_FILE};
use crate::control::place::Place;
use crate::control::proto;
use crate::control::recent::Recent;
use crate::control::service::{REMEMBERED, Service};
use crate::control::socket::PrivateSocket;
use crate::control::telling::{self, Declared};
use crate::failure::{Exit, Failure, printable};
use crate::files::failure;
use crate::printer::line;
use crate::run::notify::Notify;
use crate::{output, shown};

/// How long the last decisions may take to reach the file.
const AUDIT_PATIENCE: Duration = Duration::from_secs(2);

/// Serves the folder until a signal or a client ends it; returns the exit code.
///
/// # Errors
/// What keeps it from serving. What is wrong with one plugin is none of these.
///
/// # Cancel safety
/// Dropping the future kills all plugins.
pub(crate) async fn run(args: &RunArgs) -> Result<u8, Failure> {
    // From here on, a signal does not end the process behind the plugins' backs.
    let mut signals = Signals::new()?;
    let configuration = args.configure().read().map_err(|error| failure(&error))?;
    let folder = folder(&configuration.directories().plugins_dir)?;
    let place = match &configuration.control().socket {
        Some(socket) => Place::at(socket),
        None => Place::of(&folder),
    };
    let taken = place.take(&folder)?;
    let decisions = Recent::new(REMEMBERED);
    let all_shown = matches!(args.audit, Some(None));
    let file = configuration.audit().file.as_deref();
    let log = decisions_log(all_shown, file, &decisions)?;
    let settings = settings(&configuration, &log)?;
    let declared = Declared::of(&settings.open(&folder).map_err(|error| failure(&error))?);
    let host = settings
        .host(&folder)
        .await
        .map_err(|error| failure(&error))?;
    let events = Recent::new(REMEMBERED);
    let _recording = OwnedTask::spawn(record(host.events(), events.clone()));
    let socket = taken.place().socket();
    let service = Service::new(host.clone(), &folder, socket, events.clone(), decisions);
    service.declare(declared);
    let listening = PrivateSocket::bind(socket).map_err(|error| {
        let message = format!("`{}` cannot be listened at", shown_path(socket));
        Failure::new(Exit::NotStarted, "control-failed", message).note(error.to_string())
    })?;
    let mut serving = OwnedTask::spawn(service.clone().serve(listening));
    let running = Running {
        args,
        configuration,
        host,
        service,
        events,
        manager: Notify::of_environment(),
    };
    let served = running.until_told(&folder, &mut signals).await;
    let code = match served {
        Ok(()) => running.stop(&mut signals).await,
        Err(failure) => {
            running.host.shutdown(args.stop_timeout).await;
            Err(failure)
        }
    };
    running.service.close();
    serving.finished().await;
    log.flush(AUDIT_PATIENCE);
    code
}

struct Running<'a> {
    args: &'a RunArgs,
    configuration: Configuration,
    host: Host,
    service: Service,
    events: Recent<proto::Event>,
    manager: Notify,
}

impl Running<'_> {
    /// Starts what starts at once, tells how that went, and waits for the end.
    async fn until_told(&self, folder: &Path, signals: &mut Signals) -> Result<(), Failure> {
        let plugins = self.service.plugins();
        let application = self.configuration.application();
        let (name, version) = (
            printable(&application.app_name),
            printable(&application.app_version.shown()),
        );
        self.say(
            &format!(
                "{name} {version} serves {} plugins in {} (process {})\n",
                plugins.len(),
                shown_path(folder),
                std::process::id()
            ),
            &json!({
                "event": "serving",
                "application": {"name": name, "version": version, "mode": application.app_mode},
                "folder": shown_path(folder),
                "pid": std::process::id(),
                "plugins": plugins.len(),
            }),
        )?;
        let mut started = false;
        let starting = self.start_all();
        tokio::pin!(starting);
        let stop = CancellationToken::new();
        let events = self.events.read(true, stop);
        tokio::pin!(events);
        let period = self.manager.period().unwrap_or(Duration::from_secs(3600));
        let mut alive = tokio::time::interval(period);
        loop {
            tokio::select! {
                () = signals.end() => return Ok(()),
                () = self.service.end_asked() => return Ok(()),
                result = &mut starting, if !started => {
                    result?;
                    started = true;
                    let (short, event) = self.readiness();
                    self.service.is_ready();
                    self.say(&format!("ready: {short}\n"), &event)?;
                    self.manager.ready(&short);
                }
                // Each may change how many plugins run.
                _ = events.next() => if started {
                    self.manager.status(&self.readiness().0);
                },
                _ = alive.tick() => self.manager.alive(),
            }
        }
    }

    /// Starts the plugins that start with the host, and tells of each when it runs or
    /// it is known why not.
    async fn start_all(&self) -> Result<(), Failure> {
        let names = self.service.plugins().into_iter().map(|plugin| plugin.name);
        let mut untold: BTreeSet<String> = names
            .filter(|name| self.configuration.supervision(name).start == StartWhen::AtOnce)
            .collect();
        let starts: Vec<_> = (untold.iter().cloned())
            .map(|name| async move { self.host.start(&name).await })
            .collect();
        let starting = join_all(starts);
        tokio::pin!(starting);
        let events = self.events.read(true, CancellationToken::new());
        tokio::pin!(events);
        loop {
            tokio::select! {
                _ = &mut starting => break,
                event = events.next() => {
                    let Some((_, event)) = event else { break };
                    let settled = matches!(
                        event.kind.as_str(),
                        "running" | "failed" | "backoff" | "needs-approval"
                    );
                    if settled && untold.remove(&event.plugin) {
                        self.tell_start(&event.plugin)?;
                    }
                }
            }
        }
        untold.iter().try_for_each(|name| self.tell_start(name))
    }

    fn tell_start(&self, name: &str) -> Result<(), Failure> {
        let Ok(plugin) = self.service.plugin(name) else {
            return Ok(());
        };
        let event = json!({"event": "plugin", "plugin": shown::json(&plugin)});
        self.say(&shown::start_line(&plugin), &event)
    }

    /// How many of the plugins run, as a phrase and as an object.
    fn readiness(&self) -> (String, serde_json::Value) {
        let plugins = self.service.plugins();
        let running = plugins
            .iter()
            .filter(|plugin| shown::is_running(plugin))
            .count();
        let all = plugins.len();
        let text = match running == all {
            true => format!("{all} plugins run"),
            false => format!("{running} of {all} plugins run"),
        };
        let event = json!({"event": "ready", "running": running, "plugins": all});
        (text, event)
    }

    /// Stops all plugins; a second signal kills them.
    async fn stop(&self, signals: &mut Signals) -> Result<u8, Failure> {
        self.manager.stopping();
        let limit = self.args.stop_timeout;
        self.say(
            &format!(
                "stopping: plugins have {} s; a second signal kills them\n",
                limit.as_secs_f64()
            ),
            &json!({"event": "stopping"}),
        )?;
        let report = {
            let stopping = self.host.shutdown(limit);
            tokio::select! {
                report = stopping => Some(report),
                () = signals.end() => None,
            }
        };
        let (report, hurried) = match report {
            Some(report) => (report, false),
            None => (self.host.shutdown(Duration::ZERO).await, true),
        };
        let killed: Vec<&str> = report.killed().collect();
        for name in &killed {
            output::note(&format!(
                "`{name}` did not end when it was asked, and was killed"
            ));
        }
        self.say("stopped\n", &json!({"event": "stopped", "killed": killed}))?;
        Ok(if hurried { 130 } else { 0 })
    }

    fn say(&self, text: &str, event: &serde_json::Value) -> Result<(), Failure> {
        match self.args.json {
            true => output::plain(&format!("{}\n", line(event))),
            false => output::text(text),
        }
    }
}

/// Keeps what happens, for clients that come later.
async fn record(mut events: Events, kept: Recent<proto::Event>) {
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => kept.push(telling::event(&event)),
            Err(missed) => tracing::warn!(%missed, "events are missing from the record"),
        }
    }
}

/// Where decisions go: to clients, to the file if there is one, and those that an
/// operator must see to stderr.
fn decisions_log(
    all_shown: bool,
    file: Option<&Path>,
    kept: &Recent<AuditRecord>,
) -> Result<outrigger::AuditLog, Failure> {
    let kept = kept.clone();
    let log = outrigger::AuditLog::callback(move |record| {
        if all_shown || record.verdict == outrigger::Verdict::Refused {
            output::audit(&audit::named_line(&telling::audit(record)));
        }
        kept.push(record.clone());
    });
    let Some(path) = file else {
        return Ok(log);
    };
    let file = outrigger::AuditLog::open(path, LARGEST_FILE).map_err(|error| {
        Failure::usage(error.code(), printable(&error.to_string())).caused_by(&error)
    })?;
    Ok(log.and(file))
}

fn settings(configuration: &Configuration, log: &outrigger::AuditLog) -> Result<Settings, Failure> {
    let log = log.clone();
    let settings = Settings::new()
        .configured(configuration)
        .map_err(|error| failure(&error))?
        .services(move |services| services.audit(log.clone()));
    Ok(match configuration.policy().file {
        Some(_) => settings,
        None => {
            output::note("no policy is given: plugins are granted nothing of what they ask for");
            settings.start_with_less()
        }
    })
}

fn folder(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        let message = format!("the plugins in `{}` could not be listed", shown_path(path));
        Failure::usage("plugins-unreadable", message)
            .note(error.to_string())
            .help("name the folder that holds the plugins' folders: `outrigger run FOLDER`")
    })
}

fn shown_path(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// The signals that end a run.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let take = |kind: SignalKind| {
            signal(kind).map_err(|error| {
                let message = "the runtime could not be started";
                Failure::new(Exit::Internal, "runtime-failed", message).note(error.to_string())
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits until this process is told to end.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => if terminal_is_gone() {
                    return;
                },
            }
        }
    }
}

/// Whether this process had a terminal that was closed.
fn terminal_is_gone() -> bool {
    let stderr = std::io::stderr();
    let gone = rustix::termios::tcgetpgrp(&stderr) == Err(rustix::io::Errno::IO);
    gone && !stderr.is_terminal()
}
