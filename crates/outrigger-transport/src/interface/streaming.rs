//! Streams of messages, as methods answer with them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};

use super::error::MethodError;

/// Messages that arrive one after the other, until the other side ends the stream
/// or fails. Dropping it ends the call.
///
/// # Examples
/// ```
/// use futures_util::StreamExt;
/// use outrigger_transport::interface::{MethodError, Streaming};
///
/// // What a method answers with:
/// let numbers: Streaming<u32> = Box::pin(futures_util::stream::iter([Ok(1), Ok(2)]));
/// # futures_util::FutureExt::now_or_never(async {
/// // What the caller does with it:
/// let all: Vec<Result<u32, MethodError>> = numbers.collect().await;
/// assert_eq!(all.len(), 2);
/// # }).expect("it waits for nothing");
/// ```
pub type Streaming<T, E = MethodError> = Pin<Box<dyn Stream<Item = Result<T, E>> + Send>>;

/// A stream of what `value` makes of each message, with errors of the author's own type.
pub fn map_stream<T: 'static, U, E: 'static, F: From<E>>(
    stream: Streaming<T, E>,
    mut value: impl FnMut(T) -> U + Send + 'static,
) -> Streaming<U, F> {
    Box::pin(stream.map(move |message| Ok(value(message?))))
}
