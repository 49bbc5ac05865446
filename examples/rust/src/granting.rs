//! How the example hosts come to the services that they offer: a manifest, as
//! a plugin's folder has one, decided by a policy that trusts it.

use std::path::Path;

use anyhow::Result;
use outrigger_manifest::{Files, HostService, Manifest, Permissions, Places, Policy, Transport};
use outrigger_services::GrantedServices;

/// What plugins may do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Look at it.
    Read,
    /// Change it too.
    Change,
}

/// Services for a plugin that asks for the directory `dir` and for `variables`
/// of the host, and gets what it asks for.
///
/// # Errors
/// `dir` is no directory that can be opened, or has no name that is text.
pub fn services(dir: &Path, rights: Rights, variables: &[&str]) -> Result<GrantedServices> {
    let dir = std::path::absolute(dir)?;
    let permissions = match rights {
        Rights::Read => Permissions::READ | Permissions::LIST,
        Rights::Change => Permissions::ALL,
    };
    let wanted = [
        HostService::Filesystem,
        HostService::Environment,
        HostService::Clock,
        HostService::Log,
    ];
    let manifest = Manifest::builder("guest", Transport::Grpc, "guest")
        .handshake(1, "TEST_KEY", "TEST_VALUE")
        .files(Files::new(&dir, permissions).recursive(true))
        .services(wanted);
    let manifest = variables
        .iter()
        .fold(manifest, |manifest, name| manifest.read_variable(*name));
    let manifest = manifest.build()?;
    let places = Places::new(dir.join("plugin"), dir.join("data"))?;
    let decision = Policy::allow_requested().decide(&manifest, &places);
    let services = GrantedServices::new(decision.grants());
    let unusable = services.unusable().next().cloned();
    unusable.map_or(Ok(services), |unusable| Err(unusable.into()))
}
