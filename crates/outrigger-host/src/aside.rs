//! Values whose end may block.

use std::ops::Deref;

/// A value that takes its time to be dropped, such as a directory that is removed
/// with everything in it. [`dropped`](Self::dropped) does it on a thread that may
/// wait. Otherwise it is dropped where it is: a runtime that ends at that moment
/// would not carry out what it is given.
#[derive(Debug)]
pub(crate) struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Makes one value of this one.
    pub(crate) fn map<U: Send + 'static>(mut self, change: impl FnOnce(T) -> U) -> Aside<U> {
        Aside(self.0.take().map(change))
    }

    /// Drops the value and waits until that is done.
    ///
    /// # Cancel safety
    /// The value is dropped in any case.
    pub(crate) async fn dropped(mut self) {
        let value = self.0.take();
        // When the runtime ends first, it is dropped then.
        let _ = tokio::task::spawn_blocking(move || drop(value)).await;
    }
}

impl<T: Send + 'static> Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("it is taken only by what consumes it"),
        }
    }
}
