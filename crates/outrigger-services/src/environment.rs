//! Environment variables and the directories that they name.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::fault::Fault;

/// Which of the host's environment variables a plugin may read: none, unless
/// said otherwise.
///
/// # Examples
/// ```
/// use outrigger_services::EnvironmentGrant;
///
/// let grant = EnvironmentGrant::only(["LANG", "HOME"]);
/// assert!(grant.allows("HOME"));
/// assert!(!grant.allows("AWS_SECRET_ACCESS_KEY"));
/// assert!(!EnvironmentGrant::default().allows("HOME"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentGrant(Names);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    Only(BTreeSet<String>),
    All,
}

impl Default for Names {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl EnvironmentGrant {
    /// No variable.
    pub fn none() -> Self {
        Self::default()
    }

    /// These variables.
    pub fn only<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(Names::Only(names.into_iter().map(Into::into).collect()))
    }

    /// Every variable of the host, its secrets included.
    pub fn all() -> Self {
        Self(Names::All)
    }

    /// These variables in addition.
    #[must_use]
    pub fn and<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        match &mut self.0 {
            Names::All => {}
            Names::Only(granted) => granted.extend(names.into_iter().map(Into::into)),
        }
        self
    }

    /// Whether `name` may be read.
    pub fn allows(&self, name: &str) -> bool {
        match &self.0 {
            Names::All => true,
            Names::Only(granted) => granted.contains(name),
        }
    }

    /// The value of `name`; empty where it is not set, as Go's `os.Getenv`.
    pub(crate) fn get(&self, name: &str, longest: usize) -> Result<String, Fault> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Fault::Failed("not a variable's name".into()));
        }
        if !self.allows(name) {
            return Err(Fault::Refused("the variable is not among those granted"));
        }
        let value = text(std::env::var_os(name).unwrap_or_default())?;
        if value.len() > longest {
            return Err(Fault::Exhausted(format!(
                "the value is longer than {longest} bytes"
            )));
        }
        Ok(value)
    }
}

/// A directory that depends on who runs the host.
#[derive(Clone, Copy)]
pub(crate) enum UserDir {
    Cache,
    Config,
    Home,
}

impl UserDir {
    /// Where it is, by the rules of Go's `os` package on Linux.
    pub(crate) fn find(self, get: impl Fn(&str) -> Option<OsString>) -> Result<String, Fault> {
        let (variable, below) = match self {
            Self::Cache => ("XDG_CACHE_HOME", ".cache"),
            Self::Config => ("XDG_CONFIG_HOME", ".config"),
            Self::Home => return home(get, "$HOME is not defined".into()),
        };
        match get(variable).filter(|dir| !dir.is_empty()) {
            Some(dir) if Path::new(&dir).is_absolute() => text(dir),
            Some(_) => Err(Fault::Failed(
                format!("path in ${variable} is relative").into(),
            )),
            None => {
                let missing = format!("neither ${variable} nor $HOME are defined");
                home(get, missing).map(|home| format!("{}/{below}", home.trim_end_matches('/')))
            }
        }
    }
}

fn home(get: impl Fn(&str) -> Option<OsString>, missing: String) -> Result<String, Fault> {
    match get("HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => text(dir),
        None => Err(Fault::Failed(missing.into())),
    }
}

fn text(value: OsString) -> Result<String, Fault> {
    value
        .into_string()
        .map_err(|_| Fault::Failed("the value is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(dir: UserDir, variables: &[(&str, &str)]) -> Result<String, String> {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        };
        dir.find(get).map_err(|fault| fault.reason().into_owned())
    }

    #[test]
    fn user_directories_follow_gos_rules() {
        let home = [("HOME", "/home/ada")];
        assert_eq!(find(UserDir::Home, &home).as_deref(), Ok("/home/ada"));
        assert_eq!(
            find(UserDir::Cache, &home).as_deref(),
            Ok("/home/ada/.cache")
        );
        assert_eq!(
            find(UserDir::Config, &home).as_deref(),
            Ok("/home/ada/.config")
        );
        let both = [("HOME", "/home/ada"), ("XDG_CACHE_HOME", "/var/c")];
        assert_eq!(find(UserDir::Cache, &both).as_deref(), Ok("/var/c"));
        assert_eq!(
            find(UserDir::Config, &[("XDG_CONFIG_HOME", "x")]),
            Err("path in $XDG_CONFIG_HOME is relative".into())
        );
        assert_eq!(
            find(UserDir::Cache, &[("HOME", "")]),
            Err("neither $XDG_CACHE_HOME nor $HOME are defined".into())
        );
        assert_eq!(find(UserDir::Home, &[]), Err("$HOME is not defined".into()));
    }

    #[test]
    fn names_that_are_not_names_are_no_lookup() {
        for name in ["", "A=B", "A\0"] {
            assert!(matches!(
                EnvironmentGrant::all().get(name, 10),
                Err(Fault::Failed(_))
            ));
        }
    }
}
