//! How a plugin is started, held and reached.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use outrigger_transport::AddressTranslator;
use tokio::io::AsyncRead;

use crate::exit::ExitStatus;
use crate::program::ProgramNotFound;
use outrigger_wire::ExpectedDigest;

/// What a runner is asked to start. The environment is complete.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, as [`Runner::locate`] found it.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub arguments: Vec<OsString>,
    /// All variables that it shall see.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory; the host's own if absent.
    pub directory: Option<PathBuf>,
    /// A directory of this plugin alone for its sockets; also in the environment.
    pub socket_dir: PathBuf,
    /// What the program's content must be.
    pub digest: Option<ExpectedDigest>,
}

/// A process that a runner started.
pub struct Started {
    /// Its stdout: the handshake line, then nothing.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its stderr: logs and panics.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// The hold on it.
    pub process: Arc<dyn AttachedRunner>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started")
            .field("process", &self.process.id())
            .finish_non_exhaustive()
    }
}

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The content of the program is not what was expected.
    #[error(transparent)]
    Digest(#[from] outrigger_wire::DigestError),
    /// The name of the program leads nowhere.
    #[error(transparent)]
    NotFound(#[from] ProgramNotFound),
    /// The system refused to start it.
    #[error("could not start the program")]
    Spawn(#[source] io::Error),
    /// A runner's own reason.
    #[error("the runner failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RunnerError {
    /// Whether somebody has the program open for writing.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Spawn(error) if error.kind() == io::ErrorKind::ExecutableFileBusy)
    }
}

/// Starts plugins: as bare processes ([`ProcessRunner`](crate::ProcessRunner)),
/// in a container, under a supervisor of your own.
#[async_trait]
pub trait Runner: Send + Sync + fmt::Debug {
    /// The program that the name given to [`Launch::new`](crate::Launch::new)
    /// means. What is returned is started, and looked at when that fails; it is
    /// the name itself here, for runners whose programs are not the host's files.
    ///
    /// # Errors
    /// [`RunnerError::NotFound`] or a reason of its own.
    fn locate(&self, program: &Path) -> Result<PathBuf, RunnerError> {
        Ok(program.to_owned())
    }

    /// Starts what `command` asks for.
    ///
    /// # Errors
    /// See [`RunnerError`]. Nothing may be left running then.
    ///
    /// # Cancel safety
    /// When the future is dropped, nothing may be left running.
    async fn start(&self, command: &Command) -> Result<Started, RunnerError>;

    /// Rewrites addresses between the plugin's and the host's world.
    fn translator(&self) -> Arc<dyn AddressTranslator> {
        Arc::new(outrigger_transport::SameAddress)
    }
}

/// A running process: the part of a runner that a reattached plugin has too.
///
/// When the last reference goes, the process must go too, unless the host only
/// visits it.
#[async_trait]
pub trait AttachedRunner: Send + Sync {
    /// Waits until the process is gone. May be called several times.
    async fn wait(&self) -> ExitStatus;

    /// Waits until what the process started is gone too, once it is gone itself.
    /// Runners that cannot tell, or cannot help it, return at once.
    ///
    /// # Cancel safety
    /// Dropping the future only ends the waiting.
    async fn cleared(&self) {}

    /// Ends the process now. Ending it again is no error.
    ///
    /// # Errors
    /// What the system said.
    fn kill(&self) -> io::Result<()>;

    /// Text that identifies the process, such as its pid.
    fn id(&self) -> String;

    /// The process id in the host's pid namespace, where there is one.
    fn pid(&self) -> Option<u32>;
}
