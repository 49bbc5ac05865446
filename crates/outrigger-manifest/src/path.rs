//! Paths as a file names them, and what their placeholders stand for.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::check::{Check, Side};
use crate::keys::Shape;
use crate::message::{alternatives, escaped, nearest, quoted};
use crate::problem::{Position, ProblemCode};
use crate::tree::Node;

/// Where a path of a manifest or policy begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathBase {
    /// The root of the file system.
    Root,
    /// `${plugin_dir}`.
    PluginDir,
    /// `${data_dir}`.
    DataDir,
    /// `${HOME}`.
    Home,
}

impl PathBase {
    pub(crate) const PLACEHOLDERS: &'static [(&'static str, PathBase)] = &[
        ("${plugin_dir}", PathBase::PluginDir),
        ("${data_dir}", PathBase::DataDir),
        ("${HOME}", PathBase::Home),
    ];

    const fn text(self) -> &'static str {
        match self {
            PathBase::Root => "",
            PathBase::PluginDir => "${plugin_dir}",
            PathBase::DataDir => "${data_dir}",
            PathBase::Home => "${HOME}",
        }
    }
}

/// An absolute path, or one below a place that the host names; lexically clean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathTemplate {
    base: PathBase,
    /// Components joined by `/`, without a leading or trailing one.
    rest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    Relative,
    /// Contains `..`; the path one would get by following it.
    Climbs(String),
    Placeholder(String),
}

impl PathTemplate {
    pub(crate) fn parse(text: &str) -> Result<PathTemplate, PathError> {
        let (base, rest) = match text.strip_prefix('/') {
            Some(rest) => (PathBase::Root, rest),
            None => Self::placeholder(text)?,
        };
        if rest.contains("${") {
            let name = rest[rest.find("${").unwrap_or(0)..]
                .split('/')
                .next()
                .unwrap_or(rest);
            return Err(PathError::Placeholder(name.to_owned()));
        }
        if rest.split('/').any(|component| component == "..") {
            let mut kept: Vec<&str> = Vec::new();
            for component in rest.split('/').filter(|c| !matches!(*c, "" | ".")) {
                if component == ".." {
                    kept.pop();
                } else {
                    kept.push(component);
                }
            }
            let meant = PathTemplate {
                base,
                rest: kept.join("/"),
            };
            return Err(PathError::Climbs(meant.to_string()));
        }
        Ok(PathTemplate {
            base,
            rest: clean(rest),
        })
    }

