//! A path as a request names it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::area::Area;
use super::call::{FileCall, SessionFiles};
use super::paths::{MAX_PATH, check_path, leaves_start};
use super::place::Place;
use crate::fault::Fault;

/// A path of a request, not yet looked at.
#[derive(Clone, Debug)]
pub(crate) struct RequestedPath {
    /// Where it starts; nothing for an absolute path.
    pub(crate) start: Option<Arc<Area>>,
    pub(crate) path: PathBuf,
    pub(crate) dir_only: bool,
}

impl RequestedPath {
    /// `path` as `outrigger.host.v1` has it: absolute, or relative to the only
    /// granted directory.
    pub(crate) fn new(files: &SessionFiles, path: &str) -> Result<Self, Fault> {
        check_path(path)?;
        if path.is_empty() {
            return Err(Fault::abuse("the path is empty"));
        }
        let start = if path.starts_with('/') {
            None
        } else {
            let mut dirs = files.areas().dirs();
            match (dirs.next(), dirs.next()) {
                (Some(only), None) => Some(only.clone()),
                (None, _) => {
                    return Err(Fault::abuse(
                        "no directory is granted: name an absolute path",
                    ));
                }
                (Some(_), Some(_)) => {
                    return Err(Fault::abuse(
                        "more than one directory is granted: name an absolute path",
                    ));
                }
            }
        };
        Ok(Self::from_parts(start, path.into()))
    }

    /// `path` beneath a directory that was opened before.
    pub(crate) fn beneath(place: &Place, path: &str) -> Result<Self, Fault> {
        check_path(path)?;
        if path.starts_with('/') || leaves_start(Path::new(path)) {
            return Err(Fault::Outside);
        }
        let joined = place.path.join(path);
        if joined.as_os_str().len() >= MAX_PATH {
            return Err(Fault::System(Errno::NAMETOOLONG));
        }
        Ok(Self::from_parts(Some(place.area.clone()), joined))
    }

    /// `path` relative to the first granted directory.
    pub(crate) fn in_first(files: &SessionFiles, path: PathBuf) -> Result<Self, Fault> {
        match files.areas().dirs().next() {
            Some(first) => Ok(Self::from_parts(Some(first.clone()), path)),
            None => Err(Fault::refused("no directory is granted")),
        }
    }

    /// An absolute path.
    pub(crate) fn absolute(path: PathBuf) -> Self {
        Self::from_parts(None, path)
    }

    pub(crate) fn from_parts(start: Option<Arc<Area>>, path: PathBuf) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let dir_only = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes.ends_with(b"/..");
        Self {
            start,
            path,
            dir_only,
        }
    }
}

impl FileCall {
    /// A path as `outrigger.host.v1` has it.
    pub(crate) fn path(&self, path: &str) -> Result<RequestedPath, Fault> {
        RequestedPath::new(&self.files, path)
    }
}
