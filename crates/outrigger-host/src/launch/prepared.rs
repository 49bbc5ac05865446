//! The first step: everything that the plugin's process needs is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use outrigger_transport::AutoMtls;
use outrigger_wire::{BrokerId, ENV_HOST_SERVICES, HostEnvironment, SCRUBBED};

use super::builder::{Launch, TlsChoice};
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
}

impl Prepared {
    pub(super) fn new(launch: Launch) -> Result<Self, LaunchError> {
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
        let command = command(&launch, program, places.dir(), certificate.as_ref());
        Ok(Self {
            launch,
            name,
            began,
            certificate,
            places: Aside::new(places),
            command,
        })
    }
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
    environment.remove(OsStr::new(ENV_HOST_SERVICES));
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
