//! Plugins that come with a manifest, as those of the playground do: who they
//! are, how they are greeted and what program is expected is read from their folder.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use outrigger_examples::hosted::chain;
use outrigger_examples::netrpc::Animal;
use outrigger_host::{ExpectedDigest, Launch, LaunchError, MagicCookie, PluginSet, RunningPlugin};
use outrigger_manifest::Manifest;

/// A plugin whose manifest and checksum were read.
pub(crate) struct Described {
    manifest: Manifest,
    digest: ExpectedDigest,
}

/// Reads what is in a plugin's folder beside its program; nothing if it has no
/// manifest.
pub(crate) fn read(folder: &Path) -> Result<Option<Described>> {
    let file = folder.join("manifest.yaml");
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let manifest = Manifest::parse(&text)
        .map_err(|problems| anyhow!("{}", problems.in_file(file.display().to_string())))?;
    let file = folder.join("plugin.sha256");
    let line = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let digest = line.split_whitespace().next().unwrap_or_default();
    let digest = ExpectedDigest::sha256(&bytes_of(digest)?)?;
    Ok(Some(Described { manifest, digest }))
}

/// The bytes that hexadecimal digits stand for.
fn bytes_of(digits: &str) -> Result<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        bail!("a checksum is an even number of hexadecimal digits");
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16);
    let bytes: Result<_, _> = (0..digits.len()).step_by(2).map(byte).collect();
    bytes.context("a checksum is hexadecimal digits")
}

impl Described {
    /// Starts the program, if it is the expected one.
    pub(crate) async fn start(self, program: &Path) -> Result<RunningPlugin, LaunchError> {
        let name = self.manifest.name().as_str();
        let handshake = self.manifest.handshake();
        let cookie = MagicCookie::new(handshake.magic_cookie_key(), handshake.magic_cookie_value());
        let mut launch = Launch::new(program, cookie)
            .named(name)
            .offer(
                handshake.protocol_version(),
                PluginSet::new().with::<Animal>(name),
            )
            .expect_digest(self.digest.clone());
        if self.manifest.auto_mtls() == Some(true) {
            launch = launch.auto_mtls();
        }
        launch.start().await
    }
}

/// What the animal says, quietly and loudly.
pub(crate) async fn hear(plugin: &RunningPlugin, name: &str) -> Result<String, String> {
    let other = |error: anyhow::Error| format!("{error:#}");
    let animal = plugin
        .dispense::<Animal>(name)
        .await
        .map_err(|error| chain(&error))?;
    let quiet = animal.speak(false).await.map_err(other)?;
    let loud = animal.speak(true).await.map_err(other)?;
    Ok(format!("{quiet} {loud}"))
}
