//! What a plugin's services get to work with.

use std::sync::Arc;

use outrigger_transport::{Broker, BrokerError, BrokerId};
use tokio_util::sync::CancellationToken;

use crate::host::HostServices;

/// The plugin's side of its connection to the host. Clones are cheap.
#[derive(Clone, Debug)]
pub struct PluginContext {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) stopping: CancellationToken,
}

impl PluginContext {
    /// Opens further connections to the host.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    /// Connects to the services that the host offers on `id`, a number that it
    /// sent in one of its calls.
    ///
    /// # Errors
    /// The host does not serve `id`, or cannot be reached.
    pub async fn host_services(&self, id: u32) -> Result<HostServices, BrokerError> {
        HostServices::connect(self.broker.as_ref(), BrokerId(id)).await
    }

    /// Waits until the host asks the plugin to end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }
}
