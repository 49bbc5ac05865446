//! The body of the fuzz target, as a plain function so that tests call it too. It takes arbitrary
//! bytes and panics if a promise is broken.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::checksum::{self, ChecksumError, checksum_of};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
