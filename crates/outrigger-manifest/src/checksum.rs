//! Checksum files: what `sha256sum` prints about a plugin's program.

use crate::message::quoted;

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

/// The SHA-256 digest of `program` that a checksum file states, in lower-case digits.
///
/// Each line of the file is a digest, alone or followed by white space, perhaps a `*`, and a
/// name, as `sha256sum` prints it. The only line of a file is taken whatever name it has: a
/// digest of something else cannot match. Of several lines, the one with the program's path or
/// file name is taken.
///
/// # Errors
/// See [`ChecksumError`].
///
/// # Examples
/// ```
/// use outrigger_manifest::checksum_of;
///
/// let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// assert_eq!(checksum_of(&format!("{digest}  cat\n"), "bin/cat").as_deref(), Ok(digest));
/// assert_eq!(checksum_of("cat", "cat").unwrap_err().code(), "checksum-malformed");
/// ```
pub fn checksum_of(file: &str, program: &str) -> Result<String, ChecksumError> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(file.lines()) {
        let line = line.trim();
        if !line.is_empty() {
            lines.push(read_line(number, line)?);
        }
    }
    if let [(digest, _)] = &lines[..] {
        return Ok(digest.clone());
    }
    let file_name = program.rsplit('/').next().unwrap_or(program);
    let mut about: Vec<&String> = lines
        .iter()
        .filter(|(_, name)| [program, file_name].contains(&name.trim_start_matches("./")))
        .map(|(digest, _)| digest)
        .collect();
    about.dedup();
    match about[..] {
        [digest] => Ok(digest.clone()),
        [] if lines.is_empty() => Err(ChecksumError::Empty),
        [] => Err(ChecksumError::NotListed {
            lines: lines.len(),
            program: program.to_owned(),
        }),
        _ => Err(ChecksumError::Ambiguous(program.to_owned())),
    }
}

/// The digest and the name of one line.
fn read_line(number: usize, line: &str) -> Result<(String, &str), ChecksumError> {
    let (digest, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digest.len() != DIGITS || !hex {
        return Err(ChecksumError::Malformed {
            line: number,
            found: digest.to_owned(),
        });
    }
    let name = name.trim_start();
    let name = name.strip_prefix('*').unwrap_or(name);
    Ok((digest.to_ascii_lowercase(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_sha256sum_prints_is_read() {
        let (mine, other) = ("ab".repeat(32), "0".repeat(64));
        for file in [
            mine.clone(),
            format!("{mine}\n"),
            format!("{mine}  cat\n"),
            format!("{mine} *cat\n"),
            format!("\n{mine}\t bin/cat \r\n\r\n"),
            format!("{}  another-name\n", mine.to_uppercase()),
            format!("{other}  dog\n{mine}  cat\n"),
            format!("{mine}  ./bin/cat\n{other} *bin/dog\n"),
            format!("{mine}  cat\n{mine}  bin/cat\n"),
        ] {
            assert_eq!(checksum_of(&file, "bin/cat"), Ok(mine.clone()), "{file:?}");
        }
    }

    #[test]
    fn what_states_no_checksum_of_the_program_is_refused_with_a_reason() {
        let (mine, other) = ("ab".repeat(32), "0".repeat(64));
        for (file, code, text) in [
            (
                " \n".to_owned(),
                "checksum-empty",
                "the file has no checksum in it",
            ),
            (
                format!("{mine}  cat\nab\u{1b}  dog\n"),
                "checksum-malformed",
                "line 2: `ab\\u{1b}` is not a SHA-256 digest of 64 hexadecimal digits",
            ),
            (
                format!("{mine}  dog\n{other}  pig\n"),
                "checksum-not-listed",
                "none of its 2 lines is about `cat`",
            ),
            (
                format!("{mine}  cat\n{other}  cat\n"),
                "checksum-ambiguous",
                "it has two different checksums for `cat`",
            ),
        ] {
            let error = checksum_of(&file, "cat").expect_err("refused");
            assert_eq!((error.code(), error.to_string().as_str()), (code, text));
        }
        for wrong in [
            "é".repeat(32),
            "g".repeat(64),
            "a".repeat(63),
            "a".repeat(65),
        ] {
            assert!(checksum_of(&wrong, "cat").is_err(), "{wrong}");
        }
    }
}
