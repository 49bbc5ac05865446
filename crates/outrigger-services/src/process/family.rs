//! What a plugin's commands started and left behind.
//!
//! A command's process group ends with the command. What left that group is
//! known by a variable that it inherited, with a value that no other process
//! has.

use outrigger_transport::family;
use uuid::Uuid;

/// The variable that every command of one plugin is started with.
const VARIABLE: &str = "OUTRIGGER_COMMAND_OF";

/// The mark of the commands of one plugin connection.
#[derive(Clone, Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The variable that carries it.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// Kills every process that inherited the mark. Blocks as [`family::end`] does.
    pub(crate) fn end_all(&self) {
        let variable = format!("{VARIABLE}={}", self.0);
        if !family::end(variable.as_bytes()) {
            tracing::warn!("descendants of a plugin's commands may be left");
        }
    }
}
