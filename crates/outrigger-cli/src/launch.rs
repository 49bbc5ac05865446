//! Starts the plugin for a command and explains why it did not start.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrigger_host::netrpc::HostSession;
use outrigger_host::{
    AllowedTransports, Channel, Command, Deadlines, ExitStatus, HandshakeError, Launch,
    LaunchError, LaunchErrorKind, MagicCookie, PluginExited, PluginSet, ProcessRunner, Runner,
    RunnerError, RunningPlugin, Started, Transport,
};
use outrigger_transport::reflection::{self, ReflectionError};
use outrigger_wire::MAX_HANDSHAKE_LINE;
use prost::Message as _;
use tokio::io::{AsyncRead, ReadBuf};

use crate::args::{PluginArgs, Protocol};
use crate::contracts;
use crate::cookies;
use crate::descriptors::Catalogue;
use crate::failure::{Exit, Failure, near, printable};
use crate::granting::Target;
use crate::memory::Memory;
use crate::stderr::{LastWords, LoggedLines};

/// Offered when the command line names no app protocol version: a plugin takes
/// the highest it has, and one beyond this is started again with its own.
const DEFAULT_OFFER: std::ops::RangeInclusive<u32> = 0..=99;

/// How many arguments are searched for cookies, if they are files.
const MOST_SEARCHED_ARGUMENTS: usize = 4;

/// A plugin that runs, and what was seen of its start.
pub(crate) struct Session {
    pub(crate) plugin: RunningPlugin,
    pub(crate) seen: Seen,
    /// The versions it could choose from.
    pub(crate) offered: BTreeSet<u32>,
}

/// What a start led to: a plugin, and the way to it.
pub(crate) enum Start {
    Grpc(Box<Session>, Channel),
    NetRpc(Box<Session>, HostSession),
}

/// What passed by while a plugin was started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) pid: Option<u32>,
    /// The first line of stdout, as far as it came, without its end.
    pub(crate) line: Vec<u8>,
    /// From the start of the process to the end of that line.
    pub(crate) handshake_after: Option<Duration>,
    /// The process's memory at that moment.
    pub(crate) memory: Option<Memory>,
    /// The end of its stderr, up to now.
    pub(crate) stderr: LastWords,
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
        Ok((plugin, seen)) => {
            let session = Box::new(Session {
                plugin,
                seen,
                offered,
            });
            match (session.plugin.channel(), session.plugin.netrpc()) {
                (Some(channel), _) => Ok(Start::Grpc(session, channel)),
                (None, Some(control)) => Ok(Start::NetRpc(session, control)),
                (None, None) => Err(Failure::new(
                    Exit::Internal,
                    "runtime-failed",
                    format!("plugin `{}` speaks a protocol unknown here", target.name()),
                )),
            }
        }
        Err((error, seen)) => Err(explain(&error, &seen, target)),
    }
}

