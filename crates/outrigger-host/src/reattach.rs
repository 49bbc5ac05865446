//! Joining a plugin that already runs.

use std::io;

use async_trait::async_trait;
use outrigger_transport::process::ProcessHandle;
use outrigger_wire::{Address, AppProtocolVersion, Transport};

use crate::exit::ExitStatus;
use crate::process::kill;
use crate::runner::AttachedRunner;

/// How to join a plugin that already runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reattach {
    /// Which RPC the plugin speaks.
    pub transport: Transport,
    /// The version of its interfaces.
    pub version: AppProtocolVersion,
    /// Where it listens.
    pub address: Address,
    /// Its process, where known.
    pub pid: Option<u32>,
    /// When the process started, in clock ticks since boot: with it, a process
    /// that only got the same pid is not mistaken for the plugin.
    pub started: Option<u64>,
    /// The plugin runs in test mode: it is visited, never stopped.
    pub test: bool,
}

/// A process that this host did not start. It is only ever signalled through a
/// hold taken before its address was found alive.
pub(crate) struct Visited {
    pid: u32,
    process: ProcessHandle,
}

impl Visited {
    pub(crate) fn find(pid: u32, started: Option<u64>) -> io::Result<Self> {
        let process = ProcessHandle::open(pid)?;
        if started.is_some() && process.started() != started {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, process })
    }
}

#[async_trait]
impl AttachedRunner for Visited {
    async fn wait(&self) -> ExitStatus {
        // It is no child of ours, so its status is not ours to learn.
        self.process.ended().await;
        ExitStatus::Unknown
    }

    fn kill(&self) -> io::Result<()> {
        kill(&self.process)
    }

    fn id(&self) -> String {
        self.pid.to_string()
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

/// A plugin without a process of its own to hold: one in test mode.
pub(crate) struct Nobody;

#[async_trait]
impl AttachedRunner for Nobody {
    async fn wait(&self) -> ExitStatus {
        std::future::pending().await
    }

    fn kill(&self) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> String {
        String::new()
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}
