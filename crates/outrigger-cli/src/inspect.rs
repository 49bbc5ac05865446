//! `outrigger inspect`: what a plugin says about itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anstyle::Style;
use data_encoding::HEXLOWER;
use outrigger_host::netrpc::HostSession;
use outrigger_host::{Channel, ExitReport, ExitStatus, RunningPlugin, Transport};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_wire::CORE_PROTOCOL_VERSION;
use outrigger_wire::proto::health::HealthCheckRequest;
use outrigger_wire::proto::health::health_check_response::ServingStatus;
use prost_types::FileDescriptorSet;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::args::{InspectArgs, PluginArgs};
use crate::contracts;
use crate::descriptors::{self, Catalogue, ListedMethod, ListedService};
use crate::failure::{Exit, Failure, chain, printable};
use crate::granting::{self, Summary, Target};
use crate::launch::{self, Start, StartedPlugin};
use crate::lock::Shown;
use crate::memory::Memory;
use crate::{json, netrpc, output, probe, status};

/// How long the plugin may take to say whether it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the plugin, asks it, ends it, prints what was found.
///
/// # Errors
/// What kept the plugin from starting.
///
/// # Cancel safety
/// Dropping the future ends the plugin; nothing is printed then.
pub(crate) async fn run(inspect: &InspectArgs) -> Result<(), Failure> {
    let began = Instant::now();
    match granting::complete(&inspect.plugin) {
        Ok(target) => {
            let found = found(inspect, &target, began).await;
            let notes = target.granting.audit.finish();
            notes.iter().for_each(|note| output::note(note));
            show(&target.args, found)
        }
        Err(failure) => show(&inspect.plugin, Err(failure)),
    }
}

async fn found(
    inspect: &InspectArgs,
    target: &Target,
    began: Instant,
) -> Result<Inspection, Failure> {
    let known = match &inspect.descriptors {
        Some(path) => descriptors::from_file(path)?,
        None => Catalogue::standard(FileDescriptorSet {
            file: contracts::files(),
        }),
    };
    match launch::start(target).await {
        Ok(Start::Grpc(session, _)) if !inspect.names.is_empty() => {
            session.end().await;
            Err(launch::option_unsupported(
                "--plugin",
                Transport::Grpc,
                target,
            ))
        }
        Ok(Start::NetRpc(session, _)) if inspect.descriptors.is_some() => {
            session.end().await;
            Err(launch::option_unsupported(
                "--descriptors",
                Transport::NetRpc,
                target,
            ))
        }
        Ok(Start::Grpc(session, channel)) => {
            Ok(look(&session, &channel, &known, target, began).await)
        }
        Ok(Start::NetRpc(session, control)) => {
            Ok(look_net_rpc(&session, &control, &inspect.names, target, began).await)
        }
        Err(failure) => Err(failure),
    }
}

fn show(args: &PluginArgs, result: Result<Inspection, Failure>) -> Result<(), Failure> {
    match result {
        Ok(found) => {
            print(&found, args)?;
            found.error.map_or(Ok(()), Err)
        }
        Err(failure) => {
            if args.json {
                let program = printable(&program(args));
                output::plain(&pretty(&json!({"program": program, "error": failure})))?;
            }
            Err(failure)
        }
    }
}

/// The program as given; of a plugin that ran before, its name or address.
fn program(args: &PluginArgs) -> String {
    match (args.running(), &args.reattach) {
        (Some(name), _) => name.to_owned(),
        (None, Some(joined)) => joined.0.address.text.clone(),
        (None, None) => args.program().display().to_string(),
    }
}

/// Everything that is told about one plugin: with `--json` this is the object.
#[derive(Debug, Serialize)]
struct Inspection {
    program: String,
    pid: Option<u32>,
    core_version: u32,
    app_version: u32,
    /// What the host offered, as ranges.
    offered: String,
    protocol: &'static str,
    network: &'static str,
    address: String,
    tls: Tls,
    broker: &'static str,
    health: Option<Health>,
    ping: Option<Ping>,
    reflection: Option<Reflection>,
    services: Vec<ListedService>,
    /// Names that were dispensed as a test.
    plugins: Vec<Dispensed>,
    start: StartTimes,
    memory: Option<Memory>,
    end: End,
    /// What the manifest led to, if one was given.
    manifest: Option<Summary>,
    notes: Vec<String>,
    /// Why nothing more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Tls {
    /// `none` or `auto-mtls`.
    mode: &'static str,
    /// SHA-256 of the plugin's certificate, in hexadecimal.
    certificate_sha256: Option<String>,
}

