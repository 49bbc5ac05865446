//! The host's services as if they were local, under what the host has granted.
//!
//! ```no_run
//! # async fn example(ctx: outrigger_plugin::PluginContext) -> Result<(), Box<dyn std::error::Error>> {
//! let host = ctx.host().await?;
//! let file = host.fs().open("/data/report.csv").await?;
//! let mut start = [0; 512];
//! let read = file.read_at(&mut start, 0).await?;
//! println!("{read} bytes; the language is {:?}", host.env().var("LANG").await?);
//! # Ok(()) }
//! ```
//!
//! Where the host hands over descriptors, opened files and commands' pipes come
//! as such: reading and writing are the kernel's business alone. Elsewhere, and
//! where the host has to count bytes, the same methods are calls. What a value
//! holds at the host is given back when it is dropped.

mod calls;
mod descriptors;
mod environment;
mod error;
mod file;
mod fs;
mod network;
mod process;
mod small;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use outrigger_transport::{Broker, BrokerErrorKind, BrokerId, Channel};
use outrigger_wire::ENV_HOST_SERVICES;
use outrigger_wire::proto::host as messages;
use tokio::time::Instant;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;

use crate::context::PluginContext;
use crate::proto::host::session_client::SessionClient;
use calls::{Labels, call};
use descriptors::Descriptors;

pub use environment::Env;
pub use error::HostError;
pub use file::File;
pub use fs::{
    Change, ChangeKind, Dir, DirEntry, FileKind, Fs, Metadata, OpenOptions, ReadDir, Watch,
};
pub use network::{HttpRequest, HttpResponse, Listener, NetworkAccess, TcpStream};
pub use process::{Child, ChildInput, ChildOutput, Command, ExitStatus, Output, Processes};
pub use small::{Clock, Log, LogLevel, Session, Ticks};
pub use udp::UdpSocket;

/// How long services that are not there yet are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

type Service = InterceptedService<Channel, Labels>;

/// The services of the host. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    about: messages::DescribeResponse,
    descriptors: Option<Arc<Descriptors>>,
}

impl Host {
    /// Connects to the services that the host offers on `id`, a number that it
    /// sent in one of its calls. [`PluginContext::host`] finds by itself what
    /// the host serves for the plugin's whole life.
    ///
    /// # Errors
    /// The host does not serve `id`, or other services than `outrigger.host.v1`.
    pub async fn connect(context: &PluginContext, id: u32) -> Result<Self, HostError> {
        let channel = context.broker.connect(BrokerId(id)).await;
        Self::over(channel.map_err(HostError::broker)?).await
    }

    /// The services at the other end of `channel`.
    ///
    /// # Errors
    /// They are not of `outrigger.host.v1`, or the connection is gone.
    pub async fn over(channel: Channel) -> Result<Self, HostError> {
        let service = InterceptedService::new(channel, Labels::new());
        let mut client = SessionClient::new(service.clone());
        let about = client.describe(messages::DescribeRequest {}).await;
        let about = about.map_err(|status| HostError::status("session.describe", status))?;
        let about = about.into_inner();
        let descriptors = about.descriptors.clone().map(Descriptors::new);
        Ok(Self(Arc::new(Inner {
            service,
            about,
            descriptors: descriptors.map(Arc::new),
        })))
    }

    /// The same services, asked by calls only.
    #[must_use]
    pub fn without_descriptors(&self) -> Self {
        Self(Arc::new(Inner {
            service: self.0.service.clone(),
            about: self.0.about.clone(),
            descriptors: None,
        }))
    }

    /// Files beneath what was granted.
    pub fn fs(&self) -> Fs {
        Fs::new(self.clone())
    }

    /// Variables that were granted, and facts about the host.
    pub fn env(&self) -> Env {
        Env::new(self.clone())
    }

    /// Commands that were granted.
    pub fn process(&self) -> Processes {
        Processes::new(self.clone())
    }

    /// Connections to granted places.
    pub fn network(&self) -> NetworkAccess {
        NetworkAccess::new(self.clone())
    }

    /// Time and randomness of the host.
    pub fn clock(&self) -> Clock {
        Clock::new(self.clone())
    }

    /// The host's log.
    pub fn log(&self) -> Log {
        Log::new(self.clone())
    }

    /// What this plugin is to the host.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The connection, for the generated clients in [`proto`](crate::proto).
    pub fn service(&self) -> InterceptedService<Channel, Labels> {
        self.0.service.clone()
    }

    /// Whether the host hands over descriptors.
    pub fn has_descriptors(&self) -> bool {
        self.0.descriptors.is_some()
    }

    fn about(&self) -> &messages::DescribeResponse {
        &self.0.about
    }

    fn descriptors(&self) -> Option<&Descriptors> {
        self.0.descriptors.as_deref()
    }

    /// The most bytes of contents in one message.
    fn payload(&self) -> usize {
        let limits = self.0.about.limits.as_ref();
        let message = limits.map_or(4 << 20, |limits| limits.message_bytes);
        let message = usize::try_from(message).unwrap_or(usize::MAX);
        message
            .min(outrigger_transport::MAX_MESSAGE)
            .saturating_sub(1024)
            .max(1)
    }

    /// Whether written bytes are counted, so that the host has to write them.
    fn counts_writes(&self) -> bool {
        let limits = self.0.about.limits.as_ref();
        limits.is_some_and(|limits| limits.written_bytes != 0)
    }
}

/// Connects to what the host serves on `id` or is about to serve.
pub(crate) async fn dial_patiently(
    broker: &dyn Broker,
    id: BrokerId,
) -> Result<Channel, HostError> {
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

/// Where this plugin finds its host's services, by its environment.
pub(crate) fn announced() -> Result<BrokerId, HostError> {
    let text = std::env::var(ENV_HOST_SERVICES).unwrap_or_default();
    text.parse().map(BrokerId).map_err(|_| {
        let text = format!(
            "this host offers no services: it sets no {ENV_HOST_SERVICES}. \
             A host on outrigger-host offers them with `Launch::host_services`; \
             a number that it sends in a call is for `Host::connect`"
        );
        HostError::local("no-host-services", "host.connect", Code::Unavailable, text)
    })
}
