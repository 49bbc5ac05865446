//! Which of the two files somebody wrote.

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

    /// The code of the error for a file that cannot be read.
    pub fn unreadable(self) -> &'static str {
        match self {
            Self::Manifest => "manifest-unreadable",
            Self::Policy => "policy-unreadable",
        }
    }

    /// The name that such a file usually has.
    pub fn usual_name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest.yaml",
            Self::Policy => "policy.yaml",
        }
    }
}
