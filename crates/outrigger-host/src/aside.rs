//! Values whose end may block.

use std::ops::Deref;

use tokio::runtime::Handle;

/// A value that takes its time to be dropped, such as a directory that is removed
/// with everything in it. Within a runtime it is dropped on a thread that may
/// wait; outside of one, or when the runtime ends, where it is.
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

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
            Err(_) => drop(value),
        }
    }
}
