//! One plugin's folder: its manifest, its program and its checksum file.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::Manifest;
use outrigger_wire::{DigestError, ExpectedDigest};
use rustix::fs::Access;
use semver::Version;

use crate::checksum::checksum_of;
use crate::digest_cache::DigestCache;
use crate::error::{RegistryError, RegistryErrorKind};
use crate::file::{no_regular_file, regular};
use crate::file_kind::FileKind;
use crate::signature::{self, SignatureError, Signed, Trust};
use crate::source::{SourceFile, alike};

/// The most bytes that a checksum file may have.
const LARGEST_CHECKSUMS: u64 = 1 << 20;

/// A plugin's folder with a sound manifest. What else is in it is looked at when it is asked for,
/// and each time anew. Clones share the manifest.
///
/// # Examples
/// ```
/// use outrigger_registry::Bundle;
/// use outrigger_wire::Coded;
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("manifest.yaml"), "
/// plugin: {name: lister, format: grpc, entrypoint: bin/lister}
/// handshake: {protocol_version: 1, magic_cookie_key: LISTER, magic_cookie_value: hello}
/// ")?;
/// let bundle = Bundle::open(folder.path())?;
/// assert_eq!(bundle.name(), "lister");
/// assert_eq!(bundle.program().unwrap_err().code(), "entrypoint-not-found");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    /// Where the manifest stands, if it is from a file.
    file: Option<PathBuf>,
    /// What that file hashes to.
    manifest_digest: Option<ExpectedDigest>,
    manifest: Arc<Manifest>,
}

