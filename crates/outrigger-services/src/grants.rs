//! What this crate asks of `outrigger-manifest` beyond its verdicts: how grants
//! look to the plugin, and the limits that they set.

use outrigger_manifest::{Grants, NetworkGrant, ProcessControl};
use outrigger_wire::proto::host;

use crate::limits::Limits;

/// `limits`, none of them wider than what was granted of resources.
pub(crate) fn limits(grants: &Grants, mut limits: Limits) -> Limits {
    let resources = grants.resources();
    if let Some(message) = resources.message_size {
        let message = usize::try_from(message.bytes()).unwrap_or(usize::MAX);
        limits.message = limits.message.min(message);
    }
    if let Some(streams) = resources.streams {
        limits.calls = limits.calls.min(streams as usize);
    }
    if let Some(files) = resources.open_files {
        limits.leases = limits.leases.min(files as usize);
    }
    limits.whole_file = limits.whole_file.min(limits.payload());
    limits
}

/// The grants as a plugin may see them.
pub(crate) fn shown(grants: &Grants) -> host::GrantsResponse {
    let text = |shown: &dyn std::fmt::Display| shown.to_string();
    let ports = |grant: &NetworkGrant| -> Vec<String> {
        let ranges = grant.ports().ranges().map(|(low, high)| match low == high {
            true => low.to_string(),
            false => format!("{low}-{high}"),
        });
        ranges.collect()
    };
    let egress = |grant: &NetworkGrant| host::EgressGrant {
        protocol: text(&grant.protocol()),
        hosts: vec![text(grant.host())],
        ports: ports(grant),
    };
    let ingress = |grant: &NetworkGrant| host::IngressGrant {
        protocol: text(&grant.protocol()),
        ports: ports(grant),
        allowed_origins: vec![text(grant.host())],
    };
    let filesystem = grants
        .filesystem()
        .iter()
        .map(|grant| host::FilesystemGrant {
            path: grant.path().to_string_lossy().into_owned(),
            permissions: grant.permissions().words().map(str::to_owned).collect(),
            recursive: grant.recursive(),
        });
    let exec = grants
        .process()
        .exec_grants()
        .iter()
        .map(|grant| host::ExecGrant {
            command: grant.command().to_string_lossy().into_owned(),
            args: grant.args().entries().map(str::to_owned).collect(),
        });
    let children = ProcessControl::ALL
        .iter()
        .filter(|control| grants.process().control(**control).is_ok());
    let variables = crate::environment::names(grants).into_iter();
    host::GrantsResponse {
        filesystem: filesystem.collect(),
        environment: variables.map(str::to_owned).collect(),
        egress: grants
            .network()
            .egress_grants()
            .iter()
            .map(egress)
            .collect(),
        ingress: grants
            .network()
            .ingress_grants()
            .iter()
            .map(ingress)
            .collect(),
        exec: exec.collect(),
        children: children.map(|control| text(control)).collect(),
    }
}
