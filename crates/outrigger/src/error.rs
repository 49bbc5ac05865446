//! Why a plugin cannot be had.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_host::LaunchError;
use outrigger_manifest::{ChecksumError, Entrypoint, PlaceError, Problems, Refusal};
use outrigger_wire::Coded;
use outrigger_wire::text::printable;

use crate::file_kind::FileKind;

/// How many names an error lists of those that a folder has.
const LISTED: usize = 5;

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
/// assert!(matches!(error.kind(), ErrorKind::Folder { .. }));
/// ```
#[derive(Clone, Debug)]
pub struct Error(Arc<ErrorKind>);

/// What is wrong. Names and paths in the texts are escaped, and safe to print.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The folder of the plugins' folders cannot be listed.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A manifest or a policy cannot be read.
    Unreadable {
        /// What it would be.
        file: FileKind,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// The manifests or policies that its folder has, where none was named.
        others: Vec<String>,
    },
    /// A manifest or a policy has problems.
    Invalid(FileKind, Problems),
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
    /// No plugin has this name.
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A folder before this one holds a plugin of the same name.
    NameTaken {
        /// The name.
        name: String,
        /// The folder before this one.
        by: PathBuf,
    },
    /// There is no program where the manifest says.
    Entrypoint {
        /// The plugin.
        plugin: String,
        /// What names the program: the manifest's path.
        manifest: Option<PathBuf>,
        /// What it says.
        entrypoint: Entrypoint,
        /// Where the program was looked for.
        tried: Vec<PathBuf>,
        /// The names in that folder that are nearly the one that is missing.
        alike: Vec<String>,
    },
    /// The checksum file cannot be read.
    ChecksumUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The checksum file says nothing of the program.
    Checksum {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ChecksumError,
    },
    /// The plugin asks for more than the policy allows.
    Refused {
        /// The plugin.
        plugin: String,
        /// The manifest, if it came from a file.
        manifest: Option<PathBuf>,
        /// What it does not get; there is at least one.
        refused: Vec<Refusal>,
    },
    /// The program was not started, or did not become a plugin.
    Launch(LaunchError),
}

impl Error {
    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// What else is known, a line for each fact.
    pub fn details(&self) -> Vec<String> {
        match self.kind() {
            ErrorKind::Folder { source, .. }
            | ErrorKind::ChecksumUnreadable { source, .. }
            | ErrorKind::ConfigurationUnreadable { source, .. } => {
                vec![source.to_string()]
            }
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
            ErrorKind::Unreadable { source, others, .. } => {
                let mut details = vec![source.to_string()];
                details.extend(listed("the folder holds", others));
                details
            }
            ErrorKind::Invalid(_, problems) => problems
                .iter()
                .map(|problem| printable(&format!("{}:{problem}", problems.file())).into_owned())
                .collect(),
            ErrorKind::Entrypoint {
                manifest,
                entrypoint,
                tried,
                alike,
                ..
            } => {
                let names = manifest.as_ref().map(|path| {
                    format!(
                        "{} names `{}`",
                        shown_path(path),
                        printable(entrypoint.as_str())
                    )
                });
                let mut details: Vec<String> = names.into_iter().collect();
                details.extend(
                    tried
                        .iter()
                        .map(|path| format!("`{}` does not exist", shown_path(path))),
                );
                details.extend(listed("its folder contains", alike));
                details
            }
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
            ErrorKind::Unknown { known, .. } => listed("there are", known).into_iter().collect(),
            ErrorKind::NameTaken { by, .. } => {
                vec![format!("`{}` is the one that counts", shown_path(by))]
            }
            ErrorKind::Checksum { source, .. } => vec![printable(&source.to_string()).into_owned()],
            ErrorKind::Launch(error) => causes(error),
            ErrorKind::Place(_) => Vec::new(),
        }
    }
}

