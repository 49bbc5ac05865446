//! The calling end.

mod connected;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use outrigger_gob::{Encode, Encoded, Gob};
use tokio::time::Instant;

pub(crate) use self::connected::Connected;
use super::{CallError, CallErrorKind, MAX_VALUE};
use crate::channel::Life;
use crate::fate::Fate;
use crate::stream::Stream;

/// Calls the methods of one net/rpc object. Clones share it.
///
/// [`new`](Self::new) makes one of a connection, and the last clone to go closes that.
/// [`Router::object`](crate::Router::object) gives one whose calls go where the router
/// says at that time.
///
/// # Examples
/// ```
/// use outrigger_transport::netrpc::{CallError, Client};
///
/// async fn greet(client: &Client) -> Result<String, CallError> {
///     client.call("Plugin.Greet", &()).await
/// }
/// ```
#[derive(Clone)]
pub struct Client(Way);

#[derive(Clone)]
enum Way {
    Connected(Connected),
    Routed(Arc<dyn Objects>),
}

/// One object after another behind one name.
pub(crate) trait Objects: Send + Sync {
    /// Waits for an object, until `deadline` if there is one.
    fn turn(&self, deadline: Option<Instant>) -> BoxFuture<'_, Result<BoxTurn, CallErrorKind>>;

    /// Whether there will be another one.
    fn life(&self) -> &Life;
}

pub(crate) type BoxTurn = Box<dyn Turn>;

/// One call's turn at one of the objects.
pub(crate) trait Turn: Send + Sync {
    fn object(&self) -> &Connected;

    /// Whether `method` may be called twice.
    fn is_safe(&self, method: &str) -> bool;

    /// Waits until the calls of this object are cut off.
    fn cut(&self) -> BoxFuture<'_, CallErrorKind>;

    /// Waits for another object than this, which is gone.
    fn next(
        self: Box<Self>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'static, Result<BoxTurn, CallErrorKind>>;
}

/// How long a call may take.
struct Limit {
    whole: Duration,
    deadline: Instant,
}

/// A reply that has not been given a type yet.
#[derive(Clone, Debug)]
pub struct Reply {
    method: Arc<str>,
    encoded: Encoded,
}

impl Reply {
    fn new(method: &str, encoded: Encoded) -> Self {
        let method = method.into();
        Self { method, encoded }
    }

    /// The reply as a `T`.
    ///
    /// # Errors
    /// It is something else.
    pub fn decode<T: Gob>(&self) -> Result<T, CallError> {
        self.encoded
            .decode()
            .map_err(|error| CallError::new(&self.method, CallErrorKind::Reply(error)))
    }

    /// The reply as it came.
    pub fn encoded(&self) -> &Encoded {
        &self.encoded
    }
}

impl Client {
    /// Calls over `stream`; `fate` explains why the peer is gone.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(stream: Stream, fate: Fate) -> Self {
        Connected::new(stream, fate, MAX_VALUE).into()
    }

    /// Calls whichever of `objects` has its turn.
    pub(crate) fn routed(objects: impl Objects + 'static) -> Self {
        Self(Way::Routed(Arc::new(objects)))
    }

    /// Calls `method`, such as `Plugin.Get`, and waits for its reply as long as
    /// the connection lives.
    ///
    /// # Errors
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    /// When the future is dropped the method may still run; its reply is dropped.
    pub async fn call<A: Encode + ?Sized, R: Gob>(
        &self,
        method: &str,
        argument: &A,
    ) -> Result<R, CallError> {
        self.call_encoded(method, argument).await?.decode()
    }

    /// [`call`](Self::call) that waits no longer than `limit`.
    ///
    /// # Errors
    /// See [`CallErrorKind`].
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_within<A: Encode + ?Sized, R: Gob>(
        &self,
        limit: Duration,
        method: &str,
        argument: &A,
    ) -> Result<R, CallError> {
        // A limit beyond all times is none.
        let deadline = Instant::now().checked_add(limit);
        let limit = deadline.map(|deadline| Limit {
            whole: limit,
            deadline,
        });
        self.reply(method, argument, limit.as_ref()).await?.decode()
    }

    /// [`call`](Self::call) for replies whose type is not known beforehand.
    ///
    /// # Errors
    /// As [`call`](Self::call), but for the reply's type.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_encoded<A: Encode + ?Sized>(
        &self,
        method: &str,
        argument: &A,
    ) -> Result<Reply, CallError> {
        self.reply(method, argument, None).await
    }

    async fn reply<A: Encode + ?Sized>(
        &self,
        method: &str,
        argument: &A,
        limit: Option<&Limit>,
    ) -> Result<Reply, CallError> {
        let sent = AtomicBool::new(false);
        match &self.0 {
            Way::Connected(object) => object.call(method, argument, limit, &sent).await,
            Way::Routed(objects) => routed(&**objects, method, argument, limit).await,
        }
    }

    /// Waits until the connection is over, or the router.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) {
        match &self.0 {
            Way::Connected(object) => object.closed().await,
            Way::Routed(objects) => objects.life().over().await,
        }
    }

    /// Whether the connection is over, or the router.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Way::Connected(object) => object.is_closed(),
            Way::Routed(objects) => objects.life().is_over(),
        }
    }
}

impl From<Connected> for Client {
    fn from(object: Connected) -> Self {
        Self(Way::Connected(object))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A call that is made once more at most: where nothing of it was sent, or where it is
/// safe.
async fn routed<A: Encode + ?Sized>(
    objects: &dyn Objects,
    method: &str,
    argument: &A,
    limit: Option<&Limit>,
) -> Result<Reply, CallError> {
    let deadline = limit.map(|limit| limit.deadline);
    let turn = objects.turn(deadline).await;
    let turn = turn.map_err(|kind| CallError::new(method, kind))?;
    let sent = AtomicBool::new(false);
    let failed = match attempt(&*turn, method, argument, limit, &sent).await {
        Ok(reply) => return Ok(reply),
        Err(failed) => failed,
    };
    let is_lost = matches!(
        failed.kind(),
        CallErrorKind::Lost(_) | CallErrorKind::Unrouted(_)
    );
    if !is_lost || (sent.load(Ordering::Relaxed) && !turn.is_safe(method)) {
        return Err(failed);
    }
    match turn.next(deadline).await {
        Ok(next) => attempt(&*next, method, argument, limit, &sent).await,
        Err(_) => Err(failed),
    }
}

/// Makes the call to one object.
async fn attempt<A: Encode + ?Sized>(
    turn: &dyn Turn,
    method: &str,
    argument: &A,
    limit: Option<&Limit>,
    sent: &AtomicBool,
) -> Result<Reply, CallError> {
    tokio::select! {
        biased;
        reply = turn.object().call(method, argument, limit, sent) => reply,
        kind = turn.cut() => Err(CallError::new(method, kind)),
    }
}
