//! What a plugin's services get to work with.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use outrigger_transport::{
    Broker, BrokerError, BrokerErrorKind, BrokerId, Channel, ChannelOptions, connect,
};
use outrigger_wire::{
    Address, ENV_HOST_SERVICES, ENV_PLUGIN_CONFIG, ENV_SERVICES, Excerpt, Network, offered_services,
};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::host::{Host, HostError};
use crate::hostserve::HostServe;

/// How long the plugin waits for services that its host is about to serve.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is named in errors of services of the application's own.
const CONNECT_SERVICE: &str = "services.connect";
/// How often it looks whether the host has replaced its configuration.
const CONFIG_LOOK: Duration = Duration::from_secs(1);
/// How long it waits between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// The plugin's side of its connection to the host. Clones are cheap.
///
/// Each factory of a [`PluginSet`](crate::PluginSet) gets one, and gives a clone
/// to the services that call back:
/// ```
/// use outrigger_plugin::netrpc::Methods;
/// use outrigger_plugin::{PluginContext, PluginSet};
///
/// async fn first_line(ctx: PluginContext, path: String) -> Result<String, String> {
///     let host = ctx.host().await.map_err(|error| error.to_string())?;
///     let text = host.fs().read_to_string(path).await.map_err(|error| error.to_string())?;
///     Ok(text.lines().next().unwrap_or_default().to_owned())
/// }
///
/// let set = PluginSet::new().netrpc("reader", |ctx| {
///     let ctx = ctx.clone();
///     Methods::new().method("FirstLine", move |path| first_line(ctx.clone(), path))
/// });
/// # drop(set);
/// ```
#[derive(Clone, Debug)]
pub struct PluginContext {
    broker: Arc<dyn Broker>,
    stopping: CancellationToken,
    announced: Arc<Announced>,
}

/// The services that the host serves for the plugin's whole life: the connection
/// to them, and what they said of themselves.
#[derive(Debug, Default)]
struct Announced {
    channel: OnceCell<Channel>,
    host: OnceCell<Host>,
    /// Connections to services of the application's own, by their names.
    services: Mutex<BTreeMap<String, Channel>>,
}

impl PluginContext {
    pub(crate) fn new(broker: Arc<dyn Broker>, stopping: CancellationToken) -> Self {
        Self {
            broker,
            stopping,
            announced: Arc::default(),
        }
    }

    /// The host's services, under what the host has granted to this plugin. The
    /// connection is made once and kept; clones of the context share it.
    ///
    /// # Errors
    /// The host offers none (`no-host-services`), or they cannot be reached; see
    /// [`HostError`].
    pub async fn host(&self) -> Result<Host, HostError> {
        let connect = async || Host::over(self.announced_channel().await?).await;
        let host = self.announced.host.get_or_try_init(connect);
        host.await.cloned()
    }