#[derive(Debug, Serialize)]
struct Health {
    /// The answer for the service `plugin`, or the name of the status.
    plugin: String,
    /// From the question to the answer.
    answered_ms: f64,
    #[serde(skip)]
    failed: Option<Code>,
}

/// What a net/rpc plugin said to a ping.
#[derive(Debug, Serialize)]
struct Ping {
    /// From the question to the answer, or to its absence.
    answered_ms: f64,
    /// Why there was no good answer.
    error: Option<String>,
}

/// A name that was asked of a net/rpc plugin.
#[derive(Debug, Serialize)]
struct Dispensed {
    name: String,
    /// From the question to the connected object, or to the refusal.
    after_ms: f64,
    /// Why there is no object.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Reflection {
    version: Option<&'static str>,
    error: Option<String>,
    /// Names that the plugin could not describe, with its reasons.
    undescribed: Vec<String>,
    #[serde(skip)]
    not_served: bool,
}

/// Milliseconds, one after the other.
#[derive(Debug, Serialize)]
struct StartTimes {
    spawn_ms: Option<f64>,
    handshake_ms: Option<f64>,
    connect_ms: Option<f64>,
    /// From the first step to the answer of the health check or ping.
    ready_ms: f64,
}

#[derive(Debug, Serialize)]
struct End {
    /// `by-itself`, `asked`, `killed`, or `left` running.
    how: &'static str,
    status: Option<i32>,
    signal: Option<i32>,
    /// From asking it to its end.
    after_ms: Option<f64>,
    text: String,
}

async fn look(
    session: &StartedPlugin,
    channel: &Channel,
    known: &Catalogue,
    target: &Target,
    began: Instant,
) -> Inspection {
    let health = health(channel).await;
    let ready = began.elapsed();
    let error = unreachable(&health, session, &target.args);
    let (reflection, services) = match health.failed {
        // It would keep silent about its services, too.
        Some(Code::DeadlineExceeded | Code::Unavailable) => (Reflection::not_asked(), Vec::new()),
        _ => reflect(channel).await,
    };
    let mut inspection = Inspection {
        health: Some(health),
        error,
        services,
        ..announced(session, ready, target)
    };
    if reflection.not_served {
        inspection.services = probe::served(channel, known).await;
        inspection.notes.push(
            "without reflection, only services that are known were looked for; there may be others. \
             `--descriptors FILE` looks for those of a file"
                .to_owned(),
        );
    }
    inspection.reflection = Some(reflection);
    inspection.end = end(session).await;
    inspection
}

/// What the handshake and the start tell.
fn announced(session: &StartedPlugin, ready: Duration, target: &Target) -> Inspection {
    let (plugin, seen) = (&session.plugin, &session.seen);
    let line = plugin.handshake();
    let timings = plugin.timings();
    // What ran before was neither started nor asked for its handshake.
    let started = |time: Duration| (!session.joined).then(|| millis(time));
    let certificate = line.certificate.as_ref();
    Inspection {
        program: program(&target.args),
        pid: plugin.pid(),
        core_version: CORE_PROTOCOL_VERSION,
        app_version: line.app_version.0,
        offered: ranges(&session.offered),
        protocol: line.transport.as_str(),
        network: line.address.network.as_str(),
        address: line.address.text.clone(),
        tls: Tls {
            mode: if certificate.is_some() {
                "auto-mtls"
            } else {
                "none"
            },
            certificate_sha256: certificate.map(|der| HEXLOWER.encode(&Sha256::digest(der))),
        },
        broker: match (line.transport, line.mux) {
            (Transport::Grpc, Some(true)) => "multiplexed",
            (Transport::Grpc, _) => "plain",
            (Transport::NetRpc, _) => "net/rpc",
        },
        health: None,
        ping: None,
        reflection: None,
        services: Vec::new(),
        plugins: Vec::new(),
        start: StartTimes {
            spawn_ms: started(timings.spawn),
            handshake_ms: started(timings.handshake),
            connect_ms: Some(millis(timings.connect)),
            ready_ms: millis(ready),
        },
        memory: plugin.pid().and_then(Memory::of).or(seen.memory),
        end: End {
            how: "killed",
            status: None,
            signal: None,
            after_ms: None,
            text: String::new(),
        },
        manifest: target.granting.summary(),
        notes: Vec::new(),
        error: None,
    }
}

