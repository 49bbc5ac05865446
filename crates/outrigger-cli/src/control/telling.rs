//! What is known of plugins, as the control socket tells it.

use std::collections::BTreeMap;

use outrigger::{
    Coded as _, Entry, Error, Event, EventKind, Failure as PluginFailure, PluginState,
    PluginStatus, Plugins, SandboxMode,
};
use prost_types::Timestamp;

use crate::confinement;
use crate::control::proto::state::Kind;
use crate::control::{proto, usage};
use crate::failure::printable;

/// What manifests say that a status does not, by the names of their plugins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(BTreeMap<String, (String, SandboxMode)>);

impl Declared {
    pub(crate) fn of(plugins: &Plugins) -> Self {
        let sound = plugins
            .entries()
            .iter()
            .filter_map(|entry| entry.plugin().ok());
        let said = sound.map(|plugin| {
            let manifest = plugin.manifest();
            let kind = manifest.kind().unwrap_or_default().to_owned();
            (plugin.name().to_owned(), (kind, manifest.sandbox()))
        });
        Self(said.collect())
    }
}

/// A plugin of a run.
pub(crate) fn plugin(status: &PluginStatus, declared: &Declared) -> proto::Plugin {
    let said = declared.0.get(&status.name);
    proto::Plugin {
        name: status.name.clone(),
        version: status.version.clone().unwrap_or_default(),
        folder: printable(&status.folder.display().to_string()),
        protocol: status
            .transport
            .map(|transport| transport.as_str().to_owned())
            .unwrap_or_default(),
        r#type: said.map(|(kind, _)| kind.clone()).unwrap_or_default(),
        state: Some(state(&status.state)),
        generation: status.generation,
        pid: status.pid,
        since: Some(status.since.into()),
        restarts: status.restarts,
        digest: status.digest.clone().unwrap_or_default(),
        confinement: said.map(|(_, wanted)| confinement::of(*wanted)),
        usage: status.pid.and_then(usage::of),
        traffic: None,
        last_exit: status
            .last_exit
            .as_ref()
            .map(|report| report.status.to_string())
            .unwrap_or_default(),
    }
}

/// A plugin's folder that no run serves.
pub(crate) fn entry(entry: &Entry) -> proto::Plugin {
    let mut told = proto::Plugin {
        name: printable(entry.name()),
        folder: printable(&entry.folder().display().to_string()),
        ..proto::Plugin::default()
    };
    match entry.plugin() {
        Ok(plugin) => {
            let manifest = plugin.manifest();
            told.version = manifest
                .version()
                .map(ToString::to_string)
                .unwrap_or_default();
            told.protocol = manifest.transport().as_str().to_owned();
            told.r#type = manifest.kind().unwrap_or_default().to_owned();
            told.confinement = Some(confinement::of(manifest.sandbox()));
            told.state = Some(of_kind(Kind::Installed));
        }
        Err(error) => {
            told.state = Some(proto::State {
                why: Some(problem(error)),
                ..of_kind(Kind::Broken)
            });
        }
    }
    told
}

fn of_kind(kind: Kind) -> proto::State {
    proto::State {
        kind: kind.into(),
        ..proto::State::default()
    }
}

fn state(state: &PluginState) -> proto::State {
    match state {
        PluginState::Installed => of_kind(Kind::Installed),
        PluginState::Starting => of_kind(Kind::Starting),
        PluginState::Running => of_kind(Kind::Running),
        PluginState::Degraded { missed } => proto::State {
            why: Some(proto::Problem {
                code: "pings-unanswered".to_owned(),
                message: format!("it left {missed} pings in a row unanswered"),
                ..proto::Problem::default()
            }),
            ..of_kind(Kind::Degraded)
        },
        PluginState::Backoff {
            attempt,
            until,
            why,
        } => proto::State {
            why: Some(failed(why)),
            attempt: *attempt,
            until: Some(Timestamp::from(*until)),
            ..of_kind(Kind::Backoff)
        },
        PluginState::Stopping => of_kind(Kind::Stopping),
        PluginState::Stopped { .. } => of_kind(Kind::Stopped),
        PluginState::Failed { why } => proto::State {
            why: Some(failed(why)),
            ..of_kind(Kind::Failed)
        },
        PluginState::NeedsApproval(error) => proto::State {
            why: Some(problem(error)),
            diff: error.details().iter().map(|line| printable(line)).collect(),
            ..of_kind(Kind::NeedsApproval)
        },
        PluginState::Broken(error) => proto::State {
            why: Some(problem(error)),
            ..of_kind(Kind::Broken)
        },
        // A state that came later than this text has its name at least.
        other => proto::State {
            why: Some(proto::Problem {
                code: other.as_str().to_owned(),
                message: printable(&other.to_string()),
                ..proto::Problem::default()
            }),
            ..of_kind(Kind::Unspecified)
        },
    }
}

fn failed(why: &PluginFailure) -> proto::Problem {
    match why {
        PluginFailure::NotStarted(error) => problem(error),
        _ => proto::Problem {
            code: why.code().to_owned(),
            message: printable(&why.to_string()),
            details: why
                .report()
                .map(|report| {
                    let lines = report.stderr.iter();
                    lines
                        .map(|line| format!("stderr: {}", printable(line)))
                        .collect()
                })
                .unwrap_or_default(),
            help: why.hint().unwrap_or_default().into_owned(),
        },
    }
}

/// What is wrong with a plugin.
pub(crate) fn problem(error: &Error) -> proto::Problem {
    proto::Problem {
        code: error.code().to_owned(),
        message: printable(&error.to_string()),
        details: error.details().iter().map(|text| printable(text)).collect(),
        help: error.hint().unwrap_or_default().into_owned(),
    }
}

/// An event, as a word and as a sentence.
pub(crate) fn event(event: &Event) -> proto::Event {
    let kind = match &event.kind {
        EventKind::State { state, .. } => state.as_str(),
        _ => "other",
    };
    proto::Event {
        seq: event.seq,
        at: Some(event.at.into()),
        plugin: event.plugin.clone(),
        kind: kind.to_owned(),
        text: printable(&event.to_string()),
    }
}

/// A decision of a host's service.
pub(crate) fn audit(record: &outrigger::AuditRecord) -> proto::AuditRecord {
    proto::AuditRecord {
        time: Some(record.time.into()),
        plugin: record.plugin.to_string(),
        instance: record.instance.to_string(),
        pid: record.pid,
        client: record.client.clone(),
        request: record.request.clone(),
        capability: record.capability.to_owned(),
        operation: record.operation.to_owned(),
        argument: record.argument.clone(),
        verdict: record.verdict.as_str().to_owned(),
        rule: record.rule.clone(),
        code: record.code.to_owned(),
        reason: record.reason.clone(),
        missing: record.missing.clone(),
        bytes: record.bytes,
        took: std::time::Duration::from_micros(record.micros)
            .try_into()
            .ok(),
        digest: record
            .digest
            .as_deref()
            .map(str::to_owned)
            .unwrap_or_default(),
    }
}
