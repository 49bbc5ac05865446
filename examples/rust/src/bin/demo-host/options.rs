//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Starts the plugins of a folder, lets each do its work through services of this
/// host, and stops them all.
#[derive(Debug, Parser)]
#[command(name = "demo-host")]
pub(crate) struct Options {
    /// The directory that is listed
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Let plugins change what is in DIR
    #[arg(long)]
    pub(crate) write: bool,
    /// The folder that holds the plugins' folders
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plugins: PathBuf,
    /// Where the demo makes a directory of its own, which it removes; the system's place
    /// for temporary files otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// What is said about a plugin beside its name
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

fn label(argument: &str) -> Result<(String, String), &'static str> {
    let (name, text) = argument.split_once('=').ok_or("a label is NAME=TEXT")?;
    Ok((name.to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_plugins_is_needed_and_the_rest_has_defaults() {
        let parse = |arguments: &str| {
            Options::try_parse_from(std::iter::once("demo-host").chain(arguments.split(' ')))
        };
        let options = parse("--plugins p --label a=Go").expect("options");
        assert_eq!((options.dir, options.plugins), (".".into(), "p".into()));
        assert_eq!(options.labels, [("a".to_owned(), "Go".to_owned())]);
        assert!(!options.write);
        for wrong in ["--dir d", "--plugins", "--plugins p --label x", "x"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