impl Bundle {
    /// The plugin in the folder at `path`, or the one whose manifest is the file there.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Unreadable`] and [`RegistryErrorKind::Invalid`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RegistryError> {
        Self::read(&SourceFile::read(path, FileKind::Manifest)?)
    }

    /// The plugin whose manifest this file is.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Invalid`].
    pub fn read(source: &SourceFile) -> Result<Self, RegistryError> {
        let manifest = source
            .manifest()
            .map_err(|problems| RegistryErrorKind::Invalid(FileKind::Manifest, problems))?;
        let folder = match source.path().parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            folder: folder.to_owned(),
            file: Some(source.path().to_owned()),
            // Nothing fails in reading from memory.
            manifest_digest: ExpectedDigest::of(source.bytes()).ok(),
            manifest: Arc::new(manifest),
        })
    }

    /// A plugin whose manifest comes from the program. Its entrypoint is in `folder`.
    pub fn new(manifest: Manifest, folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            file: None,
            manifest_digest: None,
            manifest: Arc::new(manifest),
        }
    }

    /// The same plugin by another path of its folder, such as one without links.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// The name in its manifest.
    pub fn name(&self) -> &str {
        self.manifest.name().as_str()
    }

    /// The version in its manifest.
    pub fn version(&self) -> Option<&Version> {
        self.manifest.version()
    }

    /// What it is and asks for.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file that its manifest was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its program: the first file of those that its entrypoint may mean.
    ///
    /// # Errors
    /// [`RegistryErrorKind::Entrypoint`] and [`RegistryErrorKind::Unusable`].
    pub fn program(&self) -> Result<PathBuf, RegistryError> {
        let tried = self.programs();
        let mut unusable = None;
        for program in &tried {
            let source = match program.metadata() {
                Ok(metadata) if metadata.is_file() => return Ok(program.clone()),
                Ok(_) => no_regular_file(),
                Err(error) if is_absent(&error) => continue,
                Err(error) => error,
            };
            unusable.get_or_insert((program, source));
        }
        let plugin = self.name().to_owned();
        let error = match unusable {
            Some((program, source)) => RegistryErrorKind::Unusable {
                plugin,
                program: program.clone(),
                source,
            },
            None => RegistryErrorKind::Entrypoint {
                plugin,
                manifest: self.file.clone(),
                entrypoint: self.manifest.entrypoint().clone(),
                alike: tried.first().map(|path| alike(path)).unwrap_or_default(),
                tried,
            },
        };
        Err(error.into())
    }

    /// Its program, if this user may execute it, as far as that is seen without doing so.
    ///
    /// # Errors
    /// As for [`program`](Self::program), and [`RegistryErrorKind::NotExecutable`].
    pub fn executable(&self) -> Result<PathBuf, RegistryError> {
        let program = self.program()?;
        if rustix::fs::access(&program, Access::EXEC_OK).is_ok() {
            return Ok(program);
        }
        let mode = program.metadata().map(|found| found.permissions().mode());
        Err(RegistryErrorKind::NotExecutable {
            plugin: self.name().to_owned(),
            mode: mode.unwrap_or_default() & 0o7777,
            program,
        }
        .into())
    }

    /// What `plugin.sha256` in its folder, or else `PROGRAM.sha256` beside its program, says that
    /// the program hashes to; nothing if neither is there.
    ///
    /// # Errors
    /// [`RegistryErrorKind::ChecksumUnreadable`] and [`RegistryErrorKind::Checksum`].
    pub fn expected_digest(&self, program: &Path) -> Result<Option<ExpectedDigest>, RegistryError> {
        for path in self.checksum_files(program) {
            let text = match regular(&path, LARGEST_CHECKSUMS) {
                Ok(text) => text,
                Err(error) if is_absent(&error) => continue,
                Err(source) => {
                    return Err(RegistryErrorKind::ChecksumUnreadable { path, source }.into());
                }
            };
            let within = program.strip_prefix(&self.folder).unwrap_or(program);
            let digest = checksum_of(&text, within)
                .map_err(|source| RegistryErrorKind::Checksum { path, source })?;
            return Ok(Some(digest));
        }
        Ok(None)
    }

    /// What its checksum file says that the program hashes to.
    ///
    /// # Errors
    /// As for [`expected_digest`](Self::expected_digest), and
    /// [`RegistryErrorKind::ChecksumMissing`].
    pub fn required_digest(&self, program: &Path) -> Result<ExpectedDigest, RegistryError> {
        self.expected_digest(program)?.ok_or_else(|| {
            RegistryErrorKind::ChecksumMissing {
                plugin: self.name().to_owned(),
                tried: self.checksum_files(program).into(),
            }
            .into()
        })
    }

    /// What its program hashes to by a list of its files that somebody trusted signed. The
    /// manifest is the one that was signed; no other file is read.
    ///
    /// # Errors
    /// As for [`program`](Self::program), and [`RegistryErrorKind::Signature`].
    pub fn signed_digest(&self, trust: &Trust) -> Result<ExpectedDigest, RegistryError> {
        let program = self.program()?;
        let signed = trust.signed(&self.folder);
        let digest = signed.and_then(|signed| self.by(&signed, &program));
        digest.map_err(|source| self.unsigned(source))
    }

    /// As [`signed_digest`](Self::signed_digest), when every file of the plugin is the one that
    /// was signed, and there is no other. Reads the files that the cache does not know.
    ///
    /// # Errors
    /// As for [`signed_digest`](Self::signed_digest).
    pub fn check_signature(
        &self,
        trust: &Trust,
        known: &DigestCache,
    ) -> Result<ExpectedDigest, RegistryError> {
        let program = self.program()?;
        let signed = trust.signed(&self.folder);
        let digest = signed.and_then(|signed| {
            signed.check(known)?;
            self.by(&signed, &program)
        });
        digest.map_err(|source| self.unsigned(source))
    }

    /// The program's digest by what was signed, which the manifest is, too.
    fn by(&self, signed: &Signed, program: &Path) -> Result<ExpectedDigest, SignatureError> {
        let name = FileKind::Manifest.usual_name();
        let file = self.file.clone().unwrap_or_else(|| self.folder.join(name));
        let file = self.folder.join(file.file_name().unwrap_or_default());
        let manifest = signed.digest_of(&file)?;
        if let Some(read) = &self.manifest_digest {
            let changed = |source| SignatureError::Changed(name.to_owned(), source);
            manifest.matches(read).map_err(changed)?;
        }
        signed.digest_of(program).cloned()
    }

    fn unsigned(&self, source: SignatureError) -> RegistryError {
        let plugin = self.name().to_owned();
        RegistryErrorKind::Signature { plugin, source }.into()
    }

    /// The files whose content, beside its manifest's, makes it what it is; not all need exist.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let programs = self.programs();
        let mut files = vec![self.folder.join(signature::SIGNATURE)];
        files.extend(programs.iter().flat_map(|it| self.checksum_files(it)));
        files.extend(programs);
        files
    }

    /// Where its program may be, the likeliest first.
    fn programs(&self) -> Vec<PathBuf> {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        let candidates = self
            .manifest
            .entrypoint()
            .candidates(name.unwrap_or_default());
        candidates.iter().map(|at| self.folder.join(at)).collect()
    }

    /// Where a checksum file may be, the one that counts first.
    fn checksum_files(&self, program: &Path) -> [PathBuf; 2] {
        let mut beside = program.as_os_str().to_owned();
        beside.push(".sha256");
        [self.folder.join(signature::LIST), beside.into()]
    }

    /// What its program hashes to. Reads the whole program if the cache does not know it.
    ///
    /// # Errors
    /// As for [`program`](Self::program) and [`expected_digest`](Self::expected_digest);
    /// [`RegistryErrorKind::Digest`] if the program is another one than its checksum file says,
    /// or cannot be read.
    pub fn digest(&self, known: &DigestCache) -> Result<ExpectedDigest, RegistryError> {
        let program = self.program()?;
        let expected = self.expected_digest(&program)?;
        let found = known
            .digest(&program)
            .map_err(DigestError::Unreadable)
            .and_then(|found| match &expected {
                Some(expected) => expected.matches(&found).map(|()| found),
                None => Ok(found),
            });
        found.map_err(|source| {
            RegistryErrorKind::Digest {
                plugin: self.name().to_owned(),
                program,
                source,
            }
            .into()
        })
    }
}

/// Whether there is nothing at a path, rather than something that cannot be looked at.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
