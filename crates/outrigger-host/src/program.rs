//! Which file the name of a program means.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

/// A name means no program.
#[derive(Debug)]
pub struct ProgramNotFound {
    program: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// The host's `PATH` has none; of a file that cannot be executed, this is the first.
    NotInPath(OsString, Option<PathBuf>),
    NoPath,
    /// The host's current directory is gone.
    NoDirectory(io::Error),
}

impl ProgramNotFound {
    /// The first file of that name in `PATH`, none of which can be executed.
    pub fn passed_over(&self) -> Option<&Path> {
        match &self.why {
            Why::NotInPath(_, passed_over) => passed_over.as_deref(),
            Why::NoPath | Why::NoDirectory(_) => None,
        }
    }

    /// The name as it was given.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self.passed_over() {
            Some(_) => "program-not-executable",
            None => "program-not-found",
        }
    }
}

outrigger_wire::coded!(ProgramNotFound);

impl fmt::Display for ProgramNotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.program.display();
        match &self.why {
            Why::NotInPath(_, Some(first)) => {
                let first = first.display();
                write!(
                    f,
                    "no `{name}` in PATH can be executed; the first is {first}"
                )
            }
            Why::NotInPath(path, None) => {
                let path = path.display();
                write!(f, "no absolute directory of PATH has `{name}`: {path}")
            }
            Why::NoPath => write!(f, "PATH is not set, so that `{name}` means no program"),
            Why::NoDirectory(_) => write!(f, "`{name}` is in a current directory that is gone"),
        }
    }
}

impl std::error::Error for ProgramNotFound {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::NoDirectory(error) => Some(error),
            Why::NotInPath(..) | Why::NoPath => None,
        }
    }
}

/// The file that `program` means. A name without a slash is looked up in the
/// host's `PATH`; any other path starts at the host's current directory.
pub(crate) fn locate(program: &Path) -> Result<PathBuf, ProgramNotFound> {
    let found = match is_bare(program) {
        true => in_path(program, std::env::var_os("PATH")),
        false => std::path::absolute(program).map_err(Why::NoDirectory),
    };
    found.map_err(|why| ProgramNotFound {
        program: program.to_owned(),
        why,
    })
}

/// Whether this is a name to be looked up, rather than a path.
pub(crate) fn is_bare(program: &Path) -> bool {
    !program.as_os_str().as_encoded_bytes().contains(&b'/')
}

/// The first file of that name that can be executed. Only absolute directories
/// count: to POSIX, an empty one is the current directory.
fn in_path(name: &Path, path: Option<OsString>) -> Result<PathBuf, Why> {
    let path = path.ok_or(Why::NoPath)?;
    let mut passed_over = None;
    let directories = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    for file in directories.map(|dir| dir.join(name)) {
        if !file.is_file() {
            continue;
        }
        if may_execute(file.as_os_str()) {
            return Ok(file);
        }
        passed_over.get_or_insert(file);
    }
    Err(Why::NotInPath(path, passed_over))
}

fn may_execute(file: &OsStr) -> bool {
    let with = |flags| rustix::fs::accessat(CWD, file, Access::EXEC_OK, flags);
    match with(AtFlags::EACCESS) {
        // The kernel or a filter of system calls does not know how to ask for
        // the effective user; for nearly all processes it is the real one.
        Err(Errno::NOSYS | Errno::PERM) => with(AtFlags::empty()).is_ok(),
        outcome => outcome.is_ok(),
    }
}
