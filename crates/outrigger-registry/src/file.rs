//! Files that may be anything, read without waiting and up to a limit.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The content of the regular file at `path`.
///
/// # Errors
/// What is wrong with it; also that it is something else, or larger than `most` bytes.
pub(crate) fn regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    contents(open_regular(path)?, most)
}

/// Opens the regular file at `path`. Whatever stands there instead, nothing is waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(no_regular_file()),
    };
    // To open a device may be to use it; and what is opened may have been put there since.
    regular(path.metadata()?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(file.metadata()?)?;
    Ok(file)
}

pub(crate) fn no_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

pub(crate) fn contents(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it is larger than {} KiB", most >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
