//! A plugin inside another program, for tests of hosts.

use outrigger_transport::OwnedTask;
use outrigger_wire::{Address, AppProtocolVersion, PluginEnvironment, Transport};
use tokio_util::sync::CancellationToken;

use crate::serve::{Serve, ServeError, spawn};

/// A plugin that serves from this process. Dropping it ends it.
#[derive(Debug)]
pub struct TestPlugin {
    /// Which RPC it speaks.
    pub transport: Transport,
    /// The version that it serves.
    pub version: AppProtocolVersion,
    /// Where it listens.
    pub address: Address,
    /// This process.
    pub pid: u32,
    stopping: CancellationToken,
    task: OwnedTask,
}

impl TestPlugin {
    /// Ends the plugin and waits until its socket is gone.
    ///
    /// # Cancel safety
    /// When the future is dropped the plugin ends in the background.
    pub async fn stop(self) {
        self.stopping.cancel();
        while !self.task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// Serves `plugin` from this process: no cookie is checked, no handshake
/// printed, no signal touched and the process goes on afterwards. Hosts reach
/// it by reattaching in test mode. With `mirror`, what this process prints goes
/// to the host.
///
/// # Errors
/// See [`ServeError`].
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use outrigger_plugin::{MagicCookie, PluginSet, Serve, serve_for_test};
///
/// let plugin = Serve::new(MagicCookie::new("GREETER", "hello")).offer(1, PluginSet::new());
/// let running = serve_for_test(plugin, false).await?;
/// println!("reattach to {}", running.address);
/// running.stop().await;
/// # Ok(()) }
/// ```
pub async fn serve_for_test(plugin: Serve, mirror: bool) -> Result<TestPlugin, ServeError> {
    let environment = PluginEnvironment::read(|name| std::env::var(name).ok());
    let stopping = CancellationToken::new();
    let prepared = plugin.prepare(environment, stopping.clone()).await?;
    let capture = match mirror {
        true => Some(prepared.capture().map_err(ServeError::Stdio)?),
        false => None,
    };
    Ok(TestPlugin {
        transport: prepared.line.transport,
        version: prepared.line.app_version,
        address: prepared.address().clone(),
        pid: std::process::id(),
        stopping,
        task: spawn(prepared, capture),
    })
}
