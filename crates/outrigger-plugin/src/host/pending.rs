//! Futures that are kept between two polls.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::HostError;

/// A request on its way to the host, kept by a type that is polled. The lock is
/// never waited for: it makes the type `Sync`, although the future is not.
pub(super) struct Pending<T>(Mutex<BoxFuture<'static, Result<T, HostError>>>);

impl<T> Pending<T> {
    pub(super) fn new(work: impl Future<Output = Result<T, HostError>> + Send + 'static) -> Self {
        Self(Mutex::new(work.boxed()))
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, HostError>> {
        let work = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        work.poll_unpin(context)
    }

    pub(super) async fn finish(self) -> Result<T, HostError> {
        let work = self.0.into_inner();
        work.unwrap_or_else(PoisonError::into_inner).await
    }
}
