//! What a program must hash to, and the check that it does.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;

/// Bytes that are hashed at a time.
const CHUNK: usize = 64 << 10;

/// A hash function, by the name it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestAlgorithm {
    /// `sha256`.
    Sha256,
    /// `sha384`.
    Sha384,
    /// `sha512`.
    Sha512,
}

impl DigestAlgorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn of(self, content: impl Read) -> io::Result<Vec<u8>> {
        match self {
            Self::Sha256 => hash::<Sha256>(content),
            Self::Sha384 => hash::<Sha384>(content),
            Self::Sha512 => hash::<Sha512>(content),
        }
    }
}

fn hash<D: Digest>(mut content: impl Read) -> io::Result<Vec<u8>> {
    let mut digest = D::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(digest.finalize().to_vec()),
            Ok(read) => digest.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the content of a program must hash to.
///
/// # Examples
/// ```
/// use outrigger_wire::ExpectedDigest;
///
/// let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// let digest: ExpectedDigest = text.parse()?;
/// assert_eq!(digest.to_string(), text);
/// // What nothing hashes to.
/// assert_eq!(digest, ExpectedDigest::of(std::io::empty())?);
/// # Ok::<(), outrigger_wire::DigestError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpectedDigest {
    algorithm: DigestAlgorithm,
    bytes: Vec<u8>,
}

/// A program is not the one that was meant, or that could not be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The expected digest is empty.
    #[error("no checksum provided")]
    Missing,
    /// The text names no known hash function.
    #[error("`{0}` is not a known hash function; known are sha256, sha384 and sha512")]
    UnknownAlgorithm(String),
    /// The expected digest has the wrong length or other characters than hex digits.
    #[error("a {algorithm} digest has {expected} hex digits, found `{observed}`")]
    Malformed {
        /// The hash function.
        algorithm: &'static str,
        /// How many digits it takes.
        expected: usize,
        /// What was given, cut.
        observed: String,
    },
    /// The program could not be read.
    #[error("could not read the program to check its digest")]
    Unreadable(#[source] io::Error),
    /// The program has another content.
    #[error("the program's {algorithm} is {found}, expected {expected}")]
    Mismatch {
        /// The hash function.
        algorithm: &'static str,
        /// What the content hashes to.
        found: String,
        /// What it should hash to.
        expected: String,
    },
}

impl DigestError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "digest-missing",
            Self::UnknownAlgorithm(_) => "digest-algorithm-unknown",
            Self::Malformed { .. } => "digest-malformed",
            Self::Unreadable(_) => "digest-unreadable",
            Self::Mismatch { .. } => "digest-mismatch",
        }
    }
}

crate::coded!(DigestError);

impl ExpectedDigest {
    /// A SHA-256 digest.
    ///
    /// # Errors
    /// [`DigestError::Missing`] or [`DigestError::Malformed`].
    pub fn sha256(bytes: &[u8]) -> Result<Self, DigestError> {
        Self::new(DigestAlgorithm::Sha256, bytes)
    }

    /// A digest by any known hash function.
    ///
    /// # Errors
    /// [`DigestError::Missing`] or [`DigestError::Malformed`].
    pub fn new(algorithm: DigestAlgorithm, bytes: &[u8]) -> Result<Self, DigestError> {
        if bytes.is_empty() {
            return Err(DigestError::Missing);
        }
        if bytes.len() != algorithm.length() {
            return Err(malformed(algorithm, &HEXLOWER.encode(bytes)));
        }
        Ok(Self {
            algorithm,
            bytes: bytes.to_vec(),
        })
    }

    /// The SHA-256 digest of what is left to read of `content`, such as an open file.
    ///
    /// # Errors
    /// [`DigestError::Unreadable`].
    pub fn of(content: impl Read) -> Result<Self, DigestError> {
        let algorithm = DigestAlgorithm::Sha256;
        let bytes = algorithm.of(content).map_err(DigestError::Unreadable)?;
        Ok(Self { algorithm, bytes })
    }

    /// Checks what is left to read of `content`.
    ///
    /// # Errors
    /// [`DigestError::Unreadable`] or [`DigestError::Mismatch`].
    pub fn check(&self, content: impl Read) -> Result<(), DigestError> {
        let algorithm = self.algorithm;
        let bytes = algorithm.of(content).map_err(DigestError::Unreadable)?;
        self.matches(&Self { algorithm, bytes })
    }

    /// Checks the digest that a content was found to have.
    ///
    /// # Errors
    /// [`DigestError::Mismatch`], also where `found` is one of another hash function.
    pub fn matches(&self, found: &Self) -> Result<(), DigestError> {
        // The time of the comparison tells nothing about where they differ.
        let same: bool = found.bytes.ct_eq(&self.bytes).into();
        if same && found.algorithm == self.algorithm {
            return Ok(());
        }
        Err(DigestError::Mismatch {
            algorithm: self.algorithm.name(),
            found: HEXLOWER.encode(&found.bytes),
            expected: HEXLOWER.encode(&self.bytes),
        })
    }
}

fn malformed(algorithm: DigestAlgorithm, observed: &str) -> DigestError {
    DigestError::Malformed {
        algorithm: algorithm.name(),
        expected: algorithm.length() * 2,
        observed: crate::Excerpt::new(observed.as_bytes()).to_string(),
    }
}

impl fmt::Display for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.algorithm.name(),
            HEXLOWER.encode(&self.bytes)
        )
    }
}

impl FromStr for ExpectedDigest {
    type Err = DigestError;

    /// Reads `sha256:<hex>`, or hex digits alone for SHA-256.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, digits) = text
            .trim()
            .split_once(':')
            .unwrap_or(("sha256", text.trim()));
        let algorithm = match name.to_ascii_lowercase().as_str() {
            "sha256" => DigestAlgorithm::Sha256,
            "sha384" => DigestAlgorithm::Sha384,
            "sha512" => DigestAlgorithm::Sha512,
            other => return Err(DigestError::UnknownAlgorithm(other.to_owned())),
        };
        if digits.is_empty() {
            return Err(DigestError::Missing);
        }
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| malformed(algorithm, digits))?;
        if bytes.len() != algorithm.length() {
            return Err(malformed(algorithm, digits));
        }
        Ok(Self { algorithm, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_and_every_fault_in_it_named() {
        let code = |text: &str| text.parse::<ExpectedDigest>().expect_err("refused").code();
        assert_eq!(code(""), "digest-missing");
        assert_eq!(code("sha256:"), "digest-missing");
        assert_eq!(code("md5:00"), "digest-algorithm-unknown");
        assert_eq!(code("sha256:00"), "digest-malformed");
        assert_eq!(code("sha256:zz"), "digest-malformed");
        assert_eq!(code("sha256:é"), "digest-malformed");
        assert_eq!(
            ExpectedDigest::sha256(&[]).expect_err("refused").code(),
            "digest-missing"
        );
    }

    #[test]
    fn content_is_compared_whole() {
        let content = vec![7; CHUNK * 2 + 3];
        let digest = ExpectedDigest::of(&content[..]).expect("read");
        digest.check(&content[..]).expect("the same content");
        let longer = vec![7; CHUNK * 2 + 4];
        let error = digest.check(&longer[..]).expect_err("changed");
        assert_eq!(error.code(), "digest-mismatch");
    }
}
