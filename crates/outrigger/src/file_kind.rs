//! Which of the files that people write one is.

/// What a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// What a plugin is and asks for: `manifest.yaml`.
    Manifest,
    /// What a host's plugins may have: `policy.yaml`.
    Policy,
}

impl FileKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Policy => "policy",
        }
    }

    /// The code of the error for a file that has problems.
    pub fn invalid(self) -> &'static str {
        match self {
            Self::Manifest => "manifest-invalid",
            Self::Policy => "policy-invalid",
        }
    }

    pub(crate) fn unreadable(self) -> &'static str {
        match self {
            Self::Manifest => "manifest-unreadable",
            Self::Policy => "policy-unreadable",
        }
    }

    pub(crate) fn usual_name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest.yaml",
            Self::Policy => "policy.yaml",
        }
    }
}
