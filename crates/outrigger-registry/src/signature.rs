//! Signatures over what a plugin consists of.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::io;
use std::path::{Component, Path, PathBuf};

use minisign_verify::{Error as Minisign, PublicKey, Signature};
use outrigger_wire::{DigestError, ExpectedDigest};
use semver::Version;

use crate::checksum::{self, ChecksumError};
use crate::digest_cache::DigestCache;
use crate::file::regular;
use crate::shown::{self, quoted};

/// The list of files that is signed, as `sha256sum` prints it.
pub(crate) const LIST: &str = "plugin.sha256";
/// Its signature, under the name that minisign gives it.
pub(crate) const SIGNATURE: &str = "plugin.sha256.minisig";
/// The most bytes of a list.
const LARGEST_LIST: u64 = 1 << 20;
/// The most bytes of a signature; one takes some three hundred.
const LARGEST_SIGNATURE: u64 = 16 << 10;
/// The most files that a signed plugin may have.
const MOST_FILES: usize = 10_000;

/// Whose signatures count: the public keys of [minisign](https://jedisct1.github.io/minisign/).
///
/// What is signed is the list of all files of a plugin, `plugin.sha256`, as `sha256sum` prints it;
/// the signature is `plugin.sha256.minisig` beside it. The manifest and the program must be in the
/// list, and no file may be in the folder that is not. A signature says who made a plugin, not
/// which version of it is the newest.
///
/// # Examples
/// ```
/// use outrigger_registry::Trust;
///
/// let trust = Trust::new().key("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3")?;
/// assert_eq!(Trust::new().key("RWQf").unwrap_err().code(), "public-key-malformed");
/// # drop(trust);
/// # Ok::<(), outrigger_registry::SignatureError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

/// Why a plugin does not count as signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A text is no public key.
    #[error("{} is not a public key of minisign", quoted(.0))]
    Key(String),
    /// There is no list of files, or no signature of it.
    #[error("`{}` does not exist", shown::path(.0))]
    Missing(PathBuf),
    /// The list or the signature cannot be read.
    #[error("`{}` cannot be read", shown::path(.0))]
    Unreadable(PathBuf, #[source] io::Error),
    /// The signature is none of minisign's, or of a kind that is no longer made.
    #[error("`{}` is no signature of minisign", shown::path(.0))]
    Malformed(PathBuf),
    /// Somebody signed whose key is not trusted.
    #[error("it is signed with none of the {0} keys that are trusted")]
    Untrusted(usize),
    /// What was signed is not what is there.
    #[error("the signature is not that of `{}`", shown::path(.0))]
    Wrong(PathBuf),
    /// The list is none that `sha256sum` writes.
    #[error("the signed list of files cannot be read")]
    List(#[source] ChecksumError),
    /// A name in the list leads out of the folder, or stands there twice.
    #[error("the signed list names {}", quoted(.0))]
    Name(String),
    /// A file of the plugin is not in the list.
    #[error("the signed list says nothing of {}", quoted(.0))]
    Unlisted(String),
    /// A file is not what the list says, or cannot be read.
    #[error("{} is not the file that was signed", quoted(.0))]
    Changed(String, #[source] DigestError),
    /// There are more files than are looked at.
    #[error("there are more than {MOST_FILES} files")]
    TooMany,
}

impl SignatureError {
    /// The stable code of this kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(_) => "public-key-malformed",
            Self::Missing(_) => "signature-missing",
            Self::Unreadable(..) => "signature-unreadable",
            Self::Malformed(_) => "signature-malformed",
            Self::Untrusted(_) => "signature-untrusted",
            Self::Wrong(_) => "signature-wrong",
            Self::List(_) | Self::Name(_) => "signed-list-malformed",
            Self::Unlisted(_) | Self::TooMany => "signed-list-incomplete",
            Self::Changed(..) => "signed-file-changed",
        }
    }
}

outrigger_wire::coded!(SignatureError);

impl Trust {
    /// Nobody's.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts this key too: what minisign prints, or the text of its `.pub` file.
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn key(mut self, text: &str) -> Result<Self, SignatureError> {
        // A comment may stand before it.
        let key = text.trim().lines().next_back().unwrap_or_default().trim();
        let key = PublicKey::from_base64(key).map_err(|_| SignatureError::Key(key.to_owned()))?;
        self.keys.push(key);
        Ok(self)
    }

