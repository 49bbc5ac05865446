//! The task of one plugin: it alone decides when the plugin is started and stopped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use outrigger_host::{ExitReport, ExitStatus, RunningPlugin};
use outrigger_transport::{Draining, Router};
use outrigger_wire::Coded;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::board::Board;
use super::event::{Cause, ReloadStep};
use super::generation::{Generation, Launched};
use super::pulse::{Beat, Pulse, serves};
use super::restarts::{Restarts, Verdict};
use super::retiring::Retiring;
use super::status::{PluginState, StopReason};
use crate::error::{Error, ErrorKind, Failure};
use crate::plugin::Plugin;
use crate::supervision::{Reload, Restart, Supervision};

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
    /// Start what its folder holds now in the place of what runs.
    Reload {
        plugin: Box<Plugin>,
        reply: Reply<Result<Reloaded, Error>>,
    },
    /// Start this from now on: its folder holds something else.
    Install { plugin: Box<Plugin> },
}

/// What came of a reload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reloaded {
    /// Which generation serves now: nothing if the plugin did not run. Then what
    /// its folder holds is started when it is needed.
    pub generation: Option<u64>,
    /// How long calls went on to the one before, or waited.
    pub took: Duration,
}

/// What the plugin's task does next.
enum Phase {
    /// Nothing, until somebody wants the plugin.
    Rest,
    Start(Cause),
    /// Wait for a start that has begun.
    Await(Launching),
    Serve(Box<Serving>),
    /// Wait until then.
    Delay(Instant),
    /// The host is gone.
    Over,
}

/// The generation that serves, and the reloads that were asked for.
struct Serving {
    now: Generation,
    /// The generation that is started to take its place.
    next: Option<Next>,
    /// A reload that waits until the generation before `now` is gone: there are
    /// never more than two.
    wanted: Option<Wanted>,
}

impl Serving {
    fn by(now: Generation) -> Self {
        Self {
            now,
            next: None,
            wanted: None,
        }
    }

    /// Whoever waits for a reload.
    fn replies(self) -> Vec<Reply<Result<Reloaded, Error>>> {
        let next = self.next.map(|next| next.wanted);
        let wanted = next.into_iter().chain(self.wanted);
        wanted.flat_map(|wanted| wanted.replies).collect()
    }
}

struct Next {
    wanted: Wanted,
    launching: Launching,
}

/// A reload that was asked for.
struct Wanted {
    plugin: Plugin,
    began: Instant,
    replies: Vec<Reply<Result<Reloaded, Error>>>,
}

/// The start of a generation.
struct Launching {
    number: u64,
    launched: BoxFuture<'static, Result<Launched, Error>>,
}

pub(super) struct Worker {
    /// What is started from now on.
    pub(super) plugin: Plugin,
    pub(super) rules: Supervision,
    pub(super) commands: mpsc::Receiver<Command>,
    /// When the plugin must be gone, once that is known.
    pub(super) end_by: watch::Receiver<Option<Instant>>,
    pub(super) board: Arc<Board>,
    pub(super) router: Router,
    pub(super) serving: watch::Sender<Option<Arc<RunningPlugin>>>,
    pub(super) restarts: Restarts,
    /// How often it was started.
    pub(super) starts: u64,
    /// Whoever waits for the plugin's start.
    pub(super) waiting: Vec<Reply<Result<(), Error>>>,
    /// Whoever waits for a reload that the plugin's start is.
    pub(super) reloading: Option<Reloading>,
    /// The generation before the one that serves.
    pub(super) old: Option<Retiring>,
}