async fn look_net_rpc(
    session: &StartedPlugin,
    control: &HostSession,
    names: &[String],
    target: &Target,
    began: Instant,
) -> Inspection {
    let ping = ping(&session.plugin).await;
    let ready = began.elapsed();
    let mut error = silent(&ping, session, &target.args);
    let mut plugins = Vec::new();
    if error.is_none() {
        for name in names {
            plugins.push(dispense(control, name).await);
        }
        error = refused(&plugins);
    }
    let mut inspection = Inspection {
        ping: Some(ping),
        error,
        plugins,
        ..announced(session, ready, target)
    };
    inspection.notes.push(
        "net/rpc has no reflection: the plugin cannot list its names and methods. \
         `--plugin NAME` tries whether it has a name, and `outrigger call` calls what its source says"
            .to_owned(),
    );
    inspection.end = end(session).await;
    inspection
}

async fn ping(plugin: &RunningPlugin) -> Ping {
    let asked = Instant::now();
    let answer = plugin.ping().await;
    Ping {
        answered_ms: millis(asked.elapsed()),
        error: answer.err().map(|error| chain(&error)),
    }
}

/// A plugin that does not answer a ping is not well.
fn silent(ping: &Ping, session: &StartedPlugin, args: &PluginArgs) -> Option<Failure> {
    let reason = ping.error.as_ref()?;
    let name = printable(session.plugin.identity().name());
    let message = format!("plugin `{name}` started but did not answer a ping");
    let failure = Failure::new(Exit::Failed, "ping-failed", message).note(reason);
    Some(last_words(failure, session, args.auto_mtls))
}

async fn dispense(control: &HostSession, name: &str) -> Dispensed {
    let asked = Instant::now();
    let answer = netrpc::dispense(control, name).await;
    Dispensed {
        name: name.to_owned(),
        after_ms: millis(asked.elapsed()),
        error: answer.err().map(|refused| refused.text()),
    }
}

fn refused(plugins: &[Dispensed]) -> Option<Failure> {
    let refused = plugins.iter().filter(|plugin| plugin.error.is_some());
    let names: Vec<String> = refused
        .map(|plugin| format!("`{}`", printable(&plugin.name)))
        .collect();
    (!names.is_empty()).then(|| {
        let message = format!("the plugin did not dispense {}", names.join(", "));
        Failure::new(Exit::Failed, "dispense-failed", message).help(netrpc::NAMES)
    })
}

/// Adds what the plugin said, and what may help when it does not answer at all.
fn last_words(mut failure: Failure, session: &StartedPlugin, tls_ruled_out: bool) -> Failure {
    failure.notes.extend(
        session
            .seen
            .stderr
            .lines()
            .iter()
            .map(|line| format!("stderr: {line}")),
    );
    match tls_ruled_out {
        true => failure,
        false => failure.help(
            "if it expects TLS, try `--auto-mtls`; with certificates of its own only its host reaches it",
        ),
    }
}

async fn health(channel: &Channel) -> Health {
    let asked = Instant::now();
    let mut client = HealthClient::new(channel.clone());
    let request = HealthCheckRequest {
        service: "plugin".to_owned(),
    };
    let answer = tokio::time::timeout(HEALTH_TIMEOUT, client.check(request)).await;
    let (plugin, failed) = match answer {
        Ok(Ok(answer)) => {
            let number = answer.into_inner().status;
            let text = match ServingStatus::try_from(number) {
                Ok(status) => status.as_str_name().to_owned(),
                Err(_) => format!("status {number}"),
            };
            (text, None)
        }
        Ok(Err(error)) => {
            let text = outrigger_wire::Excerpt::new(error.message().as_bytes());
            (
                format!("failed with {}: {text}", status::name(error.code())),
                Some(error.code()),
            )
        }
        Err(_) => {
            let text = format!("no answer within {} s", HEALTH_TIMEOUT.as_secs());
            (text, Some(Code::DeadlineExceeded))
        }
    };
    Health {
        plugin,
        answered_ms: millis(asked.elapsed()),
        failed,
    }
}

/// A plugin that cannot even be asked for its health is not well; one without
/// that service may be.
fn unreachable(health: &Health, session: &StartedPlugin, args: &PluginArgs) -> Option<Failure> {
    let code = health.failed?;
    if matches!(code, Code::Unimplemented | Code::NotFound) {
        return None;
    }
    let name = printable(session.plugin.identity().name());
    let message = format!("plugin `{name}` started but did not answer a health check");
    let failure = Failure::new(Exit::Failed, "health-failed", message).note(&health.plugin);
    let tls_ruled_out = args.auto_mtls || code != Code::Unavailable;
    Some(last_words(failure, session, tls_ruled_out))
}

