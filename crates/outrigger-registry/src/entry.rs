//! What was found in the folder of one plugin.

use std::io;
use std::path::{Path, PathBuf};

use outrigger_wire::ExpectedDigest;
use semver::Version;

use crate::bundle::Bundle;
use crate::digest_cache::DigestCache;
use crate::error::{RegistryError, RegistryErrorKind};
use crate::signature::Trust;

/// A plugin's folder, and what was found in it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The folder in the folder of plugins: its own, or the one of all its versions.
    place: PathBuf,
    folder: PathBuf,
    /// What the folder's name says, if it is one of several versions.
    beside: Option<Version>,
    /// The manifest's name, or the folder's where there is none.
    name: String,
    state: EntryState,
}

/// What every plugin must have, beyond what none can do without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demands {
    /// A checksum file.
    pub(crate) checksum: bool,
    /// A signature of one of these.
    pub(crate) trust: Option<Trust>,
}

/// Whether a plugin can be used, as far as is seen without reading its program.
#[derive(Clone, Debug)]
pub enum EntryState {
    /// Its manifest is sound, and its program is there.
    #[non_exhaustive]
    Available {
        /// Its folder with its manifest.
        bundle: Bundle,
        /// The program, which this user may execute.
        program: PathBuf,
        /// What it must hash to, if a checksum file says so or a signature is demanded.
        checksum: Option<ExpectedDigest>,
    },
    /// It cannot be used.
    #[non_exhaustive]
    Unusable {
        /// Its folder with its manifest, if that is sound.
        bundle: Option<Bundle>,
        /// What is wrong.
        error: RegistryError,
    },
}

impl Entry {
    /// Looks at what there is at `place`.
    pub(crate) fn read(place: &Path, demands: &Demands) -> Self {
        Self::found(place, None, Bundle::open(place), demands)
    }

    /// Looks at one version in the folder of a plugin's versions.
    pub(crate) fn read_version(place: &Path, version: Version, demands: &Demands) -> Self {
        let folder = place.join(version.to_string());
        let read = Bundle::open(&folder).and_then(|bundle| {
            let plugin = name_of(place);
            let is_it = bundle.name() == plugin;
            if is_it && bundle.version().is_none_or(|own| *own == version) {
                return Ok(bundle);
            }
            let found = (bundle.name().to_owned(), bundle.version().cloned());
            let path = folder.clone();
            Err(RegistryErrorKind::Version {
                path,
                plugin,
                found,
            }
            .into())
        });
        Self::found(place, Some(version), read, demands)
    }

    /// What leads nowhere, in place of a plugin's folder.
    pub(crate) fn unreadable(place: &Path, source: io::Error) -> Self {
        let path = place.to_owned();
        let error = RegistryErrorKind::PluginFolder { path, source };
        Self::found(place, None, Err(error.into()), &Demands::default())
    }

    fn found(
        place: &Path,
        beside: Option<Version>,
        read: Result<Bundle, RegistryError>,
        demands: &Demands,
    ) -> Self {
        let folder = match &beside {
            Some(version) => place.join(version.to_string()),
            None => place.to_owned(),
        };
        let name = match &read {
            Ok(bundle) => bundle.name().to_owned(),
            Err(_) => name_of(place),
        };
        let state = match read {
            Ok(bundle) => available(bundle, demands),
            Err(error) => EntryState::Unusable {
                bundle: None,
                error,
            },
        };
        Self {
            place: place.to_owned(),
            folder,
            beside,
            name,
            state,
        }
    }

    /// The plugin's name in its manifest, or else that of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder in the folder of all plugins: its own, or the one that holds its versions.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Its version, as its manifest or its folder's name says.
    pub fn version(&self) -> Option<&Version> {
        let own = self.bundle().and_then(Bundle::version);
        own.or(self.beside.as_ref())
    }

    /// Whether its folder is that of one version, beside which there may be others.
    pub fn is_one_version(&self) -> bool {
        self.beside.is_some()
    }

    /// Whether it can be used.
    pub fn state(&self) -> &EntryState {
        &self.state
    }

    /// Its folder with its manifest, if that is sound. The program may be missing all the same.
    pub fn bundle(&self) -> Option<&Bundle> {
        match &self.state {
            EntryState::Available { bundle, .. } => Some(bundle),
            EntryState::Unusable { bundle, .. } => bundle.as_ref(),
        }
    }

    /// What is wrong with it.
    pub fn error(&self) -> Option<&RegistryError> {
        match &self.state {
            EntryState::Available { .. } => None,
            EntryState::Unusable { error, .. } => Some(error),
        }
    }

    /// What its program hashes to, which is what its checksum file says if it has one. Reads the
    /// program if the cache does not know it.
    ///
    /// # Errors
    /// What is wrong with it; [`RegistryErrorKind::Digest`].
    pub fn digest(&self, known: &DigestCache) -> Result<ExpectedDigest, RegistryError> {
        match &self.state {
            EntryState::Available { bundle, .. } => bundle.digest(known),
            EntryState::Unusable { error, .. } => Err(error.clone()),
        }
    }

    /// Whether a folder before this one holds a plugin of that name.
    pub(crate) fn is_second(&self) -> bool {
        let error = self.error().map(RegistryError::kind);
        matches!(error, Some(RegistryErrorKind::NameTaken { .. }))
    }

    /// Makes it unusable, whatever it was.
    pub(crate) fn refuse(&mut self, error: RegistryError) {
        let bundle = self.bundle().cloned();
        self.state = EntryState::Unusable { bundle, error };
    }
}

/// What a folder without a sound manifest is called.
fn name_of(place: &Path) -> String {
    let name = place.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn available(bundle: Bundle, demands: &Demands) -> EntryState {
    let looked_at = || {
        let program = bundle.executable()?;
        let checksum = match &demands.trust {
            Some(trust) => Some(bundle.signed_digest(trust)?),
            None if demands.checksum => Some(bundle.required_digest(&program)?),
            None => bundle.expected_digest(&program)?,
        };
        Ok((program, checksum))
    };
    match looked_at() {
        Ok((program, checksum)) => EntryState::Available {
            bundle,
            program,
            checksum,
        },
        Err(error) => EntryState::Unusable {
            bundle: Some(bundle),
            error,
        },
    }
}
