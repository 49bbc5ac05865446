//! What this service asks of the grants: one place to change when they do.

use outrigger_manifest::{Denial, Grants};

/// The commands that may be run, each once for every rule.
pub(super) fn commands(grants: &Grants) -> Vec<&str> {
    grants.process().commands().collect()
}

/// Which rule allows a command with these arguments.
pub(super) fn exec(grants: &Grants, command: &str, arguments: &[String]) -> Result<String, Denial> {
    Ok(grants.process().exec(command, arguments)?.to_string())
}

/// Something that a plugin does to the processes that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Kill,
    List,
    Signal,
}

pub(super) fn control(grants: &Grants, control: Control) -> Result<String, Denial> {
    let process = grants.process();
    let rule = match control {
        Control::Kill => process.kill()?,
        Control::List => process.list()?,
        Control::Signal => process.signal()?,
    };
    Ok(rule.to_string())
}

/// How many processes one plugin may have, if that was decided.
pub(super) fn most(grants: &Grants) -> Option<u32> {
    grants.resources().pids
}

/// How many files one command may have open, if that was decided.
pub(super) fn open_files(grants: &Grants) -> Option<u64> {
    grants.resources().open_files.map(u64::from)
}
