//! The host's services as if they were local, under what the host has granted.
//!
//! Where the host hands over descriptors, opened files and commands' pipes come
//! as such, and the kernel alone reads and writes them. Elsewhere, and where the
//! host has to count bytes, the same methods make calls. Dropping a value lets the
//! host close what it stands for.

mod calls;
mod child;
mod clock;
mod contents;
mod descriptors;
mod environment;
mod error;
mod exit_status;
mod file;
mod fs;
mod http;
mod lease;
mod log;
mod metadata;
mod network;
mod open;
mod parts;
mod pending;
mod process;
mod read_dir;
mod session;
mod tcp;
mod time;
mod udp;
mod watch;

use std::sync::Arc;

use outrigger_transport::Channel;
use outrigger_wire::proto::host as messages;
use tonic::service::interceptor::InterceptedService;

use crate::labels::Labels;
use crate::proto::host::session_client::SessionClient;
use descriptors::Descriptors;
use session::About;

pub use child::{Child, ChildInput, ChildOutput};
pub use clock::{Clock, Ticks};
pub use environment::{Dirs, Env, HostInfo, Ids};
pub use error::HostError;
pub use exit_status::ExitStatus;
pub use file::File;
pub use fs::Fs;
pub use http::{HttpRequest, HttpResponse};
pub use log::{Log, LogLevel};
pub use metadata::{DirEntry, FileKind, Metadata};
pub use network::NetworkAccess;
pub use open::{Dir, OpenOptions};
pub use process::{Command, Output, ProcessInfo, Processes};
pub use read_dir::ReadDir;
pub use session::{
    EgressGrant, ExecGrant, FilesystemGrant, Grants, IngressGrant, Limits, Session, Usage,
};
pub use tcp::{Listener, TcpStream};
pub use udp::UdpSocket;
pub use watch::{Change, ChangeKind, Watch};

/// What a host that names no limit takes in one message, in bytes.
const MESSAGE: u64 = 4 << 20;
/// Room in a message beside its contents, in bytes.
const AROUND: usize = 1024;

type Service = InterceptedService<Channel, Labels>;

/// The services of a host, of `outrigger.host.v1`: what
/// [`PluginContext::host`](crate::PluginContext::host) gives. Clones share the
/// connection.
///
/// # Examples
/// ```no_run
/// # async fn example(ctx: outrigger_plugin::PluginContext) -> Result<(), Box<dyn std::error::Error>> {
/// let host = ctx.host().await?;
/// let file = host.fs().open("/data/report.csv").await?;
/// let mut start = [0; 512];
/// let read = file.read_at(&mut start, 0).await?;
/// println!("{read} bytes; the language is {:?}", host.env().var("LANG").await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    about: About,
    descriptors: Option<Arc<Descriptors>>,
}

impl Host {
    /// The services at the other end of `channel`.
    ///
    /// # Errors
    /// They are not of `outrigger.host.v1`, or the connection is gone.
    pub async fn over(channel: Channel) -> Result<Self, HostError> {
        let service = InterceptedService::new(channel, Labels::numbered());
        let mut client = SessionClient::new(service.clone());
        let about = client.describe(messages::DescribeRequest {}).await;
        let about = about.map_err(|status| HostError::status("session.describe", status))?;
        let mut about = about.into_inner();
        let descriptors = about.descriptors.take().map(Descriptors::new);
        Ok(Self(Arc::new(Inner {
            service,
            about: About::from_wire(about),
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
        Fs(self.clone())
    }

    /// Variables that were granted, and facts about the host.
    pub fn env(&self) -> Env {
        Env(self.clone())
    }

    /// Commands that were granted.
    pub fn process(&self) -> Processes {
        Processes(self.clone())
    }

    /// Connections to granted places.
    pub fn network(&self) -> NetworkAccess {
        NetworkAccess(self.clone())
    }

    /// Time and randomness of the host.
    pub fn clock(&self) -> Clock {
        Clock(self.clone())
    }

    /// The host's log.
    pub fn log(&self) -> Log {
        Log(self.clone())
    }

    /// What this plugin is to the host.
    pub fn session(&self) -> Session {
        Session(self.clone())
    }

    /// The connection, for the generated clients in [`proto::host`](crate::proto::host).
    pub fn service(&self) -> InterceptedService<Channel, Labels> {
        self.0.service.clone()
    }

    /// Whether the host hands over descriptors.
    pub fn has_descriptors(&self) -> bool {
        self.0.descriptors.is_some()
    }

    fn about(&self) -> &About {
        &self.0.about
    }

    fn descriptors(&self) -> Option<&Descriptors> {
        self.0.descriptors.as_deref()
    }

    /// The most bytes of contents in one message.
    fn payload(&self) -> usize {
        let limits = self.0.about.limits.as_ref();
        let message = limits.map_or(MESSAGE, |limits| limits.message_bytes);
        let message = usize::try_from(message).unwrap_or(usize::MAX);
        message.min(calls::LARGEST).saturating_sub(AROUND).max(1)
    }

    /// Whether the host counts written bytes, and so has to write them itself.
    fn counts_writes(&self) -> bool {
        let limits = self.0.about.limits.as_ref();
        limits.is_some_and(|limits| limits.written_bytes.is_some())
    }
}
