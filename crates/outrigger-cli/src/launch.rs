//! Starts the plugin for a command and explains why it did not start.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrigger_host::netrpc::HostSession;
use outrigger_host::{
    AllowedTransports, Attach, Channel, Command, Connection, Deadlines, HandshakeError, Launch,
    LaunchError, LaunchErrorKind, PluginExited, PluginSet, ProcessRunner, Reattach, Runner,
    RunnerError, RunningPlugin, Started, Transport,
};
use outrigger_wire::{Coded as _, MAX_HANDSHAKE_LINE};
use tokio::io::{AsyncRead, ReadBuf};

use crate::contracts;
use crate::descriptors::Catalogue;
use crate::explain::explain;
use crate::failure::{Exit, Failure};
use crate::foreign::Look;
use crate::granting::Target;
use crate::memory::Memory;
use crate::reflection::{self, ReflectionError};
use crate::seen::Seen;
use crate::stderr::{LastWords, LoggedLines};

/// Offered when the command line names no app protocol version: a plugin takes
/// the highest it has, and one beyond this is started again with its own.
const DEFAULT_OFFER: std::ops::RangeInclusive<u32> = 0..=99;

/// How long before the end of its time a program is looked at that has printed nothing, at most.
const LOOK_BEFORE: Duration = Duration::from_secs(1);

/// A plugin that runs, and what was seen of its start.
pub(crate) struct StartedPlugin {
    pub(crate) plugin: RunningPlugin,
    pub(crate) seen: Seen,
    /// The versions it could choose from.
    pub(crate) offered: BTreeSet<u32>,
    /// Whether it ran before, and goes on running.
    pub(crate) joined: bool,
    /// Whether a call learned that it has ended.
    gone: AtomicBool,
}

/// What a start led to: a plugin, and the way to it.
pub(crate) enum Start {
    Grpc(Box<StartedPlugin>, Channel),
    NetRpc(Box<StartedPlugin>, HostSession),
}

impl Start {
    pub(crate) fn session(&self) -> &StartedPlugin {
        match self {
            Self::Grpc(session, _) | Self::NetRpc(session, _) => session,
        }
    }
}

/// Starts the plugin that the command line names, whatever it speaks.
///
/// Without `--app-version` a plugin that announces a version outside of
/// [`DEFAULT_OFFER`] is started a second time with that version offered.
///
/// # Errors
/// A failure of kind [`Exit::NotStarted`] with the probable reason.
pub(crate) async fn start(target: &Target) -> Result<Start, Failure> {
    let args = &target.args;
    if let Some(name) = args.running() {
        return running(target, name).await;
    }
    let mut offered: BTreeSet<u32> = match args.app_versions.is_empty() {
        true => DEFAULT_OFFER.collect(),
        false => args.app_versions.iter().copied().collect(),
    };
    let mut outcome = attempt(target, &offered).await;
    if let (true, Err((error, _))) = (args.app_versions.is_empty(), &outcome)
        && let Some(version) = foreign_version(error)
    {
        offered = BTreeSet::from([version]);
        outcome = attempt(target, &offered).await;
    }
    match outcome {
        Ok((plugin, seen)) => Ok(begun(plugin, seen, offered, args.reattach.is_some())),
        Err((error, seen)) => Err(explain(&error, &seen, target)),
    }
}

fn begun(plugin: RunningPlugin, seen: Seen, offered: BTreeSet<u32>, joined: bool) -> Start {
    let session = Box::new(StartedPlugin {
        plugin,
        seen,
        offered,
        joined,
        gone: AtomicBool::new(false),
    });
    match session.plugin.connection().clone() {
        Connection::Grpc(channel) => Start::Grpc(session, channel),
        Connection::NetRpc(control) => Start::NetRpc(session, control),
    }
}

