//! The broker of a client that goes on over restarts and reloads.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use outrigger_host::{Broker, BrokerError, BrokerId, RunningPlugin, Stream};
use outrigger_transport::{Fate, Listener, netrpc};
use tokio::sync::watch;

/// The broker of the plugin's process that serves now, or served last. A broker id
/// means something to the process alone that it was made for.
#[derive(Debug)]
pub(super) struct CurrentBroker {
    serving: watch::Receiver<Option<Arc<RunningPlugin>>>,
    last: Mutex<Arc<dyn Broker>>,
}

impl CurrentBroker {
    pub(super) fn new(
        serving: watch::Receiver<Option<Arc<RunningPlugin>>>,
        now: &RunningPlugin,
    ) -> Self {
        Self {
            serving,
            last: Mutex::new(now.broker()),
        }
    }

    fn now(&self) -> Arc<dyn Broker> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = &*self.serving.borrow() {
            *last = plugin.broker();
        }
        last.clone()
    }
}

#[async_trait]
impl Broker for CurrentBroker {
    fn next_id(&self) -> BrokerId {
        self.now().next_id()
    }

    async fn accept(&self, id: BrokerId) -> Result<Listener, BrokerError> {
        self.now().accept(id).await
    }

    async fn dial(&self, id: BrokerId) -> Result<Stream, BrokerError> {
        self.now().dial(id).await
    }

    fn fate(&self) -> Fate {
        self.now().fate()
    }

    fn is_missing(&self) -> bool {
        self.now().is_missing()
    }

    fn budget(&self) -> netrpc::Budget {
        self.now().budget()
    }

    fn close(&self) {
        self.now().close();
    }
}
