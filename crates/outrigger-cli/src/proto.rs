//! `outrigger proto`: a plugin's interface as a `.proto` file, for authors in other languages.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use outrigger_transport::interface::proto_text;
use prost_types::FileDescriptorProto;

use crate::args::ProtoArgs;
use crate::descriptors::{self, Catalogue};
use crate::failure::{Exit, Failure, near, printable};
use crate::granting::{self, Target};
use crate::launch::{self, Start};
use crate::output;

/// Packages of the services that every plugin has.
const EVERY_PLUGIN: [&str; 2] = ["plugin.", "grpc."];

/// Starts the plugin, asks what it serves, ends it, prints one file.
///
/// # Errors
/// What kept the plugin from starting or from describing itself, and which files
/// there are where none is meant.
///
/// # Cancel safety
/// Dropping the future ends the plugin; nothing is printed then.
pub(crate) async fn run(args: &ProtoArgs) -> Result<(), Failure> {
    let target = granting::complete(&args.plugin)?;
    let described = described(&target).await;
    let notes = target.granting.audit.finish();
    notes.iter().for_each(|note| output::note(note));
    let described = described?;
    let file = chosen(&described, args.file.as_deref())?;
    if file.syntax() != "proto3" {
        let name = printable(file.name());
        let message = format!("`{name}` is no file of proto3, and only such files are printed");
        return Err(Failure::new(
            Exit::Failed,
            "descriptors-unsupported",
            message,
        ));
    }
    let mut text = String::new();
    for line in proto_text(file).lines() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", printable(line));
    }
    output::text(&text)
}

async fn described(target: &Target) -> Result<Catalogue, Failure> {
    match launch::start(target).await? {
        Start::Grpc(session, channel) => {
            let described = launch::describe(&channel).await;
            session.end().await;
            described
        }
        Start::NetRpc(session, _) => {
            session.end().await;
            let name = target.name();
            let message = format!("plugin `{name}` speaks net/rpc, which has no `.proto` files");
            Err(Failure::usage("option-unsupported", message)
                .help("its types are those of Go's gob: take them from its source"))
        }
    }
}

/// The file that is meant: the one asked for, or the only one with services of the
/// plugin's own.
fn chosen<'a>(
    described: &'a Catalogue,
    name: Option<&str>,
) -> Result<&'a FileDescriptorProto, Failure> {
    let services = descriptors::list(described).into_iter();
    let own: BTreeSet<String> = services
        .filter(|service| {
            !EVERY_PLUGIN
                .iter()
                .any(|package| service.name.starts_with(package))
        })
        .filter_map(|service| service.file)
        .collect();
    let of_name = |name: &str| described.files.file.iter().find(|file| file.name() == name);
    let listed = || {
        let names: Vec<_> = own
            .iter()
            .map(|name| format!("`{}`", printable(name)))
            .collect();
        names.join(", ")
    };
    match (name, own.iter().collect::<Vec<_>>().as_slice()) {
        (Some(name), _) => of_name(name).ok_or_else(|| {
            let message = format!("the plugin describes no file `{}`", printable(name));
            let names = described.files.file.iter().map(|file| file.name());
            let failure = Failure::usage("unknown-file", message);
            match near(name, names).first() {
                Some(near) => failure.help(format!("did you mean `{}`?", printable(near))),
                None => failure.help(format!("its own are {}", listed())),
            }
        }),
        (None, []) => {
            let message = "the plugin describes no service of its own";
            Err(Failure::new(Exit::Failed, "service-undescribed", message)
                .help("register reflection, and descriptors with it"))
        }
        (None, [only]) => of_name(only).ok_or_else(|| {
            let message = format!("the plugin does not describe `{}`", printable(only));
            Failure::new(Exit::Failed, "service-undescribed", message)
        }),
        (None, _) => {
            let message = format!("the plugin has several files: {}", listed());
            Err(Failure::usage("file-missing", message).help("name one with `--file`"))
        }
    }
}
