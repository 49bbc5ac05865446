//! How the example hosts come to the services that they offer: a manifest, as
//! a plugin's folder has one, decided by a policy that trusts it.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use outrigger_manifest::{Manifest, Places, Policy};
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
    // JSON strings are YAML strings.
    let path = serde_json::to_string(dir.to_str().context("the directory's name is not UTF-8")?)?;
    let permissions = match rights {
        Rights::Read => "read, list",
        Rights::Change => "read, write, list, create, delete",
    };
    let manifest = format!(
        "plugin: {{name: guest, format: grpc, entrypoint: guest}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}}\n\
         services: [filesystem, environment, clock, log]\n\
         capabilities:\n  \
         filesystem: [{{path: {path}, permissions: [{permissions}], recursive: true}}]\n  \
         environment: {{read: [{}]}}\n",
        variables.join(", ")
    );
    let manifest = Manifest::parse(&manifest).map_err(|problems| anyhow!("{problems}"))?;
    let places = Places::new(dir.join("plugin"), dir.join("data"))?;
    let decision = Policy::allow_requested().decide(&manifest, &places);
    let services = GrantedServices::new(decision.grants());
    let unusable = services.unusable().next().cloned();
    unusable.map_or(Ok(services), |unusable| Err(unusable.into()))
}
