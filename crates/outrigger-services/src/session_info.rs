//! `outrigger.host.v1.Session`: what a plugin may know about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_manifest::{Grants, HostService, NetworkGrant, ProcessControl};
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status};

use crate::descriptors::socket::Descriptors;
use crate::environment;
use crate::fs::call::SessionFiles;
use crate::operation::{Described, Operation, described};
use crate::proto::host::session_server;
use crate::running::Running;
use crate::session::Session;

described! {
    Operation::of_session("describe"), DescribeRequest {}
    Operation::of_session("grants"), GrantsRequest {}
    Operation::of_session("usage"), UsageRequest {}
}

pub(crate) const OPERATIONS: &[Operation] = &[
    DescribeRequest::OPERATION,
    GrantsRequest::OPERATION,
    UsageRequest::OPERATION,
];

pub(crate) struct SessionService {
    files: Arc<SessionFiles>,
    descriptors: Descriptors,
}

impl SessionService {
    pub(crate) fn new(files: Arc<SessionFiles>, descriptors: Descriptors) -> Self {
        Self { files, descriptors }
    }
}

#[tonic::async_trait]
impl session_server::Session for SessionService {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let session = self.files.session();
        let work = async |_: &Running, _| {
            let mut known = describe(session, self.descriptors.offer());
            if session.grants().service(HostService::Filesystem).is_ok() {
                let files = self.files.clone();
                let temp = session.blocking(move || files.temp_dir()).await?;
                known.temp_dir = temp.to_string_lossy().into_owned();
            }
            Ok(known)
        };
        session.call(request, work).await
    }

    async fn grants(
        &self,
        request: Request<GrantsRequest>,
    ) -> Result<Response<GrantsResponse>, Status> {
        let session = self.files.session();
        let work = async |_: &Running, _| Ok(shown(session.grants()));
        session.call(request, work).await
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let session = self.files.session();
        let work = async |_: &Running, _| {
            let usage = session.usage();
            let leases = session.leases().count();
            Ok(UsageResponse {
                leases: u32::try_from(leases).unwrap_or(u32::MAX),
                operations: usage.operations.load(Ordering::Relaxed),
                refused: usage.refused.load(Ordering::Relaxed),
                read_bytes: usage.read.load(Ordering::Relaxed),
                written_bytes: usage.written.load(Ordering::Relaxed),
            })
        };
        session.call(request, work).await
    }
}

fn describe(session: &Session, descriptors: Option<DescriptorOffer>) -> DescribeResponse {
    let services = HostService::ALL
        .iter()
        .filter(|service| session.grants().service(**service).is_ok())
        .map(|service| service.as_str().to_owned())
        .collect();
    let (limits, few) = (session.limits(), |count: usize| {
        u32::try_from(count).unwrap_or(u32::MAX)
    });
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
