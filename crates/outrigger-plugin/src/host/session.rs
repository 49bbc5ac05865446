//! What a plugin is to its host, and what it may do.

use std::path::PathBuf;
use std::time::Duration;

use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{Host, HostError};

/// What this plugin is to the host, and what it was granted.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// let session = host.session();
/// println!("the host calls this plugin {}", session.plugin());
/// for grant in session.grants().await?.filesystem {
///     println!("{} of {}", grant.permissions.join(", "), grant.path.display());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Session(pub(super) Host);

impl Session {
    /// The name that the host gave this plugin.
    pub fn plugin(&self) -> &str {
        &self.0.about().plugin
    }

    /// What tells this run of the plugin from every other one.
    pub fn instance(&self) -> &str {
        &self.0.about().instance
    }

    /// The services that are granted, by short name such as `filesystem`.
    pub fn services(&self) -> &[String] {
        &self.0.about().services
    }

    /// What the host bounds, if it said.
    pub fn limits(&self) -> Option<&Limits> {
        self.0.about().limits.as_ref()
    }

    /// The grants in force.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn grants(&self) -> Result<Grants, HostError> {
        let granted = call!(self.0, session.grants, messages::GrantsRequest {})?;
        Ok(Grants::from_wire(granted))
    }

    /// What was used up so far.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn usage(&self) -> Result<Usage, HostError> {
        let used = call!(self.0, session.usage, messages::UsageRequest {})?;
        Ok(Usage {
            leases: used.leases,
            operations: used.operations,
            refused: used.refused,
            read_bytes: used.read_bytes,
            written_bytes: used.written_bytes,
        })
    }
}

/// What the host said of this plugin when the connection began.
#[derive(Clone, Debug)]
pub(super) struct About {
    plugin: String,
    instance: String,
    services: Vec<String>,
    pub(super) limits: Option<Limits>,
}

impl About {
    pub(super) fn from_wire(about: messages::DescribeResponse) -> Self {
        Self {
            plugin: about.plugin,
            instance: about.instance,
            services: about.services,
            limits: about.limits.map(Limits::from_wire),
        }
    }
}

/// What the host bounds for this plugin. Nothing stands for "not bounded".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message in either direction, in bytes.
    pub message_bytes: u64,
    /// The largest part of a stream in one message, in bytes.
    pub chunk_bytes: u64,
    /// What may be open at the same time: files, directories, connections,
    /// processes and ports together.
    pub leases: u32,
    /// When the host closes what is open and not used.
    pub lease_idle: Option<Duration>,
    /// Calls at the same time.
    pub calls: u32,
    /// How long one operation may take.
    pub call_timeout: Duration,
    /// Operations per second.
    pub operations_per_second: Option<u32>,
    /// Bytes moved per second.
    pub bytes_per_second: Option<u64>,
    /// Bytes that may be written in all.
    pub written_bytes: Option<u64>,
}

impl Limits {
    fn from_wire(limits: messages::Limits) -> Self {
        let some = |limit: u64| (limit != 0).then_some(limit);
        Self {
            message_bytes: limits.message_bytes,
            chunk_bytes: limits.chunk_bytes,
            leases: limits.leases,
            lease_idle: some(limits.lease_idle_ms).map(Duration::from_millis),
            calls: limits.calls,
            call_timeout: Duration::from_millis(limits.call_timeout_ms),
            operations_per_second: (limits.operations_per_second != 0)
                .then_some(limits.operations_per_second),
            bytes_per_second: some(limits.bytes_per_second),
            written_bytes: some(limits.written_bytes),
        }
    }
}

/// What a plugin was granted, in the words of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grants {
    /// Files and directories.
    pub filesystem: Vec<FilesystemGrant>,
    /// Names of variables.
    pub environment: Vec<String>,
    /// Places to connect to.
    pub egress: Vec<EgressGrant>,
    /// Ports to listen on.
    pub ingress: Vec<IngressGrant>,
    /// Commands to run.
    pub exec: Vec<ExecGrant>,
    /// What the plugin may do to processes that it started: of `kill`, `list`
    /// and `signal`.
    pub children: Vec<String>,
}

/// What may be done at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilesystemGrant {
    /// The file or directory.
    pub path: PathBuf,
    /// Of `read`, `write`, `list`, `create` and `delete`.
    pub permissions: Vec<String>,
    /// Whether it holds for everything beneath a directory too.
    pub recursive: bool,
}

/// Where a plugin may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EgressGrant {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Names, addresses and patterns for them.
    pub hosts: Vec<String>,
    /// Ports, and ranges of them.
    pub ports: Vec<String>,
}

/// Where a plugin may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngressGrant {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Ports, and ranges of them.
    pub ports: Vec<String>,
    /// Who may connect.
    pub allowed_origins: Vec<String>,
}

/// A command that a plugin may run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecGrant {
    /// Its absolute path.
    pub command: PathBuf,
    /// Patterns for its arguments.
    pub args: Vec<String>,
}

impl Grants {
    fn from_wire(granted: messages::GrantsResponse) -> Self {
        let filesystem = granted.filesystem.into_iter();
        let filesystem = filesystem.map(|grant| FilesystemGrant {
            path: grant.path.into(),
            permissions: grant.permissions,
            recursive: grant.recursive,
        });
        let egress = granted.egress.into_iter().map(|grant| EgressGrant {
            protocol: grant.protocol,
            hosts: grant.hosts,
            ports: grant.ports,
        });
        let ingress = granted.ingress.into_iter().map(|grant| IngressGrant {
            protocol: grant.protocol,
            ports: grant.ports,
            allowed_origins: grant.allowed_origins,
        });
        let exec = granted.exec.into_iter().map(|grant| ExecGrant {
            command: grant.command.into(),
            args: grant.args,
        });
        Self {
            filesystem: filesystem.collect(),
            environment: granted.environment,
            egress: egress.collect(),
            ingress: ingress.collect(),
            exec: exec.collect(),
            children: granted.children,
        }
    }
}

/// What a plugin has used up so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// What is open now: files, directories, connections, processes and ports.
    pub leases: u32,
    /// Operations that the host did.
    pub operations: u64,
    /// Operations that the host refused.
    pub refused: u64,
    /// Bytes read by calls.
    pub read_bytes: u64,
    /// Bytes written by calls.
    pub written_bytes: u64,
}