/// A reload for which the plugin does not serve.
pub(super) struct Reloading {
    began: Instant,
    replies: Vec<Reply<Result<Reloaded, Error>>>,
    /// What is started if the start fails.
    before: Option<Plugin>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        let mut phase = Phase::Rest;
        loop {
            phase = match phase {
                Phase::Rest => self.rest().await,
                Phase::Start(cause) => self.start(cause),
                Phase::Await(launching) => self.started(launching).await,
                Phase::Serve(serving) => self.serve(*serving).await,
                Phase::Delay(until) => self.delay(until).await,
                Phase::Over => return,
            };
        }
    }

    // ---- while it does not run -------------------------------------------

    async fn rest(&mut self) -> Phase {
        loop {
            let wakes = matches!(
                self.board.state(),
                PluginState::Installed
                    | PluginState::Stopped {
                        why: StopReason::Ended | StopReason::Idle
                    }
            );
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = self.router.wanted(), if wakes => return Phase::Start(Cause::Called),
            };
            match command {
                None => return Phase::Over,
                Some(Command::Start { why, reply }) => match self.refuses(&why) {
                    Some(error) => drop(reply.send(Err(error))),
                    None => return self.begin(why, reply),
                },
                Some(Command::Restart { reply }) => return self.begin(Cause::Asked, reply),
                Some(Command::Install { plugin }) => self.install(*plugin),
                Some(Command::Reload { plugin, reply }) => {
                    self.install(*plugin);
                    if let PluginState::Failed { .. } = self.board.state() {
                        return self.restart_for(reply);
                    }
                    let _ = reply.send(Ok(Reloaded {
                        generation: None,
                        took: Duration::ZERO,
                    }));
                }
                Some(Command::Stop { why, reply, .. }) => {
                    let state = self.board.state();
                    let asked = StopReason::Asked;
                    if !matches!(state, PluginState::Stopped { why } if why == asked) {
                        self.stopped(why);
                    }
                    let _ = reply.send(self.board.last_exit());
                }
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
                Some(Command::Install { plugin }) => self.install(*plugin),
                Some(Command::Reload { plugin, reply }) => {
                    self.install(*plugin);
                    return self.restart_for(reply);
                }
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

    fn install(&mut self, plugin: Plugin) {
        self.board.holds(&plugin);
        self.plugin = plugin;
    }

    fn begin(&mut self, why: Cause, reply: Reply<Result<(), Error>>) -> Phase {
        self.restarts.forget();
        self.waiting.push(reply);
        Phase::Start(why)
    }

    fn restart_for(&mut self, reply: Reply<Result<Reloaded, Error>>) -> Phase {
        self.restarts.forget();
        self.reloading = Some(Reloading {
            began: Instant::now(),
            replies: vec![reply],
            before: None,
        });
        Phase::Start(Cause::Reloaded)
    }

    // ---- start -----------------------------------------------------------

    fn start(&mut self, cause: Cause) -> Phase {
        let launching = self.launch(self.plugin.clone());
        self.router.hold();
        self.board.starts(launching.number);
        self.board.set(PluginState::Starting, cause);
        Phase::Await(launching)
    }

    /// Starts a generation, once there is room for it.
    fn launch(&mut self, plugin: Plugin) -> Launching {
        self.starts += 1;
        let (old, rules) = (self.old.take(), self.rules.clone());
        Launching {
            number: self.starts,
            launched: Box::pin(async move {
                if let Some(mut old) = old {
                    old.release();
                    old.over().await;
                }
                launch(plugin, rules).await
            }),
        }
    }

    async fn started(&mut self, mut launching: Launching) -> Phase {
        loop {
            let command = tokio::select! {
                launched = &mut launching.launched => return match launched {
                    Ok(launched) => self.serves(launching.number, launched),
                    Err(error) => self.failed(Failure::NotStarted(error), Duration::ZERO),
                },
                command = self.commands.recv() => command,
            };
            match command {
                None => return Phase::Over,
                Some(Command::Start { reply, .. }) => self.waiting.push(reply),
                Some(Command::Install { plugin }) => self.install(*plugin),
                Some(Command::Reload { plugin, reply }) => {
                    drop(launching);
                    self.install(*plugin);
                    return self.restart_for(reply);
                }
                Some(Command::Restart { reply }) => {
                    drop(launching);
                    return self.begin(Cause::Asked, reply);
                }
                Some(Command::Stop { why, reply, .. }) => {
                    // Ends the process, if there is one.
                    drop(launching);
                    self.stopped(why);
                    let _ = reply.send(None);
                    return Phase::Rest;
                }
            }
        }
    }

    fn serves(&mut self, number: u64, launched: Launched) -> Phase {
        let now = Generation::new(number, launched);
        self.router.switch(now.plugin.connection().clone());
        self.serving.send_replace(Some(now.plugin.clone()));
        self.board.runs(&now);
        self.board.set(PluginState::Running, Cause::Answered);
        self.answer(|| Ok(()));
        if let Some(reloading) = self.reloading.take() {
            reloading.answer(|took| {
                let generation = Some(number);
                Ok(Reloaded { generation, took })
            });
        }
        Phase::Serve(Box::new(Serving::by(now)))
    }

    // ---- while it runs ---------------------------------------------------

    async fn serve(&mut self, mut serving: Serving) -> Phase {
        let mut pulse = Pulse::take(&serving.now.plugin, &self.rules);
        let mut idle = Box::pin(idle(self.router.clone(), self.rules.idle_stop));
        loop {
            if serving.next.is_none()
                && self.old.is_none()
                && let Some(wanted) = serving.wanted.take()
            {
                serving.next = Some(self.begin_reload(wanted));
            }
            tokio::select! {
                biased;
                report = serving.now.plugin.wait() => {
                    return self.lost(serving, Failure::Exited(report));
                }
                command = self.commands.recv() => match command {
                    None => return Phase::Over,
                    Some(Command::Start { reply, .. }) => drop(reply.send(Ok(()))),
                    Some(Command::Install { plugin }) => self.install(*plugin),
                    Some(Command::Reload { plugin, reply }) => match self.rules.reload {
                        Reload::Overlap => self.want(&mut serving, *plugin, reply),
                        Reload::Replace => {
                            return self.replace(serving, *plugin, reply).await;
                        }
                    },
                    Some(Command::Restart { reply }) => {
                        let draining = self.router.hold();
                        self.stop(serving, None, Cause::Asked, draining).await;
                        return self.begin(Cause::Asked, reply);
                    }
                    Some(Command::Stop { why, within, reply }) => {
                        let draining = self.refuse_stopped();
                        let report = self.stop(serving, within, why, draining).await;
                        self.stopped(Cause::Gone);
                        let _ = reply.send(Some(report));
                        return Phase::Rest;
                    }
                },
                launched = launched(&mut serving.next) => {
                    if let Some(next) = serving.next.take() {
                        match launched {
                            Ok(launched) => {
                                self.swap(&mut serving.now, next, launched);
                                pulse = Pulse::take(&serving.now.plugin, &self.rules);
                            }
                            Err(why) => self.keep(&serving.now, next, &why),
                        }
                    }
                }
                () = over(&mut self.old) => self.old = None,
                () = &mut idle, if serving.next.is_none() && self.old.is_none() => {
                    let draining = self.router.hold();
                    self.stop(serving, None, Cause::Idle, draining).await;
                    let why = StopReason::Idle;
                    self.board.set(PluginState::Stopped { why }, Cause::Gone);
                    return Phase::Rest;
                }
                beat = pulse.next() => match beat {
                    Beat::Answered => self.board.set(PluginState::Running, Cause::Answered),
                    Beat::Missed(missed) if missed < self.rules.ping_misses => {
                        let degraded = PluginState::Degraded { missed };
                        self.board.set(degraded, Cause::Unanswered(missed));
                    }
                    Beat::Missed(missed) => {
                        let report = serving.now.plugin.kill().await;
                        return self.lost(serving, Failure::Unanswered { missed, report });
                    }
                },
            }
        }
    }

    /// What serves is gone, and nobody asked it to go.
    fn lost(&mut self, mut serving: Serving, why: Failure) -> Phase {
        if let Some(report) = why.report() {
            self.board.is_gone(report);
        }
        if let Some(old) = self.old.take() {
            match old.take_back() {
                Ok(old) => return self.roll_back(serving, old, why),
                Err(old) => self.old = Some(old),
            }
        }
        self.serving.send_replace(None);
        self.router.hold();
        let ran = serving.now.since.elapsed();
        if let Some(next) = serving.next.take() {
            // Its successor is on its way already.
            self.plugin = next.wanted.plugin;
            self.reloading = Some(Reloading {
                began: next.wanted.began,
                replies: next.wanted.replies,
                before: None,
            });
            self.board.starts(next.launching.number);
            self.board.set(PluginState::Starting, Cause::Failed(why));
            return Phase::Await(next.launching);
        }
        if let Some(wanted) = serving.wanted.take() {
            self.plugin = wanted.plugin;
            self.reloading = Some(Reloading {
                began: wanted.began,
                replies: wanted.replies,
                before: None,
            });
            return Phase::Start(Cause::Failed(why));
        }
        let ended_well = match &why {
            Failure::Exited(report) => {
                report.status == ExitStatus::Code(0) && report.connection_lost.is_none()
            }
            Failure::NotStarted(_) | Failure::Unanswered { .. } => false,
        };
        if ended_well && self.rules.restart != Restart::Always {
            let why = StopReason::Ended;
            self.board.set(PluginState::Stopped { why }, Cause::Ended);
            return Phase::Rest;
        }
        self.failed(why, ran)
    }

    fn failed(&mut self, why: Failure, ran: Duration) -> Phase {
        let plugin = self.plugin.name().to_owned();
        let error = match &why {
            Failure::NotStarted(error) => error.clone(),
            why => {
                let (plugin, why) = (plugin.clone(), why.clone());
                ErrorKind::Failed { plugin, why }.into()
            }
        };
        self.answer(|| Err(error.clone()));
        if let Some(mut reloading) = self.reloading.take() {
            let before = reloading.before.take();
            reloading.answer(|_| Err(error.clone()));
            if let Some(before) = before {
                self.board.step(ReloadStep::Kept { why: error });
                self.plugin = before;
                return Phase::Start(Cause::RolledBack(why));
            }
        }
        if let Failure::NotStarted(error) = &why
            && matches!(error.kind(), ErrorKind::NotApproved { .. })
        {
            self.router.refuse(error.to_string(), error.code());
            let state = PluginState::NeedsApproval(error.clone());
            self.board.set(state, Cause::Failed(why));
            return Phase::Rest;
        }
        if self.rules.restart == Restart::Never || !why.may_pass() {
            return self.fails(why.clone(), Cause::Failed(why));
        }
        let now = Instant::now();
        match self.restarts.after_failure(&self.rules, now, ran, chance()) {
            Verdict::Again { attempt, after } => {
                let until = SystemTime::now() + after;
                let cause = Cause::Failed(why.clone());
                self.board.restarts();
                let backoff = PluginState::Backoff {
                    attempt,
                    until,
                    why,
                };
                self.board.set(backoff, cause);
                Phase::Delay(now + after)
            }
            Verdict::GiveUp => self.fails(why.clone(), Cause::FailedTooOften(why)),
        }
    }

    /// It has failed, and is not started again by itself.
    fn fails(&mut self, why: Failure, cause: Cause) -> Phase {
        let plugin = self.plugin.name().to_owned();
        let text = format!("plugin `{plugin}` has failed: {why}");
        let code = Error::from(ErrorKind::Failed {
            plugin,
            why: why.clone(),
        });
        self.router.refuse(text, code.code());
        self.board.set(PluginState::Failed { why }, cause);
        Phase::Rest
    }

    // ---- reload ----------------------------------------------------------

    /// Notes that somebody wants the plugin reloaded.
    fn want(
        &mut self,
        serving: &mut Serving,
        plugin: Plugin,
        reply: Reply<Result<Reloaded, Error>>,
    ) {
        if let Some(old) = &self.old {
            old.release();
        }
        let wanted = serving.wanted.get_or_insert_with(|| Wanted {
            plugin: plugin.clone(),
            began: Instant::now(),
            replies: Vec::new(),
        });
        wanted.plugin = plugin;
        wanted.replies.push(reply);
    }

    fn begin_reload(&mut self, wanted: Wanted) -> Next {
        let launching = self.launch(wanted.plugin.clone());
        let generation = launching.number;
        self.board.step(ReloadStep::Began { generation });
        Next { wanted, launching }
    }

    /// New calls go to the next generation.
    fn swap(&mut self, now: &mut Generation, next: Next, launched: Launched) {
        let new = Generation::new(next.launching.number, launched);
        let (generation, pid) = (new.number, new.plugin.pid());
        self.board.step(ReloadStep::Ready { generation, pid });
        let draining = self.router.switch(new.plugin.connection().clone());
        self.serving.send_replace(Some(new.plugin.clone()));
        let in_flight = draining.as_ref().map_or(0, Draining::in_flight);
        self.install(next.wanted.plugin.clone());
        self.restarts.forget();
        self.board.runs(&new);
        let old = std::mem::replace(now, new);
        self.board.step(ReloadStep::Swapped {
            generation,
            from: old.number,
            in_flight,
        });
        self.board.set(PluginState::Running, Cause::Reloaded);
        let old = Retiring::begin(old, draining, &self.rules, self.board.clone());
        self.old = Some(old);
        next.wanted.answer(|took| {
            let generation = Some(generation);
            Ok(Reloaded { generation, took })
        });
    }

    /// The next generation is not fit: what serves goes on.
    fn keep(&mut self, now: &Generation, next: Next, why: &Error) {
        tracing::warn!(
            plugin = self.plugin.name(),
            generation = now.number,
            "not reloaded: {why}"
        );
        self.board.step(ReloadStep::Kept { why: why.clone() });
        next.wanted.answer(|_| Err(why.clone()));
    }

    /// The generation before serves again: its successor failed while it was on trial.
    fn roll_back(&mut self, serving: Serving, old: Generation, why: Failure) -> Phase {
        self.router.switch(old.plugin.connection().clone());
        self.serving.send_replace(Some(old.plugin.clone()));
        self.board.runs(&old);
        let generation = old.number;
        let cause = Cause::RolledBack(why.clone());
        self.board.step(ReloadStep::RolledBack { generation, why });
        self.board.set(PluginState::Running, cause);
        Phase::Serve(Box::new(Serving {
            now: old,
            ..serving
        }))
    }

    /// Stops what runs before the next generation is started, while calls wait.
    async fn replace(
        &mut self,
        serving: Serving,
        plugin: Plugin,
        reply: Reply<Result<Reloaded, Error>>,
    ) -> Phase {
        let began = Instant::now();
        let generation = self.starts + 1;
        self.board.step(ReloadStep::Began { generation });
        let draining = self.router.hold();
        self.stop(serving, None, Cause::Reloaded, draining).await;
        let before = self.plugin.clone();
        self.install(plugin);
        self.reloading = Some(Reloading {
            began,
            replies: vec![reply],
            before: Some(before),
        });
        Phase::Start(Cause::Reloaded)
    }

    // ---- stop ------------------------------------------------------------

    fn refuse_stopped(&self) -> Option<Draining> {
        let plugin = self.plugin.name().to_owned();
        let error = Error::from(ErrorKind::Stopped { plugin });
        self.router.refuse(error.to_string(), error.code())
    }

    /// Stops what runs, once its calls have ended: within `within` or the plugin's
    /// own deadlines, and at the latest when the host has to be gone.
    async fn stop(
        &mut self,
        serving: Serving,
        within: Option<Duration>,
        why: Cause,
        draining: Option<Draining>,
    ) -> ExitReport {
        self.serving.send_replace(None);
        self.board.set(PluginState::Stopping, why);
        let plugin = serving.now.plugin.clone();
        for reply in serving.replies() {
            let plugin = self.plugin.name().to_owned();
            let _ = reply.send(Err(ErrorKind::Stopped { plugin }.into()));
        }
        let old = self.old.take();
        if let Some(old) = &old {
            old.release();
        }
        let began = Instant::now();
        let patience = within.map_or(self.rules.drain, |within| within / 2);
        let stopping = async {
            if let Some(draining) = draining {
                tokio::select! {
                    () = draining.drained() => {}
                    _ = plugin.wait() => {}
                    () = tokio::time::sleep(patience) => draining.end(),
                }
            }
            match within {
                Some(within) => {
                    let left = within.saturating_sub(began.elapsed());
                    plugin.stop_within(left).await
                }
                None => plugin.stop().await,
            }
        };
        let all = async {
            let (report, ()) = tokio::join!(stopping, async {
                if let Some(mut old) = old {
                    old.over().await;
                }
            });
            report
        };
        // What is left of the generation before is killed when its handle goes.
        let report = tokio::select! {
            report = all => report,
            () = passed(&mut self.end_by) => plugin.kill().await,
        };
        self.board.is_gone(&report);
        report
    }

    /// It does not run, because somebody wants that.
    fn stopped(&mut self, cause: Cause) {
        self.refuse_stopped();
        let why = StopReason::Asked;
        self.board.set(PluginState::Stopped { why }, cause);
        let plugin = self.plugin.name().to_owned();
        let error = Error::from(ErrorKind::Stopped { plugin });
        self.answer(|| Err(error.clone()));
        if let Some(reloading) = self.reloading.take() {
            reloading.answer(|_| Err(error.clone()));
        }
    }

    /// Tells all who wait for the start what came of it.
    fn answer(&mut self, outcome: impl Fn() -> Result<(), Error>) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(outcome());
        }
    }
}

