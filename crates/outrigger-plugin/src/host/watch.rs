//! Changes of what is watched.

use std::path::PathBuf;

use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use tonic::{Status, Streaming};

use super::HostError;

/// What happened to something that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It is not what it was.
    Modified,
    /// It is gone.
    Removed,
    /// The host lost changes: what is there has to be looked at again.
    Overflow,
}

/// A change of something that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub path: PathBuf,
    /// How.
    pub kind: ChangeKind,
}

/// Changes beneath a path, until it is dropped.
#[derive(Debug)]
pub struct Watch(Streaming<messages::WatchResponse>);

impl Watch {
    /// Waits until the host says that it watches.
    pub(super) async fn begin(
        changes: Streaming<messages::WatchResponse>,
    ) -> Result<Self, HostError> {
        let mut watch = Self(changes);
        match watch.message().await? {
            Some(first) if first.kind() == messages::ChangeKind::Ready => Ok(watch),
            _ => Err(HostError::protocol("filesystem.watch")),
        }
    }

    /// The next change; nothing when the host has stopped watching.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Change>, HostError> {
        while let Some(change) = self.message().await? {
            let kind = match change.kind() {
                messages::ChangeKind::Created => ChangeKind::Created,
                messages::ChangeKind::Modified => ChangeKind::Modified,
                messages::ChangeKind::Removed => ChangeKind::Removed,
                messages::ChangeKind::Overflow => ChangeKind::Overflow,
                messages::ChangeKind::Ready | messages::ChangeKind::Unspecified => continue,
            };
            let path = change.path.into();
            return Ok(Some(Change { path, kind }));
        }
        Ok(None)
    }

    async fn message(&mut self) -> Result<Option<messages::WatchResponse>, HostError> {
        let lost = |status: Status| HostError::status("filesystem.watch", status);
        self.0.next().await.transpose().map_err(lost)
    }
}
