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
            ErrorKind::Folder { source, .. } | ErrorKind::ChecksumUnreadable { source, .. } => {
                vec![source.to_string()]
            }
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
            | ErrorKind::ChecksumUnreadable { source, .. } => Some(source),
            ErrorKind::Checksum { source, .. } => Some(source),
            // Its own words are the outer ones.
            ErrorKind::Launch(error) => error.source(),
            ErrorKind::Invalid(..)
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
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{Plugin, Plugins, Settings};

    const KINDS: usize = 11;

    /// A number for each kind; a new one is missing here until it has an example below.
    fn number_of(kind: &ErrorKind) -> usize {
        match kind {
            ErrorKind::Folder { .. } => 0,
            ErrorKind::Unreadable { .. } => 1,
            ErrorKind::Invalid(..) => 2,
            ErrorKind::Place(_) => 3,
            ErrorKind::Unknown { .. } => 4,
            ErrorKind::NameTaken { .. } => 5,
            ErrorKind::Entrypoint { .. } => 6,
            ErrorKind::ChecksumUnreadable { .. } => 7,
            ErrorKind::Checksum { .. } => 8,
            ErrorKind::Refused { .. } => 9,
            ErrorKind::Launch(_) => 10,
        }
    }

    /// A folder in which the plugin `dog` has the folder `dog`.
    struct Kennel(TempDir);

    impl Kennel {
        fn new() -> Self {
            let kennel = Self(tempfile::tempdir().expect("a folder"));
            kennel.add("dog", "");
            kennel
        }

        /// Adds a folder with a plugin `dog` that asks for these capabilities.
        fn add(&self, folder: &str, capabilities: &str) {
            let manifest = format!(
                "plugin: {{name: dog, format: grpc, entrypoint: dog}}\n\
                 handshake: {{protocol_version: 1, magic_cookie_key: DOG, magic_cookie_value: x}}\n\
                 capabilities: {{{capabilities}}}\n"
            );
            fs::create_dir_all(self.path(folder)).expect("a plugin's folder");
            self.write(&format!("{folder}/dog"), "");
            self.write(&format!("{folder}/manifest.yaml"), &manifest);
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("a file");
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).expect("renamed");
        }

        fn dog(&self) -> Plugin {
            Plugin::open(self.path("dog")).expect("a plugin")
        }

        /// All that is said of an error, with `DIR` for the folder of the plugins.
        fn all_of(&self, error: &Error) -> String {
            let mut lines = vec![format!("[{}] {error}", error.code())];
            lines.extend(error.details().iter().map(|line| format!("  {line}")));
            lines.extend(error.hint().iter().map(|hint| format!("  help: {hint}")));
            let folder = fs::canonicalize(self.0.path()).expect("it is there");
            lines
                .join("\n")
                .replace(&folder.display().to_string(), "DIR")
        }
    }

    /// An example of each kind, made by what makes it.
    async fn examples() -> Vec<(Error, String)> {
        let mut examples = Vec::new();
        let mut example = |kennel: &Kennel, error: Error| {
            let text = kennel.all_of(&error);
            examples.push((error, text));
        };

        let kennel = Kennel::new();
        let missing = Plugins::open(kennel.path("missing"));
        example(&kennel, missing.expect_err("no such folder"));
        kennel.rename("dog/manifest.yaml", "dog/manifst.yaml");
        let unnamed = Plugin::open(kennel.path("dog"));
        example(&kennel, unnamed.expect_err("no manifest"));
        kennel.write("dog/manifest.yaml", "plugin: {nme: dog}");
        let invalid = Plugin::open(kennel.path("dog"));
        example(&kennel, invalid.expect_err("no name"));
        let policy = Settings::new().policy_file(kennel.path("dog"));
        example(&kennel, policy.expect_err("no policy"));
        kennel.write("policy.yaml", "default: {alow: requested}");
        let policy = Settings::new().policy_file(kennel.0.path());
        example(&kennel, policy.expect_err("a misspelt key"));

        let kennel = Kennel::new();
        let own = kennel.dog().with_data_dir("/");
        example(&kennel, own.expect_err("all there is"));
        kennel.add("second", "");
        let plugins = Plugins::open(kennel.0.path()).expect("a folder");
        example(&kennel, plugins.get("cat").expect_err("no such plugin"));
        let second = plugins.entries()[1].plugin();
        example(&kennel, second.expect_err("a second dog").clone());

        let kennel = Kennel::new();
        kennel.rename("dog/dog", "dog/dgo");
        example(&kennel, kennel.dog().launch().expect_err("no program"));
        kennel.rename("dog/dgo", "dog/dog");
        fs::create_dir(kennel.path("dog/plugin.sha256")).expect("a folder");
        example(&kennel, kennel.dog().launch().expect_err("no file"));
        fs::remove_dir(kennel.path("dog/plugin.sha256")).expect("removed");
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        for checksums in [
            "".to_owned(),
            "d0c".to_owned(),
            format!("{one}  cat\n{two}  cow\n"),
            format!("{one}  dog\n{two}  dog\n"),
        ] {
            kennel.write("dog/plugin.sha256", &checksums);
            example(&kennel, kennel.dog().launch().expect_err("no checksum"));
        }
        kennel.write("dog/plugin.sha256", &"0".repeat(64));
        let other = kennel.dog().start().await;
        example(&kennel, other.expect_err("another program"));

        let kennel = Kennel::new();
        kennel.add("dog", "environment: {read: [HOME]}");
        example(&kennel, kennel.dog().launch().expect_err("not allowed"));
        examples
    }

    /// The codes in the table of the page for authors of hosts, but for those of a launch.
    fn documented() -> BTreeSet<&'static str> {
        include_str!("../../../docs/embedding.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect()
    }

    #[tokio::test]
    async fn every_kind_of_error_has_a_code_and_says_what_is_wrong() {
        let examples = examples().await;
        let mut met = [false; KINDS];
        for (error, _) in &examples {
            met[number_of(error.kind())] = true;
        }
        assert_eq!(met, [true; KINDS]);
        let codes: BTreeSet<&str> = examples.iter().map(|(error, _)| error.code()).collect();
        assert_eq!(documented(), &codes - &BTreeSet::from(["digest-mismatch"]));
        let texts: Vec<&str> = examples.iter().map(|(_, text)| text.as_str()).collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        [plugins-unreadable] the plugins in `DIR/missing` could not be listed
          No such file or directory (os error 2)
        [manifest-unreadable] the manifest `DIR/dog/manifest.yaml` could not be read
          No such file or directory (os error 2)
          the folder holds `manifst.yaml`
        [manifest-invalid] DIR/dog/manifest.yaml has 4 problems
          DIR/dog/manifest.yaml:1:1: handshake: the key `handshake` is missing [missing-key]
          DIR/dog/manifest.yaml:1:9: plugin.format: the key `format` is missing [missing-key]
          DIR/dog/manifest.yaml:1:9: plugin.entrypoint: the key `entrypoint` is missing [missing-key]
          DIR/dog/manifest.yaml:1:10: plugin.nme: the key `nme` has no meaning here; did you mean `name`? [unknown-key]
          help: `outrigger check` shows each problem in its place
        [policy-unreadable] the policy `DIR/dog/policy.yaml` could not be read
          No such file or directory (os error 2)
          the folder holds `manifest.yaml`, `manifst.yaml`
        [policy-invalid] DIR/policy.yaml has 1 problem
          DIR/policy.yaml:1:11: default.alow: the key `alow` has no meaning here; did you mean `allow`? [unknown-key]
          help: `outrigger check` shows each problem in its place
        [place-unusable] ${data_dir} cannot stand for `/`, which is not an absolute path below the root without `..`
          help: keep a plugin in a folder of its own, and its data in another
        [plugin-not-found] there is no plugin `cat`
          there are `dog`
        [plugin-name-taken] another folder holds a plugin `dog` too
          `DIR/dog` is the one that counts
          help: give one of the two another `plugin.name`
        [entrypoint-not-found] plugin `dog` has no program at its entrypoint
          DIR/dog/manifest.yaml names `dog`
          `DIR/dog/dog` does not exist
          its folder contains `dgo`
          help: build it, or correct `plugin.entrypoint`
        [checksum-unreadable] the checksum file `DIR/dog/plugin.sha256` could not be read
          it is no regular file
        [checksum-empty] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
          the file has no checksum in it
          help: write it anew with `sha256sum` if the program is the one you mean
        [checksum-malformed] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
          line 1: `d0c` is not a SHA-256 digest of 64 hexadecimal digits
          help: write it anew with `sha256sum` if the program is the one you mean
        [checksum-not-listed] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
          none of its 2 lines is about `dog`
          help: write it anew with `sha256sum` if the program is the one you mean
        [checksum-ambiguous] the checksum file `DIR/dog/plugin.sha256` says nothing of the program
          it has two different checksums for `dog`
          help: write it anew with `sha256sum` if the program is the one you mean
        [digest-mismatch] plugin `dog` is not the program that was meant
          the program's sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, expected 0000000000000000000000000000000000000000000000000000000000000000
        [capability-refused] plugin `dog` asks for more than this host allows
          DIR/dog/manifest.yaml:3:37: capabilities.environment.read[0] HOME: no rule of the policy allows it
          help: review the requests, then widen the policy, or start it with less (`Settings::start_with_less`)
        ");
    }
}