impl Reflection {
    fn not_asked() -> Self {
        Self {
            version: None,
            error: Some("not asked, because the health check got no answer".to_owned()),
            undescribed: Vec::new(),
            not_served: false,
        }
    }
}

async fn reflect(channel: &Channel) -> (Reflection, Vec<ListedService>) {
    match launch::describe(channel).await {
        Ok(catalogue) => {
            let services = descriptors::list(&catalogue);
            let undescribed = catalogue
                .undescribed
                .iter()
                .map(|u| format!("{}: {}", u.name, u.reason))
                .collect();
            let version = catalogue.version.map(|version| version.as_str());
            (
                Reflection {
                    version,
                    error: None,
                    undescribed,
                    not_served: false,
                },
                services,
            )
        }
        Err(failure) => {
            let not_served = failure.code == "reflection-not-served";
            (
                Reflection {
                    version: None,
                    error: Some(failure.message.into()),
                    undescribed: Vec::new(),
                    not_served,
                },
                Vec::new(),
            )
        }
    }
}

async fn end(session: &StartedPlugin) -> End {
    let plugin = &session.plugin;
    if let Some(report) = plugin.exited() {
        return ended(&report, "by-itself", None, "by itself, before it was asked");
    }
    if session.joined {
        return End {
            how: "left",
            status: None,
            signal: None,
            after_ms: None,
            text: "not at all: it was left running".to_owned(),
        };
    }
    let asked = Instant::now();
    let report = plugin.stop().await;
    let after = asked.elapsed();
    if let Some(reason) = report.kill_reason {
        let words = format!("only after it was killed: {reason}");
        ended(&report, "killed", Some(after), &words)
    } else {
        ended(&report, "asked", Some(after), "when asked")
    }
}

fn ended(report: &ExitReport, how: &'static str, after: Option<Duration>, words: &str) -> End {
    let (status, signal) = match report.status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
        ExitStatus::Unknown => (None, None),
    };
    let mut text = format!("{words}; it {}", report.status);
    if let Some(after) = after {
        let _ = write!(text, " after {}", shown(millis(after)));
    }
    End {
        how,
        status,
        signal,
        after_ms: after.map(millis),
        text,
    }
}

fn print(inspection: &Inspection, args: &PluginArgs) -> Result<(), Failure> {
    if args.json {
        output::plain(&pretty(inspection))
    } else {
        output::text(&render(inspection))
    }
}

fn pretty<T: Serialize>(value: &T) -> String {
    json::pretty(value).unwrap_or_else(|_| "null".to_owned()) + "\n"
}

/// The inspection for people. Everything the plugin chose is made printable.
fn render(found: &Inspection) -> String {
    let mut text = String::new();
    let bold = Style::new().bold();
    let mut fact = |label: &str, value: &str| {
        let _ = writeln!(text, "{bold}{label:<13}{bold:#} {value}");
    };
    fact("program", &printable(&found.program));
    fact(
        "pid",
        &found
            .pid
            .map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
    );
    fact("core version", &found.core_version.to_string());
    fact(
        "app version",
        &format!("{} (offered {})", found.app_version, found.offered),
    );
    fact("protocol", found.protocol);
    fact("network", found.network);
    fact("address", &printable(&found.address));
    fact(
        "tls",
        &match &found.tls.certificate_sha256 {
            Some(digest) => format!("AutoMTLS, plugin certificate sha256 {digest}"),
            None => "none".to_owned(),
        },
    );
    fact("broker", found.broker);
    if let Some(health) = &found.health {
        fact(
            "health",
            &format!(
                "{} after {}",
                printable(&health.plugin),
                shown(health.answered_ms)
            ),
        );
    }
    if let Some(ping) = &found.ping {
        let after = shown(ping.answered_ms);
        fact(
            "ping",
            &match &ping.error {
                None => format!("answered after {after}"),
                Some(error) => format!("failed after {after}: {error}"),
            },
        );
    }
    if let Some(reflection) = &found.reflection {
        let value = match (&reflection.version, &reflection.error) {
            (Some(version), _) => format!("grpc.reflection.{version}"),
            (None, error) => error
                .as_deref()
                .map_or_else(|| "none".to_owned(), printable),
        };
        fact("reflection", &value);
    }
    fact("started in", &start_text(&found.start));
    fact("memory", &memory_text(found.memory));
    fact("ended", &found.end.text);
    if let Some(manifest) = &found.manifest {
        fact("manifest", &manifest.file);
        fact("policy", &manifest.policy.to_string());
        fact(
            "grants",
            &format!(
                "{} granted, {} refused (`outrigger check` shows them), sandbox {}",
                manifest.granted, manifest.refused, manifest.sandbox
            ),
        );
        if let Some(lock) = &manifest.lock {
            let verdict = match &lock.objection {
                Some(shown) => format!("it {} in {}", shown.phrase(), lock.file),
                None => format!("{} in {}", lock.verdict, lock.file),
            };
            fact("approval", &verdict);
            for line in lock.objection.iter().flat_map(Shown::lines) {
                fact("", &line);
            }
        }
    }
    for note in &found.notes {
        fact("note", note);
    }
    services(&mut text, found);
    plugins(&mut text, found);
    text
}

