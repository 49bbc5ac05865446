//! `outrigger.host.v1.Session`: what a plugin may know about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_manifest::{Grants, HostService, NetworkGrant, ProcessControl};
use outrigger_wire::proto::host::*;

use crate::descriptors::socket::Descriptors;
use crate::environment;
use crate::fs::call::SessionFiles;
use crate::operation::Operation;
use crate::proto::host::session_server;
use crate::running::calls;
use crate::session::Session;

const fn operation(name: &'static str) -> Operation {
    Operation::of_session(name)
}

pub(crate) struct SessionService {
    files: Arc<SessionFiles>,
    descriptors: Descriptors,
}

impl SessionService {
    pub(crate) fn new(files: Arc<SessionFiles>, descriptors: Descriptors) -> Self {
        Self { files, descriptors }
    }

    fn session(&self) -> &Arc<Session> {
        self.files.session()
    }
}

calls! {
    SessionService as session_server::Session;
    /// What the service can be asked for.
    pub(crate) const OPERATIONS;
    describe: DescribeRequest {} -> DescribeResponse = |service, _, _| {
        let session = service.session();
        let mut known = describe(session, service.descriptors.offer());
        if session.grants().service(HostService::Filesystem).is_ok() {
            let files = service.files.clone();
            let temp = session.blocking(move || files.temp_dir()).await?;
            known.temp_dir = temp.to_string_lossy().into_owned();
        }
        Ok(known)
    };
    grants: GrantsRequest {} -> GrantsResponse = |service, _, _| {
        Ok(shown(service.session().grants()))
    };
    usage: UsageRequest {} -> UsageResponse = |service, _, _| {
        let usage = service.session().usage();
        Ok(UsageResponse {
            leases: few(service.session().leases().count()),
            operations: usage.operations.load(Ordering::Relaxed),
            refused: usage.refused.load(Ordering::Relaxed),
            read_bytes: usage.read.load(Ordering::Relaxed),
            written_bytes: usage.written.load(Ordering::Relaxed),
        })
    };
}

fn few(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn describe(session: &Session, descriptors: Option<DescriptorOffer>) -> DescribeResponse {
    let services = HostService::ALL
        .iter()
        .filter(|service| session.grants().service(**service).is_ok())
        .map(|service| service.as_str().to_owned())
        .collect();
    let limits = session.limits();
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let limits = Limits {
        message_bytes: limits.message as u64,
        chunk_bytes: limits.chunk as u64,
        leases: few(limits.leases),
        lease_idle_ms: millis(limits.lease_idle),
        calls: few(limits.calls),
        call_timeout_ms: millis(limits.call_timeout),
        operations_per_second: limits.operations_per_second,
        bytes_per_second: limits.bytes_per_second,
        written_bytes: limits.written_bytes,
    };
    DescribeResponse {
        plugin: session.identity().name().to_owned(),
        instance: session.identity().instance().to_owned(),
        services,
        limits: Some(limits),
        descriptors,
        temp_dir: String::new(),
    }
}

/// The grants as a plugin may see them.
fn shown(grants: &Grants) -> GrantsResponse {
    let text = |shown: &dyn std::fmt::Display| shown.to_string();
    let ports = |grant: &NetworkGrant| -> Vec<String> {
        let ranges = grant.ports().ranges().map(|(low, high)| match low == high {
            true => low.to_string(),
            false => format!("{low}-{high}"),
        });
        ranges.collect()
    };
    let egress = |grant: &NetworkGrant| EgressGrant {
        protocol: text(&grant.protocol()),
        hosts: vec![text(grant.host())],
        ports: ports(grant),
    };
    let ingress = |grant: &NetworkGrant| IngressGrant {
        protocol: text(&grant.protocol()),
        ports: ports(grant),
        allowed_origins: vec![text(grant.host())],
    };
    let filesystem = grants.filesystem().iter().map(|grant| FilesystemGrant {
        path: grant.path().to_string_lossy().into_owned(),
        permissions: grant.permissions().words().map(str::to_owned).collect(),
        recursive: grant.recursive(),
    });
    let exec = grants
        .process()
        .exec_grants()
        .iter()
        .map(|grant| ExecGrant {
            command: grant.command().to_string_lossy().into_owned(),
            args: grant.args().entries().map(str::to_owned).collect(),
        });
    let children = ProcessControl::ALL
        .iter()
        .filter(|control| grants.process().control(**control).is_ok());
    let variables = environment::names(grants).into_iter();
    GrantsResponse {
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
