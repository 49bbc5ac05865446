//! Plugins that come with a manifest, as those of the playground do: who they
//! are, how they are greeted and what program is expected is read from their folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use outrigger_examples::hosted::chain;
use outrigger_examples::netrpc::Animal;
use outrigger_host::{ExpectedDigest, Launch, MagicCookie, RunningPlugin};
use outrigger_manifest::{Manifest, Transport, checksum_of};

/// The largest manifest or checksum file that is read, in bytes.
const MOST: u64 = 256 << 10;

/// A plugin that has a manifest.
pub(crate) struct Described {
    pub(crate) manifest: Manifest,
    /// The program that the manifest names.
    pub(crate) program: PathBuf,
    digest: Option<ExpectedDigest>,
}

/// Reads what is in a plugin's folder beside its program; nothing if it has no
/// manifest.
pub(crate) fn read(folder: &Path) -> Result<Option<Described>> {
    let file = folder.join("manifest.yaml");
    let Some(text) = text_of(&file)? else {
        return Ok(None);
    };
    let manifest = Manifest::parse(&text)
        .map_err(|problems| anyhow!("{}", problems.in_file(file.display().to_string())))?;
    let program = program(folder, &manifest)?;
    let digest = digest(folder, &program)?;
    Ok(Some(Described {
        manifest,
        program,
        digest,
    }))
}

/// The program that the manifest names, in the folder or as seen from the
/// repository in which the folder lies.
fn program(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let candidates = manifest.entrypoint().candidates(&name);
    let mut found = candidates.iter().map(|path| folder.join(path));
    found.find(|path| path.is_file()).with_context(|| {
        format!(
            "plugin `{}` has no program at its entrypoint: none of {} is a file in {}",
            manifest.name(),
            candidates.join(", "),
            folder.display()
        )
    })
}

/// What `plugin.sha256`, or else `PROGRAM.sha256`, says of the program.
fn digest(folder: &Path, program: &Path) -> Result<Option<ExpectedDigest>> {
    let mut beside = program.as_os_str().to_owned();
    beside.push(".sha256");
    for file in [folder.join("plugin.sha256"), beside.into()] {
        let Some(text) = text_of(&file)? else {
            continue;
        };
        let within = program.strip_prefix(folder).unwrap_or(program);
        let digest = checksum_of(&text, &within.to_string_lossy())
            .with_context(|| file.display().to_string())?;
        return Ok(Some(digest.parse()?));
    }
    Ok(None)
}

/// The text of a file, if there is one.
fn text_of(file: &Path) -> Result<Option<String>> {
    let what = || file.display().to_string();
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(what)?,
    };
    let mut text = String::new();
    let length = opened.take(MOST + 1).read_to_string(&mut text);
    if length.with_context(what)? as u64 > MOST {
        bail!("{} is larger than {} KiB", file.display(), MOST >> 10);
    }
    Ok(Some(text))
}

impl Described {
    /// Whether it is an animal. Other plugins with a manifest are what they answer to.
    pub(crate) fn is_animal(&self) -> bool {
        self.manifest.kind() == Some("animal") || self.manifest.transport() == Transport::NetRpc
    }

    /// How to start the program, if it is the expected one.
    pub(crate) fn launch(&self) -> Launch {
        let handshake = self.manifest.handshake();
        let cookie = MagicCookie::new(handshake.magic_cookie_key(), handshake.magic_cookie_value());
        let mut launch = Launch::new(&self.program, cookie).named(self.manifest.name().as_str());
        if let Some(digest) = &self.digest {
            launch = launch.expect_digest(digest.clone());
        }
        if self.manifest.auto_mtls() == Some(true) {
            launch = launch.auto_mtls();
        }
        launch
    }

    /// What protects the program and the connection, for people.
    pub(crate) fn protection(&self) -> &'static str {
        match (self.manifest.auto_mtls() == Some(true), &self.digest) {
            (true, Some(_)) => "AutoMTLS and the expected checksum",
            (true, None) => "AutoMTLS and no checksum file",
            (false, Some(_)) => "the expected checksum and no TLS",
            (false, None) => "neither TLS nor a checksum file",
        }
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
