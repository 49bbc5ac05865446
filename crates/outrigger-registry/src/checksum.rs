//! Checksum files: what `sha256sum` prints about a plugin's program.

use std::borrow::Cow;
use std::path::Path;

use outrigger_wire::ExpectedDigest;

use crate::shown::quoted;

/// Hexadecimal digits of a SHA-256 digest.
const DIGITS: usize = 64;

/// Why a checksum file says nothing about a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The file has no line with a digest.
    #[error("the file has no checksum in it")]
    Empty,
    /// A line does not begin with a digest.
    #[error(
        "line {line}: {} is not a SHA-256 digest of {DIGITS} hexadecimal digits",
        quoted(found)
    )]
    Malformed {
        /// The line, counted from 1.
        line: usize,
        /// What stands where the digest is wanted.
        found: String,
    },
    /// None of several lines is about the program.
    #[error("none of its {lines} lines is about {}", quoted(program))]
    NotListed {
        /// How many lines there are.
        lines: usize,
        /// The program that was looked for.
        program: String,
    },
    /// Two lines about the program disagree.
    #[error("it has two different checksums for {}", quoted(.0))]
    Ambiguous(String),
}

impl ChecksumError {
    /// The stable code of this kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "checksum-empty",
            Self::Malformed { .. } => "checksum-malformed",
            Self::NotListed { .. } => "checksum-not-listed",
            Self::Ambiguous(_) => "checksum-ambiguous",
        }
    }
}

outrigger_wire::coded!(ChecksumError);

/// The SHA-256 digest of `program` that a checksum file states.
///
/// The file is what `sha256sum` prints, in all its forms: with a space or a `*` before the name,
/// with names that it escapes, with `--tag`, and with `--zero`. A line may also be a digest
/// alone. The only line of a file is taken whatever name it has: a digest of something else
/// cannot match. Of several lines, those with the program's path or file name are taken.
///
/// # Errors
/// See [`ChecksumError`].
///
/// # Examples
/// ```
/// use std::path::Path;
/// use outrigger_registry::checksum_of;
///
/// let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// let stated = checksum_of(format!("{digest}  cat\n").as_bytes(), Path::new("bin/cat"))?;
/// assert_eq!(stated.to_string(), format!("sha256:{digest}"));
/// assert_eq!(checksum_of(b"cat", Path::new("cat")).unwrap_err().code(), "checksum-malformed");
/// # Ok::<(), outrigger_registry::ChecksumError>(())
/// ```
pub fn checksum_of(file: &[u8], program: &Path) -> Result<ExpectedDigest, ChecksumError> {
    let lines = lines(file)?;
    if let [line] = &lines[..] {
        return Ok(line.digest.clone());
    }
    let about = |exactly: bool| -> Vec<&ExpectedDigest> {
        let lines = lines.iter().filter(|line| line.names(program, exactly));
        lines.map(|line| &line.digest).collect()
    };
    let mut stated = about(true);
    if stated.is_empty() {
        stated = about(false);
    }
    let shown = || program.to_string_lossy().into_owned();
    match &stated[..] {
        [first, others @ ..] if others.iter().all(|other| other == first) => Ok((*first).clone()),
        [_, ..] => Err(ChecksumError::Ambiguous(shown())),
        [] if lines.is_empty() => Err(ChecksumError::Empty),
        [] => Err(ChecksumError::NotListed {
            lines: lines.len(),
            program: shown(),
        }),
    }
}

/// One line: a digest, and the name of what has it.
pub(crate) struct Line<'f> {
    pub(crate) digest: ExpectedDigest,
    /// The name as `sha256sum` means it.
    pub(crate) name: Cow<'f, [u8]>,
}

impl Line<'_> {
    /// Whether the line names the program, by its path or by its file name; perhaps with more
    /// white space around it than `sha256sum` writes.
    fn names(&self, program: &Path, exactly: bool) -> bool {
        let trimmed = self.name.trim_ascii();
        let unmarked = trimmed.strip_prefix(b"*").unwrap_or(trimmed);
        match exactly {
            true => names(&self.name, program),
            false => names(trimmed, program) || names(unmarked, program),
        }
    }
}

fn names(name: &[u8], program: &Path) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let file_name = program.file_name().unwrap_or_default();
    [program.as_os_str(), file_name]
        .iter()
        .any(|own| own.as_encoded_bytes() == name)
}

/// The lines of a checksum file that are not empty.
///
/// # Errors
/// [`ChecksumError::Malformed`].
pub(crate) fn lines(file: &[u8]) -> Result<Vec<Line<'_>>, ChecksumError> {
    // Some editors begin a file with a byte order mark.
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    // With `--zero`, lines end with a NUL, and nothing in them is escaped.
    let (end, escaping) = match file.contains(&0) {
        true => (0, false),
        false => (b'\n', true),
    };
    let lines = file.split(|byte| *byte == end);
    (1..)
        .zip(lines)
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            read_line(line, escaping).ok_or_else(|| malformed(number, line))
        })
        .collect()
}

fn malformed(number: usize, line: &[u8]) -> ChecksumError {
    let first = line
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty());
    ChecksumError::Malformed {
        line: number,
        found: String::from_utf8_lossy(first.unwrap_or(line)).into_owned(),
    }
}

fn read_line(line: &[u8], escaping: bool) -> Option<Line<'_>> {
    // A line whose name is escaped begins with a backslash.
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(line) if escaping => (true, line),
        _ => (false, line),
    };
    let (digest, name) = match line.strip_prefix(b"SHA256 (") {
        // The name may have `) = ` in it, the digest has not.
        Some(tagged) => {
            let tagged = tagged.trim_ascii_end();
            let (name, digest) = tagged.split_at_checked(tagged.len().checked_sub(DIGITS)?)?;
            (digest, name.strip_suffix(b") = ")?)
        }
        None => {
            let line = line.trim_ascii_start();
            let (digest, rest) = line.split_at_checked(DIGITS)?;
            (digest, after_digest(rest)?)
        }
    };
    if !digest.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let name = match escaped {
        true => Cow::Owned(unescaped(name)?),
        false => Cow::Borrowed(name),
    };
    let digest = std::str::from_utf8(digest).ok()?.parse().ok()?;
    Some(Line { digest, name })
}

/// The name behind a digest: white space, then another or a `*`, then the name. There may be none.
fn after_digest(rest: &[u8]) -> Option<&[u8]> {
    let Some((first, rest)) = rest.split_first() else {
        return Some(rest);
    };
    if !first.is_ascii_whitespace() {
        return None;
    }
    Some(match rest.split_first() {
        Some((mark, name)) if *mark == b'*' || mark.is_ascii_whitespace() => name,
        _ => rest,
    })
}

/// What `sha256sum` escaped: line ends, carriage returns and backslashes.
fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
