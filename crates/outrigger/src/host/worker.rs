//! The task of one plugin: it alone decides when the plugin is started and stopped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_host::{ExitReport, ExitStatus, RunningPlugin};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::board::Board;
use super::event::Cause;
use super::pulse::{Beat, Pulse, serves};
use super::restarts::{Restarts, Verdict};
use super::status::{PluginState, StopReason};
use crate::error::{Error, ErrorKind, Failure};
use crate::plugin::Plugin;
use crate::supervision::{Restart, Supervision};

/// Tells whoever asked what came of it. That they may be gone is no matter.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What the task of a plugin is asked to do.
pub(super) enum Command {
    /// Start it, unless it runs. Answered when that is done, or failed.
    Start {
        why: Cause,
        reply: Reply<Result<(), Error>>,
    },
    /// Stop it, within this time.
    Stop {
        why: Cause,
        within: Option<Duration>,
        reply: Reply<Option<ExitReport>>,
    },
    /// Stop it if it runs, forget what was wrong with it, and start it.
    Restart { reply: Reply<Result<(), Error>> },
}

/// What the plugin's task does next.
enum Phase {
    /// Nothing, until somebody wants the plugin.
    Rest,
    Start(Cause),
    Serve(Generation),
    /// Wait until then.
    Delay(Instant),
    /// The host is gone.
    Over,
}

/// One process of the plugin, from its start to its end.
struct Generation {
    plugin: Arc<RunningPlugin>,
    since: Instant,
}