impl Session {
    /// Adds how the plugin ended, and its last words.
    pub(crate) fn epitaph(&self, failure: Failure, exited: &PluginExited) -> Failure {
        let failure = failure.note(format!("the plugin {}", exited.report.status));
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
    let (args, granting) = (&target.args, &target.granting);
    let runner = Watching::default();
    let seen = runner.seen.clone();
    let stderr = LastWords::default();
    runner
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .stderr = stderr.clone();
    // A cookie without a name is not put into the environment.
    let cookie = args
        .cookie
        .clone()
        .unwrap_or_else(|| MagicCookie::new("", ""));
    let mut launch = Launch::new(args.program(), cookie)
        .named(target.name())
        .args(args.arguments().iter().cloned())
        .allow(match args.protocol {
            None => AllowedTransports::ALL,
            Some(Protocol::Grpc) => AllowedTransports::GRPC,
            Some(Protocol::Netrpc) => AllowedTransports::NETRPC,
        })
        .deadlines(Deadlines {
            start: args.start_timeout,
            ..Deadlines::default()
        })
        .runner(runner)
        .stderr(stderr)
        .mirror_stdout(LoggedLines::new("stdout"))
        .mirror_stderr(LoggedLines::new("stderr"));
    // Without a manifest a plugin behaves as if its host offered nothing.
    if let Some(manifested) = &granting.manifest {
        let grants = manifested.decision.grants();
        for (name, value) in grants.environment().set() {
            launch = launch.env(name, value);
        }
        launch = launch.host_services(Arc::new(granting.services.clone()));
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
    let started = launch.start().await;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match started {
        Ok(plugin) => Ok((plugin, seen)),
        Err(error) => Err((error, seen)),
    }
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

fn explain(error: &LaunchError, seen: &Seen, target: &Target) -> Failure {
    let mut failure = match other_protocol(error, target) {
        Some(message) => Failure::new(Exit::NotStarted, error.code(), message),
        None => Failure::new(Exit::NotStarted, error.code(), message_of(error)).caused_by(error),
    };
    if let Some(verdict) = cookie_verdict(error, seen, target) {
        failure = blame_cookie(verdict, error, target);
    } else if let Some(help) = manifest_help(error.code(), target)
        .or_else(|| flag_help(error.code()))
        .map(str::to_owned)
        .or_else(|| error.hint())
    {
        failure = failure.help(help);
    }
    seen.stderr.lines().iter().fold(failure, |failure, line| {
        failure.note(format!("stderr: {line}"))
    })
}

/// What is wrong when a plugin speaks the protocol that the command line does not ask for.
fn other_protocol(error: &LaunchError, target: &Target) -> Option<String> {
    let asked = target.args.protocol?;
    match error.kind() {
        LaunchErrorKind::Handshake(HandshakeError::TransportNotAllowed { observed, .. }) => {
            let name = target.name();
            Some(match (target.by_manifest.protocol, asked) {
                (false, asked) => format!(
                    "plugin `{name}` speaks {observed}, and `--protocol {}` asks for the other",
                    asked.as_str()
                ),
                (true, Protocol::Grpc) => format!(
                    "plugin `{name}` speaks {observed}, and its manifest says `format: grpc`"
                ),
                (true, Protocol::Netrpc) => format!(
                    "plugin `{name}` speaks {observed}, and its manifest says `format: rpc`"
                ),
            })
        }
        _ => None,
    }
}

/// The error without the line that the notes repeat.
fn message_of(error: &LaunchError) -> String {
    let text = error.to_string();
    match text.split_once("; its last line on stderr: ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// What to change in the manifest for one kind of error, where that said what was wrong.
fn manifest_help(code: &str, target: &Target) -> Option<&'static str> {
    Some(match code {
        "transport-not-allowed" if target.by_manifest.protocol => {
            "correct `plugin.format`, or name another protocol with `--protocol`"
        }
        "certificate-missing" if target.by_manifest.auto_mtls => {
            "correct `security.auto_mtls`: it does not take part in that"
        }
        _ => return None,
    })
}

/// What to change on the command line for one kind of error.
fn flag_help(code: &str) -> Option<&'static str> {
    Some(match code {
        "certificate-unexpected" => "run it with `--auto-mtls`",
        "certificate-missing" => "run it without `--auto-mtls`: it does not take part in that",
        "mux-unsupported" => "run it without `--mux`: it does not take part in that",
        "app-version-mismatch" => {
            "offer what it speaks with `--app-version`, or leave that out to accept any version"
        }
        "transport-not-allowed" => {
            "leave `--protocol` out to accept either; a plugin that speaks both chooses by app version: \
             offer the one you mean with `--app-version`"
        }
        "handshake-timeout" => "raise `--start-timeout` if it needs longer",
        _ => return None,
    })
}

/// How sure it is that the cookie kept a plugin from starting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The plugin says so.
    Said,
    /// It behaves like it: status 1 and nothing on stdout.
    Likely,
}

fn cookie_verdict(error: &LaunchError, seen: &Seen, target: &Target) -> Option<Verdict> {
    let early = matches!(
        error.kind(),
        LaunchErrorKind::ExitedEarly | LaunchErrorKind::StdoutClosed
    );
    if !early || !seen.line.is_empty() {
        return None;
    }
    if error.stderr().iter().any(|line| speaks_of_cookie(line)) {
        return Some(Verdict::Said);
    }
    // A plugin that was given a cookie and complains of something else means that.
    let complains = target.args.cookie.is_some() && !error.stderr().is_empty();
    let like_it = matches!(error.exit(), Some((ExitStatus::Code(1), _))) && !complains;
    like_it.then_some(Verdict::Likely)
}

/// Whether a line is what plugins print when they are started by hand.
fn speaks_of_cookie(line: &str) -> bool {
    let line = line.to_lowercase();
    [
        "is a plugin",
        "magic cookie",
        "not meant to be executed directly",
    ]
    .iter()
    .any(|words| line.contains(words))
}

fn blame_cookie(verdict: Verdict, error: &LaunchError, target: &Target) -> Failure {
    let likely = if verdict == Verdict::Likely {
        ", most likely"
    } else {
        ""
    };
    let (code, reason) = match &target.args.cookie {
        None => (
            "magic-cookie-missing",
            "it was given no magic cookie".to_owned(),
        ),
        Some(cookie) => {
            let given = printable(&format!("{}={}", cookie.key, cookie.value));
            (
                "magic-cookie-wrong",
                format!("`{given}` is not its magic cookie"),
            )
        }
    };
    let message = format!(
        "plugin `{}` did not start{likely} because {reason}",
        target.name()
    );
    let mut failure = Failure::new(Exit::NotStarted, code, message);
    if let Some((status, after)) = error.exit() {
        failure = failure.note(format!(
            "it {status} after {} ms and printed no handshake line",
            after.as_millis()
        ));
    }
    for help in published_cookies(&target.args) {
        failure = failure.help(help);
    }
    failure.help(
        "its cookie is `MagicCookieKey` and `MagicCookieValue` of the `HandshakeConfig` in the source \
         of the plugin, of its SDK or of its host; pass it as `--cookie KEY=VALUE`",
    )
}

/// What is known of cookies that this plugin may mean.
fn published_cookies(args: &PluginArgs) -> Vec<String> {
    let given = args.cookie.as_ref();
    let suggestion = |cookie: &cookies::KnownCookie| {
        format!(
            "`--cookie {}={}` ({})",
            cookie.key, cookie.value, cookie.product
        )
    };
    if let Some(cookie) = given.and_then(|cookie| cookies::published(&cookie.key)) {
        if given.is_some_and(|given| given.value != cookie.value) {
            return vec![format!(
                "its key is published with another value: {}",
                suggestion(cookie)
            )];
        }
        return Vec::new();
    }
    let mut found = cookies::in_program(&resolved(&args.program()));
    // The plugin of an interpreter stands among its arguments.
    for argument in args.arguments().iter().take(MOST_SEARCHED_ARGUMENTS) {
        for cookie in cookies::in_program(Path::new(argument)) {
            if !found.contains(&cookie) {
                found.push(cookie);
            }
        }
    }
    let mut help: Vec<String> = found
        .iter()
        .map(|cookie| {
            format!(
                "the program contains `{}`; try {}",
                cookie.key,
                suggestion(cookie)
            )
        })
        .collect();
    if let (true, Some(given)) = (help.is_empty(), given) {
        let near = near(&given.key, cookies::keys());
        help.extend(
            near.first()
                .map(|key| format!("did you mean the key `{key}`?")),
        );
    }
    help
}

/// The program's path, looked up as a shell does.
fn resolved(program: &Path) -> std::path::PathBuf {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| program.to_owned())
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

/// [`describe`] for calls: without reflection, the services every gRPC plugin has, and
/// published contracts, are still known.
///
/// # Errors
/// As [`describe`]; never `reflection-not-served`.
pub(crate) async fn describe_or_standard(channel: &Channel) -> Result<Catalogue, Failure> {
    match reflection::describe(channel).await {
        Ok(description) => Ok(description.into()),
        Err(ReflectionError::NotServed) => {
            prost_types::FileDescriptorSet::decode(outrigger_transport::GO_PLUGIN_DESCRIPTORS)
                .map(|mut files| {
                    files.file.extend(contracts::files());
                    Catalogue::standard(files)
                })
                .map_err(|error| {
                    Failure::new(
                        Exit::Internal,
                        "descriptors-invalid",
                        "own descriptors are damaged",
                    )
                    .note(error.to_string())
                })
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_plugins_started_by_hand_are_recognised() {
        assert!(speaks_of_cookie(
            "This binary is a plugin. These are not meant to be"
        ));
        assert!(speaks_of_cookie("no Magic Cookie"));
        assert!(!speaks_of_cookie("cannot open database"));
    }
}