impl Wanted {
    fn answer(self, outcome: impl Fn(Duration) -> Result<Reloaded, Error>) {
        for reply in self.replies {
            let _ = reply.send(outcome(self.began.elapsed()));
        }
    }
}

impl Reloading {
    fn answer(self, outcome: impl Fn(Duration) -> Result<Reloaded, Error>) {
        for reply in self.replies {
            let _ = reply.send(outcome(self.began.elapsed()));
        }
    }
}

/// What came of the start of the next generation, if there is one.
async fn launched(next: &mut Option<Next>) -> Result<Launched, Error> {
    match next {
        Some(next) => (&mut next.launching.launched).await,
        None => std::future::pending().await,
    }
}

/// Waits until no call was made for so long, and none is in flight.
async fn idle(router: Router, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let look = (limit / 4).max(Duration::from_millis(1));
    let (mut calls, mut since) = (router.calls(), Instant::now());
    while since.elapsed() < limit {
        tokio::time::sleep(look).await;
        if router.in_flight() > 0 || router.calls() != calls {
            (calls, since) = (router.calls(), Instant::now());
        }
    }
}

/// Waits until nothing is left of the generation before, if there is one.
async fn over(old: &mut Option<Retiring>) {
    match old {
        Some(old) => old.over().await,
        None => std::future::pending().await,
    }
}

/// Starts a plugin and waits until it serves.
async fn launch(plugin: Plugin, rules: Supervision) -> Result<Launched, Error> {
    let limit = rules.deadlines.start;
    let deadline = Instant::now() + limit;
    let settings = plugin.settings();
    let launch = plugin.launch()?.deadlines(rules.deadlines);
    let launch = settings.launched(plugin.manifest(), launch);
    let digest = launch.expected_digest().map(ToString::to_string);
    let running = Arc::new(launch.start().await?);
    serves(&running, deadline, limit).await?;
    let prepared = tokio::time::timeout_at(deadline, settings.prepared(&running)).await;
    let late = || format!("it took longer than {} s (`start`)", limit.as_secs_f64());
    let prepared = prepared.unwrap_or_else(|_| Err(late().into()));
    if let Err(source) = prepared {
        // Whoever prepared it may hold it.
        running.kill().await;
        let plugin = plugin.name().to_owned();
        return Err(ErrorKind::SelfTest { plugin, source }.into());
    }
    Ok(Launched {
        plugin: running,
        digest,
    })
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
