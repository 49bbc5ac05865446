//! What this crate asks of `outrigger-manifest` beyond its verdicts: one place
//! to change when it does.

use outrigger_manifest::Grants;
use outrigger_wire::proto::host;

/// The grants as a plugin may see them.
pub(crate) fn shown(grants: &Grants) -> host::GrantsResponse {
    host::GrantsResponse {
        filesystem: grants
            .filesystem()
            .iter()
            .map(|grant| host::FilesystemGrant {
                path: grant.path.to_string_lossy().into_owned(),
                permissions: grant.permissions.words().map(str::to_owned).collect(),
                recursive: grant.recursive,
            })
            .collect(),
        environment: grants.environment().names().map(str::to_owned).collect(),
        ..host::GrantsResponse::default()
    }
}
