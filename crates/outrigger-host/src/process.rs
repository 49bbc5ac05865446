//! The runner for plain child processes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use outrigger_transport::family;
use outrigger_transport::process::{self, OpenProgram, ProcessHandle};
use outrigger_wire::{DigestError, ENV_UNIX_SOCKET_DIR, ExpectedDigest};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::net::unix::pipe;

use crate::exit::ExitStatus;
use crate::lifeline;
use crate::program::locate;
use crate::runner::{AttachedRunner, Command, Runner, RunnerError, Started};

/// How long dropping a process waits for its end after killing it.
const REAP: Duration = Duration::from_secs(2);

/// Starts plugins as child processes of the host, without a sandbox. They
/// inherit its stdin, so that a plugin can use the terminal, and end with it.
/// What a plugin started ends with the plugin, unless it gave up the
/// environment that it inherited.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessRunner;

#[async_trait]
impl Runner for ProcessRunner {
    fn locate(&self, program: &Path) -> Result<PathBuf, RunnerError> {
        Ok(locate(program)?)
    }

    async fn start(&self, command: &Command) -> Result<Started, RunnerError> {
        lifeline::warm_up();
        // Another runner may have put in a name of its own.
        let program = locate(&command.program)?;
        let checked = match &command.digest {
            Some(digest) => Some(checked(&program, digest)?),
            None => None,
        };
        let path = checked
            .as_ref()
            .map_or_else(|| program.clone(), OpenProgram::path);
        let mut child = spawn(&path, &program, command)
            .await
            .map_err(RunnerError::Spawn)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Process::hold(child, checked, &command.socket_dir);
        let process = process.map_err(RunnerError::Spawn)?;
        lifeline::tie(process.pid, &command.socket_dir);
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(RunnerError::Spawn(io::ErrorKind::BrokenPipe.into()));
        };
        let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(RunnerError::Spawn);
        Ok(Started {
            stdout: Box::new(receiver(stdout.into())?),
            stderr: Box::new(receiver(stderr.into())?),
            process: Arc::new(process),
        })
    }
}

#[allow(clippy::disallowed_methods)] // This is where plugins are spawned.
async fn spawn(path: &Path, name: &Path, command: &Command) -> io::Result<Child> {
    let mut spawned = std::process::Command::new(path);
    spawned
        .arg0(name)
        .args(&command.arguments)
        .env_clear()
        .envs(command.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = &command.directory {
        spawned.current_dir(directory);
    }
    process::spawn(&mut spawned).await
}

/// Opens a program whose content is the expected one, to run this very file.
fn checked(program: &Path, digest: &ExpectedDigest) -> Result<OpenProgram, RunnerError> {
    // Whatever stands there must not make the host wait.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(program, flags, Mode::empty());
    let file = File::from(opened.map_err(|errno| DigestError::Unreadable(errno.into()))?);
    if !file.metadata().map_err(DigestError::Unreadable)?.is_file() {
        let error = io::Error::other("it is not a regular file");
        return Err(DigestError::Unreadable(error).into());
    }
    digest.check(&file)?;
    OpenProgram::new(file.into()).map_err(|errno| RunnerError::Spawn(errno.into()))
}

/// A child process. Dropping it kills and reaps it.
pub(crate) struct Process {
    pid: u32,
    child: Mutex<Child>,
    handle: ProcessHandle,
    family: Arc<Family>,
    /// The interpreter of a script may open it at any time.
    _program: Option<OpenProgram>,
}

/// The process and what it started, to be ended once.
struct Family {
    pid: u32,
    socket_dir: PathBuf,
    ended: Once,
}

impl Family {
    /// Ends what the process started; the process itself is gone. Blocks.
    fn end(&self) {
        self.ended.call_once(|| {
            // No other process has the variable that names the plugin's own directory.
            let directory = self.socket_dir.as_os_str().as_bytes();
            let variable = [ENV_UNIX_SOCKET_DIR.as_bytes(), b"=", directory].concat();
            if !family::end(&variable) {
                tracing::warn!(dir = %self.socket_dir.display(), "descendants of a plugin may be left");
            }
            lifeline::untie(self.pid);
        });
    }
}

impl Process {
    fn hold(mut child: Child, program: Option<OpenProgram>, socket_dir: &Path) -> io::Result<Self> {
        let (pid, handle) = (child.id(), ProcessHandle::of_child(&mut child)?);
        Ok(Self {
            pid,
            child: Mutex::new(child),
            handle,
            family: Arc::new(Family {
                pid,
                socket_dir: socket_dir.to_owned(),
                ended: Once::new(),
            }),
            _program: program,
        })
    }

    fn reap(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        process::reap(&mut child).map_or(ExitStatus::Unknown, ExitStatus::from)
    }
}

#[async_trait]
impl AttachedRunner for Process {
    async fn wait(&self) -> ExitStatus {
        self.handle.ended().await;
        self.reap()
    }

    async fn cleared(&self) {
        let family = self.family.clone();
        // When the runtime ends first, dropping the process does the same.
        let _ = tokio::task::spawn_blocking(move || family.end()).await;
    }

    fn kill(&self) -> io::Result<()> {
        kill(&self.handle)
    }

    fn id(&self) -> String {
        self.pid.to_string()
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.kill();
        if self.handle.ended_within(REAP) {
            self.reap();
            self.family.end();
        } else {
            tracing::warn!(pid = self.pid, "a killed plugin did not end");
        }
    }
}

/// Kills exactly the process that is held; one that is gone is no error.
pub(crate) fn kill(process: &ProcessHandle) -> io::Result<()> {
    match process.signal(Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
