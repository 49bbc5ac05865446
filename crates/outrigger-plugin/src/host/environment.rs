//! Variables that were granted, and facts about the host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{Host, HostError};

/// Variables that were granted, and facts about the host.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// let language = host.env().var("LANG").await?;
/// println!("{language:?} on {}", host.env().host_info().await?.os);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Env(pub(super) Host);

impl Env {
    /// The value of a variable; nothing where it is granted and not set.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`].
    pub async fn var(&self, name: impl Into<String>) -> Result<Option<String>, HostError> {
        let request = messages::GetRequest { name: name.into() };
        let reply = call!(self.0, environment.get, request)?;
        Ok(reply.set.then_some(reply.value))
    }

    /// All granted variables that are set.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn vars(&self) -> Result<BTreeMap<String, String>, HostError> {
        let reply = call!(self.0, environment.list, messages::ListVariablesRequest {})?;
        Ok(reply.variables.into_iter().collect())
    }

    /// The granted names, set or not.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn names(&self) -> Result<Vec<String>, HostError> {
        Ok(call!(self.0, environment.names, messages::NamesRequest {})?.names)
    }

    /// The user, group and process ids of the host.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn ids(&self) -> Result<Ids, HostError> {
        let ids = call!(self.0, environment.ids, messages::IdsRequest {})?;
        Ok(Ids {
            uid: ids.uid,
            gid: ids.gid,
            effective_uid: ids.effective_uid,
            effective_gid: ids.effective_gid,
            groups: ids.groups,
            pid: ids.pid,
            parent_pid: ids.parent_pid,
        })
    }

    /// The directories of the host's user. To know one is not to be granted it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn dirs(&self) -> Result<Dirs, HostError> {
        let dirs = call!(self.0, environment.dirs, messages::DirsRequest {})?;
        let known = |path: String| (!path.is_empty()).then(|| PathBuf::from(path));
        Ok(Dirs {
            temp: dirs.temp.into(),
            home: known(dirs.home),
            cache: known(dirs.cache),
            config: known(dirs.config),
        })
    }

    /// What machine the host runs on.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn host_info(&self) -> Result<HostInfo, HostError> {
        let info = call!(self.0, environment.host_info, messages::HostInfoRequest {})?;
        Ok(HostInfo {
            os: info.os,
            architecture: info.architecture,
            cpus: info.cpus,
            version: info.version,
        })
    }
}

/// Ids of the host's process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ids {
    /// Its real user.
    pub uid: u32,
    /// Its real group.
    pub gid: u32,
    /// The user whose rights it has.
    pub effective_uid: u32,
    /// The group whose rights it has.
    pub effective_gid: u32,
    /// Its further groups.
    pub groups: Vec<u32>,
    /// The process.
    pub pid: i32,
    /// The process that started it.
    pub parent_pid: i32,
}

/// Directories of the host's user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dirs {
    /// For temporary files.
    pub temp: PathBuf,
    /// The home directory, where the user has one.
    pub home: Option<PathBuf>,
    /// For what can be made again.
    pub cache: Option<PathBuf>,
    /// For settings.
    pub config: Option<PathBuf>,
}

/// The machine that a host runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostInfo {
    /// As Rust names it: `linux`.
    pub os: String,
    /// As Rust names it: `x86_64`.
    pub architecture: String,
    /// How many processors there are.
    pub cpus: u32,
    /// The version of Outrigger that the host uses.
    pub version: String,
}
