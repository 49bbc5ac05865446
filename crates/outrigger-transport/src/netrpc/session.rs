//! go-plugin's main connection over net/rpc: one yamux session, whose first
//! three streams are control calls, stdout and stderr.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BROKER_WAIT, Budget, CallErrorKind, Client, Connected, Method, Methods, MuxBroker,
    SessionError, serve, serve_within,
};
use crate::broker::{Broker, Side};
use crate::fate::Fate;
use crate::server::ServeLimits;
use crate::stream::Stream;
use crate::yamux::{self, CloseReason, YamuxError};

/// Byte streams for what the plugin prints: a host reads them, a plugin writes.
#[allow(missing_debug_implementations)]
pub struct MirroredStreams {
    /// What it prints to stdout.
    pub stdout: Stream,
    /// What it prints to stderr.
    pub stderr: Stream,
}

/// The host's end of the main connection to a net/rpc plugin.
#[derive(Clone, Debug)]
pub struct HostSession {
    session: yamux::Session,
    control: Client,
    broker: Arc<MuxBroker>,
}

impl HostSession {
    /// Starts the session on a connection that has its TLS. The plugin is not
    /// waited for. `wait` is how long broker ids wait, 5 s in go-plugin; `budget`
    /// is what values may take.
    ///
    /// # Errors
    /// The connection ended at once.
    ///
    /// # Cancel safety
    /// When the future is dropped, the connection is closed.
    pub async fn start(
        stream: Stream,
        fate: Fate,
        budget: Budget,
        wait: Duration,
    ) -> Result<(Self, MirroredStreams), YamuxError> {
        let config = yamux::Config::default();
        let session = yamux::Session::new(stream, yamux::Role::Client, config);
        // A plugin serves nothing before it has seen all three.
        let control = session.open().await?;
        let stdout = Box::new(session.open().await?);
        let stderr = Box::new(session.open().await?);
        // Only a plugin whose session is over may be about to be found dead.
        let fate = fate.expected_if(session.watch());
        let max_value = budget.max_value();
        let broker = MuxBroker::new(Side::Host, session.clone(), fate.clone(), budget, wait);
        let host = Self {
            session,
            control: Connected::new(Box::new(control), fate, max_value).into(),
            broker: Arc::new(broker),
        };
        Ok((host, MirroredStreams { stdout, stderr }))
    }

    /// Asks the plugin for the object called `name`, which it has `limit` to
    /// make, and connects to it. Each object is a new one.
    ///
    /// # Errors
    /// The plugin has no such name, does not answer, or its object cannot be reached.
    ///
    /// # Cancel safety
    /// When the future is dropped the plugin forgets the object after 5 s.
    pub async fn dispense(&self, name: &str, limit: Duration) -> Result<Client, SessionError> {
        Ok(self.object(name, limit).await?.into())
    }

    /// [`dispense`](Self::dispense) of one object for certain.
    pub(crate) async fn object(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Connected, SessionError> {
        let asked = self.control.call_within(limit, "Dispenser.Dispense", name);
        let id: u32 = asked.await?;
        let broker: &dyn Broker = &*self.broker;
        Ok(broker.connect_object(outrigger_wire::BrokerId(id)).await?)
    }

    /// Asks the plugin whether it is well.
    ///
    /// # Errors
    /// It does not answer within `limit`, or answers with an error.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ping(&self, limit: Duration) -> Result<(), SessionError> {
        let () = self
            .control
            .call_within(limit, "Control.Ping", &true)
            .await?;
        Ok(())
    }

    /// Asks the plugin to end. A plugin that ends before its reply leaves has
    /// done what it was asked.
    ///
    /// # Errors
    /// It answers with an error.
    ///
    /// # Cancel safety
    /// The plugin may end although the future is dropped.
    pub async fn quit(&self) -> Result<(), SessionError> {
        match self.control.call("Control.Quit", &true).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), CallErrorKind::Lost(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens further connections.
    pub fn broker(&self) -> Arc<MuxBroker> {
        self.broker.clone()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.broker.close();
        self.session.close();
    }

    /// Waits until the connection is over, and returns why.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) -> CloseReason {
        self.session.closed().await
    }
}

/// Makes the object behind a name, or says why there is none.
type Dispenser = Arc<dyn Fn(&str) -> Result<Methods, String> + Send + Sync>;

/// The plugin's end of the main connection.
pub struct PluginSession {
    session: yamux::Session,
    control: Stream,
    broker: Arc<MuxBroker>,
}

impl fmt::Debug for PluginSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginSession")
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

