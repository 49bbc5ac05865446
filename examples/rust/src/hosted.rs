//! How the example plugins reach the services that their host offers.

use std::error::Error;

use outrigger_plugin::{BrokerError, HostServe, PluginContext};
use tokio::sync::Mutex;
use tonic::Status;

/// The host's services as one plugin sees them: a broker id that the host
/// sends, then the connection that was made with it.
#[derive(Debug)]
pub struct HostLink {
    context: PluginContext,
    established: Mutex<Option<(u32, HostServe)>>,
}

impl HostLink {
    /// No connection yet.
    pub fn new(context: &PluginContext) -> Self {
        Self {
            context: context.clone(),
            established: Mutex::default(),
        }
    }

    /// Connects to what the host serves on `id`; calls that follow use it. The
    /// same id again is the same connection, because an id is dialled once.
    ///
    /// # Errors
    /// The host does not serve `id`, or cannot be reached.
    ///
    /// # Cancel safety
    /// The previous connection stays when the future is dropped.
    pub async fn establish(&self, id: u32) -> Result<HostServe, BrokerError> {
        let mut established = self.established.lock().await;
        if let Some((known, services)) = &*established
            && *known == id
        {
            return Ok(services.clone());
        }
        let services = self.context.host_serve(id).await?;
        tracing::debug!(
            id,
            client = services.client_id(),
            "host services established"
        );
        *established = Some((id, services.clone()));
        Ok(services)
    }

    /// The services for one call, which may bring an id of its own; 0 is none.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the host has offered nothing, `UNAVAILABLE`
    /// when it cannot be reached.
    pub async fn services(&self, id: u32) -> Result<HostServe, Status> {
        if id != 0 {
            let services = self.establish(id).await;
            return services.map_err(|error| Status::unavailable(chain(&error)));
        }
        let established = self.established.lock().await;
        let services = established.as_ref().map(|(_, services)| services.clone());
        services.ok_or_else(|| Status::failed_precondition("EstablishHostServices was not called"))
    }

    /// The answer to `EstablishHostServices`: a client id, or what went wrong.
    pub async fn answer(&self, id: u32) -> (String, Option<String>) {
        match self.establish(id).await {
            Ok(services) => (services.client_id().to_owned(), None),
            Err(error) => (String::new(), Some(chain(&error))),
        }
    }
}

/// An error and what is behind it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
