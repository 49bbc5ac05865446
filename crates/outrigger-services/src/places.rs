//! TEMPORARY until the filesystem service is here.
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::Permissions;

use crate::fault::Fault;
use crate::session::Session;

pub(crate) fn temp_dir(_: &Arc<Session>) -> Result<PathBuf, Fault> {
    Ok(std::env::temp_dir())
}

pub(crate) fn granted_dir(
    session: &Arc<Session>,
    path: &str,
    needs: Permissions,
) -> Result<(OwnedFd, String), Fault> {
    let grant = session
        .grants()
        .filesystem_verdict(Path::new(path), needs)?;
    Ok((std::fs::File::open(path)?.into(), grant.rule().to_string()))
}

#[derive(Debug, Default)]
pub(crate) struct Home(std::sync::OnceLock<String>);
impl Home {
    pub(crate) fn get(&self, _: &Session) -> Result<&str, Fault> {
        Ok(self.0.get_or_init(|| "/tmp/x".into()))
    }
}
