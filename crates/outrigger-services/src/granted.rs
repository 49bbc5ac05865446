//! The service value that a host makes for one plugin's grants and binds to its
//! connections.

use std::path::PathBuf;
use std::sync::Arc;

use outrigger_manifest::Grants;
use outrigger_transport::{HostServices, PluginIdentity, ServiceSet};

use crate::audit::{AuditLog, AuditRecord, Verdict};
use crate::clock::ClockService;
use crate::descriptors::Descriptors;
use crate::environment::EnvironmentService;
use crate::fs::{Files, Filesystem, LimitedGrant, UnusableGrant};
use crate::gate::{Gate, Unserved};
use crate::hostserve::HostServe;
use crate::limits::Limits;
use crate::log::LogService;
use crate::network::{Door, NetworkService, NetworkSettings};
use crate::process::{ProcessService, Programs};
use crate::proto::host::clock_server::ClockServer;
use crate::proto::host::environment_server::EnvironmentServer;
use crate::proto::host::filesystem_server::FilesystemServer;
use crate::proto::host::log_server::LogServer;
use crate::proto::host::network_server::NetworkServer;
use crate::proto::host::process_server::ProcessServer;
use crate::proto::host::session_server::SessionServer;
use crate::proto::hostserve::host_service_server::HostServiceServer;
use crate::session::Session;
use crate::session_service::SessionService;

/// The descriptors of all host services, encoded, for reflection.
pub const HOST_SERVICES_DESCRIPTORS: &[u8] = include_bytes!("generated/host_services.bin");

/// The host's services for one plugin, under its grants.
///
/// Every service of `outrigger.host.v1` is there, and `hostserve.v1` over the
/// same grants; what is not granted is refused, call by call, and recorded. What
/// a plugin opens belongs to its connection: no other one can use it, and all of
/// it is closed, and its temporary directory removed, when the connection's
/// services are dropped.
#[derive(Clone, Debug)]
pub struct GrantedServices(Arc<Shared>);

/// What all connections under the same grants share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) audit: AuditLog,
    pub(crate) digest: Option<Arc<str>>,
    pub(crate) temp_root: PathBuf,
    pub(crate) files: Arc<Files>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) hard_links: HardLinks,
    pub(crate) ownership: Ownership,
    pub(crate) door: Arc<Door>,
}

/// Whether a file with several names may be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HardLinks {
    /// No: another of its names may lie outside every grant.
    #[default]
    ReadOnly,
    /// Yes, like any other file.
    Writable,
}

/// Whether files may be given to someone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Only to the host's own user and group.
    Own,
    /// To whomever the kernel allows.
    Any,
}

impl GrantedServices {
    /// Services under `grants`. What is granted of the file tree, and the
    /// programs of granted commands, are opened now and held: it does not matter
    /// what happens to their paths afterwards.
    /// [`unusable`](Self::unusable) says what could not be opened.
    pub fn new(grants: Grants) -> Self {
        let shared = Shared {
            limits: crate::grants::limits(&grants, Limits::default()),
            files: Arc::new(Files::take(&grants)),
            programs: Arc::new(Programs::take(&grants)),
            hard_links: HardLinks::default(),
            ownership: Ownership::Own,
            grants,
            audit: AuditLog::none(),
            digest: None,
            temp_root: outrigger_transport::temp_dir(),
            door: Arc::new(Door::new(&NetworkSettings::default())),
        };
        Self(Arc::new(shared))
    }

