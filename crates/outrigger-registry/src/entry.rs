//! What was found in the folder of one plugin.

use std::path::{Path, PathBuf};

use outrigger_wire::ExpectedDigest;

use crate::bundle::Bundle;
use crate::digest_cache::DigestCache;
use crate::error::{RegistryError, RegistryErrorKind};

/// A plugin's folder, and what was found in it.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: PathBuf,
    /// The manifest's name, or the folder's where there is none.
    name: String,
    state: EntryState,
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
        /// What it must hash to, if a checksum file says so.
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
    /// Looks at what there is at `folder`.
    pub(crate) fn read(folder: PathBuf, checksum_required: bool) -> Self {
        let read = match folder.metadata() {
            Ok(_) => Bundle::open(&folder),
            Err(source) => Err(RegistryErrorKind::PluginFolder {
                path: folder.clone(),
                source,
            }
            .into()),
        };
        let name = match &read {
            Ok(bundle) => bundle.name().into(),
            Err(_) => folder.file_name().unwrap_or_default().to_string_lossy(),
        };
        let name = name.into_owned();
        let state = match read {
            Ok(bundle) => available(bundle, checksum_required),
            Err(error) => EntryState::Unusable {
                bundle: None,
                error,
            },
        };
        Self {
            folder,
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

    /// Makes it unusable, whatever it was.
    pub(crate) fn refuse(&mut self, error: RegistryError) {
        let bundle = self.bundle().cloned();
        self.state = EntryState::Unusable { bundle, error };
    }
}

fn available(bundle: Bundle, checksum_required: bool) -> EntryState {
    let looked_at = || {
        let program = bundle.executable()?;
        let checksum = match checksum_required {
            true => Some(bundle.required_digest(&program)?),
            false => bundle.expected_digest(&program)?,
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
