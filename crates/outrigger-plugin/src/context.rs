//! What a plugin's services get to work with.

use std::sync::Arc;

use outrigger_transport::{Broker, BrokerError, BrokerId, Channel};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::host::{self, Host, HostError};
use crate::hostserve::HostServices;

/// The plugin's side of its connection to the host. Clones are cheap.
#[derive(Clone, Debug)]
pub struct PluginContext {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) stopping: CancellationToken,
    host: Arc<HostOnce>,
}

/// The connection to the host's services, and what they said of themselves.
#[derive(Debug, Default)]
struct HostOnce {
    channel: OnceCell<Channel>,
    host: OnceCell<Host>,
}

impl PluginContext {
    pub(crate) fn new(broker: Arc<dyn Broker>, stopping: CancellationToken) -> Self {
        Self {
            broker,
            stopping,
            host: Arc::default(),
        }
    }

    /// The host's services, under what the host has granted to this plugin. The
    /// connection is made once and kept; clones of the context share it.
    ///
    /// # Errors
    /// The host offers none, or they cannot be reached; see [`HostError`].
    pub async fn host(&self) -> Result<Host, HostError> {
        let connect = async || Host::over(self.host_channel().await?).await;
        self.host.host.get_or_try_init(connect).await.cloned()
    }

    async fn host_channel(&self) -> Result<Channel, HostError> {
        let id = host::announced()?;
        let dial = || host::dial_patiently(self.broker.as_ref(), id);
        self.host.channel.get_or_try_init(dial).await.cloned()
    }

    /// Connects to the host's services before anyone asks: go-plugin's brokers
    /// announce an id once and forget it after a few seconds.
    pub(crate) async fn look_for_host(self) {
        while host::announced().is_ok() && !self.stopping.is_cancelled() {
            match self.host_channel().await {
                Ok(_) => return,
                // The host has not connected yet, or takes its time.
                Err(error) if error.code() == "broker-id-never-accepted" => {}
                Err(error) => {
                    let code = error.code().to_owned();
                    tracing::debug!(code, %error, "the host's services are not there");
                    return;
                }
            }
        }
    }

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
