//! What one plugin was granted: data for whoever enforces it, and verdicts on single operations.

mod environment;
mod filesystem;
mod network;
mod process;
mod real_paths;

use std::path::Path;
use std::sync::Arc;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

pub use environment::EnvironmentGrants;
pub use filesystem::FilesystemGrant;
pub(crate) use filesystem::{FilesystemGrants, FilesystemRule};
pub(crate) use network::{DeniedAddresses, RefusedNetwork};
pub use network::{NetworkGrant, NetworkGrants};
pub(crate) use process::ExecRule;
pub use process::{ExecGrant, ProcessGrants};
pub use real_paths::RealPaths;

use crate::choices::{Capability, HostService, ProcessControl, SandboxMode};
use crate::denial::Denial;
use crate::name::PluginName;
use crate::permissions::Permissions;
use crate::resources::Resources;
use crate::rule::Rule;
use crate::services::{ServiceName, Services};

/// Everything one plugin was granted. Only [`Policy::decide`](crate::Policy::decide) makes one.
///
/// Cloning is cheap. The verdicts are pure: they compare texts and know nothing of the machine,
/// so whoever carries an operation out must still find out where granted paths lead and ask about
/// that place, resolve paths beneath the granted directory, and connect to the very address that
/// was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Grants(Arc<Inner>);

#[derive(Debug, PartialEq)]
pub(crate) struct Inner {
    pub(crate) plugin: PluginName,
    pub(crate) filesystem: FilesystemGrants,
    pub(crate) network: NetworkGrants,
    pub(crate) process: ProcessGrants,
    pub(crate) environment: EnvironmentGrants,
    pub(crate) services: ServiceGrants,
    pub(crate) resources: Resources,
    pub(crate) sandbox: SandboxMode,
    pub(crate) jit: bool,
}

/// The granted services of the host and of the application, and those refused with the reason.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ServiceGrants {
    pub(crate) granted: Vec<(HostService, Rule)>,
    pub(crate) refused: Vec<(HostService, String)>,
    pub(crate) application: Vec<(ServiceName, Rule)>,
    pub(crate) application_refused: Vec<(ServiceName, String)>,
}

impl Grants {
    pub(crate) fn new(inner: Inner) -> Grants {
        Grants(Arc::new(inner))
    }

