//! What tells a host's records which calls belong together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use uuid::Uuid;

type Label = MetadataValue<Ascii>;

/// Marks every call with a label for the connection (`client`) and one for the
/// call (`request`). They are for the host's records only: a host knows its
/// plugin by the connection and believes no label.
#[derive(Clone, Debug)]
pub struct Labels {
    client: Label,
    calls: Calls,
}

/// How the calls of a connection are told apart.
#[derive(Clone, Debug)]
enum Calls {
    Numbered(Arc<AtomicU64>),
    /// By UUIDs, as the contract of `hostserve.v1` has it.
    Unique,
}

impl Labels {
    pub(crate) fn numbered() -> Self {
        Self {
            client: unique(),
            calls: Calls::Numbered(Arc::default()),
        }
    }

    pub(crate) fn unique() -> Self {
        Self {
            client: unique(),
            calls: Calls::Unique,
        }
    }

    /// The label of the connection.
    pub(crate) fn client(&self) -> &str {
        self.client.to_str().unwrap_or_default()
    }
}

impl Interceptor for Labels {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let call = match &self.calls {
            Calls::Numbered(next) => next.fetch_add(1, Ordering::Relaxed).into(),
            Calls::Unique => unique(),
        };
        let metadata = request.metadata_mut();
        metadata.insert("client", self.client.clone());
        metadata.insert("request", call);
        Ok(request)
    }
}

fn unique() -> Label {
    let text = Uuid::now_v7().to_string();
    Label::try_from(text).unwrap_or_else(|_| Label::from_static("unlabelled"))
}