/// Joins a plugin of a run at the socket that the run makes for it.
async fn running(target: &Target, name: &str) -> Result<Start, Failure> {
    let reattach = target.args.run.connect().await?.open(name).await?;
    let offered = BTreeSet::from([reattach.version.0]);
    match attach(target, &reattach, &offered).await {
        Ok((plugin, seen)) => Ok(begun(plugin, seen, offered, true)),
        Err((error, seen)) => Err(explain(&error, &seen, target)),
    }
}

impl StartedPlugin {
    /// Ends the plugin, unless it ran before.
    pub(crate) async fn end(&self) {
        if !self.joined {
            self.plugin.stop().await;
        }
    }

    /// Whether the plugin is there, as far as is known.
    pub(crate) fn alive(&self) -> bool {
        !self.gone.load(Ordering::Relaxed) && self.plugin.exited().is_none()
    }

    /// Adds how the plugin ended, and its last words.
    pub(crate) fn epitaph(&self, failure: Failure, exited: &PluginExited) -> Failure {
        let failure = failure.note(format!("the plugin {}", exited.report.status));
        self.last_words(failure)
    }

    /// Adds the last words of a plugin that has ended.
    pub(crate) fn last_words(&self, failure: Failure) -> Failure {
        self.gone.store(true, Ordering::Relaxed);
        let lines = self.seen.stderr.lines();
        lines.iter().fold(failure, |failure, line| {
            failure.note(format!("stderr: {line}"))
        })
    }
}

/// An option that means nothing to the protocol that the plugin speaks.
pub(crate) fn option_unsupported(option: &str, protocol: Transport, target: &Target) -> Failure {
    let (protocol, other) = match protocol {
        Transport::Grpc => ("gRPC", "net/rpc"),
        Transport::NetRpc => ("net/rpc", "gRPC"),
    };
    let message = format!(
        "`{option}` is for {other}, and plugin `{}` speaks {protocol}",
        target.name()
    );
    Failure::usage("option-unsupported", message).help(format!("leave `{option}` out"))
}

type Outcome = Result<(RunningPlugin, Seen), (LaunchError, Seen)>;

async fn attempt(target: &Target, offered: &BTreeSet<u32>) -> Outcome {
    match &target.args.reattach {
        Some(joined) => attach(target, &joined.0, offered).await,
        None => launch(target, offered).await,
    }
}

async fn attach(target: &Target, reattach: &Reattach, offered: &BTreeSet<u32>) -> Outcome {
    let attach = Attach::new(reattach.clone())
        .named(target.name())
        .mirror_stdout(LoggedLines::new("stdout"))
        .mirror_stderr(LoggedLines::new("stderr"));
    let attach = offered.iter().fold(attach, |attach, version| {
        attach.offer(*version, PluginSet::new())
    });
    let seen = Seen::default();
    match attach.connect().await {
        Ok(plugin) => Ok((plugin, seen)),
        Err(error) => Err((error, seen)),
    }
}

async fn launch(target: &Target, offered: &BTreeSet<u32>) -> Outcome {
    let (args, granting) = (&target.args, &target.granting);
    let runner = Watching::default();
    let seen = runner.seen.clone();
    let stderr = LastWords::default();
    runner
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .stderr = stderr.clone();
    let mut launch = Launch::new(args.program(), args.cookie.clone())
        .named(target.name())
        .args(args.arguments().iter().cloned())
        .allow(
            args.protocol
                .map_or(AllowedTransports::ALL, AllowedTransports::from),
        )
        .deadlines(Deadlines {
            start: args.start_timeout,
            ..Deadlines::default()
        })
        .runner(runner)
        .stderr(stderr)
        .mirror_stdout(LoggedLines::new("stdout"))
        .mirror_stderr(LoggedLines::new("stderr"));
    // Without a manifest a plugin behaves as if its host offered nothing.
    if let Some(plugin) = &granting.plugin {
        launch = plugin.grant(launch, granting.services.clone());
    }
    if let Some(digest) = &target.digest {
        launch = launch.expect_digest(digest.clone());
    }
    for version in offered {
        launch = launch.offer(*version, PluginSet::new());
    }
    if args.auto_mtls {
        launch = launch.auto_mtls();
    }
    if args.mux {
        launch = launch.mux_broker();
    }
    let started = tokio::select! {
        started = launch.start() => started,
        never = look(&seen, args.start_timeout) => match never {},
    };
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match started {
        Ok(plugin) => Ok((plugin, seen)),
        Err(error) => Err((error, seen)),
    }
}

