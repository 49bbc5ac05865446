//! `outrigger completions` and `outrigger man`: what clap knows of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Exit, Failure, near, printable};
use crate::output;

/// Prints the completions for a shell.
///
/// # Errors
/// `output-failed`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "outrigger", &mut script);
    output::plain(&String::from_utf8_lossy(&script))
}

/// Prints a manual page, or writes all of them.
///
/// # Errors
/// `unknown-command`, `man-failed` and `output-failed`.
pub(crate) fn run(args: &ManArgs) -> Result<(), Failure> {
    let pages = pages();
    if let Some(folder) = &args.into {
        return write(folder, &pages);
    }
    let wanted = match &args.command {
        None => "outrigger".to_owned(),
        Some(command) => format!("outrigger-{command}"),
    };
    match pages.iter().find(|(name, _)| *name == wanted) {
        Some((_, page)) => output::plain(page),
        None => {
            let command = args.command.as_deref().unwrap_or_default();
            let message = format!("there is no command `{}`", printable(command));
            let names = pages
                .iter()
                .filter_map(|(name, _)| name.strip_prefix("outrigger-"));
            let near = near(command, names);
            let failure = Failure::usage("unknown-command", message);
            Err(match near.as_slice() {
                [] => failure.help("`outrigger --help` lists the commands"),
                names => failure.help(format!("did you mean `{}`?", names.join("` or `"))),
            })
        }
    }
}

fn write(folder: &Path, pages: &[(String, String)]) -> Result<(), Failure> {
    let write = || {
        fs::create_dir_all(folder)?;
        pages
            .iter()
            .try_for_each(|(name, page)| fs::write(folder.join(format!("{name}.1")), page))
    };
    write().map_err(|error: std::io::Error| {
        let shown = printable(&folder.display().to_string());
        let message = format!("the manual pages could not be written into `{shown}`");
        Failure::new(Exit::Internal, "man-failed", message).note(error.to_string())
    })
}

/// Name and text of each page: that of the command, and one for each of its subcommands.
fn pages() -> Vec<(String, String)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![("outrigger".to_owned(), page(command.clone()))];
    for subcommand in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = format!("outrigger-{}", subcommand.get_name());
        let subcommand = subcommand.clone().display_name(name.clone());
        pages.push((name, page(subcommand)));
    }
    pages
}

fn page(command: clap::Command) -> String {
    let mut text = Vec::new();
    // Writing to memory has no way to fail.
    let _ = clap_mangen::Man::new(command).render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
