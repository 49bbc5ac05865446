//! Environment variables and the directories that they name.

use std::ffi::OsString;
use std::path::Path;

use crate::fault::Fault;
use crate::fs::Cx;

/// The value of `name`: what the manifest sets, or what the host has where that
/// is granted; empty where it is not set, as Go's `os.Getenv`.
pub(super) fn get(cx: &Cx, name: &str) -> Result<String, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Fault::failed("not a variable's name"));
    }
    let environment = cx.session.grants().environment();
    if let Some((_, value)) = environment.set().find(|(set, _)| *set == name) {
        return Ok(value.to_owned());
    }
    let rule = environment.read(name)?;
    cx.notes.allowed_by(&rule.to_string());
    let value = text(std::env::var_os(name).unwrap_or_default())?;
    let longest = cx.session.limits().payload();
    if value.len() > longest {
        return Err(Fault::exhausted(
            "value-too-long",
            format!("the value is longer than {longest} bytes"),
        ));
    }
    Ok(value)
}

/// A directory that depends on who runs the host.
#[derive(Clone, Copy)]
pub(super) enum UserDir {
    Cache,
    Config,
    Home,
}

impl UserDir {
    /// Where it is, by the rules of Go's `os` package on Linux.
    pub(super) fn find(self, get: impl Fn(&str) -> Option<OsString>) -> Result<String, Fault> {
        let (variable, below) = match self {
            Self::Cache => ("XDG_CACHE_HOME", ".cache"),
            Self::Config => ("XDG_CONFIG_HOME", ".config"),
            Self::Home => return home(get, "$HOME is not defined".into()),
        };
        match get(variable).filter(|dir| !dir.is_empty()) {
            Some(dir) if Path::new(&dir).is_absolute() => text(dir),
            Some(_) => Err(Fault::failed(format!("path in ${variable} is relative"))),
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
        None => Err(Fault::failed(missing)),
    }
}

fn text(value: OsString) -> Result<String, Fault> {
    value
        .into_string()
        .map_err(|_| Fault::failed("the value is not UTF-8"))
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
}
