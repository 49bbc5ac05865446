//! From a program to a plugin that answers, one step after the other. Each step
//! takes what the one before it found out, and ends the process if it fails.

mod builder;
mod config;
mod prepared;
mod reached;
mod shaken;
mod spawned;

pub use self::builder::Launch;

use self::prepared::{HOST_SERVICES, Prepared};
use self::shaken::Shaken;
use self::spawned::Spawned;
use crate::error::{LaunchError, LaunchErrorKind};
use crate::managed;
use crate::plugin::RunningPlugin;

impl Launch {
    /// Starts the plugin and connects to it.
    ///
    /// # Errors
    /// See [`LaunchErrorKind`]. Nothing is left running then.
    ///
    /// # Cancel safety
    /// When the future is dropped, the process is killed.
    pub async fn start(self) -> Result<RunningPlugin, LaunchError> {
        let (services, is_managed) = (self.services.clone(), self.settings.managed);
        let mut prepared = Prepared::new(self).await?;
        let sockets = std::mem::take(&mut prepared.sockets);
        let config = prepared.config.take();
        let spawned = Spawned::start(prepared).await?;
        let shaken = Shaken::hands(spawned).await?;
        let plugin = RunningPlugin::new(reached::connected(shaken).await?);
        if is_managed {
            managed::register(&plugin);
        }
        if let Some(config) = config {
            plugin.keep(config.renewed());
        }
        if let Some(services) = services {
            plugin.offer_named(sockets, services.as_ref());
            if let Err(error) = plugin.offer(HOST_SERVICES, services.as_ref()).await {
                plugin.kill().await;
                let kind = LaunchErrorKind::HostServices(error);
                return Err(LaunchError::new(plugin.identity().name(), kind));
            }
        }
        Ok(plugin)
    }
}
