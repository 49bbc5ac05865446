//! Why a plugin cannot be had.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_host::{
    DispenseError, ExitReport, ExpectedDigest, LaunchError, LaunchErrorKind, PingError, RunnerError,
};
use outrigger_manifest::{LockMode, PlaceError, Problems, Refusal, ServiceNameError};
use outrigger_registry::{LockError, Objection, RegistryError, RegistryErrorKind};
use outrigger_wire::Coded;
use outrigger_wire::text::printable;

use crate::plugin_config::PluginConfigError;

/// Why a plugin cannot be had, or not be started. Clones share what they say.
///
/// `Display` says what is wrong in one line, [`details`](Self::details) what else
/// is known.
///
/// # Examples
/// ```
/// use outrigger::{Coded, ErrorKind, Plugins};
///
/// let error = Plugins::open("/nonexistent").expect_err("no such folder");
/// assert_eq!(error.code(), "plugins-unreadable");
/// assert!(matches!(error.kind(), ErrorKind::Registry(_)));
/// ```
#[derive(Clone, Debug)]
pub struct Error(Arc<ErrorKind>);

/// What is wrong. Names and paths in the texts are escaped, and safe to print.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is not installed, or what is installed cannot be used.
    Registry(RegistryError),
    /// The configuration's file cannot be read.
    ConfigurationUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration has problems: those of its file, of variables and of flags.
    Configuration(Vec<Problems>),
    /// A place that a manifest may speak of cannot be one.
    Place(PlaceError),
    /// The plugin's own configuration cannot be used.
    PluginConfig(PluginConfigError),
    /// A service of the application's own cannot have this name.
    ServiceName(ServiceNameError),
    /// The plugin asks for more than the policy allows.
    Refused {
        /// The plugin.
        plugin: String,
        /// The manifest, if it came from a file.
        manifest: Option<PathBuf>,
        /// What it does not get; there is at least one.
        refused: Vec<Refusal>,
    },
    /// The lock file does not let the plugin start: nobody approved what it is now.
    NotApproved {
        /// The lock file.
        lock: PathBuf,
        /// How strictly it is taken.
        mode: LockMode,
        /// Whether it takes an approval, or the plugin that was locked.
        code: &'static str,
        /// What is to be looked at.
        objection: Box<Objection>,
    },
    /// The plugin is not the one that was to be approved.
    NotExpected {
        /// The plugin.
        plugin: String,
        /// What was to be approved.
        expected: ExpectedDigest,
        /// What its program hashes to.
        found: ExpectedDigest,
    },
    /// The lock file cannot be used.
    Lock(LockError),
    /// The program was not started, or did not become a plugin.
    Launch(LaunchError),
    /// The plugin was reached, and does not serve.
    NotServing {
        /// The plugin.
        plugin: String,
        /// How long it had to say that it serves.
        limit: Duration,
        /// Why it could not be asked, if that is it; otherwise it said no.
        source: Option<PingError>,
    },
    /// The plugin serves, and what the application does before it is called failed.
    SelfTest {
        /// The plugin.
        plugin: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody stopped the plugin, and nobody started it since.
    Stopped {
        /// The plugin.
        plugin: String,
    },
    /// The plugin failed.
    Failed {
        /// The plugin.
        plugin: String,
        /// How, the last time.
        why: Failure,
    },
    /// The plugin runs, and no client could be made for the interface.
    Dispense(DispenseError),
    /// The host of the plugins is shut down.
    ShutDown,
}

impl Error {
    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// Whether the same may go well another time, although nobody changes anything.
    pub fn may_pass(&self) -> bool {
        match self.kind() {
            ErrorKind::Launch(error) => !matches!(
                error.kind(),
                LaunchErrorKind::Digest(_) | LaunchErrorKind::Start(RunnerError::NotFound(_))
            ),
            ErrorKind::NotServing { .. } | ErrorKind::SelfTest { .. } => true,
            ErrorKind::Failed { why, .. } => why.may_pass(),
            ErrorKind::Registry(_)
            | ErrorKind::ConfigurationUnreadable { .. }
            | ErrorKind::Configuration(_)
            | ErrorKind::Place(_)
            | ErrorKind::Refused { .. }
            | ErrorKind::NotApproved { .. }
            | ErrorKind::NotExpected { .. }
            | ErrorKind::Lock(_)
            | ErrorKind::Stopped { .. }
            | ErrorKind::Dispense(_)
            | ErrorKind::PluginConfig(_)
            | ErrorKind::ServiceName(_)
            | ErrorKind::ShutDown => false,
        }
    }