fn plugins(text: &mut String, found: &Inspection) {
    if found.plugins.is_empty() {
        return;
    }
    let bold = Style::new().bold();
    let _ = writeln!(text, "\n{bold}plugins{bold:#}");
    for plugin in &found.plugins {
        let after = shown(plugin.after_ms);
        let outcome = match &plugin.error {
            None => format!("dispensed after {after}"),
            Some(error) => format!("not dispensed: {error}"),
        };
        let _ = writeln!(text, "  {}: {outcome}", printable(&plugin.name));
    }
}

fn start_text(start: &StartTimes) -> String {
    let steps = [
        ("process", start.spawn_ms),
        ("handshake", start.handshake_ms),
        ("connection", start.connect_ms),
    ];
    let steps: Vec<String> = steps
        .iter()
        .filter_map(|(step, time)| time.map(|time| format!("{step} {}", shown(time))))
        .collect();
    format!("{} ({})", shown(start.ready_ms), steps.join(", "))
}

fn memory_text(memory: Option<Memory>) -> String {
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    match memory {
        Some(memory) => {
            format!(
                "{} resident, {} at most",
                mib(memory.resident_kib),
                mib(memory.peak_kib)
            )
        }
        None => "unknown".to_owned(),
    }
}

fn services(text: &mut String, found: &Inspection) {
    let bold = Style::new().bold();
    if !found.services.is_empty() {
        let _ = writeln!(text, "\n{bold}services{bold:#}");
    }
    for service in &found.services {
        let _ = writeln!(text, "  {bold}{}{bold:#}", printable(&service.name));
        match &service.file {
            Some(_) => {
                for method in &service.methods {
                    let _ = writeln!(text, "    {}", printable(&signature(method)));
                }
            }
            None => text.push_str("    (listed, not described)\n"),
        }
    }
    let undescribed = found
        .reflection
        .iter()
        .flat_map(|reflection| &reflection.undescribed);
    for name in undescribed {
        let _ = writeln!(text, "  not described: {}", printable(name));
    }
}

fn signature(method: &ListedMethod) -> String {
    let (request, reply) = match method.kind {
        "client-stream" => ("stream ", ""),
        "server-stream" => ("", "stream "),
        "bidi-stream" => ("stream ", "stream "),
        _ => ("", ""),
    };
    format!(
        "{}({request}{}) -> {reply}{}",
        method.name, method.request, method.reply
    )
}

/// Versions as ranges: `0-99`, `1,3`.
fn ranges(versions: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for version in versions {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(*version) => *end = *version,
            _ => runs.push((*version, *version)),
        }
    }
    let shown = |(from, to): &(u32, u32)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// Milliseconds with one decimal.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn shown(millis: f64) -> String {
    format!("{millis:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_shown_as_ranges() {
        let show = |versions: &[u32]| ranges(&versions.iter().copied().collect());
        assert_eq!(show(&[5]), "5");
        assert_eq!(show(&[1, 2, 3, 7, 9, 10]), "1-3,7,9-10");
        assert_eq!(show(&[0, u32::MAX]), "0,4294967295");
    }

    #[test]
    fn signatures_show_what_streams() {
        let method = |kind| ListedMethod {
            name: "Do".into(),
            kind,
            request: "p.In".into(),
            reply: "p.Out".into(),
        };
        assert_eq!(signature(&method("unary")), "Do(p.In) -> p.Out");
        assert_eq!(
            signature(&method("bidi-stream")),
            "Do(stream p.In) -> stream p.Out"
        );
    }
}
