//! Why a plugin that is installed cannot be used, or none is.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_manifest::{Entrypoint, Problems};
use outrigger_wire::text::printable;
use outrigger_wire::{Coded, DigestError};
use semver::{Version, VersionReq};

use crate::checksum::ChecksumError;
use crate::file_kind::FileKind;
use crate::shown::{self, listed, quoted};
use crate::signature::SignatureError;

/// Why a plugin that is installed cannot be used, or none is. Clones share what they say.
///
/// `Display` says what is wrong in one line, [`details`](Self::details) what else is known.
///
/// # Examples
/// ```
/// use outrigger_registry::{Registry, RegistryErrorKind};
/// use outrigger_wire::Coded;
///
/// let error = Registry::scan("/nonexistent").expect_err("no such folder");
/// assert_eq!(error.code(), "plugins-unreadable");
/// assert!(matches!(error.kind(), RegistryErrorKind::Folder { .. }));
/// ```
#[derive(Clone, Debug)]
pub struct RegistryError(Arc<RegistryErrorKind>);

/// What is wrong. Names and paths in the texts are escaped, and safe to print.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistryErrorKind {
    /// The folder of the plugins' folders cannot be listed.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has no descriptor or no thread to watch the folder.
    Watch {
        /// The folder of the plugins' folders.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What stands in place of a plugin's folder leads nowhere.
    PluginFolder {
        /// The place.
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
    /// The folder of a version holds another plugin, or another version of it.
    Version {
        /// The folder.
        path: PathBuf,
        /// The plugin that it would be.
        plugin: String,
        /// The plugin and the version that its manifest says.
        found: (String, Option<Version>),
    },
    /// No version of the plugin is the one that is pinned, or one of those that are required.
    Unsatisfied {
        /// The plugin.
        plugin: String,
        /// The version that is pinned.
        pinned: Option<Version>,
        /// The versions that are required.
        required: Option<VersionReq>,
        /// Those that are installed, the highest first.
        installed: Vec<Version>,
    },
    /// No version before the one in use can be used.
    NoEarlier {
        /// The plugin.
        plugin: String,
        /// The version in use.
        version: Option<Version>,
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
    /// What stands at the entrypoint is no program.
    Unusable {
        /// The plugin.
        plugin: String,
        /// What stands there.
        program: PathBuf,
        /// Why it is none.
        source: io::Error,
    },
    /// This user may not execute the program.
    NotExecutable {
        /// The plugin.
        plugin: String,
        /// Its program.
        program: PathBuf,
        /// The program's permission bits.
        mode: u32,
    },
    /// There is no checksum file, and there must be one.
    ChecksumMissing {
        /// The plugin.
        plugin: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
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
    /// The plugin is not signed by somebody who is trusted, or not as it was signed.
    Signature {
        /// The plugin.
        plugin: String,
        /// Why.
        source: SignatureError,
    },
    /// The program is not the one of the checksum file, or could not be read to find out.
    Digest {
        /// The plugin.
        plugin: String,
        /// Its program.
        program: PathBuf,
        /// Why.
        source: DigestError,
    },
}

impl RegistryError {
    /// What is wrong.
    pub fn kind(&self) -> &RegistryErrorKind {
        &self.0
    }

    /// What else is known, a line for each fact.
    pub fn details(&self) -> Vec<String> {
        match self.kind() {
            RegistryErrorKind::Folder { source, .. }
            | RegistryErrorKind::Watch { source, .. }
            | RegistryErrorKind::PluginFolder { source, .. }
            | RegistryErrorKind::ChecksumUnreadable { source, .. } => vec![source.to_string()],
            RegistryErrorKind::Unreadable { source, others, .. } => {
                let mut details = vec![source.to_string()];
                details.extend(listed("the folder holds", others));
                details
            }
            RegistryErrorKind::Invalid(_, problems) => problems
                .iter()
                .map(|problem| printable(&format!("{}:{problem}", problems.file())).into_owned())
                .collect(),
            RegistryErrorKind::Unknown { known, .. } => {
                listed("there are", known).into_iter().collect()
            }
            RegistryErrorKind::NameTaken { by, .. } => {
                vec![format!("`{}` is the one that counts", shown::path(by))]
            }
            RegistryErrorKind::Version {
                found: (name, version),
                ..
            } => {
                let version = version.as_ref().map(|it| format!(" {it}"));
                let version = version.unwrap_or_default();
                vec![format!("its manifest is that of {}{version}", quoted(name))]
            }
            RegistryErrorKind::Unsatisfied { installed, .. } => {
                let installed: Vec<String> = installed.iter().map(Version::to_string).collect();
                listed("installed are", &installed).into_iter().collect()
            }
            RegistryErrorKind::NoEarlier { version, .. } => {
                let in_use = version.as_ref().map(|it| format!("in use is `{it}`"));
                in_use.into_iter().collect()
            }
            RegistryErrorKind::Entrypoint {
                manifest,
                entrypoint,
                tried,
                alike,
                ..
            } => {
                let names = manifest.as_ref().map(|path| {
                    format!(
                        "{} names {}",
                        shown::path(path),
                        quoted(entrypoint.as_str())
                    )
                });
                let mut details: Vec<String> = names.into_iter().collect();
                details.extend(
                    tried
                        .iter()
                        .map(|path| format!("`{}` does not exist", shown::path(path))),
                );
                details.extend(listed("its folder contains", alike));
                details
            }
            RegistryErrorKind::Unusable {
                program, source, ..
            } => vec![format!("`{}`: {source}", shown::path(program))],
            RegistryErrorKind::NotExecutable { program, mode, .. } => {
                vec![format!(
                    "`{}` has the mode {mode:04o}",
                    shown::path(program)
                )]
            }
            RegistryErrorKind::ChecksumMissing { tried, .. } => tried
                .iter()
                .map(|path| format!("`{}` does not exist", shown::path(path)))
                .collect(),
            RegistryErrorKind::Checksum { source, .. } => {
                vec![printable(&source.to_string()).into_owned()]
            }
            RegistryErrorKind::Digest { source, .. } => vec![source.to_string()],
            RegistryErrorKind::Signature { source, .. } => {
                let inner = std::error::Error::source(source).map(ToString::to_string);
                let inner = inner.map(|text| printable(&text).into_owned());
                [source.to_string()].into_iter().chain(inner).collect()
            }
        }
    }
}

impl Coded for RegistryError {
    fn code(&self) -> &'static str {
        match self.kind() {
            RegistryErrorKind::Folder { .. } => "plugins-unreadable",
            RegistryErrorKind::Watch { .. } => "plugins-unwatched",
            RegistryErrorKind::PluginFolder { .. } => "plugin-folder-unreadable",
            RegistryErrorKind::Unreadable { file, .. } => file.unreadable(),
            RegistryErrorKind::Invalid(file, _) => file.invalid(),
            RegistryErrorKind::Unknown { .. } => "plugin-not-found",
            RegistryErrorKind::NameTaken { .. } => "plugin-name-taken",
            RegistryErrorKind::Version { .. } => "version-folder-mismatch",
            RegistryErrorKind::Unsatisfied { .. } => "version-not-installed",
            RegistryErrorKind::NoEarlier { .. } => "no-earlier-version",
            RegistryErrorKind::Entrypoint { .. } => "entrypoint-not-found",
            RegistryErrorKind::Unusable { .. } => "entrypoint-unusable",
            RegistryErrorKind::NotExecutable { .. } => "entrypoint-not-executable",
            RegistryErrorKind::ChecksumMissing { .. } => "checksum-missing",
            RegistryErrorKind::ChecksumUnreadable { .. } => "checksum-unreadable",
            RegistryErrorKind::Checksum { source, .. } => source.code(),
            RegistryErrorKind::Digest { source, .. } => source.code(),
            RegistryErrorKind::Signature { source, .. } => source.code(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self.kind() {
            RegistryErrorKind::Invalid(..) => "`outrigger check` shows each problem in its place",
            RegistryErrorKind::NameTaken { .. } => "give one of the two another `plugin.name`",
            RegistryErrorKind::Version { .. } => {
                "name the folder after `plugin.version`, in a folder named after `plugin.name`"
            }
            RegistryErrorKind::Unsatisfied {
                pinned: Some(_), ..
            } => "install that version, or pin another",
            RegistryErrorKind::Entrypoint { .. } => "build it, or correct `plugin.entrypoint`",
            RegistryErrorKind::NotExecutable { program, .. } => {
                return Some(format!("`chmod +x {}`", shown::path(program)).into());
            }
            RegistryErrorKind::ChecksumMissing { .. } => {
                "write one with `sha256sum` if the program is the one you mean"
            }
            RegistryErrorKind::Checksum { .. } => {
                "write it anew with `sha256sum` if the program is the one you mean"
            }
            RegistryErrorKind::Digest {
                source: DigestError::Mismatch { .. },
                ..
            } => "write its checksum anew if you rebuilt it, otherwise do not run it",
            RegistryErrorKind::Signature {
                source: SignatureError::Missing(_),
                ..
            } => {
                "sign the list of its files: `sha256sum … > plugin.sha256`, then `minisign -S -m plugin.sha256`"
            }
            RegistryErrorKind::Signature {
                source: SignatureError::Untrusted(_),
                ..
            } => "trust the key of whoever made it, if you know them",
            RegistryErrorKind::Signature {
                source:
                    SignatureError::Wrong(_) | SignatureError::Changed(..) | SignatureError::Unlisted(_),
                ..
            } => "install it anew from whoever made it; do not run it as it is",
            RegistryErrorKind::Signature { .. }
            | RegistryErrorKind::Folder { .. }
            | RegistryErrorKind::Watch { .. }
            | RegistryErrorKind::PluginFolder { .. }
            | RegistryErrorKind::Unsatisfied { .. }
            | RegistryErrorKind::NoEarlier { .. }
            | RegistryErrorKind::Unreadable { .. }
            | RegistryErrorKind::Unusable { .. }
            | RegistryErrorKind::ChecksumUnreadable { .. }
            | RegistryErrorKind::Digest { .. }
            | RegistryErrorKind::Unknown { .. } => return None,
        };
        Some(text.into())
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            RegistryErrorKind::Folder { path, .. } => write!(
                f,
                "the plugins in `{}` could not be listed",
                shown::path(path)
            ),
            RegistryErrorKind::Watch { path, .. } => write!(
                f,
                "the plugins in `{}` cannot be watched",
                shown::path(path)
            ),
            RegistryErrorKind::PluginFolder { path, .. } => {
                write!(f, "`{}` leads to no plugin's folder", shown::path(path))
            }
            RegistryErrorKind::Unreadable { file, path, .. } => write!(
                f,
                "the {} `{}` could not be read",
                file.as_str(),
                shown::path(path)
            ),
            RegistryErrorKind::Invalid(_, problems) => f.write_str(&problems.headline()),
            RegistryErrorKind::Unknown { name, .. } => {
                write!(f, "there is no plugin {}", quoted(name))
            }
            RegistryErrorKind::NameTaken { name, .. } => {
                write!(f, "another folder holds a plugin {} too", quoted(name))
            }
            RegistryErrorKind::Version { path, plugin, .. } => write!(
                f,
                "`{}` holds no such version of plugin {}",
                shown::path(path),
                quoted(plugin)
            ),
            RegistryErrorKind::Unsatisfied {
                plugin,
                pinned,
                required,
                ..
            } => match (pinned, required) {
                (Some(pinned), Some(required)) => write!(
                    f,
                    "plugin `{plugin}` is pinned to `{pinned}`, which cannot be had with `{required}`"
                ),
                (Some(pinned), None) => write!(
                    f,
                    "plugin `{plugin}` is pinned to `{pinned}`, which is not installed"
                ),
                (None, Some(required)) => {
                    write!(f, "no version of plugin `{plugin}` is `{required}`")
                }
                (None, None) => write!(f, "no version of plugin `{plugin}` is installed"),
            },
            RegistryErrorKind::NoEarlier { plugin, .. } => write!(
                f,
                "plugin `{plugin}` has no earlier version that can be used"
            ),
            RegistryErrorKind::Entrypoint { plugin, .. } => {
                write!(f, "plugin `{plugin}` has no program at its entrypoint")
            }
            RegistryErrorKind::Unusable { plugin, .. } => {
                write!(
                    f,
                    "what plugin `{plugin}` has at its entrypoint is no program"
                )
            }
            RegistryErrorKind::NotExecutable { plugin, .. } => {
                write!(f, "the program of plugin `{plugin}` may not be executed")
            }
            RegistryErrorKind::ChecksumMissing { plugin, .. } => {
                write!(
                    f,
                    "plugin `{plugin}` has no checksum file, and must have one"
                )
            }
            RegistryErrorKind::ChecksumUnreadable { path, .. } => write!(
                f,
                "the checksum file `{}` could not be read",
                shown::path(path)
            ),
            RegistryErrorKind::Checksum { path, .. } => write!(
                f,
                "the checksum file `{}` says nothing of the program",
                shown::path(path)
            ),
            RegistryErrorKind::Signature { plugin, source } => match source {
                SignatureError::Missing(_) => write!(f, "plugin `{plugin}` is not signed"),
                SignatureError::Untrusted(_) => {
                    write!(f, "plugin `{plugin}` is signed by nobody who is trusted")
                }
                _ => write!(f, "plugin `{plugin}` is not as it was signed"),
            },
            RegistryErrorKind::Digest { plugin, source, .. } => match source {
                DigestError::Mismatch { .. } => {
                    write!(f, "plugin `{plugin}` is not the program that was meant")
                }
                _ => write!(f, "the program of plugin `{plugin}` could not be read"),
            },
        }
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.kind() {
            RegistryErrorKind::Folder { source, .. }
            | RegistryErrorKind::Watch { source, .. }
            | RegistryErrorKind::PluginFolder { source, .. }
            | RegistryErrorKind::Unreadable { source, .. }
            | RegistryErrorKind::Unusable { source, .. }
            | RegistryErrorKind::ChecksumUnreadable { source, .. } => Some(source),
            RegistryErrorKind::Checksum { source, .. } => Some(source),
            RegistryErrorKind::Digest { source, .. } => Some(source),
            RegistryErrorKind::Signature { source, .. } => Some(source),
            RegistryErrorKind::Invalid(..)
            | RegistryErrorKind::Unknown { .. }
            | RegistryErrorKind::NameTaken { .. }
            | RegistryErrorKind::Version { .. }
            | RegistryErrorKind::Unsatisfied { .. }
            | RegistryErrorKind::NoEarlier { .. }
            | RegistryErrorKind::Entrypoint { .. }
            | RegistryErrorKind::NotExecutable { .. }
            | RegistryErrorKind::ChecksumMissing { .. } => None,
        }
    }
}

impl From<RegistryErrorKind> for RegistryError {
    fn from(kind: RegistryErrorKind) -> Self {
        Self(Arc::new(kind))
    }
}