    fn placeholder(text: &str) -> Result<(PathBase, &str), PathError> {
        if !text.starts_with("${") {
            return Err(PathError::Relative);
        }
        let (name, rest) = text.split_once('/').unwrap_or((text, ""));
        PathBase::PLACEHOLDERS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, base)| (*base, rest))
            .ok_or_else(|| PathError::Placeholder(name.to_owned()))
    }

    /// Where the path begins.
    #[must_use]
    pub fn base(&self) -> PathBase {
        self.base
    }

    /// What follows the beginning, without a leading `/`; empty for the beginning itself.
    #[must_use]
    pub fn rest(&self) -> &str {
        &self.rest
    }

    /// The path with its placeholder filled in; `None` when the host has no such place.
    #[must_use]
    pub fn expand(&self, places: &Places) -> Option<PathBuf> {
        let base = match self.base {
            PathBase::Root => Path::new("/"),
            PathBase::PluginDir => &places.plugin_dir,
            PathBase::DataDir => &places.data_dir,
            PathBase::Home => places.home.as_deref()?,
        };
        Some(if self.rest.is_empty() {
            base.to_owned()
        } else {
            base.join(&self.rest)
        })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.text())?;
        if self.base == PathBase::Root || !self.rest.is_empty() {
            write!(f, "/{}", self.rest)?;
        }
        Ok(())
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Shape for PathTemplate {
    type Value = PathTemplate;

    fn kind(_: Side) -> String {
        "path".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string", "pattern": "^(/|\\$\\{)"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<PathTemplate> {
        let text = check.text(node, location)?;
        match PathTemplate::parse(text) {
            Ok(path) => return Some(path),
            Err(error) => error.report(check, node.at, location, text),
        }
        None
    }
}

impl PathError {
    fn report(self, check: &mut Check, at: Position, location: &str, text: &str) {
        let shown = quoted(text);
        match self {
            PathError::Relative => {
                let home = ["~", "$HOME"].into_iter().find_map(|home| {
                    let rest = text.strip_prefix(home)?;
                    (rest.is_empty() || rest.starts_with('/')).then(|| format!("${{HOME}}{rest}"))
                });
                let message = format!("{shown} is not an absolute path");
                check
                    .report(at, ProblemCode::PathNotAbsolute, location, message)
                    .near(home)
                    .help("begin with `/`, `${plugin_dir}`, `${data_dir}` or `${HOME}`");
            }
            PathError::Climbs(meant) => {
                let message = format!("{shown} contains `..`");
                check
                    .report(at, ProblemCode::PathClimbs, location, message)
                    .near(Some(meant));
            }
            PathError::Placeholder(name) => {
                let placeholders = PathBase::PLACEHOLDERS.iter();
                let known: Vec<&str> = placeholders.map(|(known, _)| *known).collect();
                let near = nearest(&name, &known).filter(|near| *near != name);
                let message = format!("{} has no meaning at this place of a path", quoted(&name));
                check
                    .report(at, ProblemCode::PathPlaceholder, location, message)
                    .near(near)
                    .help(format!("a path may begin with {}", alternatives(&known)));
            }
        }
    }
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|c| !matches!(*c, "" | "."))
        .collect();
    parts.join("/")
}

/// What the placeholders of a manifest and policy stand for, for one plugin.
///
/// The paths are compared as texts: a host that has symbolic links in them resolves them first.
///
/// ```
/// use outrigger_manifest::Places;
///
/// let places = Places::new("/opt/plugins/cat", "/var/lib/app/cat").unwrap();
/// let places = places.with_home("/home/ada").unwrap();
/// assert!(Places::new("plugins/cat", "/var/lib").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    plugin_dir: PathBuf,
    data_dir: PathBuf,
    home: Option<PathBuf>,
}

/// Why a path cannot stand for a placeholder.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{placeholder} cannot stand for {}, which is not an absolute path below the root without `..`", quoted(.path))]
pub struct PlaceError {
    placeholder: &'static str,
    path: String,
}

impl PlaceError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "place-unusable"
    }
}

impl Places {
    /// The plugin's folder and the directory where it may keep data; no home directory.
    ///
    /// # Errors
    ///
    /// When a path is not absolute, contains `..`, or is the root: a rule about a plugin's own
    /// folder must not become one about everything.
    pub fn new(
        plugin_dir: impl Into<PathBuf>,
        data_dir: impl Into<PathBuf>,
    ) -> Result<Places, PlaceError> {
        Ok(Places {
            plugin_dir: place("${plugin_dir}", plugin_dir.into())?,
            data_dir: place("${data_dir}", data_dir.into())?,
            home: None,
        })
    }

    /// Places that no path of a manifest lies in or contains unless it begins with their
    /// placeholder, or is the root: what holds for these holds for all.
    pub(crate) fn of_anyone() -> Places {
        let place = |base: PathBase| Path::new("/${}").join(base.text());
        Places {
            plugin_dir: place(PathBase::PluginDir),
            data_dir: place(PathBase::DataDir),
            home: Some(place(PathBase::Home)),
        }
    }

    /// The same places, and a home directory.
    ///
    /// # Errors
    ///
    /// As for [`Places::new`].
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Result<Places, PlaceError> {
        self.home = Some(place("${HOME}", home.into())?);
        Ok(self)
    }

    /// The plugin's folder.
    #[must_use]
    pub fn plugin_dir(&self) -> &Path {
        &self.plugin_dir
    }

