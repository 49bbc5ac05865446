//! How a command is started: its program by descriptor, its arguments as a
//! vector, an environment made from nothing, three descriptors, a group of its
//! own.
//!
//! Nothing runs between fork and exec, so that a large host starts a command
//! as fast as a small one. What would have to run there is done around it:
//! [`process::spawn_blocking`] marks every descriptor of the host above 2 to be closed
//! before, and the limits are set right after.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use outrigger_transport::process;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use tokio::net::unix::pipe;

use super::child::Child;
use super::output::Outputs;
use super::program::Program;

/// Open files of one command, unless less was granted or the host has less.
const OPEN_FILES: u64 = 1024;

/// A command to be started, with every decision made.
pub(crate) struct Order {
    pub(crate) program: Arc<Program>,
    /// What the program sees as its own name.
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    /// All of it.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: OwnedFd,
    pub(crate) open_files: Option<u64>,
}

/// A started command with the host's ends of its pipes.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Arc<Child>,
    pub(crate) input: pipe::Sender,
    pub(crate) outputs: Outputs,
}

/// Starts a command. Blocks for about a millisecond, and for a quarter of a
/// second when somebody writes the program; needs a runtime.
pub(crate) fn spawn(order: &Order) -> io::Result<Started> {
    let directory = above_stdio(&order.directory)?;
    let directory = directory.as_ref().unwrap_or(&order.directory);
    let mut command = command(order, directory);
    let mut spawned = process::spawn_blocking(&mut command)?;
    let pipes = (
        spawned.stdin.take(),
        spawned.stdout.take(),
        spawned.stderr.take(),
    );
    let child = Arc::new(Child::hold(spawned)?);
    limit(&child, order);
    // Whatever fails from here on ends the process, because it is dropped.
    child.watch();
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    Ok(Started {
        input: sender(stdin)?,
        outputs: Outputs::new(
            pipe::Receiver::from_owned_fd(stdout.into())?,
            pipe::Receiver::from_owned_fd(stderr.into())?,
        ),
        child,
    })
}

fn sender(stdin: ChildStdin) -> io::Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(stdin.into())
}

#[allow(clippy::disallowed_methods)] // A command of the whitelist is no plugin.
fn command(order: &Order, directory: &OwnedFd) -> Command {
    let mut command = Command::new(order.program.path());
    command
        .arg0(&order.name)
        .args(&order.arguments)
        .env_clear()
        .envs(order.environment.iter().map(|(name, value)| (name, value)))
        // The child's copy of the descriptor, before it becomes the program.
        .current_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same directory by a number that the child's stdio does not take, if it
/// has such a number.
fn above_stdio(directory: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if directory.as_raw_fd() > 2 {
        return Ok(None);
    }
    Ok(Some(rustix::io::fcntl_dupfd_cloexec(directory, 3)?))
}

/// Sets the limits of a process that runs already: what it started before is
/// not held by them.
fn limit(child: &Child, order: &Order) {
    let open_files = order.open_files.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    let host = rustix::process::getrlimit(Resource::Nofile).maximum;
    let open_files = host.map_or(open_files, |host| host.min(open_files));
    for (resource, value) in [(Resource::Core, 0), (Resource::Nofile, open_files)] {
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        match rustix::process::prlimit(Some(child.pid()), resource, limit) {
            // It may have ended already.
            Ok(_) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "a command runs without a limit"),
        }
    }
}
