//! Commands of the whitelist, run by the host for a plugin.

mod child;
mod family;
mod output;
mod processes;
mod program;
mod rpc;
mod spawn;
mod variables;

pub(crate) use processes::Process;
pub(crate) use program::Programs;
pub(crate) use rpc::{ProcessService, WeakProcessService, show};

#[cfg(test)]
mod tests;
