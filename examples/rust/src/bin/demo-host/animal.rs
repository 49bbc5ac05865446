//! Plugins that come with a manifest, as those of the playground do: what it says
//! of them, and what an animal says.

use std::io;
use std::path::Path;

use outrigger::{Error, Plugin, RegistryErrorKind, RunningPlugin, Settings, Transport};
use outrigger_examples::hosted::chain;
use outrigger_examples::netrpc::Animal;

/// The plugin in a folder; nothing if that has no manifest. It gets none of what it
/// asks for, and is started all the same.
///
/// # Errors
/// What is wrong with its manifest.
pub(crate) fn installed(folder: &Path) -> Result<Option<Plugin>, Error> {
    let plugin = Settings::new().start_with_less().open_plugin(folder);
    match plugin {
        Err(error) if is_missing(&error) => Ok(None),
        plugin => plugin.map(Some),
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error.registry(), Some(RegistryErrorKind::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}

/// Whether it is an animal. Other plugins with a manifest are what they answer to.
pub(crate) fn is_animal(plugin: &Plugin) -> bool {
    let manifest = plugin.manifest();
    manifest.kind() == Some("animal") || manifest.transport() == Transport::NetRpc
}

/// What protects its program and the connection, for people.
///
/// # Errors
/// What is wrong with its program or its checksum file.
pub(crate) fn protection(plugin: &Plugin) -> Result<&'static str, Error> {
    let digest = plugin.expected_digest(&plugin.program()?)?;
    let auto_mtls = plugin.manifest().auto_mtls() == Some(true);
    Ok(match (auto_mtls, digest.is_some()) {
        (true, true) => "AutoMTLS and the expected checksum",
        (true, false) => "AutoMTLS and no checksum file",
        (false, true) => "the expected checksum and no TLS",
        (false, false) => "neither TLS nor a checksum file",
    })
}

/// What the animal says, quietly and loudly.
pub(crate) async fn hear(plugin: &RunningPlugin) -> Result<String, String> {
    let other = |error: anyhow::Error| format!("{error:#}");
    let animal = plugin.client::<Animal>().await;
    let animal = animal.map_err(|error| chain(&error))?;
    let quiet = animal.speak(false).await.map_err(other)?;
    let loud = animal.speak(true).await.map_err(other)?;
    Ok(format!("{quiet} {loud}"))
}
