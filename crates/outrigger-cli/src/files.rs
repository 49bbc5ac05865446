//! Manifests and policies as files, and the places that they speak of.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use outrigger_manifest::{Manifest, Places, Policy, Problems};

use crate::failure::{Failure, printable};
use crate::snippet::Listing;

/// Read at most, in bytes: far more than what either kind of file may have.
const LARGEST: u64 = 16 << 20;

/// Keys that only a manifest has at its top, and those that only a policy has.
const OF_MANIFESTS: [&str; 9] = [
    "plugin",
    "about",
    "handshake",
    "security",
    "capabilities",
    "resources",
    "sandbox",
    "jit",
    "services",
];
const OF_POLICIES: [&str; 2] = ["default", "plugins"];

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Manifest,
    Policy,
}

impl Kind {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Policy => "policy",
        }
    }

    fn default_name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest.yaml",
            Self::Policy => "policy.yaml",
        }
    }

    /// The code of a file that has problems.
    pub(crate) fn invalid(self) -> &'static str {
        match self {
            Self::Manifest => "manifest-invalid",
            Self::Policy => "policy-invalid",
        }
    }

    fn unreadable(self) -> &'static str {
        match self {
            Self::Manifest => "manifest-unreadable",
            Self::Policy => "policy-unreadable",
        }
    }
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where it is; for a folder, of the file in it.
    pub(crate) path: PathBuf,
    bytes: Vec<u8>,
}

impl Source {
    /// Reads the file at `path`, or the one of the usual name in the folder there.
    ///
    /// # Errors
    /// `manifest-unreadable` or `policy-unreadable`.
    pub(crate) fn read(path: &Path, kind: Kind) -> Result<Self, Failure> {
        let folder = path.is_dir();
        let path = match folder {
            true => path.join(kind.default_name()),
            false => path.to_owned(),
        };
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Self { path, bytes }),
            Err(error) => {
                let shown = printable(&path.display().to_string());
                let message = format!("the {} `{shown}` could not be read", kind.as_str());
                let failure = Failure::usage(kind.unreadable(), message).note(error.to_string());
                let others = neighbours(&path);
                Err(match (folder, others.is_empty()) {
                    (true, false) => {
                        failure.help(format!("the folder holds {}", others.join(", ")))
                    }
                    _ => failure,
                })
            }
        }
    }

    /// Its name as it was given, printable.
    pub(crate) fn name(&self) -> String {
        printable(&self.path.display().to_string())
    }

    /// Its lines.
    pub(crate) fn listing(&self) -> Listing {
        Listing::new(self.name(), &self.bytes)
    }

    /// What it seems to be: by its keys, else by its name.
    pub(crate) fn kind(&self) -> Kind {
        let text = String::from_utf8_lossy(&self.bytes);
        let (mut manifest, mut policy) = (0, 0);
        for line in text.split(['\n', '\r']) {
            let line = line.trim_start_matches(['{', '\u{feff}']);
            // Deeper ones are not at the top, except in JSON that is spread over lines.
            let line = match line.trim_start().starts_with('"') {
                true => line.trim_start(),
                false => line,
            };
            let Some((key, _)) = line.split_once(':') else {
                continue;
            };
            let key = key.trim_matches(['"', '\'', ' ']);
            manifest += usize::from(OF_MANIFESTS.contains(&key) && !line.starts_with(' '));
            policy += usize::from(OF_POLICIES.contains(&key) && !line.starts_with(' '));
        }
        let name = self.path.file_name().and_then(OsStr::to_str);
        match (manifest, policy) {
            // Both have limits, a sandbox and services, if not at the same place.
            (0, 0) if name.is_some_and(|name| name.contains("policy")) => Kind::Policy,
            (manifest, policy) if policy > manifest => Kind::Policy,
            _ => Kind::Manifest,
        }
    }

    /// Reads it as a manifest.
    ///
    /// # Errors
    /// All its problems, under its name.
    pub(crate) fn manifest(&self) -> Result<Manifest, Problems> {
        Manifest::parse_bytes(&self.bytes).map_err(|problems| problems.in_file(self.name()))
    }

    /// Reads it as a policy.
    ///
    /// # Errors
    /// All its problems, under its name.
    pub(crate) fn policy(&self) -> Result<Policy, Problems> {
        Policy::parse_bytes(&self.bytes).map_err(|problems| problems.in_file(self.name()))
    }
}

/// One failure for all problems of a file, for commands that only need it.
pub(crate) fn refused(kind: Kind, problems: &Problems) -> Failure {
    let failure = Failure::usage(kind.invalid(), problems.headline());
    let file = problems.file();
    let failure = problems.iter().fold(failure, |failure, problem| {
        failure.note(printable(&format!("{file}:{problem}")))
    });
    failure.help(format!("`outrigger check {file}` shows each in its place"))
}

/// What a policy file is called that lies beside a missing one.
fn neighbours(missing: &Path) -> Vec<String> {
    let entries = missing.parent().and_then(|folder| folder.read_dir().ok());
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            [".yaml", ".yml", ".json"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .map(|name| format!("`{}`", printable(&name)))
        .collect();
    names.sort();
    names.truncate(5);
    names
}

/// What the placeholders of `manifest` stand for: its folder, `data_dir` or a
/// place of the user's own for this plugin, and the home directory.
///
/// # Errors
/// `place-unusable`.
pub(crate) fn places(
    path: &Path,
    manifest: &Manifest,
    data_dir: Option<&Path>,
) -> Result<Places, Failure> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = resolved(folder);
    let data_dir = match data_dir {
        Some(path) => resolved(path),
        None => resolved(&default_data_dir(&folder, manifest.name().as_str())),
    };
    let unusable = |error: outrigger_manifest::PlaceError| {
        Failure::usage(error.code(), printable(&error.to_string()))
            .help("keep a plugin in a folder of its own, and its data in another (`--data-dir`)")
    };
    let places = Places::new(folder, data_dir).map_err(unusable)?;
    let home = home().and_then(|home| places.clone().with_home(resolved(&home)).ok());
    Ok(home.unwrap_or(places))
}

fn home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    home.is_absolute().then_some(home)
}

fn default_data_dir(folder: &Path, name: &str) -> PathBuf {
    let shared = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| home().map(|home| home.join(".local/share")));
    match shared {
        Some(shared) => shared.join("outrigger").join(name),
        None => folder.join("data"),
    }
}

/// The path without links as far as it exists: places are compared as texts.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in path.ancestors() {
        if let Ok(canonical) = existing.canonicalize() {
            let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
            return match rest.as_os_str().is_empty() {
                true => canonical,
                false => canonical.join(rest),
            };
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, text: &str) -> Kind {
        let source = Source {
            path: name.into(),
            bytes: text.into(),
        };
        source.kind()
    }

    #[test]
    fn policies_are_told_from_manifests_even_when_damaged() {
        for text in [
            "default:\n  allow: requested\n",
            "schema: 1\nplugins: {}\n",
            "{\"default\": {}}",
            "{\n  \"schema\": 1,\n  \"plugins\": {\"a\": {}}\n}",
            "default: [\n",
        ] {
            assert_eq!(kind("x.yaml", text), Kind::Policy, "{text}");
        }
        for text in [
            "",
            "plugins: {name: a}\nhandshake: {}\n",
            "plugin:\n  default: 1\n",
            "{plugin: {}}",
            "schema: 1",
        ] {
            assert_eq!(kind("manifest.yaml", text), Kind::Manifest, "{text}");
        }
        assert_eq!(kind("policy.yaml", "schema: 1"), Kind::Policy);
    }
}