impl Coded for Error {
    fn code(&self) -> &'static str {
        match self.kind() {
            ErrorKind::Folder { .. } => "plugins-unreadable",
            ErrorKind::Unreadable { file, .. } => file.unreadable(),
            ErrorKind::Invalid(file, _) => file.invalid(),
            ErrorKind::ConfigurationUnreadable { .. } => "configuration-unreadable",
            ErrorKind::Configuration(_) => "configuration-invalid",
            ErrorKind::Place(error) => error.code(),
            ErrorKind::Unknown { .. } => "plugin-not-found",
            ErrorKind::NameTaken { .. } => "plugin-name-taken",
            ErrorKind::Entrypoint { .. } => "entrypoint-not-found",
            ErrorKind::ChecksumUnreadable { .. } => "checksum-unreadable",
            ErrorKind::Checksum { source, .. } => source.code(),
            ErrorKind::Refused { .. } => "capability-refused",
            ErrorKind::Launch(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self.kind() {
            ErrorKind::Invalid(..) => "`outrigger check` shows each problem in its place",
            ErrorKind::Configuration(_) => "`outrigger config` shows each problem in its place",
            ErrorKind::Place(_) => "keep a plugin in a folder of its own, and its data in another",
            ErrorKind::NameTaken { .. } => "give one of the two another `plugin.name`",
            ErrorKind::Entrypoint { .. } => "build it, or correct `plugin.entrypoint`",
            ErrorKind::Checksum { .. } => {
                "write it anew with `sha256sum` if the program is the one you mean"
            }
            ErrorKind::Refused { .. } => {
                "review the requests, then widen the policy, or start it with less (`Settings::start_with_less`)"
            }
            ErrorKind::Launch(error) => return error.hint().map(Into::into),
            ErrorKind::Folder { .. }
            | ErrorKind::Unreadable { .. }
            | ErrorKind::ChecksumUnreadable { .. }
            | ErrorKind::ConfigurationUnreadable { .. }
            | ErrorKind::Unknown { .. } => return None,
        };
        Some(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ErrorKind::Folder { path, .. } => write!(
                f,
                "the plugins in `{}` could not be listed",
                shown_path(path)
            ),
            ErrorKind::Unreadable { file, path, .. } => write!(
                f,
                "the {} `{}` could not be read",
                file.as_str(),
                shown_path(path)
            ),
            ErrorKind::Invalid(_, problems) => f.write_str(&problems.headline()),
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
            ErrorKind::Unknown { name, .. } => {
                write!(f, "there is no plugin `{}`", printable(name))
            }
            ErrorKind::NameTaken { name, .. } => {
                write!(f, "another folder holds a plugin `{}` too", printable(name))
            }
            ErrorKind::Entrypoint { plugin, .. } => {
                write!(f, "plugin `{plugin}` has no program at its entrypoint")
            }
            ErrorKind::ChecksumUnreadable { path, .. } => write!(
                f,
                "the checksum file `{}` could not be read",
                shown_path(path)
            ),
            ErrorKind::Checksum { path, .. } => write!(
                f,
                "the checksum file `{}` says nothing of the program",
                shown_path(path)
            ),
            ErrorKind::Refused { plugin, .. } => {
                write!(f, "plugin `{plugin}` asks for more than this host allows")
            }
            ErrorKind::Launch(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.kind() {
            ErrorKind::Folder { source, .. }
            | ErrorKind::Unreadable { source, .. }
            | ErrorKind::ChecksumUnreadable { source, .. }
            | ErrorKind::ConfigurationUnreadable { source, .. } => Some(source),
            ErrorKind::Checksum { source, .. } => Some(source),
            // Its own words are the outer ones.
            ErrorKind::Launch(error) => error.source(),
            ErrorKind::Invalid(..)
            | ErrorKind::Configuration(_)
            | ErrorKind::Place(_)
            | ErrorKind::Unknown { .. }
            | ErrorKind::NameTaken { .. }
            | ErrorKind::Entrypoint { .. }
            | ErrorKind::Refused { .. } => None,
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Arc::new(kind))
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

/// What is behind an error, the nearest first.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source())
        .map(|cause| printable(&cause.to_string()).into_owned())
        .collect()
}

/// The first of `names`, after `before`; nothing if there are none.
fn listed(before: &str, names: &[String]) -> Option<String> {
    let mut shown: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|name| format!("`{}`", printable(name)))
        .collect();
    if names.len() > LISTED {
        shown.push(format!("{} more", names.len() - LISTED));
    }
    (!shown.is_empty()).then(|| format!("{before} {}", shown.join(", ")))
}

/// A path that is safe to print.
pub(crate) fn shown_path(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

#[cfg(test)]
mod tests;
