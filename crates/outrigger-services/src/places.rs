//! Where commands work: the plugin's temporary directory, a granted one, and a
//! home that the plugin itself does not reach.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use outrigger_manifest::Permissions;

use crate::fault::Fault;
use crate::fs::temp::TempArea;
use crate::session::Session;

pub(crate) fn temp_dir(session: &Arc<Session>) -> Result<PathBuf, Fault> {
    session.temp_dir()
}

pub(crate) fn granted_dir(
    session: &Arc<Session>,
    path: &str,
    needs: Permissions,
) -> Result<(OwnedFd, String), Fault> {
    crate::fs::granted_dir(session, path, needs)
}

/// A second private directory: who may write `$HOME` steers what runs with it.
#[derive(Debug, Default)]
pub(crate) struct Home(OnceLock<(TempArea, String)>);

impl Home {
    pub(crate) fn get(&self, session: &Session) -> Result<&str, Fault> {
        if self.0.get().is_none() {
            let area = TempArea::create(&session.shared().temp_root)?;
            let path = area.area().canonical.to_string_lossy().into_owned();
            // Whoever was first keeps theirs; the other one is removed.
            let _ = self.0.set((area, path));
        }
        self.0
            .get()
            .map(|(_, path)| path.as_str())
            .ok_or(Fault::Broken)
    }
}
