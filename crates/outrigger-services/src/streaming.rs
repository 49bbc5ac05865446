//! Operations whose requests or replies come one after another.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Status, Streaming};

use crate::fault::Fault;
use crate::running::Running;
use crate::session::Session;

/// A stream of replies, as the generated servers take it.
pub(crate) type Replies<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// The first message of a stream of requests, which the plugin must send in good
/// time.
pub(crate) async fn first<Q>(session: &Session, messages: &mut Streaming<Q>) -> Result<Q, Fault> {
    match tokio::time::timeout(session.limits().call_timeout, messages.message()).await {
        Ok(Ok(first)) => first.ok_or(Fault::abuse("the stream has no message")),
        Ok(Err(status)) => Err(Fault::unread(&status)),
        Err(_) => Err(Fault::Deadline),
    }
}

/// What comes next in a stream of replies.
pub(crate) enum Next<R> {
    Reply(R),
    /// The last one: the operation has ended.
    Last(R),
    /// There are no more.
    End,
}

/// Where replies come from, one after another.
pub(crate) trait Source: Send + 'static {
    type Reply: Send + 'static;

    fn next(
        &mut self,
        running: &Running,
    ) -> impl Future<Output = Result<Next<Self::Reply>, Fault>> + Send;
}

/// All replies of `source`, with one record at the end. A stream that is dropped
/// before drops `source`, and is recorded as cancelled.
pub(crate) fn replies<S: Source>(running: Running, source: S) -> Replies<S::Reply> {
    replies_or(running, source, |running, fault| Err(running.fail(&fault)))
}

/// [`replies`], where `fail` ends the operation and says why to the plugin.
pub(crate) fn replies_or<S: Source>(
    running: Running,
    source: S,
    fail: fn(Running, Fault) -> Result<S::Reply, Status>,
) -> Replies<S::Reply> {
    let state = Some((running, source));
    Box::pin(futures_util::stream::unfold(
        state,
        move |state| async move {
            let (running, mut source) = state?;
            match source.next(&running).await {
                Ok(Next::Reply(reply)) => Some((Ok(reply), Some((running, source)))),
                Ok(Next::Last(reply)) => {
                    running.end(None);
                    Some((Ok(reply), None))
                }
                Ok(Next::End) => {
                    running.end(None);
                    None
                }
                Err(fault) => {
                    drop(source);
                    Some((fail(running, fault), None))
                }
            }
        },
    ))
}