    /// Where the plugin may keep data.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The home directory, if there is one.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

fn place(placeholder: &'static str, path: PathBuf) -> Result<PathBuf, PlaceError> {
    match clean_absolute(&path) {
        Ok(clean) if clean != Path::new("/") => Ok(clean),
        _ => Err(PlaceError {
            placeholder,
            path: path.to_string_lossy().into_owned(),
        }),
    }
}

/// The path without `.`, doubled and trailing slashes. `Err` says why it cannot be judged.
pub(crate) fn clean_absolute(path: &Path) -> Result<PathBuf, String> {
    let shown = || escaped(&path.to_string_lossy());
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(format!("`{}` contains a NUL", shown()));
    }
    if !path.is_absolute() {
        return Err(format!("`{}` is not absolute", shown()));
    }
    if path
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Err(format!("`{}` contains `..`", shown()));
    }
    Ok(path.components().collect())
}

/// Part of a file tree: a path with its direct entries, or with everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area<'p> {
    pub(crate) path: &'p Path,
    pub(crate) recursive: bool,
}

impl<'p> Area<'p> {
    /// Whether a clean path lies in the area.
    pub(crate) fn covers(self, path: &Path) -> bool {
        path == self.path
            || if self.recursive {
                path.starts_with(self.path)
            } else {
                path.parent() == Some(self.path)
            }
    }

    /// Whether the whole of the other area lies in this one.
    pub(crate) fn contains(self, other: Area<'_>) -> bool {
        if self.recursive {
            other.path.starts_with(self.path)
        } else {
            !other.recursive && other.path == self.path
        }
    }

    /// The area that both share, when it is one. `None` also where they share a single entry,
    /// which no grant can express.
    pub(crate) fn intersection(self, other: Area<'p>) -> Option<Area<'p>> {
        if self.contains(other) {
            Some(other)
        } else if other.contains(self) {
            Some(self)
        } else {
            None
        }
    }

    /// Whether any path at all lies in both.
    pub(crate) fn touches(self, other: Area<'_>) -> bool {
        self.covers(other.path) || other.covers(self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (text, printed) in [
            ("/", "/"),
            ("//etc//./x/", "/etc/x"),
            ("${HOME}", "${HOME}"),
            ("${plugin_dir}/", "${plugin_dir}"),
            ("${data_dir}/a/./b", "${data_dir}/a/b"),
        ] {
            assert_eq!(PathTemplate::parse(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn paths_that_could_mean_something_else_are_refused() {
        use PathError::*;
        for (text, error) in [
            ("etc", Relative),
            ("./etc", Relative),
            ("~/x", Relative),
            ("$HOME/x", Relative),
            ("/a/../b", Climbs("/b".to_owned())),
            ("${HOME}/../root", Climbs("${HOME}/root".to_owned())),
            ("${home}/x", Placeholder("${home}".to_owned())),
            (
                "/srv/${plugin_dir}",
                Placeholder("${plugin_dir}".to_owned()),
            ),
            ("${HOME}x/y", Placeholder("${HOME}x".to_owned())),
        ] {
            assert_eq!(PathTemplate::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_flat_area_is_a_path_and_its_entries() {
        let flat = Area {
            path: Path::new("/data"),
            recursive: false,
        };
        assert!(flat.covers(Path::new("/data")));
        assert!(flat.covers(Path::new("/data/x")));
        assert!(!flat.covers(Path::new("/data/x/y")));
        assert!(!flat.covers(Path::new("/database")));
        let deep = Area {
            path: Path::new("/data"),
            recursive: true,
        };
        assert!(deep.covers(Path::new("/data/x/y")));
        assert!(!deep.covers(Path::new("/database")));
        let top = Area {
            path: Path::new("/"),
            recursive: false,
        };
        assert!(top.covers(Path::new("/etc")) && !top.covers(Path::new("/etc/x")));
    }

    #[test]
    fn a_place_is_absolute_and_not_everything() {
        for wrong in ["/", "//", "", "a", "/a/..", "/../x"] {
            assert!(Places::new("/p", wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Places::new("/p/./q/", "/d").unwrap().plugin_dir(),
            Path::new("/p/q")
        );
    }
}
