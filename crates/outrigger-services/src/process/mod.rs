//! Commands of the whitelist, run by the host for a plugin.

mod child;
mod family;
mod output;
mod processes;
pub(crate) mod program;
pub(crate) mod service;
mod spawn;
mod variables;

#[cfg(test)]
mod tests;