    /// The files of a plugin that somebody trusted has signed, with what they must hash to. No
    /// file but the list and the signature is read.
    pub(crate) fn signed(&self, folder: &Path) -> Result<Signed, SignatureError> {
        let (list_at, signature_at) = (folder.join(LIST), folder.join(SIGNATURE));
        let list = read(&list_at, LARGEST_LIST)?;
        let text = read(&signature_at, LARGEST_SIGNATURE)?;
        let text = String::from_utf8_lossy(&text);
        let malformed = || SignatureError::Malformed(signature_at.clone());
        let signature = Signature::decode(&text).map_err(|_| malformed())?;
        let mut outcome = Err(SignatureError::Untrusted(self.keys.len()));
        for key in &self.keys {
            outcome = match key.verify(&list, &signature, false) {
                Ok(()) => return Signed::parse(folder, &list),
                Err(Minisign::UnexpectedKeyId) => outcome,
                Err(Minisign::InvalidSignature) => Err(SignatureError::Wrong(list_at.clone())),
                Err(_) => Err(malformed()),
            };
        }
        outcome
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, SignatureError> {
    regular(path, most).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SignatureError::Missing(path.to_owned()),
        _ => SignatureError::Unreadable(path.to_owned(), error),
    })
}

/// What somebody trusted said of the files in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    folder: PathBuf,
    /// By their paths in it.
    files: BTreeMap<PathBuf, ExpectedDigest>,
}

impl Signed {
    fn parse(folder: &Path, list: &[u8]) -> Result<Self, SignatureError> {
        let mut files = BTreeMap::new();
        for line in checksum::lines(list).map_err(SignatureError::List)? {
            let name = || SignatureError::Name(String::from_utf8_lossy(&line.name).into_owned());
            let path = clean(&line.name).ok_or_else(name)?;
            if files.insert(path, line.digest.clone()).is_some() {
                return Err(name());
            }
        }
        let folder = folder.to_owned();
        Ok(Self { folder, files })
    }

    /// What a file of the plugin must hash to.
    pub(crate) fn digest_of(&self, file: &Path) -> Result<&ExpectedDigest, SignatureError> {
        let within = file.strip_prefix(&self.folder).unwrap_or(file);
        let listed = self.files.get(within);
        listed.ok_or_else(|| SignatureError::Unlisted(within.to_string_lossy().into_owned()))
    }

    /// Whether every file is what was signed, and there is no other. Reads those that the cache
    /// does not know.
    pub(crate) fn check(&self, known: &DigestCache) -> Result<(), SignatureError> {
        for (path, expected) in &self.files {
            let found = known.digest(&self.folder.join(path));
            found
                .map_err(DigestError::Unreadable)
                .and_then(|found| expected.matches(&found))
                .map_err(|source| {
                    SignatureError::Changed(path.to_string_lossy().into_owned(), source)
                })?;
        }
        let mut left = MOST_FILES;
        self.check_folder(Path::new(""), &mut left)
    }

    fn check_folder(&self, within: &Path, left: &mut usize) -> Result<(), SignatureError> {
        let folder = self.folder.join(within);
        let unreadable = |error| SignatureError::Unreadable(folder.clone(), error);
        for entry in folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            *left = left.checked_sub(1).ok_or(SignatureError::TooMany)?;
            let path = within.join(entry.file_name());
            let top = within.as_os_str().is_empty();
            if top && (is_own(&entry) || is_version(&entry)) {
                continue;
            }
            // A link to a folder is one name, and no folder of the plugin.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.check_folder(&path, left)?;
            } else if !self.files.contains_key(&path) {
                return Err(SignatureError::Unlisted(
                    path.to_string_lossy().into_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// Whether this is the list or its signature.
fn is_own(entry: &DirEntry) -> bool {
    [LIST, SIGNATURE]
        .iter()
        .any(|own| entry.file_name() == *own)
}

/// Whether this is the folder of another version of the plugin, which is a plugin of its own.
fn is_version(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_str().and_then(|name| name.parse::<Version>().ok());
    name.is_some() && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// A name in a list, as a path that stays in the folder.
fn clean(name: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!clean.as_os_str().is_empty()).then_some(clean)
}
