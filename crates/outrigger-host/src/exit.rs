//! How a plugin ended.

use std::fmt;
use std::time::Duration;

/// How a process ended, as far as its runner can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone; its runner cannot tell how, because it is no child of this process.
    Unknown,
}

impl ExitStatus {
    /// Whether the process ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl From<std::process::ExitStatus> for ExitStatus {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => f.write_str("is gone"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (31, "SIGSYS"),
    ];
    names
        .iter()
        .find(|(number, _)| *number == signal)
        .map(|(_, name)| *name)
}

/// Why this host killed a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillReason {
    /// The host did not ask it to end first.
    Unasked,
    /// It has no controller (`plugin.GRPCController`, or `Control` over net/rpc):
    /// it could not be asked to end.
    NoController,
    /// It did not answer within this time when it was asked to end.
    NoAnswer(Duration),
    /// Its connection was lost, and this long afterwards it was still there.
    ConnectionLost(Duration),
    /// It had been asked to end, and this long after its answer it was still there.
    Stayed(Duration),
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("it was not asked to end"),
            Self::NoController => f.write_str("it could not be asked to end: it has no controller"),
            Self::NoAnswer(limit) => {
                let seconds = limit.as_secs_f64();
                write!(
                    f,
                    "it did not answer within {seconds} s when it was asked to end (`stop_reply`)"
                )
            }
            Self::ConnectionLost(limit) => {
                let seconds = limit.as_secs_f64();
                write!(
                    f,
                    "its connection was lost and it did not end within {seconds} s (`lost_grace`)"
                )
            }
            Self::Stayed(limit) => {
                let seconds = limit.as_secs_f64();
                write!(
                    f,
                    "it did not end within {seconds} s of its answer (`stop_grace`)"
                )
            }
        }
    }
}

/// How a plugin ended, and what it said last.
#[derive(Clone, Debug)]
pub struct ExitReport {
    /// How the process ended.
    pub status: ExitStatus,
    /// Whether this host killed it.
    pub forced: bool,
    /// Why it did, if it did.
    pub kill_reason: Option<KillReason>,
    /// Why its connection was lost while it ran, if that is what ended its life.
    pub connection_lost: Option<String>,
    /// From its start to its end.
    pub ran: Duration,
    /// The last lines of its stderr, escaped and cut.
    pub stderr: Vec<String>,
}

/// A plugin ended while it was needed. The source of failed calls' statuses.
#[derive(Clone, Debug)]
pub struct PluginExited {
    /// The name that the host gave the plugin.
    pub plugin: String,
    /// How it ended.
    pub report: ExitReport,
}

impl PluginExited {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self.report.connection_lost {
            Some(_) => "connection-lost",
            None => "plugin-exited",
        }
    }

    /// The exit behind a failed call, whichever protocol it went over, if there
    /// is one.
    ///
    /// # Examples
    /// ```
    /// use outrigger_host::PluginExited;
    ///
    /// let status = tonic::Status::unavailable("no exit behind this one");
    /// assert!(PluginExited::behind(&status).is_none());
    /// ```
    pub fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a PluginExited> {
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(exited) = error.downcast_ref() {
                return Some(exited);
            }
            source = error.source();
        }
        None
    }
}

outrigger_wire::coded!(PluginExited);

impl fmt::Display for PluginExited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}` ", self.plugin)?;
        if let Some(why) = &self.report.connection_lost {
            write!(f, "lost its connection while it ran ({why}) and ")?;
        }
        write!(f, "{}", self.report.status)?;
        if let Some(last) = self.report.stderr.last() {
            write!(f, "; its last line on stderr: {last}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PluginExited {}
