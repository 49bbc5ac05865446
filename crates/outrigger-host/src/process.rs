//! The runner for plain child processes.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::exit::ExitStatus;
use crate::family;
use crate::lifeline;
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
    async fn start(&self, command: &Command) -> Result<Started, RunnerError> {
        lifeline::warm_up();
        let program = look_up(&command.program);
        let checked = match &command.digest {
            Some(digest) => Some(Checked::open(&program, digest)?),
            None => None,
        };
        let path = checked
            .as_ref()
            .map_or_else(|| program.clone(), Checked::path);
        let mut child = spawn(&path, &program, command).map_err(RunnerError::Spawn)?;
        drop(checked);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Process::hold(child, &command.socket_dir).map_err(RunnerError::Spawn)?;
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
fn spawn(path: &Path, name: &Path, command: &Command) -> io::Result<Child> {
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
    spawned.spawn()
}

/// Finds a bare name as a shell does, but never in the current directory.
fn look_up(program: &Path) -> PathBuf {
    if program.components().count() != 1 || program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| program.to_owned())
}

/// A program whose content was checked, and which is run through the same descriptor.
struct Checked(File);

impl Checked {
    fn open(program: &Path, digest: &crate::digest::ExpectedDigest) -> Result<Self, RunnerError> {
        let unreadable = crate::digest::DigestError::Unreadable;
        let mut file = File::open(program).map_err(unreadable)?;
        digest.check(&mut file)?;
        file.rewind().map_err(unreadable)?;
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && &magic == b"#!" {
            // The kernel hands a script's path to its interpreter, which opens
            // it after the exec: the descriptor must still be there.
            rustix::io::fcntl_setfd(&file, FdFlags::empty())
                .map_err(|error| RunnerError::Spawn(error.into()))?;
        }
        Ok(Self(file))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// A child process. Dropping it kills and reaps it.
pub(crate) struct Process {
    pid: u32,
    child: Mutex<Child>,
    pidfd: AsyncFd<OwnedFd>,
    family: Arc<Family>,
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
            family::end(&self.socket_dir);
            lifeline::untie(self.pid);
        });
    }
}

impl Process {
    fn hold(mut child: Child, socket_dir: &Path) -> io::Result<Self> {
        let pid = child.id();
        let held = open_pidfd(pid).and_then(watched);
        match held {
            Ok(pidfd) => Ok(Self {
                pid,
                child: Mutex::new(child),
                pidfd,
                family: Arc::new(Family {
                    pid,
                    socket_dir: socket_dir.to_owned(),
                    ended: Once::new(),
                }),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn reap(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(Some(status)) => status.into(),
            Ok(None) | Err(_) => ExitStatus::Unknown,
        }
    }
}

#[async_trait]
impl AttachedRunner for Process {
    async fn wait(&self) -> ExitStatus {
        // A descriptor of a process becomes readable when the process ends.
        if self.pidfd.readable().await.is_err() {
            return ExitStatus::Unknown;
        }
        self.reap()
    }

    async fn cleared(&self) {
        let family = self.family.clone();
        // When the runtime ends first, dropping the process does the same.
        let _ = tokio::task::spawn_blocking(move || family.end()).await;
    }

    fn kill(&self) -> io::Result<()> {
        send(self.pidfd.get_ref(), Signal::KILL)
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
        if ended_within(self.pidfd.get_ref(), REAP) {
            self.reap();
            self.family.end();
        } else {
            tracing::warn!(pid = self.pid, "a killed plugin did not end");
        }
    }
}

pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Registers a descriptor with the runtime.
#[allow(deprecated)] // Deprecated for types that lie about their descriptor; an `OwnedFd` does not.
pub(crate) fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(pidfd)
}

/// Signals exactly the process behind `pidfd`; one that ended is no error.
pub(crate) fn send(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process behind `pidfd` ends within the given time; blocks.
pub(crate) fn ended_within(pidfd: &OwnedFd, time: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let limit = Timespec::try_from(time).ok();
    matches!(rustix::event::poll(&mut fds, limit.as_ref()), Ok(ready) if ready > 0)
}