impl PluginSession {
    /// Waits for the host's three streams on a connection that has its TLS.
    ///
    /// # Errors
    /// They do not come within [`ServeLimits::handshake`], or the connection ends.
    ///
    /// # Cancel safety
    /// When the future is dropped, the connection is closed.
    pub async fn accept(
        stream: Stream,
        limits: ServeLimits,
    ) -> Result<(Self, MirroredStreams), SessionError> {
        let config = yamux::Config::default();
        let session = yamux::Session::new(stream, yamux::Role::Server, config);
        let streams = async {
            let control = session.accept().await?;
            let stdout = session.accept().await?;
            let stderr = session.accept().await?;
            Ok::<_, SessionError>((control, stdout, stderr))
        };
        let (control, stdout, stderr) = tokio::time::timeout(limits.handshake, streams)
            .await
            .unwrap_or(Err(SessionError::TimedOut(limits.handshake)))?;
        // Nobody tells a plugin why its host is gone.
        let fate = Fate::new().expected_if(|| false);
        let budget = Budget::new(limits.max_value);
        let broker = MuxBroker::new(Side::Plugin, session.clone(), fate, budget, BROKER_WAIT);
        let plugin = Self {
            session,
            control: Box::new(control),
            broker: Arc::new(broker),
        };
        let output = MirroredStreams {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        };
        Ok((plugin, output))
    }

    /// Opens further connections.
    pub fn broker(&self) -> Arc<MuxBroker> {
        self.broker.clone()
    }

    /// Answers the host until it closes the connection, or until `stop` fires,
    /// which the host's `Quit` does once its reply is on the way. `last` is
    /// awaited for a short time before the connection is closed.
    ///
    /// # Cancel safety
    /// When the future is dropped, everything that runs for this host ends.
    pub async fn serve(
        self,
        dispense: impl Fn(&str) -> Result<Methods, String> + Send + Sync + 'static,
        limits: ServeLimits,
        stop: CancellationToken,
        last: impl Future<Output = ()> + Send,
    ) {
        let objects = Objects {
            broker: self.broker.clone(),
            limits,
            stop: stop.clone(),
            running: Arc::default(),
        };
        let quitting = CancellationToken::new();
        let methods = control(objects.clone(), Arc::new(dispense), quitting.clone());
        let answered = CancellationToken::new();
        let serving = serve(self.control, methods, limits, answered.clone());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = stop.cancelled() => {
                answered.cancel();
                serving.await;
            }
            () = quitting.cancelled() => {
                // Running calls of the control stream end first: the reply to `Quit` is one.
                answered.cancel();
                serving.await;
            }
        }
        // A host that hangs up right after `Quit` has been heard all the same.
        if quitting.is_cancelled() {
            stop.cancel();
        }
        objects.drain().await;
        let _ = tokio::time::timeout(limits.drain, last).await;
        self.broker.close();
        self.session.close();
        let _ = tokio::time::timeout(limits.drain, self.session.closed()).await;
    }
}

/// The objects that were dispensed over one connection.
#[derive(Clone)]
struct Objects {
    broker: Arc<MuxBroker>,
    limits: ServeLimits,
    stop: CancellationToken,
    running: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl Objects {
    /// Serves `methods` to whoever dials the returned id first.
    async fn offer(&self, methods: Methods) -> Result<u32, String> {
        let id = self.broker.next_id();
        let mut listener = self.broker.accept(id).await.map_err(|e| e.to_string())?;
        let (limits, stop) = (self.limits, self.stop.clone());
        let budget = self.broker.budget();
        let mut running = self.running.lock().await;
        while running.try_join_next().is_some() {}
        running.spawn(async move {
            match tokio::time::timeout(BROKER_WAIT, listener.accept()).await {
                Ok(Ok(stream)) => {
                    drop(listener);
                    serve_within(stream, methods, limits, budget, stop).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "a dispensed object was not dialled"),
                Err(_) => tracing::debug!(id = id.0, "a dispensed object was not dialled in time"),
            }
        });
        Ok(id.0)
    }

    async fn drain(&self) {
        let mut running = self.running.lock().await;
        let all = async { while running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.limits.drain, all).await;
    }
}

/// The services of the control stream.
fn control(objects: Objects, dispense: Dispenser, quitting: CancellationToken) -> Methods {
    let object = Method::new(
        move |name: String| -> BoxFuture<'static, Result<u32, String>> {
            let (objects, dispense) = (objects.clone(), dispense.clone());
            Box::pin(async move { objects.offer(dispense(&name)?).await })
        },
    );
    let ping = Method::new(|_: bool| async { Ok::<(), String>(()) });
    let quit = Method::new(move |_: bool| {
        let quitting = quitting.clone();
        async move {
            quitting.cancel();
            Ok::<(), String>(())
        }
    });
    Methods::new()
        .with("Control", "Ping", ping)
        .with("Control", "Quit", quit)
        .with("Dispenser", "Dispense", object)
}
