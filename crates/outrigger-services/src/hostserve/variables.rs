//! Environment variables and the directories that they name.

use crate::environment;
pub(super) use crate::environment::UserDir;
use crate::fault::Fault;
use crate::fs::Cx;

/// The value of `name`, empty where it is not set, as Go's `os.Getenv`.
pub(super) fn get(cx: &Cx, name: &str) -> Result<String, Fault> {
    Ok(environment::answer(&cx.session, &cx.notes, name)?.unwrap_or_default())
}