    /// Name of the plugin they belong to.
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.0.plugin.as_str()
    }

    /// The granted parts of the file tree.
    #[must_use]
    pub fn filesystem(&self) -> &[FilesystemGrant] {
        &self.0.filesystem.granted
    }

    /// Granted connections.
    #[must_use]
    pub fn network(&self) -> &NetworkGrants {
        &self.0.network
    }

    /// Granted commands and control over them.
    #[must_use]
    pub fn process(&self) -> &ProcessGrants {
        &self.0.process
    }

    /// Granted variables of the environment.
    #[must_use]
    pub fn environment(&self) -> &EnvironmentGrants {
        &self.0.environment
    }

    /// Limits on what the plugin uses.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.0.resources
    }

    /// How strictly the plugin must be confined.
    #[must_use]
    pub fn sandbox(&self) -> SandboxMode {
        self.0.sandbox
    }

    /// Whether the plugin may make machine code while it runs.
    #[must_use]
    pub fn jit(&self) -> bool {
        self.0.jit
    }

    /// The host services the plugin may call.
    pub fn services(&self) -> impl Iterator<Item = HostService> + '_ {
        self.0.services.granted.iter().map(|(service, _)| *service)
    }

    /// Whether the plugin may call a host service at all.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn service(&self, service: HostService) -> Result<&Rule, Denial> {
        let ServiceGrants {
            granted, refused, ..
        } = &self.0.services;
        if let Some((_, rule)) = granted.iter().find(|(granted, _)| *granted == service) {
            return Ok(rule);
        }
        let refused = refused.iter().find(|(refused, _)| *refused == service);
        Err(Denial::not_granted(
            Capability::Services,
            "call",
            service.as_str(),
            refused.map(|(_, rule)| rule.as_str()),
            format!("services: [{service}]"),
        ))
    }

    /// The services of the application's own that the plugin may call.
    pub fn application_services(&self) -> impl Iterator<Item = &ServiceName> {
        let granted = &self.0.services.application;
        granted.iter().map(|(name, _)| name)
    }

    /// The services of the application's own that the manifest asks for and that were refused.
    pub fn refused_application_services(&self) -> impl Iterator<Item = &ServiceName> {
        let refused = &self.0.services.application_refused;
        refused.iter().map(|(name, _)| name)
    }

    /// Whether the plugin may call a service of the application's own.
    ///
    /// # Errors
    ///
    /// The denial, when it may not.
    pub fn application_service(&self, name: &str) -> Result<&Rule, Denial> {
        let ServiceGrants {
            application,
            application_refused,
            ..
        } = &self.0.services;
        if let Some((_, rule)) = application.iter().find(|(own, _)| own.as_str() == name) {
            return Ok(rule);
        }
        let mut refused = application_refused.iter();
        let refused = refused.find(|(own, _)| own.as_str() == name);
        Err(Denial::not_granted(
            Capability::Services,
            "call",
            name,
            refused.map(|(_, rule)| rule.as_str()),
            format!("services: [{name}]"),
        ))
    }

    /// Whether an operation that needs these permissions may be done on a path, and under which
    /// grant.
    ///
    /// The path must be absolute and without `..`. One grant must cover it with every permission
    /// needed: a recursive one covers its path and everything below, any other its path and the
    /// direct entries of that, which for a file is the file alone. `list` on a directory shows what
    /// is in it, so a grant that is not recursive gives it on its own path only. A grant carries the
    /// permissions of every grant that contains it, so overlapping ones add up. Of several that cover the
    /// path, the one with the longest path is returned, and of those with the same path a
    /// recursive one. Needing no permission is answered as if any were enough.
    ///
    /// The comparison is one of texts: the caller resolves the path beneath the grant's own
    /// directory, at most one level deep when the grant is not recursive.
    ///
    /// # Errors
    ///
    /// The denial, when no grant covers the path with all of `needs`.
    pub fn filesystem_verdict(
        &self,
        path: &Path,
        needs: Permissions,
    ) -> Result<&FilesystemGrant, Denial> {
        self.0.filesystem.verdict(path, needs)
    }

    /// Whether the policy grants a part of the file tree where it really is: `place`, absolute
    /// and free of links, is where the grant's path leads. Ask this before the grant is served.
    ///
    /// A decision compares paths as they are written, and the same place may have other names:
    /// by links, by `/proc/self/root`. So nothing may be served at a place that a denial touches,
    /// or where no rule allows what is granted, whatever name led there. The rules' own paths
    /// count where they lead, a denial also as it is written.
    ///
    /// # Errors
    ///
    /// The denial, with the rule.
    pub fn filesystem_place(
        &self,
        grant: &FilesystemGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        self.0.filesystem.place(grant, place, real)
    }

    /// Whether the policy grants a command where its program really is. As
    /// [`Grants::filesystem_place`]: a denied program is denied by all its names.
    ///
    /// # Errors
    ///
    /// The denial, with the rule.
    pub fn exec_place(
        &self,
        grant: &ExecGrant,
        place: &Path,
        real: &dyn RealPaths,
    ) -> Result<(), Denial> {
        self.0.process.place(grant, place, real)
    }
}

/// A readable form: every grant with the request and rule it comes from.
impl Serialize for Grants {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Network<'g> {
            egress: &'g [NetworkGrant],
            ingress: &'g [NetworkGrant],
        }
        #[derive(Serialize)]
        struct Process<'g> {
            exec: &'g [ExecGrant],
            children: Vec<ProcessControl>,
        }
        struct Set<'g>(&'g EnvironmentGrants);
        impl Serialize for Set<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.set())
            }
        }
        #[derive(Serialize)]
        struct Environment<'g> {
            read: Vec<&'g str>,
            set: Set<'g>,
        }
        let inner = &*self.0;
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry("plugin", &inner.plugin)?;
        map.serialize_entry("filesystem", self.filesystem())?;
        let network = Network {
            egress: &inner.network.egress,
            ingress: &inner.network.ingress,
        };
        map.serialize_entry("network", &network)?;
        let children = inner
            .process
            .control
            .iter()
            .map(|(control, _)| *control)
            .collect();
        map.serialize_entry(
            "process",
            &Process {
                exec: &inner.process.exec,
                children,
            },
        )?;
        let environment = Environment {
            read: inner.environment.names().collect(),
            set: Set(&inner.environment),
        };
        map.serialize_entry("environment", &environment)?;
        let services = Services {
            host: self.services().collect(),
            application: self.application_services().cloned().collect(),
        };
        map.serialize_entry("services", &services)?;
        map.serialize_entry("resources", &inner.resources)?;
        map.serialize_entry("sandbox", &inner.sandbox)?;
        map.serialize_entry("jit", &inner.jit)?;
        map.end()
    }
}
