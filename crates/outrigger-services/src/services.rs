//! The service value that a host makes for one plugin's grants and binds to its
//! connections.

use std::path::PathBuf;
use std::sync::Arc;

use outrigger_manifest::{Grants, ServiceName};
use outrigger_transport::{HostServices, PluginIdentity, ServiceSet};

use crate::application::{self, ApplicationServices};
use crate::audit::{AuditLog, Verdict};
use crate::call_limit::{CallLimit, UnknownService};
use crate::clock::ClockService;
use crate::descriptors::socket::Descriptors;
use crate::environment::EnvironmentService;
use crate::fs::areas::{GrantedAreas, LimitedGrant, UnusableGrant};
use crate::fs::call::{FileSettings, HardLinks, Ownership, SessionFiles};
use crate::fs::service::Filesystem;
use crate::hostserve::service::HostServe;
use crate::limits::Limits;
use crate::log::LogService;
use crate::network::egress::{Egress, Gateway};
use crate::network::service::NetworkService;
use crate::network::settings::NetworkSettings;
use crate::process::commands::Commands;
use crate::process::program::Programs;
use crate::proto::host::clock_server::ClockServer;
use crate::proto::host::environment_server::EnvironmentServer;
use crate::proto::host::filesystem_server::FilesystemServer;
use crate::proto::host::log_server::LogServer;
use crate::proto::host::network_server::NetworkServer;
use crate::proto::host::process_server::ProcessServer;
use crate::proto::host::session_server::SessionServer;
use crate::proto::hostserve::host_service_server::HostServiceServer;
use crate::session::{Decided, Session, Terms};
use crate::session_info::SessionService;

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
pub struct GrantedServices {
    terms: Arc<Terms>,
    areas: Arc<GrantedAreas>,
    files: FileSettings,
    programs: Arc<Programs>,
    gateway: Arc<Gateway>,
    application: ApplicationServices,
}

impl GrantedServices {
    /// Services under `grants`. What is granted of the file tree, and the
    /// programs of granted commands, are opened now and held: it does not matter
    /// what happens to their paths afterwards.
    /// [`unusable`](Self::unusable) says what could not be opened.
    pub fn new(grants: Grants) -> Self {
        Self {
            areas: Arc::new(GrantedAreas::take(&grants)),
            programs: Arc::new(Programs::take(&grants)),
            files: FileSettings {
                temp_root: outrigger_transport::temp_dir(),
                hard_links: HardLinks::default(),
                ownership: Ownership::Host,
            },
            gateway: Arc::new(Gateway::new(&NetworkSettings::default())),
            application: ApplicationServices::new(),
            terms: Arc::new(Terms {
                limits: Limits::default().within(&grants),
                grants,
                audit: AuditLog::none(),
                digest: None,
                decided: Decided::default(),
            }),
        }
    }

