//! `outrigger.host.v1.Session`: what a plugin may know about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_manifest::HostService;
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status};

use crate::descriptors::Descriptors;
use crate::proto::host::session_server;
use crate::session::{Operation, Session};

const DESCRIBE: Operation = Operation::of_session("describe");
const GRANTS: Operation = Operation::of_session("grants");
const USAGE: Operation = Operation::of_session("usage");

pub(crate) struct SessionService {
    session: Arc<Session>,
    descriptors: Descriptors,
}

impl SessionService {
    pub(crate) fn new(session: Arc<Session>, descriptors: Descriptors) -> Self {
        Self {
            session,
            descriptors,
        }
    }
}

#[tonic::async_trait]
impl session_server::Session for SessionService {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let work = async |_: &_| {
            let mut known = describe(&self.session, self.descriptors.offer());
            if self
                .session
                .grants()
                .service(HostService::Filesystem)
                .is_ok()
            {
                let temp = self.session.blocking(|session| session.temp_dir()).await?;
                known.temp_dir = temp.to_string_lossy().into_owned();
            }
            Ok(known)
        };
        self.session
            .call(DESCRIBE, request.metadata(), |_| {}, work)
            .await
    }

    async fn grants(
        &self,
        request: Request<GrantsRequest>,
    ) -> Result<Response<GrantsResponse>, Status> {
        let work = async |_: &_| Ok(crate::grants::shown(self.session.grants()));
        self.session
            .call(GRANTS, request.metadata(), |_| {}, work)
            .await
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let work = async |_: &_| {
            let usage = self.session.usage();
            let leases = self.session.leases().count();
            Ok(UsageResponse {
                leases: u32::try_from(leases).unwrap_or(u32::MAX),
                operations: usage.operations.load(Ordering::Relaxed),
                refused: usage.refused.load(Ordering::Relaxed),
                read_bytes: usage.read.load(Ordering::Relaxed),
                written_bytes: usage.written.load(Ordering::Relaxed),
            })
        };
        self.session
            .call(USAGE, request.metadata(), |_| {}, work)
            .await
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