    /// What is wrong with what is installed, if it is that.
    pub fn registry(&self) -> Option<&RegistryErrorKind> {
        match self.kind() {
            ErrorKind::Registry(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// What else is known, a line for each fact.
    pub fn details(&self) -> Vec<String> {
        match self.kind() {
            ErrorKind::Registry(error) => error.details(),
            ErrorKind::ConfigurationUnreadable { source, .. } => vec![source.to_string()],
            ErrorKind::Configuration(problems) => problems
                .iter()
                .flat_map(|problems| {
                    problems
                        .to_string()
                        .lines()
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
                .collect(),
            ErrorKind::Refused {
                manifest, refused, ..
            } => refused
                .iter()
                .map(|refusal| {
                    let place = manifest.as_ref().map_or_else(String::new, |path| {
                        let at = refusal.position;
                        format!("{}:{}:{}: ", shown_path(path), at.line, at.column)
                    });
                    place + &printable(&refusal.to_string())
                })
                .collect(),
            ErrorKind::NotApproved { objection, .. } => {
                let grave = objection.grave.iter();
                let mut details: Vec<String> = grave
                    .map(|grave| format!("never trusted at first sight: {}", grave.request))
                    .collect();
                details.extend(objection.changes.iter().map(|change| match change.why() {
                    Some(why) => format!("{change} ({why})"),
                    None => change.to_string(),
                }));
                details.push(format!("its program is {}", objection.digest));
                details
            }
            ErrorKind::NotExpected {
                expected, found, ..
            } => vec![
                format!("its program is {found}"),
                format!("to be approved was {expected}"),
            ],
            ErrorKind::Lock(error) => causes(error),
            ErrorKind::Launch(error) => causes(error),
            ErrorKind::PluginConfig(error) => error.details(),
            ErrorKind::ServiceName(error) => {
                let near = error.near_miss();
                near.map(|near| format!("near it is `{near}`"))
                    .into_iter()
                    .collect()
            }
            ErrorKind::Dispense(error) => causes(error),
            ErrorKind::NotServing {
                limit,
                source: None,
                ..
            } => vec![format!(
                "it was reached, and said for {} s (`start`) that it was not serving",
                limit.as_secs_f64()
            )],
            ErrorKind::NotServing {
                source: Some(error),
                ..
            } => {
                let mut details = vec![error.to_string()];
                details.extend(causes(error));
                details
            }
            ErrorKind::SelfTest { source, .. } => {
                let mut details = vec![printable(&source.to_string()).into_owned()];
                details.extend(causes(source.as_ref()));
                details
            }
            ErrorKind::Failed { why, .. } => {
                let mut details = vec![why.to_string()];
                match why {
                    Failure::NotStarted(error) => details.extend(error.details()),
                    Failure::Exited(report) | Failure::Unanswered { report, .. } => {
                        let stderr = report.stderr.iter();
                        details.extend(stderr.map(|line| format!("stderr: {line}")));
                    }
                }
                details
            }
            ErrorKind::Place(_) | ErrorKind::Stopped { .. } | ErrorKind::ShutDown => Vec::new(),
        }
    }
}

impl Coded for Error {
    fn code(&self) -> &'static str {
        match self.kind() {
            ErrorKind::Registry(error) => error.code(),
            ErrorKind::ConfigurationUnreadable { .. } => "configuration-unreadable",
            ErrorKind::Configuration(_) => "configuration-invalid",
            ErrorKind::Place(error) => error.code(),
            ErrorKind::PluginConfig(error) => error.code(),
            ErrorKind::ServiceName(error) => error.code(),
            ErrorKind::Refused { .. } => "capability-refused",
            ErrorKind::NotApproved { code, .. } => code,
            ErrorKind::NotExpected { .. } => "digest-unexpected",
            ErrorKind::Lock(error) => error.code(),
            ErrorKind::Launch(error) => error.code(),
            ErrorKind::NotServing { .. } => "plugin-not-serving",
            ErrorKind::SelfTest { .. } => "self-test-failed",
            ErrorKind::Stopped { .. } => "plugin-stopped",
            ErrorKind::Failed { .. } => "plugin-failed",
            ErrorKind::Dispense(error) => error.code(),
            ErrorKind::ShutDown => "host-shut-down",
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self.kind() {
            ErrorKind::Registry(error) => return error.hint(),
            ErrorKind::ConfigurationUnreadable { .. } => return None,
            ErrorKind::Configuration(_) => "`outrigger config` shows each problem in its place",
            ErrorKind::Place(_) => "keep a plugin in a folder of its own, and its data in another",
            ErrorKind::PluginConfig(error) => return error.hint(),
            ErrorKind::ServiceName(_) => {
                "names have 1 to 64 of a-z, 0-9, `-`, `_` and `.`, begin with a letter, and are not nearly one of the host's services"
            }
            ErrorKind::Refused { .. } => {
                "review the requests, then widen the policy, or start it with less (`Settings::start_with_less`)"
            }
            ErrorKind::NotApproved { objection, .. } => {
                let approve = format!(
                    "review that, then `outrigger approve {} --expect {}`",
                    objection.plugin, objection.digest
                );
                return Some(approve.into());
            }
            ErrorKind::NotExpected { .. } => {
                "look at the plugin that is there now, and approve that or bring the other one back"
            }
            ErrorKind::Lock(error) => return error.hint(),
            ErrorKind::Launch(error) => return error.hint().map(Into::into),
            ErrorKind::NotServing { .. } => {
                "see its stderr; a plugin says that it serves as soon as it can answer calls"
            }
            ErrorKind::Stopped { .. } => "start it; a call starts no plugin that somebody stopped",
            ErrorKind::Failed { why, .. } => {
                return Some(
                    why.hint()
                        .unwrap_or("restart it once that is mended".into()),
                );
            }
            ErrorKind::Dispense(_) | ErrorKind::SelfTest { .. } | ErrorKind::ShutDown => {
                return None;
            }
        };
        Some(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ErrorKind::Registry(error) => error.fmt(f),
            ErrorKind::ConfigurationUnreadable { path, .. } => write!(
                f,
                "the configuration `{}` could not be read",
                shown_path(path)
            ),
            ErrorKind::Configuration(problems) => {
                let count: usize = problems.iter().map(Problems::len).sum();
                let plural = if count == 1 { "" } else { "s" };
                write!(f, "the configuration has {count} problem{plural}")
            }
            ErrorKind::Place(error) => error.fmt(f),
            ErrorKind::PluginConfig(error) => error.fmt(f),
            ErrorKind::ServiceName(error) => error.fmt(f),
            ErrorKind::Refused { plugin, .. } => {
                write!(f, "plugin `{plugin}` asks for more than this host allows")
            }
            ErrorKind::NotApproved { objection, .. } => {
                write!(
                    f,
                    "plugin `{}` {}",
                    objection.plugin,
                    objection.why.phrase()
                )
            }
            ErrorKind::NotExpected { plugin, .. } => {
                write!(
                    f,
                    "plugin `{plugin}` is not the one that was to be approved"
                )
            }
            ErrorKind::Lock(error) => error.fmt(f),
            ErrorKind::Launch(error) => error.fmt(f),
            ErrorKind::NotServing { plugin, .. } => write!(f, "plugin `{plugin}` does not serve"),
            ErrorKind::SelfTest { plugin, .. } => {
                write!(
                    f,
                    "plugin `{plugin}` serves, and did not pass the test before its use"
                )
            }
            ErrorKind::Stopped { plugin } => write!(f, "plugin `{plugin}` was stopped"),
            ErrorKind::Failed { plugin, .. } => write!(f, "plugin `{plugin}` has failed"),
            ErrorKind::Dispense(error) => error.fmt(f),
            ErrorKind::ShutDown => f.write_str("the host of the plugins is shut down"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.kind() {
            ErrorKind::ConfigurationUnreadable { source, .. } => Some(source),
            // Its own words are the outer ones.
            ErrorKind::Registry(error) => error.source(),
            ErrorKind::Launch(error) => error.source(),
            ErrorKind::Lock(error) => error.source(),
            // Its own words are the outer ones.
            ErrorKind::PluginConfig(error) => error.source(),
            ErrorKind::Dispense(error) => error.source(),
            ErrorKind::NotServing { source, .. } => source.as_ref().map(|error| error as _),
            ErrorKind::Failed { why, .. } => Some(why),
            ErrorKind::SelfTest { source, .. } => Some(source.as_ref()),
            ErrorKind::Stopped { .. }
            | ErrorKind::ShutDown
            | ErrorKind::Configuration(_)
            | ErrorKind::Place(_)
            | ErrorKind::ServiceName(_)
            | ErrorKind::Refused { .. }
            | ErrorKind::NotApproved { .. }
            | ErrorKind::NotExpected { .. } => None,
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Arc::new(kind))
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        ErrorKind::Registry(error).into()
    }
}

impl From<RegistryErrorKind> for Error {
    fn from(kind: RegistryErrorKind) -> Self {
        RegistryError::from(kind).into()
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        ErrorKind::Lock(error).into()
    }
}

impl From<PluginConfigError> for Error {
    fn from(error: PluginConfigError) -> Self {
        ErrorKind::PluginConfig(error).into()
    }
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        ErrorKind::Launch(error).into()
    }
}

impl From<PlaceError> for Error {
    fn from(error: PlaceError) -> Self {
        ErrorKind::Place(error).into()
    }
}

/// What went wrong with a plugin that should run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be started.
    NotStarted(Error),
    /// It ended.
    Exited(ExitReport),
    /// It left pings unanswered, and was killed.
    Unanswered {
        /// How many in a row.
        missed: u32,
        /// How it ended.
        report: ExitReport,
    },
}

impl Failure {
    /// Whether starting it again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotStarted(error) => error.may_pass(),
            Self::Exited(_) | Self::Unanswered { .. } => true,
        }
    }

    /// How it ended, if it had been started.
    pub fn report(&self) -> Option<&ExitReport> {
        match self {
            Self::NotStarted(_) => None,
            Self::Exited(report) | Self::Unanswered { report, .. } => Some(report),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotStarted(error) => error.source(),
            Self::Exited(_) | Self::Unanswered { .. } => None,
        }
    }
}

impl Coded for Failure {
    fn code(&self) -> &'static str {
        match self {
            Self::NotStarted(error) => error.code(),
            Self::Exited(report) if report.connection_lost.is_some() => "connection-lost",
            Self::Exited(_) => "plugin-exited",
            Self::Unanswered { .. } => "pings-unanswered",
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NotStarted(error) => error.hint(),
            Self::Exited(_) | Self::Unanswered { .. } => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = match self {
            Self::NotStarted(error) => return error.fmt(f),
            Self::Unanswered { missed, report } => {
                write!(f, "it left {missed} pings in a row unanswered")?;
                report
            }
            Self::Exited(report) => {
                if let Some(why) = &report.connection_lost {
                    write!(f, "it lost its connection ({why}) and ")?;
                } else {
                    f.write_str("it ")?;
                }
                write!(f, "{} after {} ms", report.status, report.ran.as_millis())?;
                report
            }
        };
        if let Some(last) = report.stderr.last() {
            write!(f, "; its last line on stderr: {last}")?;
        }
        Ok(())
    }
}

/// What is behind an error, the nearest first.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source())
        .map(|cause| printable(&cause.to_string()).into_owned())
        .collect()
}

/// A path that is safe to print.
pub(crate) fn shown_path(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

#[cfg(test)]
mod tests;