    /// A service of the application's own, by the name under which this plugin's
    /// manifest asks for it: any client that tonic generates takes the channel. The
    /// connection is made when it is first asked for, and made again where it was
    /// lost; clones of the context share it.
    ///
    /// # Errors
    /// The host does not offer it to this plugin (`service-not-offered`), or it cannot
    /// be reached (`service-unreachable`).
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    ///
    /// # Examples
    /// ```no_run
    /// # struct CacheClient;
    /// # impl CacheClient { fn new(_: outrigger_plugin::Channel) -> Self { Self } }
    /// # async fn example(ctx: outrigger_plugin::PluginContext) -> Result<(), outrigger_plugin::HostError> {
    /// let cache = CacheClient::new(ctx.service("cache").await?);
    /// # drop(cache);
    /// # Ok(()) }
    /// ```
    pub async fn service(&self, name: &str) -> Result<Channel, HostError> {
        let mut services = self.announced.services.lock().await;
        if let Some(channel) = services.get(name).filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let channel = connect_to(&offered(name)?).await?;
        services.insert(name.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The same services, where the host sent a broker id for them in one of its
    /// calls. An id can be dialled once; the value that is returned can be cloned.
    ///
    /// # Errors
    /// The host does not serve `id`, or other services than `outrigger.host.v1`.
    pub async fn host_on(&self, id: u32) -> Result<Host, HostError> {
        let channel = self.broker.connect(BrokerId(id)).await;
        Host::over(channel.map_err(HostError::broker)?).await
    }

    /// The services of `hostserve.v1`, for which the host sent a broker id in one
    /// of its calls. An id can be dialled once; the value that is returned can be
    /// cloned.
    ///
    /// # Errors
    /// The host does not serve `id`, or cannot be reached.
    pub async fn host_serve(&self, id: u32) -> Result<HostServe, BrokerError> {
        let channel = self.broker.connect(BrokerId(id)).await?;
        Ok(HostServe::over(channel))
    }

    /// The plugin's own configuration as it is now, as JSON: what the host's operator
    /// wrote for this plugin. Nothing if the host hands over none.
    ///
    /// # Errors
    /// The file with it cannot be read.
    pub fn config(&self) -> io::Result<Option<String>> {
        let path = std::env::var_os(ENV_PLUGIN_CONFIG);
        path.map(std::fs::read_to_string).transpose()
    }

    /// Waits until the plugin's own configuration is another one than `known`, and
    /// returns it: within about two seconds after it was changed.
    ///
    /// # Errors
    /// The host hands over none, or the file with it cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(ctx: outrigger_plugin::PluginContext) -> std::io::Result<()> {
    /// let mut config = ctx.config()?.unwrap_or_default();
    /// loop {
    ///     // … take it over …
    ///     config = ctx.config_changed(&config).await?;
    /// }
    /// # }
    /// ```
    pub async fn config_changed(&self, known: &str) -> io::Result<String> {
        loop {
            match self.config()? {
                Some(config) if config == known => tokio::time::sleep(CONFIG_LOOK).await,
                Some(config) => return Ok(config),
                None => {
                    let text = format!(
                        "this host hands over no configuration: it sets no {ENV_PLUGIN_CONFIG}"
                    );
                    return Err(io::Error::new(io::ErrorKind::NotFound, text));
                }
            }
        }
    }

    /// Opens further connections to the host, for services of your own.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    /// Waits until the host asks the plugin to end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    async fn announced_channel(&self) -> Result<Channel, HostError> {
        let id = announced_id()?;
        let dial = || dial_patiently(self.broker.as_ref(), id);
        let channel = self.announced.channel.get_or_try_init(dial);
        channel.await.cloned()
    }

    /// Connects to the host's services before anyone asks: go-plugin's brokers
    /// announce an id once and forget it after a few seconds.
    pub(crate) async fn connect_early(self) {
        while announced_id().is_ok() && !self.stopping.is_cancelled() {
            match self.announced_channel().await {
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
}

/// Connects to what the host serves on `id` or is about to serve.
async fn dial_patiently(broker: &dyn Broker, id: BrokerId) -> Result<Channel, HostError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match broker.connect(id).await {
            Ok(channel) => return Ok(channel),
            Err(error)
                if matches!(error.kind(), BrokerErrorKind::Closed)
                    || Instant::now() + PAUSE >= until =>
            {
                return Err(HostError::broker(error));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Where the host serves what it offers under `name`.
fn offered(name: &str) -> Result<Address, HostError> {
    let value = std::env::var(ENV_SERVICES).unwrap_or_default();
    let services: BTreeMap<&str, &str> = offered_services(&value).collect();
    let path = services
        .get(name)
        .and_then(|text| text.strip_prefix("unix:"));
    if let Some(path) = path {
        return Ok(Address {
            network: Network::Unix,
            text: path.to_owned(),
        });
    }
    let known: Vec<&str> = services.into_keys().collect();
    let known = match known.is_empty() {
        true => "no services of its own".to_owned(),
        false => known.join(", "),
    };
    let name = Excerpt::from(name);
    let text = format!(
        "the host offers no service {name} to this plugin, but {known}. The manifest asks for it \
         by its name among `services`, and the host's log says why it was not granted"
    );
    Err(HostError::local(
        "service-not-offered",
        CONNECT_SERVICE,
        Code::Unavailable,
        text,
    ))
}

async fn connect_to(address: &Address) -> Result<Channel, HostError> {
    let unreachable = |error: Box<dyn std::error::Error + Send + Sync>| {
        let text = "the service of the host could not be reached";
        let failed = HostError::local(
            "service-unreachable",
            CONNECT_SERVICE,
            Code::Unavailable,
            text,
        );
        failed.caused(error)
    };
    let stream = connect(address)
        .await
        .map_err(|error| unreachable(error.into()))?;
    let options = ChannelOptions {
        // The host may still be on its way to serve it.
        await_peer: false,
        ..ChannelOptions::default()
    };
    let channel = Channel::connect(stream, options).await;
    channel.map_err(|error| unreachable(error.into()))
}

/// The broker id of the host's services, which the host sets in the environment.
fn announced_id() -> Result<BrokerId, HostError> {
    let text = std::env::var(ENV_HOST_SERVICES).unwrap_or_default();
    text.parse().map(BrokerId).map_err(|_| {
        let text = format!(
            "this host offers no services: it sets no {ENV_HOST_SERVICES}. \
             A host on outrigger-host offers them with `Launch::host_services`; \
             a number that it sends in a call is for `PluginContext::host_on`"
        );
        HostError::local("no-host-services", "host.connect", Code::Unavailable, text)
    })
}