pub(super) struct Worker {
    pub(super) plugin: Plugin,
    pub(super) rules: Supervision,
    pub(super) commands: mpsc::Receiver<Command>,
    /// When the plugin must be gone, once that is known.
    pub(super) end_by: watch::Receiver<Option<Instant>>,
    pub(super) board: Board,
    pub(super) serving: watch::Sender<Option<Arc<RunningPlugin>>>,
    pub(super) restarts: Restarts,
    /// Whoever waits for the plugin's start.
    pub(super) waiting: Vec<Reply<Result<(), Error>>>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let mut phase = Phase::Rest;
        loop {
            phase = match phase {
                Phase::Rest => self.rest().await,
                Phase::Start(cause) => self.start(cause).await,
                Phase::Serve(generation) => self.serve(generation).await,
                Phase::Delay(until) => self.delay(until).await,
                Phase::Over => return,
            };
        }
    }

    async fn rest(&mut self) -> Phase {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Start { why, reply } => match self.refuses(&why) {
                    Some(error) => drop(reply.send(Err(error))),
                    None => return self.begin(why, reply),
                },
                Command::Restart { reply } => return self.begin(Cause::Asked, reply),
                Command::Stop { why, reply, .. } => {
                    let stopped = PluginState::Stopped {
                        why: StopReason::Asked,
                    };
                    match self.board.state() {
                        PluginState::Stopped {
                            why: StopReason::Asked,
                        } => {}
                        _ => self.board.set(stopped, why),
                    }
                    let _ = reply.send(self.board.last_exit());
                }
            }
        }
        Phase::Over
    }

    /// Why the plugin is not started for this cause, if it is not.
    fn refuses(&self, why: &Cause) -> Option<Error> {
        if matches!(why, Cause::Asked) {
            return None;
        }
        let plugin = self.plugin.name().to_owned();
        match self.board.state() {
            PluginState::Failed { why } => Some(ErrorKind::Failed { plugin, why }.into()),
            PluginState::Stopped {
                why: StopReason::Asked,
            } => Some(ErrorKind::Stopped { plugin }.into()),
            _ => None,
        }
    }

    fn begin(&mut self, why: Cause, reply: Reply<Result<(), Error>>) -> Phase {
        self.restarts.forget();
        self.waiting.push(reply);
        Phase::Start(why)
    }

    async fn start(&mut self, cause: Cause) -> Phase {
        self.board.starts();
        self.board.set(PluginState::Starting, cause);
        let mut launched = Box::pin(launch(self.plugin.clone(), self.rules.clone()));
        loop {
            let command = tokio::select! {
                launched = &mut launched => return match launched {
                    Ok(launched) => self.started(launched),
                    Err(error) => self.failed(Failure::NotStarted(error), Duration::ZERO),
                },
                command = self.commands.recv() => command,
            };
            match command {
                None => return Phase::Over,
                Some(Command::Start { reply, .. }) => self.waiting.push(reply),
                Some(Command::Restart { reply }) => {
                    self.restarts.forget();
                    self.waiting.push(reply);
                    return Phase::Start(Cause::Asked);
                }
                Some(Command::Stop { why, reply, .. }) => {
                    // Ends the process, if there is one.
                    drop(launched);
                    self.stopped(why);
                    let _ = reply.send(None);
                    return Phase::Rest;
                }
            }
        }
    }

    fn started(&mut self, launched: Launched) -> Phase {
        let plugin = Arc::new(launched.plugin);
        self.board.runs(&plugin, launched.digest);
        self.serving.send_replace(Some(plugin.clone()));
        self.board.set(PluginState::Running, Cause::Answered);
        self.answer(|| Ok(()));
        Phase::Serve(Generation {
            plugin,
            since: Instant::now(),
        })
    }

    async fn serve(&mut self, generation: Generation) -> Phase {
        let mut pulse = Pulse::take(&generation.plugin, &self.rules);
        loop {
            tokio::select! {
                biased;
                report = generation.plugin.wait() => {
                    self.gone(&report);
                    return self.ended(report);
                }
                command = self.commands.recv() => match command {
                    None => return Phase::Over,
                    Some(Command::Start { reply, .. }) => drop(reply.send(Ok(()))),
                    Some(Command::Restart { reply }) => {
                        self.stop(&generation, None, Cause::Asked).await;
                        return self.begin(Cause::Asked, reply);
                    }
                    Some(Command::Stop { why, within, reply }) => {
                        let report = self.stop(&generation, within, why).await;
                        self.stopped(Cause::Gone);
                        let _ = reply.send(Some(report));
                        return Phase::Rest;
                    }
                },
                beat = pulse.next() => match beat {
                    Beat::Answered => self.board.set(PluginState::Running, Cause::Answered),
                    Beat::Missed(missed) if missed < self.rules.ping_misses => {
                        let degraded = PluginState::Degraded { missed };
                        self.board.set(degraded, Cause::Unanswered(missed));
                    }
                    Beat::Missed(missed) => {
                        let report = generation.plugin.kill().await;
                        self.gone(&report);
                        let ran = generation.since.elapsed();
                        return self.failed(Failure::Unanswered { missed, report }, ran);
                    }
                },
            }
        }
    }

    async fn delay(&mut self, until: Instant) -> Phase {
        loop {
            let command = tokio::select! {
                () = tokio::time::sleep_until(until) => return Phase::Start(Cause::Waited),
                command = self.commands.recv() => command,
            };
            match command {
                None => return Phase::Over,
                Some(Command::Restart { reply }) => return self.begin(Cause::Asked, reply),
                Some(Command::Start { why, reply }) => {
                    self.waiting.push(reply);
                    if matches!(why, Cause::Asked) {
                        return Phase::Start(why);
                    }
                }
                Some(Command::Stop { why, reply, .. }) => {
                    self.stopped(why);
                    let _ = reply.send(self.board.last_exit());
                    return Phase::Rest;
                }
            }
        }
    }

    /// Stops what runs, within `within` or the plugin's own deadlines, and at the
    /// latest when the host has to be gone.
    async fn stop(
        &mut self,
        generation: &Generation,
        within: Option<Duration>,
        why: Cause,
    ) -> ExitReport {
        self.serving.send_replace(None);
        self.board.set(PluginState::Stopping, why);
        let plugin = &generation.plugin;
        let stopping = async {
            match within {
                Some(limit) => plugin.stop_within(limit).await,
                None => plugin.stop().await,
            }
        };
        let report = tokio::select! {
            report = stopping => report,
            () = passed(&mut self.end_by) => plugin.kill().await,
        };
        self.gone(&report);
        report
    }

    /// Nothing is left of the process that ran.
    fn gone(&mut self, report: &ExitReport) {
        self.serving.send_replace(None);
        self.board.is_gone(report);
    }

    /// It does not run, because somebody wants that.
    fn stopped(&mut self, cause: Cause) {
        let why = StopReason::Asked;
        self.board.set(PluginState::Stopped { why }, cause);
        let plugin = self.plugin.name().to_owned();
        self.answer(|| {
            let plugin = plugin.clone();
            Err(ErrorKind::Stopped { plugin }.into())
        });
    }

    /// It ended without being asked to.
    fn ended(&mut self, report: ExitReport) -> Phase {
        let is_well = report.status == ExitStatus::Code(0) && report.connection_lost.is_none();
        if is_well && self.rules.restart != Restart::Always {
            let why = StopReason::Ended;
            self.board.set(PluginState::Stopped { why }, Cause::Ended);
            return Phase::Rest;
        }
        let ran = report.ran;
        self.failed(Failure::Exited(report), ran)
    }

    fn failed(&mut self, why: Failure, ran: Duration) -> Phase {
        let plugin = self.plugin.name().to_owned();
        self.answer(|| match &why {
            Failure::NotStarted(error) => Err(error.clone()),
            why => {
                let (plugin, why) = (plugin.clone(), why.clone());
                Err(ErrorKind::Failed { plugin, why }.into())
            }
        });
        if let Failure::NotStarted(error) = &why
            && matches!(error.kind(), ErrorKind::NotApproved { .. })
        {
            let state = PluginState::NeedsApproval(error.clone());
            self.board.set(state, Cause::Failed(why));
            return Phase::Rest;
        }
        if self.rules.restart == Restart::Never || !why.may_pass() {
            let cause = Cause::Failed(why.clone());
            self.board.set(PluginState::Failed { why }, cause);
            return Phase::Rest;
        }
        let now = Instant::now();
        match self.restarts.after_failure(&self.rules, now, ran, chance()) {
            Verdict::Again { attempt, after } => {
                let until = SystemTime::now() + after;
                let cause = Cause::Failed(why.clone());
                self.board.restarts();
                self.board.set(
                    PluginState::Backoff {
                        attempt,
                        until,
                        why,
                    },
                    cause,
                );
                Phase::Delay(now + after)
            }
            Verdict::GiveUp => {
                let cause = Cause::FailedTooOften(why.clone());
                self.board.set(PluginState::Failed { why }, cause);
                Phase::Rest
            }
        }
    }

    /// Tells all who wait for the start what came of it.
    fn answer(&mut self, outcome: impl Fn() -> Result<(), Error>) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(outcome());
        }
    }
}

/// A plugin that serves, and what its program had to hash to.
struct Launched {
    plugin: RunningPlugin,
    digest: Option<String>,
}

/// Starts a plugin and waits until it serves.
async fn launch(plugin: Plugin, rules: Supervision) -> Result<Launched, Error> {
    let deadline = Instant::now() + rules.deadlines.start;
    let launch = plugin.launch()?.deadlines(rules.deadlines);
    let launch = plugin.settings().launched(plugin.manifest(), launch);
    let digest = launch.expected_digest().map(ToString::to_string);
    let plugin = launch.start().await?;
    serves(&plugin, deadline, rules.deadlines.start).await?;
    Ok(Launched { plugin, digest })
}

/// Waits until the given moment has passed, once there is one.
async fn passed(moment: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let until = *moment.borrow_and_update();
        let changed = match until {
            Some(until) => tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = moment.changed() => changed,
            },
            None => moment.changed().await,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    // Without a source of chance the wait is the longest.
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}
