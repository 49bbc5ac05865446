//! The service value that a host builds once and binds to each plugin.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_transport::{HostServices, PluginIdentity, ServiceSet};

use crate::area::Access;
use crate::environment::EnvironmentGrant;
use crate::gate::Gated;
use crate::limits::Limits;
use crate::proto::hostserve::host_service_server::HostServiceServer;
use crate::root::{Root, RootError};
use crate::rpc::Bound;
use crate::session::{Granted, Ownership, Session};

/// The descriptors of `hostserve.v1`, encoded, for reflection.
pub const HOSTSERVE_DESCRIPTORS: &[u8] = include_bytes!("generated/host_services.bin");

/// `hostserve.v1` for any number of plugins: files beneath one directory,
/// granted variables, ids, directories, temporary files.
///
/// One value serves many plugins; [`HostServices::bind`] makes the services of
/// one connection. What a plugin opens there belongs to that connection: no
/// other one can use its handles, and all of it is closed, and its temporary
/// directory removed, when the connection's services are dropped.
///
/// Unless said otherwise a plugin may read and write beneath the directory, read
/// no variable, and give no file to another owner.
///
/// # Examples
/// ```
/// use outrigger_services::HostServe;
/// use outrigger_transport::{HostServices, PluginIdentity};
///
/// let services = HostServe::open(".")?.read_only(true).allow_env(["LANG"]);
/// let identity = PluginIdentity::new("lister", "first", None);
/// let bound = services.bind(&identity);
/// assert!(bound.names().any(|name| name == "hostserve.v1.HostService"));
/// # Ok::<(), outrigger_services::RootError>(())
/// ```
#[derive(Clone, Debug)]
pub struct HostServe {
    granted: Arc<Granted>,
}

impl HostServe {
    /// Services over `root`.
    pub fn new(root: Root) -> Self {
        let granted = Granted {
            root,
            access: Access::ReadWrite,
            ownership: Ownership::Own,
            environment: EnvironmentGrant::none(),
            temp_root: std::env::temp_dir(),
            limits: Limits::default(),
        };
        Self {
            granted: Arc::new(granted),
        }
    }

    /// Services over the directory at `path`, which is opened now.
    ///
    /// # Errors
    /// [`RootError`] when it is not a directory that this process can open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RootError> {
        Root::open(path).map(Self::new)
    }

    #[cfg(test)]
    pub(crate) fn granted(&self) -> Arc<Granted> {
        self.granted.clone()
    }

    /// The directory that plugins reach.
    pub fn root(&self) -> &Root {
        &self.granted.root
    }

    /// Whether plugins may only read beneath the directory. Their temporary
    /// directories stay writable.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        let access = if read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        Arc::make_mut(&mut self.granted).access = access;
        self
    }

    /// Which of the host's variables plugins may read.
    #[must_use]
    pub fn environment(mut self, grant: EnvironmentGrant) -> Self {
        Arc::make_mut(&mut self.granted).environment = grant;
        self
    }

    /// Lets plugins read these variables in addition.
    #[must_use]
    pub fn allow_env<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let granted = Arc::make_mut(&mut self.granted);
        granted.environment = std::mem::take(&mut granted.environment).and(names);
        self
    }

    /// Lets plugins read every variable of the host, its secrets included.
    #[must_use]
    pub fn allow_all_env(self) -> Self {
        self.environment(EnvironmentGrant::all())
    }

    /// Lets plugins give files to any owner that the kernel allows, rather than
    /// to the host's own user and group only.
    #[must_use]
    pub fn allow_ownership_changes(mut self) -> Self {
        Arc::make_mut(&mut self.granted).ownership = Ownership::Any;
        self
    }

    /// Where temporary directories are made: the system's place by default. Each
    /// plugin gets one of its own there, with mode 0700, once it asks for one.
    #[must_use]
    pub fn temp_root(mut self, path: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.granted).temp_root = path.into();
        self
    }

    /// What one plugin may make the host hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        Arc::make_mut(&mut self.granted).limits = limits;
        self
    }
}

impl HostServices for HostServe {
    fn bind(&self, identity: &PluginIdentity) -> ServiceSet {
        let session = Session::new(self.granted.clone(), identity.clone());
        let limits = &self.granted.limits;
        let server = HostServiceServer::new(Bound(Arc::new(session)))
            .max_decoding_message_size(limits.message)
            .max_encoding_message_size(limits.message);
        let server = Gated::new(server, limits.calls, limits.call_timeout);
        ServiceSet::new()
            .with(server)
            .describe(HOSTSERVE_DESCRIPTORS)
    }
}
