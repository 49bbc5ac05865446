//! Variables that were granted, and facts about the host.

use std::collections::{BTreeMap, HashMap};

use outrigger_wire::proto::host as messages;

use super::{Host, HostError, call};
use crate::proto::host::environment_client::EnvironmentClient;

/// Variables that were granted, and facts about the host.
#[derive(Clone, Debug)]
pub struct Env(Host);

macro_rules! env {
    ($host:expr, $method:ident, $request:expr) => {
        call!($host, EnvironmentClient, "environment", $method, $request)
    };
}

impl Env {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// The value of a variable; nothing where it is granted and not set.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`].
    pub async fn var(&self, name: impl Into<String>) -> Result<Option<String>, HostError> {
        let reply = env!(self.0, get, messages::GetRequest { name: name.into() })?;
        Ok(reply.set.then_some(reply.value))
    }

    /// All granted variables that are set.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn vars(&self) -> Result<BTreeMap<String, String>, HostError> {
        let variables: HashMap<_, _> =
            env!(self.0, list, messages::ListVariablesRequest {})?.variables;
        Ok(variables.into_iter().collect())
    }

    /// The granted names, set or not.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn names(&self) -> Result<Vec<String>, HostError> {
        Ok(env!(self.0, names, messages::NamesRequest {})?.names)
    }

    /// The user, group and process ids of the host.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn ids(&self) -> Result<messages::IdsResponse, HostError> {
        env!(self.0, ids, messages::IdsRequest {})
    }

    /// The directories of the host's user: names, not grants.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn dirs(&self) -> Result<messages::DirsResponse, HostError> {
        env!(self.0, dirs, messages::DirsRequest {})
    }

    /// What machine the host runs on.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn host_info(&self) -> Result<messages::HostInfoResponse, HostError> {
        env!(self.0, host_info, messages::HostInfoRequest {})
    }
}
