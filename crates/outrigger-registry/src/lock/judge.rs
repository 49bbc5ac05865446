//! What the lock file makes of a plugin that is installed.

use outrigger_manifest::{Grave, LockMode, Manifest, PluginName, RequestChanges, Requests};
use outrigger_wire::ExpectedDigest;
use semver::Version;

use super::entry::digest_of;
use super::text::Lock;

/// What is there: a plugin's manifest, and what its program hashes to.
#[derive(Clone, Copy, Debug)]
pub struct Installed<'i> {
    manifest: &'i Manifest,
    digest: &'i ExpectedDigest,
}

impl<'i> Installed<'i> {
    /// A plugin with this manifest whose program hashes to `digest`.
    pub fn new(manifest: &'i Manifest, digest: &'i ExpectedDigest) -> Self {
        Self { manifest, digest }
    }

    /// What its program hashes to.
    pub fn digest(&self) -> &'i ExpectedDigest {
        self.digest
    }

    fn name(&self) -> &'i PluginName {
        self.manifest.name()
    }

    fn version(&self) -> Option<&'i Version> {
        self.manifest.version()
    }

    fn requests(&self) -> &'i Requests {
        self.manifest.requests()
    }
}

/// What the lock file makes of a plugin.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum LockVerdict {
    /// It is locked just as it is.
    Known,
    /// Nobody has seen it before. It may run, and is to be recorded.
    FirstUse,
    /// Its program, version or requests changed, and it asks for nothing that was not approved.
    /// It may run, and is to be recorded.
    Covered,
    /// It must not run before a person approves it.
    NeedsApproval(Box<Objection>),
    /// It must not run, as it is not what the lock file says.
    Differs(Box<Objection>),
}

/// Why a plugin must not run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Objection {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version, if its manifest names one.
    pub version: Option<Version>,
    /// What its program hashes to: what an approval is about.
    pub digest: ExpectedDigest,
    /// What it is.
    pub why: Why,
    /// How its requests differ from those that were approved; of a plugin that nobody has seen
    /// before, all of them.
    pub changes: RequestChanges,
    /// What of that nobody trusts without looking.
    pub grave: Vec<Grave>,
}

/// What a person is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Nobody has seen the plugin before.
    FirstUse,
    /// It asks for more than was approved.
    AsksForMore,
    /// It is a version that nobody has seen before. It asks for no more.
    NewVersion,
    /// Its program is another one. It asks for no more.
    NewProgram,
    /// It asks for less, or for the same in other words.
    AsksForLess,
}

impl Why {
    /// `first-use`, `asks-for-more`, `new-version`, `new-program` or `asks-for-less`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstUse => "first-use",
            Self::AsksForMore => "asks-for-more",
            Self::NewVersion => "new-version",
            Self::NewProgram => "new-program",
            Self::AsksForLess => "asks-for-less",
        }
    }

    /// The same for people, after the plugin's name.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::FirstUse => "was never approved here",
            Self::AsksForMore => "asks for more than was approved",
            Self::NewVersion => "has a version that was never approved here",
            Self::NewProgram => "has another program than the one that was approved",
            Self::AsksForLess => "asks for less than was approved",
        }
    }
}

impl LockVerdict {
    /// Whether the plugin may run.
    pub fn allows(&self) -> bool {
        self.objection().is_none()
    }

    /// Whether the plugin is to be recorded before it runs.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::FirstUse | Self::Covered)
    }

    /// Why the plugin must not run.
    pub fn objection(&self) -> Option<&Objection> {
        match self {
            Self::Known | Self::FirstUse | Self::Covered => None,
            Self::NeedsApproval(objection) | Self::Differs(objection) => Some(objection),
        }
    }

    /// `known`, `first-use`, `covered`, `needs-approval` or `lock-differs`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::FirstUse => "first-use",
            Self::Covered => "covered",
            Self::NeedsApproval(_) => "needs-approval",
            Self::Differs(_) => "lock-differs",
        }
    }
}

impl Lock {
    /// What this makes of a plugin that is installed.
    pub fn judge(&self, installed: Installed<'_>, mode: LockMode) -> LockVerdict {
        let Some((why, changes)) = self.differs(installed) else {
            return LockVerdict::Known;
        };
        let grave = match why {
            Why::FirstUse => installed.requests().never_on_first_use(),
            Why::AsksForMore | Why::NewVersion | Why::NewProgram | Why::AsksForLess => Vec::new(),
        };
        let objection = |changes, grave| {
            Box::new(Objection {
                plugin: installed.name().clone(),
                version: installed.version().cloned(),
                digest: installed.digest.clone(),
                why,
                changes,
                grave,
            })
        };
        match (mode, why) {
            (LockMode::TrustFirst, Why::FirstUse) if grave.is_empty() => LockVerdict::FirstUse,
            (LockMode::TrustFirst, Why::NewVersion | Why::NewProgram | Why::AsksForLess) => {
                LockVerdict::Covered
            }
            (
                LockMode::Locked,
                Why::FirstUse | Why::NewVersion | Why::NewProgram | Why::AsksForLess,
            ) => LockVerdict::Differs(objection(changes, grave)),
            (LockMode::TrustFirst | LockMode::Strict, _) | (LockMode::Locked, Why::AsksForMore) => {
                LockVerdict::NeedsApproval(objection(changes, grave))
            }
        }
    }

    /// In what a plugin is not just what is locked.
    fn differs(&self, installed: Installed<'_>) -> Option<(Why, RequestChanges)> {
        let requests = installed.requests();
        let exact = self.get(installed.name(), installed.version());
        let Some(locked) = exact.or_else(|| self.newest(installed.name())) else {
            return Some((Why::FirstUse, requests.changes_from(&Requests::none())));
        };
        let changes = requests.changes_from(&locked.approved);
        let why = if changes.widen() {
            Why::AsksForMore
        } else if exact.is_none() {
            Why::NewVersion
        } else if !locked.knows(installed.digest) {
            Why::NewProgram
        } else if locked.requested_digest != digest_of(requests) {
            Why::AsksForLess
        } else {
            return None;
        };
        Some((why, changes))
    }

    /// Records what a verdict lets through without a person: what was approved stays approved.
    pub fn admit(&mut self, installed: Installed<'_>) {
        let (name, version) = (installed.name(), installed.version());
        self.record(name, version, installed.digest, installed.requests(), false);
    }

    /// Records that a person approved all that the plugin asks for, and just this program.
    pub fn approve(&mut self, installed: Installed<'_>) {
        let (name, version) = (installed.name(), installed.version());
        self.record(name, version, installed.digest, installed.requests(), true);
    }
}
