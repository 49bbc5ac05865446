//! Commands that were granted.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{Child, ExitStatus, Host, HostError, time};

/// Commands that were granted, run by the host.
///
/// # Examples
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncReadExt;
///
/// let process = host.process();
/// let listed = process.command("/bin/ls").arg("/data").output().await?;
/// println!("{:?}: {} bytes", listed.status, listed.stdout.len());
///
/// let mut child = process.command("/usr/bin/make").current_dir("/data").spawn().await?;
/// let mut printed = String::new();
/// if let Some(stdout) = &mut child.stdout {
///     stdout.read_to_string(&mut printed).await?;
/// }
/// println!("{printed}{:?}", child.wait().await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Processes(pub(super) Host);

impl Processes {
    /// A command by its absolute path.
    pub fn command(&self, path: impl Into<String>) -> Command {
        let command = path.into();
        Command {
            host: self.0.clone(),
            command: messages::Command {
                command,
                ..messages::Command::default()
            },
            input: Bytes::new(),
            timeout: Duration::ZERO,
        }
    }

    /// The processes that this plugin has started.
    ///
    /// # Errors
    /// Listing is not granted, or see [`HostError`].
    pub async fn list(&self) -> Result<Vec<ProcessInfo>, HostError> {
        let reply = call!(self.0, process.list, messages::ListProcessesRequest {})?;
        let processes = reply.processes.into_iter();
        processes.map(ProcessInfo::from_wire).collect()
    }
}

/// A process that this plugin has started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its process id at the host.
    pub pid: i32,
    /// The program.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// When it was started.
    pub started: Option<SystemTime>,
    /// How it ended; nothing while it runs.
    pub status: Option<ExitStatus>,
}

impl ProcessInfo {
    fn from_wire(info: messages::ProcessInfo) -> Result<Self, HostError> {
        let status = info
            .status
            .map(|status| ExitStatus::from_wire(Some(status), "process.list"));
        Ok(Self {
            pid: info.pid,
            command: info.command.into(),
            args: info.args,
            started: time::from_wire(info.started),
            status: status.transpose()?,
        })
    }
}

/// A command to run.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `output` or `spawn`"]
pub struct Command {
    host: Host,
    command: messages::Command,
    input: Bytes,
    timeout: Duration,
}

impl Command {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.command.args.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        self.command.args.extend(arguments);
        self
    }

    /// Gives it a variable. The name must be granted, and the value is the one
    /// that [`Env::var`](super::Env::var) tells: with another one nothing runs
    /// (`value-not-granted`).
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.environment.insert(name.into(), value.into());
        self
    }

    /// Runs it in a granted directory. Without one it runs in a directory that only
    /// the plugin's commands reach.
    pub fn current_dir(mut self, directory: impl Into<String>) -> Self {
        self.command.directory = directory.into();
        self
    }

    /// What [`output`](Self::output) gives it to read.
    pub fn input(mut self, input: impl Into<Bytes>) -> Self {
        self.input = input.into();
        self
    }

    /// How long [`output`](Self::output) lets it run: the host's `call_timeout` at
    /// most, and if nothing is set here. Start what may take longer with
    /// [`spawn`](Self::spawn).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end and collects what it prints.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`]. A command that fails is no error.
    pub async fn output(self) -> Result<Output, HostError> {
        let request = messages::RunRequest {
            command: Some(self.command),
            input: self.input,
            timeout_ms: time::millis(self.timeout),
        };
        let ran = call!(self.host, process.run, request)?;
        Ok(Output {
            status: ExitStatus::from_wire(ran.status, "process.run")?,
            stdout: ran.output,
            stderr: ran.error_output,
            dropped: ran.dropped,
        })
    }

    /// Starts it. Its input and output are streams.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`].
    pub async fn spawn(self) -> Result<Child, HostError> {
        Child::start(self.host, self.command).await
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Bytes,
    /// What it printed as errors.
    pub stderr: Bytes,
    /// Bytes that it printed and that did not fit.
    pub dropped: u64,
}
