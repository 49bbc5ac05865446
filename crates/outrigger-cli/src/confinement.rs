//! Whether the kernel holds plugins to their grants.

use outrigger::SandboxMode;

use crate::control::proto;

/// Nothing confines plugins yet: their grants hold for what they ask of the host,
/// and for nothing that they do by themselves.
pub(crate) const ENFORCED: bool = false;

/// What is said aloud of a plugin that is not confined as its manifest wants.
pub(crate) const UNSANDBOXED: &str = "unsandboxed";

/// What a manifest wants, and whether that is so.
pub(crate) fn of(wanted: SandboxMode) -> proto::Confinement {
    proto::Confinement {
        wanted: wanted.to_string(),
        enforced: ENFORCED,
    }
}

/// Whether a plugin lacks the confinement that its manifest wants.
pub(crate) fn is_missing(confinement: Option<&proto::Confinement>) -> bool {
    let off = SandboxMode::Off.to_string();
    confinement.is_some_and(|found| !found.enforced && found.wanted != off)
}
