//! How calls to the host are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_transport::MAX_MESSAGE;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use uuid::Uuid;

/// Tells the host's records which calls belong together: a label for the
/// connection and a number for each call. The host takes nothing from it.
#[derive(Clone, Debug)]
pub struct Labels {
    client: MetadataValue<Ascii>,
    next: Arc<AtomicU64>,
}

impl Labels {
    pub(super) fn new() -> Self {
        let text = Uuid::now_v7().to_string();
        let client = MetadataValue::try_from(text);
        Self {
            client: client.unwrap_or_else(|_| MetadataValue::from_static("unlabelled")),
            next: Arc::default(),
        }
    }
}

impl Interceptor for Labels {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let metadata = request.metadata_mut();
        metadata.insert("client", self.client.clone());
        metadata.insert("request", MetadataValue::from(number));
        Ok(request)
    }
}

pub(super) const LARGEST: usize = MAX_MESSAGE;

/// One call: `call!(host, FilesystemClient, "filesystem", stat, request)`.
macro_rules! call {
    ($host:expr, $client:ident, $service:literal, $method:ident, $request:expr) => {{
        let mut client = $client::new($host.service())
            .max_decoding_message_size($crate::host::calls::LARGEST)
            .max_encoding_message_size($crate::host::calls::LARGEST);
        client
            .$method($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| {
                let operation = concat!($service, ".", stringify!($method));
                $crate::host::HostError::status(operation, status)
            })
    }};
}
pub(super) use call;
