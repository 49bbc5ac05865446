//! Tasks with an owner.

use tokio::task::JoinHandle;

/// A task that ends when its owner goes.
#[derive(Debug)]
pub struct OwnedTask(Option<JoinHandle<()>>);

impl OwnedTask {
    /// Runs `work` until it is done or the returned value is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(work)))
    }

    /// Whether the work is over.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the work is over. When it is known to be over, this returns at once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn finished(&mut self) {
        if let Some(task) = &mut self.0 {
            // How it ended matters to nobody: a panic has been reported.
            let _ = task.await;
            self.0 = None;
        }
    }

    /// Lets the work go on without an owner; it must have an end of its own.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
