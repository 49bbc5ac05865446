//! What the lock file makes of a plugin, and its approval by a person.

use outrigger_host::ExpectedDigest;
use outrigger_manifest::LockMode;
use outrigger_registry::{Installed, LockFile, LockVerdict};

use crate::error::{Error, ErrorKind};

/// What the lock file makes of a plugin as it is installed now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Approval {
    /// How strictly the lock file is taken.
    pub mode: LockMode,
    /// What its program hashes to.
    pub digest: ExpectedDigest,
    /// Whether it may start.
    pub verdict: LockVerdict,
}

/// What the lock file makes of what is installed.
pub(crate) fn judged(
    lock: &LockFile,
    mode: LockMode,
    installed: Installed<'_>,
) -> Result<LockVerdict, Error> {
    Ok(lock.read()?.judge(installed, mode))
}

/// Approves what is installed. Returns what the lock file made of it before.
pub(crate) fn approved(
    lock: &LockFile,
    mode: LockMode,
    installed: Installed<'_>,
) -> Result<LockVerdict, Error> {
    let approved = lock.update(|lock| {
        let before = lock.judge(installed, mode);
        lock.approve(installed);
        before
    });
    Ok(approved?)
}

/// Lets what is installed through the lock file, and records it there if it is new.
pub(crate) fn admitted(
    lock: &LockFile,
    mode: LockMode,
    installed: Installed<'_>,
) -> Result<LockVerdict, Error> {
    let mut verdict = judged(lock, mode, installed)?;
    if verdict.is_new() {
        // Somebody else may have changed the file since.
        verdict = lock.update(|lock| {
            let verdict = lock.judge(installed, mode);
            if verdict.is_new() {
                lock.admit(installed);
            }
            verdict
        })?;
    }
    match &verdict {
        LockVerdict::Known | LockVerdict::FirstUse | LockVerdict::Covered => Ok(verdict),
        LockVerdict::NeedsApproval(objection) | LockVerdict::Differs(objection) => {
            Err(ErrorKind::NotApproved {
                lock: lock.path().to_owned(),
                mode,
                code: verdict.as_str(),
                objection: objection.clone(),
            }
            .into())
        }
    }
}
