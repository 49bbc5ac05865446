//! The first step: everything that the plugin's process needs is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use outrigger_transport::{AutoMtls, BoundListener, SocketError};
use outrigger_wire::{
    Address, BrokerId, ENV_HOST_SERVICES, ENV_PLUGIN_CONFIG, ENV_SERVICES, HostEnvironment,
    Network, SCRUBBED, services_value,
};

use super::builder::{Launch, TlsChoice};
use super::config::ConfigFile;
use crate::aside::Aside;
use crate::diagnose::{diagnose, diagnose_not_found};
use crate::error::{LaunchError, LaunchErrorKind};
use crate::runner::{Command, RunnerError};
use crate::workspace::Places;

/// Where a plugin finds the host's services: far from the numbers that brokers count.
pub(super) const HOST_SERVICES: BrokerId = BrokerId(1 << 31);

/// A launch whose program is found, with its certificate, its directory and its
/// environment.
pub(super) struct Prepared {
    pub(super) launch: Launch,
    pub(super) name: String,
    pub(super) began: Instant,
    pub(super) certificate: Option<AutoMtls>,
    pub(super) places: Aside<Places>,
    pub(super) command: Command,
    /// Where services will be served that have names, each with its name: a plugin
    /// may connect from its first moment on.
    pub(super) sockets: Vec<(String, BoundListener)>,
    /// The plugin's own configuration, where it is handed one.
    pub(super) config: Option<ConfigFile>,
}

impl Prepared {
    pub(super) async fn new(launch: Launch) -> Result<Self, LaunchError> {
        let began = Instant::now();
        let name = launch.name();
        let fail = |kind| LaunchError::new(&name, kind);
        // Once, so that what is checked, started and explained is one file.
        let program = launch.runner.locate(&launch.program);
        let program = program.map_err(|error| not_started(&name, error, &launch.program))?;
        let certificate = match launch.tls {
            TlsChoice::Auto => {
                let made = AutoMtls::generate();
                Some(made.map_err(|error| fail(LaunchErrorKind::Certificate(error)))?)
            }
            TlsChoice::None | TlsChoice::Static(_) => None,
        };
        let places = launch.settings.places();
        let places = places.map_err(|error| fail(LaunchErrorKind::Workspace(error)))?;
        let mut command = command(&launch, program, places.dir(), certificate.as_ref());
        let sockets = named_sockets(&launch, &name, places.dir()).await;
        let sockets = sockets
            .map_err(|error| fail(LaunchErrorKind::Workspace(std::io::Error::other(error))))?;
        if !sockets.is_empty() {
            let value = services_value(sockets.iter().map(|socket| {
                let (name, _, address) = socket;
                (name.as_str(), address.text.as_str())
            }));
            command
                .environment
                .push((ENV_SERVICES.into(), value.into()));
        }
        let sockets = sockets.into_iter().map(|(name, socket, _)| (name, socket));
        let config = config_file(&launch, &name, places.dir()).await;
        let config = config.map_err(|error| fail(LaunchErrorKind::Workspace(error)))?;
        let config = config.map(|(config, path)| {
            let variable = (ENV_PLUGIN_CONFIG.into(), path.into());
            command.environment.push(variable);
            config
        });
        Ok(Self {
            launch,
            name,
            began,
            certificate,
            places: Aside::new(places),
            command,
            sockets: sockets.collect(),
            config,
        })
    }
}

/// The file with the plugin's own configuration, and its path as the plugin opens it.
async fn config_file(
    launch: &Launch,
    plugin: &str,
    dir: &Path,
) -> std::io::Result<Option<(ConfigFile, String)>> {
    let Some(read) = launch.config.clone() else {
        return Ok(None);
    };
    let sockets = launch.settings.sockets(Network::Unix, Some(dir));
    let group = sockets.group_id().map_err(std::io::Error::other)?;
    let Some(config) = ConfigFile::write(dir.to_owned(), group, read).await? else {
        return Ok(None);
    };
    let here = Address::unix(config.path());
    let there = here.map(|here| launch.translator().host_to_plugin(here));
    match there {
        Some(Ok(there)) if there.network == Network::Unix => Ok(Some((config, there.text))),
        _ => {
            tracing::warn!(
                plugin,
                "the plugin does not reach files of this host: it is handed no configuration"
            );
            Ok(None)
        }
    }
}

/// A socket for each service that has a name, with its address as the plugin dials it.
/// Those that it cannot reach are left out.
async fn named_sockets(
    launch: &Launch,
    plugin: &str,
    dir: &Path,
) -> Result<Vec<(String, BoundListener, Address)>, SocketError> {
    let names = launch.services.as_ref().map(|services| services.names());
    let (sockets, translator) = (
        launch.settings.sockets(Network::Unix, Some(dir)),
        launch.translator(),
    );
    let mut named = Vec::new();
    for name in names.unwrap_or_default() {
        let socket = sockets.bind().await?;
        match translator.host_to_plugin(socket.address().clone()) {
            Ok(address) if address.network == Network::Unix => named.push((name, socket, address)),
            Ok(_) | Err(_) => tracing::warn!(
                plugin,
                service = name,
                "the plugin does not reach sockets of this host: the service is not offered"
            ),
        }
    }
    Ok(named)
}

/// Why `program` could not be started, with what a look at it shows.
pub(super) fn not_started(name: &str, error: RunnerError, program: &Path) -> LaunchError {
    let diagnosis = match &error {
        RunnerError::NotFound(error) => diagnose_not_found(error),
        _ => diagnose(program),
    };
    let mut error = LaunchError::new(name, LaunchErrorKind::Start(error));
    error.facts.diagnosis = Some(diagnosis);
    error
}

/// The environment is in go-plugin's order: the last of equal names wins.
fn command(launch: &Launch, program: PathBuf, dir: &Path, own: Option<&AutoMtls>) -> Command {
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    environment.extend(launch.environment.iter().cloned());
    if !launch.skip_host_env {
        let scrubbed = |key: &OsString| SCRUBBED.iter().any(|name| key == *name);
        environment.extend(std::env::vars_os().filter(|(key, _)| !scrubbed(key)));
    }
    // This process may be a plugin itself, with services of its own host.
    for name in [ENV_HOST_SERVICES, ENV_SERVICES, ENV_PLUGIN_CONFIG] {
        environment.remove(OsStr::new(name));
    }
    if launch.services.is_some() {
        environment.insert(ENV_HOST_SERVICES.into(), HOST_SERVICES.0.to_string().into());
    }
    let versions: BTreeSet<_> = launch.settings.versions.keys().copied().collect();
    let dir_text = dir.to_string_lossy();
    let library = HostEnvironment {
        cookie: launch.cookie.as_ref(),
        ports: launch.ports,
        versions: &versions,
        mux: launch.mux,
        client_certificate_pem: own.map(AutoMtls::pem),
        socket_group: launch.settings.group.as_deref(),
        socket_dir: Some(&dir_text),
    };
    let variables = library.variables().into_iter();
    environment.extend(variables.map(|(key, value)| (key.into(), value.into())));
    Command {
        program,
        arguments: launch.arguments.clone(),
        environment: environment.into_iter().collect(),
        directory: launch.directory.clone(),
        socket_dir: dir.to_owned(),
        digest: launch.digest.clone(),
    }
}
