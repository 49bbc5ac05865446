//! One plugin in the lock file.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use outrigger_manifest::{PluginName, Requests};
use outrigger_wire::ExpectedDigest;
use semver::Version;
use toml_edit::Table;

/// A version of a plugin as it was approved.
#[derive(Clone, Debug)]
pub struct Locked {
    pub(super) name: PluginName,
    pub(super) version: Option<Version>,
    pub(super) digests: BTreeSet<PlatformDigest>,
    pub(super) approved: Requests,
    pub(super) requested_digest: String,
    pub(super) pinned: bool,
    /// As it was read: with its comments, and with keys that only newer programs know.
    pub(super) table: Table,
}

/// What a plugin's program hashes to on one kind of machine: `sha256:… linux-x86_64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlatformDigest {
    // The platform first: all builds of one machine stand together.
    platform: String,
    digest: String,
}

impl Locked {
    /// The plugin's name.
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// Its version, if its manifest names one.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// What its program may hash to, for each kind of machine.
    pub fn digests(&self) -> impl Iterator<Item = &PlatformDigest> {
        self.digests.iter()
    }

    /// What it was allowed to ask for.
    pub fn approved(&self) -> &Requests {
        &self.approved
    }

    /// Whether this version is the one to use, whatever others there are.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Whether a program that hashes to this may run on this kind of machine.
    pub fn knows(&self, digest: &ExpectedDigest) -> bool {
        self.digests.contains(&PlatformDigest::here(digest))
    }
}

impl PlatformDigest {
    /// A digest on the kind of machine that this program runs on.
    pub fn here(digest: &ExpectedDigest) -> Self {
        Self {
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            digest: digest.to_string(),
        }
    }

    /// The kind of machine, such as `linux-x86_64`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// What the program hashes to there, such as `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl fmt::Display for PlatformDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.digest, self.platform)
    }
}

impl FromStr for PlatformDigest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (digest, platform) = text.split_once(' ').ok_or(())?;
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let good = (1..=64).contains(&platform.len()) && platform.chars().all(letter);
        // One spelling alone, as digests are compared as texts.
        let known: ExpectedDigest = digest.parse().map_err(|_| ())?;
        if !good || known.to_string() != digest {
            return Err(());
        }
        Ok(Self {
            platform: platform.to_owned(),
            digest: digest.to_owned(),
        })
    }
}

/// The digest by which changed requests are seen.
pub(super) fn digest_of(requests: &Requests) -> String {
    let lines: String = requests
        .lines()
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    // Reading what is in memory cannot fail.
    let digest = ExpectedDigest::of(lines.as_bytes());
    digest.map(|digest| digest.to_string()).unwrap_or_default()
}
