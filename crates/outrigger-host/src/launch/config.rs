//! The plugin's own configuration: a file in its directory, which is replaced when
//! there is another one. Nothing of it stands in the plugin's environment, which others may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Says what the configuration is now; nothing if it is to stay as it is.
pub(super) type ReadConfig = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The file in the plugin's directory.
const NAME: &str = "config.json";
/// Where another one is written before it takes that name.
const FRESH: &str = "config.json.new";
/// How often it is asked whether there is another one.
const LOOK: Duration = Duration::from_secs(1);

/// The configuration that a plugin has.
pub(super) struct ConfigFile {
    place: Arc<Place>,
    read: ReadConfig,
    text: String,
}

struct Place {
    dir: PathBuf,
    path: PathBuf,
    group: Option<u32>,
}

impl ConfigFile {
    /// Writes the file, if there is anything to write.
    pub(super) async fn write(
        dir: PathBuf,
        group: Option<u32>,
        read: ReadConfig,
    ) -> io::Result<Option<Self>> {
        let Some(text) = asked(&read).await else {
            return Ok(None);
        };
        let path = dir.join(NAME);
        let place = Arc::new(Place { dir, path, group });
        place.clone().put(text.clone()).await?;
        Ok(Some(Self { place, read, text }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Replaces the file whenever there is another configuration.
    pub(super) async fn renewed(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(text) = asked(&self.read).await.filter(|text| *text != self.text) else {
                continue;
            };
            match self.place.clone().put(text.clone()).await {
                Ok(()) => self.text = text,
                Err(error) => {
                    let path = self.path().display();
                    tracing::warn!(%path, %error, "could not hand over another configuration");
                }
            }
        }
    }
}

async fn asked(read: &ReadConfig) -> Option<String> {
    let read = read.clone();
    // Whoever panics has said nothing.
    tokio::task::spawn_blocking(move || read()).await.ok()?
}

impl Place {
    /// Puts `text` there in one step: a reader finds either all of it or what was there.
    async fn put(self: Arc<Self>, text: String) -> io::Result<()> {
        let put = tokio::task::spawn_blocking(move || {
            let fresh = self.dir.join(FRESH);
            // What an attempt before this one left.
            let _ = std::fs::remove_file(&fresh);
            let mut file = self.create(&fresh)?;
            file.write_all(text.as_bytes())?;
            std::fs::rename(&fresh, &self.path)
        });
        put.await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mode = match self.group {
            Some(_) => 0o440,
            None => 0o400,
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(path)?;
        if self.group.is_some() {
            fchown(&file, None, self.group)?;
        }
        Ok(file)
    }
}
