//! The net/rpc object behind a name, dispensed anew in each generation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::error::RouteError;
use super::route::{Entered, Route};
use crate::channel::Life;
use crate::connection::Connection;
use crate::netrpc::{BoxTurn, CallErrorKind, Connected, Objects, Turn};

/// The objects behind one name, of which the current generation has one at most.
pub(super) struct Dispensed(Arc<Shared>);

struct Shared {
    route: Arc<Route>,
    name: String,
    /// How long a plugin may take to make the object.
    limit: Duration,
    last: Mutex<Option<(u64, Connected)>>,
    /// One call asks for the object, the others wait for that.
    asking: tokio::sync::Mutex<()>,
}

impl Dispensed {
    pub(super) fn new(route: Arc<Route>, name: String, limit: Duration) -> Self {
        Self(Arc::new(Shared {
            route,
            name,
            limit,
            last: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }))
    }
}

impl Objects for Dispensed {
    fn turn(&self, deadline: Option<Instant>) -> BoxFuture<'_, Result<BoxTurn, CallErrorKind>> {
        self.0.clone().turn(deadline, None).boxed()
    }

    fn life(&self) -> &Life {
        &self.0.route.life
    }
}

impl Shared {
    /// A turn in another generation than `last`.
    async fn turn(
        self: Arc<Self>,
        deadline: Option<Instant>,
        last: Option<u64>,
    ) -> Result<BoxTurn, CallErrorKind> {
        let entered = self.enter(deadline, last).await?;
        let entered = match self.object_of(&entered, deadline).await {
            Ok(object) => return Ok(self.at(entered, object)),
            // Nothing was called in a generation that died before it gave an object.
            Err(_) if last.is_none() && is_gone(&entered).await => {
                let number = entered.number();
                drop(entered);
                self.enter(deadline, Some(number)).await?
            }
            Err(kind) => return Err(kind),
        };
        let object = self.object_of(&entered, deadline).await?;
        Ok(self.at(entered, object))
    }

    fn at(self: Arc<Self>, entered: Entered, object: Connected) -> BoxTurn {
        let objects = self;
        Box::new(Current {
            objects,
            entered,
            object,
        })
    }

    async fn enter(
        &self,
        deadline: Option<Instant>,
        last: Option<u64>,
    ) -> Result<Entered, CallErrorKind> {
        let now = match last {
            None => self.route.entered().map_err(CallErrorKind::Unrouted)?,
            Some(_) => None,
        };
        match now {
            Some(entered) => Ok(entered),
            None => {
                let entered = self.route.wait(deadline, last).await;
                entered.map_err(CallErrorKind::Unrouted)
            }
        }
    }

    /// The object in this generation, which is asked for it if need be.
    async fn object_of(
        &self,
        entered: &Entered,
        deadline: Option<Instant>,
    ) -> Result<Connected, CallErrorKind> {
        if let Some(object) = self.kept(entered) {
            return Ok(object);
        }
        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.limit);
        let begun = Instant::now();
        tokio::select! {
            object = self.ask(entered) => object,
            () = entered.cut() => Err(self.replaced()),
            () = tokio::time::sleep_until(deadline) => {
                let late = RouteError::starting(self.route.plugin(), begun.elapsed());
                Err(CallErrorKind::Unrouted(late))
            }
        }
    }

    async fn ask(&self, entered: &Entered) -> Result<Connected, CallErrorKind> {
        let session = match entered.connection() {
            Connection::NetRpc(session) => session,
            Connection::Grpc(_) => {
                let other = RouteError::other_protocol(self.route.plugin(), "gRPC");
                return Err(CallErrorKind::Unrouted(other));
            }
        };
        let _asking = self.asking.lock().await;
        if let Some(object) = self.kept(entered) {
            return Ok(object);
        }
        let object = session.object(&self.name, self.limit).await;
        let object = object.map_err(|error| CallErrorKind::Undispensed(Box::new(error)))?;
        *self.last() = Some((entered.number(), object.clone()));
        Ok(object)
    }

    /// The object that this generation has given.
    fn kept(&self, entered: &Entered) -> Option<Connected> {
        let last = self.last();
        let (number, object) = last.as_ref()?;
        (*number == entered.number() && !object.is_closed()).then(|| object.clone())
    }

    fn last(&self) -> MutexGuard<'_, Option<(u64, Connected)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replaced(&self) -> CallErrorKind {
        CallErrorKind::Unrouted(RouteError::replaced(self.route.plugin()))
    }
}

/// Whether the connection of this generation is over, or its calls are.
async fn is_gone(entered: &Entered) -> bool {
    let is_closed = match entered.connection() {
        Connection::Grpc(channel) => channel.is_closed(),
        Connection::NetRpc(session) => session.closed().now_or_never().is_some(),
    };
    is_closed || entered.is_cut()
}

/// A call's turn at the object of one generation.
struct Current {
    objects: Arc<Shared>,
    entered: Entered,
    object: Connected,
}

impl Turn for Current {
    fn object(&self) -> &Connected {
        &self.object
    }

    fn is_safe(&self, method: &str) -> bool {
        self.entered.safe_methods().contains(method)
    }

    fn cut(&self) -> BoxFuture<'_, CallErrorKind> {
        let cut = self.entered.cut();
        async {
            cut.await;
            self.objects.replaced()
        }
        .boxed()
    }

    fn next(
        self: Box<Self>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'static, Result<BoxTurn, CallErrorKind>> {
        let Self {
            objects, entered, ..
        } = *self;
        let number = entered.number();
        drop(entered);
        objects.turn(deadline, Some(number)).boxed()
    }
}