    /// What one connection may make the host hold and move: the smaller of each
    /// of these and what was granted of resources.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        let terms = Arc::make_mut(&mut self.terms);
        terms.limits = limits.within(&terms.grants);
        self
    }

    /// Where decisions are kept.
    #[must_use]
    pub fn audit(mut self, audit: AuditLog) -> Self {
        Arc::make_mut(&mut self.terms).audit = audit;
        self
    }

    /// Calls `each` with the capability and the verdict of every operation that began,
    /// whether records are kept or not, on the thread of the call: it must be quick.
    #[must_use]
    pub fn on_decision(
        mut self,
        each: impl Fn(&'static str, Verdict) + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.terms).decided = Decided(Some(Arc::new(each)));
        self
    }

    /// The digest of the plugin's program, for records.
    #[must_use]
    pub fn digest(mut self, digest: impl AsRef<str>) -> Self {
        Arc::make_mut(&mut self.terms).digest = Some(digest.as_ref().into());
        self
    }

    /// Where temporary directories are made: the system's place by default. Each
    /// connection gets one of its own there, with mode 0700, once it needs one.
    #[must_use]
    pub fn temp_root(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.temp_root = path.into();
        self
    }

    /// Whether files with several names may be changed: not unless said here.
    #[must_use]
    pub fn hard_links(mut self, hard_links: HardLinks) -> Self {
        self.files.hard_links = hard_links;
        self
    }

    /// Lets plugins give files to any owner that the kernel allows, rather than
    /// to the host's own user and group only.
    #[must_use]
    pub fn allow_ownership_changes(mut self) -> Self {
        self.files.ownership = Ownership::Anyone;
        self
    }

    /// Granted paths and commands that could not be opened: requests for them
    /// are refused.
    pub fn unusable(&self) -> impl Iterator<Item = &UnusableGrant> {
        self.areas.unusable().chain(self.programs.unusable())
    }

    /// What of the granted files is not served although it lies where something is
    /// granted: the kernel shows itself there. Reads the table of mounts.
    pub fn limited(&self) -> impl Iterator<Item = LimitedGrant> {
        self.areas.limited()
    }

    /// How the network service reaches the world.
    #[must_use]
    pub fn network(mut self, settings: &NetworkSettings) -> Self {
        self.gateway = Arc::new(Gateway::new(settings));
        self
    }

    /// The application's own services: a plugin is offered those that are granted to
    /// it by their names.
    #[must_use]
    pub fn application(mut self, services: &ApplicationServices) -> Self {
        self.application = services.clone();
        self
    }

    /// The names of the application's services that this plugin is offered.
    fn offered(&self) -> impl Iterator<Item = &ServiceName> {
        let granted = self.terms.grants.application_services();
        granted.filter(|name| self.application.has(name))
    }

    /// The grants.
    pub fn grants(&self) -> &Grants {
        &self.terms.grants
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
        let session = Arc::new(Session::new(self.terms.clone(), identity.clone()));
        application::record_refused(&session);
        self.serve(session)
    }

    fn names(&self) -> Vec<String> {
        self.offered().map(ToString::to_string).collect()
    }

    fn bind_named(&self, name: &str, identity: &PluginIdentity) -> ServiceSet {
        let session = Session::new(self.terms.clone(), identity.clone());
        self.application.serve(name, Arc::new(session))
    }
}

impl GrantedServices {
    /// The services of one connection.
    fn serve(&self, session: Arc<Session>) -> ServiceSet {
        let (areas, settings) = (self.areas.clone(), self.files.clone());
        let files = Arc::new(SessionFiles::new(session.clone(), areas, settings));
        let processes = Commands::new(files.clone(), self.programs.clone());
        let egress = Egress::new(session.clone(), self.gateway.clone());
        let descriptors = Descriptors::new(&files, &processes, &egress);
        let limit = CallLimit::new(session.clone());
        let message = session.limits().message;
        // In both directions, for every generated server.
        macro_rules! serve {
            ($server:ident: $service:expr) => {
                limit.wrap(
                    $server::new($service)
                        .max_decoding_message_size(message)
                        .max_encoding_message_size(message),
                )
            };
        }
        ServiceSet::new()
            .otherwise(UnknownService(session.clone()))
            .with(serve!(HostServiceServer: HostServe::new(files.clone())))
            .with(serve!(FilesystemServer: Filesystem::new(files.clone())))
            .with(serve!(NetworkServer: NetworkService::new(egress)))
            .with(serve!(EnvironmentServer: EnvironmentService::new(files.clone())))
            .with(serve!(ProcessServer: processes))
            .with(serve!(ClockServer: ClockService::new(session.clone())))
            .with(serve!(LogServer: LogService::new(session)))
            .with(serve!(SessionServer: SessionService::new(files, descriptors)))
            .describe(HOST_SERVICES_DESCRIPTORS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_connection_whose_services_are_gone_is_gone() {
        let (audit, mut records) = AuditLog::channel(1000);
        let services = GrantedServices::new(testing::grants("{}")).audit(audit);
        let identity = PluginIdentity::new("p", "p-1", None);
        let session = Arc::new(Session::new(services.terms.clone(), identity));
        drop(services.serve(session.clone()));
        for _ in 0..100 {
            let operation = crate::call_limit::CALL;
            session
                .recorder()
                .turn_away(operation, |_| {}, &crate::fault::Fault::Cancelled);
        }
        assert_eq!(Arc::strong_count(&session), 1);
        drop(session);
        // What was turned away without a record of its own is counted at the end.
        let (mut kept, mut more, mut last) = (0, 0, "");
        while let Some(record) = records.try_recv() {
            if let Some(told) = record.argument.split("more=").nth(1) {
                more += told.parse::<u64>().expect("a number");
            }
            kept += u64::from(record.operation == "call");
            last = record.operation;
        }
        assert_eq!((kept + more, last), (100, "turned_away"));
    }
}
