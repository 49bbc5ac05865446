//! The body of the fuzz target, as a plain function so that tests call it too. It takes arbitrary
//! bytes and panics if a promise is broken.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::checksum::{self, ChecksumError, checksum_of};
use crate::lock::Lock;

/// The longest line that one error may take, whatever the file says.
const LONGEST_ERROR: usize = 1024;

/// A checksum file is refused with an error that can be shown, or each program that one of its
/// lines names has a checksum in it.
pub fn checksums(bytes: &[u8]) {
    match checksum::lines(bytes) {
        Ok(lines) => {
            for line in lines {
                let name = line.name.strip_prefix(b"./").unwrap_or(&line.name);
                let program = Path::new(OsStr::from_bytes(name));
                match checksum_of(bytes, program) {
                    Ok(_) | Err(ChecksumError::Ambiguous(_)) => {}
                    Err(error) => panic!("{error}: {program:?}"),
                }
            }
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.len() <= LONGEST_ERROR, "{} bytes", shown.len());
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
    }
    let _ = checksum_of(bytes, Path::new("bin/program"));
}

/// A lock file is refused, or what is written of it is read as the same and written as the same.
pub fn lock(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for parse in [Lock::parse, Lock::parse_merged] {
        let Ok(lock) = parse(&text) else { continue };
        let written = lock.to_text();
        let again = Lock::parse(&written).unwrap_or_else(|error| panic!("{error:?}:\n{written}"));
        assert_eq!(again.to_text(), written);
        let names = |lock: &Lock| {
            let plugins = lock
                .plugins()
                .map(|p| (p.name().clone(), p.version().cloned()));
            plugins.collect::<Vec<_>>()
        };
        assert_eq!(names(&again), names(&lock));
        for (before, after) in lock.plugins().zip(again.plugins()) {
            assert_eq!(before.approved(), after.approved());
            assert!(before.digests().eq(after.digests()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A lock file with everything in it.
    const LOCK: &str = r#"# Comment.
version = 1
later = {a = 1}

[[plugin]] # what it is
name = "cat"
version = "1.0.0"
digests = [
  "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 linux-x86_64", # why
]
approved = [
  "filesystem /data: read, list",
  'process exec /bin/sh ["a b", *]',
]
requested_digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
pinned = true
unknown = [1, 2]

[plugin.more]
key = "value"

[[plugin.list]]
x = 1
"#;

    proptest! {
        #[test]
        fn the_lock_target_holds_on_a_damaged_file(
            cut in 0..LOCK.len(),
            length in 0..40usize,
            put in "(name|version = [0-9]+|\\[\\[plugin\\]\\]|<<<<<<< |=======|>>>>>>> |\n|\"|'|\\[|\\]|#|,| |[a-z.]|\\PC){0,6}",
        ) {
            lock(LOCK.as_bytes());
            let end = (cut + length).min(LOCK.len());
            let mut bytes = LOCK.as_bytes().to_vec();
            bytes.splice(cut..end, put.bytes());
            lock(&bytes);
        }

        #[test]
        fn the_target_holds_on_arbitrary_bytes(bytes: Vec<u8>) {
            checksums(&bytes);
        }

        #[test]
        fn the_target_holds_on_lines_that_are_nearly_right(
            lines in prop::collection::vec(
                ("[\\\\]?", "[0-9a-f]{62,64}", "[ \t*]{0,3}", "[a-z./\\\\ *\u{0}\r]{0,8}"),
                0..5,
            ),
        ) {
            let lines = lines.iter().map(|(escaped, hex, mark, name)| {
                format!("{escaped}{hex}{mark}{name}\n")
            });
            checksums(lines.collect::<String>().as_bytes());
        }

        #[test]
        fn the_target_holds_on_tagged_lines(name in "[a-z./\\\\ )=(\r]{0,12}", hex in "[0-9a-f]{63,65}") {
            checksums(format!("SHA256 ({name}) = {hex}\n").as_bytes());
            checksums(format!("\\SHA256 ({name}) = {hex}\r\n").as_bytes());
        }
    }
}