    /// What one connection may make the host hold and move: the smaller of each
    /// of these and what was granted of resources.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        let shared = Arc::make_mut(&mut self.0);
        shared.limits = crate::grants::limits(&shared.grants, limits);
        self
    }

    /// Where decisions are kept.
    #[must_use]
    pub fn audit(mut self, audit: AuditLog) -> Self {
        Arc::make_mut(&mut self.0).audit = audit;
        self
    }

    /// The digest of the plugin's program, for records.
    #[must_use]
    pub fn digest(mut self, digest: impl AsRef<str>) -> Self {
        Arc::make_mut(&mut self.0).digest = Some(digest.as_ref().into());
        self
    }

    /// Where temporary directories are made: the system's place by default. Each
    /// connection gets one of its own there, with mode 0700, once it needs one.
    #[must_use]
    pub fn temp_root(mut self, path: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.0).temp_root = path.into();
        self
    }

    /// Whether files with several names may be changed: not unless said here.
    #[must_use]
    pub fn hard_links(mut self, hard_links: HardLinks) -> Self {
        Arc::make_mut(&mut self.0).hard_links = hard_links;
        self
    }

    /// Lets plugins give files to any owner that the kernel allows, rather than
    /// to the host's own user and group only.
    #[must_use]
    pub fn allow_ownership_changes(mut self) -> Self {
        Arc::make_mut(&mut self.0).ownership = Ownership::Any;
        self
    }

    /// Granted paths and commands that could not be opened: requests for them
    /// are refused.
    pub fn unusable(&self) -> impl Iterator<Item = &UnusableGrant> {
        self.0.files.unusable().chain(self.0.programs.unusable())
    }

    /// What of the granted files is not served although it lies where something is
    /// granted: the kernel shows itself there. Reads the table of mounts.
    pub fn limited(&self) -> impl Iterator<Item = LimitedGrant> {
        self.0.files.limited()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> Shared {
        Shared::clone(&self.0)
    }

    /// How the network service reaches the world.
    #[must_use]
    pub fn network(mut self, settings: &NetworkSettings) -> Self {
        Arc::make_mut(&mut self.0).door = Arc::new(Door::new(settings));
        self
    }

    /// The grants.
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }
}

impl HostServices for GrantedServices {
    fn bind(&self, identity: &PluginIdentity) -> ServiceSet {
        for unusable in self.unusable() {
            tracing::warn!(
                target: "outrigger_services::audit",
                plugin = identity.name(), instance = identity.instance(),
                code = unusable.code(), error = %unusable, "a grant cannot be served"
            );
        }
        let session = Arc::new(Session::new(self.0.clone(), identity.clone()));
        let limits = &self.0.limits;
        let gate = Gate::new(session.clone());
        // Both ways, for every generated server.
        macro_rules! serve {
            ($server:ident: $service:expr) => {
                gate.wrap(
                    $server::new($service)
                        .max_decoding_message_size(limits.message)
                        .max_encoding_message_size(limits.message),
                )
            };
        }
        let processes = ProcessService::new(session.clone());
        let network = NetworkService::new(session.clone(), self.0.door.clone());
        let descriptors = Descriptors::new(&session, &processes, &network);
        ServiceSet::new()
            .otherwise(Unserved(session.clone()))
            .with(serve!(HostServiceServer: HostServe::new(session.clone())))
            .with(serve!(FilesystemServer: Filesystem::new(session.clone())))
            .with(serve!(NetworkServer: network))
            .with(serve!(EnvironmentServer: EnvironmentService::new(session.clone())))
            .with(serve!(ProcessServer: processes))
            .with(serve!(ClockServer: ClockService::new(session.clone())))
            .with(serve!(LogServer: LogService::new(session.clone())))
            .with(serve!(SessionServer: SessionService::new(session, descriptors)))
            .describe(HOST_SERVICES_DESCRIPTORS)
    }
}

impl Shared {
    /// Whether anyone keeps records.
    pub(crate) fn records(&self) -> bool {
        !self.audit.is_empty()
            || tracing::enabled!(target: "outrigger_services::audit", tracing::Level::WARN)
    }

    /// Keeps a record and tells `tracing`: at debug level of what worked, at
    /// info level of what failed or was not judged, as a warning of what was refused.
    pub(crate) fn keep(&self, record: AuditRecord) {
        macro_rules! tell {
            ($level:expr, $text:literal) => {
                tracing::event!(
                    target: "outrigger_services::audit",
                    $level,
                    plugin = &*record.plugin,
                    instance = &*record.instance,
                    client = %record.client,
                    request = %record.request,
                    operation = %format_args!("{}.{}", record.capability, record.operation),
                    arguments = %record.argument,
                    verdict = record.verdict.as_str(),
                    rule = %record.rule,
                    code = record.code,
                    reason = %record.reason,
                    missing = %record.missing,
                    bytes = record.bytes,
                    duration_us = record.micros,
                    $text
                )
            };
        }
        match record.verdict {
            Verdict::Refused => tell!(tracing::Level::WARN, "host service call refused"),
            Verdict::Allowed if record.code == "ok" => {
                tell!(tracing::Level::DEBUG, "host service call");
            }
            Verdict::Allowed => tell!(tracing::Level::INFO, "host service call failed"),
            Verdict::Undecided => tell!(tracing::Level::INFO, "host service call not judged"),
        }
        if !self.audit.is_empty() {
            self.audit.record(&Arc::new(record));
        }
    }
}