/// Looks at a program that prints no line, shortly before its time is over.
async fn look(seen: &Mutex<Seen>, patience: Duration) -> Infallible {
    tokio::time::sleep(patience - LOOK_BEFORE.min(patience / 2)).await;
    let silent = {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pid.filter(|_| seen.handshake_after.is_none())
    };
    if let Some(pid) = silent {
        let look = Look::at(pid).await;
        seen.lock().unwrap_or_else(PoisonError::into_inner).look = Some(look);
    }
    std::future::pending().await
}

/// The version that the plugin announced when none of those offered was its own.
fn foreign_version(error: &LaunchError) -> Option<u32> {
    match error.kind() {
        LaunchErrorKind::Handshake(HandshakeError::AppVersionMismatch { observed, .. }) => {
            u32::try_from(*observed).ok()
        }
        _ => None,
    }
}

/// What the plugin says about its services.
///
/// # Errors
/// Why it does not: one failure per kind of [`ReflectionError`].
pub(crate) async fn describe(channel: &Channel) -> Result<Catalogue, Failure> {
    match reflection::describe(channel).await {
        Ok(description) => Ok(description.into()),
        Err(error) => {
            Err(Failure::new(Exit::Failed, error.code(), error.to_string()).caused_by(&error))
        }
    }
}

/// [`describe`] for calls: with the services of `others`, as far as the plugin knows
/// them; without reflection, the services every gRPC plugin has, and published
/// contracts, are still known.
///
/// # Errors
/// As [`describe`]; never `reflection-not-served`.
pub(crate) async fn describe_or_standard(
    channel: &Channel,
    others: &[String],
) -> Result<Catalogue, Failure> {
    match reflection::describe_with(channel, others).await {
        Ok(description) => Ok(description.into()),
        Err(ReflectionError::NotServed) => contracts::all().map(Catalogue::standard),
        Err(error) => {
            Err(Failure::new(Exit::Failed, error.code(), error.to_string()).caused_by(&error))
        }
    }
}

/// Runs the plugin as a child process and keeps its first line.
#[derive(Debug, Default)]
struct Watching {
    seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl Runner for Watching {
    fn locate(&self, program: &Path) -> Result<PathBuf, RunnerError> {
        ProcessRunner.locate(program)
    }

    async fn start(&self, command: &Command) -> Result<Started, RunnerError> {
        let from = Instant::now();
        let started = ProcessRunner.start(command).await?;
        let pid = started.process.pid();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).pid = pid;
        let stdout = FirstLine {
            stdout: started.stdout,
            from,
            seen: self.seen.clone(),
        };
        Ok(Started {
            stdout: Box::new(stdout),
            ..started
        })
    }
}

/// Passes stdout on and keeps a copy of its first line.
struct FirstLine {
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    from: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl AsyncRead for FirstLine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(context, buffer))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.handshake_after.is_none() {
            let fresh = &buffer.filled()[before..];
            let end = fresh.iter().position(|byte| *byte == b'\n');
            let room = MAX_HANDSHAKE_LINE.saturating_sub(seen.line.len());
            let taken = end.unwrap_or(fresh.len()).min(room);
            seen.line.extend_from_slice(&fresh[..taken]);
            if end.is_some() || fresh.is_empty() {
                seen.handshake_after = Some(self.from.elapsed());
                seen.memory = seen.pid.and_then(Memory::of);
            }
        }
        Poll::Ready(Ok(()))
    }
}
