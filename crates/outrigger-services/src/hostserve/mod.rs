//! `hostserve.v1` over the same grants and operations: its own way to name
//! files, and its errors inside replies.

mod describe;
mod files;
mod host;
mod rpc;
mod streams;
mod variables;

use std::sync::Arc;

use outrigger_manifest::HostService;
use tonic::{Request, Response, Status};

use crate::argument::Argument;
use crate::fault::{Fault, Told};
use crate::session::{Operation, Session};
use crate::text::Quoted;
use crate::work::{self, Work};
use describe::{Describe, Reply};

/// The service of one connection.
#[derive(Clone)]
pub(crate) struct HostServe(Arc<Session>);

impl HostServe {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }

    async fn call<Q, R>(
        &self,
        service: HostService,
        name: &'static str,
        request: Request<Q>,
        work: Work<Q, R>,
    ) -> Result<Response<R>, Status>
    where
        Q: Describe + Send + Sync + 'static,
        R: Reply + Send + 'static,
    {
        let (metadata, _, message) = request.into_parts();
        let operation = match service {
            HostService::Environment => Operation::of_service(service, name),
            _ => Operation::new(service, name),
        };
        // The work takes the message with it.
        let subject = message.subject().to_owned();
        let shown = |message: &Q, shown: &mut Argument| message.arguments(shown);
        let reply = work::unary(&self.0, operation, &metadata, message, shown, work).await;
        match reply {
            Ok(reply) => Ok(Response::new(reply)),
            Err(fault) => failed(name, &subject, &fault).map(Response::new),
        }
    }
}

/// How `fault` reaches the plugin: in the reply, or as the call's status.
fn failed<R: Reply>(operation: &str, subject: &str, fault: &Fault) -> Result<R, Status> {
    match fault.told() {
        Told::Status(status) => Err(status),
        Told::InBand(text) if subject.is_empty() => Ok(R::failed(format!("{operation}: {text}"))),
        Told::InBand(text) => Ok(R::failed(format!(
            "{operation} {}: {text}",
            Quoted(subject)
        ))),
    }
}
