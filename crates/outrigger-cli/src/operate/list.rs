//! `outrigger list` and `outrigger show`: what plugins there are, and how they are.

use std::path::Path;

use outrigger::Settings;
use serde_json::json;

use crate::args::{ListArgs, ShowArgs};
use crate::control::client::{LOOK, WhichRun, reply, within};
use crate::control::place::USUAL_FOLDER;
use crate::control::{proto, telling};
use crate::failure::{Exit, Failure, near, printable};
use crate::files::failure;
use crate::operate::answer::print;
use crate::operate::progress;
use crate::shown;

/// What was found, and by whom.
struct Found {
    plugins: Vec<proto::Plugin>,
    /// The run that told it; none, if the folder was read.
    run: Option<proto::DescribeResponse>,
}

/// Prints the plugins of a run, or of a folder that no run serves.
///
/// # Errors
/// As [`WhichRun::connect`], unless the folder can be read instead.
pub(crate) async fn list(args: &ListArgs) -> Result<(), Failure> {
    let found = progress::shown("looking at plugins …", found(&args.run)).await;
    print(
        args.json,
        found,
        |found| {
            json!({
                "run": found.run.as_ref().map(run_json),
                "plugins": found.plugins.iter().map(shown::json).collect::<Vec<_>>(),
            })
        },
        |found| {
            let mut text = shown::table(&found.plugins);
            if found.run.is_none() {
                text.push_str("no `outrigger run` serves this folder\n");
            }
            text
        },
    )
}

/// Prints one plugin.
///
/// # Errors
/// As [`list`]; `plugin-not-found`.
pub(crate) async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let found = progress::shown("looking at the plugin …", one(args)).await;
    print(
        args.json,
        found,
        |(plugin, run)| {
            json!({
                "run": run.as_ref().map(run_json),
                "plugin": shown::json(plugin),
            })
        },
        |(plugin, _)| shown::portrait(plugin),
    )
}

async fn one(args: &ShowArgs) -> Result<(proto::Plugin, Option<proto::DescribeResponse>), Failure> {
    let found = found(&args.run).await?;
    let plugin = found.plugins.iter().find(|plugin| plugin.name == args.name);
    match plugin {
        Some(plugin) => Ok((plugin.clone(), found.run)),
        None => {
            let name = printable(&args.name);
            let names = found.plugins.iter().map(|plugin| plugin.name.as_str());
            let alike = near(&args.name, names);
            let failure = Failure::new(
                Exit::Usage,
                "plugin-not-found",
                format!("there is no plugin `{name}`"),
            );
            Err(match alike.first() {
                Some(alike) => failure.help(format!("did you mean `{alike}`?")),
                None => failure.help("`outrigger list` shows those that there are"),
            })
        }
    }
}

/// Asks the run that is meant; without one, reads the folder.
async fn found(which: &WhichRun) -> Result<Found, Failure> {
    match which.connect().await {
        Ok(client) => {
            let mut grpc = client.grpc;
            let run = grpc.describe(within(LOOK, proto::DescribeRequest {}));
            let run = reply(run.await)?;
            let list = grpc.list(within(LOOK, proto::ListRequest {}));
            let plugins = reply(list.await)?.plugins;
            Ok(Found {
                plugins,
                run: Some(run),
            })
        }
        Err(failure) if failure.code == "run-not-found" && which.socket.is_none() => {
            let usual = Path::new(USUAL_FOLDER);
            let folder = match &which.folder {
                Some(folder) => folder,
                None if usual.is_dir() => usual,
                None => return Err(failure),
            };
            read(folder)
        }
        Err(failure) => Err(failure),
    }
}

fn read(folder: &Path) -> Result<Found, Failure> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let plugins = Settings::new()
        .open(&folder)
        .map_err(|error| failure(&error))?;
    let mut plugins: Vec<proto::Plugin> = plugins.entries().iter().map(telling::entry).collect();
    plugins.sort_by(|one, other| (&one.name, &one.folder).cmp(&(&other.name, &other.folder)));
    Ok(Found { plugins, run: None })
}

fn run_json(run: &proto::DescribeResponse) -> serde_json::Value {
    json!({
        "version": run.version,
        "pid": run.pid,
        "folder": run.folder,
        "since": shown::moment(run.since.as_ref()),
        "ready": run.ready,
        "stopping": run.stopping,
    })
}
