//! The program of a command: found once, then held by its descriptor.
//!
//! A name can lead elsewhere at any time; a descriptor cannot. So what runs is
//! the file that stood there when the grant was taken, whatever is put in its
//! place later, and however often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_manifest::{ExecGrant, Grants, HostService};
use outrigger_transport::process::OpenProgram;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::fault::Fault;
use crate::fs::area::open_exactly;
use crate::fs::areas::UnusableGrant;
use crate::fs::kernel::Nature;
use crate::real_paths::{GrantPaths, UnservedPath};

/// An executable file.
#[derive(Debug)]
pub(crate) struct Program(OpenProgram);

/// Why a program cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("the program cannot be opened: {}", Fault::System(*.0).public())]
    Unreadable(Errno),
    #[error("the program is not a regular file")]
    NotRegular,
    #[error("the program is not executable")]
    NotExecutable,
    #[error("the program lies where the kernel shows itself, not where programs are kept")]
    NotKept,
    #[error("the program changes its user or group when it starts, so the host could not end it")]
    ChangesUser,
    /// The policy has a say, so that only the host may know the reason.
    #[error("{0}")]
    Elsewhere(UnservedPath),
}

impl From<UnservedPath> for ProgramError {
    fn from(unserved: UnservedPath) -> Self {
        match unserved {
            UnservedPath::System(errno) => Self::Unreadable(errno),
            unserved => Self::Elsewhere(unserved),
        }
    }
}

/// The programs of the granted commands: each found once.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    all: BTreeMap<PathBuf, Result<Arc<Program>, ProgramError>>,
    /// Grants that the policy does not confirm where the program is.
    refused: Vec<(ExecGrant, ProgramError)>,
    unusable: Vec<UnusableGrant>,
}

impl Programs {
    pub(crate) fn take(grants: &Grants) -> Self {
        let mut programs = Self::default();
        if grants.service(HostService::Process).is_err() {
            return programs;
        }
        let places = GrantPaths::new(grants);
        for grant in grants.process().exec_grants() {
            let command = grant.command();
            let place = places.of_program(command);
            let judged = match &place {
                Ok(place) => places.judge_program(grant, place),
                Err(_) => Ok(()),
            };
            if let Err(unserved) = judged {
                let error = ProgramError::Elsewhere(unserved);
                programs.not_usable(command, &error);
                programs.refused.push((grant.clone(), error));
            } else if !programs.all.contains_key(command) {
                let program = place
                    .map_err(ProgramError::from)
                    .and_then(|place| Program::open(&place.path));
                if let Err(error) = &program {
                    programs.not_usable(command, error);
                }
                let program = program.map(Arc::new);
                programs.all.insert(command.to_owned(), program);
            }
        }
        programs
    }

    fn not_usable(&mut self, command: &Path, error: &ProgramError) {
        self.unusable.push(UnusableGrant {
            path: command.to_owned(),
            reason: error.to_string(),
        });
    }

    /// The program of a granted command.
    pub(crate) fn get(&self, grant: &ExecGrant) -> Result<Arc<Program>, ProgramError> {
        if let Some((_, error)) = self.refused.iter().find(|(refused, _)| refused == grant) {
            return Err(error.clone());
        }
        let program = self.all.get(grant.command()).cloned();
        program.unwrap_or(Err(ProgramError::Unreadable(Errno::NOENT)))
    }

    /// The commands that cannot be run, and why.
    pub(crate) fn unusable(&self) -> impl Iterator<Item = &UnusableGrant> {
        self.unusable.iter()
    }
}

impl Program {
    /// Opens the program at `path`, none of whose steps may be a link.
    pub(crate) fn open(path: &Path) -> Result<Self, ProgramError> {
        // Whatever stands there must not make the host wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match open_exactly(path, flags) {
            // A program that may be run but not read.
            Err(Errno::ACCESS) => open_exactly(path, OFlags::PATH | OFlags::CLOEXEC),
            opened => opened,
        };
        let file = opened.map_err(ProgramError::Unreadable)?;
        let stat = rustix::fs::fstat(&file).map_err(ProgramError::Unreadable)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ProgramError::NotRegular);
        }
        if !(Nature::of(&file).map_err(ProgramError::Unreadable)?).keeps() {
            return Err(ProgramError::NotKept);
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
            return Err(ProgramError::NotExecutable);
        }
        if mode.intersects(Mode::SUID | Mode::SGID) {
            return Err(ProgramError::ChangesUser);
        }
        let opened = OpenProgram::new(file);
        Ok(Self(opened.map_err(ProgramError::Unreadable)?))
    }

    /// A name that leads to exactly this file for as long as `self` lives.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::CWD;

    use super::*;

    fn failure(path: &Path) -> ProgramError {
        Program::open(path).expect_err("no program")
    }

    #[test]
    fn only_a_regular_executable_file_is_a_program() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        assert_eq!(
            failure(&path("none")),
            ProgramError::Unreadable(Errno::NOENT)
        );
        assert_eq!(failure(dir.path()), ProgramError::NotRegular);
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::RWXU).expect("a fifo");
        assert_eq!(failure(&path("fifo")), ProgramError::NotRegular);
        std::fs::write(path("plain"), b"\x7fELF").expect("a file");
        assert_eq!(failure(&path("plain")), ProgramError::NotExecutable);
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path("plain"), mode).expect("its mode");
        };
        mode(0o4755);
        assert_eq!(failure(&path("plain")), ProgramError::ChangesUser);
        mode(0o2755);
        assert_eq!(failure(&path("plain")), ProgramError::ChangesUser);
        mode(0o755);
        symlink("plain", path("link")).expect("a link");
        assert_eq!(
            failure(&path("link")),
            ProgramError::Unreadable(Errno::LOOP)
        );
        Program::open(&path("plain")).expect("a program");
    }
}
