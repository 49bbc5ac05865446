//! How the operations of a service are run: on the spot, or on a thread that
//! may wait.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use crate::argument::Argument;
use crate::fault::Fault;
use crate::fs::Cx;
use crate::session::{Operation, Session};

/// A stream of replies, as the generated servers take it.
pub(crate) type Replies<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// How an operation is run.
pub(crate) enum Work<Q, R> {
    /// On the spot: it waits for nothing.
    Now(fn(&Cx, &Q) -> Result<R, Fault>),
    /// On a thread that may wait.
    Blocking(fn(&Cx, &Q) -> Result<R, Fault>),
    /// The first on the spot; the second on a thread if the first finds that it
    /// would have to wait.
    Try(
        fn(&Cx, &Q) -> Option<Result<R, Fault>>,
        fn(&Cx, &Q) -> Result<R, Fault>,
    ),
}

/// The first message of a stream of requests, which the plugin must send in good
/// time.
pub(crate) async fn first<Q>(session: &Session, messages: &mut Streaming<Q>) -> Result<Q, Fault> {
    match tokio::time::timeout(session.limits().call_timeout, messages.message()).await {
        Ok(Ok(first)) => first.ok_or(Fault::abuse("the stream has no message")),
        Ok(Err(status)) => Err(Fault::unread(&status)),
        Err(_) => Err(Fault::Deadline),
    }
}

/// Runs one unary operation and records it.
pub(crate) async fn unary<Q, R>(
    session: &Arc<Session>,
    operation: Operation,
    metadata: &MetadataMap,
    message: Q,
    argument: impl FnOnce(&Q, &mut Argument),
    work: Work<Q, R>,
) -> Result<R, Fault>
where
    Q: Send + Sync + 'static,
    R: Send + 'static,
{
    let running = session.begin(operation, metadata, |shown| argument(&message, shown))?;
    let cx = running.cx();
    let (now, later) = match work {
        Work::Now(now) => (Some(now(&cx, &message)), None),
        Work::Try(now, later) => (now(&cx, &message), Some(later)),
        Work::Blocking(later) => (None, Some(later)),
    };
    let outcome = match (now, later) {
        (Some(outcome), _) => outcome,
        (None, Some(later)) => session.blocking(move |_| later(&cx, &message)).await,
        (None, None) => Err(Fault::Broken),
    };
    running.end(outcome.as_ref().err());
    outcome
}
