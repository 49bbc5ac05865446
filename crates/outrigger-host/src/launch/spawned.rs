//! The second step: the program runs, and its output is read.

use std::time::{Duration, Instant};

use outrigger_transport::{AutoMtls, OwnedTask};
use outrigger_wire::HandshakeError;
use tokio::sync::oneshot;

use super::builder::Launch;
use super::prepared::{Prepared, not_started};
use crate::diagnose::diagnose;
use crate::error::{Facts, LaunchError, LaunchErrorKind};
use crate::exit::ExitStatus;
use crate::logs::{self, Tail};
use crate::output::{self, FirstLine};
use crate::owned_process::{Output, OwnedProcess};
use crate::runner::{Command, RunnerError, Started};

/// How long a process that ended may take to flush what it printed.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// A process that has not said yet what it is.
pub(super) struct Spawned {
    pub(super) launch: Launch,
    pub(super) name: String,
    pub(super) certificate: Option<AutoMtls>,
    pub(super) command: Command,
    pub(super) held: OwnedProcess,
    /// What it prints first.
    pub(super) first: oneshot::Receiver<FirstLine>,
    /// How long it took to start it.
    pub(super) took: Duration,
}

impl Spawned {
    pub(super) async fn start(prepared: Prepared) -> Result<Self, LaunchError> {
        let (launch, command) = (&prepared.launch, &prepared.command);
        let limit = launch.settings.deadlines.start;
        let name = &prepared.name;
        let failed = match tokio::time::timeout(limit, launch.runner.start(command)).await {
            Ok(Ok(started)) => return Ok(Self::reading(prepared, started)),
            Ok(Err(RunnerError::Digest(error))) => {
                LaunchError::new(name, LaunchErrorKind::Digest(error))
            }
            Ok(Err(error)) => not_started(name, error, &command.program),
            Err(_) => LaunchError::new(name, LaunchErrorKind::HandshakeTimeout(limit)),
        };
        prepared.places.dropped().await;
        Err(failed)
    }

    /// Reads what the process prints from now on.
    fn reading(prepared: Prepared, started: Started) -> Self {
        let Prepared {
            mut launch,
            name,
            began,
            certificate,
            places,
            command,
            sockets: _,
            config: _,
        } = prepared;
        let spawned = Instant::now();
        let tail = Tail::default();
        let stderr = logs::pump(
            started.stderr,
            name.clone(),
            launch.log_buffer,
            launch.take_stderr(),
            tail.clone(),
        );
        let (line, first) = oneshot::channel();
        let output = Output {
            stdout: Some(OwnedTask::spawn(output::drain(started.stdout, line))),
            stderr: Some(OwnedTask::spawn(stderr)),
            tail,
        };
        Self {
            held: OwnedProcess::new(started.process, places, output, spawned),
            launch,
            name,
            certificate,
            command,
            first,
            took: spawned - began,
        }
    }

    /// Ends a process that became no plugin, and explains why it did not.
    pub(super) async fn fail(self, kind: LaunchErrorKind) -> LaunchError {
        let mut held = self.held;
        let early = matches!(
            kind,
            LaunchErrorKind::ExitedEarly
                | LaunchErrorKind::ExitedUnreached
                | LaunchErrorKind::Handshake(HandshakeError::TooFewFields { .. })
                | LaunchErrorKind::Connect(_)
        );
        // A plugin that printed something wrong is often about to end by itself.
        let patience = if early { LAST_WORDS } else { Duration::ZERO };
        let ended = tokio::time::timeout(patience, held.process().wait()).await;
        let ran = held.began.elapsed();
        if ended.is_err() {
            let _ = held.process().kill();
            let _ = tokio::time::timeout(LAST_WORDS, held.process().wait()).await;
        }
        held.output.ended(LAST_WORDS).await;
        let known = ended.ok().filter(|status| *status != ExitStatus::Unknown);
        let facts = Facts {
            diagnosis: Some(diagnose(&self.command.program)),
            stderr: held.output.tail.lines(),
            exit: known.map(|status| (status, ran)),
        };
        held.gone().await;
        let kind = match kind {
            // A plugin that went away while it was dialled did not refuse the connection.
            LaunchErrorKind::Connect(_) if facts.exit.is_some() => LaunchErrorKind::ExitedUnreached,
            kind => kind,
        };
        LaunchError {
            facts: Box::new(facts),
            ..LaunchError::new(&self.name, kind)
        }
    }
}
