//! What is known about a file.

use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use outrigger_wire::proto::{host, hostserve};

use super::time;

/// Where Go's file modes, which `hostserve.v1` has, keep what Unix keeps elsewhere.
mod go {
    pub(super) const DIRECTORY: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    /// All kinds of files but regular ones.
    pub(super) const KIND: u32 = DIRECTORY | SYMLINK | 0b111 << 24 | 1 << 21 | 1 << 19;
    /// Set-user-id, set-group-id and sticky, each with its Unix bit.
    pub(super) const SPECIAL: [(u32, u32); 3] =
        [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
}

/// What something at a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

impl FileKind {
    pub(super) fn from_wire(kind: host::FileKind) -> Self {
        match kind {
            host::FileKind::File => Self::File,
            host::FileKind::Directory => Self::Directory,
            host::FileKind::Symlink => Self::Symlink,
            host::FileKind::Other | host::FileKind::Unspecified => Self::Other,
        }
    }

    fn from_system(kind: std::fs::FileType) -> Self {
        match kind {
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Directory,
            kind if kind.is_symlink() => Self::Symlink,
            _ => Self::Other,
        }
    }

    fn from_go(mode: u32, is_dir: bool) -> Self {
        match mode & go::KIND {
            _ if is_dir => Self::Directory,
            0 => Self::File,
            go::DIRECTORY => Self::Directory,
            go::SYMLINK => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// What is known about a file or directory, by whichever services of the host it
/// was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    kind: FileKind,
    len: u64,
    mode: u32,
    modified: Option<SystemTime>,
    unix: Option<Unix>,
}

/// What only `outrigger.host.v1` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unix {
    accessed: Option<SystemTime>,
    uid: u32,
    gid: u32,
    links: u64,
}

impl Metadata {
    pub(super) fn from_wire(info: Option<host::FileInfo>) -> Self {
        let info = info.unwrap_or_default();
        Self {
            kind: FileKind::from_wire(info.kind()),
            len: info.size,
            mode: info.mode,
            modified: time::from_wire(info.modified),
            unix: Some(Unix {
                accessed: time::from_wire(info.accessed),
                uid: info.uid,
                gid: info.gid,
                links: info.links,
            }),
        }
    }

    pub(super) fn from_system(found: &std::fs::Metadata) -> Self {
        Self {
            kind: FileKind::from_system(found.file_type()),
            len: found.len(),
            mode: found.mode() & 0o7777,
            modified: found.modified().ok(),
            unix: Some(Unix {
                accessed: found.accessed().ok(),
                uid: found.uid(),
                gid: found.gid(),
                links: found.nlink(),
            }),
        }
    }

    pub(crate) fn from_host_serve(info: Option<hostserve::FileInfo>) -> Self {
        let info = info.unwrap_or_default();
        let special = go::SPECIAL
            .iter()
            .filter(|(bit, _)| info.mode & bit != 0)
            .fold(0, |all, (_, bit)| all | bit);
        Self {
            kind: FileKind::from_go(info.mode, info.is_dir),
            len: u64::try_from(info.size).unwrap_or(0),
            mode: info.mode & 0o777 | special,
            modified: time::from_wire(info.mod_time),
            unix: None,
        }
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no contents.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its Unix permission bits, such as `0o644`.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// When its contents changed last.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// When it was read last. `hostserve.v1` does not tell.
    pub fn accessed(&self) -> Option<SystemTime> {
        self.unix.as_ref()?.accessed
    }

    /// The user it belongs to. `hostserve.v1` does not tell.
    pub fn uid(&self) -> Option<u32> {
        Some(self.unix.as_ref()?.uid)
    }

    /// The group it belongs to. `hostserve.v1` does not tell.
    pub fn gid(&self) -> Option<u32> {
        Some(self.unix.as_ref()?.gid)
    }

    /// How many names it has. `hostserve.v1` does not tell.
    pub fn links(&self) -> Option<u64> {
        Some(self.unix.as_ref()?.links)
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name in the directory.
    pub name: String,
    /// What it is, a link standing for itself. `hostserve.v1` tells directories
    /// from everything else, which it calls files.
    pub kind: FileKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_go_become_kinds_and_unix_modes() {
        for (go, kind, unix) in [
            (0o644, FileKind::File, 0o644),
            (1 << 31 | 0o755, FileKind::Directory, 0o755),
            (1 << 31 | 1 << 20 | 0o777, FileKind::Directory, 0o1777),
            (1 << 27 | 0o777, FileKind::Symlink, 0o777),
            (1 << 25 | 0o600, FileKind::Other, 0o600),
            (1 << 24 | 0o600, FileKind::Other, 0o600),
            (1 << 26 | 1 << 21 | 0o666, FileKind::Other, 0o666),
            (1 << 19, FileKind::Other, 0),
            (1 << 23 | 1 << 22 | 0o755, FileKind::File, 0o6755),
        ] {
            let found = Metadata::from_host_serve(Some(hostserve::FileInfo {
                mode: go,
                ..hostserve::FileInfo::default()
            }));
            assert_eq!((found.kind(), found.mode()), (kind, unix), "{go:o}");
            assert_eq!(found.uid(), None);
        }
    }
}
