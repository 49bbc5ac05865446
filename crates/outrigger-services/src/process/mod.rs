//! Commands of the whitelist, run by the host for a plugin.

mod child;
mod family;
mod output;
mod program;
mod spawn;
mod table;
mod variables;

#[cfg(test)]
mod tests;
