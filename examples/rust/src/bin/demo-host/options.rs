//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const USAGE: &str =
    "demo-host [--dir DIR] [--write] [--scratch DIR] [--label NAME=TEXT]… --plugins FOLDER";

/// What the demo is to do.
#[derive(Debug)]
pub(crate) struct Options {
    /// The directory that is listed.
    pub(crate) dir: PathBuf,
    /// Whether plugins may change what is in it.
    pub(crate) write: bool,
    /// The folder that holds the plugins' folders.
    pub(crate) plugins: PathBuf,
    /// A directory of the demo's own, which is made and removed.
    pub(crate) scratch: Option<PathBuf>,
    /// What is said about a plugin beside its name.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut dir, mut plugins, mut scratch) = (PathBuf::from("."), None, None);
        let (mut write, mut labels) = (false, BTreeMap::new());
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or("an option lacks its value".to_owned())
            };
            match argument.to_str() {
                Some("--dir") => dir = value()?.into(),
                Some("--plugins") => plugins = Some(value()?.into()),
                Some("--scratch") => scratch = Some(value()?.into()),
                Some("--write") => write = true,
                Some("--label") => {
                    let label = value()?.into_string().map_err(|_| "a label is not UTF-8")?;
                    let (name, text) = label.split_once('=').ok_or("a label is NAME=TEXT")?;
                    labels.insert(name.to_owned(), text.to_owned());
                }
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        let plugins = plugins.ok_or("no folder of plugins was named")?;
        Ok(Self {
            dir,
            write,
            plugins,
            scratch,
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_folder_of_plugins_is_needed_and_the_rest_has_defaults() {
        let options = parse(&["--plugins", "p", "--label", "a=Go"]).expect("options");
        assert_eq!((options.dir, options.plugins), (".".into(), "p".into()));
        assert_eq!(options.labels["a"], "Go");
        assert!(!options.write);
        for wrong in [
            &["--dir", "d"][..],
            &["--plugins"],
            &["--plugins", "p", "--label", "x"],
            &["x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
