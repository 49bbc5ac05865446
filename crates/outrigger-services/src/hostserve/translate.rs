//! What the words of `hostserve.v1` mean: where its `root_dir` and `path` lead, and
//! what its flags, modes and ids are here.

use std::path::{Component, Path, PathBuf};

use outrigger_wire::proto::hostserve::*;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::environment::UserDir;
use crate::fault::Fault;
use crate::fs::attributes::{self, NamedStat, Owners};
use crate::fs::call::FileCall;
use crate::fs::mode;
use crate::fs::paths::{MAX_PATH, check_path, clean, leaves_start};
use crate::fs::place::Opening;
use crate::fs::requested_path::RequestedPath;

/// Where `path`, seen from `root_dir`, is.
///
/// `root_dir` is no authority: it is relative to the first granted directory,
/// or an absolute name, and what lies there must be granted like anything else.
/// An absolute `path` stands for itself; a relative one may not lead above
/// `root_dir` by its text. An empty one, and `.`, mean `root_dir` itself, file or
/// directory; and slashes at the end of either say nothing, for the contract's own
/// host joins both with Go's `filepath.Join`.
pub(super) fn path(call: &FileCall, root_dir: &str, path: &str) -> Result<RequestedPath, Fault> {
    check_path(root_dir)?;
    check_path(path)?;
    // What the slashes separate, without a slash at the end.
    let steps = |text| Path::new(text).components().collect::<PathBuf>();
    let (root_dir, path) = (steps(root_dir), steps(path));
    if path.is_absolute() {
        return Ok(RequestedPath::absolute(path));
    }
    if leaves_start(&path) {
        return Err(Fault::Outside);
    }
    let root_dir = match root_dir.is_absolute() {
        true => clean(&root_dir),
        false => root_dir,
    };
    let all = root_dir.components().chain(path.components());
    let joined: PathBuf = all.filter(|step| *step != Component::CurDir).collect();
    if joined.as_os_str().len() >= MAX_PATH {
        return Err(Fault::System(Errno::NAMETOOLONG));
    }
    if root_dir.is_absolute() {
        Ok(RequestedPath::absolute(joined))
    } else {
        RequestedPath::in_first(&call.files, joined)
    }
}

/// What a reply says about a file.
pub(super) fn info(name: String, stat: &Stat) -> Option<FileInfo> {
    let mode = mode::from_unix(stat.st_mode);
    Some(FileInfo {
        name,
        size: stat.st_size,
        mode,
        mod_time: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }),
        is_dir: mode & (1 << 31) != 0,
    })
}

pub(super) fn mode_to_set(go: u32) -> Result<rustix::fs::Mode, Fault> {
    attributes::mode_to_set(go & mode::SPECIAL != 0, go)
}

/// The contract writes −1 for an owner that stays.
pub(super) fn owners(call: &FileCall, uid: i32, gid: i32) -> Result<Owners, Fault> {
    let id = |id: i32| match id {
        -1 => Ok(None),
        id => u32::try_from(id)
            .map(Some)
            .map_err(|_| Fault::System(Errno::INVAL)),
    };
    Owners::new(call, id(uid)?, id(gid)?)
}

pub(super) fn contents(contents: Vec<u8>) -> ReadFileResponse {
    ReadFileResponse {
        contents: contents.into(),
        error: None,
    }
}

pub(super) fn stated(known: NamedStat) -> StatResponse {
    StatResponse {
        info: info(known.name, &known.stat),
        error: None,
    }
}

/// How the contract's flags open a file.
pub(super) fn opening(request: &FileOpenRequest) -> Result<Opening, Fault> {
    let flags = OpenFileFlags::try_from(request.flags)
        .map_err(|_| Fault::abuse("`flags` is not one of the contract's values"))?;
    let none = Opening {
        mode: request.perm & 0o777,
        ..Opening::default()
    };
    let write = Opening {
        write: true,
        create: true,
        ..none
    };
    let both = Opening {
        read: true,
        write: true,
        ..none
    };
    Ok(match flags {
        OpenFileFlags::Unspecified | OpenFileFlags::ReadOnly => Opening::READ,
        OpenFileFlags::WriteCreateTruncate => Opening {
            truncate: true,
            ..write
        },
        OpenFileFlags::WriteCreateAppend => Opening {
            append: true,
            ..write
        },
        OpenFileFlags::WriteCreateExclusive => Opening {
            exclusive: true,
            ..write
        },
        OpenFileFlags::ReadWrite => both,
        OpenFileFlags::ReadWriteCreate => Opening {
            create: true,
            ..both
        },
        OpenFileFlags::ReadWriteCreateTruncate => Opening {
            create: true,
            truncate: true,
            ..both
        },
        OpenFileFlags::ReadWriteCreateAppend => Opening {
            create: true,
            append: true,
            ..both
        },
    })
}

pub(super) fn got(call: &FileCall, contents: Vec<u8>) -> FileReadSectionResponse {
    call.got(contents.len() as u64);
    FileReadSectionResponse {
        contents: contents.into(),
        error: None,
    }
}

/// The contract's ids are signed.
pub(super) fn id(raw: u32) -> i32 {
    raw.cast_signed()
}

pub(super) fn user_dir(dir: UserDir) -> Result<String, Fault> {
    dir.find(|name| std::env::var_os(name))
}
